use super::*;
use crate::store::StreamState;

/// An order, the stream that it follows, and what came out of it.
struct World {
    order: Sequencer,
    entries: Vec<(StreamId, Body)>,
    added: u64,
    last: StreamId,
    now: Instant,
    out: Vec<String>,
}

fn id(n: u64) -> StreamId {
    StreamId::new(n, 0)
}

fn body(data: &str, ambiguous: bool) -> Body {
    Body::Event { event: "e".into(), data: data.into(), ambiguous }
}

fn bell(n: u64, data: &str) -> EventNotification {
    EventNotification { id: id(n), event: "e".into(), data: data.into(), prev: None }
}

impl World {
    fn new() -> Self {
        let budget = Arc::new(PayloadBudget::new(10_000));
        let mut order = Sequencer::new("c".into(), budget);
        order.open(&Page::default());
        let now = Instant::now();
        Self { order, entries: vec![], added: 0, last: StreamId::ZERO, now, out: vec![] }
    }

    fn add(&mut self, n: u64, data: &str) {
        self.push(n, body(data, true));
    }

    fn push(&mut self, n: u64, body: Body) {
        self.entries.push((id(n), body));
        self.added += 1;
        self.last = id(n);
    }

    fn trim(&mut self, keep: usize) {
        let excess = self.entries.len().saturating_sub(keep);
        self.entries.drain(..excess);
    }

    fn state(&self) -> StreamState {
        StreamState {
            last: self.last,
            added: self.added,
            length: self.entries.len() as u64,
            first: self.entries.first().map(|(id, _)| *id),
            max_deleted: StreamId::ZERO,
        }
    }

    /// The page that a read would bring now.
    fn page(&mut self, limit: usize) -> Page {
        self.order.begin_read();
        let behind = self.entries.iter().filter(|(id, _)| *id > self.order.read_to()).cloned();
        let mut entries: Vec<_> = behind.collect();
        let complete = entries.len() <= limit;
        entries.truncate(limit);
        Page { entries, complete, stream: Some(self.state()), ..Page::default() }
    }

    fn read(&mut self) -> Option<Gap> {
        let page = self.page(usize::MAX);
        self.absorb(page)
    }

    fn absorb(&mut self, page: Page) -> Option<Gap> {
        let gap = self.order.absorb(page, Some(self.now + PATIENCE), self.now);
        self.settle();
        gap
    }

    fn settle(&mut self) -> bool {
        let out = &mut self.out;
        let waits = self.order.settle(self.now, |item| {
            let frame = String::from_utf8(item.frame.to_vec()).expect("text");
            let json: serde_json::Value =
                serde_json::from_str(frame.trim().strip_prefix("data: ").expect("data")).expect("json");
            out.push(match json["type"].as_str() {
                Some("gap") => format!(
                    "gap {}..{} {}{}",
                    json["after"].as_str().expect("after"),
                    json["resumed"].as_str().expect("resumed"),
                    json["reason"].as_str().expect("reason"),
                    if json["certain"] == true { "!" } else { "?" }
                ),
                _ => format!("{}={}", item.at.ms, json["data"]),
            });
        });
        waits.is_some()
    }

    /// Rings, and reads if that is asked for.
    fn ring(&mut self, rung: EventNotification) {
        if self.order.ring(rung, false) {
            self.read();
        } else {
            self.settle();
        }
    }

    fn wait(&mut self) {
        self.now += PATIENCE;
        self.settle();
    }

    fn took(&mut self, expect: &[&str]) {
        assert_eq!(self.out, expect);
        self.out.clear();
    }
}

#[test]
fn a_doorbell_gives_the_data() {
    let mut w = World::new();
    w.add(1, "123");
    w.ring(bell(1, r#""123""#));
    w.took(&[r#"1="123""#]);
    w.ring(bell(1, r#""123""#));
    w.took(&[]);
}

#[test]
fn inverted_doorbells_keep_the_order_of_the_stream() {
    let mut w = World::new();
    w.add(1, "1");
    w.add(2, "2");
    w.ring(bell(2, r#""2""#));
    w.took(&[]);
    w.ring(bell(1, r#""1""#));
    w.took(&[r#"1="1""#, r#"2="2""#]);
}

#[test]
fn a_doorbell_that_never_rings_costs_patience_and_nothing_else() {
    let mut w = World::new();
    w.add(1, "1");
    w.add(2, "2");
    w.ring(bell(2, "2"));
    w.took(&[]);
    w.wait();
    w.took(&["1=1", "2=2"]);
    w.ring(bell(1, r#""late""#));
    w.took(&[]);
}

#[test]
fn what_needs_no_doorbell_does_not_wait_for_one() {
    let mut w = World::new();
    w.push(1, body("1", false));
    w.push(2, Body::Foreign);
    w.add(3, "3");
    w.ring(bell(3, "3"));
    w.took(&["1=1", "3=3"]);
    assert_eq!(w.order.head(), id(3));
}

#[test]
fn an_own_doorbell_is_delivered_without_a_read() {
    let mut w = World::new();
    let own = |n: u64, prev: u64| EventNotification { prev: Some(id(prev)), ..bell(n, "0") };
    assert!(!w.order.ring(own(1, 0), false));
    assert!(!w.order.ring(own(2, 1), false));
    w.settle();
    w.took(&["1=0", "2=0"]);
    assert!(w.order.ring(own(4, 3), false), "something came between");
    // And none of this confuses the count.
    w.add(1, "0");
    w.add(2, "0");
    w.add(3, "0");
    w.add(4, "0");
    w.read();
    w.wait();
    w.took(&["3=0", "4=0"]);
}

#[test]
fn an_own_doorbell_during_a_read_waits_for_it() {
    let mut w = World::new();
    w.add(1, "1");
    let page = w.page(usize::MAX);
    assert!(w.order.ring(EventNotification { prev: Some(id(1)), ..bell(2, "2") }, true));
    w.absorb(page);
    w.wait();
    w.took(&["1=1"]);
    assert!(w.order.wants_read(), "the second is still to be read");
    w.add(2, "2");
    w.read();
    w.took(&["2=2"]);
}

#[test]
fn trimmed_before_it_was_read_but_rung() {
    let mut w = World::new();
    for n in 1..=3 {
        w.add(n, "0");
        w.trim(1);
    }
    // Three emitters with maxLength 1, their doorbells the wrong way round.
    w.ring(bell(3, "3"));
    w.took(&[]);
    w.ring(bell(1, "1"));
    w.took(&[]);
    w.ring(bell(2, "2"));
    w.took(&["1=1", "2=2", "3=3"]);
}

#[test]
fn trimmed_and_never_rung_is_a_gap() {
    let mut w = World::new();
    w.add(1, "x");
    w.ring(bell(1, "1"));
    for n in 2..=4 {
        w.add(n, "0");
        w.trim(1);
    }
    w.ring(bell(4, "4"));
    w.ring(bell(2, "2"));
    w.took(&["1=1"]);
    w.wait();
    // The third is gone; which of those between were, the count does not say.
    w.took(&["gap 1-0..4-0 trimmed!", "2=2", "4=4"]);
}

#[test]
fn a_gap_stands_just_before_what_comes_next() {
    let mut w = World::new();
    for n in 1..=4 {
        w.add(n, "7");
    }
    w.trim(1);
    w.read();
    let mut at = Vec::new();
    w.order.settle(w.now + PATIENCE, |item| at.push(item.at));
    assert_eq!(at, [id(4).before(), id(4)]);
}

#[test]
fn a_store_that_went_back() {
    let mut w = World::new();
    for n in 1..=5 {
        w.push(n, body("1", false));
    }
    w.read();
    w.out.clear();
    // The last two are lost, and nothing came since.
    w.entries.truncate(3);
    (w.added, w.last) = (3, id(3));
    let gap = w.read().expect("a gap");
    assert_eq!((gap.after, gap.resumed, gap.certain, gap.why), (id(5), id(3), true, GapReason::WentBack));
    w.push(6, body("6", false));
    w.read();
    w.took(&["6=6"]);
    // Lost again, but something came: the count tells.
    w.entries.truncate(2);
    w.added = 2;
    w.push(7, body("7", false));
    assert!(w.read().is_none());
    w.took(&["gap 6-0..7-0 store-went-back?", "7=7"]);
}

#[test]
fn expired_before_it_was_read_but_rung() {
    let mut w = World::new();
    w.order.ring(bell(1, "1"), false);
    w.order.begin_read();
    w.absorb(Page { complete: true, ..Page::default() });
    w.took(&["1=1"]);
    // The key comes again, and counts from one.
    w.push(2, body("2", false));
    w.read();
    w.took(&["2=2"]);
}

#[test]
fn pages_of_a_long_way_back() {
    let mut w = World::new();
    for n in 1..=10 {
        w.push(n, body("1", false));
    }
    w.trim(7);
    while {
        let page = w.page(3);
        let more = !page.complete;
        w.absorb(page);
        more
    } {}
    w.wait();
    let expect: Vec<String> = (4..=10).map(|n| format!("{n}=1")).collect();
    assert_eq!(w.out[0], "gap 0-0..4-0 trimmed!");
    assert_eq!(w.out[1..], expect);
}

#[test]
fn too_large_is_a_gap_of_one() {
    let mut w = World::new();
    w.push(1, body("1", false));
    w.push(2, Body::TooLarge);
    w.push(3, body("3", false));
    w.read();
    w.took(&["1=1", "gap 1-0..2-0 too-large!", "3=3"]);
}

#[test]
fn payloads_are_bounded_and_forgotten() {
    let mut w = World::new();
    for n in 1..=100 {
        w.order.ring(bell(1_000 + n, &"1".repeat(1_000)), false);
    }
    assert!(w.order.payloads.len() < 11);
    // None of them is in the stream, which is read to its end: forged.
    w.push(200, body("1", false));
    w.read();
    assert!(!w.order.wants_read());
    assert_eq!(w.order.budget.used.load(Ordering::Relaxed), 0);
}

/// Emitters that race, die and trim, doorbells that come late, twice or never, in every order that a seed makes: what goes
/// out is each entry once and in order, or a gap where it was trimmed.
#[test]
fn whatever_happens_each_entry_once_and_in_order() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut w = World::new();
        let trims = rng.random_bool(0.5);
        let mut bells: Vec<u64> = Vec::new();
        let mut next = 1;
        for _ in 0..200 {
            match rng.random_range(0..6) {
                0 | 1 => {
                    w.add(next, &next.to_string());
                    if rng.random_bool(0.8) {
                        bells.push(next);
                    }
                    next += 1;
                }
                2 if !bells.is_empty() => {
                    let i = rng.random_range(0..bells.len());
                    let n = if rng.random_bool(0.1) { bells[i] } else { bells.remove(i) };
                    w.ring(bell(n, &n.to_string()));
                }
                3 if trims => w.trim(rng.random_range(1..4)),
                4 => {
                    w.read();
                }
                _ => {
                    w.now += PATIENCE / 3;
                    w.settle();
                }
            }
        }
        w.read();
        w.wait();
        let mut expected = 1;
        // Entries up to there may be missing.
        let mut gap_to = 0;
        for line in &w.out {
            match line.split_once('=') {
                Some((n, data)) => {
                    assert_eq!(n, data, "seed {seed}");
                    let n: u64 = n.parse().expect("a number");
                    assert!(
                        n == expected || (n > expected && n <= gap_to),
                        "seed {seed}: {n} after {}\n{:?}",
                        expected - 1,
                        w.out
                    );
                    expected = n + 1;
                }
                None => {
                    let resumed = line.split(['.', '-']).nth(3).expect("an id");
                    gap_to = resumed.parse().expect("a number");
                }
            }
        }
        assert!(expected == next || gap_to == next - 1, "seed {seed}: nothing after {}\n{:?}", expected - 1, w.out);
        assert!(trims || !w.out.iter().any(|l| l.starts_with("gap")), "seed {seed}: a gap where nothing was trimmed");
    }
}
