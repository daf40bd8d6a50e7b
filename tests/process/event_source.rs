//! A client like a browser's `EventSource`: it reconnects to one URL with the last event id. The received events are compared with the entries in the store.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::client::{Block, Id, Wire, encoded};
use crate::emitter::Random;
use crate::redis_server::Redis;

/// An entry, as its id and the hash of its data.
pub type EntryHash = (Id, u64);

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The entries of a channel.
pub async fn stored_entries(redis: &Redis, channel: &str) -> Vec<EntryHash> {
    redis.entries(channel).await.iter().map(|(id, data)| (*id, hash_of(data))).collect()
}

pub struct Source {
    pub number: usize,
    pub target: String,
    received: Mutex<Received>,
    /// Notified when a test wants the connection to end.
    pub cut: Notify,
}

/// The events that a source has received.
pub struct Received {
    channels: &'static [&'static str],
    pub last_event_id: Option<String>,
    pub start: Vec<Option<Id>>,
    pub events: Vec<Vec<EntryHash>>,
    /// Channels that are connected on this connection.
    pub open: Vec<bool>,
    pub connections: usize,
    /// Times of received reconnect frames.
    pub reconnects: Vec<Instant>,
    pub unexpected: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame<'a> {
    #[serde(borrow)]
    id: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    event: &'a str,
    channel: &'a str,
}

impl Received {
    pub fn position(&self, number: usize) -> Option<Id> {
        self.events[number].last().map(|(id, _)| *id).or(self.start[number])
    }

    /// Whether every channel of the connection is open.
    pub fn is_open(&self) -> bool {
        self.open.iter().all(|open| *open)
    }

    /// Whether the last entry of each channel was received.
    pub fn has_all(&self, stored_entries: &[Vec<EntryHash>]) -> bool {
        let last = |entries: &[EntryHash]| entries.last().map(|(id, _)| *id);
        stored_entries.iter().enumerate().all(|(number, stored_entries)| self.position(number) >= last(stored_entries))
    }

    /// Forgets which channels are open, as a new connection begins.
    pub fn begin(&mut self) {
        self.open.fill(false);
    }

    pub fn take(&mut self, block: &Block<'_>) {
        if let Some(id) = block.id {
            self.last_event_id = Some(id.to_owned());
        }
        if block.data.is_empty() || block.data.starts_with(r#"{"type":"ping""#) {
            return;
        }
        if self.frame(block.data).is_none() {
            self.unexpected.push(block.data.to_owned());
        }
    }

    /// `None` if the frame is unexpected.
    fn frame(&mut self, data: &str) -> Option<()> {
        let number = |channel: &str| self.channels.iter().position(|name| *name == channel);
        if data.starts_with(r#"{"type":"reconnect""#) {
            self.reconnects.push(Instant::now());
            return Some(());
        }
        if data.starts_with(r#"{"type":"#) {
            let frame: Value = serde_json::from_str(data).ok()?;
            let number = number(frame["channel"].as_str()?)?;
            let cursor: Id = frame["cursor"].as_str()?.parse().ok()?;
            let was_open = std::mem::replace(&mut self.open[number], true);
            let start = *self.start[number].get_or_insert(cursor);
            let expected =
                frame["type"] == "connected" && !was_open && cursor == self.position(number).unwrap_or(start);
            return expected.then_some(());
        }
        let frame: Frame<'_> = serde_json::from_str(data).ok()?;
        let number = number(frame.channel)?;
        let id: Id = frame.id.parse().ok()?;
        let expected = self.open[number] && frame.event == "tick" && Some(id) > self.position(number);
        self.events[number].push((id, hash_of(frame.data.get())));
        expected.then_some(())
    }

    /// Differences from the stored entries since the start of the source.
    fn differences(&self, stored_entries: &[Vec<EntryHash>]) -> Vec<String> {
        let mut unexpected = self.unexpected.clone();
        for (number, stored_entries) in stored_entries.iter().enumerate() {
            let start = self.start[number];
            let expect = entries_after(stored_entries, start);
            if start.is_none() || self.events[number] != expect {
                let difference = describe_difference(&self.events[number], expect);
                unexpected.push(format!("in {} from {start:?} on: {difference}", self.channels[number]));
            }
        }
        unexpected
    }
}

fn entries_after(stored_entries: &[EntryHash], start: Option<Id>) -> &[EntryHash] {
    &stored_entries[stored_entries.partition_point(|(id, _)| Some(*id) <= start)..]
}

impl Source {
    /// A source that begins at the end of each channel, or after the time `ack`.
    pub fn new(number: usize, channels: &'static [&'static str], ack: Option<u64>) -> Arc<Self> {
        let parameters = channels.iter().map(|name| {
            let name = encoded(name);
            let ack = ack.map(|ms| format!("&last_ack_{name}={ms}")).unwrap_or_default();
            format!("channel={name}{ack}")
        });
        let target = format!("/api/realtime?{}", parameters.collect::<Vec<_>>().join("&"));
        let received = Received {
            channels,
            last_event_id: None,
            start: vec![None; channels.len()],
            events: vec![Vec::new(); channels.len()],
            open: vec![false; channels.len()],
            connections: 0,
            reconnects: Vec::new(),
            unexpected: Vec::new(),
        };
        Arc::new(Self { number, target, received: Mutex::new(received), cut: Notify::new() })
    }

    pub fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("no task panicked")
    }

    /// Connects with the last event id. Any answer other than a stream is recorded as unexpected.
    pub async fn connect(&self, to: SocketAddr) -> Option<Wire> {
        let last = {
            let mut received = self.lock();
            received.begin();
            received.last_event_id.clone()
        };
        match Wire::get(to, &self.target, last.as_deref(), None).await {
            Ok(wire) if wire.status == 200 => {
                self.lock().connections += 1;
                return Some(wire);
            }
            Ok(wire) => self.lock().unexpected.push(wire.head),
            Err(error) => self.lock().unexpected.push(error.to_string()),
        }
        None
    }

    /// Reads, and reconnects after each reconnect frame, until the runtime ends. Any other end of a stream, or a refused connection, is recorded
    /// as unexpected.
    pub async fn follow(self: Arc<Self>, to: SocketAddr) {
        let mut random = Random(self.number as u64 + 1000);
        loop {
            if let Some(mut wire) = self.connect(to).await {
                let reconnects = self.lock().reconnects.len();
                loop {
                    match wire.read_more(64 << 10).await {
                        Ok(true) => wire.blocks(|block| self.lock().take(&block)),
                        Ok(false) => break,
                        Err(error) => {
                            self.lock().unexpected.push(format!("on a stream: {error}"));
                            break;
                        }
                    }
                }
                if self.lock().reconnects.len() != reconnects + 1 {
                    self.lock().unexpected.push("a stream did not end with one reconnect frame".into());
                }
            }
            tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        }
    }
}

/// Waits until a condition holds for all sources, or for the timeout; returns the number of sources for which it does not.
pub async fn wait_for_all(sources: &[Arc<Source>], timeout: Duration, holds: impl Fn(&Received) -> bool) -> usize {
    let end = Instant::now() + timeout;
    loop {
        let late = sources.iter().filter(|source| !holds(&source.lock())).count();
        if late == 0 || Instant::now() > end {
            return late;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asserts that each source has received all entries after its start, once and in order. Returns the number of deliveries.
pub fn assert_complete(sources: &[Arc<Source>], stored_entries: &[Vec<EntryHash>]) -> usize {
    let mut unexpected = Vec::new();
    let mut deliveries = 0;
    for source in sources {
        let received = source.lock();
        deliveries += stored_entries
            .iter()
            .zip(&received.start)
            .map(|(stored_entries, start)| entries_after(stored_entries, *start).len())
            .sum::<usize>();
        unexpected.extend(
            received.differences(stored_entries).into_iter().map(|text| format!("stream {}: {text}", source.number)),
        );
    }
    assert!(
        unexpected.is_empty(),
        "{} differences, such as\n{}",
        unexpected.len(),
        unexpected[..unexpected.len().min(20)].join("\n")
    );
    deliveries
}

fn describe_difference(received: &[EntryHash], expected: &[EntryHash]) -> String {
    let at = received.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |list: &[EntryHash]| {
        let ids =
            list.iter().skip(at.saturating_sub(2)).take(5).map(|(id, hash)| format!("{id}~{:04x}", hash & 0xffff));
        ids.collect::<Vec<_>>().join(" ")
    };
    format!(
        "{} entries instead of {}; from number {at}: {} instead of {}",
        received.len(),
        expected.len(),
        around(received),
        around(expected)
    )
}
