//! Follows the files that a gateway is made of: the policy's, and the configuration. Whatever changes goes through the stages, and a
//! mistake leaves everything as it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::file::Stamp;
use super::watching::Watch;
use super::{Files, Refused, Rollout, Turn, blocking};
use crate::config::{Config, ConfigError};
use crate::policy::Basis;
use crate::store::Store;
use crate::stream::now_ms;

/// An editor, a compiler or a copy writes a file in several steps; when all files were still for so long, they are read.
const SETTLE: Duration = Duration::from_millis(200);
/// Whoever asks for the configuration to be read does not wait longer for a file that does not come to rest.
const RESTLESS: Duration = Duration::from_secs(10);

/// Reads the configuration anew.
pub type Load = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// What is followed.
pub struct Follow {
    rollout: Rollout,
    store: Arc<dyn Store>,
    /// What the process was started with.
    running: Arc<Config>,
    load: Load,
    /// Where the configuration lies.
    path: PathBuf,
    /// The configuration as it was when it was looked at last.
    seen: Stamp,
    /// The last one without a mistake. What is in force may be older, if the stages refused it.
    config: Arc<Config>,
    /// The same as what is around the policy.
    around: Arc<Basis>,
    /// What was tried last was refused.
    refused: bool,
}

impl Follow {
    /// Follows the policy's file, if it is one, and the configuration in `path`.
    #[must_use]
    pub fn new(rollout: Rollout, store: Arc<dyn Store>, running: Arc<Config>, path: PathBuf, load: Load) -> Self {
        let seen = Stamp::of([&*path]);
        let (config, around) = (Arc::clone(&running), rollout.0.gate.basis());
        Self { rollout, store, running, load, path, seen, config, around, refused: false }
    }

    /// Follows for ever. `reload` asks for the configuration to be read, whether it changed or not.
    pub async fn run(mut self, mut reload: mpsc::Receiver<()>) {
        let mut watch = Watch::default();
        loop {
            watch.set(&self.paths());
            let asked = tokio::select! {
                () = watch.changed() => false,
                Some(()) = reload.recv() => true,
            };
            if asked || self.something_changed() {
                self.settle(asked).await;
                self.look(asked).await;
            }
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let files = self.rollout.0.place().files.clone();
        let mut paths: Vec<_> = files.iter().flat_map(Files::all).collect();
        paths.push(self.path.clone());
        paths
    }

    fn something_changed(&self) -> bool {
        Stamp::of([&*self.path]) != self.seen || self.policy_changed()
    }

    fn policy_changed(&self) -> bool {
        let place = self.rollout.0.place().clone();
        place.files.is_some_and(|files| files.stamp() != place.seen)
    }

    /// Waits until nobody writes to any of the files.
    async fn settle(&self, asked: bool) {
        let stamp = || Stamp::of(self.paths().iter().map(PathBuf::as_path));
        let (mut before, begin) = (stamp(), Instant::now());
        loop {
            sleep(SETTLE).await;
            let now = stamp();
            if now == before || (asked && begin.elapsed() > RESTLESS) {
                return;
            }
            before = now;
        }
    }

    async fn look(&mut self, asked: bool) {
        let now = Stamp::of([&*self.path]);
        let changed = now != self.seen;
        if asked || changed {
            let is_gone = !now.is_there() && self.seen.is_there();
            self.seen = now;
            self.configure(is_gone).await;
        }
        if self.rollout.0.gate.compiler().is_some() {
            self.renew(asked).await;
        }
    }

    /// Reads the configuration.
    async fn configure(&mut self, is_gone: bool) {
        let path = self.path.display().to_string();
        let load = Arc::clone(&self.load);
        let loaded = if is_gone { Err(format!("{path} is gone")) } else { blocking(move || load()).await };
        let told = match loaded {
            Ok(config) => {
                self.take(config);
                let needs_restart = self.needs_restart();
                tracing::info!(path, "the configuration was read");
                if !needs_restart.is_empty() {
                    tracing::warn!(options = needs_restart.join(", "), "changed, but taken at the next start only");
                }
                super::Configuration { read: Some(now_ms()), error: None, needs_restart }
            }
            Err(error) => {
                tracing::error!(error, "the configuration has a mistake; what it was before stays");
                let needs_restart = self.needs_restart();
                super::Configuration { read: Some(now_ms()), error: Some(error), needs_restart }
            }
        };
        self.rollout.history().configuration = told;
    }

    fn needs_restart(&self) -> Vec<&'static str> {
        let mut options = self.config.needs_restart(&self.running);
        // The example policy is no file.
        if Files::of(&self.config).is_some() != Files::of(&self.running).is_some() {
            options.push("policy.file");
        }
        options
    }

    fn take(&mut self, mut config: Config) {
        config.keep_from(&self.config);
        if !config.takes_keys_from(&self.running) {
            config.rollout.trust = Arc::clone(&self.config.rollout.trust);
        }
        if !config.has_same_surroundings(&self.config) {
            self.around = Arc::new(config.basis(Arc::clone(&self.store), &self.running.limits));
        }
        if let (Some(files), Some(_)) = (Files::of(&config), Files::of(&self.running)) {
            let mut place = self.rollout.0.place();
            if place.files.as_ref() != Some(&files) {
                place.files = Some(files);
                place.seen = Stamp::default();
            }
        }
        self.config = Arc::new(config);
    }

    /// Puts in force what is not yet: the policy in the file, and what the configuration puts around it.
    async fn renew(&mut self, asked: bool) {
        // One of its own, for the turn is held while the state here changes.
        let rollout = self.rollout.clone();
        // Behind whoever had the turn before, and may have replaced the file.
        let turn = rollout.turn().await;
        let gate = &rollout.0.gate;
        let trusted = rollout.signatures().trust;
        let new_trust = !Arc::ptr_eq(&trusted, &self.config.rollout.trust);
        let new_around = !Arc::ptr_eq(&gate.basis(), &self.around);
        let files = rollout.0.place().files.clone();
        if let Some(files) = files.filter(|files| self.is_due(files, asked || new_around, new_trust)) {
            turn.trust(&self.config.rollout.trust);
            let taken = self.take_file(&turn, files, new_trust).await;
            self.refused = taken.is_err();
            if self.refused {
                turn.trust(&trusted);
            }
        }
        if Arc::ptr_eq(&gate.basis(), &self.around) {
            return;
        }
        match turn.renew(Arc::clone(&self.around)).await {
            Ok(Some(next)) => {
                // What is refused is in the log and in the status.
                let _ = turn.put_in_force(next).await;
            }
            Ok(None) => gate.surround(Arc::clone(&self.around)),
            Err(_) => {}
        }
    }

    /// Whether the policy's file has to be read.
    fn is_due(&self, files: &Files, again: bool, new_trust: bool) -> bool {
        let stamp = files.stamp();
        let mut place = self.rollout.0.place();
        let changed = stamp != place.seen;
        if stamp.is_there() {
            return changed || new_trust || (again && self.refused);
        }
        if changed {
            tracing::warn!(file = %files.component.display(), "the policy's file is gone; the policy stays in force");
            place.seen = stamp;
        }
        false
    }

    /// Takes what lies in the files into force, unless it is there already.
    async fn take_file(&self, turn: &Turn<'_>, files: Files, new_trust: bool) -> Result<(), Arc<Refused>> {
        // Whatever becomes of it, it is not tried again before it changes.
        self.rollout.0.place().seen = files.stamp();
        let origin = files.origin();
        let artifact = self.rollout.fetch(files).await?;
        let is_in_force = self.rollout.0.gate.in_force().is_some_and(|about| {
            let same =
                *about.digest == *artifact.digest() && about.cases.as_deref() == artifact.cases_digest().as_deref();
            same && !about.origin.until_restart
        });
        if is_in_force && !new_trust {
            return Ok(());
        }
        let next = turn.prepare(&artifact, Arc::clone(&self.around), origin).await?;
        turn.keep(artifact).await;
        turn.put_in_force(next).await.map(drop)
    }
}
