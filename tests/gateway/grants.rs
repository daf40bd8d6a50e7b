//! Grants: channels, expiry and replay limits.

use std::time::Duration;

use serde_json::json;
use tidegate::event::StreamId;
use tidegate::stream::registry::EndReason;
use tidegate::util::clock::now_ms;

use crate::client::{Sse, id_of};
use crate::guests;
use crate::harness::{Gateway, wait_until};
use crate::sandbox_limits::REALLOC;

/// A policy that allows all requests with this grant.
#[derive(Default)]
pub struct GrantTemplate {
    pub channels: Option<&'static [&'static str]>,
    /// In ms from the decision.
    pub expires_in: Option<u64>,
    pub replay_since: Option<u64>,
}

impl GrantTemplate {
    pub fn component(&self) -> Vec<u8> {
        let names = self.channels.unwrap_or_default();
        let mut list = String::new();
        let mut texts = String::new();
        let mut at = 1024;
        for name in names {
            list += &format!("{at} {} ", name.len());
            texts += &format!("(data (i32.const {at}) \"{name}\")\n");
            at += name.len();
        }
        let some = u32::from(self.channels.is_some());
        let expires = self.expires_in.map_or(String::new(), |ms| {
            format!("(i64.store (i32.const 96) (i64.const 1)) (i64.store (i32.const 104) (i64.add (call $now) (i64.const {ms})))")
        });
        let since = self.replay_since.map_or(String::new(), |ms| format!("(call $since (i64.const {ms}))"));
        // ok, and the grant: subject, channels, expires-at, headers
        guests::authorizer(&format!(
            r#"(module
  (import "tidegate:policy/context@0.1.0" "now" (func $now (result i64)))
  (import "tidegate:policy/answer@0.1.0" "replay-since" (func $since (param i64)))
  (memory (export "memory") 17)
  (data (i32.const 64) (i32 0 0) (i32 0 0 0) (i32 {some} 512 {count}) (i64 0 0) (i32 0 0))
  (data (i32.const 512) (i32 {list}))
  {texts}
  {REALLOC}
  (func (export "tidegate:policy/authorizer@0.1.0#authorize")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    {expires} {since}
    (i32.const 64)))"#,
            count = names.len(),
        ))
    }
}

#[tokio::test]
async fn stream_ends_with_reconnect_before_its_grant_expires() {
    let policy = GrantTemplate { expires_in: Some(2_000), ..GrantTemplate::default() }.component();
    let gateway = Gateway::with_policy(&policy, "").await;
    let requested = now_ms();
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut sse = gateway.open("channel=c").await;
        sse.connected("c").await;
        streams.push(sse);
    }
    let connected = now_ms();
    for sse in &mut streams {
        assert_eq!(sse.frame().await["type"], "reconnect");
        assert!(sse.next().await.is_none());
        let now = now_ms();
        assert!(now >= requested + 1_700, "the stream ended too early: {} ms after its request", now - requested);
        assert!(now <= connected + 2_100, "the stream ended too late: {} ms after it connected", now - connected);
    }
    wait_until("the streams have ended", || gateway.app.streams.count() == 0).await;
    // A client that reconnects receives the events that it missed.
    let missed = gateway.store.emit_stock("c", "e", &json!(2)).await;
    let mut sse = streams.pop().expect("one of five").reconnect().await;
    sse.connected("c").await;
    assert_eq!(sse.ids("c", 1).await, [missed]);
}

#[tokio::test]
async fn grant_with_a_very_late_expiry_is_valid() {
    for expires_in in [31_536_000_000_000, u64::MAX >> 2] {
        let policy = GrantTemplate { expires_in: Some(expires_in), ..GrantTemplate::default() }.component();
        let gateway = Gateway::with_policy(&policy, "").await;
        let mut sse = gateway.open("channel=c").await;
        sse.connected("c").await;
        let id = gateway.store.emit_stock("c", "e", &json!(1)).await;
        assert_eq!(sse.ids("c", 1).await, [id]);
    }
}

#[tokio::test]
async fn stalled_client_is_disconnected_when_its_grant_expires() {
    let policy = GrantTemplate { expires_in: Some(1_000), ..GrantTemplate::default() }.component();
    let gateway = Gateway::with_policy(&policy, "").await;
    let sse = Sse::open_with(gateway.data, "/api/realtime?channel=c", &[], Some(4096)).await;
    for _ in 0..3_000 {
        gateway.store.emit_own("c", "e", &json!("x".repeat(4096))).await;
        tokio::task::yield_now().await;
    }
    wait_until("the connection is closed", || gateway.app.streams.count() == 0).await;
    assert_eq!(gateway.app.streams.ended(EndReason::Expired), 1);
    drop(sse);
}

#[tokio::test]
async fn stream_with_short_grants_loses_no_events() {
    let policy = GrantTemplate { expires_in: Some(300), ..GrantTemplate::default() }.component();
    let gateway = Gateway::with_policy(&policy, "").await;
    let store = gateway.store.clone();
    let emitting = tokio::spawn(async move {
        let mut ids = Vec::new();
        for n in 0..150 {
            ids.push(store.emit_stock("c", "e", &json!(n)).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ids
    });
    let mut sse = gateway.open("channel=c&last_ack_c=0").await;
    let (mut received, mut grants) = (Vec::new(), 0);
    while received.len() < 150 {
        match sse.next().await {
            Some(frame) if frame["type"] == "connected" => grants += 1,
            Some(frame) if frame["type"] == "reconnect" => assert!(sse.next().await.is_none()),
            Some(frame) => received.push(id_of(&frame)),
            None => panic!("the stream ended without a reconnect frame"),
        }
        if received.len() < 150 && sse.is_over() {
            sse = sse.reconnect().await;
        }
    }
    assert_eq!(received, emitting.await.expect("no panic"));
    assert!(grants > 3, "{grants}");
}

#[tokio::test]
async fn stream_ends_at_the_earlier_of_expiry_and_rotation() {
    for (expires_in, window, reason) in [(500, "1h", EndReason::Expired), (3_600_000, "0s", EndReason::Rotated)] {
        let policy = GrantTemplate { expires_in: Some(expires_in), ..GrantTemplate::default() }.component();
        let gateway = Gateway::with_policy(&policy, &format!("policy.rotation-window = \"{window}\"")).await;
        let mut sse = gateway.open("channel=c").await;
        sse.connected("c").await;
        gateway.activate(&guests::component("allow")).await.expect("it loads");
        assert_eq!(sse.frame().await["type"], "reconnect");
        assert!(sse.next().await.is_none());
        let ended = EndReason::ALL.map(|reason| (reason, gateway.app.streams.ended(reason)));
        assert_eq!(ended.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [&(reason, 1)]);
    }
}

#[tokio::test]
async fn only_granted_channels_are_opened() {
    let policy = GrantTemplate { channels: Some(&["b", "d"]), ..GrantTemplate::default() }.component();
    let gateway = Gateway::with_policy(&policy, "").await;
    for name in ["a", "b", "c", "d"] {
        gateway.store.add(name, "e", &json!("old")).await;
    }
    let query = "channel=a&channel=b&channel=c&channel=d&last_ack_a=0&last_ack_b=0";
    let mut sse = gateway.open(query).await;
    let mut frames = Vec::new();
    for _ in 0..3 {
        frames.push(sse.frame().await["channel"].to_string());
    }
    frames.sort();
    assert_eq!(frames, ["\"b\"", "\"b\"", "\"d\""]);
    assert_eq!(gateway.store.subscribed_channels(), ["b", "d"]);
    gateway.store.emit_stock("a", "e", &json!("not granted")).await;
    gateway.store.emit_stock("c", "e", &json!("not granted")).await;
    let live = gateway.store.emit_stock("d", "e", &json!("live")).await;
    assert_eq!(sse.ids("d", 1).await, [live]);
    // The id that the client sends back still refers to the channel list of the URL.
    let missed = gateway.store.emit_stock("b", "e", &json!("missed")).await;
    let mut sse = sse.reconnect().await;
    for _ in 0..3 {
        let frame = sse.frame().await;
        assert!(frame["type"] == "connected" || frame["id"] == missed.to_string(), "{frame}");
    }
    let live = gateway.store.emit_stock("d", "e", &json!("live")).await;
    assert_eq!(sse.ids("d", 1).await, [live]);
}

#[tokio::test]
async fn replay_starts_no_earlier_than_the_policy_allows() {
    use crate::faulty_store::START;
    let policy = GrantTemplate { replay_since: Some(START + 100), ..GrantTemplate::default() }.component();
    let gateway = Gateway::with_policy(&policy, "").await;
    let add = async || gateway.store.add_fields("c", &[("event", "e"), ("data", "1")], None).await;
    let old = add().await;
    gateway.store.advance_clock(99);
    let too_early = add().await;
    gateway.store.advance_clock(1);
    let mut allowed = vec![add().await, add().await];
    gateway.store.advance_clock(50);
    allowed.push(add().await);
    assert_eq!(allowed[0], StreamId::new(START + 100, 0));
    let mut ids = vec![None];
    let mut first = gateway.open("channel=c").await;
    first.connected("c").await;
    for ack in ["0".to_owned(), old.to_string(), too_early.to_string(), START.to_string(), (START + 99).to_string()] {
        let target = format!("/api/realtime?channel=c&last_ack_c={ack}");
        for id in &ids {
            let mut sse = Sse::resume(gateway.data, &target, &[], id.clone()).await;
            assert!(sse.connected("c").await < allowed[0]);
            assert_eq!(sse.ids("c", 3).await, allowed, "{ack}, {id:?}");
        }
    }
    // A position in `Last-Event-ID` does not extend the replay.
    let forged = first.last_event_id.clone().map(|id| format!("{}:1-0", id.split(':').next().expect("a tag")));
    ids = vec![forged];
    let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], ids.remove(0)).await;
    sse.connected("c").await;
    assert_eq!(sse.ids("c", 3).await, allowed);
    // Nor does the content of another entry than the one at the position.
    let forged = first.last_event_id.as_deref().map(|id| {
        let (tag, last) = (id.split(':').next().expect("a tag"), allowed[2]);
        format!("{tag}:{:x}-{:x}-1", last.ms, last.seq)
    });
    let mut sse = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], forged).await;
    sse.connected("c").await;
    let gap = ("store-reset".into(), false, None, allowed[0]);
    assert_eq!(sse.gap("c").await, gap);
    assert_eq!(sse.ids("c", 3).await, allowed);
    // Nor does a position whose entry is lost.
    let lost = StreamId::new(allowed[2].ms - 1, 7);
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={lost}")).await;
    sse.connected("c").await;
    assert_eq!(sse.gap("c").await, ("store-reset".into(), true, None, allowed[0]));
    assert_eq!(sse.ids("c", 3).await, allowed);
    // A client with a later position resumes from it.
    let mut sse = gateway.open(&format!("channel=c&last_ack_c={}", allowed[1])).await;
    assert_eq!(sse.connected("c").await, allowed[1]);
    assert_eq!(sse.ids("c", 1).await, allowed[2..]);
}

/// The gateway knows no entry that the store still has, so the channel goes back by a minute.
#[tokio::test]
async fn stream_goes_back_no_further_than_the_policy_allows_after_a_loss() {
    use crate::faulty_store::START;
    for buffer in ["", "stream.buffer-memory = 0"] {
        let policy = GrantTemplate { replay_since: Some(START + 100), ..GrantTemplate::default() }.component();
        let gateway = Gateway::with_policy(&policy, buffer).await;
        let add = async || gateway.store.add_fields("c", &[("event", "e"), ("data", "1")], None).await;
        add().await;
        gateway.store.advance_clock(100);
        let allowed = add().await;
        gateway.store.advance_clock(100);
        let lost = add().await;
        let mut live = gateway.open("channel=c").await;
        assert_eq!(live.connected("c").await, lost);
        let position = live.last_event_id.clone();
        gateway.store.lose_tail("c", 1).await;
        gateway.store.set_clock(START + 150);
        let new = add().await;
        gateway.store.change_master();
        assert_eq!(live.gap("c").await, ("store-reset".into(), true, None, new), "{buffer}");
        assert_eq!(live.ids("c", 2).await, [allowed, new], "{buffer}");
        let mut returned = Sse::resume(gateway.data, "/api/realtime?channel=c", &[], position).await;
        returned.connected("c").await;
        assert_eq!(returned.gap("c").await, ("store-reset".into(), true, None, new), "{buffer}");
        assert_eq!(returned.ids("c", 2).await, [allowed, new], "{buffer}");
    }
}
