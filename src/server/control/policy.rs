//! `/v1/policy`: reads, replaces and rolls back the active policy, on this node or on all nodes of a fleet.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::SemaphorePermit;
use tokio::task::spawn_blocking;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::signature::Signature;
use crate::config::policy::PolicyMode;
use crate::fleet::node::Fleet;
use crate::fleet::push::{self, PushOptions};
use crate::fleet::status::FleetStatus;
use crate::policy::info::PolicyInfo;
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::replace::{Precondition, Replacement, ReplacementRequest, ReplacementSource};
use crate::server::api_error::ApiError;
use crate::server::app::{App, MAX_POLICY_UPLOADS};
use crate::server::body::{BodyLimits, ExpectedBody, from_json, json_body, json_bytes, read_body};
use crate::server::body_budget::Reservation;
use crate::server::control::params::Params;
use crate::server::respond::{self, Response, with_etag};
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// Largest JSON body in bytes: base64 is a third longer than the component; cases and signature are small.
const MAX_BUNDLE_BYTES: usize = MAX_COMPONENT_BYTES as usize / 3 * 4 + 2 * MAX_CASES + (64 << 10);
/// Largest body of the requests without a component, in bytes.
pub const MAX_COMMAND_BYTES: usize = 8 << 10;

const DRY_RUN: &str = "dry-run";
pub const TIMEOUT: &str = "timeout-ms";
/// Time for the body of an upload.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// An hour, in ms; a client that wants to wait longer repeats the request.
const MAX_TIMEOUT_MS: u64 = 3_600_000;
/// Time for all nodes of a fleet to prepare a policy, unless the request sets `timeout-ms`.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);

/// JSON body of `PUT /v1/policy`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadedBundle<'a> {
    // Borrowed: a string of Base64 has no escapes.
    #[serde(borrow)]
    component: Cow<'a, str>,
    cases: Option<String>,
    signature: Option<String>,
}

/// Body of `POST /v1/policy/rollback`. It is required, since pages of other origins cannot send JSON unasked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackRequest {
    /// In a fleet: a sequence number, or the beginning of a digest.
    to: Option<String>,
    /// In a fleet that signs: over the earlier policy, with a greater sequence.
    signature: Option<String>,
}

/// `GET /v1/policy`
pub async fn get(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let active = app.authorizer.active();
    let is_known = has_etag(request.headers(), &IF_NONE_MATCH, active.as_deref()) == Some(true);
    let response =
        if is_known { respond::empty(StatusCode::NOT_MODIFIED) } else { respond::ok(app.rollout.status_json()) };
    Ok(with_etag(response, active.as_deref()))
}

/// `PUT /v1/policy`
pub async fn put(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let change = PolicyChange::read(app, &request, &[DRY_RUN, TIMEOUT])?;
    let (bundle, _permit) = upload(app, request).await?;
    match change.fleet {
        Some(fleet) => {
            change.check_precondition()?;
            change.push(fleet, bundle, None).await
        }
        None => change.activate(ReplacementSource::Bundle(bundle)).await,
    }
}

/// `POST /v1/policy/rollback`
pub async fn rollback(app: &App, request: Request<Incoming>) -> Result<Response, ApiError> {
    let change = PolicyChange::read(app, &request, &[TIMEOUT])?;
    let expected = ExpectedBody { code: "invalid_rollback", example: "{}" };
    let RollbackRequest { to, signature } = json_body(request, MAX_COMMAND_BYTES, &expected).await?;
    let Some(fleet) = change.fleet else {
        if to.is_some() || signature.is_some() {
            return Err(ApiError::NoFleet(
                "a gateway with a policy of its own rolls back to the previous one: `to` and `signature` are for a fleet",
            ));
        }
        return change.activate(ReplacementSource::Previous).await;
    };
    change.check_precondition()?;
    let status = FleetStatus::of(fleet.store()).await?;
    let target = status.choose(to.as_deref()).map_err(|cause| ApiError::NoPreviousPolicy(cause.to_string()))?;
    if target.signature.is_some() && signature.is_none() {
        return Err(ApiError::SignatureRequired);
    }
    let fetched = target.fetch(fleet.store()).await;
    let bundle = fetched.map_err(|cause| ApiError::not_fetched(cause, ApiError::NoPreviousPolicy))?;
    change.push(fleet, PolicyBundle { signature, ..bundle }, Some(target.sequence)).await
}

/// A request to change the active policy, without its body.
pub struct PolicyChange<'a> {
    app: &'a App,
    /// The fleet that manages the policy; `None` if this node has a policy of its own.
    pub fleet: Option<&'a Arc<Fleet>>,
    dry_run: bool,
    timeout: Option<Duration>,
    precondition: Precondition,
}

impl<'a> PolicyChange<'a> {
    /// Reads a request that may have the `known` parameters. Fails where the policy cannot be changed through this port.
    pub fn read(app: &'a App, request: &Request<Incoming>, known: &[&str]) -> Result<Self, ApiError> {
        let fleet = app.managing_fleet();
        if fleet.is_none() && app.config.policy_mode == PolicyMode::Fleet {
            let text = "the fleet manages the policy (policy.source): use `tidegate policy push` and `rollback`";
            return Err(ApiError::PolicyNotManagedHere(text));
        }
        if fleet.is_none() && app.authorizer.compiler().is_none() {
            let text = "this gateway allows all requests (allow-all) and has no policy";
            return Err(ApiError::PolicyNotManagedHere(text));
        }
        let params = Params::read(request.uri(), known)?;
        let timeout = params.number(TIMEOUT, 1, MAX_TIMEOUT_MS)?.map(Duration::from_millis);
        let dry_run = match params.text(DRY_RUN) {
            None => false,
            Some("" | "true") => true,
            Some(_) => return Err(ApiError::InvalidParameter("dry-run must be true, or absent".into())),
        };
        Ok(Self { app, fleet, dry_run, timeout, precondition: precondition(request.headers()) })
    }

    /// Fails if `if-match` or `if-none-match` does not allow a change of the active policy.
    pub fn check_precondition(&self) -> Result<(), ApiError> {
        let active = self.app.authorizer.active();
        if (self.precondition)(active.as_deref()) { Ok(()) } else { Err(ApiError::PreconditionFailed { active }) }
    }

    /// Runs the activation pipeline on this node.
    pub async fn activate(self, source: ReplacementSource) -> Result<Response, ApiError> {
        let Self { app, dry_run, timeout, precondition, .. } = self;
        match app.rollout.replace(ReplacementRequest { source, dry_run, precondition, timeout }).await? {
            Replacement::Activated { info, not_persisted } => {
                let response = respond::ok(json!({ "active": *info, "not_persisted_reason": not_persisted }));
                Ok(with_etag(response, Some(&info)))
            }
            Replacement::Passed { digest, cases } => {
                Ok(respond::ok(json!({ "dry_run": true, "digest": digest, "cases_passed": cases })))
            }
        }
    }

    /// Pushes to all nodes, in a task of its own: a client that disconnects does not abort a push half-way.
    pub async fn push(
        self,
        fleet: &Arc<Fleet>,
        bundle: PolicyBundle,
        rollback_of: Option<u64>,
    ) -> Result<Response, ApiError> {
        let bundle = push_bundle(bundle)?;
        let timeout = self.timeout.unwrap_or(PREPARE_TIMEOUT);
        let options = PushOptions { dry_run: self.dry_run, timeout, allow_no_nodes: false, rollback_of };
        let (fleet, keys) = (Arc::clone(fleet), self.app.rollout.signatures().trusted_keys);
        let pushed = tokio::spawn(async move { push::push(fleet.store(), &keys, bundle, options).await }).await??;
        Ok(with_etag(respond::ok(pushed), self.app.authorizer.active().as_deref()))
    }
}

/// What an uploaded policy holds until it was processed.
pub struct UploadPermit<'a> {
    _permit: SemaphorePermit<'a>,
    _memory: Reservation,
}

/// The policy in a request's body, with a permit to hold until it was processed.
pub async fn upload(app: &App, request: Request<Incoming>) -> Result<(PolicyBundle, UploadPermit<'_>), ApiError> {
    let permit = app.policy_uploads.try_acquire().map_err(|_| ApiError::TooManyUploads { max: MAX_POLICY_UPLOADS })?;
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase();
    let mut memory = app.body_budget.reservation(None);
    // Decoded and hashed on a blocking thread: for a large component that takes longer than a runtime worker may be blocked.
    let bundle = if kind == "application/wasm" {
        let limits = upload_limits(MAX_COMPONENT_BYTES as usize, &mut memory, 1);
        let component = read_body(request.into_body(), limits).await?;
        spawn_blocking(move || PolicyBundle::new(component)).await?
    } else if kind.starts_with("application/json") {
        // The body and the decoded component.
        let body = json_bytes(request, upload_limits(MAX_BUNDLE_BYTES, &mut memory, 2)).await?;
        spawn_blocking(move || parse_bundle(&body)).await??
    } else {
        return Err(ApiError::UnsupportedMediaType {
            expected: "the body must be a component, with content-type: application/wasm, or JSON with component (in base64), cases and signature",
        });
    };
    Ok((bundle, UploadPermit { _permit: permit, _memory: memory }))
}

const fn upload_limits(max_bytes: usize, memory: &mut Reservation, factor: usize) -> BodyLimits<'_> {
    BodyLimits { max_bytes, timeout: UPLOAD_TIMEOUT, memory: Some((memory, factor)) }
}

fn parse_bundle(body: &[u8]) -> Result<PolicyBundle, ApiError> {
    let (code, example) = ("invalid_policy", r#"{"component":"AGFzbQ…","cases":"[[case]]…"}"#);
    let UploadedBundle { component, cases, signature } = from_json(body, &ExpectedBody { code, example })?;
    let component = STANDARD.decode(&*component).map_err(|cause| ApiError::InvalidBody {
        code,
        reason: format!("component is not base64: {cause}; right would be {example}"),
    })?;
    Ok(PolicyBundle { cases, signature, ..PolicyBundle::new(component) })
}

/// A bundle for a push. A malformed signature is the failure that a node with a policy of its own reports: the stage `verified`.
pub fn push_bundle(bundle: PolicyBundle) -> Result<push::Bundle, ApiError> {
    let signature = bundle.signature.as_deref().map(|text| Signature::parse(text.as_bytes())).transpose();
    let signature = signature.map_err(|cause| ApiError::InvalidSignature { cause, digest: bundle.digest })?;
    Ok(push::Bundle { component: bundle.component.to_vec(), cases: bundle.cases, signature })
}

/// Whether `if-match` and `if-none-match` allow a change, given the active policy.
fn precondition(headers: &HeaderMap) -> Precondition {
    let headers = headers.clone();
    Box::new(move |active| {
        has_etag(&headers, &IF_MATCH, active) != Some(false) && has_etag(&headers, &IF_NONE_MATCH, active) != Some(true)
    })
}

/// Whether a list of entity tags contains that of the active policy; `None` without the header.
fn has_etag(headers: &HeaderMap, name: &HeaderName, active: Option<&PolicyInfo>) -> Option<bool> {
    headers.get(name)?;
    let active = active.map(respond::etag);
    let mut tags = headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap_or_default().split(','));
    Some(active.is_some_and(|active| tags.any(|tag| ["*", &active].contains(&tag.trim()))))
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;
    use crate::policy::info::PolicyOrigin;

    #[test]
    fn if_match_and_if_none_match_allow_or_forbid_a_change() {
        let info = PolicyInfo {
            generation: 1,
            digest: "sha256:1".into(),
            cases: None,
            since: 0,
            origin: PolicyOrigin::default(),
        };
        for (name, value, with, without) in [
            ("x", "", true, true),
            ("if-match", "\"sha256:1\"", true, false),
            ("if-match", "\"sha256:2\", \"sha256:1\"", true, false),
            ("if-match", "\"sha256:2\"", false, false),
            ("if-match", "W/\"sha256:1\"", false, false),
            ("if-match", "sha256:1", false, false),
            ("if-match", "*", true, false),
            ("if-none-match", "*", false, true),
            ("if-none-match", "\"sha256:1\"", false, true),
            ("if-none-match", "\"sha256:2\"", true, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let is_allowed = precondition(&headers);
            assert_eq!((is_allowed(Some(&info)), is_allowed(None)), (with, without), "{name}: {value}");
        }
    }

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
