//! Many clients that are cheap: raw HTTP/1.1 on one thread.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::floor;

/// Each event has it once, and nothing else has it.
pub const MARK: u8 = b'~';
/// Connections that are made at once.
const AT_ONCE: usize = 32;
/// Whatever is waited for comes within that, or something is broken.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 << 10]);
}

/// A request for a stream, and what shows that it is open.
#[derive(Clone)]
pub struct Wish {
    pub to: SocketAddr,
    pub head: Arc<str>,
    pub open: &'static str,
}

impl Wish {
    /// As a browser asks.
    pub fn new(to: SocketAddr, target: &str, open: &'static str) -> Self {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/156.0.0.0 Safari/537.36\r\nAccept: text/event-stream\r\nAccept-Language: en-GB,en;q=0.9\r\nAccept-Encoding: gzip, \
             deflate, br, zstd\r\nCache-Control: no-cache\r\nOrigin: https://app.example\r\nCookie: theme=dark; session=alice; \
             lang=en\r\n\r\n"
        );
        Self { to, head: head.into(), open }
    }

    /// A bare connection, for the floor.
    pub fn bare(to: SocketAddr) -> Self {
        Self { to, head: "".into(), open: floor::OPEN }
    }

    /// Connects, asks, and waits until the stream is open.
    pub async fn open(&self) -> TcpStream {
        let mut socket = TcpStream::connect(self.to).await.expect("a connection");
        socket.write_all(self.head.as_bytes()).await.expect("the server reads");
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(self.open) {
            socket.readable().await.expect("a socket");
            match socket.try_read_buf(&mut heard) {
                Ok(0) => panic!("the server closed: {}", String::from_utf8_lossy(&heard)),
                Ok(_) => {
                    let good = self.head.is_empty() || heard.starts_with(b"HTTP/1.1 200");
                    assert!(good, "{}", String::from_utf8_lossy(&heard));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        socket
    }
}

/// Opens and closes so many streams, some at once.
pub async fn come_and_go(wish: &Wish, count: usize) {
    let left = Arc::new(AtomicU64::new(count as u64));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (wish, left) = (wish.clone(), Arc::clone(&left));
        tasks.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                drop(wish.open().await);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("every stream opens");
    }
}

/// Clients that read.
pub struct Crowd {
    pub size: usize,
    heard: Arc<Heard>,
    readers: JoinSet<()>,
}

struct Heard {
    /// When each event was emitted, in their order.
    emitted: Mutex<Vec<Instant>>,
    events: AtomicU64,
    bytes: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Crowd {
    /// Opens so many streams.
    pub async fn open(wish: &Wish, size: usize) -> Self {
        let latencies = Mutex::new(histogram());
        let (emitted, events, bytes) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        let heard = Arc::new(Heard { emitted, events, bytes, latencies });
        let (mut readers, places) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
        for _ in 0..size {
            let (wish, heard, places) = (wish.clone(), Arc::clone(&heard), Arc::clone(&places));
            let place = Arc::clone(&places).acquire_owned().await.expect("it is not closed");
            readers.spawn(async move {
                let socket = wish.open().await;
                drop(place);
                read(&socket, &heard).await;
            });
        }
        let all = u32::try_from(AT_ONCE).expect("it is small");
        drop(places.acquire_many(all).await);
        Self { size, heard, readers }
    }

    /// An event is about to be emitted.
    pub fn emitting(&self) {
        self.heard.emitted.lock().unwrap().push(Instant::now());
    }

    /// Waits until everybody has every event.
    pub async fn has_all(&mut self) {
        let due = (self.heard.emitted.lock().unwrap().len() * self.size) as u64;
        let start = Instant::now();
        while self.events() < due {
            assert!(start.elapsed() < REPLY_TIMEOUT, "{} of {due} deliveries came", self.events());
            assert!(self.readers.try_join_next().is_none(), "a stream ended");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.events(), due, "no event comes twice");
    }

    /// Deliveries up to now.
    pub fn events(&self) -> u64 {
        self.heard.events.load(Ordering::Relaxed)
    }

    /// Bytes that came, chunks and all.
    pub fn bytes(&self) -> u64 {
        self.heard.bytes.load(Ordering::Relaxed)
    }

    /// From emitting to each client, in µs, since the last call.
    pub fn take_latencies(&self) -> Histogram<u64> {
        std::mem::replace(&mut self.heard.latencies.lock().unwrap(), histogram())
    }
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("bounds and three digits are valid")
}

async fn read(socket: &TcpStream, heard: &Heard) {
    let mut seen = 0;
    loop {
        if socket.readable().await.is_err() || !take(socket, heard, &mut seen) {
            return;
        }
    }
}

/// Takes what there is. False at the end.
fn take(socket: &TcpStream, heard: &Heard, seen: &mut usize) -> bool {
    BUFFER.with_borrow_mut(|buffer| {
        let length = match socket.try_read(buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let marks = buffer[..length].iter().filter(|byte| **byte == MARK).count();
        if marks > 0 {
            let (now, emitted) = (Instant::now(), heard.emitted.lock().unwrap());
            let mut latencies = heard.latencies.lock().unwrap();
            for at in &emitted[*seen..*seen + marks] {
                latencies.saturating_record(u64::try_from((now - *at).as_micros()).unwrap_or(u64::MAX));
            }
            *seen += marks;
        }
        heard.events.fetch_add(marks as u64, Ordering::Relaxed);
        heard.bytes.fetch_add(length as u64, Ordering::Relaxed);
        true
    })
}
