//! `POST /v1/revoke`, and who is kept out for now.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::super::App;
use super::super::request::{Expected, json_body};
use super::super::respond::{self, Response, error};
use crate::fleet::revocation::{self, Order, RevokeError};
use crate::policy::Whom;
use crate::store::StoreError;

/// Bytes of an order; twice what its names may have, escaped.
const LIMIT: usize = 16 << 10;

/// Takes away a right on all nodes.
pub async fn revoke(app: &App, request: Request<Incoming>) -> Response {
    let code = "invalid_revocation";
    let expected = Expected { error: code, example: r#"{"subject":"alice","for":"15m"}"# };
    let order: Order = match json_body(request, LIMIT, expected).await {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let checked = order.clone().check();
    match revocation::revoke(&**app.hub.store(), app.commands.keys(), order).await {
        Ok(revoked) => respond::json(StatusCode::OK, &json!(revoked)),
        Err(RevokeError::Order(text)) => error(StatusCode::BAD_REQUEST, code, text),
        Err(full @ RevokeError::Full) => error(StatusCode::CONFLICT, "too_many_revocations", full),
        Err(RevokeError::Store(cause)) => here_alone(app, checked.ok().map(|(whom, _)| whom), &cause),
    }
}

/// The store could not tell the others. Streams of this node end all the same, since they are why somebody asked.
fn here_alone(app: &App, whom: Option<Whom>, cause: &StoreError) -> Response {
    let ended = whom.map_or(0, |whom| app.revocations.end(&whom));
    let (status, code) = match cause {
        StoreError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        StoreError::WrongType | StoreError::Refused(_) => (StatusCode::CONFLICT, "store_refuses"),
    };
    let text = format!(
        "{cause}; this node ended {ended} of its streams, but whether the other nodes were told, and who is kept out, is not sure: \
         revoke once more when the store is right ({}, {})",
        app.commands.keys().commands(),
        app.commands.keys().revocations(),
    );
    tracing::warn!(streams = ended, %cause, "revoked on this node alone");
    error(status, code, text)
}

/// Who is kept out.
pub async fn list(app: &App) -> Response {
    match revocation::list(&**app.hub.store(), app.commands.keys()).await {
        Ok(list) => respond::json(StatusCode::OK, &json!({ "revocations": list })),
        Err(cause) => respond::store_error(&cause),
    }
}

/// Lets somebody in again.
pub async fn lift(app: &App, request: Request<Incoming>) -> Response {
    let id = request.uri().path().rsplit('/').next().unwrap_or_default();
    match revocation::lift(&**app.hub.store(), app.commands.keys(), id).await {
        Ok(true) => respond::json(StatusCode::OK, &json!({ "lifted": id })),
        Ok(false) => error(StatusCode::NOT_FOUND, "no_such_revocation", "nobody is kept out by that id"),
        Err(cause) => respond::store_error(&cause),
    }
}
