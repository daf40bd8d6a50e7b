//! Drain on SIGTERM and SIGINT.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Sse, Wire};
use crate::processes::{Gateway, wait_until, with_timeout};

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
async fn first_signal_drains_streams_over_the_drain_duration() {
    for signal in ["TERM", "INT"] {
        let gateway = Gateway::start("store = \"memory:\"\nallow-all = true\ndrain.duration = \"1s\"").await;
        let streams = streams(&gateway, 20).await;
        let begin = Instant::now();
        gateway.process.signal(signal).await;
        let mut ends = Vec::new();
        for mut stream in streams {
            let frame = stream.frame().await;
            assert_eq!(frame["type"], "reconnect");
            assert!(frame["timestamp"].is_u64(), "{frame}");
            assert_eq!(stream.next().await, None, "a stream ends after its reconnect frame, with a last chunk");
            ends.push(begin.elapsed());
        }
        let spread = ends.last().expect("ends").saturating_sub(ends[0]);
        assert!(spread > Duration::from_millis(500), "the streams end spread over the drain duration: {ends:?}");
        // Browsers retry a refused connection.
        let refused =
            with_timeout("an answer", Wire::get(gateway.data, "/api/realtime?channel=news", None, None)).await;
        assert!(refused.is_err(), "the port accepts no connection after the drain");
        let ended = gateway.process.end().await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(ended.stderr.contains("drained"), "{}", ended.stderr);
    }
}

/// Opens streams until connections are refused; returns unexpected answers.
async fn open_streams(to: SocketAddr, count: Arc<AtomicUsize>) -> Vec<String> {
    let mut unexpected = Vec::new();
    loop {
        match with_timeout("an answer", Wire::get(to, "/api/realtime?channel=test", None, None)).await {
            Ok(wire) if wire.status == 200 => {}
            Ok(wire) => unexpected.push(wire.head),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return unexpected,
            Err(error) => unexpected.push(error.to_string()),
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_gateway_answers_accepted_connections_and_refuses_new_ones() {
    for _ in 0..3 {
        let toml = "store = \"memory:\"\nallow-all = true\nlog.filter = \"warn\"\ndrain.duration = \"100ms\"";
        let gateway = Gateway::start(toml).await;
        let count = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..20).map(|_| tokio::spawn(open_streams(gateway.data, Arc::clone(&count)))).collect();
        wait_until("many streams are opened", async || count.load(Ordering::Relaxed) > 500).await;
        gateway.process.signal("TERM").await;
        assert_eq!(gateway.process.end().await.code(), Some(0));
        for client in clients {
            let unexpected = with_timeout("the port is closed", client).await.expect("no panic");
            assert!(unexpected.is_empty(), "{} of {count:?} answers, such as {}", unexpected.len(), unexpected[0]);
        }
    }
}

#[tokio::test]
async fn gateway_without_streams_exits_immediately() {
    let gateway = Gateway::start("store = \"memory:\"\nallow-all = true\ndrain.duration = \"10m\"").await;
    gateway.process.signal("TERM").await;
    // With streams the drain would take ten minutes, and `end` would time out.
    assert_eq!(gateway.process.end().await.code(), Some(0));
}

#[tokio::test]
async fn second_signal_exits_immediately() {
    let gateway = Gateway::start("store = \"memory:\"\nallow-all = true\ndrain.duration = \"10m\"").await;
    let _streams = streams(&gateway, 3).await;
    gateway.process.signal("TERM").await;
    gateway.process.stderr.wait_for_text("draining").await;
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(!ended.stderr.contains("drained"), "{}", ended.stderr);
}
