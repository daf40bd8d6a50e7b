//! `/v1/policy`: reads, replaces and rolls back the active policy.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, Request, StatusCode, Uri};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::SemaphorePermit;

use crate::artifact::bundle::PolicyBundle;
use crate::config::policy::PolicyMode;
use crate::policy::info::PolicyInfo;
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::replace::{Precondition, Replacement, ReplacementRequest, ReplacementSource};
use crate::server::api_error::ApiError;
use crate::server::app::{App, MAX_POLICY_UPLOADS};
use crate::server::body::{ExpectedBody, from_json, json_body, json_bytes, read_body};
use crate::server::control::fleet;
use crate::server::control::fleet::RollbackRequest;
use crate::server::control::params::Params;
use crate::server::respond;
use crate::server::respond::{Response, with_etag};
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// Largest JSON body in bytes: base64 is a third longer than the component; cases and signature are small.
const MAX_BUNDLE_BYTES: usize = MAX_COMPONENT_BYTES as usize / 3 * 4 + 2 * MAX_CASES + (64 << 10);
/// Largest body of the requests without a component, in bytes.
pub const MAX_COMMAND_BYTES: usize = 8 << 10;

const DRY_RUN: &str = "dry-run";
const TIMEOUT: &str = "timeout-ms";
/// An hour, in ms; a client that wants to wait longer repeats the request.
const MAX_TIMEOUT_MS: u64 = 3_600_000;

/// JSON body of `PUT /v1/policy`.
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
    let digest = active.as_ref().map(|info| &*info.digest);
    if let (Some(info), Some(known)) = (&active, Tags::of(request.headers(), &IF_NONE_MATCH))
        && known.contain(Some(info))
    {
        return with_etag(respond::empty(StatusCode::NOT_MODIFIED), digest);
    }
    with_etag(respond::json(StatusCode::OK, &app.rollout.status_json()), digest)
}

/// `PUT /v1/policy`
pub async fn put(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let managing = fleet::managing(app);
    if managing.is_none() {
        check_managed_here(app)?;
    }
    let (params, timeout) = timeout(request.uri(), &[DRY_RUN])?;
    let dry_run = match params.text(DRY_RUN) {
        None => false,
        Some("" | "true") => true,
        Some(_) => return Err(ApiError::InvalidParameter("dry-run must be true, or absent".into())),
    };
    let headers = request.headers().clone();
    let (artifact, _permit) = upload(app, request).await?;
    if let Some(fleet) = managing {
        check_preconditions(app, &headers)?;
        return Ok(tagged(app, fleet::put(fleet, artifact, dry_run, timeout).await?));
    }
    let (source, precondition) = (ReplacementSource::Bundle(artifact), preconditions(&headers));
    change(app, ReplacementRequest { source, dry_run, precondition, timeout }).await
}

/// `POST /v1/policy/rollback`
pub async fn rollback(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let (_, timeout) = timeout(request.uri(), &[])?;
    let headers = request.headers().clone();
    let expected = ExpectedBody { code: "invalid_rollback", example: "{}" };
    let body: RollbackRequest = json_body(request, MAX_COMMAND_BYTES, &expected).await?;
    if let Some(fleet) = fleet::managing(app) {
        check_preconditions(app, &headers)?;
        return Ok(tagged(app, fleet::rollback(fleet, body, timeout).await?));
    }
    check_managed_here(app)?;
    if !body.is_plain() {
        return Err(ApiError::NoFleet(
            "a gateway with a policy of its own rolls back to the previous one: `to` and `signature` are for a fleet",
        ));
    }
    let (source, precondition) = (ReplacementSource::Previous, preconditions(&headers));
    change(app, ReplacementRequest { source, dry_run: false, precondition, timeout }).await
}

/// The parameters of a change, and its `timeout-ms`.
pub fn timeout<'a>(uri: &'a Uri, known: &[&str]) -> Result<(Params<'a>, Option<Duration>), ApiError> {
    let params = Params::read(uri, &[known, &[TIMEOUT]].concat())?;
    let timeout = params.number(TIMEOUT, 1, MAX_TIMEOUT_MS)?;
    Ok((params, timeout.map(Duration::from_millis)))
}

/// Fails where the policy cannot be changed through this port.
pub fn check_managed_here(app: &App) -> Result<(), ApiError> {
    if app.config.policy_mode == PolicyMode::Fleet {
        let text = "the fleet manages the policy (policy.source): use `tidegate policy push` and `rollback`";
        return Err(ApiError::PolicyNotManagedHere(text));
    }
    if app.authorizer.compiler().is_none() {
        return Err(ApiError::PolicyNotManagedHere("this gateway allows all requests (allow-all) and has no policy"));
    }
    Ok(())
}

/// The policy in a request's body, with a permit to hold until it was processed.
pub async fn upload(app: &App, request: Request<Incoming>) -> Result<(PolicyBundle, SemaphorePermit<'_>), ApiError> {
    let permit = app.policy_uploads.try_acquire().map_err(|_| ApiError::TooManyUploads { max: MAX_POLICY_UPLOADS })?;
    Ok((artifact(request).await?, permit))
}

async fn artifact(request: Request<Incoming>) -> Result<PolicyBundle, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind.eq_ignore_ascii_case("application/wasm") {
        let component = read_body(request.into_body(), MAX_COMPONENT_BYTES as usize).await?;
        return off_runtime(move || Ok(PolicyBundle::new(component))).await;
    }
    if kind.is_empty() || !kind.to_ascii_lowercase().starts_with("application/json") {
        return Err(ApiError::UnsupportedMediaType {
            expected: "the body must be a component, with content-type: application/wasm, or JSON with component (in base64), cases and signature",
        });
    }
    let body = json_bytes(request, MAX_BUNDLE_BYTES).await?;
    off_runtime(move || {
        let (code, example) = ("invalid_policy", r#"{"component":"AGFzbQ…","cases":"[[case]]…"}"#);
        let bundle: Bundle = from_json(&body, &ExpectedBody { code, example })?;
        let component = STANDARD.decode(bundle.component).map_err(|cause| ApiError::InvalidBody {
            code,
            reason: format!("component is not base64: {cause}; right would be {example}"),
        })?;
        Ok(PolicyBundle { cases: bundle.cases, signature: bundle.signature, ..PolicyBundle::new(component) })
    })
    .await
}

/// Decodes and hashes on a blocking thread: for a large component that takes longer than a runtime worker may be blocked.
async fn off_runtime(
    work: impl FnOnce() -> Result<PolicyBundle, ApiError> + Send + 'static,
) -> Result<PolicyBundle, ApiError> {
    tokio::task::spawn_blocking(work).await?
}

/// Runs the activation pipeline.
pub async fn change(app: &App, change: ReplacementRequest) -> Result<Response, ApiError> {
    match app.rollout.replace(change).await? {
        Replacement::Activated { info, not_persisted } => {
            let body = json!({ "active": *info, "not_persisted_reason": not_persisted });
            Ok(with_etag(respond::json(StatusCode::OK, &body), Some(&info.digest)))
        }
        Replacement::Passed { digest, cases } => {
            Ok(respond::json(StatusCode::OK, &json!({ "dry_run": true, "digest": digest, "cases_passed": cases })))
        }
    }
}

/// Adds the entity tag of the active policy.
pub fn tagged(app: &App, response: Response) -> Response {
    let active = app.authorizer.active();
    with_etag(response, active.as_ref().map(|info| &*info.digest))
}

/// Fails if `if-match` or `if-none-match` does not allow a change of the active policy.
pub fn check_preconditions(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let active = app.authorizer.active();
    if preconditions(headers)(active.as_deref()) { Ok(()) } else { Err(ApiError::PreconditionFailed { active }) }
}

/// Whether `if-match` and `if-none-match` allow a change, given the active policy.
pub fn preconditions(headers: &HeaderMap) -> Precondition {
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
    use http::header::HeaderValue;

    use super::*;
    use crate::policy::info::PolicyOrigin;

    #[test]
    fn if_match_and_if_none_match_allow_or_forbid_a_change() {
        let info = PolicyInfo {
            generation: 1,
            digest: "sha256:1".into(),
            cases: None,
            since: 0,
            origin: PolicyOrigin::default(),
        };
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
            let wanted = preconditions(&headers);
            assert_eq!((wanted(Some(&info)), wanted(None)), (with, without), "{name}: {value}");
        }
    }
}
