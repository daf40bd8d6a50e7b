//! Which streams a command means.

use serde::{Deserialize, Serialize};

/// Whose reading is meant: whatever matches all that is named, and everybody's where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamSelector {
    /// Who reads, by the policy's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<str>>,
    /// What is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Box<str>>,
}

impl StreamSelector {
    /// Whether it is meant that this one reads these channels.
    pub fn matches(&self, subject: Option<&str>, mut channels: impl Iterator<Item = impl AsRef<str>>) -> bool {
        self.subject.as_deref().is_none_or(|meant| subject == Some(meant))
            && self.channel.as_deref().is_none_or(|meant| channels.any(|channel| channel.as_ref() == meant))
    }
}
