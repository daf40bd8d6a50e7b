//! The store falls back to an older state, or a key is created again.

use super::*;

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
    assert_eq!((gap.after, gap.resumed, gap.certain, gap.reason), (Some(id(5)), id(3), true, GapReason::StoreReset));
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

impl SequencerFixture {
    /// Entries with these numbers were read and delivered.
    fn with_delivered(numbers: std::ops::RangeInclusive<u64>) -> Self {
        let mut f = Self::new();
        for n in numbers {
            f.push(n, body(&n.to_string(), false));
        }
        f.read();
        f.out.clear();
        f
    }

    /// The store falls back to its first entries, and these are added.
    fn fall_back(&mut self, keep: usize, added: &[(u64, &str)]) {
        self.entries.truncate(keep);
        (self.added, self.last) = (keep as u64, self.entries.last().map_or(StreamId::ZERO, |(id, _)| *id));
        for (n, data) in added {
            self.push(*n, body(data, false));
        }
    }

    fn expect_reset(&mut self, gap: Option<Gap>, after: u64, resumed: StreamId, out: &[&str]) {
        let expect = Gap { after: Some(id(after)), resumed, certain: true, reason: GapReason::StoreReset };
        assert_eq!(gap, Some(expect));
        self.expect_out(out);
        assert!(self.read().is_none() && self.out.is_empty(), "no further gap: {:?}", self.out);
    }
}

#[test]
fn entries_that_reveal_a_store_reset_are_delivered() {
    // Entries that are left are not delivered again.
    let mut f = SequencerFixture::with_delivered(1..=9);
    f.fall_back(4, &[(6, "70"), (7, "71")]);
    let gap = f.read();
    f.expect_reset(gap, 9, id(4), &["6=70", "7=71"]);
    // A new entry may have the id of one that was lost.
    f.fall_back(2, &[(6, "72")]);
    let gap = f.read();
    f.expect_reset(gap, 7, id(4), &["6=72"]);
    // More entries are lost than are remembered.
    let mut f = SequencerFixture::with_delivered(1..=100);
    f.fall_back(50, &[(60, "70")]);
    let gap = f.read();
    f.expect_reset(gap, 100, id(60), &[]);
    let mut f = SequencerFixture::with_delivered(1..=100);
    f.fall_back(80, &[(90, "70")]);
    let gap = f.read();
    f.expect_reset(gap, 100, id(80), &["90=70"]);
}

#[test]
fn entries_after_a_store_reset_are_delivered_in_pages() {
    let mut f = SequencerFixture::with_delivered(1..=9);
    f.fall_back(1, &[(3, "74"), (4, "75"), (5, "76"), (6, "77")]);
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let page = f.page(2);
        gaps.extend(f.absorb(page));
    }
    assert_eq!(gaps.iter().map(|gap| (gap.after, gap.resumed)).collect::<Vec<_>>(), [(Some(id(9)), id(1))]);
    f.expect_out(&["3=74", "4=75", "5=76", "6=77"]);
}

/// A channel that was opened after the entry 5, and has delivered the entry 6.
fn opened_later() -> SequencerFixture {
    let mut f = SequencerFixture::new();
    f.push(5, body("5", false));
    let page = f.page(0);
    f.sequencer.open(&page);
    f.push(6, body("6", false));
    f.read();
    f.expect_out(&["6=6"]);
    f
}

#[test]
fn entries_of_a_key_that_was_created_again_are_delivered() {
    let no_stream = || Page { complete: true, ..Page::default() };
    // A read saw that the key did not exist.
    let mut f = opened_later();
    f.sequencer.begin_read();
    f.absorb(no_stream());
    f.fall_back(0, &[(1, "70"), (2, "71")]);
    let gap = f.read();
    f.expect_reset(gap, 6, StreamId::ZERO, &["1=70", "2=71"]);
    // No read saw that, but a notification names an entry before the position.
    let mut f = opened_later();
    f.fall_back(0, &[(1, "73"), (2, "70"), (3, "71")]);
    assert!(f.sequencer.notify(notification(2, "70")));
    let gap = f.read();
    f.expect_reset(gap, 6, id(2).before(), &["2=70", "3=71"]);
    // Without it, an entry before the position may be as old as the channel.
    let mut f = opened_later();
    f.fall_back(0, &[(1, "73")]);
    let gap = f.read();
    f.expect_reset(gap, 6, id(1), &[]);
    f.push(2, body("70", false));
    f.read();
    f.expect_out(&["2=70"]);
    // The key disappears before the second read.
    let mut f = SequencerFixture::with_delivered(1..=9);
    f.fall_back(3, &[]);
    let page = f.page(usize::MAX);
    assert!(f.absorb(page).is_none() && f.sequencer.is_resetting());
    f.sequencer.begin_read();
    let gap = f.absorb(no_stream()).expect("a gap");
    assert_eq!((gap.after, gap.resumed, f.sequencer.is_resetting()), (Some(id(9)), StreamId::ZERO, false));
    f.fall_back(0, &[(1, "70")]);
    f.read();
    f.expect_out(&["1=70"]);
}

#[test]
fn late_notification_of_a_delivered_entry_changes_nothing() {
    let mut f = SequencerFixture::with_delivered(1..=100);
    assert!(!f.sequencer.notify(notification(100, "late")));
    // Of an entry that is not remembered only a read knows.
    f.notify(notification(3, "late"));
    f.expect_out(&[]);
    assert!(!f.sequencer.needs_read());
    f.push(101, body("101", false));
    f.read();
    f.expect_out(&["101=101"]);
}
