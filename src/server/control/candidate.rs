//! `/v1/policy/candidate`: a policy that is asked beside the one in force, here or on all nodes of a fleet; and `POST /v1/policy/promote`,
//! which puts it there.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::bundle::PolicyBundle;
use crate::fleet::node::Fleet;
use crate::fleet::shadow::push;
use crate::fleet::shadow::push::{NoShadowPolicy, SampleRate, ShadowPush, ShadowStatus, WORDS};
use crate::rollout::replace::{ReplacementRequest, ReplacementSource};
use crate::server::App;
use crate::server::control::{fleet, policy};
use crate::server::request::{Expected, json_body};
use crate::server::respond;
use crate::server::respond::{Response, error};
use crate::shadow::shadow_policy::ShadowSampling;

/// `GET /v1/policy/candidate`
pub async fn get(app: &App) -> Response {
    let own = app.shadow.candidate();
    match fleet::followed(app) {
        None => own.map_or_else(none, |own| respond::json(StatusCode::OK, &json!(own.report()))),
        Some(followed) => match push::told(followed.store()).await {
            Ok(told) => respond::json(StatusCode::OK, &with_own(app, &told)),
            // The node's own, of its configuration.
            Err(cause) => match own {
                Some(own) if matches!(cause, NoShadowPolicy::None | NoShadowPolicy::Store(_)) => {
                    respond::json(StatusCode::OK, &json!(own.report()))
                }
                _ => refusal(&cause),
            },
        },
    }
}

/// `PUT /v1/policy/candidate`
pub async fn put(app: &App, request: Request<Incoming>) -> Response {
    let share = match share(request.uri().query(), app.live().shadow.share) {
        Ok(share) => share,
        Err(text) => return error(StatusCode::BAD_REQUEST, "invalid_query", text),
    };
    let (artifact, _place) = match policy::body(app, request).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    if let Some(followed) = fleet::followed(app) {
        return propose(app, followed, artifact, share).await;
    }
    match app.rollout.start_shadow(artifact, ShadowSampling { share, concurrency: app.config.limits.shadow }).await {
        Ok(candidate) => respond::json(StatusCode::OK, &json!(candidate.report())),
        Err(refused) => policy::refused(&refused),
    }
}

/// Gives it to all nodes, and tells what they make of it.
async fn propose(app: &App, followed: &Arc<Fleet>, artifact: PolicyBundle, share: f64) -> Response {
    let bundle = match fleet::bundle(artifact) {
        Ok(bundle) => bundle,
        Err(response) => return *response,
    };
    let share = match SampleRate::try_from(share) {
        Ok(share) => share,
        Err(text) => return error(StatusCode::BAD_REQUEST, "invalid_query", text),
    };
    let store = followed.store();
    let given = match push::propose(store, &bundle, share).await {
        Ok(given) => given,
        Err(cause) => return fleet::refusal(&cause),
    };
    match push::told_by_all(store, &given, WORDS).await {
        Ok(told) => respond::json(StatusCode::OK, &with_own(app, &told)),
        Err(cause) => respond::store_error(&cause),
    }
}

/// `DELETE /v1/policy/candidate`: what came of it, for the last time.
pub async fn delete(app: &App) -> Response {
    if let Some(followed) = fleet::followed(app) {
        match push::withdraw(followed.store()).await {
            Ok(Some(told)) => return respond::json(StatusCode::OK, &with_own(app, &told)),
            Ok(None) => return respond::json(StatusCode::OK, &json!({ "unreadable": true })),
            Err(NoShadowPolicy::None) => {}
            Err(cause) => return refusal(&cause),
        }
    }
    match app.rollout.take_shadow() {
        Some(candidate) => respond::json(StatusCode::OK, &json!(candidate.report())),
        None => none(),
    }
}

/// The fleet's candidate, with this node's disagreements.
fn with_own(app: &App, told: &ShadowStatus) -> Value {
    let mut body = json!(told);
    let own = app.shadow.candidate().filter(|own| **own.policy().digest() == *told.digest.to_string());
    body["disagreements"] = own.map_or_else(|| json!([]), |own| json!(own.report().disagreements));
    body
}

/// What `POST /v1/policy/promote` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    /// Only if the candidate is this one.
    #[serde(default)]
    digest: Option<String>,
    /// Over it, under a new number: that with which the fleet got it may be behind what was pushed since.
    #[serde(default)]
    signature: Option<String>,
}

/// `POST /v1/policy/promote`
pub async fn promote(app: &App, request: Request<Incoming>) -> Response {
    let followed = fleet::followed(app);
    if let (None, Some(refusal)) = (followed, policy::not_here(app)) {
        return refusal;
    }
    let within = match policy::within(request.uri(), &[]) {
        Ok((_, within)) => within,
        Err(response) => return *response,
    };
    let headers = request.headers().clone();
    let expected = Expected { error: "invalid_promote", example: r#"{"digest":"sha256:…"}, or {}"# };
    let wish: Promote = match json_body(request, 8 << 10, expected).await {
        Ok(wish) => wish,
        Err(response) => return *response,
    };
    if let Some(followed) = followed {
        return match policy::unwanted(app, &headers) {
            Some(refusal) => refusal,
            None => promote_on_all(app, followed, wish, within).await,
        };
    }
    let Some(candidate) = app.shadow.candidate() else { return none() };
    if let Some(refusal) = other_than(wish.digest.as_deref(), candidate.policy().digest()) {
        return refusal;
    }
    if wish.signature.is_some() {
        let text =
            "the candidate of a gateway with a policy of its own is put in force with the signature that it came with";
        return error(StatusCode::CONFLICT, "no_fleet", text);
    }
    let (source, precondition) = (ReplacementSource::Shadow(candidate), policy::wanted(&headers));
    policy::answer(app, ReplacementRequest { source, dry_run: false, precondition, timeout: within }).await
}

/// A push of the fleet's candidate; without one, of this node's own.
async fn promote_on_all(app: &App, followed: &Arc<Fleet>, wish: Promote, within: Option<Duration>) -> Response {
    let own = app.shadow.candidate();
    let (artifact, own) = match (push::proposal(followed.store()).await, own) {
        (Ok(ShadowPush { pointer, .. }), _) => {
            if let Some(refusal) = other_than(wish.digest.as_deref(), &pointer.component.to_string()) {
                return refusal;
            }
            match pointer.fetch(followed.store()).await {
                Ok(artifact) => (artifact, None),
                Err(cause) => return error(StatusCode::CONFLICT, "withdrawn", cause),
            }
        }
        (Err(NoShadowPolicy::None), Some(own)) => {
            if let Some(refusal) = other_than(wish.digest.as_deref(), own.policy().digest()) {
                return refusal;
            }
            let Some(artifact) = app.rollout.shadow_bundle(&own) else { return none() };
            (artifact, Some(own))
        }
        (Err(cause), _) => return refusal(&cause),
    };
    let signature = wish.signature.or_else(|| artifact.signature.clone());
    let response = fleet::put(followed, PolicyBundle { signature, ..artifact }, false, within).await;
    if let Some(own) = own.filter(|_| response.status().is_success()) {
        app.rollout.stop_shadow(&own);
    }
    policy::tagged(response, app.authorizer.active().as_deref())
}

fn other_than(wanted: Option<&str>, is: &str) -> Option<Response> {
    let text = || format!("the candidate is {is}");
    wanted.filter(|wanted| *wanted != is).map(|_| error(StatusCode::PRECONDITION_FAILED, "other_candidate", text()))
}

fn refusal(cause: &NoShadowPolicy) -> Response {
    match cause {
        NoShadowPolicy::Store(cause) => respond::store_error(cause),
        NoShadowPolicy::None => none(),
        NoShadowPolicy::Unreadable(_) => error(StatusCode::CONFLICT, "unreadable", cause),
        NoShadowPolicy::Moved => error(StatusCode::CONFLICT, "withdrawn", cause),
    }
}

fn none() -> Response {
    let text = "there is no candidate: PUT one to /v1/policy/candidate (`tidegate policy shadow`)";
    error(StatusCode::NOT_FOUND, "no_candidate", text)
}

fn share(query: Option<&str>, default: f64) -> Result<f64, String> {
    let wrong = || "this path takes ?share=0.1, from 0 to 1, and nothing else".to_owned();
    match query.unwrap_or_default() {
        "" => Ok(default),
        query => {
            let share = query.strip_prefix("share=").and_then(|share| share.parse::<f64>().ok());
            share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (query, expect) in [
            (None, Some(0.1)),
            (Some(""), Some(0.1)),
            (Some("share=0.5"), Some(0.5)),
            (Some("share=1"), Some(1.0)),
            (Some("share=0"), Some(0.0)),
            (Some("share=2"), None),
            (Some("share=NaN"), None),
            (Some("share=-0.5"), None),
            (Some("share="), None),
            (Some("part=1"), None),
        ] {
            assert_eq!(share(query, 0.1).ok(), expect, "{query:?}");
        }
    }
}
