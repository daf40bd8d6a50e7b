//! `SIGTERM`.

use std::time::{Duration, Instant};

use crate::children::{Gateway, within};
use crate::client::{Sse, Wire};

async fn streams(gateway: &Gateway, count: usize) -> Vec<Sse> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = Sse::open(gateway.data, "channel=news").await;
        stream.connected("news").await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn a_first_signal_lets_the_streams_go() {
    for signal in ["TERM", "INT"] {
        let gateway = Gateway::start("store = \"memory:\"\nallow-all = true\ndrain.time = \"1s\"").await;
        let streams = streams(&gateway, 20).await;
        let begin = Instant::now();
        gateway.process.signal(signal).await;
        let mut ends = Vec::new();
        for mut stream in streams {
            let frame = stream.frame().await;
            assert_eq!(frame["type"], "reconnect");
            assert!(frame["timestamp"].is_u64(), "{frame}");
            assert_eq!(stream.next().await, None, "a stream ends behind its reconnect, as HTTP says it");
            ends.push(begin.elapsed());
        }
        let spread = ends.last().expect("ends").saturating_sub(ends[0]);
        assert!(spread > Duration::from_millis(500), "spread over the time: {ends:?}");
        // Browsers try a refused connection again without a word.
        let refused = within("an answer", Wire::get(gateway.data, "/api/realtime?channel=news", None, None)).await;
        assert!(refused.is_err(), "nobody is let in any more");
        let ended = gateway.process.end().await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        assert!(ended.stderr.contains("drained"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn without_streams_the_end_is_at_once() {
    let gateway = Gateway::start("store = \"memory:\"\nallow-all = true\ndrain.time = \"20s\"").await;
    let begin = Instant::now();
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let gateway = Gateway::start("store = \"memory:\"\nallow-all = true\ndrain.time = \"60s\"").await;
    let _streams = streams(&gateway, 3).await;
    let begin = Instant::now();
    gateway.process.signal("TERM").await;
    let draining = gateway.process.stderr.wait_for(|log| log.contains("draining"));
    assert!(within("the drain begins", draining).await);
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}
