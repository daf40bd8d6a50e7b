//! Histories that break each rule, and ones that break none.

#![allow(clippy::expect_used, reason = "a broken expectation is a failed test")]

use super::*;
use crate::faults::history::{GatewayFault, Record, Way};

fn id(ms: u64) -> Id {
    Id { ms, seq: 0 }
}

fn event(ms: u64, token: Token) -> Item {
    Item::Event { channel: 0, id: id(ms), token }
}

fn connected(ms: u64) -> Item {
    Item::Connected { channel: 0, cursor: id(ms) }
}

fn reset(after: Option<u64>, resumed: u64) -> Item {
    let gap = Gap { after: after.map(id), resumed: id(resumed), certain: true, reason: Reason::StoreReset };
    Item::Gap { channel: 0, gap }
}

fn open() -> Item {
    Item::Open { gateway: 0 }
}

fn closed(end: End) -> Item {
    Item::Closed { gateway: 0, began: 1, end }
}

/// A run on one channel: entry `10 + n` is emit `n`; the first two survived, and the third was acknowledged and lost.
fn evidence() -> Evidence {
    let emit =
        |n: u64| Emit { channel: 0, way: Way::Direct, began: 5, ended: 6, outcome: Outcome::Acknowledged(id(10 + n)) };
    Evidence {
        emits: (0..4).map(emit).collect(),
        surviving: vec![vec![(id(10), 0), (id(11), 1), (id(13), 3)]],
        gateway_faults: Vec::new(),
        durable: false,
    }
}

fn history(items: Vec<Item>) -> History {
    let records = items.into_iter().zip(1..).map(|(item, at)| Record { at, item });
    History { channels: vec![0], slow: false, by_ack: false, records: records.collect() }
}

fn broken(items: Vec<Item>) -> Vec<Rule> {
    broken_by(items, &evidence())
}

fn broken_by(items: Vec<Item>, evidence: &Evidence) -> Vec<Rule> {
    check(&[history(items)], evidence).1.into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn complete_histories_break_no_rule() {
    let complete = vec![open(), connected(0), event(10, 0), event(11, 1), event(13, 3)];
    assert_eq!(broken(complete), []);
    // The lost entry was delivered, and a gap goes back before it.
    for gap in [reset(Some(11), 11), reset(Some(11), 12), reset(None, 12)] {
        let items = vec![open(), connected(0), event(10, 0), event(11, 1), event(12, 2), gap, event(13, 3)];
        assert_eq!(broken(items), []);
    }
    // No common entry is known, and `resumed` is the next entry.
    let items = vec![open(), connected(0), event(10, 0), event(11, 1), event(12, 2), reset(None, 13), event(13, 3)];
    assert_eq!(broken(items), []);
    let items = vec![open(), connected(0), event(12, 2), reset(None, 10), event(10, 0), event(11, 1), event(13, 3)];
    assert_eq!(broken(items), []);
    // The client connects after the first entry, and reconnects in the middle.
    let items = vec![open(), connected(10), event(11, 1), closed(End::Client), open(), connected(11), event(13, 3)];
    let mut evidence = evidence();
    evidence.emits[0].began = 0;
    assert_eq!(broken_by(items, &evidence), []);
}

#[test]
fn repeated_entry_is_found() {
    let items = vec![open(), connected(0), event(10, 0), event(11, 1), event(11, 1), event(13, 3)];
    assert_eq!(broken(items), [Rule::Repeated]);
    // Also after a gap: an entry that survived is not repeated.
    let items = vec![open(), connected(0), event(10, 0), event(11, 1), reset(Some(10), 11), event(11, 1), event(13, 3)];
    assert_eq!(broken(items), [Rule::Repeated]);
}

#[test]
fn entry_that_was_lost_and_restored_is_not_repeated() {
    let with = |gaps: &[Item]| {
        let mut items = vec![open(), connected(0), event(10, 0), event(11, 1)];
        items.extend_from_slice(gaps);
        items.extend([event(11, 1), event(13, 3)]);
        items
    };
    // The stream ended at `after`, or went on after the entry, or there were two resets.
    for gaps in [vec![reset(Some(10), 10)], vec![reset(Some(10), 12)], vec![reset(Some(10), 11), reset(Some(10), 11)]] {
        assert_eq!(broken(with(&gaps)), []);
        assert_eq!(check(&[history(with(&gaps))], &evidence()).0.returned, 1);
    }
    assert_eq!(broken(with(&[reset(Some(10), 11)])), [Rule::Repeated], "the entry was there");
}

#[test]
fn entries_of_the_last_minute_are_repeated_after_a_gap_without_a_common_entry() {
    let base = 100_000;
    let mut evidence = evidence();
    let ids = [base - 60_001, base - 60_000, base - 1, base];
    for (emit, ms) in evidence.emits.iter_mut().zip(ids) {
        emit.outcome = Outcome::Acknowledged(id(ms));
    }
    evidence.surviving[0] = ids.iter().zip(0..).map(|(ms, token)| (id(*ms), token)).collect();
    let all: Vec<Item> = ids.iter().zip(0..).map(|(ms, token)| event(*ms, token)).collect();
    let with =
        |gap: Item, from: usize| [vec![open(), connected(0)], all.clone(), vec![gap], all[from..].to_vec()].concat();
    for resumed in [base - 60_000, base, base + 9] {
        assert_eq!(broken_by(with(reset(None, resumed), 1), &evidence), [], "{resumed}");
    }
    assert_eq!(broken_by(with(reset(None, base), 0), &evidence), [Rule::Repeated], "before the window");
    assert_eq!(broken_by(with(reset(Some(base - 60_001), base - 60_000), 1), &evidence), [Rule::Repeated; 3]);
    // The key was gone.
    assert_eq!(broken_by(with(reset(None, 0), 0), &evidence), []);
    // Each gap announces one repeat.
    let items = [with(reset(None, base), 1), all[1..].to_vec()].concat();
    assert_eq!(broken_by(items, &evidence), [Rule::Repeated; 3]);
}

/// An ack does not have the content of the entry.
#[test]
fn id_that_is_used_again_is_not_recognized_by_its_ack() {
    let mut evidence = evidence();
    evidence.emits[3].outcome = Outcome::Acknowledged(id(12));
    evidence.surviving[0][2] = (id(12), 3);
    let items = vec![open(), connected(0), event(10, 0), event(12, 2), closed(End::Client), open(), connected(12)];
    let broken = |items: Vec<Item>, by_ack: bool| {
        let (figures, violations) = check(&[History { by_ack, ..history(items) }], &evidence);
        (violations.into_iter().map(|violation| violation.rule).collect::<Vec<_>>(), figures.unrecognized)
    };
    assert_eq!(broken(items.clone(), true), (vec![], 3));
    let rules = vec![Rule::LossWithoutGap, Rule::Missing, Rule::Missing];
    assert_eq!(broken(items.clone(), false), (rules.clone(), 0), "its `id:` has the content");
    // It did not return with the id.
    assert_eq!(broken(items[..5].to_vec(), true), (rules, 0));
}

#[test]
fn entry_in_wrong_order_is_found() {
    let items = vec![open(), connected(0), event(11, 1), event(10, 0), event(13, 3)];
    assert_eq!(broken(items), [Rule::OutOfOrder]);
}

#[test]
fn missing_entry_is_found_also_within_a_gap() {
    let items = vec![open(), connected(0), event(10, 0), event(13, 3)];
    assert_eq!(broken(items), [Rule::Missing]);
    let items = vec![open(), connected(0), event(10, 0), reset(Some(10), 12), event(13, 3)];
    assert_eq!(broken(items), [Rule::Missing]);
    assert_eq!(broken(vec![open()]), [Rule::Missing], "the channel was never connected");
}

#[test]
fn new_entry_before_the_start_of_a_client_is_missing() {
    let mut evidence = evidence();
    let items = vec![open(), connected(13)];
    evidence.emits[3].began = 3;
    assert_eq!(broken_by(items.clone(), &evidence), [Rule::Missing; 3], "all are emitted after the client connected");
    for emit in &mut evidence.emits {
        emit.began = 0;
    }
    assert_eq!(broken_by(items, &evidence), []);
}

#[test]
fn loss_without_gap_is_found() {
    let with = |after: Vec<Item>| {
        let mut items = vec![open(), connected(0), event(10, 0), event(11, 1), event(12, 2)];
        items.extend(after);
        items
    };
    assert_eq!(broken(with(vec![event(13, 3)])), [Rule::LossWithoutGap]);
    // A gap of another reason does not report it.
    let gap = Gap { after: Some(id(11)), resumed: id(13), certain: true, reason: Reason::UnknownPosition };
    let unknown = Item::Gap { channel: 0, gap };
    assert_eq!(broken(with(vec![unknown, event(13, 3)])), [Rule::LossWithoutGap]);
    // A gap that begins after the lost entry does not report it.
    assert_eq!(broken(with(vec![reset(Some(12), 12), event(13, 3)])), [Rule::LossWithoutGap]);
    let (figures, violations) = check(&[history(with(vec![reset(None, 12), event(13, 3)]))], &evidence());
    assert_eq!((figures.lost_deliveries, violations.len()), (1, 0));
    // A gap that came before the entry does not report it.
    let items = vec![open(), connected(0), event(10, 0), event(11, 1), reset(Some(11), 11), event(12, 2), event(13, 3)];
    assert_eq!(broken(items), [Rule::LossWithoutGap]);
}

#[test]
fn entry_with_the_id_of_a_lost_one_is_another_entry() {
    let mut evidence = evidence();
    evidence.emits[3].outcome = Outcome::Acknowledged(id(12));
    evidence.surviving[0][2] = (id(12), 3);
    let items = vec![open(), connected(0), event(10, 0), event(11, 1), event(12, 2)];
    assert_eq!(broken_by(items.clone(), &evidence), [Rule::LossWithoutGap, Rule::Missing]);
    let items = [items, vec![reset(Some(11), 11), event(12, 3)]].concat();
    assert_eq!(broken_by(items, &evidence), []);
}

#[test]
fn event_that_was_not_emitted_is_found() {
    let complete = |token| {
        vec![open(), connected(0), event(10, 0), event(11, 1), event(12, token), reset(Some(11), 11), event(13, 3)]
    };
    assert_eq!(broken(complete(9)), [Rule::Forged]);
    let mut evidence = evidence();
    evidence.emits[2].channel = 1;
    assert_eq!(broken_by(complete(2), &evidence), [Rule::Forged]);
}

#[test]
fn doubled_and_lost_emits_are_found() {
    let mut evidence = evidence();
    evidence.durable = true;
    let items = vec![open(), connected(20)];
    let starts_late = |mut evidence: Evidence| {
        evidence.emits.iter_mut().for_each(|emit| emit.began = 0);
        evidence
    };
    assert_eq!(broken_by(items.clone(), &starts_late(evidence.clone())), [Rule::Lost]);
    evidence.surviving[0].insert(2, (id(12), 2));
    assert_eq!(broken_by(items.clone(), &starts_late(evidence.clone())), []);
    evidence.surviving[0].push((id(14), 3));
    assert_eq!(broken_by(items, &starts_late(evidence)), [Rule::Doubled, Rule::Forged]);
}

#[test]
fn stream_that_a_healthy_gateway_ends_is_found() {
    let items = |end| vec![open(), connected(13), closed(end)];
    let mut evidence = evidence();
    evidence.emits.iter_mut().for_each(|emit| emit.began = 0);
    let ends = [
        End::Stream { reconnect: true },
        End::Broken("reset".into()),
        End::Refused("refused".into()),
        End::Status(503),
        End::Silent,
    ];
    for end in ends.clone() {
        assert_eq!(broken_by(items(end), &evidence), [Rule::StreamEnded]);
    }
    evidence.gateway_faults =
        vec![GatewayFault { gateway: 1, from: 0, until: 9 }, GatewayFault { gateway: 0, from: 4, until: 9 }];
    assert_eq!(broken_by(items(End::Silent), &evidence), [Rule::StreamEnded], "another gateway, or later");
    evidence.gateway_faults.push(GatewayFault { gateway: 0, from: 2, until: 2 });
    for end in ends {
        assert_eq!(broken_by(items(end), &evidence), []);
    }
}

#[test]
fn frames_in_a_wrong_place_are_found() {
    let items = vec![open(), connected(13), connected(13), closed(End::Client), open(), event(14, 9)];
    let mut evidence = evidence();
    evidence.emits.iter_mut().for_each(|emit| emit.began = 0);
    let rules: HashSet<Rule> = broken_by(items, &evidence).into_iter().collect();
    assert_eq!(rules, HashSet::from([Rule::Protocol, Rule::Forged, Rule::LossWithoutGap]));
}
