//! A complete gateway in this process, on two free ports.

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
use tidegate::rollout::Observers;
use tidegate::rollout::stage::ActivationError;
use tidegate::server;
use tidegate::server::Listeners;
use tidegate::server::app::App;
use tidegate::store::EventStore;
use tidegate::telemetry::metrics::Metrics;
use tidegate::wasm::component::Policy;
use tidegate::wasm::engine;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Reply, Sse, send_request};
use crate::faulty_store::FaultyStore;
use crate::guests::component;

/// Longer than any condition of a test takes, even on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Awaits a future, and fails the test after the timeout.
pub async fn with_timeout<T>(condition: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TEST_TIMEOUT, future).await {
        Ok(value) => value,
        Err(_) => panic!("timed out after {TEST_TIMEOUT:?}: {condition}"),
    }
}

/// Polls a condition until it holds.
pub async fn wait_until(condition: &str, mut holds: impl FnMut() -> bool) {
    with_timeout(condition, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The policy that a gateway starts with.
pub enum InitialPolicy<'a> {
    AllowAll,
    Missing,
    Component(&'a [u8]),
}

pub struct Gateway {
    pub data: SocketAddr,
    pub control: SocketAddr,
    pub app: Arc<App>,
    pub store: Arc<FaultyStore>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    _cache: TempDir,
}

impl Gateway {
    /// A gateway that allows all requests, with these lines in its `tidegate.toml`.
    pub async fn start(toml: &str) -> Self {
        Self::start_with(None, &InitialPolicy::AllowAll, toml).await
    }

    /// A gateway with this active policy.
    pub async fn with_policy(policy: &[u8], toml: &str) -> Self {
        Self::start_with(None, &InitialPolicy::Component(policy), toml).await
    }

    /// A gateway whose policy looks up one key and then allows the request. Its decisions wait while the store's look-ups are held back.
    pub async fn with_lookups(toml: &str) -> Self {
        let options = "policy.lookup = { prefixes = ['forbidden:'], timeout = '60s' }\npolicy.timeout = '60s'\n";
        Self::with_policy(&component("lookup"), &format!("{options}{toml}")).await
    }

    /// A gateway on this store, or on a new one.
    pub async fn start_with(store: Option<Arc<FaultyStore>>, initial: &InitialPolicy<'_>, toml: &str) -> Self {
        // The authorizer is set up below, as no test writes its policy to a file.
        // No load balancer has to notice the drain, so it needs no delay.
        let delay = if toml.contains("drain.delay") { "" } else { "drain.delay = \"0s\"\n" };
        let cache = tempfile::tempdir().expect("a directory");
        let cache_dir = cache.path().display();
        let toml = format!("store = \"memory:\"\ncache-dir = '{cache_dir}'\nallow-all = true\n{delay}{toml}");
        let config =
            Config::validate(toml::from_str(&toml).expect("the test's TOML can be parsed")).expect("it is valid");
        let store = store.unwrap_or_else(|| FaultyStore::new(config.store.seed.clone()));
        let env = config.env(Arc::clone(&store) as Arc<dyn EventStore>);
        let limits = config.limits.clone();
        let metrics = Arc::new(Metrics::new());
        let authorizer = match initial {
            InitialPolicy::AllowAll => Authorizer::allow_all(env, limits, Arc::clone(&metrics)),
            _ => Authorizer::new(engine::shared().expect("an engine"), env, limits, Arc::clone(&metrics)),
        };
        let observers = Observers::new(config.limits.shadow_concurrency);
        let authorizer = authorizer.with_observers(observers.list());
        if let InitialPolicy::Component(policy) = initial {
            authorizer.activate(load(policy));
        }
        let hub = Hub::start(Arc::clone(&store) as Arc<dyn EventStore>, config.stream.hub.clone(), metrics);
        let node = config.node_at(config.listen);
        let (listen, control) = (config.listen, config.control);
        let app =
            Arc::new(App::new(config, node, hub, Arc::new(authorizer), observers, None, SignaturePolicy::default()));
        let bind = async |address: SocketAddr| TcpListener::bind((address.ip(), 0)).await.expect("a free port");
        let listeners = Listeners { data: bind(listen).await.into(), control: bind(control).await.into() };
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound port has an address");
        let (data, control) = (address(&listeners.data.socket), address(&listeners.control.socket));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // A dropped harness stops its gateway too.
            let _ = stopped.await;
        };
        let served = tokio::spawn(server::run(listeners, Arc::clone(&app), shutdown));
        Self { data, control, app, store, stop, served, _cache: cache }
    }

    /// Opens a stream, which the policy must allow. `query` begins after the `?`.
    pub async fn open(&self, query: &str) -> Sse {
        Sse::open(self.data, &format!("/api/realtime?{query}"), &[]).await
    }

    /// Requests a stream, and reads the whole answer.
    pub async fn request(&self, query: &str) -> Reply {
        send_request(self.data, "GET", &format!("/api/realtime?{query}"), &[], "").await
    }

    /// Runs a policy through the whole activation pipeline.
    pub async fn activate(&self, policy: &[u8]) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        let (rollout, context) = (&self.app.rollout, self.app.authorizer.context());
        let artifact = PolicyBundle::new(policy.to_vec());
        rollout.activate(rollout.prepare(artifact, context, PolicyOrigin::default()).await?).await
    }

    /// Starts the drain; the handle finishes when [`server::run`] returns.
    pub fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).expect("the gateway runs");
        self.served
    }

    /// Whether there is no stream and no subscription.
    pub fn is_idle(&self) -> bool {
        self.app.streams.count() == 0 && self.store.subscriptions() == 0
    }
}

/// Loads a policy, which must be valid.
pub fn load(policy: &[u8]) -> Policy {
    Policy::new(&engine::shared().expect("an engine").into(), policy).expect("the policy loads")
}
