//! `/v1/policy/shadow`: a policy that is evaluated without effect, on this node or on all nodes of a fleet; and `POST /v1/policy/promote`,
//! which activates it.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::bundle::PolicyBundle;
use crate::fleet::node::Fleet;
use crate::fleet::record::ShadowPush;
use crate::fleet::shadow::push;
use crate::fleet::shadow::push::{NoShadowPolicy, SHADOW_REPORT_TIMEOUT, ShadowStatus};
use crate::rollout::replace::{ReplacementRequest, ReplacementSource};
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::body::{ExpectedBody, json_body};
use crate::server::control::params::Params;
use crate::server::control::{fleet, policy};
use crate::server::respond;
use crate::server::respond::Response;
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};
use crate::util::ratio::Ratio;

/// `GET /v1/policy/shadow`
pub async fn get(app: &App) -> Result<Response, ApiError> {
    let own = app.shadow.current();
    let Some(managing) = fleet::managing(app) else {
        return own.map(|own| report(&own)).ok_or(ApiError::NoShadowPolicy);
    };
    match (push::status(managing.store()).await, own) {
        (Ok(told), _) => Ok(respond::json(StatusCode::OK, &with_own(app, &told))),
        // The node's own, of its configuration.
        (Err(NoShadowPolicy::None | NoShadowPolicy::Store(_)), Some(own)) => Ok(report(&own)),
        (Err(cause), _) => Err(cause.into()),
    }
}

/// `PUT /v1/policy/shadow`
pub async fn put(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let share = Params::read(request.uri(), &["share"])?.share("share")?.unwrap_or(app.live().shadow.share);
    let (artifact, _permit) = policy::upload(app, request).await?;
    if let Some(managing) = fleet::managing(app) {
        return push(app, managing, artifact, share).await;
    }
    let shadow = app
        .rollout
        .start_shadow(artifact, ShadowSampling { share, concurrency: app.config.limits.shadow_concurrency })
        .await?;
    Ok(report(&shadow))
}

/// Gives the policy to all nodes, and waits for what they report.
async fn push(app: &App, managing: &Arc<Fleet>, artifact: PolicyBundle, share: f64) -> Result<Response, ApiError> {
    let bundle = fleet::bundle(artifact)?;
    let share = Ratio::try_from(share).map_err(|error| ApiError::InvalidParameter(error.to_string()))?;
    let store = managing.store();
    let given = push::set(store, &bundle, share).await?;
    let told = push::wait_reported(store, &given, SHADOW_REPORT_TIMEOUT).await?;
    Ok(respond::json(StatusCode::OK, &with_own(app, &told)))
}

/// `DELETE /v1/policy/shadow`: the last report.
pub async fn delete(app: &App) -> Result<Response, ApiError> {
    if let Some(managing) = fleet::managing(app) {
        match push::remove(managing.store()).await {
            Ok(Some(told)) => return Ok(respond::json(StatusCode::OK, &with_own(app, &told))),
            Ok(None) => return Ok(respond::json(StatusCode::OK, &json!({ "unreadable": true }))),
            Err(NoShadowPolicy::None) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    app.rollout.take_shadow().map(|own| report(&own)).ok_or(ApiError::NoShadowPolicy)
}

fn report(shadow: &ShadowPolicy) -> Response {
    respond::json(StatusCode::OK, &json!(shadow.report()))
}

/// The fleet's report, with the disagreements of this node.
fn with_own(app: &App, status: &ShadowStatus) -> Value {
    let mut body = json!(status);
    let own = app.shadow.current().filter(|own| **own.policy().digest() == *status.digest.to_string());
    body["disagreements"] = own.map_or_else(|| json!([]), |own| json!(own.report().disagreements));
    body
}

/// Body of `POST /v1/policy/promote`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    /// Promote only this component.
    #[serde(default)]
    digest: Option<String>,
    /// In a fleet that signs: over the shadow policy, with a greater sequence than that of pushes since.
    #[serde(default)]
    signature: Option<String>,
}

impl Promote {
    fn check_digest(&self, digest: &str) -> Result<(), ApiError> {
        match &self.digest {
            Some(wanted) if wanted != digest => Err(ApiError::OtherShadowPolicy { digest: digest.into() }),
            _ => Ok(()),
        }
    }
}

/// `POST /v1/policy/promote`
pub async fn promote(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let managing = fleet::managing(app);
    if managing.is_none() {
        policy::check_managed_here(app)?;
    }
    let (_, timeout) = policy::timeout(request.uri(), &[])?;
    let headers = request.headers().clone();
    let expected = ExpectedBody { code: "invalid_promote", example: r#"{"digest":"sha256:…"}, or {}"# };
    let promote: Promote = json_body(request, policy::MAX_COMMAND_BYTES, &expected).await?;
    if let Some(managing) = managing {
        policy::check_preconditions(app, &headers)?;
        return promote_on_all(app, managing, promote, timeout).await;
    }
    let shadow = app.shadow.current().ok_or(ApiError::NoShadowPolicy)?;
    promote.check_digest(shadow.policy().digest())?;
    if promote.signature.is_some() {
        return Err(ApiError::NoFleet(
            "a gateway with a policy of its own activates the shadow policy with the signature that it came with",
        ));
    }
    let (source, precondition) = (ReplacementSource::Shadow(shadow), policy::preconditions(&headers));
    policy::change(app, ReplacementRequest { source, dry_run: false, precondition, timeout }).await
}

/// Pushes the fleet's shadow policy; without one, this node's own.
async fn promote_on_all(
    app: &App,
    managing: &Arc<Fleet>,
    promote: Promote,
    timeout: Option<Duration>,
) -> Result<Response, ApiError> {
    let own = app.shadow.current();
    let (artifact, own) = match (push::record(managing.store()).await, own) {
        (Ok(ShadowPush { record, .. }), _) => {
            promote.check_digest(&record.component.to_string())?;
            (record.fetch(managing.store()).await.map_err(ApiError::shadow_policy)?, None)
        }
        (Err(NoShadowPolicy::None), Some(own)) => {
            promote.check_digest(own.policy().digest())?;
            (app.rollout.shadow_bundle(&own).ok_or(ApiError::NoShadowPolicy)?, Some(own))
        }
        (Err(cause), _) => return Err(cause.into()),
    };
    let signature = promote.signature.or_else(|| artifact.signature.clone());
    let response = fleet::put(managing, PolicyBundle { signature, ..artifact }, false, timeout).await?;
    if let Some(own) = own {
        app.rollout.stop_shadow(&own);
    }
    Ok(policy::tagged(app, response))
}
