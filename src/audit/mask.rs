//! Values that shall not stand in a log, and yet be told from one another.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};

use sha2::{Digest, Sha256};

/// What can be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskedField {
    /// Who a client is.
    Subject,
    /// What it reads.
    Channels,
    /// The policy's own words.
    Reason,
}

impl MaskedField {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Puts a keyed hash in the place of a value. The key is this process's own and is written nowhere: within a process's lines the same
/// value looks the same, and nobody can try out which value that was.
///
/// What is masked may change, the key does not: a value looks the same before and after.
pub struct FieldMask {
    /// A bit a field.
    fields: AtomicU8,
    key: [u8; 32],
}

/// Bytes of a hash that are shown: enough that a million values hardly share one.
const SHOWN: usize = 8;

impl FieldMask {
    /// Masks these fields.
    #[must_use]
    pub fn new(fields: &[MaskedField]) -> Self {
        let mask = Self { fields: AtomicU8::new(0), key: rand::random() };
        mask.set(fields);
        mask
    }

    /// Masks these fields from now on, and no others.
    pub fn set(&self, fields: &[MaskedField]) {
        let bits = fields.iter().fold(0, |bits, field| bits | field.bit());
        self.fields.store(bits, Ordering::Relaxed);
    }

    /// The value as it may be shown.
    #[must_use]
    pub fn show(&self, field: MaskedField, value: &str) -> String {
        if self.fields.load(Ordering::Relaxed) & field.bit() == 0 {
            return value.to_owned();
        }
        let mut hash = Sha256::new();
        hash.update(self.key);
        // The same words in two fields do not look the same.
        hash.update([field as u8]);
        hash.update(value);
        let mut shown = String::from("~");
        for byte in &hash.finalize()[..SHOWN] {
            // Writing to a text does not fail.
            let _ = write!(shown, "{byte:02x}");
        }
        shown
    }

    /// The same for a list.
    #[must_use]
    pub fn all(&self, field: MaskedField, values: &[String]) -> Vec<String> {
        values.iter().map(|value| self.show(field, value)).collect()
    }
}

impl Default for FieldMask {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl std::fmt::Debug for FieldMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("fields", &self.fields).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_looks_the_same_within_a_process_alone() {
        let mask = FieldMask::new(&[MaskedField::Subject, MaskedField::Channels]);
        let alice = mask.show(MaskedField::Subject, "alice");
        assert_eq!(alice, mask.show(MaskedField::Subject, "alice"));
        assert_eq!((alice.len(), alice.starts_with('~')), (17, true));
        assert_ne!(alice, mask.show(MaskedField::Subject, "bob"));
        assert_ne!(alice, mask.show(MaskedField::Channels, "alice"));
        assert_ne!(alice, FieldMask::new(&[MaskedField::Subject]).show(MaskedField::Subject, "alice"));
        assert_eq!(mask.show(MaskedField::Reason, "no"), "no");
        mask.set(&[MaskedField::Subject, MaskedField::Reason]);
        assert_eq!(mask.show(MaskedField::Subject, "alice"), alice);
        assert_ne!(mask.show(MaskedField::Reason, "no"), "no");
        assert_eq!(mask.show(MaskedField::Channels, "alice"), "alice");
    }
}
