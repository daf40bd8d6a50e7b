use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::channel::hub::{Hub, HubSettings};
use crate::event::NewEvent;
use crate::policy::stream_selector::StreamSelector;
use crate::store::memory::MemoryStore;
use crate::store::{EventStore, Retention};
use crate::stream::chunk::CHUNK_BYTES;
use crate::stream::large_frames::LargeFrames;
use crate::stream::registry::{AbortSignal, EndReason, StreamRegistry};
use crate::stream::replay_budget::ReplayBudget;
use crate::util::clock::system_clock;

/// The next chunk, as hyper would write it.
async fn chunk(stream: &mut EventStream) -> Option<Bytes> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_frame(cx));
    let frame = tokio::time::timeout(Duration::from_secs(15), frame).await.expect("a chunk, or the end");
    frame.map(|Ok(frame)| frame.into_data().expect("bytes"))
}

#[tokio::test]
async fn remainder_of_a_frame_is_not_sent_after_a_revocation() {
    let settings = HubSettings {
        fill_holes: true,
        buffer_memory: 16 << 20,
        channel_memory: 1 << 20,
        reconcile_interval: Duration::from_secs(5),
        max_event_size: 8 << 20,
        linger: Duration::from_secs(30),
        fence: Duration::from_secs(5),
    };
    let store = Arc::new(MemoryStore::new(16 << 20, HashMap::new(), system_clock()));
    let hub = Hub::start(Arc::<MemoryStore>::clone(&store), settings, Arc::default());
    let replay_budget = Arc::new(ReplayBudget::new(1 << 20));
    let large_frames = Arc::new(LargeFrames::new(16 << 20));
    let (ping_interval, store_clock) = (Duration::from_secs(30), Arc::default());
    let context = StreamContext { hub, replay_budget, large_frames, ping_interval, store_clock };
    for (revoke, expected) in [(true, ""), (false, "reconnect")] {
        let streams = StreamRegistry::new(1);
        let permit = streams.admit(None, AbortSignal::default()).expect("a permit");
        let start = ChannelStart { number: 0, name: "c".into(), start: StartPosition::Tail, floor: StreamId::ZERO };
        let stream =
            EventStream::new(context.clone(), permit, &[start], Positions::new(&["c".into()]), &Arc::default());
        let mut stream = stream.expect("there is room");
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
        while !chunk(&mut stream).await.expect("the first frames").ends_with(b"}\n\n") {}
        let large = NewEvent::new("e", &serde_json::json!("x".repeat(20 * CHUNK_BYTES)));
        store.emit("c", &large, Retention::default()).await.expect("an id");
        assert!(chunk(&mut stream).await.expect("the event").starts_with(b"id: "));
        assert_eq!(chunk(&mut stream).await.expect("its first bytes").len(), CHUNK_BYTES);
        if revoke {
            assert_eq!(streams.revoke(&StreamSelector::default()), 1);
        } else {
            assert_eq!(streams.rotate(2, Duration::ZERO), 1);
            while streams.ended(EndReason::Rotated) == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut remainder = Vec::new();
        while let Some(bytes) = chunk(&mut stream).await {
            remainder.extend_from_slice(&bytes);
        }
        assert!(
            String::from_utf8_lossy(&remainder).contains(expected) && remainder.is_empty() == revoke,
            "{}",
            remainder.len()
        );
    }
}
