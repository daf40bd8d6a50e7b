//! Masks values in logs so that they stay distinguishable from each other.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::artifact::digest::Digest;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskedField {
    /// The subject of a grant.
    Subject,
    /// Channel names.
    Channels,
    /// The policy's reason.
    Reason,
}

/// Replaces values by a keyed hash. Each process has a random key that is written nowhere: within the lines of a process equal values look
/// equal, and no reader of the log can find a value by trying many.
///
/// The masked fields may change while the process runs. The key stays, so a value looks the same before and after.
pub struct FieldMask {
    /// One bit per field.
    fields: AtomicU8,
    key: [u8; 32],
}

/// Hexadecimal digits of the hash in a masked value: enough to make collisions unlikely among a million values.
const MASK_HEX_DIGITS: usize = 16;

impl FieldMask {
    pub fn new(fields: &[MaskedField]) -> Self {
        let mask = Self { fields: AtomicU8::new(0), key: rand::random() };
        mask.set(fields);
        mask
    }

    /// Masks these fields from now on, and no others.
    pub fn set(&self, fields: &[MaskedField]) {
        let bits = fields.iter().fold(0, |bits, field| bits | (1 << *field as u8));
        self.fields.store(bits, Ordering::Relaxed);
    }

    /// The masked value; the value itself if the field is not masked.
    pub fn mask(&self, field: MaskedField, value: &str) -> String {
        if self.fields.load(Ordering::Relaxed) & (1 << field as u8) == 0 {
            return value.to_owned();
        }
        // With the field, so that equal values of two fields look different.
        let hash = Digest::of(&[&self.key[..], &[field as u8], value.as_bytes()].concat());
        format!("~{}", &hash.hex()[..MASK_HEX_DIGITS])
    }

    pub fn mask_all(&self, field: MaskedField, values: &[String]) -> Vec<String> {
        values.iter().map(|value| self.mask(field, value)).collect()
    }
}

impl Default for FieldMask {
    fn default() -> Self {
        Self::new(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_look_equal_within_one_process_only() {
        let mask = FieldMask::new(&[MaskedField::Subject, MaskedField::Channels]);
        let alice = mask.mask(MaskedField::Subject, "alice");
        assert_eq!(alice, mask.mask(MaskedField::Subject, "alice"));
        assert_eq!((alice.len(), alice.starts_with('~')), (17, true));
        assert_ne!(alice, mask.mask(MaskedField::Subject, "bob"));
        assert_ne!(alice, mask.mask(MaskedField::Channels, "alice"));
        assert_ne!(alice, FieldMask::new(&[MaskedField::Subject]).mask(MaskedField::Subject, "alice"));
        assert_eq!(mask.mask(MaskedField::Reason, "no"), "no");
        mask.set(&[MaskedField::Subject, MaskedField::Reason]);
        assert_eq!(mask.mask(MaskedField::Subject, "alice"), alice);
        assert_ne!(mask.mask(MaskedField::Reason, "no"), "no");
        assert_eq!(mask.mask(MaskedField::Channels, "alice"), "alice");
    }
}
