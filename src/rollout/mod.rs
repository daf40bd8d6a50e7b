//! A policy on its way into force: fetched → verified → compiled → linked → its cases pass → in force. Whatever fails on the way
//! leaves what is in force as it is, and says why.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::policy::cases;
use crate::policy::component::{LoadError, Policy};
use crate::policy::gate::Gate;
use crate::policy::signature::{Signature, SignatureError, Signatures, Statement};
use crate::policy::{About, Basis, Next, Origin, Swap};
use crate::stream::now_ms;
use crate::telemetry::metrics;

/// Swaps and failures that are remembered for those who ask.
const REMEMBERED: usize = 32;

/// What is put in force, as bytes that may be anything.
#[derive(Clone, Debug, Default)]
pub struct Artifact {
    /// The component.
    pub component: Bytes,
    /// The cases that travel with it, a `cases.toml`.
    pub cases: Option<String>,
    /// The signature that travels with it, the text of a `policy.wasm.sig`.
    pub signature: Option<String>,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its bytes are here.
    Fetched,
    /// Its signature is right, or none is wanted.
    Verified,
    /// It is machine code.
    Compiled,
    /// All that it imports is there.
    Linked,
    /// Its cases pass.
    Tested,
    /// It decides.
    InForce,
}

/// Why something did not take force.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("it could not be {}: {why}", name(*stage))]
pub struct Refused {
    /// What it did not become.
    pub stage: Stage,
    /// Why, for people.
    pub why: String,
    /// When, ms since 1970.
    pub time: u64,
    /// Where it came from.
    #[serde(flatten)]
    pub origin: Origin,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Fetched, Self::Verified, Self::Compiled, Self::Linked, Self::Tested, Self::InForce];

    /// A short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Verified => "verified",
            Self::Compiled => "compiled",
            Self::Linked => "linked",
            Self::Tested => "tested",
            Self::InForce => "in-force",
        }
    }
}

const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Fetched => "fetched",
        Stage::Verified => "verified",
        Stage::Compiled => "compiled",
        Stage::Linked => "linked",
        Stage::Tested => "put in force, for its cases fail",
        Stage::InForce => "put in force",
    }
}

/// What was in force and what was refused, the latest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What took force.
    pub swaps: VecDeque<Arc<About>>,
    /// What did not.
    pub refused: VecDeque<Arc<Refused>>,
}

/// The way into force. There is one in a process.
pub struct Rollout {
    gate: Arc<Gate>,
    signatures: Signatures,
    /// Held while something takes force, so that what was seen and what is in force are the same.
    flip: Mutex<()>,
    history: Mutex<History>,
}

impl Rollout {
    /// The way to this door, for those that are signed as they should be.
    #[must_use]
    pub fn new(gate: Arc<Gate>, signatures: Signatures) -> Self {
        Self { gate, signatures, flip: Mutex::default(), history: Mutex::default() }
    }

    /// Who may sign, and how far sequence numbers went.
    #[must_use]
    pub fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    /// Takes an artifact through all stages but the last. Nothing changes by it but the history, if it fails.
    pub async fn prepare(&self, artifact: Artifact, basis: Arc<Basis>, origin: Origin) -> Result<Next, Arc<Refused>> {
        match self.policy(artifact, &basis).await {
            Ok((policy, signed)) => {
                let sequence = signed.map(|statement| statement.sequence).or(origin.sequence);
                Ok(Next { policy, basis, origin: Origin { sequence, signed, ..origin } })
            }
            Err((stage, why)) => Err(self.refuse(stage, why, origin)),
        }
    }

    fn refuse(&self, stage: Stage, why: String, origin: Origin) -> Arc<Refused> {
        let refused = Arc::new(Refused { stage, why, time: now_ms(), origin });
        tracing::error!(
            source = refused.origin.source,
            ?stage,
            why = refused.why,
            "a policy was refused; what is in force stays"
        );
        metrics().policy_refused(stage.as_str());
        remember(&mut self.history().refused, Arc::clone(&refused));
        refused
    }

    fn verify(&self, artifact: &Artifact) -> Result<Option<Statement>, SignatureError> {
        let signature = artifact.signature.as_ref().map(|text| Signature::parse(text.as_bytes())).transpose()?;
        self.signatures.verify(&artifact.component, artifact.cases.as_deref(), signature.as_ref())
    }

    async fn policy(&self, artifact: Artifact, basis: &Basis) -> Result<(Policy, Option<Statement>), (Stage, String)> {
        let signed = self.verify(&artifact).map_err(|error| (Stage::Verified, error.to_string()))?;
        let Some(compiler) = self.gate.compiler().cloned() else {
            return Err((Stage::InForce, "this gateway lets everybody in (allow-all), so no policy is asked".into()));
        };
        let cases =
            artifact.cases.as_deref().map(|text| cases::file::parse(Path::new(cases::file::NAME), text)).transpose();
        let cases = cases.map_err(|error| (Stage::Fetched, error.to_string()))?;
        let load = {
            let compiler = compiler.clone();
            move || Policy::new(&compiler, &artifact.component)
        };
        let loaded = tokio::task::spawn_blocking(load).await.map_err(|error| (Stage::Compiled, error.to_string()))?;
        let policy = loaded.map_err(|error| (stage(&error), error.to_string()))?;
        for case in cases.iter().flat_map(|suite| &suite.cases) {
            let verdict = cases::run::run(&compiler, &policy, &basis.limits, case).await;
            if let Some(difference) = verdict.differences.first() {
                let (field, expected, got) = (difference.field, &difference.expected, &difference.got);
                return Err((Stage::Tested, format!("{:?}: {field} is {got} and not {expected}", case.name)));
            }
        }
        Ok((policy, signed))
    }

    /// Puts what was prepared in force, and waits until no answer of an older version is on its way out any more. Refused is only what
    /// something newer that was signed came before, or what cannot be remembered.
    pub async fn put_in_force(&self, next: Next) -> Result<Arc<About>, Arc<Refused>> {
        let within = next.basis.limits.timeout + next.basis.limits.queue_timeout + Duration::from_secs(2);
        let swap = self.flip(next)?;
        let about = Arc::clone(&swap.about);
        tracing::info!(policy = %about.digest, version = about.number, source = about.origin.source, "in force");
        remember(&mut self.history().swaps, Arc::clone(&about));
        if tokio::time::timeout(within, swap.acknowledged()).await.is_err() {
            tracing::warn!(
                version = about.number,
                "answers of an older version are still on their way to clients that do not read"
            );
        }
        Ok(about)
    }

    fn flip(&self, next: Next) -> Result<Swap, Arc<Refused>> {
        let _one = self.flip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = &next.origin.signed
            && let Err(error) = self.signatures.seen.raise(statement)
        {
            return Err(self.refuse(Stage::InForce, error.to_string(), next.origin));
        }
        Ok(self.gate.swap(next))
    }

    /// What was in force and what was refused.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember<T>(past: &mut VecDeque<T>, now: T) {
    past.push_front(now);
    past.truncate(REMEMBERED);
}

/// What a component that does not load did not become.
const fn stage(error: &LoadError) -> Stage {
    match error {
        LoadError::Read(_) | LoadError::TooLarge(_) => Stage::Fetched,
        LoadError::MissingImport(_) | LoadError::MissingExport(_) => Stage::Linked,
        _ => Stage::Compiled,
    }
}
