//! `GET /v1/fleet`, and `/v1/policy` on a node whose policy is the fleet's: what is put here is pushed to all.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::App;
use super::super::respond::{self, Response, error};
use crate::fleet::push::{self, Bundle, How, PushError};
use crate::fleet::{Fleet, View};
use crate::policy::digest::Digest;
use crate::policy::signature::Signature;
use crate::rollout::{Artifact, Stage};

/// Every node has so long to prepare what is put here, unless the request says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);

/// `GET /v1/fleet`
pub async fn get(app: &App) -> Response {
    let Some(fleet) = app.fleet.get() else {
        return error(StatusCode::CONFLICT, "no_fleet", "a store that is memory: has one node, and no fleet");
    };
    match View::of(fleet.store()).await {
        Ok(view) => {
            let mut body = json!(view);
            body["fleet_managed"] = fleet.follows().into();
            body["error"] = fleet.trouble().into();
            respond::json(StatusCode::OK, &body)
        }
        Err(cause) => respond::store_error(&cause),
    }
}

/// The fleet that this node has its policy from.
pub fn followed(app: &App) -> Option<&Arc<Fleet>> {
    app.fleet.get().filter(|fleet| fleet.follows())
}

/// The words of all nodes; nothing where there is no fleet, or while its store is away.
pub async fn nodes(app: &App) -> Value {
    let Some(fleet) = app.fleet.get() else { return Value::Null };
    push::nodes(fleet.store()).await.map_or(Value::Null, |nodes| json!(nodes))
}

/// `PUT /v1/policy`
pub async fn put(fleet: &Arc<Fleet>, artifact: Artifact, dry_run: bool, within: Option<Duration>) -> Response {
    let bundle = match bundle(artifact) {
        Ok(bundle) => bundle,
        Err(response) => return *response,
    };
    pushed(fleet, bundle, How { dry_run, timeout: within.unwrap_or(TIMEOUT), untried: false, rollback_of: None }).await
}

/// What is given to a fleet; a signature that is none is told as a gateway with a policy of its own tells it.
pub fn bundle(artifact: Artifact) -> Result<Bundle, Box<Response>> {
    let signature = artifact.signature.as_deref().map(|text| Signature::parse(text.as_bytes())).transpose();
    let signature = signature.map_err(|cause| {
        let digest = Digest::of(&artifact.component);
        let error =
            json!({ "code": "activation_failed", "message": cause.to_string(), "stage": Stage::Verified, "digest": digest });
        Box::new(respond::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": error })))
    })?;
    Ok(Bundle { component: artifact.component.to_vec(), cases: artifact.cases, signature })
}

/// What `POST /v1/policy/rollback` takes. Pages of other origins send no JSON unasked, so there is a body in any case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Back {
    /// A number, or the beginning of a digest.
    #[serde(default)]
    to: Option<String>,
    /// Over what was in force then, under a new number.
    #[serde(default)]
    signature: Option<String>,
}

impl Back {
    /// Whether it asks for nothing that only a fleet has.
    pub const fn is_plain(&self) -> bool {
        self.to.is_none() && self.signature.is_none()
    }
}

/// `POST /v1/policy/rollback`
pub async fn rollback(fleet: &Arc<Fleet>, back: Back, within: Option<Duration>) -> Response {
    let store = fleet.store();
    let view = match View::of(store).await {
        Ok(view) => view,
        Err(cause) => return respond::store_error(&cause),
    };
    let to = match view.choose(back.to.as_deref()) {
        Ok(to) => to,
        Err(cause) => {
            return error(StatusCode::CONFLICT, "no_previous_policy", format!("cannot roll back: {cause}"));
        }
    };
    if to.signature.is_some() && back.signature.is_none() {
        let text = "the fleet's policies are signed, and no node goes back to a smaller number: send a signature of the older \
                    policy under a greater one (`tidegate policy rollback --key` does)";
        return error(StatusCode::CONFLICT, "signature_required", text);
    }
    match to.fetch(store).await {
        Ok(artifact) => {
            let bundle = match bundle(Artifact { signature: back.signature, ..artifact }) {
                Ok(bundle) => bundle,
                Err(response) => return *response,
            };
            let timeout = within.unwrap_or(TIMEOUT);
            pushed(fleet, bundle, How { dry_run: false, timeout, untried: false, rollback_of: Some(to.sequence) }).await
        }
        Err(cause) => error(StatusCode::CONFLICT, "no_previous_policy", format!("cannot roll back: {cause}")),
    }
}

/// Pushes, also if nobody waits for the answer any more.
async fn pushed(fleet: &Arc<Fleet>, bundle: Bundle, how: How) -> Response {
    let store = fleet.store().clone();
    let pushed = tokio::spawn(async move { push::push(&store, bundle, how).await }).await;
    match pushed {
        Ok(Ok(pushed)) => respond::json(StatusCode::OK, &json!(pushed)),
        Ok(Err(cause)) => refusal(&cause),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", cause),
    }
}

/// Nothing was pushed, or not everywhere.
pub fn refusal(cause: &PushError) -> Response {
    let (status, code) = match cause {
        PushError::Store(cause) => return respond::store_error(cause),
        PushError::Refused(nodes) => {
            let body =
                json!({ "error": { "code": "activation_failed", "message": cause.to_string(), "nodes": nodes } });
            return respond::json(StatusCode::UNPROCESSABLE_ENTITY, &body);
        }
        PushError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        PushError::Busy => (StatusCode::CONFLICT, "push_in_progress"),
        PushError::Moved => (StatusCode::CONFLICT, "superseded"),
        PushError::Replaced(_) => (StatusCode::CONFLICT, "replaced"),
        PushError::Backwards { .. } | PushError::NoNumber { .. } => (StatusCode::CONFLICT, "sequence_not_increasing"),
        PushError::NoNodes | PushError::Lost | PushError::Slow { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "not_prepared")
        }
        PushError::Behind { .. } | PushError::Unknown(_) => (StatusCode::GATEWAY_TIMEOUT, "partially_applied"),
    };
    error(status, code, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_that_is_none_is_a_stage_that_was_not_reached() {
        let artifact = |signature: &str| Artifact { signature: Some(signature.into()), ..Artifact::new(vec![1]) };
        for none in ["", "{}", "signed"] {
            let answer = bundle(artifact(none)).err().map(|answer| answer.status());
            assert_eq!(answer, Some(StatusCode::UNPROCESSABLE_ENTITY), "{none:?}");
        }
        assert!(bundle(Artifact::new(vec![1])).is_ok());
    }
}
