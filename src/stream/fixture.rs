//! A stream on an embedded store, for tests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::cursor::StartPosition;
use crate::channel::hub::{Hub, HubSettings};
use crate::event::{NewEvent, StreamId};
use crate::policy::stream_selector::StreamSelector;
use crate::store::memory::MemoryStore;
use crate::store::{EventStore, Retention};
use crate::stream::StreamContext;
use crate::stream::body::{ChannelStart, EventStream};
use crate::stream::large_frames::LargeFrames;
use crate::stream::position::Positions;
use crate::stream::registry::{AbortSignal, StreamInfo, StreamRegistry};
use crate::stream::replay_budget::ReplayBudget;
use crate::util::clock::system_clock;

/// The channel of all streams.
pub const CHANNEL: &str = "c";
/// `stream.max-event-size` of the fixture.
pub const MAX_EVENT_SIZE: usize = 1 << 20;
pub const PING_INTERVAL: Duration = Duration::from_secs(30);

pub struct Fixture {
    pub store: Arc<MemoryStore>,
    pub context: StreamContext,
    pub streams: StreamRegistry,
}

impl Fixture {
    pub fn new() -> Self {
        let settings = HubSettings {
            fill_holes: true,
            buffer_memory: 16 << 20,
            channel_memory: 1 << 20,
            reconcile_interval: Duration::from_secs(5),
            max_event_size: MAX_EVENT_SIZE,
            linger: Duration::from_secs(30),
            fence: Duration::from_secs(5),
        };
        let store = Arc::new(MemoryStore::new(16 << 20, HashMap::new(), system_clock()));
        let hub = Hub::start(Arc::<MemoryStore>::clone(&store), settings, Arc::default());
        let context = StreamContext {
            hub,
            replay_budget: Arc::new(ReplayBudget::new(1 << 20)),
            large_frames: Arc::new(LargeFrames::new(16 << 20)),
            ping_interval: PING_INTERVAL,
            store_clock: Arc::default(),
        };
        Self { store, context, streams: StreamRegistry::new(100) }
    }

    /// A stream that starts at the end of the channel, by a decision of the generation 1.
    pub fn stream(&self) -> EventStream {
        let permit = self.streams.admit(None, AbortSignal::default()).expect("a permit");
        let start = ChannelStart { number: 0, name: CHANNEL.into(), start: StartPosition::Tail, floor: StreamId::ZERO };
        let positions = Positions::new(&[CHANNEL.into()]);
        let stream = EventStream::new(self.context.clone(), permit, &[start], positions, &Arc::default());
        let stream = stream.expect("there is room");
        let info = StreamInfo {
            request_id: String::new(),
            subject: None,
            channels: stream.channels(),
            address: None,
            since: 0,
            expires_at: None,
            generation: 1,
        };
        stream.register(info, None);
        stream
    }

    /// Adds an event with this text.
    pub async fn emit(&self, text: &str) {
        let event = NewEvent::new("e", &serde_json::json!(text));
        self.store.emit(CHANNEL, &event, Retention::default()).await.expect("an id");
    }

    /// Revokes all streams.
    pub fn revoke(&self) {
        self.streams.revoke(&StreamSelector::default());
    }
}
