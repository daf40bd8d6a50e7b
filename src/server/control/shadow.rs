//! `/v1/policy/shadow`: a policy that is evaluated without effect, on this node or on all nodes of a fleet; and `POST /v1/policy/promote`,
//! which activates it.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use crate::artifact::bundle::PolicyBundle;
use crate::fleet::node::Fleet;
use crate::fleet::record::ShadowPush;
use crate::fleet::shadow::push::{self, NoShadowPolicy, SHADOW_REPORT_TIMEOUT, ShadowStatus};
use crate::rollout::replace::ReplacementSource;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::body::{ExpectedBody, json_body};
use crate::server::control::params::Params;
use crate::server::control::policy::{MAX_COMMAND_BYTES, PolicyChange, TIMEOUT, push_bundle, upload};
use crate::server::respond::{self, Response};
use crate::shadow::shadow_policy::ShadowSampling;
use crate::util::ratio::Ratio;

/// `GET /v1/policy/shadow`
pub async fn get(app: &App) -> Result<Response, ApiError> {
    if let Some(fleet) = app.managing_fleet() {
        match (push::status(fleet.store()).await, app.shadow.current()) {
            (Ok(status), _) => return Ok(fleet_report(app, &status)),
            // The node's own, of its configuration.
            (Err(NoShadowPolicy::None | NoShadowPolicy::Store(_)), Some(_)) => {}
            (Err(cause), _) => return Err(cause.into()),
        }
    }
    let shadow = app.shadow.current().ok_or(ApiError::NoShadowPolicy)?;
    Ok(respond::ok(shadow.report()))
}

/// `PUT /v1/policy/shadow`
pub async fn put(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let share = Params::read(request.uri(), &["share"])?.share("share")?.unwrap_or(app.live().shadow.share);
    let (bundle, _permit) = upload(app, request).await?;
    if let Some(fleet) = app.managing_fleet() {
        let bundle = push_bundle(bundle)?;
        let share = Ratio::try_from(share).map_err(|error| ApiError::InvalidParameter(error.to_string()))?;
        let pushed = push::set(fleet.store(), &bundle, share).await?;
        let status = push::wait_reported(fleet.store(), &pushed, SHADOW_REPORT_TIMEOUT).await?;
        return Ok(fleet_report(app, &status));
    }
    let sampling = ShadowSampling { share, concurrency: app.config.limits.shadow_concurrency };
    let shadow = app.rollout.start_shadow(bundle, sampling).await?;
    Ok(respond::ok(shadow.report()))
}

/// `DELETE /v1/policy/shadow`: the last report.
pub async fn delete(app: &App) -> Result<Response, ApiError> {
    if let Some(fleet) = app.managing_fleet() {
        match push::remove(fleet.store()).await {
            Ok(Some(status)) => return Ok(fleet_report(app, &status)),
            Ok(None) => return Ok(respond::ok(json!({ "unreadable": true }))),
            Err(NoShadowPolicy::None) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    let shadow = app.rollout.take_shadow().ok_or(ApiError::NoShadowPolicy)?;
    Ok(respond::ok(shadow.report()))
}

/// The fleet's report, with the disagreements of this node.
fn fleet_report(app: &App, status: &ShadowStatus) -> Response {
    let mut body = json!(status);
    let own = app.shadow.current().filter(|own| **own.policy().digest() == *status.digest.to_string());
    body["disagreements"] = own.map_or_else(|| json!([]), |own| json!(own.report().disagreements));
    respond::ok(body)
}

/// Body of `POST /v1/policy/promote`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    /// Promote only this component.
    digest: Option<String>,
    /// In a fleet that signs: over the shadow policy, with a greater sequence than that of pushes since.
    signature: Option<String>,
}

impl Promote {
    fn check_digest(&self, digest: &str) -> Result<(), ApiError> {
        match &self.digest {
            Some(expected) if expected != digest => Err(ApiError::OtherShadowPolicy { digest: digest.into() }),
            _ => Ok(()),
        }
    }
}

/// `POST /v1/policy/promote`
pub async fn promote(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let change = PolicyChange::read(app, &request, &[TIMEOUT])?;
    let expected = ExpectedBody { code: "invalid_promote", example: r#"{"digest":"sha256:…"}, or {}"# };
    let promote: Promote = json_body(request, MAX_COMMAND_BYTES, &expected).await?;
    if let Some(fleet) = change.fleet {
        change.check_precondition()?;
        return promote_on_all(app, change, fleet, promote).await;
    }
    let shadow = app.shadow.current().ok_or(ApiError::NoShadowPolicy)?;
    promote.check_digest(shadow.policy().digest())?;
    if promote.signature.is_some() {
        return Err(ApiError::NoFleet(
            "a gateway with a policy of its own activates the shadow policy with the signature that it came with",
        ));
    }
    change.activate(ReplacementSource::Shadow(shadow)).await
}

/// Pushes the fleet's shadow policy; without one, this node's own.
async fn promote_on_all(
    app: &App,
    change: PolicyChange<'_>,
    fleet: &Arc<Fleet>,
    promote: Promote,
) -> Result<Response, ApiError> {
    let own = app.shadow.current();
    let (bundle, own) = match (push::record(fleet.store()).await, own) {
        (Ok(ShadowPush { record, .. }), _) => {
            promote.check_digest(&record.component.to_string())?;
            let fetched = record.fetch(fleet.store()).await;
            (fetched.map_err(|cause| ApiError::not_fetched(cause, ApiError::ShadowPolicyUnreadable))?, None)
        }
        (Err(NoShadowPolicy::None), Some(own)) => {
            promote.check_digest(own.policy().digest())?;
            (app.rollout.shadow_bundle(&own).ok_or(ApiError::NoShadowPolicy)?, Some(own))
        }
        (Err(cause), _) => return Err(cause.into()),
    };
    let signature = promote.signature.or_else(|| bundle.signature.clone());
    let response = change.push(fleet, PolicyBundle { signature, ..bundle }, None).await?;
    if let Some(own) = own {
        app.rollout.stop_shadow(&own);
    }
    Ok(response)
}
