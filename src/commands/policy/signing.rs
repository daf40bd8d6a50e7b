//! Signing by a command that changes a policy: which policies are signed, and with which sequence.
//!
//! A file that the operator names is theirs to sign. What a store or a gateway names is signed only with a [`Proof`] that a known key
//! signed it before: anyone with write access to the store could have written it.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;
use ed25519_dalek::SigningKey;
use http::Method;
use serde_json::{Value, json};

use crate::artifact::digest::Digest;
use crate::artifact::signature::key::{TrustedKeys, key_id};
use crate::artifact::signature::proof::{NotProven, Proof};
use crate::artifact::signature::{MAX_SEQUENCE, Signature, Statement};
use crate::commands::control_client::{ControlClient, Target};
use crate::commands::policy::fleet::managing_fleet;
use crate::commands::policy::sign::{BundleArgs, private_key};
use crate::commands::print_warning;
use crate::config;
use crate::config::ConfigError;
use crate::fleet::push::Bundle;
use crate::fleet::status::{FleetStatus, NextSequence, SequenceClaim};

/// The keys with which a command verifies signatures.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// Verify signatures with this public key, a PEM file; repeatable [env: TIDEGATE_POLICY_TRUSTED_KEYS] [default: policy.trusted-keys in tidegate.toml]
    #[arg(long, value_name = "FILE")]
    trusted_keys: Vec<PathBuf>,
}

impl TrustArgs {
    pub fn load(&self) -> Result<TrustedKeys, ConfigError> {
        let paths = if self.trusted_keys.is_empty() { config::trusted_keys()? } else { self.trusted_keys.clone() };
        TrustedKeys::load(&paths).map_err(|error| ConfigError(format!("trusted keys: {error}")))
    }
}

#[derive(Debug, Args)]
pub struct SigningArgs {
    /// Sign with this private key, a PEM file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Sign with this sequence [default: the next one]
    #[arg(long, value_name = "SEQUENCE", requires = "key", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=MAX_SEQUENCE))]
    pub sequence: Option<u64>,
    #[command(flatten)]
    pub trust: TrustArgs,
}

impl SigningArgs {
    /// Reads the keys.
    pub fn load(&self) -> Result<Signer, ConfigError> {
        let key = self.key.as_deref().map(private_key).transpose()?;
        let trusted = self.trust.load()?;
        let keys = key.iter().fold(trusted, |keys, key| keys.with(key.verifying_key()));
        Ok(Signer { key, sequence: self.sequence, keys })
    }
}

/// The key of the operator, and the keys that prove an earlier signature.
pub struct Signer {
    /// None if the command does not sign.
    key: Option<SigningKey>,
    /// Of `--sequence`.
    sequence: Option<u64>,
    /// The trusted keys, and the public half of `key`.
    keys: TrustedKeys,
}

impl Signer {
    /// The keys that verify signatures.
    pub const fn keys(&self) -> &TrustedKeys {
        &self.keys
    }

    /// Signs the files of a bundle if a key was given. Otherwise their signature is in the file `named`, or in the one next to the
    /// component, if it exists.
    pub async fn sign_files(
        &self,
        target: &Target,
        bundle: &mut Bundle,
        files: &BundleArgs,
        named: Option<&Path>,
    ) -> anyhow::Result<()> {
        let Statement { component, cases, .. } = Statement::of(&bundle.component, bundle.cases.as_deref(), 0);
        bundle.signature = match self.sign(target, component, cases).await? {
            Some(signature) => Some(signature),
            None => files.signature(named)?,
        };
        Ok(())
    }

    /// Signs again what a store or a gateway names as a policy that was signed before, if a key was given. `what` describes it.
    pub async fn sign_again(
        &self,
        target: &Target,
        what: &str,
        proof: Result<Proof, NotProven>,
    ) -> anyhow::Result<Option<Signature>> {
        let Some(key) = &self.key else { return Ok(None) };
        let id = key_id(&key.verifying_key());
        let proof = proof.map_err(|reason| {
            anyhow!(
                "{what} is not signed again: nothing proves that the key {id} or a trusted key signed it before ({reason}). Push the policy's \
                 file again (`tidegate policy push FILE --key …`), or name the key that signed it with --trusted-keys"
            )
        })?;
        let Statement { component, cases, .. } = proof.statement();
        self.sign(target, component, cases).await
    }

    /// The only place where a command signs a policy for a fleet or a gateway.
    async fn sign(
        &self,
        target: &Target,
        component: Digest,
        cases: Option<Digest>,
    ) -> anyhow::Result<Option<Signature>> {
        let Some(key) = &self.key else { return Ok(None) };
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => self.next_sequence(target).await?,
        };
        Ok(Some(Statement { component, cases, sequence }.sign(key)))
    }

    async fn next_sequence(&self, target: &Target) -> anyhow::Result<u64> {
        let NextSequence { sequence, ignored } = match target {
            Target::Store { fleet, .. } => FleetStatus::of(&**fleet).await?.next_sequence(&self.keys),
            Target::Gateway(gateway) => match managing_fleet(gateway).await? {
                Some(status) => status.next_sequence(&self.keys),
                None => self.next_sequence_of_gateway(gateway).await?,
            },
        };
        if let Some(SequenceClaim { source, sequence: claimed }) = ignored {
            print_warning(&format!(
                "{source} has the sequence {claimed}, which is far above all that are proven by a signature, and does not count: the \
                 policy is signed with {sequence}. If {claimed} is right, set --sequence {}",
                claimed.saturating_add(1)
            ));
        }
        if sequence > MAX_SEQUENCE {
            bail!("no sequence is greater than {MAX_SEQUENCE}, which was signed: see `tidegate policy list`");
        }
        Ok(sequence)
    }

    /// The next sequence of a gateway with a policy of its own.
    async fn next_sequence_of_gateway(&self, gateway: &ControlClient) -> anyhow::Result<NextSequence> {
        let policy = gateway.call(Method::GET, "/v1/policy", None).await?;
        let Some(sequence) = policy["active"]["sequence"].as_u64() else { return Ok(NextSequence::after(0, [])) };
        let proof = self.prove_active(&policy["active"], sequence);
        let proven = proof.map_or(0, |proof| proof.statement().sequence);
        Ok(NextSequence::after(proven, [SequenceClaim { source: "the gateway's policy".into(), sequence }]))
    }

    fn prove_active(&self, active: &Value, sequence: u64) -> Option<Proof> {
        let digest = |field: &str| active[field].as_str()?.parse::<Digest>().ok();
        let signature = Signature::parse(json!(active["signature"]).to_string().as_bytes()).ok()?;
        self.keys.prove(digest("digest")?, digest("cases"), sequence, Some(&signature)).ok()
    }
}
