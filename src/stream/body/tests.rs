use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::channel::hub::{Hub, HubSettings};
use crate::event::NewEvent;
use crate::policy::stream_selector::StreamSelector;
use crate::store::memory::{MemoryStore, system_clock};
use crate::store::{Retention, Store};
use crate::stream::registry::{AbortSignal, StreamRegistry};
use crate::stream::replay_budget::ReplayBudget;

/// What hyper would write next.
async fn piece(stream: &mut EventStream) -> Option<Bytes> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_frame(cx));
    let frame = tokio::time::timeout(Duration::from_secs(15), frame).await.expect("there is something, or an end");
    frame.map(|Ok(frame)| frame.into_data().expect("bytes"))
}

#[tokio::test]
async fn the_rest_of_a_frame_does_not_follow_a_revocation() {
    let settings = HubSettings {
        buffer_memory: 16 << 20,
        reconcile_interval: Duration::from_secs(5),
        max_event_size: 8 << 20,
        linger: Duration::from_secs(30),
    };
    let store = Arc::new(MemoryStore::new(16 << 20, HashMap::new(), system_clock()));
    let hub = Hub::start(Arc::<MemoryStore>::clone(&store), settings);
    let replays = Arc::new(ReplayBudget::new(1 << 20));
    let context = StreamContext { hub, replays, ping: Duration::from_secs(30) };
    for (revoke, words) in [(true, ""), (false, "reconnect")] {
        let streams = StreamRegistry::new(1);
        let ticket = streams.admit(AbortSignal::default()).expect("there is room");
        let entry = ChannelStart { number: 0, name: "c".into(), start: StartPosition::Tail };
        let mut stream = EventStream::new(context.clone(), ticket, vec![entry], Positions::new(&["c".into()]));
        let reader = StreamInfo {
            request: String::new(),
            subject: None,
            channels: stream.channels(),
            address: "".into(),
            since: 0,
            expires_at: None,
            version: 1,
        };
        stream.register(reader, None);
        while !piece(&mut stream).await.expect("it begins").ends_with(b"}\n\n") {}
        let large = NewEvent::new("e", &serde_json::json!("x".repeat(20 * PIECE)));
        store.emit("c", &large, Retention::default()).await.expect("it is emitted");
        assert!(piece(&mut stream).await.expect("the event").starts_with(b"id: "));
        assert_eq!(piece(&mut stream).await.expect("its first bytes").len(), 4 * PIECE);
        if revoke {
            assert_eq!(streams.revoke(&StreamSelector::default()), 1);
        } else {
            assert_eq!(streams.rotate(2, Duration::ZERO), 1);
            while streams.ended(crate::stream::registry::EndReason::Rotated) == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut rest = Vec::new();
        while let Some(bytes) = piece(&mut stream).await {
            rest.extend_from_slice(&bytes);
        }
        assert!(String::from_utf8_lossy(&rest).contains(words) && rest.is_empty() == revoke, "{}", rest.len());
    }
}
