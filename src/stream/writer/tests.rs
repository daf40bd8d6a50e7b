use std::sync::mpsc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::*;
use crate::stream::fixture::{Fixture, MAX_EVENT_SIZE, PING_INTERVAL};
use crate::stream::registry::EndReason;

/// A stream that is being written, and the client's end of its connection.
struct Client {
    socket: DuplexStream,
    text: String,
    task: JoinHandle<Result<()>>,
}

impl Client {
    /// A stream whose connection holds this many bytes that the client has not read.
    fn open(fixture: &Fixture, framing: Framing, capacity: usize) -> Self {
        let (socket, transport) = tokio::io::duplex(capacity);
        let stream = SocketStream::new(transport, framing, Box::new(fixture.stream()), 0);
        Self { socket, text: String::new(), task: tokio::spawn(stream.run()) }
    }

    /// Reads until this text has arrived.
    async fn read_until(&mut self, text: &str) {
        while !self.text.contains(text) {
            assert_ne!(self.read().await, 0, "{text} comes before the end: {}", self.text);
        }
    }

    async fn read(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let read = timeout(Duration::from_secs(3600), self.socket.read(&mut bytes)).await;
        let count = read.expect("bytes, or the end").expect("a connection");
        self.text.push_str(std::str::from_utf8(&bytes[..count]).expect("ASCII"));
        count
    }

    async fn read_to_end(&mut self) {
        while self.read().await > 0 {}
    }
}

fn sent(fixture: &Fixture) -> (u64, u64) {
    let metrics = fixture.context.hub.metrics();
    (metrics.events_sent.get(), metrics.stream_sent_bytes.get())
}

/// The bytes of a response without the framing of HTTP/1.1, and whether its end is there.
fn decode(text: &str) -> (String, bool) {
    let (mut rest, mut decoded) = (text, String::new());
    while let Some((size, chunk)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            assert_eq!(chunk, "\r\n", "nothing follows the end");
            return (decoded, true);
        }
        let Some(data) = chunk.get(..size) else { break };
        decoded.push_str(data);
        rest = chunk[size..].strip_prefix("\r\n").expect("the end of the chunk");
    }
    (decoded, false)
}

#[tokio::test(start_paused = true)]
async fn events_are_written_and_counted_once_by_either_way() {
    // With the small connection the rest of each event is for the task.
    for (framing, capacity) in [
        (Framing::Chunked, 64 << 10),
        (Framing::UntilClose, 64 << 10),
        (Framing::Chunked, 40),
        (Framing::UntilClose, 40),
    ] {
        let fixture = Fixture::new();
        let mut client = Client::open(&fixture, framing, capacity);
        client.read_until("connected").await;
        for n in 0..20 {
            fixture.emit(&format!("event {n:02}")).await;
            if n % 3 > 0 {
                client.read_until(&format!("event {n:02}")).await;
            }
        }
        client.read_until("event 19").await;
        assert_eq!(fixture.streams.rotate(2, Duration::ZERO), 1);
        client.read_to_end().await;
        let (text, is_ended) = match framing {
            Framing::Chunked => decode(&client.text),
            Framing::UntilClose => (client.text.clone(), true),
        };
        let events: Vec<_> = text.match_indices("event ").map(|(at, _)| &text[at + 6..at + 8]).collect();
        let expected: Vec<_> = (0..20).map(|n| format!("{n:02}")).collect();
        assert_eq!((events, is_ended), (expected.iter().map(String::as_str).collect(), true), "{text}");
        assert_eq!(text.matches("reconnect").count(), 1, "{text}");
        assert_eq!(sent(&fixture), (20, text.len() as u64));
        drop(client.socket);
        client.task.await.expect("no panic").expect("a regular end");
        assert_eq!(fixture.streams.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rest_of_a_frame_is_not_sent_after_a_revocation() {
    let fixture = Fixture::new();
    let mut client = Client::open(&fixture, Framing::Chunked, 400);
    client.read_until("connected").await;
    fixture.emit(&"x".repeat(1_000)).await;
    // The connection has the beginning of the event.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.revoke();
    client.read_to_end().await;
    let sent = client.text.matches('x').count();
    assert!((1..=400).contains(&sent) && !client.text.contains("reconnect"), "{}", client.text);
    client.task.await.expect("no panic").expect_err("not a regular end");
}

#[tokio::test(start_paused = true)]
async fn revoked_stream_gets_no_event_but_the_request_to_reconnect() {
    let fixture = Fixture::new();
    let mut client = Client::open(&fixture, Framing::Chunked, 64 << 10);
    client.read_until("connected").await;
    fixture.emit("before").await;
    client.read_until("before").await;
    fixture.revoke();
    fixture.emit("after").await;
    client.read_to_end().await;
    assert!(client.text.contains("reconnect") && !client.text.contains("after"), "{}", client.text);
}

#[tokio::test(start_paused = true)]
async fn events_delay_pings_on_a_stream_whose_task_sleeps() {
    let fixture = Fixture::new();
    let mut client = Client::open(&fixture, Framing::Chunked, 64 << 10);
    client.read_until("connected").await;
    for n in 0..6 {
        tokio::time::sleep(PING_INTERVAL * 2 / 3).await;
        // A gap counts like an event.
        let (text, expected) = if n == 3 {
            ("x".repeat(MAX_EVENT_SIZE), "too-large".into())
        } else {
            (format!("event {n}"), format!("event {n}"))
        };
        fixture.emit(&text).await;
        client.read_until(&expected).await;
    }
    assert!(!client.text.contains("ping"), "{}", client.text);
    let silent_since = tokio::time::Instant::now();
    client.read_until("ping").await;
    assert_eq!(silent_since.elapsed().as_secs(), PING_INTERVAL.as_secs());
}

#[tokio::test(start_paused = true)]
async fn client_may_send_little_after_its_request() {
    let fixture = Fixture::new();
    let mut client = Client::open(&fixture, Framing::Chunked, 64 << 10);
    client.read_until("connected").await;
    client.socket.write_all(&[b'x'; MAX_IGNORED_BYTES]).await.expect("the stream reads");
    fixture.emit("event").await;
    client.read_until("event").await;
    client.socket.write_all(b"x").await.expect("the stream reads");
    client.read_to_end().await;
    assert!(!client.text.contains("reconnect"), "{}", client.text);
    client.task.await.expect("no panic").expect_err("not a regular end");
}

#[tokio::test(start_paused = true)]
async fn end_waits_for_the_client_but_not_for_long() {
    let fixture = Fixture::new();
    let mut client = Client::open(&fixture, Framing::Chunked, 64 << 10);
    client.read_until("connected").await;
    fixture.streams.rotate(2, Duration::ZERO);
    client.read_until("0\r\n\r\n").await;
    assert_eq!((client.read().await, fixture.streams.ended(EndReason::Rotated)), (0, 1));
    let ended_at = tokio::time::Instant::now();
    assert_eq!(fixture.streams.count(), 0, "a drain does not wait for the client");
    client.task.await.expect("no panic").expect("a regular end");
    assert_eq!(ended_at.elapsed().as_secs(), CLOSE_TIMEOUT.as_secs());
}

/// A connection that holds a write until the test lets it go on.
struct Gate {
    entered: mpsc::Sender<()>,
    leave: mpsc::Receiver<()>,
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if bytes.windows(4).any(|part| part == b"gate") {
            self.entered.send(()).expect("the test waits");
            self.leave.recv().expect("the test goes on");
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_waits_for_a_write_that_is_in_progress() {
    let fixture = Arc::new(Fixture::new());
    let ((entered, is_writing), (go_on, leave)) = (mpsc::channel(), mpsc::channel());
    let gate = Gate { entered, leave };
    let stream = SocketStream::new(gate, Framing::Chunked, Box::new(fixture.stream()), 0);
    let task = tokio::spawn(stream.run());
    // The `retry:` line, and `connected`.
    while sent(&fixture).1 < 60 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fixture.emit("gate").await;
    tokio::task::spawn_blocking(move || is_writing.recv()).await.expect("no panic").expect("a write");
    let (done, is_done) = mpsc::channel();
    let revoking = Arc::clone(&fixture);
    let revocation = std::thread::spawn(move || {
        revoking.revoke();
        done.send(()).expect("the test waits");
    });
    assert!(is_done.recv_timeout(Duration::from_millis(200)).is_err(), "the write is not over");
    go_on.send(()).expect("the write waits");
    is_done.recv_timeout(Duration::from_secs(30)).expect("the revocation is over");
    revocation.join().expect("no panic");
    task.abort();
}
