//! `POST /v1/revoke` and `/v1/revocations`.

use http::Request;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::fleet::revocation::{self, RevocationRequest, RevokeError};
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::body::{ExpectedBody, json_body};
use crate::server::respond::{self, Response};

/// Largest body in bytes: twice the longest subject and channel, escaped.
const MAX_BODY_BYTES: usize = 16 << 10;

/// `POST /v1/revoke`
pub async fn revoke(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let expected = ExpectedBody { code: "invalid_revocation", example: r#"{"subject":"alice","for":"15m"}"# };
    let request: RevocationRequest = json_body(request, MAX_BODY_BYTES, &expected).await?;
    match revocation::revoke(&**app.hub.store(), app.commands.keys(), request.clone()).await {
        Ok(result) => Ok(respond::ok(result)),
        Err(RevokeError::Store(cause)) => {
            // The other nodes may not have received the revocation. This node still ends its matching streams, as the operator
            // requested.
            let streams = request.check().map_or(0, |(selector, _)| app.revocations.end(&selector));
            tracing::warn!(streams, %cause, "revoked on this node only");
            Err(ApiError::RevokedOnThisNodeOnly { streams, cause })
        }
        Err(cause) => Err(cause.into()),
    }
}

/// `GET /v1/revocations`
pub async fn list(app: &App) -> Result<Response, ApiError> {
    Ok(respond::ok(revocation::list(&**app.hub.store(), app.commands.keys()).await?))
}

/// `DELETE /v1/revocations/{id}`
pub async fn lift(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let id = request.uri().path().rsplit('/').next().unwrap_or_default();
    let id = percent_decode_str(id).decode_utf8_lossy();
    if revocation::lift(&**app.hub.store(), app.commands.keys(), &id).await? {
        Ok(respond::ok(json!({ "lifted": id })))
    } else {
        Err(ApiError::NoSuchRevocation)
    }
}
