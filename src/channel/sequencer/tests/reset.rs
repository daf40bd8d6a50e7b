//! The store falls back to an older state, or a key is created again.

use super::*;

impl SequencerFixture {
    /// Entries with these numbers were read and delivered.
    fn with_delivered(numbers: impl IntoIterator<Item = u64>) -> Self {
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
        self.add_all(added);
    }

    fn add_all(&mut self, added: &[(u64, &str)]) {
        for (n, data) in added {
            self.push(*n, body(data, false));
        }
    }

    fn remove_key(&mut self) {
        self.fall_back(0, &[]);
        self.exists = false;
    }

    fn expect_no_reset(&mut self) {
        assert_eq!(self.read(), None);
        self.expect_out(&[]);
    }

    fn expect_reset(&mut self, reset: Option<StoreReset>, expect: Expected, out: &[&str]) {
        let reset = reset.map(|reset| (reset.common.map(|common| common.ms), reset.resumed.ms, reset.certain));
        assert_eq!(reset, Some(expect));
        self.expect_out(out);
        self.expect_no_reset();
    }

    /// The numbers of lost entries that are there again.
    fn returned(&self) -> Vec<u64> {
        let ids = self.entries.iter().map(|(id, _)| *id);
        ids.filter(|id| self.sequencer.has_returned(*id)).map(|id| id.ms).collect()
    }
}

/// The last common entry, the one that follows, and whether the loss is certain.
type Expected = (Option<u64>, u64, bool);

/// The entries 10, 20, 30 and 40 were delivered; then the store changes. Checks what a read finds after a notice that another master may
/// have taken over, and without one. Returned entries are expected as delivered: each stream skips those that it has.
#[track_caller]
fn check(change: impl Fn(&mut SequencerFixture), noticed: Option<Expected>, unnoticed: Option<Expected>, out: &[&str]) {
    for (is_noticed, expect) in [(true, noticed), (false, unnoticed)] {
        let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
        change(&mut f);
        if is_noticed {
            f.sequencer.require_proof();
        }
        let reset = f.read();
        let found = reset.map(|reset| (reset.common.map(|common| common.ms), reset.resumed.ms, reset.certain));
        assert_eq!(
            (found, f.out.iter().map(|line| &**line).collect::<Vec<_>>()),
            (expect, out.to_vec()),
            "{is_noticed}"
        );
        f.out.clear();
        f.expect_no_reset();
        f.sequencer.require_proof();
        f.expect_no_reset();
        // Later entries are delivered without another gap.
        if f.exists {
            let next = f.last.ms + 100;
            f.add_all(&[(next, "1"), (next + 1, "2")]);
            assert_eq!(f.read(), None);
            f.expect_out(&[&format!("{next}=1"), &format!("{}=2", next + 1)]);
        }
    }
}

#[track_caller]
fn check_both(change: impl Fn(&mut SequencerFixture), expect: Expected, out: &[&str]) {
    check(change, Some(expect), Some(expect), out);
}

#[test]
fn unchanged_stream_is_no_reset() {
    check(|_| {}, None, None, &[]);
    check(|f| f.add_all(&[(50, "50")]), None, None, &["50=50"]);
    // Trimmed before or after the last entry.
    check(|f| f.trim(2), None, None, &[]);
    check(|f| f.trim(0), None, None, &[]);
    let trimmed = |f: &mut SequencerFixture| {
        f.add_all(&[(50, "50")]);
        f.trim(1);
    };
    check(trimmed, None, None, &["50=50"]);
}

#[test]
fn lost_tail_is_a_reset_to_the_last_common_entry() {
    check_both(|f| f.fall_back(2, &[]), (Some(20), 20, true), &[]);
    check_both(|f| f.fall_back(2, &[(25, "1")]), (Some(20), 25, true), &["25=1"]);
    check_both(|f| f.fall_back(2, &[(30, "1")]), (Some(20), 30, true), &["30=1"]);
    check_both(|f| f.fall_back(2, &[(50, "1")]), (Some(20), 50, true), &["50=1"]);
    check_both(|f| f.fall_back(0, &[(50, "1"), (60, "2")]), (None, 50, false), &["50=1", "60=2"]);
    // A stream that is trimmed to one entry.
    let trimmed = |f: &mut SequencerFixture| {
        f.fall_back(3, &[]);
        f.trim(1);
    };
    check_both(trimmed, (Some(30), 30, true), &[]);
    // Only the count reveals it.
    let trimmed = |f: &mut SequencerFixture| {
        f.fall_back(3, &[(50, "1")]);
        f.trim(1);
    };
    check_both(trimmed, (None, 50, false), &["50=1"]);
}

/// The number of entries that were ever added is the same in the end: two are lost, and a master whose clock is slow adds two others.
#[test]
fn loss_that_the_count_of_entries_does_not_reveal_is_found() {
    check_both(|f| f.fall_back(2, &[(25, "1"), (35, "2")]), (Some(20), 25, true), &["25=1", "35=2"]);
    let lost = &[(25, "1"), (35, "2"), (50, "3"), (60, "4")];
    check_both(|f| f.fall_back(2, lost), (Some(20), 25, true), &["25=1", "35=2", "50=3", "60=4"]);
    check_both(|f| f.fall_back(2, &[(50, "1"), (60, "2")]), (Some(20), 50, true), &["50=1", "60=2"]);
}

/// As long as the last entry is there, only a change of master makes the channel compare.
#[test]
fn change_before_the_last_entry_is_found_after_a_change_of_master() {
    let change = |f: &mut SequencerFixture, index: usize, keep: usize, n: u64| {
        f.entries.splice(index..index + 1 - keep, [(id(n), body("1", false))]);
    };
    for (index, keep, n, expect, out) in [
        (1, 1, 15, (Some(10), 15, true), vec!["15=1", "20=20", "30=30", "40=40"]),
        (1, 0, 20, (Some(10), 20, true), vec!["20=1", "30=30", "40=40"]),
        (0, 0, 10, (None, 10, true), vec!["10=1", "20=20", "30=30", "40=40"]),
    ] {
        let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
        change(&mut f, index, keep, n);
        f.expect_no_reset();
        f.sequencer.require_proof();
        let reset = f.read();
        f.expect_reset(reset, expect, &out);
    }
    // New entries with the ids of the lost ones.
    for keep in [0, 3] {
        let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
        f.fall_back(keep, &[(40, "1"), (41, "2")]);
        f.sequencer.require_proof();
        let reset = f.read();
        f.expect_reset(reset, ((keep > 0).then_some(30), 40, true), &["40=1", "41=2"]);
    }
    // An entry is missing that was not deleted.
    let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
    f.entries.remove(1);
    f.sequencer.require_proof();
    let reset = f.read();
    f.expect_reset(reset, (Some(10), 40, true), &["30=30", "40=40"]);
    assert_eq!(f.returned(), [30, 40]);
}

#[test]
fn deleted_entries_are_no_certain_loss() {
    let delete = |index: usize| {
        move |f: &mut SequencerFixture| {
            f.max_deleted = f.entries.remove(index).0;
        }
    };
    check(delete(1), None, None, &[]);
    check(delete(0), None, None, &[]);
    check_both(delete(3), (Some(30), 40, false), &[]);
}

#[test]
fn key_that_expired_is_no_loss_unless_another_master_may_have_lost_it() {
    check(SequencerFixture::remove_key, Some((None, 0, false)), None, &[]);
    // Created again, seen or unseen.
    for added in [[(50, "1"), (60, "2")], [(5, "1"), (60, "2")], [(5, "1"), (6, "2")], [(40, "1"), (41, "2")]] {
        let out = added.map(|(n, data)| format!("{n}={data}"));
        let out: Vec<&str> = out.iter().map(|line| &**line).collect();
        let is_after = added[0].0 > 40;
        let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
        f.remove_key();
        f.expect_no_reset();
        f.fall_back(0, &added);
        let reset = f.read();
        match is_after {
            true => assert_eq!((reset, f.out.len()), (None, 2)),
            false => f.expect_reset(reset, (None, added[0].0, true), &out),
        }
        // The key was missing at the change of master: the gap is reported once, whatever is added later.
        let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
        f.remove_key();
        f.sequencer.require_proof();
        let reset = f.read();
        f.expect_reset(reset, (None, 0, false), &[]);
        f.fall_back(0, &added);
        assert_eq!(f.read(), None);
        f.expect_out(&out);
        // No read saw that the key did not exist.
        if added[0].0 != 40 {
            check_both(|f| f.fall_back(0, &added), (None, added[0].0, !is_after), &out);
        }
    }
}

#[test]
fn entries_that_return_are_known() {
    // The same entries are added again, as by an emitter with ids of its own.
    let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
    f.fall_back(1, &[(15, "1"), (20, "20"), (30, "31"), (40, "40")]);
    let reset = f.read();
    assert_eq!(reset.map(|reset| (reset.common, reset.resumed)), None);
    f.sequencer.require_proof();
    let reset = f.read();
    f.expect_reset(reset, (Some(10), 15, true), &["15=1", "20=20", "30=31", "40=40"]);
    assert_eq!(f.returned(), [20, 40]);
    // An empty master, and then one that has them all.
    let mut f = SequencerFixture::with_delivered([10, 20, 30, 40]);
    f.remove_key();
    f.sequencer.require_proof();
    let reset = f.read();
    f.expect_reset(reset, (None, 0, false), &[]);
    f.fall_back(0, &[(10, "10"), (20, "20"), (30, "30"), (35, "1")]);
    f.sequencer.require_proof();
    assert_eq!(f.read(), None);
    f.expect_out(&["10=10", "20=20", "30=30", "35=1"]);
    assert_eq!(f.returned(), [10, 20, 30]);
}

#[test]
fn more_entries_are_lost_than_are_remembered() {
    let mut f = SequencerFixture::with_delivered(1..=200);
    f.fall_back(100, &[(120, "70")]);
    let reset = f.read();
    // Which entries are new is not known, so those of the last minute are delivered again.
    let out: Vec<String> = (1..=100).map(|n| format!("{n}={n}")).chain(["120=70".to_owned()]).collect();
    f.expect_reset(reset, (None, 120, true), &out.iter().map(|line| &**line).collect::<Vec<_>>());
    let mut f = SequencerFixture::with_delivered(1..=200);
    f.fall_back(150, &[(160, "70")]);
    let reset = f.read();
    f.expect_reset(reset, (Some(150), 160, true), &["160=70"]);
    // All that is remembered is lost, and the entry before it is left.
    let mut f = SequencerFixture::with_delivered(1..=200);
    f.fall_back(136, &[(140, "70")]);
    let reset = f.read();
    f.expect_reset(reset, (Some(136), 140, true), &["140=70"]);
}

#[test]
fn entries_are_compared_in_pages() {
    for limit in [1, 2, 3, 7, 100] {
        let mut f = SequencerFixture::with_delivered(1..=70);
        f.fall_back(67, &[(69, "1"), (70, "70"), (71, "2")]);
        f.sequencer.require_proof();
        let mut found = Vec::new();
        for _ in 0..100 {
            let page = f.page(limit);
            found.extend(f.absorb(page));
        }
        let found: Vec<_> = found.iter().map(|reset| (reset.common, reset.resumed, reset.certain)).collect();
        assert_eq!(found, [(Some(id(67)), id(69), true)], "{limit}");
        f.expect_out(&["69=1", "70=70", "71=2"]);
        assert_eq!(f.returned(), [70]);
    }
}

#[test]
fn proof_begins_again_after_another_change_of_master() {
    let mut f = SequencerFixture::with_delivered(1..=9);
    f.sequencer.require_proof();
    let page = f.page(3);
    assert_eq!(f.absorb(page), None);
    // The entries that were compared are lost.
    f.fall_back(2, &[(5, "1")]);
    f.sequencer.require_proof();
    let reset = f.read();
    f.expect_reset(reset, (Some(2), 5, true), &["5=1"]);
}

#[test]
fn entries_after_a_store_reset_are_delivered_in_pages() {
    let mut f = SequencerFixture::with_delivered(1..=9);
    f.fall_back(1, &[(3, "74"), (4, "75"), (5, "76"), (6, "77")]);
    let mut resets = Vec::new();
    for _ in 0..6 {
        let page = f.page(2);
        resets.extend(f.absorb(page));
    }
    assert_eq!(resets.iter().map(|reset| (reset.common, reset.resumed)).collect::<Vec<_>>(), [(Some(id(1)), id(3))]);
    f.expect_out(&["3=74", "4=75", "5=76", "6=77"]);
}

/// A channel that was opened after the entry 5, and has delivered the entry 6.
fn opened_later() -> SequencerFixture {
    let mut f = SequencerFixture::new();
    f.push(5, body("5", false));
    let page = f.page_of(ReadRequest::with_state(StreamId::ZERO), 0);
    f.sequencer.open(&page);
    f.push(6, body("6", false));
    f.read();
    f.expect_out(&["6=6"]);
    f
}

#[test]
fn entries_of_a_key_that_was_created_again_are_delivered() {
    // A read saw that the key did not exist.
    let mut f = opened_later();
    f.remove_key();
    f.expect_no_reset();
    f.fall_back(0, &[(1, "70"), (2, "71")]);
    let reset = f.read();
    f.expect_reset(reset, (None, 1, true), &["1=70", "2=71"]);
    // No read saw that, but a notification names an entry before the position.
    let mut f = opened_later();
    f.fall_back(0, &[(1, "72"), (2, "73"), (3, "70"), (4, "71")]);
    f.trim(3);
    assert!(f.sequencer.notify(notification(3, "70")));
    let reset = f.read();
    f.expect_reset(reset, (None, 4, true), &["2=73", "3=70", "4=71"]);
    // Without it, the stream begins elsewhere, and has all its entries.
    for first in [1, 4] {
        let mut f = opened_later();
        f.fall_back(0, &[(first, "73")]);
        let reset = f.read();
        f.expect_reset(reset, (None, first, true), &[&format!("{first}=73")]);
        f.push(first + 1, body("70", false));
        f.read();
        f.expect_out(&[&format!("{}=70", first + 1)]);
    }
    // The key disappears before it is compared.
    let mut f = SequencerFixture::with_delivered(1..=9);
    f.fall_back(3, &[]);
    let page = f.page(usize::MAX);
    assert!(f.absorb(page).is_none() && f.sequencer.needs_proof());
    f.remove_key();
    let reset = f.read();
    f.expect_reset(reset, (None, 0, false), &[]);
    f.fall_back(0, &[(1, "70")]);
    f.read();
    f.expect_out(&["1=70"]);
}

/// A stream that begins where it began, or that was trimmed, may be an older state: of its entries only those of the last minute may be new.
#[test]
fn older_entries_of_an_older_state_are_not_delivered() {
    let old = &[(1, "1"), (100_002, "2"), (100_003, "3")];
    let open = |trim: usize| {
        let mut f = SequencerFixture::new();
        f.add_all(old);
        f.add_all(&[(200_004, "4"), (200_008, "8")]);
        f.trim(trim);
        let page = f.page_of(ReadRequest::with_state(StreamId::ZERO), 0);
        f.sequencer.open(&page);
        f.add_all(&[(200_009, "9")]);
        f.read();
        f.expect_out(&["200009=9"]);
        f
    };
    let check = |trim: usize, state: &[(u64, &str)], lost: usize, expect: Expected, out: &[&str]| {
        let mut f = open(trim);
        f.fall_back(0, state);
        f.trim(state.len() - lost);
        let reset = f.read();
        f.expect_reset(reset, expect, out);
    };
    check(5, old, 0, (None, 100_003, true), &["100002=2", "100003=3"]);
    check(2, old, 0, (None, 100_003, true), &["100002=2", "100003=3"]);
    check(2, old, 2, (None, 100_003, true), &["100003=3"]);
    // Created again.
    check(2, &[(200_006, "1")], 0, (None, 200_006, true), &["200006=1"]);
    check(5, &[(2, "1"), (3, "2")], 0, (None, 2, true), &["2=1", "3=2"]);
}

#[test]
fn entry_at_which_the_channel_was_opened_is_compared() {
    for is_noticed in [true, false] {
        let mut f = SequencerFixture::new();
        f.add_all(&[(4, "4"), (5, "5")]);
        let page = f.page_of(ReadRequest::with_state(StreamId::ZERO), 0);
        f.sequencer.open(&page);
        if is_noticed {
            f.sequencer.require_proof();
            f.expect_no_reset();
            f.sequencer.require_proof();
        }
        f.fall_back(1, &[(6, "6")]);
        let reset = f.read();
        // The entry before it may be new.
        f.expect_reset(reset, (None, 6, true), &["4=4", "6=6"]);
    }
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
