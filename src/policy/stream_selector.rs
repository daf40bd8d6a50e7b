//! Selects the streams that a command applies to.

use serde::{Deserialize, Serialize};

/// A stream has to match all fields that are set; without any, all streams match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamSelector {
    /// The subject that the policy granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<str>>,
    /// A channel that the stream reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Box<str>>,
}

impl StreamSelector {
    /// Whether a stream of this subject and these channels is selected.
    pub fn matches(&self, subject: Option<&str>, mut channels: impl Iterator<Item = impl AsRef<str>>) -> bool {
        self.subject.as_deref().is_none_or(|selected| subject == Some(selected))
            && self.channel.as_deref().is_none_or(|selected| channels.any(|channel| channel.as_ref() == selected))
    }
}
