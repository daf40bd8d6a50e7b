//! Losses of which the gateway does not know the extent: it never read the lost entry, or knows no earlier one that the store still has.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tidegate::event::StreamId;

use crate::client::{Sse, id_of};
use crate::harness::{Gateway, InitialPolicy};
use crate::master_change::{BUFFERS, emit_four, open_with_four, replace_tail, reset};
use crate::random_history::RandomHistory;

/// The gateway to which a client returns was started after the loss, so it has not read the lost entry.
async fn restarted(gateway: Gateway, buffer: &str) -> Gateway {
    let store = Arc::clone(&gateway.store);
    gateway.stop().await.expect("the gateway ends");
    Gateway::start_with(Some(store), &InitialPolicy::AllowAll, buffer).await
}

#[tokio::test]
async fn client_at_a_position_that_is_used_again_gets_a_gap_from_a_new_gateway() {
    for buffer in BUFFERS {
        for is_last in [true, false] {
            let case = format!("{buffer} {is_last}");
            let gateway = Gateway::start(buffer).await;
            let (mut sse, mut written) = open_with_four(&gateway).await;
            let lost = sse.last_event_id.take();
            drop(sse);
            let new = |n: usize| (written[n], Some(json!("new")));
            gateway.store.restore("c", &[(written[0], None), (written[1], None), new(2), new(3)]).await;
            if !is_last {
                gateway.store.set_clock(written[3].ms + 5_000);
                written.push(gateway.store.add("c", "e", &json!("later")).await);
            }
            let gateway = restarted(gateway, buffer).await;
            let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], lost).await;
            assert_eq!(sse.connected("c").await, written[3], "{case}");
            // What the client has received before is not known, so it gets the last minute again.
            assert_eq!(sse.gap("c").await, reset(false, None, written[0]), "{case}");
            assert_eq!(sse.ids("c", written.len()).await, written, "{case}");
            let mut sse = sse.reconnect().await;
            assert_eq!(sse.connected("c").await, written[written.len() - 1], "{case}");
            let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
            assert_eq!(sse.ids("c", 1).await, [next], "{case}");
        }
    }
}

/// A stream that has received nothing since it opened has the position of the entry that was the last one.
#[tokio::test]
async fn last_entry_at_the_start_of_a_stream_is_recognized_by_a_new_gateway() {
    for is_replaced in [true, false] {
        let gateway = Gateway::start("").await;
        let written = emit_four(&gateway).await;
        let mut sse = gateway.open("channel=c").await;
        assert_eq!(sse.connected("c").await, written[3]);
        let position = sse.last_event_id.take();
        drop(sse);
        if is_replaced {
            let new = (written[3], Some(json!("new")));
            let entries = [(written[0], None), (written[1], None), (written[2], None), new];
            gateway.store.restore("c", &entries).await;
        }
        let gateway = restarted(gateway, "").await;
        let reads = gateway.store.reads();
        let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], position.clone()).await;
        assert_eq!(sse.connected("c").await, written[3]);
        if is_replaced {
            assert_eq!(sse.gap("c").await, reset(false, None, written[0]));
            assert_eq!(sse.ids("c", 4).await, written);
        } else {
            assert_eq!(sse.last_event_id, position);
            let mut others = Vec::new();
            for _ in 0..3 {
                others.push(Sse::resume(gateway.data, "/api/realtime?channel=c", &[], position.clone()).await);
                assert_eq!(others.last_mut().expect("a stream").connected("c").await, written[3]);
            }
            assert_eq!(gateway.store.reads(), reads + 1, "the read that opens the channel compares for all");
        }
        let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
        assert_eq!(sse.ids("c", 1).await, [next]);
    }
}

/// Gateways with other limits do not read the same content.
#[tokio::test]
async fn entry_whose_content_was_not_read_is_taken_for_the_one_that_the_client_received() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let large = gateway.store.emit_stock("c", "e", &json!("x".repeat(4_000))).await;
    assert_eq!(sse.ids("c", 1).await, [large]);
    let position = sse.last_event_id.take();
    drop(sse);
    let last = gateway.store.add("c", "e", &json!("last")).await;
    let gateway = restarted(gateway, "stream.max-event-size = '1KiB'").await;
    let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], position).await;
    assert_eq!(sse.connected("c").await, large);
    assert_eq!(sse.ids("c", 1).await, [last]);
}

#[tokio::test]
async fn position_whose_entry_is_neither_there_nor_trimmed_is_a_gap() {
    let gateway = Gateway::start("").await;
    let written = emit_four(&gateway).await;
    let unknown = StreamId::new(written[1].ms + 7, 3);
    let open = async |id: StreamId| {
        let target = "/api/realtime?channel=c";
        let mut sse = Sse::open(gateway.data, target, &[("last-event-id", &*id.to_string())]).await;
        assert_eq!(sse.connected("c").await, id);
        sse
    };
    let mut sse = open(unknown).await;
    assert_eq!(sse.gap("c").await, reset(true, None, written[0]));
    assert_eq!(sse.ids("c", 4).await, written);
    // An entry is there, or was trimmed.
    assert_eq!(open(written[1]).await.ids("c", 2).await, written[2..]);
    // It may have been deleted.
    gateway.store.set_max_deleted(unknown);
    assert_eq!(open(unknown).await.gap("c").await, reset(false, None, written[0]));
    // A `cursor` that is a time looks like the id of an entry.
    let time = StreamId::new(written[1].ms + 7, 0);
    gateway.store.set_max_deleted(StreamId::ZERO);
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", time.ms)).await;
    assert_eq!(sse.connected("c").await, time);
    assert_eq!(sse.ids("c", 2).await, written[2..]);
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={time}")).await;
    assert_eq!(sse.connected("c").await, time);
    assert_eq!(sse.gap("c").await, reset(false, None, written[0]));
    assert_eq!(sse.ids("c", 4).await, written);
}

/// What a client that returns to a gateway without a memory of the lost entry gets again, in ms before its position.
const OVERLAP_MS: u64 = 60_000;

/// A client has received an entry that the store lost, and returns by its `id:`, or by `last_ack_…`, to a gateway that never read it.
async fn return_after_loss(gateway: &Gateway, id: Option<String>, ack: StreamId, by_ack: bool) -> Sse {
    match by_ack {
        true => gateway.open(&format!("channel=c&last_ack_c={ack}")).await,
        false => Sse::resume(gateway.data, "/api/realtime?channel=c", &[], id).await,
    }
}

/// A master whose clock is slow added entries before the client's position, which are delivered, with those that are at most a minute older.
#[tokio::test]
async fn entries_before_a_position_whose_entry_is_lost_are_delivered_by_a_new_gateway() {
    for buffer in BUFFERS {
        for (by_ack, is_beyond) in [(false, false), (false, true), (true, false), (true, true)] {
            let case = format!("{buffer} by ack: {by_ack}, beyond the end: {is_beyond}");
            let gateway = Gateway::start(buffer).await;
            let old = gateway.store.add("c", "e", &json!("old")).await;
            gateway.store.advance_clock(OVERLAP_MS);
            let (mut sse, written) = open_with_four(&gateway).await;
            let lost = sse.last_event_id.take();
            drop(sse);
            let mut surviving = written[..2].to_vec();
            surviving.extend(replace_tail(&gateway, &written).await);
            if !is_beyond {
                gateway.store.set_clock(written[3].ms + 5_000);
                surviving.push(gateway.store.add("c", "e", &json!("later")).await);
            }
            let gateway = restarted(gateway, buffer).await;
            let mut sse = return_after_loss(&gateway, lost.clone(), written[3], by_ack).await;
            let cursor = if is_beyond { surviving[surviving.len() - 1] } else { written[3] };
            assert_eq!(sse.connected("c").await, cursor, "{case}");
            assert!(old.ms < cursor.ms - OVERLAP_MS, "{case}");
            // An ack with the sequence 0 may be a time.
            let is_certain = is_beyond || !by_ack;
            // A client that is disconnected before it has the gap gets it when it returns.
            let mut returned = match by_ack {
                true => None,
                false => Some(return_after_loss(&gateway, sse.last_event_id.clone(), written[3], false).await),
            };
            if let Some(returned) = &mut returned {
                assert_eq!(returned.connected("c").await, cursor, "{case}");
            }
            for sse in [Some(&mut sse), returned.as_mut()].into_iter().flatten() {
                assert_eq!(sse.gap("c").await, reset(is_certain, None, surviving[0]), "{case}");
                assert_eq!(sse.ids("c", surviving.len()).await, surviving, "{case}");
            }
            // Nothing is repeated to a client that returns after it.
            let mut sse = sse.reconnect().await;
            assert_eq!(sse.connected("c").await, surviving[surviving.len() - 1], "{case}");
            let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
            assert_eq!(sse.ids("c", 1).await, [next], "{case}");
        }
    }
}

/// The gateway opened the channel on a master that was replaced, so that it knows no common entry.
#[tokio::test]
async fn entries_before_the_one_at_which_a_channel_was_opened_are_delivered() {
    for buffer in BUFFERS {
        for is_noticed in [true, false] {
            let case = format!("{buffer} {is_noticed}");
            let gateway = Gateway::start(&format!("stream.reconcile-interval = '50ms'\n{buffer}")).await;
            let old = gateway.store.add("c", "e", &json!("old")).await;
            gateway.store.advance_clock(OVERLAP_MS);
            let written = emit_four(&gateway).await;
            assert!(old.ms < written[3].ms - OVERLAP_MS);
            let mut live = gateway.open("channel=c").await;
            assert_eq!(live.connected("c").await, written[3]);
            let position = live.last_event_id.clone();
            let mut surviving = written[..2].to_vec();
            surviving.extend(replace_tail(&gateway, &written).await);
            if is_noticed {
                gateway.store.change_master();
            }
            let (_, certain, after, _) = live.gap("c").await;
            assert_eq!((certain, after), (true, None), "{case}");
            assert_eq!(live.ids("c", 4).await, surviving, "{case}");
            // A client that returns to the channel, which knows of the loss.
            let mut returned = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], position).await;
            returned.connected("c").await;
            let (_, certain, after, _) = returned.gap("c").await;
            assert_eq!((certain, after), (true, None), "{case}");
            assert_eq!(returned.ids("c", 4).await, surviving, "{case}");
            let next = gateway.store.emit_stock("c", "e", &json!("next")).await;
            for sse in [&mut live, &mut returned] {
                assert_eq!(sse.ids("c", 1).await, [next], "{case}");
            }
        }
    }
}

/// A client that returns to gateways which were started after a loss.
struct Client {
    sse: Option<Sse>,
    /// What it has received and has not been notified to be lost.
    held: BTreeMap<StreamId, Value>,
    /// What it has ever received, with the number of gaps without a common entry before.
    received: BTreeMap<(StreamId, String), usize>,
    gaps: usize,
    last: StreamId,
}

impl Client {
    /// Receives frames until this entry. Everything arrives in order, and again only after a gap without a common entry.
    async fn receive_until(&mut self, id: StreamId, data: &Value, log: &str) {
        while self.held.get(&id) != Some(data) {
            let frame = self.sse.as_mut().expect("a stream").frame().await;
            match frame["type"].as_str() {
                Some("connected") => {}
                Some("gap") => {
                    assert_eq!(frame["reason"], "store-reset", "{log}");
                    self.gaps += usize::from(frame["after"].is_null());
                    let common = frame["after"].as_str().map_or(StreamId::ZERO, |id| id.parse().expect("an id"));
                    self.held.retain(|id, _| *id <= common);
                    self.last = common;
                }
                _ => {
                    let (id, data) = (id_of(&frame), &frame["data"]);
                    assert!(id > self.last, "{id} follows {}: {log}", self.last);
                    self.last = id;
                    self.held.insert(id, data.clone());
                    let gaps = self.received.insert((id, data.to_string()), self.gaps);
                    assert!(gaps != Some(self.gaps), "{id} is repeated: {log}");
                }
            }
        }
    }
}

/// Losses of the tail, slow clocks that use ids again, changes of master, and restarts of the gateway. Each client receives what survives, in
/// order, and a gap after whatever it received that did not survive.
#[tokio::test]
async fn random_losses_and_restarts_leave_no_surviving_entry_undelivered() {
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = format!("stream.reconcile-interval = '50ms'\n{}", BUFFERS[usize::from(seed % 2 == 1)]);
        let mut gateway = Gateway::start(&options).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let sse = Some(gateway.open("channel=c&last_ack_c=0").await);
            let (held, received) = (BTreeMap::new(), BTreeMap::new());
            clients.push(Client { sse, held, received, gaps: 0, last: StreamId::ZERO });
        }
        let mut history = RandomHistory::new(seed);
        for _ in 0..10 {
            history.grow(&gateway.store, &mut rng, 1.0).await;
            let (id, data) = history.last();
            for client in &mut clients {
                if rng.random_bool(0.6) {
                    client.receive_until(id, &data, &history.log).await;
                }
            }
            if rng.random_bool(0.3) {
                continue;
            }
            // At least the first entry stays: without any, the key may have expired.
            let lost = rng.random_range(0..5).min(history.contents.len() - 1);
            let last = history.lose_tail(&gateway.store, lost).await;
            let is_restart = rng.random_bool(0.7);
            let clock = if rng.random_bool(0.6) { last.ms + 1 } else { history.greatest.ms + 50 };
            gateway.store.set_clock(clock);
            history.log += &format!(", {lost} lost, restart: {is_restart}, clock {clock}");
            gateway.store.change_master();
            if is_restart {
                // Without streams, the gateway ends at once.
                let returning = clients.iter_mut().map(|client| client.sse.take().and_then(|sse| sse.last_event_id));
                let positions: Vec<Option<String>> = returning.collect();
                gateway = restarted(gateway, &options).await;
                for (client, position) in clients.iter_mut().zip(positions) {
                    let target = "/api/realtime?channel=c&last_ack_c=0";
                    client.sse = Some(Sse::resume(gateway.data, target, &[], position).await);
                }
            }
        }
        let (last, data) = history.end(&gateway.store).await;
        let RandomHistory { log, contents, .. } = history;
        for (number, client) in clients.iter_mut().enumerate() {
            client.receive_until(last, &data, &log).await;
            let missing = contents.iter().find(|(id, data)| !client.received.contains_key(&(**id, data.to_string())));
            assert_eq!(missing, None, "an entry is missing at client {number}: {log}");
            let lost = client.held.iter().find(|(id, data)| contents.get(id) != Some(data));
            assert_eq!(lost, None, "no gap follows a lost entry at client {number}: {log}");
        }
    }
}
