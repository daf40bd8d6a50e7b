//! A whole gateway in this process, on two free ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::artifact::bundle::PolicyBundle;
use tidegate::artifact::sequence_ledger::SignaturePolicy;
use tidegate::authz::authorizer::Authorizer;
use tidegate::channel::hub::Hub;
use tidegate::config::Config;
use tidegate::policy::info::{PolicyInfo, PolicyOrigin};
use tidegate::rollout::observers::Observers;
use tidegate::rollout::stage::ActivationError;
use tidegate::server;
use tidegate::server::{App, Listeners};
use tidegate::store::Store;
use tidegate::wasm::component::Policy;
use tidegate::wasm::engine;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Reply, Sse, ask};
use crate::linked::LinkedStore;

/// Nothing that a test waits for takes so long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for what has to happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("this did not happen within {PATIENCE:?}: {what}"),
    }
}

/// Waits until something holds that nobody tells of.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Who decides.
pub enum Door<'a> {
    AllowAll,
    NoPolicyYet,
    Policy(&'a [u8]),
}

pub struct Gateway {
    pub data: SocketAddr,
    pub control: SocketAddr,
    pub app: Arc<App>,
    pub store: Arc<LinkedStore>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    _cache: TempDir,
}

impl Gateway {
    /// A gateway that lets everybody in, with these lines in its `tidegate.toml`.
    pub async fn start(toml: &str) -> Self {
        Self::with(None, &Door::AllowAll, toml).await
    }

    /// A gateway with this policy in force.
    pub async fn behind(policy: &[u8], toml: &str) -> Self {
        Self::with(None, &Door::Policy(policy), toml).await
    }

    /// A gateway on a store that there may be already.
    pub async fn with(store: Option<Arc<LinkedStore>>, door: &Door<'_>, toml: &str) -> Self {
        // Who decides is put together below, as no test writes its policy to a file.
        // Nor does one wait for a balancer that is not there.
        let delay = if toml.contains("drain.delay") { "" } else { "drain.delay = \"0s\"\n" };
        let cache = tempfile::tempdir().expect("a folder");
        let kept = cache.path().display();
        let toml = format!("store = \"memory:\"\ncache-dir = '{kept}'\nallow-all = true\n{delay}{toml}");
        let config = Config::check(toml::from_str(&toml).expect("the test's TOML is right")).expect("it is valid");
        let store = store.unwrap_or_else(|| LinkedStore::new(config.store.seed.clone()));
        let env = config.env(Arc::clone(&store) as Arc<dyn Store>);
        let limits = config.limits.clone();
        let authorizer = match door {
            Door::AllowAll => Authorizer::open_to_all(env, limits),
            _ => Authorizer::new(engine::shared().expect("an engine"), env, limits),
        };
        let observers = Observers::new(config.limits.shadow);
        let authorizer = authorizer.observed_by(observers.list());
        if let Door::Policy(policy) = door {
            authorizer.activate(load(policy));
        }
        let hub = Hub::start(Arc::clone(&store) as Arc<dyn Store>, config.stream.hub.clone());
        let app = Arc::new(App::new(config, hub, Arc::new(authorizer), observers, None, SignaturePolicy::default()));
        let bind = async || TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let listeners = Listeners { data: bind().await.into(), control: bind().await.into() };
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound port has an address");
        let (data, control) = (address(&listeners.data.socket), address(&listeners.control.socket));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // A harness that is dropped wants nothing more of its gateway.
            let _ = stopped.await;
        };
        let served = tokio::spawn(server::run(listeners, Arc::clone(&app), shutdown));
        Self { data, control, app, store, stop, served, _cache: cache }
    }

    /// Opens a stream that has to be let in. `query` begins behind the `?`.
    pub async fn open(&self, query: &str) -> Sse {
        Sse::open(self.data, &format!("/api/realtime?{query}"), &[]).await
    }

    /// Asks for a stream that is not let in.
    pub async fn refused(&self, query: &str) -> Reply {
        ask(self.data, "GET", &format!("/api/realtime?{query}"), &[], "").await
    }

    /// Takes a policy all the way into force.
    pub async fn replace(&self, policy: &[u8]) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        let (rollout, context) = (&self.app.rollout, self.app.authorizer.context());
        let artifact = PolicyBundle::new(policy.to_vec());
        rollout.activate(rollout.prepare(artifact, context, PolicyOrigin::default()).await?).await
    }

    /// Tells the gateway to go; what is awaited is the end of [`server::run`].
    pub fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).expect("the gateway runs");
        self.served
    }

    /// Whether nobody has been let in by now, and nobody is about to be.
    pub fn is_untouched(&self) -> bool {
        self.app.streams.count() == 0 && self.store.subscriptions() == 0
    }
}

/// A policy that loads.
pub fn load(policy: &[u8]) -> Policy {
    Policy::new(&engine::shared().expect("an engine").into(), policy).expect("the policy loads")
}
