//! What the handlers of both ports share.

use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, watch};

use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::audit::Audit;
use crate::audit::writer::LineCounters;
use crate::authz::authorizer::Authorizer;
use crate::channel::frame::GapReason;
use crate::channel::hub::Hub;
use crate::config::Config;
use crate::config::reloadable::{LiveOptions, LiveOptionsSender};
use crate::config::server::CONTROL_CONNECTIONS;
use crate::fleet::commands::Commands;
use crate::fleet::node::Fleet;
use crate::fleet::revocation::RevocationService;
use crate::policy::Failure;
use crate::rollout::stage::Stage;
use crate::rollout::{Observers, Rollout};
use crate::server::api_error::{ApiError, REFUSAL_CODES};
use crate::server::body_budget::BodyBudget;
use crate::server::connection::deadline::EndCause;
use crate::server::connection::limits::{PortKind, PortLimits, refusal_name};
use crate::server::control::stream_stats::StreamStatsCache;
use crate::server::data::client_address::ForwardingWarnings;
use crate::server::data::rejection_delay::RejectionDelay;
use crate::server::recent_rejections::RecentRejections;
use crate::shadow::shadow_policy::ShadowEvaluator;
use crate::stream::StreamContext;
use crate::stream::large_frames::LargeFrames;
use crate::stream::registry::StreamRegistry;
use crate::stream::replay_budget::ReplayBudget;
use crate::telemetry::metrics::{Metrics, StreamRequestOutcome};
use crate::util::clock::now_ms;
use crate::util::descriptors;
use crate::util::shares::Refusal;

/// One request may be delayed (`reject.delay`) for this many streams that are allowed.
const STREAMS_PER_DELAYED_REQUEST: usize = 10;

/// Characters of a name that an error shows.
const MAX_SHOWN_CHARS: usize = 300;

/// Policies that are uploaded at once: one in the pipeline, one that waits for it, and some that supersede that one.
pub const MAX_POLICY_UPLOADS: usize = 4;

/// Bytes for incomplete heads and unread responses of the control port.
const CONTROL_MEMORY: usize = 32 << 20;

/// State that the handlers of both ports share.
pub struct App {
    /// The configuration that the process was started with.
    pub config: Arc<Config>,
    /// The options that change without a restart.
    pub options: LiveOptionsSender,
    /// When the gateway started, ms since the Unix epoch.
    pub(super) started_at: u64,
    /// The counters of this gateway, the same as the hub's.
    pub metrics: Arc<Metrics>,
    /// Channels and their events.
    pub hub: Hub,
    /// Decides about stream requests.
    pub authorizer: Arc<Authorizer>,
    /// The lines of the log, if this process has one.
    pub log_lines: OnceLock<Arc<LineCounters>>,
    /// The decision log and the recording.
    pub audit: Arc<Audit>,
    /// The shadow policy.
    pub shadow: Arc<ShadowEvaluator>,
    /// Activates policies.
    pub rollout: Rollout,
    /// This node's part in the fleet, once it has joined; never set on `memory:`.
    pub fleet: OnceLock<Arc<Fleet>>,
    /// All open streams.
    pub streams: StreamRegistry,
    /// Applies revocations on this node.
    pub revocations: Arc<RevocationService>,
    /// The fleet's commands.
    pub commands: Arc<Commands>,
    /// The playground of `tidegate dev`.
    pub playground: Option<Playground>,
    pub(super) forwarding_warnings: ForwardingWarnings,
    pub(super) rejection_delay: RejectionDelay,
    pub(super) stream_context: StreamContext,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) recent_rejections: RecentRejections,
    pub(super) stream_stats: StreamStatsCache,
    /// The memory of bodies.
    pub(super) body_budget: Arc<BodyBudget>,
    /// Limits how many policies are uploaded at once.
    pub(super) policy_uploads: Semaphore,
    data_limits: Arc<PortLimits>,
    control_limits: Arc<PortLimits>,
}

/// The phases of a node's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Ready and serving.
    Running,
    /// Serving, and reported as not ready, so that load balancers send no more clients.
    NotReady,
    /// The data port is closed and streams are being closed.
    Draining,
}

/// The content of the playground.
pub struct Playground {
    /// The policy's name.
    pub policy: String,
    /// Sessions to choose from, each with a description.
    pub users: Vec<(String, String)>,
    /// Channels to choose from.
    pub channels: Vec<String>,
    /// Whether browsers of other machines may use it.
    pub open_to_all: bool,
}

impl App {
    /// Composes the state of the node with this name. Its parts count in the metrics of the hub.
    pub fn new(
        config: Config,
        node: String,
        hub: Hub,
        authorizer: Arc<Authorizer>,
        observers: Observers,
        playground: Option<Playground>,
        signatures: SignaturePolicy,
    ) -> Self {
        let metrics = Arc::clone(hub.metrics());
        register_labels(&metrics);
        let streams = StreamRegistry::new(config.stream.max_streams);
        let keys = config.fleet_keys.clone();
        let records = config.node_records(&node);
        let store = Arc::clone(hub.store());
        let revocations = RevocationService::new(Arc::clone(&authorizer), streams.clone(), store, keys.clone());
        let revocations = Arc::new(revocations);
        let commands = Commands::new(&hub, keys, node, Arc::<RevocationService>::clone(&revocations));
        Self {
            revocations,
            streams,
            commands: Arc::new(commands),
            rejection_delay: RejectionDelay::new(
                config.stream.max_streams.div_ceil(STREAMS_PER_DELAYED_REQUEST),
                authorizer.generations(),
            ),
            stream_context: StreamContext {
                hub: hub.clone(),
                replay_budget: Arc::new(ReplayBudget::new(config.stream.replay_memory)),
                large_frames: Arc::new(LargeFrames::new(
                    config.stream.replay_memory.max(config.stream.hub.buffer_memory),
                )),
                ping_interval: config.stream.ping_interval,
                store_clock: Arc::clone(authorizer.revocations().clock()),
            },
            forwarding_warnings: ForwardingWarnings::default(),
            phase: watch::Sender::new(Phase::Running),
            recent_rejections: RecentRejections::default(),
            stream_stats: StreamStatsCache::default(),
            fleet: OnceLock::new(),
            log_lines: OnceLock::new(),
            body_budget: BodyBudget::new(config.body_memory),
            policy_uploads: Semaphore::new(MAX_POLICY_UPLOADS),
            data_limits: data_limits(&config, &metrics),
            control_limits: control_limits(&config, &metrics),
            audit: Arc::clone(&observers.audit),
            shadow: Arc::clone(&observers.shadow),
            rollout: Rollout::new(Arc::clone(&authorizer), observers, signatures, records, Arc::clone(&metrics)),
            metrics,
            started_at: now_ms(),
            options: LiveOptionsSender::new(Arc::clone(&config.live)),
            config: Arc::new(config),
            hub,
            authorizer,
            playground,
        }
    }

    /// This node's name, in the fleet and for its files below `cache-dir`.
    pub fn node(&self) -> &str {
        self.commands.node()
    }

    /// The bounds of a port's connections.
    pub(super) const fn port_limits(&self, kind: PortKind) -> &Arc<PortLimits> {
        match kind {
            PortKind::Data => &self.data_limits,
            PortKind::Control => &self.control_limits,
        }
    }

    /// The current values of the options that change without a restart.
    pub fn live(&self) -> Arc<LiveOptions> {
        Arc::clone(&self.options.borrow())
    }

    /// Fails if the configuration does not allow this key as a channel.
    pub(super) fn check_channel(&self, name: &str) -> Result<(), ApiError> {
        let allowed = self.live().channels.permit(name, &self.authorizer.context().env.lookup_prefixes);
        if allowed { Ok(()) } else { Err(ApiError::ChannelNotAllowed(name.chars().take(MAX_SHOWN_CHARS).collect())) }
    }

    /// The fleet, if it manages this node's policy.
    pub(super) fn managing_fleet(&self) -> Option<&Arc<Fleet>> {
        self.fleet.get().filter(|fleet| fleet.is_fleet_managed())
    }

    /// How many requests are delayed (`reject.delay`).
    pub fn delayed_requests(&self) -> usize {
        self.rejection_delay.delayed()
    }

    /// Whether the shutdown has begun: the node is not ready any more.
    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::NotReady
    }

    /// Waits until endless responses have to end.
    pub(super) fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            // A closed channel means that the node was dropped: that is an end, too.
            let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
        }
    }
}

fn data_limits(config: &Config, metrics: &Arc<Metrics>) -> Arc<PortLimits> {
    let connections = config.server.connection_limit(config.stream.max_streams, descriptors::limit());
    PortLimits::new(PortKind::Data, config, connections, config.server.connection_memory, metrics)
}

fn control_limits(config: &Config, metrics: &Arc<Metrics>) -> Arc<PortLimits> {
    PortLimits::new(PortKind::Control, config, CONTROL_CONNECTIONS, CONTROL_MEMORY, metrics)
}

/// Creates the series of all known label values, so that they start at 0.
fn register_labels(metrics: &Metrics) {
    let refused = REFUSAL_CODES.iter().map(|code| StreamRequestOutcome::Refused(code));
    let opens: Vec<StreamRequestOutcome> =
        Failure::KINDS.iter().map(|kind| StreamRequestOutcome::Error(kind)).chain(refused).collect();
    metrics.register_labels(&opens, &Stage::ALL.map(Stage::as_str), &GapReason::ALL.map(GapReason::as_str));
    for port in [PortKind::Data, PortKind::Control].map(PortKind::as_str) {
        let refusals = [Refusal::Exhausted, Refusal::ShareExceeded].map(refusal_name);
        metrics.register_port(port, &refusals, &EndCause::ALL.map(EndCause::as_str));
    }
}
