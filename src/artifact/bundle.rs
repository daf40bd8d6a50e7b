//! A policy bundle, as untrusted bytes.

use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::artifact::digest::Digest;

/// A component, its test cases and their signature.
#[derive(Clone, Debug)]
pub struct PolicyBundle {
    pub component: Bytes,
    /// Of the component. Stored, because components are large and every stage needs it.
    pub digest: Digest,
    /// The text of a `cases.toml`.
    pub cases: Option<String>,
    /// The text of a signature over the digests of component and cases.
    pub signature: Option<String>,
    /// The directory of files that the cases name. `None` for an uploaded bundle, whose cases may not name files.
    pub cases_dir: Option<PathBuf>,
}

impl PolicyBundle {
    /// A bundle of a component alone.
    pub fn new(component: impl Into<Bytes>) -> Self {
        let component = component.into();
        Self { digest: Digest::of(&component), component, cases: None, signature: None, cases_dir: None }
    }

    /// The digests of its parts.
    pub fn digests(&self) -> BundleDigests {
        let of = |text: &Option<String>| text.as_deref().map(|text| Digest::of(text.as_bytes()));
        BundleDigests { component: self.digest, cases: of(&self.cases), signature: of(&self.signature) }
    }

    /// `sha256:…` of the component.
    pub fn digest(&self) -> String {
        self.digest.to_string()
    }

    /// `sha256:…` of the cases.
    pub fn cases_digest(&self) -> Option<String> {
        self.cases.as_deref().map(|text| Digest::of(text.as_bytes()).to_string())
    }
}

/// What identifies the parts of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleDigests {
    /// The component.
    pub component: Digest,
    /// The test cases.
    pub cases: Option<Digest>,
    /// The text of the signature.
    pub signature: Option<Digest>,
}
