use super::*;
use crate::channel::budget::ByteBudget;
use crate::event::{Body, UntypedEvent};
use crate::store::StreamState;

mod reset;

/// A sequencer, the stream that it follows, and the frames that it handed out.
struct SequencerFixture {
    sequencer: Sequencer,
    entries: Vec<(StreamId, Body)>,
    added: u64,
    last: StreamId,
    max_deleted: StreamId,
    exists: bool,
    now: Instant,
    out: Vec<String>,
}

fn id(n: u64) -> StreamId {
    StreamId::new(n, 0)
}

fn body(data: &str, is_untyped: bool) -> Body {
    if is_untyped {
        Body::Untyped(UntypedEvent { event: "e".into(), data: Some(data.into()), may_be_json: true })
    } else {
        Body::Event { event: "e".into(), data: data.into() }
    }
}

fn notification(n: u64, data: &str) -> EventNotification {
    EventNotification { id: id(n), event: "e".into(), data: data.into() }
}

impl SequencerFixture {
    fn new() -> Self {
        Self::with(SequencerBudgets::default(), true)
    }

    fn with(budgets: SequencerBudgets, fill_holes: bool) -> Self {
        let mut sequencer = Sequencer::new("c".into(), Arc::new(budgets), fill_holes);
        sequencer.open(&Page::default());
        let now = Instant::now();
        let (last, max_deleted) = (StreamId::ZERO, StreamId::ZERO);
        Self { sequencer, entries: vec![], added: 0, last, max_deleted, exists: false, now, out: vec![] }
    }

    fn add(&mut self, n: u64, data: &str) {
        self.push(n, body(data, true));
    }

    fn push(&mut self, n: u64, body: Body) {
        self.exists = true;
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
            has_last: self.entries.last().is_some_and(|(id, _)| *id == self.last),
            max_deleted: self.max_deleted,
        }
    }

    /// The page that a read would return now.
    fn page(&mut self, limit: usize) -> Page {
        self.sequencer.begin_read();
        let request = self.sequencer.request();
        self.page_of(request, limit)
    }

    fn page_of(&self, request: ReadRequest, limit: usize) -> Page {
        if !self.exists {
            return Page { complete: true, ..Page::default() };
        }
        let mut entries: Vec<_> = self.entries.iter().filter(|(id, _)| *id > request.after).cloned().collect();
        let complete = entries.len() <= limit;
        entries.truncate(limit);
        let has_after = request.is_entry && self.entries.iter().any(|(id, _)| *id == request.after);
        let is_proven = has_after && complete && entries.len() >= request.notified as usize;
        let stream = (request.wants_state || !is_proven).then(|| self.state());
        Page { entries, complete, exists: true, has_after, stream, ..Page::default() }
    }

    /// Reads until nothing is left to prove. Returns the reset that this found.
    fn read(&mut self) -> Option<StoreReset> {
        let mut found = None;
        loop {
            let page = self.page(usize::MAX);
            found = self.absorb(page).or(found);
            if !self.sequencer.needs_proof() && !self.sequencer.is_reread_needed {
                return found;
            }
        }
    }

    fn absorb(&mut self, page: Page) -> Option<StoreReset> {
        let reset = self.sequencer.absorb(page, Some(self.now + NOTIFICATION_GRACE), self.now);
        self.flush_ready();
        reset
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
        if self.sequencer.notify(notification) {
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
fn notification_is_only_a_reason_to_read() {
    let mut f = SequencerFixture::new();
    f.push(1, body("1", false));
    f.read();
    f.expect_out(&["1=1"]);
    // The next id, an id of the far future, and one of the past.
    assert!(f.sequencer.notify(notification(2, "forged")));
    assert!(f.sequencer.notify(notification(u64::MAX, "forged")));
    assert!(!f.sequencer.notify(notification(1, "forged")));
    f.flush_ready();
    f.expect_out(&[]);
    f.push(3, body("3", false));
    f.read();
    f.wait();
    f.expect_out(&["3=3"]);
    assert!(!f.sequencer.needs_read());
    assert_eq!(f.sequencer.budgets.pending.used(), 0);
}

#[test]
fn notification_during_a_read_waits_for_the_next_read() {
    let mut f = SequencerFixture::new();
    f.add(1, "1");
    let page = f.page(usize::MAX);
    assert!(f.sequencer.notify(notification(2, "2")));
    f.absorb(page);
    f.wait();
    f.expect_out(&["1=1"]);
    assert!(f.sequencer.needs_read(), "the second entry was not read");
    f.add(2, "2");
    f.read();
    f.expect_out(&["2=2"]);
}

#[test]
fn content_of_an_entry_comes_from_the_stream() {
    let mut f = SequencerFixture::new();
    f.push(1, body("1", false));
    f.notify(EventNotification { event: "forged".into(), ..notification(1, r#""forged""#) });
    f.add(2, "2");
    f.notify(notification(2, r#""forged""#));
    f.add(3, "3");
    f.read();
    f.notify(notification(3, r#""forged""#));
    f.expect_out(&["1=1", "2=2", "3=3"]);
}

#[test]
fn trimmed_entries_are_delivered_from_their_notifications() {
    let mut f = SequencerFixture::new();
    for n in 1..=3 {
        f.add(n, "0");
        f.trim(1);
    }
    // Three emitters with maxLength 1, whose notifications arrive out of order.
    f.notify(notification(3, "0"));
    f.notify(notification(1, "1"));
    f.notify(notification(2, "2"));
    // A forged one may still arrive.
    f.expect_out(&[]);
    f.wait();
    f.expect_out(&["1=1", "2=2", "3=0"]);
    assert_eq!(f.sequencer.budgets.pending.used(), 0);
}

#[test]
fn trimmed_entry_without_notification_is_a_gap() {
    let mut f = SequencerFixture::new();
    f.add(1, "x");
    f.notify(notification(1, r#""x""#));
    for n in 2..=4 {
        f.add(n, "0");
        f.trim(1);
    }
    f.notify(notification(4, "0"));
    f.notify(notification(2, "2"));
    f.expect_out(&[r#"1="x""#]);
    f.wait();
    // The third is missing. The count does not say which entry in the range it was.
    f.expect_out(&["gap 1-0..4-0 trimmed!", "2=2", "4=0"]);
}

/// A hole of one entry before the entry 5, with these notifications before and after the read that finds it.
fn check_hole(before: &[(u64, &str)], after: &[(u64, &str)], expect: &[&str]) {
    let mut f = SequencerFixture::new();
    f.push(1, body("1", false));
    f.read();
    f.push(3, body("3", false));
    f.push(5, body("5", false));
    f.trim(1);
    for (n, data) in before {
        f.sequencer.notify(notification(*n, data));
    }
    f.read();
    after.iter().for_each(|(n, data)| f.notify(notification(*n, data)));
    f.wait();
    let expect: Vec<&str> = [&["1=1"], expect, &["5=5"]].concat();
    assert_eq!(f.out, expect, "{before:?}, {after:?}");
    assert!(!f.sequencer.needs_read());
    assert_eq!((f.sequencer.budgets.pending.used(), f.sequencer.budgets.staged.used()), (0, 0));
}

#[test]
fn hole_is_filled_only_if_no_more_notifications_than_missing_entries_arrive() {
    const GAP: &str = "gap 1-0..5-0 trimmed!";
    check_hole(&[], &[], &[GAP]);
    check_hole(&[(3, "3")], &[], &["3=3"]);
    check_hole(&[], &[(3, "3")], &["3=3"]);
    check_hole(&[(3, "3"), (3, "3")], &[(3, "3")], &["3=3"]);
    check_hole(&[(5, "5"), (3, "3")], &[], &["3=3"]);
    // Ids before the position that was read, and from the first entry on that the stream has.
    check_hole(&[(1, "0"), (6, "6"), (u64::MAX, "7"), (3, "3")], &[(4, "x"), (1, "0"), (5, "0")], &[GAP]);
    check_hole(&[(6, "6"), (u64::MAX, "7")], &[(1, "0"), (5, "0")], &[GAP]);
    // One more than missing: which is forged is not known.
    check_hole(&[(2, "forged"), (3, "3")], &[], &[GAP]);
    check_hole(&[(2, "forged")], &[(3, "3")], &[GAP]);
    check_hole(&[(3, "3")], &[(4, "forged")], &[GAP]);
    check_hole(&[], &[(3, "3"), (4, "forged")], &[GAP]);
    // Two of one id with other contents.
    check_hole(&[(3, "forged")], &[(3, "3")], &[GAP]);
    check_hole(&[(3, "3")], &[(3, "forged")], &[GAP]);
}

#[test]
fn holes_are_not_filled_if_that_is_off() {
    let mut f = SequencerFixture::with(SequencerBudgets::default(), false);
    for n in 1..=2 {
        f.push(n, body("0", false));
        f.trim(1);
    }
    f.sequencer.notify(notification(1, "1"));
    f.read();
    f.expect_out(&["gap 0-0..2-0 trimmed!", "2=0"]);
}

#[test]
fn late_notification_is_not_delivered_where_nothing_was_trimmed() {
    let mut f = SequencerFixture::new();
    f.add(1, "1");
    f.push(4, body("4", false));
    f.read();
    // The first entry waits for its notification, so the position is between.
    assert!(!f.sequencer.notify(notification(2, "forged")));
    f.sequencer.notify(notification(3, "forged"));
    f.wait();
    f.expect_out(&["1=1", "4=4"]);
    // The same with notifications that arrive before and during the read.
    f.sequencer.notify(notification(5, "forged"));
    f.push(7, body("7", false));
    let page = f.page(usize::MAX);
    f.sequencer.notify(notification(6, "forged"));
    f.absorb(page);
    f.wait();
    f.expect_out(&["7=7"]);
    assert_eq!(f.sequencer.budgets.pending.used(), 0);
}

#[test]
fn deleted_entry_in_the_middle_is_not_filled() {
    let mut f = SequencerFixture::new();
    for n in 1..=3 {
        f.push(n, body("1", false));
    }
    f.read();
    f.out.clear();
    for n in 4..=6 {
        f.push(n, body("1", false));
    }
    f.entries.remove(4);
    f.sequencer.notify(notification(5, "deleted"));
    f.read();
    f.expect_out(&["4=1", "6=1"]);
    // The count of entries tells the next read that it existed.
    f.read();
    f.expect_out(&["gap 3-0..6-0 trimmed!"]);
    f.read();
    f.expect_out(&[]);
}

#[test]
fn notification_of_a_hole_is_checked_by_a_read_before_it_is_delivered() {
    let mut f = SequencerFixture::new();
    for n in 1..=2 {
        f.push(n, body("2", false));
        f.trim(1);
    }
    f.read();
    assert!(f.sequencer.notify(notification(1, "1")));
    assert!(f.sequencer.needs_read());
    // The read begins but does not complete in time.
    let _page = f.page(usize::MAX);
    f.wait();
    f.expect_out(&["gap 0-0..2-0 trimmed!", "2=2"]);
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
fn notification_without_a_stream_is_not_delivered() {
    let no_stream = || Page { complete: true, ..Page::default() };
    let mut f = SequencerFixture::new();
    // A key that does not exist, as in another database of this Redis.
    f.sequencer.notify(notification(1, "1"));
    f.sequencer.begin_read();
    f.absorb(no_stream());
    f.wait();
    f.expect_out(&[]);
    assert!(!f.sequencer.needs_read());
    f.push(2, body("2", false));
    f.read();
    f.expect_out(&["2=2"]);
    // A key that existed: an entry may have been added before it expired.
    f.sequencer.notify(notification(3, "3"));
    let mut resets = Vec::new();
    for _ in 0..2 {
        f.sequencer.begin_read();
        resets.extend(f.absorb(no_stream()));
    }
    let resets: Vec<_> = resets.iter().map(|reset| (reset.position, reset.common, reset.certain)).collect();
    assert_eq!(resets, [(StreamId::ZERO, None, false)]);
    f.expect_out(&[]);
    // The key is created again, and its count starts at one.
    (f.entries, f.added) = (vec![], 0);
    f.push(4, body("4", false));
    f.read();
    f.expect_out(&["4=4"]);
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

fn budgets(pending: usize, staged: usize) -> SequencerBudgets {
    SequencerBudgets { pending: ByteBudget::new(pending), staged: ByteBudget::new(staged) }
}

#[test]
fn pending_notifications_are_bounded_and_discarded() {
    let kept = |data: &str, limit: usize| {
        let mut f = SequencerFixture::with(budgets(limit, limit), true);
        for n in 1..=1000 {
            assert!(f.sequencer.notify(notification(1_000 + n, data)));
        }
        let used = f.sequencer.budgets.pending.used();
        assert!(used <= limit && limit - used < 1300, "{used} of {limit} bytes");
        // None of them is in the stream, though it was read to its end: they were forged.
        f.push(200, body("1", false));
        f.read();
        assert!(!f.sequencer.needs_read());
        assert_eq!(f.sequencer.budgets.pending.used(), 0);
        used
    };
    // Twice the limit is twice the bytes, whether notifications are large or small.
    for data in ["1".repeat(1000), "1".to_owned()] {
        let (once, twice) = (kept(&data, 20_000), kept(&data, 40_000));
        assert!(twice.abs_diff(2 * once) < 1300, "{once} and {twice}");
    }
    // A small one costs what it takes in memory: the item of the map, its two strings, and their allocations.
    let item = std::mem::size_of::<(StreamId, pending::PendingNotification)>();
    let mut f = SequencerFixture::new();
    f.sequencer.notify(notification(1, "1"));
    assert!(f.sequencer.budgets.pending.used() >= item + 2 * 32, "{item}");
}

#[test]
fn staged_entries_are_bounded_in_bytes() {
    let large = format!("[{}7]", "7,".repeat(50_000));
    let staged_before_full = |limit: usize, others: usize| {
        let mut f = SequencerFixture::with(budgets(0, limit), true);
        f.sequencer.budgets.staged.take(others);
        let mut n = 0;
        while !f.sequencer.is_full() {
            n += 1;
            f.add(n, &large);
            f.read();
        }
        let used = f.sequencer.budgets.staged.used();
        f.wait();
        assert!(!f.sequencer.is_full() && f.out.len() as u64 == n, "everything is delivered after the grace");
        assert_eq!(f.sequencer.budgets.staged.used(), others);
        (n, used - others)
    };
    // The limit of the channel, then that of the node.
    let (entries, bytes) = staged_before_full(1 << 30, 0);
    assert_eq!((entries, bytes / 1000), (11, 1101));
    assert_eq!(staged_before_full(500_000, 0).0, 5);
    assert_eq!(staged_before_full(1_000_000, 0).0, 10);
    // Small entries count with what they cost in memory.
    let mut f = SequencerFixture::new();
    f.add(1, "1");
    f.read();
    assert!(f.sequencer.budgets.staged.used() >= std::mem::size_of::<staged::Staged>() + 2 * 32);
}

#[test]
fn channel_without_staged_entries_reads_on_while_the_budget_of_the_node_is_used_up() {
    let mut f = SequencerFixture::with(budgets(1 << 20, 1000), true);
    f.sequencer.budgets.staged.take(1000);
    assert!(!f.sequencer.is_full());
    // Its entries do not wait, so they take no memory.
    f.add(1, "1");
    f.add(2, "2");
    f.read();
    f.expect_out(&["1=1", "2=2"]);
    assert_eq!(f.sequencer.budgets.staged.used(), 1000);
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
