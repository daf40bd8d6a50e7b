//! The server: two ports, their connections, and the end.

mod backlog;
mod control;
mod cors;
mod data;
mod drain;
mod hold;
pub mod playground;
mod port;
mod recent;
mod redis_rest;
pub(crate) mod request;
mod respond;

use crate::server::playground::Playground;
use crate::telemetry::metrics::metrics;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::audit::Audit;
use crate::authz::authorizer::Authorizer;
use crate::channel::hub::Hub;
use crate::channel::sequencer::GapReason;
use crate::config::Config;
use crate::config::live::{Live, Options};
use crate::fleet::commands::Commands;
use crate::fleet::node::Fleet;
use crate::fleet::revocation;
use crate::fleet::revocation::RevocationService;
use crate::policy::Failure;
use crate::rollout::Rollout;
use crate::rollout::observers::Observers;
use crate::rollout::stage::Stage;
use crate::server::control::top::Top;
use crate::server::drain::Departure;
use crate::server::hold::Hold;
use crate::server::port::{Port, Side};
use crate::server::recent::Recent;
use crate::server::respond::Response;
use crate::shadow::shadow_policy::ShadowEvaluator;
use crate::stream::body::StreamContext;
use crate::stream::registry::StreamRegistry;
use crate::stream::replay::ReplayBudget;
use crate::telemetry::metrics::Opened;
use crate::telemetry::process;

/// A node that starts serves when it knows what the fleet said, or so long after, if the store is away.
const HEARING: Duration = Duration::from_millis(500);
/// Requests that may wait for a decision (`reject.hold`), as a part of the streams that there may be.
const HELD: usize = 10;

/// Everything that a request may need.
pub struct App {
    /// What the process was started with.
    pub config: Arc<Config>,
    /// What may have changed since then.
    pub options: Options,
    /// The channels.
    pub hub: Hub,
    /// The door.
    pub authorizer: Arc<Authorizer>,
    /// The decision log and the recording.
    pub audit: Arc<Audit>,
    /// The shadow policy.
    pub shadow: Arc<ShadowEvaluator>,
    /// The way of policies into force.
    pub rollout: Rollout,
    /// This node among others, once it has joined them.
    pub fleet: OnceLock<Arc<Fleet>>,
    /// The streams.
    pub streams: StreamRegistry,
    /// Takes rights away on this node.
    pub revocations: Arc<RevocationService>,
    /// What the fleet says.
    pub commands: Arc<Commands>,
    /// The page of `tidegate dev`.
    pub playground: Option<Playground>,
    hold: Hold,
    replays: Arc<ReplayBudget>,
    departure: Departure,
    recent: Recent,
    top: Top,
    /// Places for policies that are being sent.
    policy_bodies: Semaphore,
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        config: Config,
        hub: Hub,
        authorizer: Arc<Authorizer>,
        observers: Observers,
        playground: Option<Playground>,
        signatures: SignaturePolicy,
    ) -> Self {
        foresee();
        let streams = StreamRegistry::new(config.stream.max_streams);
        let commands = Commands::new(&hub, config.node_at(config.listen));
        let revocations = RevocationService::new(Arc::clone(&authorizer), streams.clone(), Arc::clone(hub.store()));
        let revocations = Arc::new(revocations);
        commands.listen(revocation::KINDS, Arc::<RevocationService>::clone(&revocations));
        Self {
            revocations,
            streams,
            commands: Arc::new(commands),
            hold: Hold::new(config.stream.max_streams.div_ceil(HELD), authorizer.swaps()),
            replays: Arc::new(ReplayBudget::new(config.stream.replay_memory)),
            departure: Departure::new(),
            recent: Recent::default(),
            top: Top::default(),
            fleet: OnceLock::new(),
            policy_bodies: Semaphore::new(control::policy::BODIES),
            audit: Arc::clone(&observers.audit),
            shadow: Arc::clone(&observers.shadow),
            rollout: Rollout::new(Arc::clone(&authorizer), observers, signatures, config.node_records()),
            options: Options::new(Arc::clone(&config.live)),
            config: Arc::new(config),
            hub,
            authorizer,
            playground,
        }
    }

    /// The options of now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.options.borrow())
    }

    /// Whether a key may be a channel now.
    #[must_use]
    pub fn permits(&self, name: &str) -> bool {
        self.live().channels.permit(name, &self.authorizer.context().env.prefixes)
    }

    fn stream_context(&self) -> StreamContext {
        StreamContext { hub: self.hub.clone(), replays: Arc::clone(&self.replays), ping: self.config.stream.ping }
    }

    /// How many requests wait for a decision (`reject.hold`).
    #[must_use]
    pub fn held(&self) -> usize {
        self.hold.count()
    }

    fn is_draining(&self) -> bool {
        self.departure.is_announced()
    }
}

/// A socket that a server gets from outside.
pub struct Listener {
    /// It listens.
    pub socket: TcpListener,
    /// It belongs to somebody who keeps it open for a successor.
    pub inherited: bool,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self { socket, inherited: false }
    }
}

/// What is counted from 0, before it happens.
fn foresee() {
    let _ = process::started();
    let refusals = data::REFUSALS.iter().map(|code| Opened::Refused(code));
    let opens: Vec<Opened> = Failure::KINDS.iter().map(|kind| Opened::Error(kind)).chain(refusals).collect();
    metrics().foresee(&opens, &Stage::ALL.map(Stage::as_str), &GapReason::ALL.map(GapReason::as_str));
}

/// The sockets that a server gets from outside.
pub struct Listeners {
    /// For clients.
    pub data: Listener,
    /// For operators.
    pub control: Listener,
}

/// Serves until `shutdown`, then lets the streams go, spread over the configured time.
pub async fn run(listeners: Listeners, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let hearing = tokio::spawn(Arc::clone(&app.commands).run());
    // Who connects waits meanwhile; else it might have to come back at once, when it is known what was said before.
    let _ = tokio::time::timeout(HEARING, app.commands.known()).await;
    let inherited = listeners.data.inherited;
    let data = Port::open(listeners.data, Side::Data, &app);
    let control = Port::open(listeners.control, Side::Control, &app);
    let rotating = tokio::spawn(rotate(Arc::clone(&app)));
    shutdown.await;
    drain::leave(&app, data, control, inherited).await;
    rotating.abort();
    hearing.abort();
}

/// After each swap, streams that an older version let in are asked to come back; and those that were to stay, or to come back later, when the
/// time for that is another.
async fn rotate(app: Arc<App>) {
    let (mut swaps, mut options) = (app.authorizer.swaps(), app.options.subscribe());
    let mut within = options.borrow_and_update().rotate_within;
    loop {
        tokio::select! {
            Ok(()) = swaps.changed() => {}
            Ok(()) = options.changed() => {
                let now = options.borrow_and_update().rotate_within;
                if std::mem::replace(&mut within, now) == now {
                    continue;
                }
            }
            else => return,
        }
        let version = *swaps.borrow_and_update();
        let Some(within) = within else { continue };
        let streams = app.streams.rotate(version, within);
        if streams > 0 {
            tracing::info!(streams, version, ?within, "rotating");
        }
    }
}

async fn answer(app: Arc<App>, request: Request<Incoming>, peer: SocketAddr, side: Side) -> Response {
    if request::head_size(&request) > app.config.max_head {
        return respond::head_too_large(app.config.max_head);
    }
    if side == Side::Control {
        return control::answer(&app, request).await;
    }
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut response = data::answer(&app, request, peer).await;
    // Whoever comes back shall come back to a balancer, not on this connection.
    if is_http1 && app.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
