//! `GET /v1/fleet`, and `/v1/policy` on a node that the fleet manages: a policy that is put here is pushed to all nodes.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::artifact::signature::Signature;
use crate::fleet::node::Fleet;
use crate::fleet::node_status;
use crate::fleet::push;
use crate::fleet::push::{Bundle, PushOptions};
use crate::fleet::status::FleetStatus;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::respond;
use crate::server::respond::Response;

/// Time for all nodes to prepare a policy, unless the request sets `timeout-ms`.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);

/// `GET /v1/fleet`
pub async fn get(app: &App) -> Result<Response, ApiError> {
    let Some(fleet) = app.fleet.get() else {
        return Err(ApiError::NoFleet("a node on memory: is alone and has no fleet"));
    };
    let mut body = json!(FleetStatus::of(fleet.store()).await?);
    body["fleet_managed"] = fleet.is_fleet_managed().into();
    body["error"] = fleet.error().into();
    Ok(respond::json(StatusCode::OK, &body))
}

/// The fleet, if it manages this node's policy.
pub fn managing(app: &App) -> Option<&Arc<Fleet>> {
    app.fleet.get().filter(|fleet| fleet.is_fleet_managed())
}

/// The status of all nodes; null without a fleet, or while the store is unavailable.
pub async fn nodes(app: &App) -> Value {
    let Some(fleet) = app.fleet.get() else { return Value::Null };
    node_status::live_nodes(fleet.store()).await.map_or(Value::Null, |nodes| json!(nodes))
}

/// `PUT /v1/policy`
pub async fn put(
    fleet: &Arc<Fleet>,
    artifact: PolicyBundle,
    dry_run: bool,
    timeout: Option<Duration>,
) -> Result<Response, ApiError> {
    let timeout = timeout.unwrap_or(PREPARE_TIMEOUT);
    push(fleet, bundle(artifact)?, PushOptions { dry_run, timeout, allow_no_nodes: false, rollback_of: None }).await
}

/// What is pushed. A malformed signature is the failure that a node with a policy of its own reports: the stage `verified`.
pub fn bundle(artifact: PolicyBundle) -> Result<Bundle, ApiError> {
    let signature = artifact.signature.as_deref().map(|text| Signature::parse(text.as_bytes())).transpose();
    let signature = signature.map_err(|cause| {
        let digest = Digest::of(&artifact.component);
        ApiError::InvalidSignature { cause, digest }
    })?;
    Ok(Bundle { component: artifact.component.to_vec(), cases: artifact.cases, signature })
}

/// Body of `POST /v1/policy/rollback`. It is required, since pages of other origins cannot send JSON unasked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// In a fleet: a sequence number, or the beginning of a digest.
    #[serde(default)]
    to: Option<String>,
    /// In a fleet that signs: over the earlier policy, with a greater sequence.
    #[serde(default)]
    signature: Option<String>,
}

impl RollbackRequest {
    /// Whether it has no field that only a fleet supports.
    pub const fn is_plain(&self) -> bool {
        self.to.is_none() && self.signature.is_none()
    }
}

/// `POST /v1/policy/rollback`
pub async fn rollback(
    fleet: &Arc<Fleet>,
    rollback: RollbackRequest,
    timeout: Option<Duration>,
) -> Result<Response, ApiError> {
    let store = fleet.store();
    let view = FleetStatus::of(store).await?;
    let target = view.choose(rollback.to.as_deref())?;
    if target.signature.is_some() && rollback.signature.is_none() {
        return Err(ApiError::SignatureRequired);
    }
    let artifact = target.fetch(store).await.map_err(ApiError::previous_policy)?;
    let bundle = bundle(PolicyBundle { signature: rollback.signature, ..artifact })?;
    let timeout = timeout.unwrap_or(PREPARE_TIMEOUT);
    push(
        fleet,
        bundle,
        PushOptions { dry_run: false, timeout, allow_no_nodes: false, rollback_of: Some(target.sequence) },
    )
    .await
}

/// Pushes in a task of its own: a client that disconnects does not abort a push half-way.
async fn push(fleet: &Arc<Fleet>, bundle: Bundle, how: PushOptions) -> Result<Response, ApiError> {
    let fleet = Arc::clone(fleet);
    let pushed = tokio::spawn(async move { push::push(fleet.store(), bundle, how).await }).await??;
    Ok(respond::json(StatusCode::OK, &json!(pushed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_signature_is_a_failed_activation() {
        let artifact =
            |signature: &str| PolicyBundle { signature: Some(signature.into()), ..PolicyBundle::new(vec![1]) };
        for malformed in ["", "{}", "signed"] {
            let answer = bundle(artifact(malformed)).err().map(|error| error.status());
            assert_eq!(answer, Some(StatusCode::UNPROCESSABLE_ENTITY), "{malformed:?}");
        }
        assert!(bundle(PolicyBundle::new(vec![1])).is_ok());
    }
}
