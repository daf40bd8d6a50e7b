//! A policy between its test cases and its activation.

use std::sync::Arc;

use crate::artifact::bundle::BundleDigests;
use crate::authz::generation::Activation;
use crate::policy::info::PolicyOrigin;
use crate::policytest::TestSuite;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyContext;

/// A policy that passed every stage but activation.
#[derive(Clone)]
pub struct PreparedPolicy {
    /// The compiled component.
    pub policy: Policy,
    /// The environment and limits that it was tested with.
    pub context: Arc<PolicyContext>,
    /// Where it comes from.
    pub origin: PolicyOrigin,
    /// The test cases and requirements that came with it.
    pub attachments: PolicyAttachments,
}

impl PreparedPolicy {
    /// The part that decisions need.
    #[must_use]
    pub fn activation(self) -> Activation {
        let Self { policy, context, origin, attachments } = self;
        let cases = attachments.digests.cases.map(|digest| digest.to_string().into());
        Activation { policy, context, origin, cases }
    }
}

/// What came with a component. It holds for the component whatever is around that, and is asked for again when that changes.
#[derive(Clone, Debug)]
pub struct PolicyAttachments {
    /// What it has to decide and what it requires.
    pub suite: Option<Arc<TestSuite>>,
    /// What identifies the component, its cases and its signature.
    pub digests: BundleDigests,
}
