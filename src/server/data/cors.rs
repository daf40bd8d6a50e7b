//! CORS: which web pages may read a stream. The headers are on rejections, too.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, StatusCode};

use crate::config::cors::Cors;
use crate::server::respond::{Response, empty};

/// Adds the CORS headers for the request's origin.
pub fn apply(cors: &Cors, request: &HeaderMap, response: &mut Response) {
    let headers = response.headers_mut();
    match &cors.origins {
        None => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Some(origins) => {
            // A cache must not give one origin's answer to another.
            headers.append(VARY, HeaderValue::from_static("origin"));
            let origin =
                request.get(ORIGIN).filter(|o| o.to_str().is_ok_and(|o| origins.iter().any(|own| own.matches(o))));
            if let Some(origin) = origin {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                if cors.credentials {
                    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                }
            }
        }
    }
}

/// Answers a preflight request.
pub fn preflight() -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, OPTIONS"));
    headers
        .insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, cache-control, last-event-id"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    headers.insert(http::header::ALLOW, HeaderValue::from_static("GET, OPTIONS"));
    response
}
