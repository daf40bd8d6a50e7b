//! Proof that a known key signed a policy that a store or a gateway names.

use crate::artifact::digest::Digest;
use crate::artifact::signature::key::{TrustedKeys, key_id};
use crate::artifact::signature::{Signature, SignatureError, Statement};

/// A policy that a known key signed. Only [`TrustedKeys::prove`] creates one, so a function that takes it gets a verified policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    statement: Statement,
    key_id: String,
}

impl Proof {
    pub const fn statement(&self) -> Statement {
        self.statement
    }

    /// The key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Why nothing proves that a known key signed a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProven {
    #[error("it is not signed")]
    Unsigned,
    #[error("no key is known that could verify its signature")]
    NoKey,
    #[error(transparent)]
    Invalid(SignatureError),
    #[error("its record has the sequence {recorded}, but {signed} was signed")]
    OtherSequence { recorded: u64, signed: u64 },
}

impl TrustedKeys {
    /// Proves that one of these keys signed exactly this component and these cases. `recorded` is the sequence under which the policy is
    /// listed: it must be the signed one, or someone could list an older policy under the sequence of another.
    pub fn prove(
        &self,
        component: Digest,
        cases: Option<Digest>,
        recorded: u64,
        signature: Option<&Signature>,
    ) -> Result<Proof, NotProven> {
        let signature = signature.ok_or(NotProven::Unsigned)?;
        if !self.require_signatures() {
            return Err(NotProven::NoKey);
        }
        let key = self.find_signer(component, cases, signature).map_err(NotProven::Invalid)?;
        let statement = signature.statement();
        if statement.sequence != recorded {
            return Err(NotProven::OtherSequence { recorded, signed: statement.sequence });
        }
        Ok(Proof { statement, key_id: key_id(key) })
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn only_the_signed_policy_is_proven_and_only_with_its_key() {
        let [own, other] = [1, 2].map(|n| SigningKey::from_bytes(&[n; 32]));
        let keys = TrustedKeys::default().with(own.verifying_key());
        let (component, cases) = (Digest::of(b"policy"), Some(Digest::of(b"cases")));
        let statement = Statement { component, cases, sequence: 7 };
        let signature = statement.sign(&own);
        let proof = keys.prove(component, cases, 7, Some(&signature)).expect("it is signed");
        assert_eq!((proof.statement(), proof.key_id()), (statement, &*key_id(&own.verifying_key())));

        let refused = |keys: &TrustedKeys, component, cases, sequence, signature| {
            keys.prove(component, cases, sequence, signature).expect_err("not proven")
        };
        assert_eq!(refused(&keys, component, cases, 7, None), NotProven::Unsigned);
        assert_eq!(refused(&TrustedKeys::default(), component, cases, 7, Some(&signature)), NotProven::NoKey);
        let renamed = refused(&keys, component, cases, 8, Some(&signature));
        assert_eq!(renamed, NotProven::OtherSequence { recorded: 8, signed: 7 });
        let swapped = signature.text().replace(&component.hex(), &Digest::of(b"other").hex());
        let swapped = Signature::parse(swapped.as_bytes()).expect("a signature");
        for (component, cases, signature) in [
            (Digest::of(b"other"), cases, &signature),
            (Digest::of(b"other"), cases, &swapped),
            (component, None, &signature),
            (component, Some(Digest::of(b"others")), &signature),
            (component, cases, &statement.sign(&other)),
        ] {
            let error = refused(&keys, component, cases, 7, Some(signature));
            assert!(matches!(error, NotProven::Invalid(_)), "{error}");
        }
    }
}
