//! A browser's `EventSource`: one URL and the last event id. The received events are compared with the entries in the store.

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
pub type Seen = (Id, u64);

fn hashed(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The entries of a channel.
pub async fn stored_entries(redis: &Redis, channel: &str) -> Vec<Seen> {
    redis.entries(channel).await.iter().map(|(id, data)| (*id, hashed(data))).collect()
}

pub struct Source {
    pub number: usize,
    pub target: String,
    received: Mutex<Received>,
    /// Ends the connection, for tests that read by themselves.
    pub cut: Notify,
}

/// The events that a source has received.
pub struct Received {
    channels: &'static [&'static str],
    pub last_event_id: Option<String>,
    pub start: Vec<Option<Id>>,
    pub seen: Vec<Vec<Seen>>,
    /// Channels that are connected on this connection.
    pub open: Vec<bool>,
    pub connections: usize,
    /// Times of received reconnect frames.
    pub reconnects: Vec<Instant>,
    pub wrong: Vec<String>,
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
        self.seen[number].last().map(|(id, _)| *id).or(self.start[number])
    }

    /// Whether every channel of the connection is open.
    pub fn is_open(&self) -> bool {
        self.open.iter().all(|open| *open)
    }

    /// Whether it has received the last of these entries.
    pub fn has_all(&self, stored_entries: &[Vec<Seen>]) -> bool {
        let last = |seen: &[Seen]| seen.last().map(|(id, _)| *id);
        stored_entries.iter().enumerate().all(|(number, stored_entries)| self.position(number) >= last(stored_entries))
    }

    /// A new connection begins.
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
            self.wrong.push(block.data.to_owned());
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
            let again = std::mem::replace(&mut self.open[number], true);
            let here = *self.start[number].get_or_insert(cursor);
            let right = frame["type"] == "connected" && !again && cursor == self.position(number).unwrap_or(here);
            return right.then_some(());
        }
        let frame: Frame<'_> = serde_json::from_str(data).ok()?;
        let number = number(frame.channel)?;
        let id: Id = frame.id.parse().ok()?;
        let right = self.open[number] && frame.event == "tick" && Some(id) > self.position(number);
        self.seen[number].push((id, hashed(frame.data.get())));
        right.then_some(())
    }

    /// Differences from the stored entries since the start of the source.
    fn differences(&self, stored_entries: &[Vec<Seen>]) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        for (number, stored_entries) in stored_entries.iter().enumerate() {
            let start = self.start[number];
            let expect = entries_after(stored_entries, start);
            if start.is_none() || self.seen[number] != expect {
                let words = difference(&self.seen[number], expect);
                wrong.push(format!("in {} from {start:?} on: {words}", self.channels[number]));
            }
        }
        wrong
    }
}

fn entries_after(stored_entries: &[Seen], start: Option<Id>) -> &[Seen] {
    &stored_entries[stored_entries.partition_point(|(id, _)| Some(*id) <= start)..]
}

impl Source {
    /// A source that begins at the end of each channel, or, with an `ack`, after that time.
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
            seen: vec![Vec::new(); channels.len()],
            open: vec![false; channels.len()],
            connections: 0,
            reconnects: Vec::new(),
            wrong: Vec::new(),
        };
        Arc::new(Self { number, target, received: Mutex::new(received), cut: Notify::new() })
    }

    pub fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("no task panicked")
    }

    /// Connects with the last event id. Any answer other than a stream is an error.
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
            Ok(wire) => self.lock().wrong.push(wire.head),
            Err(error) => self.lock().wrong.push(error.to_string()),
        }
        None
    }

    /// Reads, and reconnects after each reconnect frame, until the runtime ends. Any other end is an error, and so is a refused connection.
    pub async fn follow(self: Arc<Self>, to: SocketAddr) {
        let mut random = Random(self.number as u64 + 1000);
        loop {
            if let Some(mut wire) = self.connect(to).await {
                let reconnects = self.lock().reconnects.len();
                loop {
                    match wire.more(64 << 10).await {
                        Ok(true) => wire.blocks(|block| self.lock().take(&block)),
                        Ok(false) => break,
                        Err(error) => {
                            self.lock().wrong.push(format!("on a stream: {error}"));
                            break;
                        }
                    }
                }
                if self.lock().reconnects.len() != reconnects + 1 {
                    self.lock().wrong.push("a stream ended without a word, or with many".into());
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

/// Asserts that each source has received the entries of its channels from its start, once and in order. Returns their number.
pub fn assert_complete(sources: &[Arc<Source>], stored_entries: &[Vec<Seen>]) -> usize {
    let mut wrong = Vec::new();
    let mut deliveries = 0;
    for source in sources {
        let received = source.lock();
        deliveries += stored_entries
            .iter()
            .zip(&received.start)
            .map(|(stored_entries, start)| entries_after(stored_entries, *start).len())
            .sum::<usize>();
        wrong.extend(
            received.differences(stored_entries).into_iter().map(|text| format!("stream {}: {text}", source.number)),
        );
    }
    assert!(wrong.is_empty(), "{} are wrong, such as\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    deliveries
}

fn difference(got: &[Seen], expect: &[Seen]) -> String {
    let at = got.iter().zip(expect).take_while(|(a, b)| a == b).count();
    let around = |list: &[Seen]| {
        let ids =
            list.iter().skip(at.saturating_sub(2)).take(5).map(|(id, words)| format!("{id}~{:04x}", words & 0xffff));
        ids.collect::<Vec<_>>().join(" ")
    };
    format!("{} and not {}; from number {at}: {} and not {}", got.len(), expect.len(), around(got), around(expect))
}
