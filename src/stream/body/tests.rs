use crate::channel::hub::HubSettings;
use std::collections::HashMap;

use super::*;
use crate::channel::sequencer::GapReason;
use crate::event::{NewEvent, user_frame};
use crate::policy::stream_selector::StreamSelector;
use crate::store::memory::{MemoryStore, system_clock};
use crate::store::{Retention, Store};
use crate::stream::registry::{AbortSignal, StreamRegistry};

fn event(ms: u64, frame: &Bytes) -> SequencedFrame {
    SequencedFrame { at: StreamId::new(ms, 0), frame: frame.clone(), gap: None }
}

/// The bytes of every frame that a stream writes itself.
#[test]
fn blocks_as_they_are_written() {
    let channels = ["team-red".to_owned(), "gr\u{fc}n\n".to_owned()];
    let mut positions = Positions::new(&channels);
    positions.set(1, Some(StreamId::new(255, 1)));
    let mut out = Chunk::default();
    out.connected(&positions, "team-red", StreamId::new(16, 0));
    let frame = user_frame(StreamId::new(17, 0), "e", "{\"a\":1}", "team-red");
    assert!(out.item(&mut positions, 0, &event(17, &frame)));
    let gap =
        Gap { after: StreamId::new(17, 0), resumed: StreamId::new(19, 2), certain: true, why: GapReason::Trimmed };
    out.gap(&positions, &channels[1], gap);
    out.error("team-red");
    let expect = concat!(
        "id: 1fb25166:-,ff-1\n",
        "data: {\"type\":\"connected\",\"channel\":\"team-red\",\"cursor\":\"16-0\"}\n\n",
        "id: 1fb25166:11-0,ff-1\n",
        "data: {\"id\":\"17-0\",\"data\":{\"a\":1},\"event\":\"e\",\"channel\":\"team-red\"}\n\n",
        "id: 1fb25166:11-0,ff-1\n",
        "data: {\"type\":\"gap\",\"channel\":\"gr\u{fc}n\\n\",\"after\":\"17-0\",\"resumed\":\"19-2\",\"certain\":true,\"reason\":\"trimmed\"}\n\n",
        "data: {\"type\":\"error\",\"error\":\"channel \\\"team-red\\\" cannot be read\"}\n\n",
    );
    assert_eq!(String::from_utf8_lossy(&out.bytes), expect);
}

#[test]
fn a_large_frame_ends_the_piece_and_is_not_copied() {
    let mut positions = Positions::new(&["c".to_owned()]);
    let mut out = Chunk::default();
    let large = Bytes::from(vec![b'x'; PIECE]);
    assert!(out.item(&mut positions, 0, &event(1, &large)));
    assert_eq!(out.rest.as_ptr(), large.as_ptr());
    assert!(!out.item(&mut positions, 0, &event(2, &Bytes::from_static(b"data: x\n\n"))));
    assert_eq!(positions.get(0), Some(StreamId::new(1, 0)), "nothing was written, so nothing was seen");
}

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
    let hub = Hub::start(Arc::<MemoryStore>::clone(&store), settings, Arc::default());
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
