//! Follows the files that the process was made of: the policy's, the configuration, and what that refers to. Whatever changes goes through
//! the stages, and a mistake leaves everything as it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::audit::Writers;
use crate::config::live::Options;
use crate::config::{Config, ConfigRead};
use crate::rollout::file_watcher::Watch;
use crate::rollout::lock::ActivationGuard;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::ActivationError;
use crate::rollout::{Rollout, blocking};
use crate::store::Store;
use crate::util::clock::now_ms;
use crate::util::fingerprint::{FileSnapshot, Fingerprint};
use crate::wasm::host::PolicyContext;

/// An editor, a compiler or a copy writes a file in several steps; when all files were still for so long, they are read.
const SETTLE: Duration = Duration::from_millis(200);
/// Whoever asks for the configuration to be read does not wait longer for a file that does not come to rest.
const RESTLESS: Duration = Duration::from_secs(10);
/// A configuration whose files change while they are read is read so often at most.
const ATTEMPTS: u32 = 10;

/// Reads the configuration anew.
pub type LoadFn = Arc<dyn Fn() -> ConfigRead + Send + Sync>;

/// What is followed.
pub struct Reloader {
    rollout: Rollout,
    store: Arc<dyn Store>,
    /// What the process was started with.
    running: Arc<Config>,
    /// What changes without a restart, for those who want to know.
    options: Options,
    load: LoadFn,
    /// The configuration's file and then what it refers to, as they were when they were read last.
    seen: FileSnapshot,
    /// There was such a file, so that there has to be one.
    is_in_file: bool,
    /// The last one without a mistake. What is in force may be older, if the stages refused it.
    config: Arc<Config>,
    /// The same as what is around the policy.
    around: Arc<PolicyContext>,
    /// What was tried last was refused.
    refused: bool,
}

impl Reloader {
    /// Follows the policy's file, if it is one, and the files that the configuration was read from.
    #[must_use]
    pub fn new(
        rollout: Rollout,
        store: Arc<dyn Store>,
        running: Arc<Config>,
        options: Options,
        seen: FileSnapshot,
        load: LoadFn,
    ) -> Self {
        let (config, around, is_in_file) = (Arc::clone(&running), rollout.0.authorizer.context(), seen.first_existed());
        Self { rollout, store, running, options, load, seen, is_in_file, config, around, refused: false }
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
        let mut paths: Vec<_> = files.iter().flat_map(PolicySource::all).collect();
        paths.extend_from_slice(self.seen.paths());
        paths
    }

    fn something_changed(&self) -> bool {
        self.seen.has_changed() || self.policy_changed()
    }

    fn policy_changed(&self) -> bool {
        let place = self.rollout.0.place().clone();
        place.files.is_some_and(|files| files.stamp() != place.seen)
    }

    /// Waits until nobody writes to any of the files.
    async fn settle(&self, asked: bool) {
        let stamp = || Fingerprint::of(self.paths().iter().map(PathBuf::as_path));
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
        if asked || self.seen.has_changed() {
            self.configure(asked).await;
        }
        if self.rollout.0.authorizer.compiler().is_some() {
            self.renew(asked).await;
        }
    }

    /// Reads the configuration.
    async fn configure(&mut self, asked: bool) {
        let path = self.seen.paths().first().map(|path| path.display().to_string()).unwrap_or_default();
        let told = match self.read_and_open(&path, asked).await {
            Ok((config, writers)) => {
                self.take(config, writers);
                let needs_restart = self.needs_restart();
                tracing::info!(path, "the configuration was read");
                if !needs_restart.is_empty() {
                    tracing::warn!(options = needs_restart.join(", "), "changed, but taken at the next start only");
                }
                crate::rollout::status::Configuration { read: Some(now_ms()), error: None, needs_restart }
            }
            Err(error) => {
                tracing::error!(error, "the configuration has a mistake; what it was before stays");
                let needs_restart = self.needs_restart();
                crate::rollout::status::Configuration { read: Some(now_ms()), error: Some(error), needs_restart }
            }
        };
        self.rollout.history().configuration = told;
    }

    /// The configuration, with all that can fail of what it asks for.
    async fn read_and_open(&mut self, path: &str, asked: bool) -> Result<(Config, Writers), String> {
        let config = self.read(path, asked).await?;
        let (audit, settings) = (Arc::clone(&self.rollout.0.observers.audit), config.live.decisions.clone());
        let open = move || audit.open(settings).map_err(|error| format!("{:#}", anyhow::Error::new(error)));
        Ok((config, blocking(open).await?))
    }

    /// The configuration as all its files have it at one moment. Those of one that has a mistake are followed too, for it may be theirs:
    /// where they are mounted, a configuration may come before the secret that it names.
    async fn read(&mut self, path: &str, asked: bool) -> Result<Config, String> {
        for _ in 0..ATTEMPTS {
            let load = Arc::clone(&self.load);
            let read = blocking(move || Ok::<_, String>(load())).await;
            let ConfigRead { config, files } =
                read.inspect_err(|_| self.seen = FileSnapshot::take(self.seen.paths().to_vec()))?;
            self.is_in_file |= files.first_existed();
            let (is_gone, has_changed) = (self.is_in_file && !files.first_existed(), files.has_changed());
            self.seen = files;
            if is_gone {
                return Err(format!("{path} is gone"));
            }
            if !has_changed {
                return config.map_err(|error| error.to_string());
            }
            self.settle(asked).await;
        }
        Err(format!("{path}, or what it refers to, does not stop changing"))
    }

    fn needs_restart(&self) -> Vec<&'static str> {
        let mut options = self.config.needs_restart(&self.running);
        // The example policy is no file.
        if PolicySource::of(&self.config).is_some() != PolicySource::of(&self.running).is_some() {
            options.push("policy.file");
        }
        options
    }

    fn take(&mut self, mut config: Config, writers: Writers) {
        self.rollout.0.observers.audit.take(writers);
        let live = config.live_in(&self.running, &self.options.borrow());
        self.options.send_replace(live);
        config.keep_from(&self.config);
        if !config.takes_keys_from(&self.running) {
            config.rollout.trust = Arc::clone(&self.config.rollout.trust);
        }
        if !config.has_same_surroundings(&self.config) {
            self.around = Arc::new(config.context(Arc::clone(&self.store), &self.running.limits));
        }
        if let (Some(files), Some(_)) = (PolicySource::of(&config), PolicySource::of(&self.running)) {
            let mut place = self.rollout.0.place();
            if place.files.as_ref() != Some(&files) {
                place.files = Some(files);
                place.seen = Fingerprint::default();
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
        let authorizer = &rollout.0.authorizer;
        // A key that was taken away signs nothing from now on, whatever becomes of what it signed before.
        let new_trust = !Arc::ptr_eq(&rollout.signatures().trust, &self.config.rollout.trust);
        turn.trust(&self.config.rollout.trust);
        let new_around = !Arc::ptr_eq(&authorizer.context(), &self.around);
        let files = rollout.0.place().files.clone();
        if let Some(files) = files {
            if self.is_due(&files, asked || new_around || new_trust) {
                self.refused = self.take_file(&turn, files).await.is_err();
            } else if new_trust {
                self.verify_file(&turn, files).await;
            }
        }
        if Arc::ptr_eq(&authorizer.context(), &self.around) {
            return;
        }
        match turn.renew(Arc::clone(&self.around)).await {
            Ok(Some(next)) => {
                // What is refused is in the log and in the status.
                let _ = turn.activate(next, None).await;
            }
            Ok(None) => authorizer.surround(Arc::clone(&self.around)),
            Err(_) => {}
        }
    }

    /// Whether the policy's file has to be read.
    fn is_due(&self, files: &PolicySource, again: bool) -> bool {
        let stamp = files.stamp();
        let mut place = self.rollout.0.place();
        let changed = stamp != place.seen;
        if stamp.first_exists() {
            return changed || (again && self.refused);
        }
        if changed {
            tracing::warn!(file = %files.component.display(), "the policy's file is gone; the policy stays in force");
            place.seen = stamp;
        }
        false
    }

    /// Takes what lies in the files into force, unless it is there already.
    async fn take_file(&self, turn: &ActivationGuard<'_>, files: PolicySource) -> Result<(), Arc<ActivationError>> {
        // Whatever becomes of it, it is not tried again before it changes.
        self.rollout.0.place().seen = files.stamp();
        let origin = files.origin();
        let artifact = self.rollout.fetch(files).await?;
        let is_in_force = self.rollout.0.authorizer.active().is_some_and(|info| {
            let same =
                *info.digest == *artifact.digest() && info.cases.as_deref() == artifact.cases_digest().as_deref();
            same && !info.origin.until_restart
        });
        if is_in_force {
            return turn.verify(&artifact, &origin).await;
        }
        let next = turn.prepare(&artifact, Arc::clone(&self.around), origin).await?;
        turn.activate(next, Some(artifact)).await.map(drop)
    }

    /// Says so if a restart would not take what lies in the files, since other keys may sign by now. What is in force goes on.
    async fn verify_file(&self, turn: &ActivationGuard<'_>, files: PolicySource) {
        let origin = files.origin();
        // What is refused is in the log and in the status.
        if let Ok((artifact, _)) = self.rollout.read(files).await {
            let _ = turn.verify(&artifact, &origin).await;
        }
    }
}
