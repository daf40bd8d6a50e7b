use super::*;
use crate::store::StreamState;

/// A sequencer, the stream that it follows, and the frames that it handed out.
struct SequencerFixture {
    sequencer: Sequencer,
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

fn notification(n: u64, data: &str) -> EventNotification {
    EventNotification { id: id(n), event: "e".into(), data: data.into(), prev: None }
}

impl SequencerFixture {
    fn new() -> Self {
        let budget = Arc::new(PayloadBudget::new(10_000));
        let mut sequencer = Sequencer::new("c".into(), budget);
        sequencer.open(&Page::default());
        let now = Instant::now();
        Self { sequencer, entries: vec![], added: 0, last: StreamId::ZERO, now, out: vec![] }
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

    /// The page that a read would return now.
    fn page(&mut self, limit: usize) -> Page {
        self.sequencer.begin_read();
        let after = self.entries.iter().filter(|(id, _)| *id > self.sequencer.read_to()).cloned();
        let mut entries: Vec<_> = after.collect();
        let complete = entries.len() <= limit;
        entries.truncate(limit);
        Page { entries, complete, stream: Some(self.state()), ..Page::default() }
    }

    fn read(&mut self) -> Option<Gap> {
        let page = self.page(usize::MAX);
        self.absorb(page)
    }

    fn absorb(&mut self, page: Page) -> Option<Gap> {
        let gap = self.sequencer.absorb(page, Some(self.now + NOTIFICATION_GRACE), self.now);
        self.flush_ready();
        gap
    }

    fn flush_ready(&mut self) -> bool {
        let out = &mut self.out;
        let waits = self.sequencer.flush_ready(self.now, |frame| {
            let text = String::from_utf8(frame.bytes.to_vec()).expect("text");
            let json: serde_json::Value =
                serde_json::from_str(text.trim().strip_prefix("data: ").expect("data")).expect("json");
            out.push(match json["type"].as_str() {
                Some("gap") => format!(
                    "gap {}..{} {}{}",
                    json["after"].as_str().expect("after"),
                    json["resumed"].as_str().expect("resumed"),
                    json["reason"].as_str().expect("reason"),
                    if json["certain"] == true { "!" } else { "?" }
                ),
                _ => format!("{}={}", frame.position.ms, json["data"]),
            });
        });
        waits.is_some()
    }

    /// Delivers a notification, and reads if the sequencer asks for it.
    fn notify(&mut self, notification: EventNotification) {
        if self.sequencer.notify(notification, false) {
            self.read();
        } else {
            self.flush_ready();
        }
    }

    /// Lets the grace of all staged entries end.
    fn wait(&mut self) {
        self.now += NOTIFICATION_GRACE;
        self.flush_ready();
    }

    fn expect_out(&mut self, expect: &[&str]) {
        assert_eq!(self.out, expect);
        self.out.clear();
    }
}

#[test]
fn notification_supplies_the_data() {
    let mut f = SequencerFixture::new();
    f.add(1, "123");
    f.notify(notification(1, r#""123""#));
    f.expect_out(&[r#"1="123""#]);
    f.notify(notification(1, r#""123""#));
    f.expect_out(&[]);
}

#[test]
fn entries_keep_stream_order_when_notifications_are_inverted() {
    let mut f = SequencerFixture::new();
    f.add(1, "1");
    f.add(2, "2");
    f.notify(notification(2, r#""2""#));
    f.expect_out(&[]);
    f.notify(notification(1, r#""1""#));
    f.expect_out(&[r#"1="1""#, r#"2="2""#]);
}

#[test]
fn missing_notification_delays_the_entry_by_the_grace_only() {
    let mut f = SequencerFixture::new();
    f.add(1, "1");
    f.add(2, "2");
    f.notify(notification(2, "2"));
    f.expect_out(&[]);
    f.wait();
    f.expect_out(&["1=1", "2=2"]);
    f.notify(notification(1, r#""late""#));
    f.expect_out(&[]);
}

#[test]
fn unambiguous_entry_does_not_wait_for_its_notification() {
    let mut f = SequencerFixture::new();
    f.push(1, body("1", false));
    f.push(2, Body::Foreign);
    f.add(3, "3");
    f.notify(notification(3, "3"));
    f.expect_out(&["1=1", "3=3"]);
    assert_eq!(f.sequencer.delivered_to, id(3));
}

#[test]
fn notification_with_known_predecessor_needs_no_read() {
    let mut f = SequencerFixture::new();
    let own = |n: u64, prev: u64| EventNotification { prev: Some(id(prev)), ..notification(n, "0") };
    assert!(!f.sequencer.notify(own(1, 0), false));
    assert!(!f.sequencer.notify(own(2, 1), false));
    f.flush_ready();
    f.expect_out(&["1=0", "2=0"]);
    assert!(f.sequencer.notify(own(4, 3), false), "an entry was added between them");
    // Entries delivered without a read are counted once.
    f.add(1, "0");
    f.add(2, "0");
    f.add(3, "0");
    f.add(4, "0");
    f.read();
    f.wait();
    f.expect_out(&["3=0", "4=0"]);
}

#[test]
fn notification_during_a_read_waits_for_the_next_read() {
    let mut f = SequencerFixture::new();
    f.add(1, "1");
    let page = f.page(usize::MAX);
    assert!(f.sequencer.notify(EventNotification { prev: Some(id(1)), ..notification(2, "2") }, true));
    f.absorb(page);
    f.wait();
    f.expect_out(&["1=1"]);
    assert!(f.sequencer.needs_read(), "the second entry was not read");
    f.add(2, "2");
    f.read();
    f.expect_out(&["2=2"]);
}

#[test]
fn trimmed_entries_are_delivered_from_their_notifications() {
    let mut f = SequencerFixture::new();
    for n in 1..=3 {
        f.add(n, "0");
        f.trim(1);
    }
    // Three emitters with maxLength 1, whose notifications arrive out of order.
    f.notify(notification(3, "3"));
    f.expect_out(&[]);
    f.notify(notification(1, "1"));
    f.expect_out(&[]);
    f.notify(notification(2, "2"));
    f.expect_out(&["1=1", "2=2", "3=3"]);
}

#[test]
fn trimmed_entry_without_notification_is_a_gap() {
    let mut f = SequencerFixture::new();
    f.add(1, "x");
    f.notify(notification(1, "1"));
    for n in 2..=4 {
        f.add(n, "0");
        f.trim(1);
    }
    f.notify(notification(4, "4"));
    f.notify(notification(2, "2"));
    f.expect_out(&["1=1"]);
    f.wait();
    // The third is missing. The count does not say which entry in the range it was.
    f.expect_out(&["gap 1-0..4-0 trimmed!", "2=2", "4=4"]);
}

#[test]
fn gap_position_is_just_before_the_next_entry() {
    let mut f = SequencerFixture::new();
    for n in 1..=4 {
        f.add(n, "7");
    }
    f.trim(1);
    f.read();
    let mut positions = Vec::new();
    f.sequencer.flush_ready(f.now + NOTIFICATION_GRACE, |frame| positions.push(frame.position));
    assert_eq!(positions, [id(4).before(), id(4)]);
}

#[test]
fn store_reset_is_reported_as_a_gap() {
    let mut f = SequencerFixture::new();
    for n in 1..=5 {
        f.push(n, body("1", false));
    }
    f.read();
    f.out.clear();
    // The last two are lost, and none was added since.
    f.entries.truncate(3);
    (f.added, f.last) = (3, id(3));
    let gap = f.read().expect("a gap");
    assert_eq!((gap.after, gap.resumed, gap.certain, gap.reason), (id(5), id(3), true, GapReason::StoreReset));
    f.push(6, body("6", false));
    f.read();
    f.expect_out(&["6=6"]);
    // Two are lost and another was added: only the count reveals it.
    f.entries.truncate(2);
    f.added = 2;
    f.push(7, body("7", false));
    assert!(f.read().is_none());
    f.expect_out(&["gap 6-0..7-0 store-reset?", "7=7"]);
}

#[test]
fn expired_entry_is_delivered_from_its_notification() {
    let mut f = SequencerFixture::new();
    f.sequencer.notify(notification(1, "1"), false);
    f.sequencer.begin_read();
    f.absorb(Page { complete: true, ..Page::default() });
    f.expect_out(&["1=1"]);
    // The key is created again, and its count starts at one.
    f.push(2, body("2", false));
    f.read();
    f.expect_out(&["2=2"]);
}

#[test]
fn catch_up_over_several_pages_reports_one_gap() {
    let mut f = SequencerFixture::new();
    for n in 1..=10 {
        f.push(n, body("1", false));
    }
    f.trim(7);
    while {
        let page = f.page(3);
        let more = !page.complete;
        f.absorb(page);
        more
    } {}
    f.wait();
    let expect: Vec<String> = (4..=10).map(|n| format!("{n}=1")).collect();
    assert_eq!(f.out[0], "gap 0-0..4-0 trimmed!");
    assert_eq!(f.out[1..], expect);
}

#[test]
fn entry_that_is_too_large_is_a_gap() {
    let mut f = SequencerFixture::new();
    f.push(1, body("1", false));
    f.push(2, Body::TooLarge);
    f.push(3, body("3", false));
    f.read();
    f.expect_out(&["1=1", "gap 1-0..2-0 too-large!", "3=3"]);
}

#[test]
fn pending_notifications_are_bounded_and_discarded() {
    let mut f = SequencerFixture::new();
    for n in 1..=100 {
        f.sequencer.notify(notification(1_000 + n, &"1".repeat(1_000)), false);
    }
    assert!(f.sequencer.pending.len() < 11);
    // None of them is in the stream, though it was read to its end: they were forged.
    f.push(200, body("1", false));
    f.read();
    assert!(!f.sequencer.needs_read());
    assert_eq!(f.sequencer.budget.used_bytes.load(Ordering::Relaxed), 0);
}

/// Emitters race, die and trim; notifications arrive late, twice or never, in an order that the seed decides. Each entry must
/// go out once and in order, or be covered by a gap if it was trimmed.
#[test]
fn each_entry_is_delivered_once_and_in_order() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut f = SequencerFixture::new();
        let trims = rng.random_bool(0.5);
        let mut unsent: Vec<u64> = Vec::new();
        let mut next = 1;
        for _ in 0..200 {
            match rng.random_range(0..6) {
                0 | 1 => {
                    f.add(next, &next.to_string());
                    if rng.random_bool(0.8) {
                        unsent.push(next);
                    }
                    next += 1;
                }
                2 if !unsent.is_empty() => {
                    let i = rng.random_range(0..unsent.len());
                    let n = if rng.random_bool(0.1) { unsent[i] } else { unsent.remove(i) };
                    f.notify(notification(n, &n.to_string()));
                }
                3 if trims => f.trim(rng.random_range(1..4)),
                4 => {
                    f.read();
                }
                _ => {
                    f.now += NOTIFICATION_GRACE / 3;
                    f.flush_ready();
                }
            }
        }
        f.read();
        f.wait();
        let mut expected = 1;
        // Entries up to this one may be missing.
        let mut gap_to = 0;
        for line in &f.out {
            match line.split_once('=') {
                Some((n, data)) => {
                    assert_eq!(n, data, "seed {seed}");
                    let n: u64 = n.parse().expect("a number");
                    assert!(
                        n == expected || (n > expected && n <= gap_to),
                        "seed {seed}: {n} after {}\n{:?}",
                        expected - 1,
                        f.out
                    );
                    expected = n + 1;
                }
                None => {
                    let resumed = line.split(['.', '-']).nth(3).expect("an id");
                    gap_to = resumed.parse().expect("a number");
                }
            }
        }
        assert!(expected == next || gap_to == next - 1, "seed {seed}: no entry after {}\n{:?}", expected - 1, f.out);
        assert!(
            trims || !f.out.iter().any(|l| l.starts_with("gap")),
            "seed {seed}: a gap although no entry was trimmed"
        );
    }
}
