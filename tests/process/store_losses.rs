//! Losses that a Redis causes itself: a restored backup, deleted keys, a restart with an empty disk. Each is found on live and quiet channels.

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};

use crate::client::Sse;
use crate::processes::{Gateway, wait_until};
use crate::redis_server::Redis;

/// A gateway that reconciles quiet channels often, with these lines in its configuration.
async fn gateway(redis: &Redis, toml: &str) -> Gateway {
    let store = redis.url();
    Gateway::start(&format!("store = \"{store}\"\nallow-all = true\nstream.reconcile-interval = '100ms'\n{toml}")).await
}

async fn add(admin: &mut MultiplexedConnection, id: &str, data: &str) {
    let mut add = cmd("XADD");
    add.arg("news").arg(id).arg(&["data", data, "event", "e", "channel", "news"]);
    let () = add.query_async(admin).await.expect("added");
}

async fn emit(admin: &mut MultiplexedConnection, id: &str, data: &str) {
    add(admin, id, data).await;
    let payload = format!(r#"{{"data":"{data}","event":"e","channel":"news","id":"{id}"}}"#);
    let () = cmd("PUBLISH").arg("news").arg(payload).query_async(admin).await.expect("published");
}

/// Emits these entries, and receives them.
async fn deliver(admin: &mut MultiplexedConnection, stream: &mut Sse, ids: &[&str]) {
    for id in ids {
        emit(admin, id, id).await;
        assert_eq!(stream.data().await, *id);
    }
}

async fn dump(admin: &mut MultiplexedConnection) -> Vec<u8> {
    cmd("DUMP").arg("news").query_async(admin).await.expect("the state")
}

async fn restore(admin: &mut MultiplexedConnection, state: &[u8]) {
    let mut restore = cmd("RESTORE");
    restore.arg("news").arg(0).arg(state).arg("REPLACE").exec_async(admin).await.expect("restored");
}

fn assert_gap(gap: &Value, certain: bool, after: Option<&str>, resumed: &str) {
    assert_eq!((&gap["type"], &gap["reason"]), (&"gap".into(), &"store-reset".into()), "{gap}");
    assert_eq!(gap["certain"], certain, "{gap}");
    assert_eq!((&gap["after"], &gap["resumed"]), (&after.into(), &resumed.into()), "{gap}");
}

#[tokio::test]
async fn restored_backup_is_found_on_a_quiet_channel() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let gateway = gateway(&redis, "").await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    deliver(&mut admin, &mut stream, &["100-0", "200-0"]).await;
    let state = dump(&mut admin).await;
    deliver(&mut admin, &mut stream, &["300-0", "400-0"]).await;
    restore(&mut admin, &state).await;
    // No message tells the gateway.
    assert_gap(&stream.frame().await, true, Some("200-0"), "200-0");
    // Others are added before the gateway looks again, and no message tells of them. Their number hides the loss.
    deliver(&mut admin, &mut stream, &["300-1", "400-1"]).await;
    let mut replace = redis::pipe();
    replace.atomic().cmd("RESTORE").arg("news").arg(0).arg(&state).arg("REPLACE");
    for id in ["250-0", "350-0", "500-0"] {
        replace.cmd("XADD").arg("news").arg(id).arg(&["data", id, "event", "e", "channel", "news"]);
    }
    let () = replace.query_async(&mut admin).await.expect("replaced");
    assert_gap(&stream.frame().await, true, Some("200-0"), "250-0");
    for id in ["250-0", "350-0", "500-0"] {
        assert_eq!(stream.data().await, id);
    }
    deliver(&mut admin, &mut stream, &["600-0"]).await;
}

#[tokio::test]
async fn entries_of_a_key_that_was_deleted_and_created_again_are_delivered() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    for (ids, is_backward) in [(["50-0", "60-0"], true), (["300-0", "400-0"], true), (["500-0", "600-0"], false)] {
        let gateway = gateway(&redis, "").await;
        let mut stream = Sse::open(gateway.data, "channel=news").await;
        stream.connected("news").await;
        deliver(&mut admin, &mut stream, &["300-0", "400-0"]).await;
        cmd("FLUSHALL").exec_async(&mut admin).await.expect("deleted");
        emit(&mut admin, ids[0], "again").await;
        let mut frame = stream.frame().await;
        if frame["type"] == "gap" {
            // Greater ids are a gap if no read saw that the key did not exist: it may have expired.
            assert_gap(&frame, is_backward, None, ids[0]);
            frame = stream.frame().await;
        } else {
            assert!(!is_backward, "{frame}");
        }
        assert_eq!((&frame["id"], &frame["data"]), (&ids[0].into(), &"again".into()));
        emit(&mut admin, ids[1], "again").await;
        assert_eq!(stream.data().await, "again");
        cmd("FLUSHALL").exec_async(&mut admin).await.expect("deleted");
    }
}

#[tokio::test]
async fn restart_with_an_empty_disk_is_a_gap_on_live_and_quiet_channels() {
    for added in [None, Some("50-0"), Some("400-0"), Some("500-0")] {
        let mut redis = Redis::start(&[]).await;
        let mut admin = redis.connect().await;
        let gateway = gateway(&redis, "").await;
        let mut stream = Sse::open(gateway.data, "channel=news").await;
        stream.connected("news").await;
        deliver(&mut admin, &mut stream, &["300-0", "400-0"]).await;
        redis.kill().await;
        redis.restart().await;
        let mut admin = redis.connect().await;
        // Others may be added before the gateway has connected again.
        if let Some(id) = added {
            add(&mut admin, id, "new").await;
        }
        let gap = stream.frame().await;
        assert_eq!((&gap["type"], &gap["reason"]), (&"gap".into(), &"store-reset".into()), "{added:?}: {gap}");
        if added.is_some() {
            assert_eq!(stream.data().await, "new");
        } else {
            assert_gap(&gap, false, None, "0-0");
        }
        deliver(&mut admin, &mut stream, &["600-0"]).await;
    }
}

/// The client reads nothing, or some entries that are lost then, and the store falls back to an older state meanwhile. The channel has read only
/// the last entry, so it does not know how many are lost: after the gap the stream begins a minute earlier, which is with the first entry.
#[tokio::test]
async fn slow_reader_receives_what_survives() {
    const KEPT: usize = 100;
    for first_read in [0, KEPT + 50] {
        let redis = Redis::start(&[]).await;
        let mut admin = redis.connect().await;
        let gateway = gateway(&redis, "stream.buffer-memory = 0").await;
        let data = "x".repeat(20_000);
        let mut state = Vec::new();
        for n in 1..=2 * KEPT {
            add(&mut admin, &format!("{n}-0"), &data).await;
            if n == KEPT {
                state = dump(&mut admin).await;
            }
        }
        let mut stream = Sse::open(gateway.data, "channel=news&last_ack_news=0").await;
        stream.connected("news").await;
        for n in 1..=first_read {
            assert_eq!(stream.frame().await["id"], format!("{n}-0"));
        }
        restore(&mut admin, &state).await;
        add(&mut admin, "150-1", "new").await;
        let (mut expected, mut gaps) = (first_read + 1, 0);
        loop {
            let frame = stream.frame().await;
            if frame["type"] == "gap" {
                assert_eq!((&frame["after"], &frame["certain"]), (&json!(null), &json!(true)), "{frame}");
                (expected, gaps) = (1, gaps + 1);
            } else if frame["data"] == "new" {
                break;
            } else {
                assert_eq!(frame["id"], format!("{expected}-0"), "each entry once and in order");
                expected += 1;
            }
        }
        assert_eq!(expected, KEPT + 1, "what survived, after a gap if more was received");
        assert!(gaps <= 1 && (first_read < KEPT || gaps == 1), "{gaps} gaps");
    }
}

/// The gateway to which the client returns was started after the loss, so only the client knows which entry it has received.
#[tokio::test]
async fn client_at_an_id_that_is_used_again_gets_a_gap_from_a_new_gateway() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    add(&mut admin, "100-0", "kept").await;
    let state = dump(&mut admin).await;
    for (has_received, replaces, is_last) in
        [(true, true, true), (true, true, false), (true, false, true), (false, true, true), (false, false, true)]
    {
        let case = format!("received: {has_received}, replaced: {replaces}, last: {is_last}");
        let first = gateway(&redis, "").await;
        restore(&mut admin, &state).await;
        if !has_received {
            add(&mut admin, "200-0", "old").await;
        }
        let mut stream = Sse::open(first.data, "channel=news").await;
        stream.connected("news").await;
        if has_received {
            deliver(&mut admin, &mut stream, &["200-0"]).await;
        }
        let position = stream.last_event_id.clone();
        assert_eq!(position.matches('-').count(), 2, "{position} has the content: {case}");
        drop((stream, first));
        if replaces {
            restore(&mut admin, &state).await;
            add(&mut admin, "200-0", "new").await;
        }
        if !is_last {
            add(&mut admin, "300-0", "later").await;
        }
        let second = gateway(&redis, "").await;
        let mut stream = Sse::open(second.data, &format!("channel=news&lastEventId={position}")).await;
        stream.connected("news").await;
        if replaces {
            assert_gap(&stream.frame().await, false, None, "100-0");
            assert_eq!((stream.data().await, stream.data().await), ("kept".into(), "new".into()), "{case}");
        } else {
            assert_eq!(stream.last_event_id, position, "{case}");
        }
        if !is_last {
            assert_eq!(stream.data().await, "later", "{case}");
        }
        emit(&mut admin, "400-0", "next").await;
        assert_eq!(stream.data().await, "next", "{case}");
    }
}

/// The number of calls of a command, also by scripts.
async fn calls(admin: &mut MultiplexedConnection, command: &str) -> u64 {
    let stats: String = cmd("INFO").arg("commandstats").query_async(admin).await.expect("statistics");
    let prefix = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&prefix)?.split(',').next()?.parse::<u64>().ok());
    count.unwrap_or(0)
}

/// Channels that are due together are compared in one step. An entry whose notification was lost is found by that.
#[tokio::test]
async fn quiet_channels_are_compared_together_and_each_change_is_found() {
    const CHANNELS: usize = 60;
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let name = |n: usize| format!("quiet-{n}");
    let add = async |admin: &mut MultiplexedConnection, n: usize, id: &str| {
        let mut add = cmd("XADD");
        let () = add.arg(name(n)).arg(id).arg(&["data", "1", "event", "e"]).query_async(admin).await.expect("added");
    };
    // The keys of the other half do not exist.
    for n in (0..CHANNELS).step_by(2) {
        add(&mut admin, n, "1-0").await;
    }
    let gateway = gateway(&redis, "stream.max-channels-per-stream = 100").await;
    let query: Vec<String> = (0..CHANNELS).map(|n| format!("channel={}", name(n))).collect();
    let mut stream = Sse::open(gateway.data, &query.join("&")).await;
    for _ in 0..CHANNELS {
        assert_eq!(stream.frame().await["type"], "connected");
    }
    let (scripts, compared) = (calls(&mut admin, "evalsha").await, calls(&mut admin, "xrange").await);
    let more = (10 * CHANNELS / 2) as u64;
    wait_until("ten reconciliations", async || calls(&mut admin, "xrange").await > compared + more).await;
    let scripts = calls(&mut admin, "evalsha").await - scripts;
    assert!(scripts < more, "each reads several channels: {scripts}");
    for n in [7, 8, 58, 59] {
        let id = format!("{}-0", 10 + n);
        add(&mut admin, n, &id).await;
        let frame = stream.frame().await;
        assert_eq!((&frame["id"], &frame["channel"]), (&id.into(), &name(n).into()), "{frame}");
    }
}

/// The state of a stream costs Redis a copy of its first and last entries.
#[tokio::test]
async fn reads_that_find_what_they_look_for_do_not_ask_for_the_state() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let gateway = gateway(&redis, "").await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    // The first entry of a stream may follow others that were trimmed.
    deliver(&mut admin, &mut stream, &["1-0"]).await;
    let before = calls(&mut admin, "xinfo|stream").await;
    assert!(before > 0);
    let ids: Vec<String> = (2..40).map(|n| format!("{n}-0")).collect();
    deliver(&mut admin, &mut stream, &ids.iter().map(|id| &**id).collect::<Vec<_>>()).await;
    // The quiet channel is reconciled.
    let reads = calls(&mut admin, "xrange").await;
    wait_until("ten reconciliations", async || calls(&mut admin, "xrange").await > reads + 10).await;
    assert_eq!(calls(&mut admin, "xinfo|stream").await, before);
    // Here entries may be missing.
    let mut trimmed = redis::pipe();
    for id in ["50-0", "51-0"] {
        trimmed.cmd("XADD").arg("news").arg("MAXLEN").arg(1).arg(id).arg(&["data", "1", "event", "e"]);
    }
    let () = trimmed.query_async(&mut admin).await.expect("added");
    let gap = stream.frame().await;
    assert_eq!((&gap["type"], &gap["reason"], &gap["resumed"]), (&"gap".into(), &"trimmed".into(), &"51-0".into()));
    assert!(calls(&mut admin, "xinfo|stream").await > before);
}
