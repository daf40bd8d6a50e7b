//! Many clients at little cost: raw HTTP/1.1 on one thread.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A byte that occurs once in each event and nowhere else.
pub const MARK: u8 = b'~';
/// Streams that are opened concurrently.
const CONCURRENT_OPENS: usize = 32;
/// Longer than the deliveries of a round take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 << 10]);
}

/// In a target: the number of the request, so that each request has a target of its own.
pub const NUMBER: &str = "{number}";
/// Longer than an open takes next to hostile requests.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// A request for a stream.
#[derive(Clone)]
pub struct StreamRequest {
    pub to: SocketAddr,
    pub target: Arc<str>,
    head: Arc<str>,
    /// A text that the server sends once the stream is open. The client does not wait if it is empty.
    pub open: &'static str,
    /// How often the server sends this text until the stream is open.
    pub occurrences: usize,
    numbers: Arc<AtomicU64>,
    source: Option<IpAddr>,
}

impl StreamRequest {
    /// The request of a browser.
    pub fn new(to: SocketAddr, target: &str, open: &'static str) -> Self {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/156.0.0.0 Safari/537.36\r\nAccept: text/event-stream\r\nAccept-Language: en-GB,en;q=0.9\r\nAccept-Encoding: gzip, \
             deflate, br, zstd\r\nCache-Control: no-cache\r\nOrigin: https://app.example\r\nCookie: theme=dark; session=alice; \
             lang=en\r\n\r\n"
        );
        Self { target: target.into(), head: head.into(), ..Self::bare(to, open) }
    }

    /// A connection without a request.
    pub fn bare(to: SocketAddr, open: &'static str) -> Self {
        Self { to, target: "".into(), head: "".into(), open, occurrences: 1, numbers: Arc::default(), source: None }
    }

    /// The same request with one more header.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let head = self.head.trim_end_matches("\r\n");
        Self { head: format!("{head}\r\n{name}: {value}\r\n\r\n").into(), ..self.clone() }
    }

    /// The same request from another IPv4 address of this machine. Next to thousands of connections from the same address, the kernel
    /// takes as long to find a free port as a server takes for the request.
    pub fn with_source(&self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self.clone() }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let Some(source) = self.source else { return TcpStream::connect(self.to).await };
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        socket.connect(self.to).await
    }

    /// Connects, sends the request, and waits until the stream is open.
    pub async fn open(&self) -> TcpStream {
        tokio::time::timeout(OPEN_TIMEOUT, self.open_and_read()).await.expect("the stream opens").0
    }

    /// Like [`open`](Self::open); with the received bytes.
    pub async fn open_and_read(&self) -> (TcpStream, Vec<u8>) {
        let mut socket = self.connect().await.expect("a connection");
        if self.head.contains(NUMBER) {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed).to_string();
            socket.write_all(self.head.replace(NUMBER, &number).as_bytes()).await.expect("the server reads");
        } else {
            socket.write_all(self.head.as_bytes()).await.expect("the server reads");
        }
        let mut received = Vec::new();
        while String::from_utf8_lossy(&received).matches(self.open).count() < self.occurrences {
            socket.readable().await.expect("a socket");
            match socket.try_read_buf(&mut received) {
                Ok(0) => panic!("the server closed: {}", String::from_utf8_lossy(&received)),
                Ok(_) => {
                    let is_accepted = self.head.is_empty() || received.starts_with(b"HTTP/1.1 200");
                    assert!(is_accepted, "{}", String::from_utf8_lossy(&received));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        (socket, received)
    }
}

/// Opens and closes this many streams, some of them concurrently. Returns the times from the connection to the open stream in µs.
pub async fn open_and_close(request: &StreamRequest, count: usize) -> Histogram<u64> {
    open_each(std::slice::from_ref(request), count).await
}

/// Opens and closes this many streams with these requests in turn, some of them concurrently.
pub async fn open_each(requests: &[StreamRequest], count: usize) -> Histogram<u64> {
    let left = Arc::new(AtomicU64::new(count as u64));
    let mut tasks = JoinSet::new();
    for _ in 0..CONCURRENT_OPENS {
        let (requests, left) = (requests.to_vec(), Arc::clone(&left));
        tasks.spawn(async move {
            let mut times = histogram();
            while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
                let request = &requests[usize::try_from(number).expect("an index") % requests.len()];
                let start = Instant::now();
                let socket = request.open().await;
                times.saturating_record(elapsed_micros(start));
                drop(socket);
            }
            times
        });
    }
    let mut all = histogram();
    while let Some(times) = tasks.join_next().await {
        all.add(times.expect("every stream opens")).expect("the same bounds");
    }
    all
}

/// Opens and closes this many streams with these requests in turn, at this rate: an open that takes long does not delay the others.
pub async fn open_at_rate(requests: &[StreamRequest], count: usize, per_second: u32) -> Histogram<u64> {
    let mut tasks = JoinSet::<u64>::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    for number in 0..count {
        ticks.tick().await;
        let request = requests[number % requests.len()].clone();
        tasks.spawn(async move {
            let start = Instant::now();
            let socket = request.open().await;
            let time = elapsed_micros(start);
            drop(socket);
            time
        });
    }
    let mut times = histogram();
    while let Some(time) = tasks.join_next().await {
        times.saturating_record(time.expect("every stream opens"));
    }
    times
}

fn elapsed_micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Clients that read.
pub struct Clients {
    pub size: usize,
    received: Arc<Received>,
    readers: JoinSet<()>,
}

struct Received {
    /// When each event was emitted, in order.
    emitted: Mutex<Vec<Instant>>,
    events: AtomicU64,
    bytes: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Clients {
    /// Opens this many streams.
    pub async fn open(request: &StreamRequest, size: usize) -> Self {
        Self::open_all((0..size).map(|_| request.clone())).await
    }

    /// Opens a stream for each request. All of them receive the same events.
    pub async fn open_all(requests: impl ExactSizeIterator<Item = StreamRequest>) -> Self {
        let size = requests.len();
        let latencies = Mutex::new(histogram());
        let (emitted, events, bytes) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        let received = Arc::new(Received { emitted, events, bytes, latencies });
        let (mut readers, permits) = (JoinSet::new(), Arc::new(Semaphore::new(CONCURRENT_OPENS)));
        for request in requests {
            let (received, permits) = (Arc::clone(&received), Arc::clone(&permits));
            let permit = Arc::clone(&permits).acquire_owned().await.expect("it is not closed");
            readers.spawn(async move {
                let socket = request.open().await;
                drop(permit);
                read_all(&socket, &received).await;
            });
        }
        let all = u32::try_from(CONCURRENT_OPENS).expect("it is small");
        drop(permits.acquire_many(all).await);
        Self { size, received, readers }
    }

    /// Records that an event is about to be emitted.
    pub fn record_emission(&self) {
        self.received.emitted.lock().unwrap().push(Instant::now());
    }

    /// Waits until every client has received every event.
    pub async fn wait_all_received(&mut self) {
        let due = (self.received.emitted.lock().unwrap().len() * self.size) as u64;
        self.wait_received(due).await;
    }

    /// Waits until this number of deliveries has been received.
    pub async fn wait_received(&mut self, due: u64) {
        let start = Instant::now();
        while self.events() < due {
            assert!(start.elapsed() < DELIVERY_TIMEOUT, "{} of {due} deliveries were received", self.events());
            assert!(self.readers.try_join_next().is_none(), "a stream ended");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.events(), due, "no event is delivered twice");
    }

    /// The number of deliveries so far.
    pub fn events(&self) -> u64 {
        self.received.events.load(Ordering::Relaxed)
    }

    /// Bytes received so far, with the framing of HTTP.
    pub fn bytes(&self) -> u64 {
        self.received.bytes.load(Ordering::Relaxed)
    }

    /// Times from an emission to its delivery to each client since the last call, in µs.
    pub fn take_latencies(&self) -> Histogram<u64> {
        std::mem::replace(&mut self.received.latencies.lock().unwrap(), histogram())
    }
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("bounds and three digits are valid")
}

async fn read_all(socket: &TcpStream, received: &Received) {
    let mut marks_read = 0;
    loop {
        if socket.readable().await.is_err() || !read_available(socket, received, &mut marks_read) {
            return;
        }
    }
}

/// Reads the available bytes. Returns false at the end of the stream.
fn read_available(socket: &TcpStream, received: &Received, marks_read: &mut usize) -> bool {
    BUFFER.with_borrow_mut(|buffer| {
        let length = match socket.try_read(buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let marks = buffer[..length].iter().filter(|byte| **byte == MARK).count();
        if marks > 0 {
            let (now, emitted) = (Instant::now(), received.emitted.lock().unwrap());
            let mut latencies = received.latencies.lock().unwrap();
            // Without a recorded emission the events are only counted.
            for at in emitted.get(*marks_read..*marks_read + marks).unwrap_or_default() {
                latencies.saturating_record(u64::try_from((now - *at).as_micros()).unwrap_or(u64::MAX));
            }
            *marks_read += marks;
        }
        received.events.fetch_add(marks as u64, Ordering::Relaxed);
        received.bytes.fetch_add(length as u64, Ordering::Relaxed);
        true
    })
}
