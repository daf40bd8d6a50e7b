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
    /// What decisions need of the policy.
    #[must_use]
    pub fn activation(self) -> Activation {
        let Self { policy, context, origin, attachments } = self;
        let cases = attachments.digests.cases.map(|digest| digest.to_string().into());
        Activation { policy, context, origin, cases }
    }
}

/// What came with a component. When the configuration changes, it is checked again.
#[derive(Clone, Debug)]
pub struct PolicyAttachments {
    /// The test cases and the requirements.
    pub suite: Option<Arc<TestSuite>>,
    /// Of the component, the text of the test cases and the signature.
    pub digests: BundleDigests,
}
