//! Follows the files of the policy and of the configuration. A changed policy goes through the activation stages; a mistake changes
//! nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::audit::AuditWriters;
use crate::config::reloadable::LiveOptionsSender;
use crate::config::{Config, ConfigRead};
use crate::rollout::file_watcher::FileWatcher;
use crate::rollout::lock::ActivationGuard;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::ActivationResult;
use crate::rollout::status::ConfigurationStatus;
use crate::rollout::{Rollout, blocking};
use crate::store::EventStore;
use crate::util::clock::now_ms;
use crate::util::fingerprint::{FileSnapshot, Fingerprint};
use crate::wasm::host::PolicyContext;

/// Editors, compilers and copies write a file in several steps; files are read when none changed for this long.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// A reload that an operator requested does not wait longer for files that keep changing.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(10);
/// Reads of a configuration whose files change while they are read.
const MAX_READS: u32 = 10;

/// Reads the configuration.
pub type LoadFn = Arc<dyn Fn() -> ConfigRead + Send + Sync>;

/// Reloads the policy and the configuration when their files change.
pub struct Reloader {
    rollout: Rollout,
    store: Arc<dyn EventStore>,
    /// The configuration that the process was started with.
    startup: Arc<Config>,
    /// Publishes the options that change without a restart.
    options: LiveOptionsSender,
    load: LoadFn,
    /// The configuration's file and then those that it refers to, as they were read last.
    files: FileSnapshot,
    /// Whether the configuration was ever in a file, so that the file must exist.
    file_required: bool,
    /// The last valid configuration. The active policy may still have an older one, if a stage failed.
    config: Arc<Config>,
    /// The environment and limits that `config` gives a policy.
    context: Arc<PolicyContext>,
    /// Whether the last activation of the policy file failed.
    last_failed: bool,
}

impl Reloader {
    /// Follows the policy's files, if it has any, and the files that the configuration was read from.
    pub fn new(
        rollout: Rollout,
        store: Arc<dyn EventStore>,
        startup: Arc<Config>,
        options: LiveOptionsSender,
        files: FileSnapshot,
        load: LoadFn,
    ) -> Self {
        let (config, context, file_required) =
            (Arc::clone(&startup), rollout.inner.authorizer.context(), files.first_existed());
        Self { rollout, store, startup, options, load, files, file_required, config, context, last_failed: false }
    }

    /// Follows the files until the task is aborted. A message reloads the configuration, also if its files did not change.
    pub async fn run(mut self, mut reload: mpsc::Receiver<()>) {
        let mut watcher = FileWatcher::default();
        loop {
            watcher.watch(&self.paths());
            let requested = tokio::select! {
                () = watcher.changed() => false,
                Some(()) = reload.recv() => true,
            };
            if requested || self.files.has_changed() || self.policy_changed() {
                self.settle(requested).await;
                if requested || self.files.has_changed() {
                    self.reload_configuration(requested).await;
                }
                if self.rollout.inner.authorizer.compiler().is_some() {
                    self.reload_policy(requested).await;
                }
            }
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let policy = self.rollout.state().source.files.clone();
        let mut paths: Vec<_> = policy.iter().flat_map(PolicySource::paths).collect();
        paths.extend_from_slice(self.files.paths());
        paths
    }

    fn policy_changed(&self) -> bool {
        let source = self.rollout.state().source.clone();
        source.files.is_some_and(|files| files.fingerprint() != source.fingerprint)
    }

    /// Waits until no file changes any more.
    async fn settle(&self, requested: bool) {
        let fingerprint = || Fingerprint::of(self.paths().iter().map(PathBuf::as_path));
        let (mut before, begin) = (fingerprint(), Instant::now());
        loop {
            sleep(SETTLE_TIME).await;
            let now = fingerprint();
            if now == before || (requested && begin.elapsed() > MAX_SETTLE_TIME) {
                return;
            }
            before = now;
        }
    }

    async fn reload_configuration(&mut self, requested: bool) {
        let path = self.files.paths().first().map(|path| path.display().to_string()).unwrap_or_default();
        let error = match self.read_and_open(&path, requested).await {
            Ok((config, writers)) => {
                self.apply(config, writers);
                tracing::info!(path, "configuration reloaded");
                None
            }
            Err(error) => {
                tracing::error!(error, "the configuration has a mistake; the one before stays in effect");
                Some(error)
            }
        };
        let needs_restart = self.needs_restart();
        if error.is_none() && !needs_restart.is_empty() {
            tracing::warn!(options = needs_restart.join(", "), "changed options take effect at the next start");
        }
        self.rollout.state().status.configuration =
            ConfigurationStatus { read_at: Some(now_ms()), error, needs_restart };
    }

    /// Reads the configuration, and does everything that can fail before it is applied.
    async fn read_and_open(&mut self, path: &str, requested: bool) -> Result<(Config, AuditWriters), String> {
        let config = self.read(path, requested).await?;
        config.log_warnings();
        let (audit, settings) = (Arc::clone(&self.rollout.inner.observers.audit), config.live.decisions.clone());
        let open = move || audit.open(settings).map_err(|error| format!("{:#}", anyhow::Error::new(error)));
        Ok((config, blocking(open).await?))
    }

    /// Reads all files of the configuration as they are at one moment. The files that it refers to are followed even if it is invalid,
    /// because they may be the reason: with mounted files, a configuration may appear before the secret that it names.
    async fn read(&mut self, path: &str, requested: bool) -> Result<Config, String> {
        for _ in 0..MAX_READS {
            let load = Arc::clone(&self.load);
            let read = blocking(move || Ok::<_, String>(load())).await;
            let ConfigRead { config, files } =
                read.inspect_err(|_| self.files = FileSnapshot::take(self.files.paths().to_vec()))?;
            self.file_required |= files.first_existed();
            let (is_missing, has_changed) = (self.file_required && !files.first_existed(), files.has_changed());
            self.files = files;
            if is_missing {
                return Err(format!("{path} is gone"));
            }
            if !has_changed {
                return config.map_err(|error| error.to_string());
            }
            self.settle(requested).await;
        }
        Err(format!("{path}, or a file that it refers to, does not stop changing"))
    }

    fn needs_restart(&self) -> Vec<&'static str> {
        let mut options = self.config.needs_restart(&self.startup);
        // The example policy is not a file.
        if PolicySource::of(&self.config).is_some() != PolicySource::of(&self.startup).is_some() {
            options.push("policy.file");
        }
        options
    }

    fn apply(&mut self, mut config: Config, writers: AuditWriters) {
        self.rollout.inner.observers.audit.install(writers);
        let live = config.live_in(&self.startup, &self.options.borrow());
        self.options.send_replace(live);
        config.keep_from(&self.config);
        if !config.takes_keys_from(&self.startup) {
            config.rollout.trust = Arc::clone(&self.config.rollout.trust);
        }
        if !config.has_same_policy_env(&self.config) {
            self.context = Arc::new(config.context(Arc::clone(&self.store), &self.startup.limits));
        }
        if let (Some(files), Some(_)) = (PolicySource::of(&config), PolicySource::of(&self.startup)) {
            let source = &mut self.rollout.state().source;
            if source.files.as_ref() != Some(&files) {
                source.files = Some(files);
                source.fingerprint = Fingerprint::default();
            }
        }
        self.config = Arc::new(config);
    }

    /// Activates the policy in the file, and the active policy with the new context, unless they are active already.
    async fn reload_policy(&mut self, requested: bool) {
        // A clone, because the guard borrows it while this function changes `self`.
        let rollout = self.rollout.clone();
        // Another activation may be in progress that replaces the file.
        let guard = rollout.lock_activation().await;
        let authorizer = &rollout.inner.authorizer;
        // Set before the stages run: a removed key signs nothing from now on, even if a stage fails.
        let trust = Arc::clone(&self.config.rollout.trust);
        let new_trust = !Arc::ptr_eq(&rollout.signatures().trusted_keys, &trust);
        rollout.state().signatures.trusted_keys = trust;
        let new_context = !Arc::ptr_eq(&authorizer.context(), &self.context);
        let files = rollout.state().source.files.clone();
        if let Some(files) = files {
            if self.is_due(&files, requested || new_context || new_trust) {
                self.last_failed = self.activate_file(&guard, files).await.is_err();
            } else if new_trust && let Ok((bundle, _)) = rollout.read(files.clone()).await {
                // The active policy stays. The log and the status show if a restart would not accept the files any more.
                let _ = guard.verify(&bundle, &files.origin());
            }
        }
        if Arc::ptr_eq(&authorizer.context(), &self.context) {
            return;
        }
        match guard.revalidate_active(Arc::clone(&self.context)).await {
            Ok(Some(next)) => {
                // A failure is in the log and in the status.
                let _ = rollout.activate_and_save(next, None).await;
            }
            Ok(None) => authorizer.set_initial_context(Arc::clone(&self.context)),
            Err(_) => {}
        }
    }

    /// Whether the policy's file has to be read: it changed, or its last activation failed and may succeed now.
    fn is_due(&self, files: &PolicySource, retry: bool) -> bool {
        let fingerprint = files.fingerprint();
        let source = &mut self.rollout.state().source;
        let changed = fingerprint != source.fingerprint;
        if fingerprint.first_exists() {
            return changed || (retry && self.last_failed);
        }
        if changed {
            tracing::warn!(file = %files.component.display(), "the policy's file is gone; the policy stays active");
            source.fingerprint = fingerprint;
        }
        false
    }

    /// Activates the policy in the files, unless it is active already.
    async fn activate_file(&self, guard: &ActivationGuard<'_>, files: PolicySource) -> ActivationResult<()> {
        // Set before the read: a file that cannot be read is not tried again before it changes.
        let fingerprint = files.fingerprint();
        self.rollout.state().source.fingerprint = fingerprint;
        let origin = files.origin();
        let bundle = self.rollout.fetch(files).await?;
        let is_active = self.rollout.inner.authorizer.active().is_some_and(|info| {
            let same = *info.digest == *bundle.digest() && info.cases.as_deref() == bundle.cases_digest().as_deref();
            same && info.origin.persisted
        });
        if is_active {
            return guard.verify(&bundle, &origin);
        }
        let next = guard.prepare(self.rollout.signatures(), bundle.clone(), Arc::clone(&self.context), origin).await?;
        self.rollout.activate_and_save(next, Some(bundle)).await.map(drop)
    }
}
