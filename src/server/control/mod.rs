//! The control port: for operators and local emitters; web pages of other origins cannot use it.

pub(crate) mod emit;
mod health;
mod metrics;
mod pages;
mod params;
pub(crate) mod policy;
mod revoke;
mod shadow;
mod status;
pub(crate) mod stream_stats;
mod streams;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Method, Request};
use hyper::body::Incoming;

use crate::server::access::{host_is_address, is_foreign_page, shows_token};
use crate::server::api_error::ApiError;
use crate::server::app::App;
use crate::server::respond::Response;

/// An endpoint of the control port.
struct Route {
    method: Method,
    /// A segment in braces matches any segment, as in `/v1/things/{id}`.
    path: &'static str,
    access: Access,
    handler: Handler,
}

type Handler = for<'a> fn(&'a Arc<App>, Request<Incoming>) -> BoxFuture<'a, Result<Response, ApiError>>;

/// Which requests an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// All: the answer discloses nothing.
    Public,
    /// Those that name this port by its address: the answer is static.
    Browser,
    /// Those with the control token; without a token, those that name this port by its address.
    Operator,
}
use Access::{Browser, Operator, Public};

const fn route(method: Method, path: &'static str, access: Access, handler: Handler) -> Route {
    Route { method, path, access, handler }
}

/// All endpoints. `openapi.json` describes their requests and responses; a test compares both.
const ROUTES: &[Route] = &[
    route(Method::GET, "/healthz", Public, |_, _| Box::pin(health::live())),
    route(Method::GET, "/", Browser, |_, _| Box::pin(pages::status_page())),
    route(Method::GET, "/openapi.json", Browser, |_, _| Box::pin(pages::openapi())),
    route(Method::GET, "/readyz", Operator, |app, _| Box::pin(health::ready(app))),
    route(Method::GET, "/metrics", Operator, |app, _| Box::pin(metrics::answer(app))),
    route(Method::GET, "/v1/status", Operator, |app, _| Box::pin(status::status(app))),
    route(Method::GET, "/v1/streams", Operator, |app, request| Box::pin(streams::list(app, request))),
    route(Method::GET, "/v1/policy", Operator, |app, request| Box::pin(policy::get(app, request))),
    route(Method::PUT, "/v1/policy", Operator, |app, request| Box::pin(policy::put(app, request))),
    route(Method::POST, "/v1/policy/rollback", Operator, |app, request| Box::pin(policy::rollback(app, request))),
    route(Method::GET, "/v1/fleet", Operator, |app, _| Box::pin(status::fleet(app))),
    route(Method::GET, "/v1/policy/shadow", Operator, |app, _| Box::pin(shadow::get(app))),
    route(Method::PUT, "/v1/policy/shadow", Operator, |app, request| Box::pin(shadow::put(app, request))),
    route(Method::DELETE, "/v1/policy/shadow", Operator, |app, _| Box::pin(shadow::delete(app))),
    route(Method::POST, "/v1/policy/promote", Operator, |app, request| Box::pin(shadow::promote(app, request))),
    route(Method::POST, "/v1/emit", Operator, |app, request| Box::pin(emit::emit(app, request))),
    route(Method::POST, "/v1/revoke", Operator, |app, request| Box::pin(revoke::revoke(app, request))),
    route(Method::GET, "/v1/revocations", Operator, |app, _| Box::pin(revoke::list(app))),
    route(Method::DELETE, "/v1/revocations/{id}", Operator, |app, request| Box::pin(revoke::lift(app, request))),
];

/// Answers a request to the control port.
pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Response, ApiError> {
    let matching = || ROUTES.iter().filter(|route| matches(route.path, request.uri().path()));
    // Only operators learn which paths do not exist.
    guard(app, &request, matching().next().map_or(Operator, |route| route.access))?;
    if let Some(route) = matching().find(|route| route.method == request.method()) {
        return (route.handler)(app, request).await;
    }
    let methods: Vec<&str> = matching().map(|route| route.method.as_str()).collect();
    Err(if methods.is_empty() { ApiError::NotFound } else { ApiError::MethodNotAllowed { allow: methods.join(", ") } })
}

fn matches(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(name), Some(segment)) if name.starts_with('{') && !segment.is_empty() => {}
            (Some(literal), Some(segment)) if literal == segment => {}
            _ => return false,
        }
    }
}

fn guard<B>(app: &App, request: &Request<B>, access: Access) -> Result<(), ApiError> {
    if access == Public {
        return Ok(());
    }
    if is_foreign_page(request) {
        return Err(ApiError::OriginNotAllowed);
    }
    match &app.live().control_token {
        Some(token) if access == Operator && !shows_token(request.headers(), [token]) => {
            Err(ApiError::Unauthorized { token_sent: request.headers().contains_key(http::header::AUTHORIZATION) })
        }
        // Without a token a DNS name that another site pointed at this machine must not give access.
        None if !host_is_address(request) => Err(ApiError::HostNotAllowed),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_templates_match_whole_segments() {
        for (template, path, expect) in [
            ("/v1/emit", "/v1/emit", true),
            ("/v1/emit", "/v1/emit/", false),
            ("/v1/emit", "/v1", false),
            ("/", "/", true),
            ("/", "", false),
            ("/v1/things/{id}", "/v1/things/7", true),
            ("/v1/things/{id}", "/v1/things/", false),
            ("/v1/things/{id}", "/v1/things", false),
            ("/v1/things/{id}", "/v1/things/7/8", false),
        ] {
            assert_eq!(matches(template, path), expect, "{template} {path}");
        }
    }

    #[test]
    fn routes_do_not_overlap() {
        for (i, one) in ROUTES.iter().enumerate() {
            for other in &ROUTES[i + 1..] {
                let both = matches(one.path, other.path) || matches(other.path, one.path);
                assert!(!both || one.path == other.path, "{} and {}", one.path, other.path);
                assert!(!both || one.method != other.method, "{} {} twice", one.method, one.path);
                assert!(!both || one.access == other.access, "{} has one guard", one.path);
            }
        }
    }
}
