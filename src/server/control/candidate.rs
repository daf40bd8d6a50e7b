//! `/v1/policy/candidate`: a policy that is asked beside the one in force; and `POST /v1/policy/promote`, which puts it there.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::super::App;
use super::super::request::{Expected, json_body};
use super::super::respond::{self, Response, error};
use super::{fleet, policy};
use crate::policy::shadow::Share;
use crate::rollout::{Change, What};

/// `GET /v1/policy/candidate`
pub async fn get(app: &App) -> Response {
    match app.gate.beside().shadow().candidate() {
        Some(candidate) => respond::json(StatusCode::OK, &json!(candidate.report())),
        None => none(),
    }
}

/// `PUT /v1/policy/candidate`
pub async fn put(app: &App, request: Request<Incoming>) -> Response {
    let share = match share(request.uri().query(), app.config.shadow.share) {
        Ok(share) => Share { share, concurrency: app.config.shadow.concurrency },
        Err(text) => return error(StatusCode::BAD_REQUEST, "invalid_query", text),
    };
    let (artifact, _place) = match policy::body(app, request).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    match app.rollout.propose(artifact, share).await {
        Ok(candidate) => respond::json(StatusCode::OK, &json!(candidate.report())),
        Err(refused) => policy::refused(&refused),
    }
}

/// `DELETE /v1/policy/candidate`: what came of it, for the last time.
pub async fn delete(app: &App) -> Response {
    match app.rollout.withdraw() {
        Some(candidate) => respond::json(StatusCode::OK, &json!(candidate.report())),
        None => none(),
    }
}

/// What `POST /v1/policy/promote` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    /// Only if the candidate is this one.
    #[serde(default)]
    digest: Option<String>,
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
    let Promote { digest } = match json_body(request, 1 << 10, expected).await {
        Ok(promote) => promote,
        Err(response) => return *response,
    };
    let Some(candidate) = app.gate.beside().shadow().candidate() else { return none() };
    let is = candidate.policy().digest();
    if digest.is_some_and(|digest| digest != **is) {
        return error(StatusCode::PRECONDITION_FAILED, "other_candidate", format!("the candidate is {is}"));
    }
    if let Some(followed) = followed {
        if let Some(refusal) = policy::unwanted(app, &headers) {
            return refusal;
        }
        let Some(artifact) = app.rollout.artifact_of(&candidate) else { return none() };
        let response = fleet::put(followed, artifact, false, within).await;
        if response.status().is_success() {
            app.rollout.promoted(&candidate);
        }
        return policy::tagged(response, app.gate.in_force().as_deref());
    }
    let wanted = policy::wanted(&headers);
    policy::answer(app, Change { what: What::Proposed(candidate), dry_run: false, wanted, within }).await
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
