//! Fairness between clients: channels are bounded, and decisions and reads are served in turns. A client without a subject is its connection.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tidegate::telemetry::metrics::Metrics;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::guests::component;
use crate::harness::{Gateway, wait_until, with_timeout};

/// Less than the 30 s for which a channel lingers, and longer than a removal takes on a busy machine.
const WITHOUT_LINGER: Duration = Duration::from_secs(15);
/// The most channels of one stream.
const CHANNELS: usize = 100;
/// How many channels are opened at once.
const IN_SERVICE: usize = 16;
/// How many pages are replayed at once.
const REPLAYS: usize = 32;

/// The query of a stream with channels `<prefix>-0`, `<prefix>-1` and so on.
fn channels(prefix: &str) -> String {
    (0..CHANNELS).map(|n| format!("channel={prefix}-{n}")).collect::<Vec<_>>().join("&")
}

/// Opens streams on one HTTP/2 connection, so that they are one client. They are closed when the set is dropped.
async fn open_on_one_connection(gateway: &Gateway, queries: impl Iterator<Item = String>) -> JoinSet<()> {
    let socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (client, connection) = handshake.handshake(TokioIo::new(socket)).await.expect("HTTP/2");
    let mut streams = JoinSet::new();
    streams.spawn(async { drop(connection.await) });
    for query in queries {
        let target = format!("http://h/api/realtime?{query}");
        let request = http::Request::get(target).body(Empty::<Bytes>::new()).expect("a request");
        let mut client = client.clone();
        streams.spawn(async move {
            let _response = client.send_request(request).await;
            std::future::pending().await
        });
    }
    streams
}

fn allowed(metrics: &Metrics) -> u64 {
    metrics.stream_requests().iter().filter(|count| count.outcome == "allowed").map(|count| count.count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_of_one_connection_do_not_delay_those_of_others() {
    const REQUESTS: usize = 80;
    let options = "policy.concurrency = 2\npolicy.queue-timeout = '60s'\npolicy.timeout = '60s'";
    let gateway = Gateway::with_policy(&component("slow"), options).await;
    let _flood = open_on_one_connection(&gateway, (0..REQUESTS).map(|n| format!("channel={n}"))).await;
    wait_until("the flood waits", || gateway.app.streams.count() == REQUESTS).await;
    let _other = gateway.open("channel=other").await;
    let served = allowed(&gateway.app.metrics);
    assert!(served < REQUESTS as u64 / 2, "{served} of the flood's requests were decided before the other's");
}

#[tokio::test]
async fn channels_are_bounded_and_lingering_ones_make_room() {
    let gateway = Gateway::start("stream.channel-memory = '2MiB'").await;
    let limit = 2 << 20;
    let mut streams = Vec::new();
    for n in 0..5 {
        let mut stream = gateway.open(&channels(&n.to_string())).await;
        for _ in 0..CHANNELS {
            stream.frame().await;
        }
        streams.push(stream);
    }
    let subscribed = gateway.store.subscribed_channels().len();
    let refused = gateway.request(&channels("more")).await;
    assert_eq!((refused.status, &*refused.code()), (503, "channel_memory_exhausted"), "{}", refused.body);
    assert_eq!(gateway.store.subscribed_channels().len(), subscribed, "nothing is subscribed for a refused stream");
    let shared = gateway.open(&channels("0")).await;
    drop(shared);
    // A channel that lingers makes room for another client at once.
    for n in 0..20 {
        drop(streams.remove(0));
        wait_until("a stream has closed", || gateway.app.streams.count() == 4).await;
        let mut stream = gateway.open(&channels(&format!("again-{n}"))).await;
        for _ in 0..CHANNELS {
            stream.frame().await;
        }
        streams.push(stream);
        assert!(gateway.app.hub.channel_bytes() <= limit, "{} bytes", gateway.app.hub.channel_bytes());
        assert!(gateway.store.subscribed_channels().len() <= limit / 4096);
    }
    // The names count too.
    drop(streams);
    wait_until("all streams have closed", || gateway.app.streams.count() == 0).await;
    let name = |n: usize| format!("channel={n}-{}", "x".repeat(50_000));
    let fitting = limit / (50_000 + 4096);
    let mut long_names = Vec::new();
    for n in 0..fitting {
        long_names.push(gateway.open(&name(n)).await);
    }
    assert_eq!(gateway.request(&name(fitting)).await.code(), "channel_memory_exhausted");
}

/// A gateway that has read all commands, which is the condition for reads of channels; and the number of its reads so far.
async fn synced_gateway() -> (Gateway, usize) {
    let gateway = Gateway::start("stream.reconcile-interval = '1h'").await;
    gateway.open("channel=first").await.connected("first").await;
    wait_until("the stream has closed", || gateway.app.streams.count() == 0).await;
    let reads = gateway.store.reads();
    (gateway, reads)
}

#[tokio::test]
async fn channel_that_was_never_opened_does_not_linger() {
    let (gateway, before) = synced_gateway().await;
    let held = gateway.store.hold_reads().await;
    let stream = gateway.open(&channels("a")).await;
    wait_until("reads wait", || gateway.store.reads() == before + IN_SERVICE).await;
    drop(stream);
    let gone = wait_until("the channels are gone", || gateway.app.hub.channel_count() == 1);
    tokio::time::timeout(WITHOUT_LINGER, gone).await.expect("they do not linger");
    assert_eq!(gateway.store.subscribed_channels(), ["first"], "it was opened, so it lingers");
    drop(held);
    // A reading task that went on would read the others now.
    let mut opened = gateway.open("channel=b").await;
    opened.connected("b").await;
    assert_eq!(gateway.store.reads(), before + IN_SERVICE + 1, "nothing is read for a channel that is gone");
}

#[tokio::test]
async fn opening_reads_are_made_in_turns() {
    let (gateway, before) = synced_gateway().await;
    let held = gateway.store.hold_reads().await;
    let mut flood = gateway.open(&channels("flood")).await;
    wait_until("reads wait", || gateway.store.reads() == before + IN_SERVICE).await;
    // A channel of its own, and one that the flood waits for too.
    let mut other = gateway.open("channel=other&channel=flood-99").await;
    let both = || gateway.app.streams.count() == 2 && gateway.store.subscribed_channels().len() == CHANNELS + 2;
    wait_until("the other client waits", both).await;
    // Its memberships were entered; the reading tasks have to see them.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(held);
    for _ in 0..2 {
        other.frame().await;
    }
    for _ in 0..CHANNELS {
        flood.frame().await;
    }
    let order = gateway.store.read_order();
    for channel in ["other", "flood-99"] {
        let at = order.iter().position(|read| read == channel).expect("it was read");
        assert!(at <= 2 * IN_SERVICE + 2, "{channel} was read after {at} others");
    }
}

#[tokio::test]
async fn event_of_an_open_channel_does_not_wait_for_opening_reads() {
    let (gateway, _) = synced_gateway().await;
    let mut live = gateway.open("channel=live").await;
    live.connected("live").await;
    let before = gateway.store.reads();
    let held = gateway.store.hold_reads().await;
    let _flood = gateway.open(&channels("flood")).await;
    wait_until("reads wait", || gateway.store.reads() == before + IN_SERVICE).await;
    // A stock emitter's notification needs a read.
    gateway.store.emit_stock("live", "e", &json!(1)).await;
    wait_until("the live channel is read", || gateway.store.reads() > before + IN_SERVICE).await;
    assert_eq!(gateway.store.read_order().last().map(|last| &**last), Some("live"));
    drop(held);
    assert_eq!(with_timeout("the event", live.event()).await["data"], 1);
}

#[tokio::test]
async fn replays_are_made_in_turns() {
    let (gateway, _) = synced_gateway().await;
    for channel in (0..CHANNELS).map(|n| format!("flood-{n}")).chain(["other-0".into()]) {
        gateway.store.emit_own(&channel, "e", &json!(1)).await;
    }
    // The channels are open, and their buffers begin after the event.
    let mut opened = [gateway.open(&channels("flood")).await, gateway.open("channel=other-0").await];
    for _ in 0..CHANNELS {
        opened[0].frame().await;
    }
    opened[1].connected("other-0").await;
    let before = gateway.store.reads();
    let held = gateway.store.hold_reads().await;
    let replay = |channel: String| format!("channel={channel}&last_ack_{channel}=0");
    let _flood = open_on_one_connection(&gateway, (0..CHANNELS).map(|n| replay(format!("flood-{n}")))).await;
    wait_until("the flood waits", || gateway.app.streams.count() == 2 + CHANNELS).await;
    wait_until("replays wait", || gateway.store.reads() == before + REPLAYS).await;
    let mut other = gateway.open(&replay("other-0".into())).await;
    other.connected("other-0").await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(held);
    assert_eq!(other.event().await["data"], 1);
    wait_until("all replays are made", || gateway.store.reads() == before + CHANNELS + 1).await;
    let order = gateway.store.read_order().split_off(before);
    let at = order.iter().position(|read| read == "other-0").expect("it was read");
    assert!(at <= REPLAYS + 2, "it was read after {at} others");
}
