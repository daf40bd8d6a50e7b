//! A client: one page with an `EventSource`, which reconnects until the run ends and records all that it observes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::history::{End, Gap, History, Id, Item, Reason, Record};
use super::http::{Block, Progress, Stream};
use super::random::Random;
use super::shared::Shared;

/// A stock client takes a connection without a frame for this time as lost.
const SILENCE: Duration = Duration::from_secs(75);

/// The limit of the head of an answer: longer than a gateway is stopped.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a client that waits looks at the state of the run.
const TICK: Duration = Duration::from_millis(500);

pub struct Client {
    /// How it resumes: by the header `Last-Event-ID`, as a browser does, or by `last_ack_…`, as the stock client does after `reconnect`.
    by_header: bool,
    /// The parameter of channels without a position.
    ack: Option<u64>,
    slow: bool,
    /// Whether it disconnects by itself now and then.
    restless: bool,
    channels: Vec<u16>,
    history: Mutex<History>,
}

/// The state of a client between connections.
struct Page {
    last_event_id: Option<String>,
    positions: Vec<Option<Id>>,
    random: Random,
}

impl Client {
    pub fn new(number: usize, channels: usize, random: &mut Random) -> Self {
        let mut all: Vec<u16> = (0..channels).filter_map(|n| u16::try_from(n).ok()).collect();
        for at in (1..all.len()).rev() {
            all.swap(at, random.index(at + 1));
        }
        all.truncate(1 + random.index(6));
        let (slow, by_header) = (number % 12 == 5, number % 3 != 2);
        Self {
            by_header,
            // Most begin at the end of the streams, and some replay them.
            ack: (number % 5 == 1).then_some(0),
            slow,
            restless: number.is_multiple_of(2),
            history: Mutex::new(History { channels: all.clone(), slow, by_ack: !by_header, records: Vec::new() }),
            channels: all,
        }
    }

    /// What it observed so far.
    pub fn history(&self) -> History {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, shared: &Shared, item: Item) {
        let record = Record { at: shared.now(), item };
        self.history.lock().unwrap_or_else(PoisonError::into_inner).records.push(record);
    }

    /// Connects to any gateway, again and again.
    pub fn run(&self, shared: &Shared, random: Random) {
        let mut page = Page { last_event_id: None, positions: vec![None; self.channels.len()], random };
        while !shared.is_stopped() {
            let gateway = page.random.index(shared.gateways.len());
            let began = shared.now();
            let end = self.connect(shared, &mut page, gateway);
            self.record(shared, Item::Closed { gateway: u8::try_from(gateway).unwrap_or(u8::MAX), began, end });
            std::thread::sleep(Duration::from_millis(page.random.between(50, 800)));
        }
    }

    fn target(&self, shared: &Shared, page: &Page) -> String {
        let parameters = self.channels.iter().zip(&page.positions).map(|(channel, position)| {
            let name = &shared.channels[usize::from(*channel)];
            let ack = match position.filter(|_| !self.by_header) {
                Some(id) => format!("&last_ack_{name}={id}"),
                None => self.ack.map(|ms| format!("&last_ack_{name}={ms}")).unwrap_or_default(),
            };
            format!("channel={name}{ack}")
        });
        format!("/api/realtime?{}", parameters.collect::<Vec<_>>().join("&"))
    }

    fn connect(&self, shared: &Shared, page: &mut Page, gateway: usize) -> End {
        let target = self.target(shared, page);
        let last = page.last_event_id.as_deref().filter(|_| self.by_header);
        let mut stream = match Stream::open(shared.gateways[gateway].data, &target, last, self.slow, HEAD_TIMEOUT, TICK)
        {
            Ok(stream) if stream.status == 200 => stream,
            Ok(stream) => return End::Status(stream.status),
            Err(error) => return End::Refused(error.to_string()),
        };
        self.record(shared, Item::Open { gateway: u8::try_from(gateway).unwrap_or(u8::MAX) });
        let leaves = self.restless.then(|| Instant::now() + Duration::from_millis(page.random.between(2_000, 20_000)));
        let (mut frame, mut reconnect) = (Instant::now(), false);
        loop {
            if shared.is_stopped() || (leaves.is_some_and(|at| Instant::now() > at) && !shared.is_settling()) {
                return End::Client;
            }
            match stream.read() {
                Ok(Progress::Bytes) => {}
                Ok(Progress::Nothing) if frame.elapsed() > SILENCE => return End::Silent,
                Ok(Progress::Nothing) => continue,
                Ok(Progress::End) => {
                    stream.blocks().iter().for_each(|block| reconnect |= self.take(shared, page, block));
                    return End::Stream { reconnect };
                }
                Err(error) => return End::Broken(error.to_string()),
            }
            for block in stream.blocks() {
                frame = Instant::now();
                reconnect |= self.take(shared, page, &block);
            }
            if self.slow && !shared.is_settling() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Handles one block; true if it is a `reconnect` frame.
    fn take(&self, shared: &Shared, page: &mut Page, block: &Block) -> bool {
        let frame: Value = serde_json::from_str(&block.data).unwrap_or_default();
        let kind = frame["type"].as_str();
        match kind {
            Some("ping") => {}
            Some("reconnect") => return true,
            _ => {
                let item =
                    self.item(shared, page, kind, &frame).unwrap_or_else(|| Item::Unexpected(block.data.clone()));
                self.record(shared, item);
            }
        }
        if let Some(id) = &block.id {
            page.last_event_id = Some(id.clone());
        }
        false
    }

    /// `None` if the frame is not one of the protocol.
    fn item(&self, shared: &Shared, page: &mut Page, kind: Option<&str>, frame: &Value) -> Option<Item> {
        let name = frame["channel"].as_str()?;
        let at = self.channels.iter().position(|channel| shared.channels[usize::from(*channel)] == name)?;
        let channel = self.channels[at];
        let id = |member: &str| frame[member].as_str().and_then(|text| text.parse::<Id>().ok());
        let (position, item) = match kind {
            Some("connected") => {
                let cursor = id("cursor")?;
                // A position that the page has is newer than its start.
                (page.positions[at].unwrap_or(cursor), Item::Connected { channel, cursor })
            }
            Some("gap") => {
                let (resumed, certain) = (id("resumed")?, frame["certain"].as_bool()?);
                let gap =
                    Gap { after: id("after"), resumed, certain, reason: Reason::parse(frame["reason"].as_str()?)? };
                // The stock client ignores the frame. If the lost entries are its position, and it returns to a gateway that does not know
                // them, it may miss entries of a master with a slow clock. This client goes back to the last common entry.
                if let (Some(after), Reason::StoreReset) = (gap.after, gap.reason) {
                    page.positions[at] = Some(after.min(resumed));
                }
                return Some(Item::Gap { channel, gap });
            }
            None if frame["event"] == "tick" => {
                let token = frame["data"]["t"].as_u64().and_then(|token| token.try_into().ok())?;
                (id("id")?, Item::Event { channel, id: id("id")?, token })
            }
            _ => return None,
        };
        page.positions[at] = Some(position);
        Some(item)
    }
}
