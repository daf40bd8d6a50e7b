//! Losses that a change of master causes: each channel proves what it delivered, and every surviving entry is delivered once and in order.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tidegate::event::StreamId;

use crate::client::{Sse, id_of};
use crate::harness::{Gateway, wait_until};
use crate::random_history::RandomHistory;

/// With and without an event buffer: streams then read all events from the store by themselves.
pub const BUFFERS: [&str; 2] = ["", "stream.buffer-memory = 0"];

/// A stream that has received four entries, and their ids.
pub async fn open_with_four(gateway: &Gateway) -> (Sse, Vec<StreamId>) {
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let written = emit_four(gateway).await;
    assert_eq!(sse.ids("c", 4).await, written);
    (sse, written)
}

/// Four entries, a second apart.
pub async fn emit_four(gateway: &Gateway) -> Vec<StreamId> {
    let mut written = Vec::new();
    for n in 0..4 {
        gateway.store.advance_clock(1_000);
        written.push(gateway.store.emit_stock("c", "e", &json!(n)).await);
    }
    written
}

/// The store loses the last two entries, and a master whose clock is slow adds two others without notifications.
pub async fn replace_tail(gateway: &Gateway, written: &[StreamId]) -> Vec<StreamId> {
    gateway.store.lose_tail("c", 2).await;
    let mut added = Vec::new();
    for n in 0..2 {
        gateway.store.set_clock(written[1].ms + 10 + n);
        added.push(gateway.store.add("c", "e", &json!("new")).await);
    }
    assert!(written[1] < added[0] && added[1] < written[3]);
    added
}

pub fn reset(
    certain: bool,
    after: impl Into<Option<StreamId>>,
    resumed: StreamId,
) -> (String, bool, Option<StreamId>, StreamId) {
    ("store-reset".into(), certain, after.into(), resumed)
}

/// As many entries are added as were lost, so that `entries-added` is the same.
#[tokio::test]
async fn loss_that_the_count_of_entries_hides_is_found_on_a_live_channel() {
    for buffer in BUFFERS {
        for is_noticed in [true, false] {
            let gateway = Gateway::start(buffer).await;
            let (live, written) = open_with_four(&gateway).await;
            let mut replayed = gateway.open("channel=c&last_ack_c=0").await;
            replayed.connected("c").await;
            assert_eq!(replayed.ids("c", 4).await, written);
            let mut surviving = replace_tail(&gateway, &written).await;
            if is_noticed {
                gateway.store.change_master();
            }
            gateway.store.set_clock(written[3].ms + 5_000);
            for n in 0..2 {
                surviving.push(gateway.store.emit_stock("c", "e", &json!(n)).await);
            }
            let mut returned = Vec::new();
            for mut sse in [live, replayed] {
                assert_eq!(sse.gap("c").await, reset(true, written[1], surviving[0]), "{buffer} {is_noticed}");
                assert_eq!(sse.ids("c", 4).await, surviving, "{buffer} {is_noticed}");
                returned.push(sse.reconnect().await);
            }
            // A client that returns gets nothing twice.
            let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
            for mut sse in returned {
                assert_eq!(sse.connected("c").await, surviving[3]);
                assert_eq!(sse.ids("c", 1).await, [next]);
            }
        }
    }
}

#[tokio::test]
async fn loss_is_found_on_a_quiet_channel() {
    for is_noticed in [true, false] {
        // Without notice, the channel finds it when it is reconciled.
        let interval = if is_noticed { "1h" } else { "50ms" };
        let gateway = Gateway::start(&format!("stream.reconcile-interval = '{interval}'")).await;
        let (mut sse, written) = open_with_four(&gateway).await;
        gateway.store.drop_notifications();
        let added = replace_tail(&gateway, &written).await;
        if is_noticed {
            gateway.store.change_master();
        }
        assert_eq!(sse.gap("c").await, reset(true, written[1], added[0]), "noticed: {is_noticed}");
        assert_eq!(sse.ids("c", 2).await, added, "noticed: {is_noticed}");
    }
}

#[tokio::test]
async fn change_of_master_without_a_loss_is_no_gap() {
    for buffer in BUFFERS {
        let gateway = Gateway::start(buffer).await;
        let mut sse = gateway.open("channel=c").await;
        sse.connected("c").await;
        let mut written = Vec::new();
        for n in 0..100 {
            written.push(gateway.store.emit_stock("c", "e", &json!(n)).await);
            gateway.store.change_master();
            if n % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(sse.ids("c", written.len()).await, written);
        // The entries that were read are trimmed, all of them in the end.
        for keep in [50, 1, 0] {
            let id = gateway.store.add_and_trim("c", "e", &json!(keep), Some(keep + 1)).await;
            gateway.store.notify("c", id, "e", &json!(keep)).await;
            assert_eq!(sse.ids("c", 1).await, [id], "{keep}");
            gateway.store.change_master();
        }
    }
}

#[tokio::test]
async fn missing_key_is_a_gap_once_whatever_is_added_later() {
    for offset in [-10_000_i64, 0, 10_000] {
        let gateway = Gateway::start("stream.reconcile-interval = '50ms'").await;
        let (mut sse, written) = open_with_four(&gateway).await;
        gateway.store.keep_first_entries("c", 0).await;
        gateway.store.change_master();
        assert_eq!(sse.gap("c").await, reset(false, None, StreamId::ZERO));
        gateway.store.set_clock(written[3].ms.saturating_add_signed(offset));
        let mut added = Vec::new();
        for n in 0..3 {
            added.push(gateway.store.emit_stock("c", "e", &json!(n)).await);
        }
        assert_eq!(sse.ids("c", 3).await, added, "{offset}");
        let mut sse = sse.reconnect().await;
        assert_eq!(sse.connected("c").await, added[2]);
        let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
        assert_eq!(sse.ids("c", 1).await, [next]);
    }
}

/// The page was read from the old master, which has lost its entry when it arrives.
#[tokio::test]
async fn page_that_straddles_a_change_of_master_is_not_delivered() {
    for buffer in BUFFERS {
        let gateway = Gateway::start(buffer).await;
        let (mut sse, _) = open_with_four(&gateway).await;
        let reads = gateway.store.reads();
        let held = gateway.store.hold_pages().await;
        let lost = gateway.store.emit_stock("c", "e", &json!("lost")).await;
        wait_until("the entry is read", || gateway.store.reads() > reads).await;
        tokio::task::yield_now().await;
        gateway.store.lose_tail("c", 1).await;
        gateway.store.change_master();
        // The next read, which compares, waits until the streams had time to send the page.
        let mut hold = std::pin::pin!(gateway.store.hold_reads());
        assert!(hold.as_mut().now_or_never().is_none(), "a read is in flight");
        drop(held);
        let held = hold.await;
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        drop(held);
        gateway.store.set_clock(lost.ms + 10);
        let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
        // No client has received the lost entry, so there is no gap.
        assert_eq!(sse.ids("c", 1).await, [next], "{buffer}");
    }
}

/// A replay of a reconnecting client.
#[tokio::test]
async fn replay_page_that_straddles_a_change_of_master_is_read_again() {
    let gateway = Gateway::start("stream.buffer-memory = 0").await;
    let (mut sse, written) = open_with_four(&gateway).await;
    let reads = gateway.store.reads();
    let held = gateway.store.hold_pages().await;
    let mut replay = gateway.open("channel=c&last_ack_c=0").await;
    replay.connected("c").await;
    wait_until("the replay has read", || gateway.store.reads() > reads).await;
    let added = replace_tail(&gateway, &written).await;
    gateway.store.change_master();
    drop(held);
    assert_eq!(replay.ids("c", 4).await, [&written[..2], &added].concat());
    assert_eq!(sse.gap("c").await, reset(true, written[1], added[0]));
    assert_eq!(sse.ids("c", 2).await, added);
}

/// A replay finds what the channel has not noticed yet.
#[tokio::test]
async fn replay_that_contradicts_the_channel_makes_it_compare() {
    let gateway = Gateway::start("stream.buffer-memory = 0\nstream.reconcile-interval = '1h'").await;
    let (mut sse, written) = open_with_four(&gateway).await;
    let added = replace_tail(&gateway, &written).await;
    let mut replay = gateway.open("channel=c&last_ack_c=0").await;
    replay.connected("c").await;
    assert_eq!(replay.ids("c", 4).await, [&written[..2], &added].concat());
    assert_eq!(sse.gap("c").await, reset(true, written[1], added[0]));
    assert_eq!(sse.ids("c", 2).await, added);
    // Nothing is repeated to the stream that has read the new entries before the channel did.
    let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
    for sse in [&mut sse, &mut replay] {
        assert_eq!(sse.ids("c", 1).await, [next]);
    }
}

/// Entries after the first lost one survive, so they are delivered to streams that have not received them only.
#[tokio::test]
async fn surviving_entries_are_not_repeated() {
    for buffer in BUFFERS {
        let gateway = Gateway::start(buffer).await;
        let (mut first, written) = open_with_four(&gateway).await;
        let inserted = StreamId::new(written[0].ms + 1, 0);
        let entries = [(written[0], None), (inserted, Some(json!("new"))), (written[1], None), (written[3], None)];
        gateway.store.restore("c", &entries).await;
        gateway.store.change_master();
        assert_eq!(first.gap("c").await, reset(true, written[0], inserted), "{buffer}");
        assert_eq!(first.ids("c", 1).await, [inserted], "{buffer}");
        let mut second = gateway.open(&format!("channel=c&last_ack_c={}", written[0])).await;
        second.connected("c").await;
        assert_eq!(second.ids("c", 3).await, [inserted, written[1], written[3]], "{buffer}");
        let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
        for sse in [&mut first, &mut second] {
            assert_eq!(sse.ids("c", 1).await, [next], "{buffer}");
        }
    }
}

#[tokio::test]
async fn client_at_a_lost_position_continues_after_the_last_common_entry() {
    for buffer in BUFFERS {
        let gateway = Gateway::start(buffer).await;
        let (mut sse, written) = open_with_four(&gateway).await;
        let lost = sse.last_event_id.clone();
        let added = replace_tail(&gateway, &written).await;
        gateway.store.set_clock(written[3].ms + 5_000);
        gateway.store.change_master();
        let last = gateway.store.emit_stock("c", "e", &json!("last")).await;
        sse.gap("c").await;
        assert_eq!(sse.ids("c", 3).await, [added[0], added[1], last]);
        // It was disconnected when the store was reset.
        let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], lost).await;
        assert_eq!(sse.connected("c").await, written[1], "{buffer}");
        assert_eq!(sse.gap("c").await, reset(true, written[1], added[0]), "{buffer}");
        assert_eq!(sse.ids("c", 3).await, [added[0], added[1], last], "{buffer}");
    }
}

/// A new entry has the id of the one that a client has received last.
#[tokio::test]
async fn client_at_a_position_that_is_used_again_gets_a_gap() {
    for buffer in BUFFERS {
        let gateway = Gateway::start(buffer).await;
        let (mut sse, written) = open_with_four(&gateway).await;
        let lost = sse.last_event_id.clone();
        let entries = [(written[0], None), (written[1], None), (written[2], None), (written[3], Some(json!("new")))];
        gateway.store.restore("c", &entries).await;
        gateway.store.change_master();
        assert_eq!(sse.gap("c").await, reset(true, written[2], written[3]), "{buffer}");
        assert_eq!(sse.ids("c", 1).await, written[3..], "{buffer}");
        // It was disconnected when the store was reset.
        let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], lost).await;
        assert_eq!(sse.connected("c").await, written[2], "{buffer}");
        assert_eq!(sse.gap("c").await, reset(true, written[2], written[3]), "{buffer}");
        assert_eq!(sse.ids("c", 1).await, written[3..], "{buffer}");
        // A client that has received the new entry gets nothing again.
        let mut sse = sse.reconnect().await;
        assert_eq!(sse.connected("c").await, written[3], "{buffer}");
        let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
        assert_eq!(sse.ids("c", 1).await, [next], "{buffer}");
        // Without the content it is not known which of the two a client has received.
        let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", written[3])).await;
        assert_eq!(sse.connected("c").await, written[2], "{buffer}");
        assert_eq!(sse.gap("c").await, reset(false, written[2], written[3]), "{buffer}");
        assert_eq!(sse.ids("c", 2).await, [written[3], next], "{buffer}");
    }
}

/// A replay reads an entry before the channel does, and the store loses it.
#[tokio::test]
async fn entry_that_a_replay_delivered_first_is_followed_by_a_gap() {
    let gateway = Gateway::start("stream.buffer-memory = 0\nstream.reconcile-interval = '1h'").await;
    let (_live, written) = open_with_four(&gateway).await;
    gateway.store.drop_notifications();
    let lost = gateway.store.add("c", "e", &json!("lost")).await;
    let mut replay = gateway.open("channel=c&last_ack_c=0").await;
    replay.connected("c").await;
    assert_eq!(replay.ids("c", 5).await, [&written[..], &[lost]].concat());
    gateway.store.lose_tail("c", 1).await;
    gateway.store.set_clock(lost.ms + 10);
    let next = gateway.store.add("c", "e", &json!("next")).await;
    gateway.store.change_master();
    assert_eq!(replay.gap("c").await, reset(true, written[3], next));
    assert_eq!(replay.ids("c", 1).await, [next]);
}

/// A client of a channel.
struct Client {
    sse: Sse,
    /// What it has received and has not been notified to be lost.
    held: BTreeMap<StreamId, Value>,
    received: BTreeSet<(StreamId, String)>,
    last: StreamId,
}

impl Client {
    /// Receives frames until this entry. Everything arrives in order and once.
    async fn receive_until(&mut self, id: StreamId, data: &Value, log: &str) {
        while self.held.get(&id) != Some(data) {
            let frame = self.sse.frame().await;
            if frame["type"] == "gap" {
                assert_eq!(frame["reason"], "store-reset", "{log}");
                let common = frame["after"].as_str().map_or(StreamId::ZERO, |id| id.parse().expect("an id"));
                self.held.retain(|id, _| *id <= common);
                self.last = common;
            } else {
                let id = id_of(&frame);
                assert!(id > self.last, "{id} follows {}: {log}", self.last);
                self.last = id;
                self.held.insert(id, frame["data"].clone());
                assert!(self.received.insert((id, frame["data"].to_string())), "{id} is repeated: {log}");
            }
        }
    }
}

/// Emits, losses of the tail, slow clocks, and changes of master that the hub notices or not. Each client receives what survives,
/// once and in order, and a gap after whatever it received that did not survive.
#[tokio::test]
async fn random_losses_are_followed_by_a_gap_and_surviving_entries_are_delivered_once() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    for seed in 0..16 {
        let mut rng = StdRng::seed_from_u64(seed);
        let buffer = BUFFERS[usize::from(seed % 2 == 1)];
        let gateway = Gateway::start(&format!("stream.reconcile-interval = '50ms'\n{buffer}")).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut sse = gateway.open("channel=c").await;
            sse.connected("c").await;
            clients.push(Client { sse, held: BTreeMap::new(), received: BTreeSet::new(), last: StreamId::ZERO });
        }
        let mut history = RandomHistory::new(seed);
        for _ in 0..12 {
            history.grow(&gateway.store, &mut rng, 0.7).await;
            // Some clients receive everything before the next loss.
            let (id, data) = history.last();
            for client in &mut clients {
                if rng.random_bool(0.6) {
                    client.receive_until(id, &data, &history.log).await;
                }
            }
            if rng.random_bool(0.5) {
                let lost = rng.random_range(1..5);
                let last = history.lose_tail(&gateway.store, lost).await;
                // The id of a lost entry is used again only if the hub notices: an entry is recognized by its id.
                let is_noticed = rng.random_bool(0.5);
                let is_slow_clock = is_noticed && rng.random_bool(0.6);
                let clock = if is_slow_clock { last.ms + 1 } else { history.greatest.ms + 50 };
                gateway.store.set_clock(clock);
                history.log += &format!(", {lost} lost, noticed: {is_noticed}, slow clock: {is_slow_clock}");
                if is_noticed {
                    gateway.store.change_master();
                }
            }
        }
        let (last, data) = history.end(&gateway.store).await;
        let RandomHistory { log, contents, .. } = history;
        for client in &mut clients {
            client.receive_until(last, &data, &log).await;
            assert!(
                contents.iter().all(|entry| client.held.get(entry.0) == Some(entry.1)),
                "an entry is missing: {log}"
            );
            let lost = client.held.iter().find(|(id, data)| contents.get(id) != Some(data));
            assert_eq!(lost, None, "no gap follows a lost entry: {log}");
        }
    }
}
