//! What the handlers of both ports share.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use super::control::{POLICY_BODIES, Top};
use super::data::REFUSALS;
use super::data::playground::Playground;
use super::data::rejection_delay::Hold;
use super::recent_rejections::Recent;
use super::shutdown::Departure;
use crate::channel::hub::Hub;
use crate::channel::order::Why;
use crate::config::{Config, Live, Options};
use crate::fleet::Fleet;
use crate::fleet::commands::Commands;
use crate::fleet::revocation::{self, Revocations};
use crate::policy::Failure;
use crate::policy::gate::Gate;
use crate::policy::signature::Signatures;
use crate::rollout::{Rollout, Stage};
use crate::stream::StreamContext;
use crate::stream::registry::Streams;
use crate::stream::replay::ReplayBudget;
use crate::telemetry::metrics::Opened;
use crate::telemetry::{metrics, process};

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
    pub gate: Arc<Gate>,
    /// The way of policies into force.
    pub rollout: Rollout,
    /// This node among others, once it has joined them.
    pub fleet: OnceLock<Arc<Fleet>>,
    /// The streams.
    pub streams: Streams,
    /// Takes rights away on this node.
    pub revocations: Arc<Revocations>,
    /// What the fleet says.
    pub commands: Arc<Commands>,
    /// The page of `tidegate dev`.
    pub playground: Option<Playground>,
    pub(super) hold: Hold,
    pub(super) replays: Arc<ReplayBudget>,
    pub(super) departure: Departure,
    pub(super) recent: Recent,
    pub(super) top: Top,
    /// Places for policies that are being sent.
    pub(super) policy_bodies: Semaphore,
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        config: Config,
        hub: Hub,
        gate: Arc<Gate>,
        playground: Option<Playground>,
        signatures: Signatures,
    ) -> Self {
        foresee();
        let streams = Streams::new(config.stream.max_streams);
        let commands = Commands::new(&hub, config.node_at(config.listen));
        let revocations = Revocations::new(Arc::clone(&gate), streams.clone(), Arc::clone(hub.store()));
        let revocations = Arc::new(revocations);
        commands.listen(revocation::KINDS, Arc::<Revocations>::clone(&revocations));
        Self {
            revocations,
            streams,
            commands: Arc::new(commands),
            hold: Hold::new(config.stream.max_streams.div_ceil(HELD), gate.swaps()),
            replays: Arc::new(ReplayBudget::new(config.stream.replay_memory)),
            departure: Departure::new(),
            recent: Recent::default(),
            top: Top::default(),
            fleet: OnceLock::new(),
            policy_bodies: Semaphore::new(POLICY_BODIES),
            rollout: Rollout::new(Arc::clone(&gate), signatures, config.cache_dir.as_deref()),
            options: Options::new(Arc::clone(&config.live)),
            config: Arc::new(config),
            hub,
            gate,
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
        self.live().channels.permit(name, &self.gate.basis().surroundings.prefixes)
    }

    pub(super) fn stream_context(&self) -> StreamContext {
        StreamContext { hub: self.hub.clone(), replays: Arc::clone(&self.replays), ping: self.config.stream.ping }
    }

    /// How many requests wait for a decision (`reject.hold`).
    #[must_use]
    pub fn held(&self) -> usize {
        self.hold.count()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.departure.is_announced()
    }
}

/// What is counted from 0, before it happens.
fn foresee() {
    let _ = process::started();
    let refusals = REFUSALS.iter().map(|code| Opened::Refused(code));
    let opens: Vec<Opened> = Failure::KINDS.iter().map(|kind| Opened::Error(kind)).chain(refusals).collect();
    metrics().foresee(&opens, &Stage::ALL.map(Stage::as_str), &Why::ALL.map(Why::as_str));
}
