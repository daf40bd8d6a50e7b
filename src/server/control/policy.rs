//! `/v1/policy`: what is in force, another one in its place, and back.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, Request, StatusCode, Uri};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::SemaphorePermit;

use crate::artifact::bundle::PolicyBundle;
use crate::config::PolicyMode;
use crate::policy::info::PolicyInfo;
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::replace::{Precondition, ReplaceError, Replacement, ReplacementRequest, ReplacementSource};
use crate::rollout::stage::ActivationError;
use crate::server::App;
use crate::server::control::fleet;
use crate::server::control::params::Params;
use crate::server::request::{Expected, body_of, from_json, json_body, json_bytes};
use crate::server::respond;
use crate::server::respond::{Response, error};
use crate::wasm::load_error::MAX_SIZE;

/// Base64 has a third more; cases and signature are small.
const MAX_BUNDLE: usize = MAX_SIZE as usize / 3 * 4 + 2 * MAX_CASES + (64 << 10);
/// Policies that are sent at once: one on its way, one that waits for its turn, and who comes to overtake it; each of which may have some 90 MB.
pub const BODIES: usize = 4;

/// The parameters of a change.
const DRY_RUN: &str = "dry-run";
const TIMEOUT: &str = "timeout-ms";
/// An hour; whoever wants to wait longer asks again.
const MAX_TIMEOUT: u64 = 3_600_000;

/// A component with what travels with it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    component: String,
    #[serde(default)]
    cases: Option<String>,
    #[serde(default)]
    signature: Option<String>,
}

/// `GET /v1/policy`
pub fn get(app: &App, request: &Request<Incoming>) -> Response {
    let active = app.authorizer.active();
    if let (Some(info), Some(known)) = (&active, Tags::of(request.headers(), &IF_NONE_MATCH))
        && known.contain(Some(info))
    {
        return tagged(respond::empty(StatusCode::NOT_MODIFIED), Some(info));
    }
    tagged(respond::json(StatusCode::OK, &app.rollout.status_json()), active.as_deref())
}

/// `PUT /v1/policy`
pub async fn put(app: &App, request: Request<Incoming>) -> Response {
    let followed = fleet::followed(app);
    if let (None, Some(refusal)) = (followed, not_here(app)) {
        return refusal;
    }
    let (dry_run, within) = match within(request.uri(), &[DRY_RUN]) {
        Ok((params, within)) => match params.text(DRY_RUN) {
            None => (false, within),
            Some("" | "true") => (true, within),
            Some(_) => return error(StatusCode::BAD_REQUEST, "invalid_parameter", "dry-run is true, or is not there"),
        },
        Err(response) => return *response,
    };
    let headers = request.headers().clone();
    let (artifact, _place) = match body(app, request).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    if let Some(followed) = followed {
        return match unwanted(app, &headers) {
            Some(refusal) => refusal,
            None => tagged(fleet::put(followed, artifact, dry_run, within).await, app.authorizer.active().as_deref()),
        };
    }
    let (source, precondition) = (ReplacementSource::Bundle(artifact), wanted(&headers));
    answer(app, ReplacementRequest { source, dry_run, precondition, timeout: within }).await
}

/// `POST /v1/policy/rollback`
pub async fn rollback(app: &App, request: Request<Incoming>) -> Response {
    let within = match within(request.uri(), &[]) {
        Ok((_, within)) => within,
        Err(response) => return *response,
    };
    let headers = request.headers().clone();
    let expected = Expected { error: "invalid_rollback", example: "{}" };
    let back = match json_body::<fleet::Back>(request, 8 << 10, expected).await {
        Ok(back) => back,
        Err(response) => return *response,
    };
    if let Some(followed) = fleet::followed(app) {
        return match unwanted(app, &headers) {
            Some(refusal) => refusal,
            None => tagged(fleet::rollback(followed, back, within).await, app.authorizer.active().as_deref()),
        };
    }
    if let Some(refusal) = not_here(app) {
        return refusal;
    }
    if !back.is_plain() {
        let text =
            "a gateway with a policy of its own goes back to the one before, and takes neither `to` nor `signature`";
        return error(StatusCode::CONFLICT, "no_fleet", text);
    }
    let (source, precondition) = (ReplacementSource::Previous, wanted(&headers));
    answer(app, ReplacementRequest { source, dry_run: false, precondition, timeout: within }).await
}

/// The parameters of a change, and the time that it may take.
pub fn within<'a>(uri: &'a Uri, known: &[&str]) -> Result<(Params<'a>, Option<Duration>), Box<Response>> {
    let params = Params::read(uri, &[known, &[TIMEOUT]].concat())?;
    let within = params.number(TIMEOUT, 1, MAX_TIMEOUT)?;
    Ok((params, within.map(Duration::from_millis)))
}

/// Whether the policy is somebody else's to change.
pub fn not_here(app: &App) -> Option<Response> {
    let text = if app.config.door == PolicyMode::Fleet {
        "the policy is the fleet's (policy.source): `tidegate policy push` and `rollback` change it"
    } else if app.authorizer.compiler().is_none() {
        "this gateway lets everybody in (allow-all), so no policy is asked"
    } else {
        return None;
    };
    Some(error(StatusCode::CONFLICT, "no_policy_here", text))
}

/// The policy that a request brings. Its place is held until it is done with.
pub async fn body(app: &App, request: Request<Incoming>) -> Result<(PolicyBundle, SemaphorePermit<'_>), Box<Response>> {
    let Ok(place) = app.policy_bodies.try_acquire() else {
        let text = format!("{BODIES} policies are being sent already; try again");
        return Err(Box::new(error(StatusCode::SERVICE_UNAVAILABLE, "busy", text)));
    };
    Ok((artifact(request).await?, place))
}

async fn artifact(request: Request<Incoming>) -> Result<PolicyBundle, Box<Response>> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind.eq_ignore_ascii_case("application/wasm") {
        let component = body_of(request, MAX_SIZE as usize).await?;
        return aside(move || Ok(PolicyBundle::new(component))).await;
    }
    if kind.is_empty() || !kind.to_ascii_lowercase().starts_with("application/json") {
        let text = "the body is a component, with content-type: application/wasm, or JSON with component (in base64), cases and signature";
        return Err(Box::new(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_a_policy", text)));
    }
    let example = r#"{"component":"AGFzbQ…","cases":"[[case]]…"}"#;
    let body = json_bytes(request, MAX_BUNDLE).await?;
    aside(move || {
        let bundle: Bundle = from_json(&body, &Expected { error: "invalid_policy", example })?;
        let component = STANDARD.decode(bundle.component).map_err(|cause| {
            let text = format!("component is no base64: {cause}; right would be {example}");
            Box::new(error(StatusCode::BAD_REQUEST, "invalid_policy", text))
        })?;
        Ok(PolicyBundle { cases: bundle.cases, signature: bundle.signature, ..PolicyBundle::new(component) })
    })
    .await
}

/// Takes what was sent apart, and its digest: for a large one, longer than a thread that serves streams has.
async fn aside(
    work: impl FnOnce() -> Result<PolicyBundle, Box<Response>> + Send + 'static,
) -> Result<PolicyBundle, Box<Response>> {
    let failed = |cause| Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, "not_read", cause));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|cause| Err(failed(cause)))
}

/// Makes a change, and says what came of it.
pub async fn answer(app: &App, change: ReplacementRequest) -> Response {
    match app.rollout.replace(change).await {
        Ok(Replacement::Activated { info, not_persisted }) => {
            let body = json!({ "in_force": *info, "until_restart_because": not_persisted });
            tagged(respond::json(StatusCode::OK, &body), Some(&info))
        }
        Ok(Replacement::Passed { digest, cases }) => {
            respond::json(StatusCode::OK, &json!({ "dry_run": true, "digest": digest, "cases": cases }))
        }
        Err(ReplaceError::Superseded) => {
            let text = "another policy was sent after this one, while it waited for its turn".to_owned();
            error(StatusCode::CONFLICT, "overtaken", text)
        }
        Err(ReplaceError::PreconditionFailed(info)) => not_in_force(info.as_deref()),
        Err(ReplaceError::ShadowReplaced) => {
            let text = "another candidate took its place, or none".to_owned();
            error(StatusCode::CONFLICT, "withdrawn", text)
        }
        Err(ReplaceError::NoPreviousPolicy(why)) => {
            error(StatusCode::CONFLICT, "nothing_before", format!("cannot roll back: {why}"))
        }
        Err(ReplaceError::TimedOut(within)) => {
            let text = format!("after {within:?} it had not come through all stages; nothing was changed");
            error(StatusCode::SERVICE_UNAVAILABLE, "not_prepared", text)
        }
        Err(ReplaceError::Activation(refused)) => crate::server::control::policy::refused(&refused),
    }
}

/// A stage was not reached.
pub fn refused(refused: &ActivationError) -> Response {
    let (stage, digest) = (refused.stage, &refused.digest);
    let error = json!({ "code": "refused", "message": refused.to_string(), "stage": stage, "digest": digest });
    respond::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": error }))
}

/// Says what is in force.
pub fn tagged(mut response: Response, active: Option<&PolicyInfo>) -> Response {
    if let Some(info) = active
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", info.digest))
    {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The refusal of what is not wanted any more, given what is in force.
pub fn unwanted(app: &App, headers: &HeaderMap) -> Option<Response> {
    let active = app.authorizer.active();
    (!wanted(headers)(active.as_deref())).then(|| not_in_force(active.as_deref()))
}

fn not_in_force(info: Option<&PolicyInfo>) -> Response {
    let text = info.map_or("nothing", |info| &info.digest);
    let text = format!("{text} is in force, which is not what if-match or if-none-match wants");
    tagged(error(StatusCode::PRECONDITION_FAILED, "not_in_force", text), info)
}

/// What the request says of what has to be in force, or has not.
pub fn wanted(headers: &HeaderMap) -> Precondition {
    let (matches, others) = (Tags::of(headers, &IF_MATCH), Tags::of(headers, &IF_NONE_MATCH));
    Box::new(move |active| {
        let is = |tags: &Tags| tags.contain(active);
        matches.as_ref().is_none_or(is) && !others.as_ref().is_some_and(is)
    })
}

/// The entity tags of a header.
struct Tags(Vec<String>);

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
        let tags: Vec<String> = values.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).collect();
        if tags.is_empty() { None } else { Some(Self(tags)) }
    }

    fn contain(&self, active: Option<&PolicyInfo>) -> bool {
        let Some(info) = active else { return false };
        let is = |tag: &String| {
            tag == "*" || tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(&*info.digest)
        };
        self.0.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::info::PolicyOrigin;

    #[test]
    fn conditions() {
        let info =
            PolicyInfo { number: 1, digest: "sha256:1".into(), cases: None, since: 0, origin: PolicyOrigin::default() };
        for (name, value, with, without) in [
            ("x", "", true, true),
            ("if-match", "\"sha256:1\"", true, false),
            ("if-match", "\"sha256:2\", \"sha256:1\"", true, false),
            ("if-match", "\"sha256:2\"", false, false),
            ("if-match", "W/\"sha256:1\"", false, false),
            ("if-match", "sha256:1", false, false),
            ("if-match", "*", true, false),
            ("if-none-match", "*", false, true),
            ("if-none-match", "\"sha256:1\"", false, true),
            ("if-none-match", "\"sha256:2\"", true, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let wanted = wanted(&headers);
            assert_eq!((wanted(Some(&info)), wanted(None)), (with, without), "{name}: {value}");
        }
    }
}
