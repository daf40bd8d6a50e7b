//! Revocations end streams, apply to cached and pending decisions, and reach a node that missed their commands.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::event::{Body, StreamId};
use tidegate::store::revocations::RevocationIds;
use tidegate::store::{EventStore, ReadLimits, ReadRequest};
use tidegate::stream::registry::EndReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Reply, Sse, send_request};
use crate::guests::component;
use crate::harness::{Gateway, InitialPolicy, wait_until, with_timeout};

const JSON: (&str, &str) = ("content-type", "application/json");

const ALL: ReadLimits = ReadLimits { entries: 1000, bytes: 1 << 20, max_event: 1 << 20 };

/// The stream of the fleet's commands.
const COMMANDS: &str = "tidegate:{default}:commands";

/// Configuration for the example policy: two sessions, and a team with both users.
const EXAMPLE_CONFIG: &str = r#"
policy.lookup.prefixes = ["session:", "team:"]
[memory-store.seed]
"session:a" = '{"id":"alice","role":"member"}'
"session:b" = '{"id":"bob","role":"member"}'
"team:red:members" = ["alice", "bob"]
"#;

async fn example() -> Gateway {
    let policy = include_bytes!("../../guest-examples/rust-role-based/policy.wasm");
    Gateway::with_policy(policy, EXAMPLE_CONFIG).await
}

async fn open_as(gateway: &Gateway, session: &str, query: &str) -> Sse {
    let cookie = format!("session={session}");
    let mut sse =
        Sse::open(gateway.data, &format!("/api/realtime?{query}"), &[("cookie", &cookie), ("origin", "https://a.b")])
            .await;
    for _ in query.split('&') {
        assert_eq!(sse.frame().await["type"], "connected");
    }
    sse
}

async fn request_as(gateway: &Gateway, session: &str, query: &str) -> Reply {
    let cookie = format!("session={session}");
    let headers = [("cookie", &*cookie), ("origin", "https://a.b")];
    send_request(gateway.data, "GET", &format!("/api/realtime?{query}"), &headers, "").await
}

async fn post_revocation(gateway: &Gateway, revocation: &Value) -> Reply {
    send_request(gateway.control, "POST", "/v1/revoke", &[JSON], &revocation.to_string()).await
}

/// Revokes, and returns the number of closed streams.
async fn revoke(gateway: &Gateway, selector: &Value) -> u64 {
    let reply = post_revocation(gateway, selector).await;
    let json = reply.json();
    assert_eq!((reply.status, &json["missing"]), (200, &json!(0)), "{selector}: {json}");
    assert_eq!(json["nodes"][gateway.app.commands.node()], json["streams"], "{json}");
    json["streams"].as_u64().expect("a count")
}

/// Asserts that the next frame is a reconnect frame, and that the stream ends after it.
async fn assert_ends(mut sse: Sse) {
    let reconnect = sse.frame().await;
    assert_eq!(reconnect["type"], "reconnect", "{reconnect}");
    assert_eq!(sse.next().await, None);
}

async fn assert_delivers(gateway: &Gateway, sse: &mut Sse, channel: &str) {
    let id = gateway.store.emit_stock(channel, "e", &json!("on")).await;
    assert_eq!(sse.ids(channel, 1).await, [id]);
}

#[tokio::test]
async fn streams_are_revoked_by_subject_by_channel_by_both_or_all() {
    let gateway = example().await;
    let mut alice = open_as(&gateway, "a", "channel=team-red").await;
    let own = open_as(&gateway, "a", "channel=alice&channel=default").await;
    let mut bob = open_as(&gateway, "b", "channel=team-red").await;
    for unmatched in
        [json!({"subject": "carol"}), json!({"channel": "team"}), json!({"subject": "bob", "channel": "bob"})]
    {
        assert_eq!(revoke(&gateway, &unmatched).await, 0, "{unmatched}");
    }
    assert_eq!(revoke(&gateway, &json!({"subject": "alice", "channel": "default"})).await, 1);
    assert_ends(own).await;
    assert_delivers(&gateway, &mut alice, "team-red").await;
    let second = open_as(&gateway, "a", "channel=alice").await;
    assert_eq!(revoke(&gateway, &json!({"subject": "alice"})).await, 2);
    assert_ends(alice).await;
    assert_ends(second).await;
    bob.event().await;
    assert_delivers(&gateway, &mut bob, "team-red").await;
    let alice = open_as(&gateway, "a", "channel=team-red").await;
    let mut own = open_as(&gateway, "a", "channel=alice").await;
    assert_eq!(revoke(&gateway, &json!({"channel": "team-red"})).await, 2);
    assert_ends(alice).await;
    assert_ends(bob).await;
    assert_delivers(&gateway, &mut own, "alice").await;
    let bob = open_as(&gateway, "b", "channel=default").await;
    assert_eq!(revoke(&gateway, &json!({"all": true})).await, 2);
    assert_ends(own).await;
    assert_ends(bob).await;
}

#[tokio::test]
async fn revoked_stream_is_decided_by_the_active_policy() {
    let gateway = Gateway::with_policy(&component("allow"), "policy.rotation-window = \"off\"").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.activate(&component("deny")).await.expect("it loads");
    assert_delivers(&gateway, &mut sse, "c").await;
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    assert_ends(sse).await;
    assert_eq!(gateway.request("channel=c").await.status, 418);
}

#[tokio::test]
async fn active_revocation_overrides_fresh_and_cached_decisions() {
    let gateway = Gateway::with_policy(&component("kept"), "cors.origins = ['https://a.b']").await;
    let mut decisions = gateway.app.authorizer.watch();
    // The policy's decision is cached.
    let first = open_as(&gateway, "a", "channel=g").await;
    let second = open_as(&gateway, "a", "channel=g").await;
    assert_eq!(revoke(&gateway, &json!({"subject": "alice", "for": "15m"})).await, 2);
    assert_ends(first).await;
    assert_ends(second).await;
    for cached in [false, true] {
        let reply = request_as(&gateway, "a", "channel=g").await;
        assert_eq!((reply.status, &*reply.code()), (403, "revoked"), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "https://a.b");
        let observed = loop {
            let observed = with_timeout("a decision", decisions.recv()).await.expect("there is one");
            if observed.decision.revoked {
                break observed;
            }
        };
        assert_eq!(
            observed.decision.cached, cached,
            "revocation clears the cache, and is checked for cached decisions"
        );
    }
    drop(open_as(&gateway, "a", "channel=o").await);
    let list = send_request(gateway.control, "GET", "/v1/revocations", &[], "").await.json();
    let revocation = &list["revocations"][0];
    assert_eq!(revocation["subject"], "alice", "{list}");
    let path = format!("/v1/revocations/{}", revocation["id"].as_str().expect("an id"));
    for status in [200, 404] {
        assert_eq!(send_request(gateway.control, "DELETE", &path, &[], "").await.status, status);
    }
    drop(open_as(&gateway, "a", "channel=g").await);
    assert_eq!(send_request(gateway.control, "GET", "/v1/revocations", &[], "").await.json()["revocations"], json!([]));
}

#[tokio::test]
async fn revocation_applies_under_allow_all_until_it_expires() {
    let gateway = Gateway::start("").await;
    let begun = std::time::Instant::now();
    let time = Duration::from_millis(1_500);
    let reply = post_revocation(&gateway, &json!({"channel": "c", "for": "1500ms"})).await.json();
    assert_eq!(reply["revocation"]["channel"], "c", "{reply}");
    gateway.open("channel=d").await.connected("d").await;
    wait_until("the revocation has expired", || gateway.app.authorizer.revocations().list().is_empty()).await;
    // The expiry has a resolution of one millisecond.
    assert!(begun.elapsed() + Duration::from_millis(1) >= time, "{:?}", begun.elapsed());
    gateway.open("channel=c&channel=d").await;
    post_revocation(&gateway, &json!({"all": true, "for": "1h"})).await;
    assert_eq!(gateway.request("channel=c").await.code(), "revoked");
}

#[tokio::test]
async fn disconnected_node_applies_missed_commands_before_delivering_events() {
    let gateway = Gateway::start("stream.reconcile-interval = '100ms'").await;
    let mut revoked = gateway.open("channel=a&channel=c").await;
    let _connected = (revoked.frame().await, revoked.frame().await);
    let mut other = gateway.open("channel=a").await;
    other.connected("a").await;
    for round in 0..5 {
        gateway.store.disconnect();
        gateway.store.emit_own(COMMANDS, "command", &json!({"kind": "revoke", "channel": "c"})).await;
        let events = [
            gateway.store.emit_own("a", "e", &json!(round)).await,
            gateway.store.emit_stock("a", "e", &json!(round)).await,
        ];
        gateway.store.emit_own("c", "e", &json!("after the revocation")).await;
        gateway.store.reconnect();
        assert_ends(revoked).await;
        assert_eq!(other.ids("a", 2).await, events);
        revoked = gateway.open("channel=a&channel=c").await;
        let _connected = (revoked.frame().await, revoked.frame().await);
    }
}

#[tokio::test]
async fn event_notified_after_a_command_waits_for_the_command() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    assert_delivers(&gateway, &mut sse, "c").await;
    let held = gateway.store.hold_reads().await;
    gateway.store.emit_own(COMMANDS, "command", &json!({"kind": "revoke", "channel": "c"})).await;
    gateway.store.emit_own("c", "e", &json!("after the revocation")).await;
    drop(held);
    assert_ends(sse).await;
}

#[tokio::test]
async fn revocation_takes_effect_without_its_notification() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.store.drop_notifications();
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    assert_ends(sse).await;
}

#[tokio::test]
async fn event_read_after_an_unnotified_command_waits_for_the_command() {
    let gateway = Gateway::start("").await;
    wait_until("the commands are synced", || gateway.app.commands.are_synced()).await;
    for round in 0..5 {
        let [revoked, other] = ["revoked", "other"].map(|name| format!("{name}-{round}"));
        let held = gateway.store.hold_reads().await;
        let open_from_start =
            async |channel: &str| gateway.open(&format!("channel={channel}&last_ack_{channel}=1")).await;
        let (mut revoked_stream, mut other_stream) = (open_from_start(&revoked).await, open_from_start(&other).await);
        wait_until("the streams are registered", || gateway.app.streams.count() == 2).await;
        gateway.store.drop_notifications();
        gateway.store.emit_own(COMMANDS, "command", &json!({"kind": "revoke", "channel": revoked})).await;
        gateway.store.emit_own(&revoked, "e", &json!("after the revocation")).await;
        let event = gateway.store.emit_own(&other, "e", &json!(round)).await;
        drop(held);
        loop {
            let frame = revoked_stream.frame().await;
            match frame["type"].as_str() {
                Some("connected") => {}
                Some("reconnect") => break,
                _ => panic!("a frame after the revocation: {frame}"),
            }
        }
        other_stream.connected(&other).await;
        assert_eq!(other_stream.ids(&other, 1).await, [event]);
        gateway.store.hold_notifications();
        gateway.store.release_notifications(&[], false).await;
        drop((revoked_stream, other_stream));
        wait_until("the streams have ended", || gateway.app.streams.count() == 0).await;
    }
}

#[tokio::test]
async fn no_event_is_delivered_while_commands_cannot_be_read() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    assert_delivers(&gateway, &mut sse, "c").await;
    gateway.store.set_wrong_type(COMMANDS, true);
    let ready = || send_request(gateway.control, "GET", "/readyz", &[], "");
    wait_until("the commands are not synced", || !gateway.app.commands.are_synced()).await;
    assert_eq!(ready().await.status, 503);
    let events =
        [gateway.store.emit_own("c", "e", &json!(1)).await, gateway.store.emit_stock("c", "e", &json!(2)).await];
    gateway.store.set_wrong_type(COMMANDS, false);
    assert_eq!(sse.ids("c", 2).await, events);
    assert_eq!(ready().await.status, 200);
}

#[tokio::test]
async fn revocation_ends_local_streams_during_a_store_outage() {
    let gateway = Gateway::with_policy(&component("kept"), "").await;
    let (revoked, other) =
        (open_as(&gateway, "a", "channel=g").await, open_as(&gateway, "a", "channel=g&channel=o").await);
    gateway.store.disconnect();
    for (selector, ended) in [(json!({"channel": "x"}), 0), (json!({"channel": "g", "for": "15m"}), 2)] {
        let reply = post_revocation(&gateway, &selector).await;
        assert_eq!((reply.status, &*reply.code()), (503, "store_unavailable"), "{reply:?}");
        let text = reply.json()["error"]["message"].to_string();
        assert!(text.contains(&format!("ended {ended} of its streams")), "{text}");
    }
    assert_ends(revoked).await;
    assert_ends(other).await;
    assert!(gateway.app.authorizer.revocations().list().is_empty(), "the revocation was not stored");
    gateway.store.reconnect();
    drop(open_as(&gateway, "a", "channel=g").await);
}

#[tokio::test]
async fn stream_decided_during_a_revocation_is_closed() {
    let gateway = Gateway::with_lookups("").await;
    for (selector, admitted) in [(json!({"channel": "c"}), false), (json!({"channel": "d"}), true)] {
        let held = gateway.store.hold_lookups().await;
        let opening = gateway.open("channel=c");
        let revoking = async {
            wait_until("the decision has begun", || gateway.app.authorizer.evaluating() == 1).await;
            assert_eq!(revoke(&gateway, &selector).await, 0, "the stream is not registered yet");
            drop(held);
        };
        let (mut sse, ()) =
            with_timeout("the stream request and the other task finish", async { tokio::join!(opening, revoking) })
                .await;
        if admitted {
            sse.connected("c").await;
            drop(sse);
        } else {
            assert_ends(sse).await;
        }
        wait_until("the stream has ended", || gateway.app.streams.count() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_cannot_bypass_a_revocation() {
    let gateway = Gateway::with_policy(&component("kept"), "reject.delay = '0s'").await;
    let to = gateway.data;
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let query = if n % 2 == 0 { "channel=g" } else { "channel=g&channel=o" };
            let head =
                format!("GET /api/realtime?{query} HTTP/1.1\r\nhost: h\r\ncookie: {n}\r\nconnection: close\r\n\r\n");
            tokio::spawn(async move {
                for request in n.. {
                    let mut socket = TcpStream::connect(to).await.expect("the port is open");
                    socket.write_all(head.as_bytes()).await.expect("it is sent");
                    let mut buffer = [0; 256];
                    // Some clients stay until their stream ends, and some read only the head.
                    while let Ok(1..) = socket.read(&mut buffer).await
                        && request % 4 > 0
                    {}
                }
            })
        })
        .collect();
    let reading = || gateway.app.streams.list(0, 100, |reader| reader.channels.iter().any(|name| **name == *"g")).len();
    for round in 0..10 {
        wait_until("some clients read the channel", || reading() > 0).await;
        tokio::time::sleep(Duration::from_millis(round * 7 % 20)).await;
        let selector = if round % 2 == 0 {
            json!({"subject": "alice", "for": "1h"})
        } else {
            json!({"channel": "g", "for": "1h"})
        };
        let revocation = post_revocation(&gateway, &selector).await.json()["revocation"]["id"].clone();
        wait_until("the last stream has ended", || reading() == 0).await;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let late = gateway.app.streams.list(0, 100, |_| true);
            assert!(late.is_empty(), "round {round}: {late:?}");
        }
        let path = format!("/v1/revocations/{}", revocation.as_str().expect("an id"));
        assert_eq!(send_request(gateway.control, "DELETE", &path, &[], "").await.status, 200);
    }
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn revoked_stream_of_a_stalled_client_is_disconnected() {
    let gateway = Gateway::start("").await;
    let stalled = Sse::open_with(gateway.data, "/api/realtime?channel=c", &[], Some(4 << 10)).await;
    for n in 0..400 {
        gateway.store.emit_stock("c", "e", &json!(format!("{n}{}", "x".repeat(50_000)))).await;
    }
    assert_eq!(revoke(&gateway, &json!({"all": true})).await, 1);
    // The client never reads, so that only an aborted connection ends the stream.
    wait_until("the stalled stream is closed", || gateway.app.streams.count() == 0).await;
    assert_eq!(gateway.app.streams.ended(EndReason::Revoked), 1);
    drop(stalled);
}

#[tokio::test]
async fn unread_trimmed_commands_end_all_streams() {
    let gateway = Gateway::with_policy(&component("kept"), "").await;
    let mut sse = open_as(&gateway, "a", "channel=g").await;
    gateway.store.disconnect();
    for _ in 0..2 {
        gateway.store.add_fields(COMMANDS, &[("data", "{}"), ("event", "command")], Some(1)).await;
    }
    let event = gateway.store.emit_own("g", "e", &json!(1)).await;
    gateway.store.reconnect();
    let reconnect = sse.frame().await;
    assert_eq!(reconnect["type"], "reconnect", "{reconnect}");
    let mut decisions = gateway.app.authorizer.watch();
    let mut sse = sse.reconnect().await;
    assert!(!with_timeout("a decision", decisions.recv()).await.expect("there is one").decision.cached);
    sse.connected("g").await;
    assert_eq!(sse.ids("g", 1).await, [event], "no event is lost");
    // The reconnect frame is sent once.
    gateway.store.disconnect();
    gateway.store.reconnect();
    assert_delivers(&gateway, &mut sse, "g").await;
}

#[tokio::test]
async fn store_rollback_ends_all_streams_and_keeps_revocations() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    revoke(&gateway, &json!({"channel": "d", "for": "1h"})).await;
    gateway.store.disconnect();
    gateway.store.keep_first_entries("c", 0).await;
    gateway.store.reconnect();
    assert_ends(sse).await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    assert_eq!(gateway.request("channel=d").await.code(), "revoked");
    let list = send_request(gateway.control, "GET", "/v1/revocations", &[], "").await.json();
    assert_eq!(list["revocations"][0]["channel"], "d", "the store has the revocation again: {list}");
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    assert_ends(sse).await;
}

/// Two commands are lost, and two others are added: neither their number nor their ids tell of the loss.
#[tokio::test]
async fn loss_of_the_last_commands_is_found_when_others_take_their_place() {
    let gateway = Gateway::start("").await;
    revoke(&gateway, &json!({"channel": "x"})).await;
    revoke(&gateway, &json!({"channel": "d", "for": "1h"})).await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.store.disconnect();
    gateway.store.keep_first_entries(COMMANDS, 1).await;
    for _ in 0..2 {
        gateway.store.advance_clock(1_000);
        gateway.store.emit_own(COMMANDS, "command", &json!({"kind": "lift", "id": "unknown"})).await;
    }
    gateway.store.reconnect();
    assert_ends(sse).await;
    wait_until("the commands are synced", || gateway.app.commands.are_synced()).await;
    assert_eq!(gateway.request("channel=d").await.code(), "revoked");
    assert_eq!(listed(&gateway).await, ["d"], "the store has the revocation again");
    // Its command was sent again, for nodes that did not get it before the loss.
    let commands =
        gateway.store.read(COMMANDS, ReadRequest::with_state(StreamId::ZERO), ALL).await.expect("read").entries;
    let is_of = |body: Body, channel: &str| {
        body.into_event().is_some_and(|(_, data)| data.contains(&format!("\"channel\":\"{channel}\"")))
    };
    let (_, last) = commands.into_iter().next_back().expect("a command");
    assert!(is_of(last, "d"));
    // It is over.
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    assert_delivers(&gateway, &mut sse, "c").await;
}

#[tokio::test]
async fn starting_node_loads_active_revocations() {
    let first = Gateway::start("").await;
    revoke(&first, &json!({"channel": "c", "for": "1h"})).await;
    let store = Arc::clone(&first.store);
    with_timeout("the first gateway ends", first.stop()).await.expect("without a panic");
    let second = Gateway::start_with(Some(store), &InitialPolicy::AllowAll, "").await;
    wait_until("the commands are synced", || second.app.commands.are_synced()).await;
    assert_eq!(second.request("channel=c").await.code(), "revoked");
    second.open("channel=d").await.connected("d").await;
}

#[tokio::test]
async fn stream_opened_before_commands_are_synced_receives_no_events() {
    let first = Gateway::start("").await;
    revoke(&first, &json!({"channel": "c", "for": "1h"})).await;
    let store = Arc::clone(&first.store);
    with_timeout("the first gateway ends", first.stop()).await.expect("without a panic");
    let held = store.hold_reads().await;
    let second = Gateway::start_with(Some(Arc::clone(&store)), &InitialPolicy::AllowAll, "").await;
    let sse = second.open("channel=c&last_ack_c=0").await;
    store.emit_own("c", "e", &json!("after the revocation")).await;
    drop(held);
    assert_ends(sse).await;
}

#[tokio::test]
async fn invalid_commands_are_skipped() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let emit_command = async |command: Value| gateway.store.emit_own(COMMANDS, "command", &command).await;
    for command in [
        json!(7),
        json!({}),
        json!({"kind": 7}),
        json!({"kind": "dance", "all": true}),
        json!({"kind": "revoke", "channel": 7}),
        json!({"kind": "revoke", "address": "of a newer version"}),
        json!({"kind": "lift"}),
    ] {
        emit_command(command).await;
    }
    gateway.store.emit_own(COMMANDS, "another event", &json!({"kind": "revoke"})).await;
    gateway.store.add_fields(COMMANDS, &[("neither", "event")], None).await;
    gateway.store.publish(COMMANDS, "noise").await;
    emit_command(json!({"kind": "revoke", "channel": "d"})).await;
    assert_delivers(&gateway, &mut sse, "c").await;
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    assert_ends(sse).await;
}

#[tokio::test]
async fn invalid_revocations_are_rejected_with_the_expected_form() {
    let gateway = Gateway::start("").await;
    let long = json!({"subject": "x".repeat(1025)}).to_string();
    for (body, word) in [
        ("{}", "or all"),
        (r#"{"all":false}"#, "or all"),
        (r#"{"all":true,"subject":"a"}"#, "or all"),
        (r#"{"subject":7}"#, "right would be"),
        (r#"{"user":"a"}"#, "user"),
        (r#"{"subject":"a","for":"soon"}"#, "right would be"),
        (r#"{"subject":"a","for":"0s"}"#, "15m"),
        (r#"{"subject":"a","for":"31days"}"#, "15m"),
        (r#"{"subject":"a","for":15}"#, "right would be"),
        (&long, "1024"),
        (r#"["alice"]"#, "right would be"),
        ("{", "right would be"),
    ] {
        let reply = send_request(gateway.control, "POST", "/v1/revoke", &[JSON], body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
        assert!(reply.body.contains(word), "{body}: {}", reply.body);
    }
    gateway.store.disconnect();
    assert_eq!(post_revocation(&gateway, &json!({"all": true})).await.code(), "store_unavailable");
    assert_eq!(send_request(gateway.control, "GET", "/v1/revocations", &[], "").await.status, 503);
    assert_eq!(send_request(gateway.control, "DELETE", "/v1/revocations/1", &[], "").await.status, 503);
}

#[tokio::test]
async fn clients_and_emitters_cannot_access_fleet_keys() {
    let gateway = Gateway::start("redis-rest.tokens = ['t']").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for key in [
        COMMANDS,
        "tidegate:{default}:revocations",
        "tidegate:{default}:commands:replies:1-1",
        "tidegate:{other}:nodes",
    ] {
        assert_eq!(gateway.request(&format!("channel={key}")).await.code(), "channel_not_allowed");
        let event = json!({"channel": key, "event": "command", "data": {"kind": "revoke"}}).to_string();
        assert_eq!(send_request(gateway.control, "POST", "/v1/emit", &[JSON], &event).await.status, 403);
        let token = [JSON, ("authorization", "Bearer t")];
        for command in [
            json!(["XADD", key, "*", "event", "command", "data", r#"{"kind":"revoke"}"#]),
            json!(["XRANGE", key, "-", "+"]),
            json!(["PUBLISH", key, "x"]),
            json!(["EXPIRE", key, 0]),
        ] {
            let reply = send_request(gateway.data, "POST", "/redis", &token, &command.to_string()).await;
            assert_eq!(reply.status, 403, "{command}");
        }
        let reply = send_request(gateway.data, "POST", &format!("/redis/subscribe/{key}"), &token, "").await;
        assert_eq!(reply.status, 403);
    }
    assert_delivers(&gateway, &mut sse, "c").await;
}

const REVOCATIONS: &str = "tidegate:{default}:revocations";
const HOUR: u64 = 3_600_000;

/// The revocations that `GET /v1/revocations` lists, as their channels.
async fn listed(gateway: &Gateway) -> Vec<String> {
    let list = send_request(gateway.control, "GET", "/v1/revocations", &[], "").await.json();
    let channels = list["revocations"].as_array().expect("a list").iter();
    channels.map(|revocation| revocation["channel"].as_str().expect("a channel").to_owned()).collect()
}

async fn stored(gateway: &Gateway) -> usize {
    gateway.store.revocations(REVOCATIONS, RevocationIds::All).await.expect("they are read").entries.len()
}

async fn revoke_for_an_hour(gateway: &Gateway, channel: &str) -> Value {
    let reply = post_revocation(gateway, &json!({"channel": channel, "for": "1h"})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["revocation"].clone()
}

/// Whether the gateway refuses a client of a channel once it has processed all commands.
async fn is_revoked(gateway: &Gateway, channel: &str) -> bool {
    gateway.app.commands.wait_synced().await;
    let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    let head = format!("GET /api/realtime?channel={channel} HTTP/1.1\r\nhost: h\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("it is sent");
    let mut line = [0; 12];
    with_timeout("the status", socket.read_exact(&mut line)).await.expect("an answer");
    line.ends_with(b" 403")
}

#[tokio::test]
async fn revocations_end_by_the_clock_of_the_store() {
    let gateway = Gateway::start("").await;
    // The clock of the store is years slow against that of the gateway.
    assert!(gateway.store.now() + 300 * 24 * HOUR < tidegate::util::clock::now_ms());
    let started = gateway.store.now();
    let revocation = revoke_for_an_hour(&gateway, "a").await;
    let until = revocation["until"].as_u64().expect("an end");
    assert!((started + HOUR..started + HOUR + 60_000).contains(&until), "{revocation}");
    assert!(is_revoked(&gateway, "a").await);
    assert_eq!(listed(&gateway).await, ["a"]);

    // The clock of the store is set back: no revocation gets shorter, and a later one lasts as long.
    gateway.store.set_clock(started - 24 * HOUR);
    let later = revoke_for_an_hour(&gateway, "b").await["until"].as_u64().expect("an end");
    assert!((started - 23 * HOUR..started - 22 * HOUR).contains(&later), "{later}");
    assert_eq!(listed(&gateway).await, ["b", "a"]);
    assert!(is_revoked(&gateway, "a").await && is_revoked(&gateway, "b").await);

    // It is set forward: revocations that have ended are not listed any more, and stay in the store until another one is written.
    gateway.store.set_clock(started + 2 * HOUR);
    for _ in 0..2 {
        assert_eq!((listed(&gateway).await, stored(&gateway).await), (Vec::<String>::new(), 2));
    }
    revoke_for_an_hour(&gateway, "c").await;
    assert_eq!((listed(&gateway).await, stored(&gateway).await), (vec!["c".to_owned()], 1));
    assert!(!is_revoked(&gateway, "a").await && !is_revoked(&gateway, "b").await && is_revoked(&gateway, "c").await);
    // A gateway that starts now has the same revocations.
    let store = Arc::clone(&gateway.store);
    with_timeout("the gateway ends", gateway.stop()).await.expect("without a panic");
    let next = Gateway::start_with(Some(store), &InitialPolicy::AllowAll, "").await;
    assert!(is_revoked(&next, "c").await && !is_revoked(&next, "a").await);
}

#[tokio::test]
async fn revocation_is_active_again_after_the_store_clock_was_ahead_for_a_while() {
    let gateway = Gateway::start("").await;
    let started = gateway.store.now();
    revoke_for_an_hour(&gateway, "a").await;
    gateway.store.set_clock(started + 2 * HOUR);
    // Any command that concerns a stored revocation makes the node read the store's clock.
    gateway.store.emit_own(COMMANDS, "command", &json!({"kind": "lift", "id": "unknown"})).await;
    wait_until("the revocation has ended", || gateway.app.authorizer.revocations().list().is_empty()).await;
    gateway.store.set_clock(started);
    gateway.store.emit_own(COMMANDS, "command", &json!({"kind": "lift", "id": "unknown"})).await;
    wait_until("the revocation is active", || gateway.app.authorizer.revocations().list().len() == 1).await;
    assert!(is_revoked(&gateway, "a").await);
    assert_eq!(listed(&gateway).await, ["a"]);
}

#[tokio::test]
async fn forged_commands_neither_lift_nor_add_a_revocation() {
    let gateway = Gateway::start("").await;
    let id = revoke_for_an_hour(&gateway, "a").await["id"].clone();
    let mut sse = gateway.open("channel=b").await;
    sse.connected("b").await;
    gateway.store.emit_own(COMMANDS, "command", &json!({"kind": "lift", "id": id})).await;
    let forged = json!({"kind": "revoke", "channel": "b", "id": "forged"});
    gateway.store.emit_own(COMMANDS, "command", &forged).await;
    assert_ends(sse).await;
    // The nodes and the list agree.
    wait_until("the commands are processed", || gateway.app.authorizer.revocations().list().len() == 1).await;
    assert!(is_revoked(&gateway, "a").await && !is_revoked(&gateway, "b").await);
    assert_eq!(listed(&gateway).await, ["a"]);
    let path = format!("/v1/revocations/{}", id.as_str().expect("an id"));
    assert_eq!(send_request(gateway.control, "DELETE", &path, &[], "").await.status, 200);
    assert!(!is_revoked(&gateway, "a").await);
}

#[tokio::test]
async fn revocation_that_ended_before_the_reply_is_an_error() {
    let gateway = Gateway::start("").await;
    let reply = post_revocation(&gateway, &json!({"channel": "c", "for": "1ms"})).await;
    assert_eq!((reply.status, &*reply.code()), (409, "revocation_ended"), "{reply:?}");
}
