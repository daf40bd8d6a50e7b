//! The static content of the control port: the status page at `/`, whose script requests `GET /v1/status`, and `GET /openapi.json`.

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::server::api_error::ApiError;
use crate::server::respond::{self, Response};

const STATUS_PAGE: &str = include_str!("status.html");
const OPENAPI: &str = include_str!("openapi.json");

/// The OpenAPI document with the version of this program.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let version = concat!("\"version\": \"", env!("CARGO_PKG_VERSION"), "\"");
    OPENAPI.replacen("\"version\": \"0\"", version, 1).into()
});

/// Content security policy: the page shows names that clients chose, so only its own script and style run, and it sends requests only to its
/// own origin.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (hash("<script>", "</script>"), hash("<style>", "</style>"));
    let policy = format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn hash(begin: &str, end: &str) -> String {
    let text = STATUS_PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(text, _)| text);
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// `GET /`
pub async fn status_page() -> Result<Response, ApiError> {
    let mut response = respond::full(StatusCode::OK, "text/html; charset=utf-8", STATUS_PAGE);
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// `GET /openapi.json`
pub async fn openapi() -> Result<Response, ApiError> {
    let mut response = respond::full(StatusCode::OK, "application/json", DOCUMENT.clone());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::server::control::{Access, ROUTES};

    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

    fn document() -> Value {
        serde_json::from_slice(&DOCUMENT).expect("the document is JSON")
    }

    #[test]
    fn document_lists_exactly_the_served_endpoints() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let mut documented = BTreeSet::new();
        for (path, operations) in paths {
            for method in operations.as_object().expect("operations").keys().filter(|key| METHODS.contains(&&***key)) {
                documented.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let served: BTreeSet<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        let missing: Vec<_> = served.difference(&documented).collect();
        assert!(missing.is_empty(), "src/server/control/openapi.json does not have {missing:?}");
        let unserved: Vec<_> = documented.difference(&served).collect();
        assert!(unserved.is_empty(), "src/server/control/openapi.json has endpoints that are not served: {unserved:?}");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn document_states_which_endpoints_require_the_token() {
        let document = document();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(open, route.access != Access::Operator, "{} {}: security", route.method, route.path);
            let has = |status: &str| operation["responses"][status].is_object();
            assert_eq!(has("401"), route.access == Access::Operator, "{} {}: 401", route.method, route.path);
            assert_eq!(has("403"), route.access != Access::Public, "{} {}: 403", route.method, route.path);
        }
    }

    #[test]
    fn references_resolve_and_operation_ids_are_unique() {
        fn walk(value: &Value, document: &Value, ids: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(to)) = map.get("$ref") {
                        let to = to.strip_prefix('#').expect("within the document");
                        assert!(document.pointer(to).is_some(), "{to} does not exist");
                    }
                    if let Some(Value::String(id)) = map.get("operationId") {
                        assert!(!ids.contains(id), "operationId {id} twice");
                        ids.push(id.clone());
                    }
                    map.values().for_each(|value| walk(value, document, ids));
                }
                Value::Array(all) => all.iter().for_each(|value| walk(value, document, ids)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document, &mut Vec::new());
    }
}
