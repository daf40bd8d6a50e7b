//! `GET /v1/fleet`, and what the endpoints of policies need of the fleet.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::digest::Digest;
use crate::artifact::signature::Signature;
use crate::fleet::node::Fleet;
use crate::fleet::node_status;
use crate::fleet::push::Bundle;
use crate::fleet::status::FleetStatus;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::respond::{self, Response};

/// `GET /v1/fleet`
pub async fn get(app: &App) -> Result<Response, ApiError> {
    let fleet = app.fleet.get().ok_or(ApiError::NoFleet("a node on memory: is alone and has no fleet"))?;
    let mut body = json!(FleetStatus::of(fleet.store()).await?);
    body["fleet_managed"] = fleet.is_fleet_managed().into();
    body["error"] = fleet.error().into();
    Ok(respond::ok(body))
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

/// A bundle for a push. A malformed signature is the failure that a node with a policy of its own reports: the stage `verified`.
pub fn push_bundle(bundle: PolicyBundle) -> Result<Bundle, ApiError> {
    let signature = bundle.signature.as_deref().map(|text| Signature::parse(text.as_bytes())).transpose();
    let signature =
        signature.map_err(|cause| ApiError::InvalidSignature { cause, digest: Digest::of(&bundle.component) })?;
    Ok(Bundle { component: bundle.component.to_vec(), cases: bundle.cases, signature })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn malformed_signature_is_a_failed_activation() {
        let signed = |signature: &str| PolicyBundle { signature: Some(signature.into()), ..PolicyBundle::new(vec![1]) };
        for malformed in ["", "{}", "signed"] {
            let status = push_bundle(signed(malformed)).err().map(|error| error.status());
            assert_eq!(status, Some(StatusCode::UNPROCESSABLE_ENTITY), "{malformed:?}");
        }
        assert!(push_bundle(PolicyBundle::new(vec![1])).is_ok());
    }
}
