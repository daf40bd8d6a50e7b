//! What is put in force, as bytes that may be anything.

use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::artifact::digest::Digest;

/// A component and what travels with it.
#[derive(Clone, Debug)]
pub struct PolicyBundle {
    /// The component.
    pub component: Bytes,
    /// Its own: components are large, and it is asked for at every stage.
    pub digest: Digest,
    /// The cases that travel with it, a `cases.toml`.
    pub cases: Option<String>,
    /// A signature over the digests of both.
    pub signature: Option<String>,
    /// The folder in which files lie that the cases name. None for what was sent: its cases name no files.
    pub folder: Option<PathBuf>,
}

impl PolicyBundle {
    /// A component alone.
    #[must_use]
    pub fn new(component: impl Into<Bytes>) -> Self {
        let component = component.into();
        Self { digest: Digest::of(&component), component, cases: None, signature: None, folder: None }
    }

    /// The digests of its parts.
    #[must_use]
    pub fn digests(&self) -> BundleDigests {
        let of = |text: &Option<String>| text.as_deref().map(|text| Digest::of(text.as_bytes()));
        BundleDigests { component: self.digest, cases: of(&self.cases), signature: of(&self.signature) }
    }

    /// `sha256:…` of the component.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest.to_string()
    }

    /// `sha256:…` of the text of the cases.
    #[must_use]
    pub fn cases_digest(&self) -> Option<String> {
        self.cases.as_deref().map(|text| digest(text.as_bytes()))
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

/// `sha256:…`
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}
