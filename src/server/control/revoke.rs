//! `POST /v1/revoke` and `/v1/revocations`.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::fleet::revocation;
use crate::fleet::revocation::{RevocationRequest, RevokeError};
use crate::policy::stream_selector::StreamSelector;
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::body::{ExpectedBody, json_body};
use crate::server::respond;
use crate::server::respond::Response;
use crate::store::StoreError;

/// Largest body in bytes: twice the longest subject and channel, escaped.
const MAX_BODY_BYTES: usize = 16 << 10;

/// `POST /v1/revoke`
pub async fn revoke(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let expected = ExpectedBody { code: "invalid_revocation", example: r#"{"subject":"alice","for":"15m"}"# };
    let order: RevocationRequest = json_body(request, MAX_BODY_BYTES, &expected).await?;
    let selected = order.clone().check();
    let revoked =
        revocation::revoke(&**app.hub.store(), app.commands.keys(), order).await.map_err(|cause| match cause {
            RevokeError::InvalidRequest(text) => ApiError::InvalidRevocation(text),
            full @ RevokeError::Full => ApiError::TooManyRevocations(full),
            RevokeError::Store(cause) => on_this_node_only(app, selected.ok().map(|(selector, _)| selector), cause),
        })?;
    Ok(respond::json(StatusCode::OK, &json!(revoked)))
}

/// The store failed, so the other nodes may not have received the revocation. This node still ends its matching streams, as the operator
/// requested.
fn on_this_node_only(app: &App, selector: Option<StreamSelector>, cause: StoreError) -> ApiError {
    let streams = selector.map_or(0, |selector| app.revocations.end(&selector));
    tracing::warn!(streams, %cause, "revoked on this node only");
    ApiError::RevokedOnThisNodeOnly { streams, cause }
}

/// `GET /v1/revocations`
pub async fn list(app: &App) -> Result<Response, ApiError> {
    let list = revocation::list(&**app.hub.store(), app.commands.keys()).await?;
    Ok(respond::json(StatusCode::OK, &json!({ "revocations": list })))
}

/// `DELETE /v1/revocations/{id}`
pub async fn lift(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let id = request.uri().path().rsplit('/').next().unwrap_or_default();
    if revocation::lift(&**app.hub.store(), app.commands.keys(), id).await? {
        Ok(respond::json(StatusCode::OK, &json!({ "lifted": id })))
    } else {
        Err(ApiError::NoSuchRevocation)
    }
}
