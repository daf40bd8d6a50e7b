//! Many streams that are cut all the time, emitters that race, and a Redis that is killed: each stream gets each entry once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::children::{Gateway, is_full};
use crate::client::{Block, Id, Wire, encoded};
use crate::emitter::{self, Account, Dice};
use crate::redis_server::{DURABLE, Redis};

const CHANNELS: [&str; 3] = ["soak", "soak:two words & more", "soak/ü🎉"];

/// An entry, as its place and its words.
type Seen = (Id, u64);

fn hashed(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A browser's `EventSource`: one URL for its whole life, and the `id:` that came last.
struct Source {
    number: usize,
    target: String,
    seen: Mutex<Tally>,
    cut: Notify,
}

#[derive(Default)]
struct Tally {
    last_event_id: Option<String>,
    start: [Option<Id>; 3],
    seen: [Vec<Seen>; 3],
    /// Channels that this connection has told of.
    open: [bool; 3],
    connections: usize,
    wrong: Vec<String>,
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

impl Tally {
    fn position(&self, number: usize) -> Option<Id> {
        self.seen[number].last().map(|(id, _)| *id).or(self.start[number])
    }

    fn take(&mut self, block: &Block<'_>) {
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

    /// `None` if the frame should not be here.
    fn frame(&mut self, data: &str) -> Option<()> {
        let number = |channel: &str| CHANNELS.iter().position(|name| *name == channel);
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
}

impl Source {
    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.seen.lock().expect("nobody panicked")
    }

    /// Reads, is cut, and comes back, until the runtime ends.
    async fn follow(self: Arc<Self>, to: SocketAddr, cuts: Arc<AtomicU64>) {
        let mut dice = Dice(self.number as u64 + 1000);
        loop {
            let last = {
                let mut account = self.lock();
                account.open = [false; 3];
                account.last_event_id.clone()
            };
            match Wire::get(to, &self.target, last.as_deref(), None).await {
                Ok(wire) if wire.status == 200 => {
                    self.lock().connections += 1;
                    self.read(wire, &mut dice).await;
                    cuts.fetch_add(1, Ordering::Relaxed);
                }
                Ok(wire) => self.lock().wrong.push(wire.head),
                Err(error) => self.lock().wrong.push(error.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(dice.below(800))).await;
        }
    }

    async fn read(&self, mut wire: Wire, dice: &mut Dice) {
        loop {
            tokio::select! {
                () = self.cut.notified() => break,
                more = wire.more(64 << 10) => match more {
                    Ok(true) => wire.blocks(|block| self.lock().take(&block)),
                    // Nobody but the tests ends a stream here.
                    ended => return self.lock().wrong.push(format!("{ended:?}")),
                }
            }
        }
        // Some bytes more, so that it breaks in the middle of a block.
        let most = 1 + dice.below(400);
        if let Ok(Ok(true)) = tokio::time::timeout(Duration::from_millis(100), wire.more(most)).await {
            wire.blocks(|block| self.lock().take(&block));
        }
    }
}

/// The URL of a stream: those of the stock client that has just loaded, that has a history, or that has a clock that is wrong.
fn target(number: usize) -> String {
    let now = tidegate::stream::now_ms();
    let ack = match number % 4 {
        0 => None,
        1 => Some(0),
        2 => Some(now - 1500),
        _ => Some(now + 300_000),
    };
    let channels = CHANNELS.map(|name| {
        let name = encoded(name);
        let ack = ack.map(|ms| format!("&last_ack_{name}={ms}")).unwrap_or_default();
        format!("channel={name}{ack}")
    });
    format!("/api/realtime?{}", channels.join("&"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_emitters_cut_clients_killed_redis() {
    let (streams, time, away) = if is_full() { (500, 60, 3000) } else { (60, 8, 700) };
    let time = Duration::from_secs(time);
    let mut redis = Redis::start(DURABLE).await;
    let gateway =
        Gateway::start(&format!("store = \"{}\"\nallow-all = true\nlog.filter = \"warn\"", redis.url())).await;
    let begin = Instant::now();
    let emitters: Vec<_> = (0..3).map(|n| emitter::start(redis.port, &CHANNELS, n, 20, time)).collect();

    let cuts = Arc::new(AtomicU64::new(0));
    let mut sources: Vec<Arc<Source>> = Vec::new();
    let open = |sources: &mut Vec<Arc<Source>>| {
        let number = sources.len();
        let source = Source { number, target: target(number), seen: Mutex::default(), cut: Notify::new() };
        let source = Arc::new(source);
        sources.push(Arc::clone(&source));
        tokio::spawn(source.follow(gateway.data, Arc::clone(&cuts)));
    };
    let (mut dice, mut most, mut second) = (Dice(1), 0, 1);
    let (mut killed, mut back) = (false, false);
    while begin.elapsed() < time {
        // They come over the first half, most of them at once.
        let due =
            streams * 2 / 3 + streams * begin.elapsed().as_millis() as usize / (time.as_millis() as usize * 3 / 2);
        while sources.len() < due.min(streams) {
            open(&mut sources);
        }
        if begin.elapsed() >= Duration::from_secs(second) {
            second += 1;
            for _ in 0..streams / 10 {
                sources[dice.below(sources.len() as u64) as usize].cut.notify_one();
            }
        }
        if !killed && begin.elapsed() >= time / 2 {
            killed = true;
            redis.kill().await;
        }
        if killed && !back && begin.elapsed() >= time / 2 + Duration::from_millis(away) {
            back = true;
            redis.restart().await;
        }
        most = most.max(gateway.process.resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(back && sources.len() == streams);
    let (mut added, mut doubtful, mut published) = (0, 0, 0);
    for emitter in emitters {
        let account = Account::of(emitter).await;
        (added, doubtful, published) =
            (added + account.added, doubtful + account.doubtful, published + account.published);
    }
    let mut truth: [Vec<Seen>; 3] = Default::default();
    for (channel, truth) in CHANNELS.iter().zip(&mut truth) {
        *truth = redis.entries(channel).await.iter().map(|(id, data)| (*id, hashed(data))).collect();
    }
    let total = truth.iter().map(Vec::len).sum::<usize>() as u64;
    assert!(
        (added..=added + doubtful).contains(&total),
        "{added} and perhaps {doubtful} entries, and there are {total}"
    );

    // Everyone gets there, after at most a position check; then everyone comes back once more, to be told nothing.
    let arrived = |source: &&Arc<Source>| {
        let account = source.lock();
        (0..3).all(|number| account.position(number) >= truth[number].last().map(|(id, _)| *id))
    };
    let patience = Instant::now() + Duration::from_secs(20);
    while !sources.iter().all(|source| arrived(&source)) && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settled = begin.elapsed();
    let late = sources.iter().filter(|source| !arrived(source)).count();
    let connections = |sources: &[Arc<Source>]| sources.iter().map(|s| s.lock().connections).collect::<Vec<_>>();
    let before = connections(&sources);
    sources.iter().for_each(|source| source.cut.notify_one());
    let reopened = || {
        sources.iter().zip(&before).all(|(source, before)| {
            let account = source.lock();
            account.connections > *before && account.open == [true; 3]
        })
    };
    while !reopened() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    most = most.max(gateway.process.resident());

    let mut deliveries = 0;
    let mut wrong = Vec::new();
    for source in &sources {
        let account = source.lock();
        wrong.extend(account.wrong.iter().map(|text| format!("stream {}: {text}", source.number)));
        for (number, truth) in truth.iter().enumerate() {
            let start = account.start[number];
            let expect = &truth[truth.partition_point(|(id, _)| Some(*id) <= start)..];
            deliveries += expect.len();
            if start.is_none() || account.seen[number] != expect {
                let words = difference(&account.seen[number], expect);
                wrong.push(format!("stream {} in {} from {start:?} on: {words}", source.number, CHANNELS[number]));
            }
        }
    }
    println!(
        "soak: {streams} streams, {total} entries ({doubtful} in doubt, {published} published), {} cuts, {deliveries} deliveries in \
         {:.1} s; the gateway: {most} KiB at the most, {:.2} s of CPU",
        cuts.load(Ordering::Relaxed),
        settled.as_secs_f64(),
        gateway.process.cpu_time(),
    );
    assert!(
        wrong.is_empty(),
        "{} are wrong, {late} late, such as\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(reopened(), "everyone comes back");
    assert!(published < total && deliveries > total as usize * streams / 4, "{published} of {total}, {deliveries}");
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
