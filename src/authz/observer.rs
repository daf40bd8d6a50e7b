//! The interface through which the decision log, the recording and the shadow policy learn of decisions.

use std::sync::Arc;

use crate::policy::{Decision, Request};
use crate::wasm::host::PolicyContext;
use crate::wasm::host_trace::HostTrace;

/// Learns of every decision that takes effect. It runs on the request's path, so it must neither wait nor fail.
pub trait DecisionObserver: Send + Sync {
    /// Called before a decision is made. An observer that needs the trace of the policy's host calls returns a function that takes the
    /// decision. Without such an observer, host calls are not traced.
    fn begin(&self) -> Option<Observation> {
        None
    }

    /// Called after a decision took effect.
    fn decided(&self, event: &DecisionEvent<'_>) {
        let _ = event;
    }
}

/// Called with the decision that was traced for an observer.
pub type Observation = Box<dyn for<'a> FnOnce(&DecisionEvent<'a>) + Send>;

/// A decision that took effect.
pub struct DecisionEvent<'a> {
    /// When it was made, in milliseconds since the Unix epoch.
    pub time: u64,
    pub request: &'a Request,
    /// The channels that the request asked for.
    pub channels: &'a [String],
    /// The policy's decision; `revoked` says whether a revocation overrides it.
    pub decision: &'a Decision,
    /// The host calls of the policy; `None` if no instance ran or no observer asked for them.
    pub trace: Option<Arc<HostTrace>>,
    /// The environment and limits that the policy ran with.
    pub context: Option<&'a Arc<PolicyContext>>,
}
