//! The right to read is taken away: streams end, and who is kept out for a while stays out, whatever was kept, missed or under way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Reply, Sse, ask};
use crate::guests::component;
use crate::harness::{Door, Gateway, until, within};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The stream of the fleet's commands.
const COMMANDS: &str = "tidegate:{default}:commands";

/// The example policy's world: who shows whose cookie.
const WORLD: &str = r#"
policy.lookup.prefixes = ["session:", "team:"]
[memory-store.seed]
"session:a" = '{"id":"alice","role":"member"}'
"session:b" = '{"id":"bob","role":"member"}'
"team:red:members" = ["alice", "bob"]
"#;

async fn example() -> Gateway {
    let policy = include_bytes!("../../guest-examples/rust-role-based/policy.wasm");
    Gateway::behind(policy, WORLD).await
}

async fn as_user(gateway: &Gateway, session: &str, query: &str) -> Sse {
    let cookie = format!("session={session}");
    let mut sse =
        Sse::open(gateway.data, &format!("/api/realtime?{query}"), &[("cookie", &cookie), ("origin", "https://a.b")])
            .await;
    for _ in query.split('&') {
        assert_eq!(sse.frame().await["type"], "connected");
    }
    sse
}

async fn refused(gateway: &Gateway, session: &str, query: &str) -> Reply {
    let cookie = format!("session={session}");
    let headers = [("cookie", &*cookie), ("origin", "https://a.b")];
    ask(gateway.data, "GET", &format!("/api/realtime?{query}"), &headers, "").await
}

async fn order(gateway: &Gateway, order: &Value) -> Reply {
    ask(gateway.control, "POST", "/v1/revoke", &[JSON], &order.to_string()).await
}

/// Revokes, and says how many streams that ended.
async fn revoke(gateway: &Gateway, what: &Value) -> u64 {
    let reply = order(gateway, what).await;
    let json = reply.json();
    assert_eq!((reply.status, &json["missing"]), (200, &json!(0)), "{what}: {json}");
    assert_eq!(json["nodes"][gateway.app.commands.node()], json["streams"], "{json}");
    json["streams"].as_u64().expect("a count")
}

/// The stream ends here, without anything before that.
async fn ends(mut sse: Sse) {
    let farewell = sse.frame().await;
    assert_eq!(farewell["type"], "reconnect", "{farewell}");
    assert_eq!(sse.next().await, None);
}

async fn goes_on(gateway: &Gateway, sse: &mut Sse, channel: &str) {
    let id = gateway.store.stock(channel, "e", &json!("on")).await;
    assert_eq!(sse.ids(channel, 1).await, [id]);
}

#[tokio::test]
async fn streams_end_by_subject_by_channel_by_both_and_all_of_them() {
    let gateway = example().await;
    let mut alice = as_user(&gateway, "a", "channel=team-red").await;
    let own = as_user(&gateway, "a", "channel=alice&channel=default").await;
    let mut bob = as_user(&gateway, "b", "channel=team-red").await;
    for nobody in [json!({"subject": "carol"}), json!({"channel": "team"}), json!({"subject": "bob", "channel": "bob"})]
    {
        assert_eq!(revoke(&gateway, &nobody).await, 0, "{nobody}");
    }
    assert_eq!(revoke(&gateway, &json!({"subject": "alice", "channel": "default"})).await, 1);
    ends(own).await;
    goes_on(&gateway, &mut alice, "team-red").await;
    let second = as_user(&gateway, "a", "channel=alice").await;
    assert_eq!(revoke(&gateway, &json!({"subject": "alice"})).await, 2);
    ends(alice).await;
    ends(second).await;
    bob.event().await;
    goes_on(&gateway, &mut bob, "team-red").await;
    let alice = as_user(&gateway, "a", "channel=team-red").await;
    let mut own = as_user(&gateway, "a", "channel=alice").await;
    assert_eq!(revoke(&gateway, &json!({"channel": "team-red"})).await, 2);
    ends(alice).await;
    ends(bob).await;
    goes_on(&gateway, &mut own, "alice").await;
    let bob = as_user(&gateway, "b", "channel=default").await;
    assert_eq!(revoke(&gateway, &json!({"all": true})).await, 2);
    ends(own).await;
    ends(bob).await;
}

#[tokio::test]
async fn a_policy_that_says_no_by_now_keeps_them_out() {
    let gateway = Gateway::behind(&component("allow"), "policy.rotation-window = \"off\"").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.replace(&component("deny")).await.expect("it loads");
    goes_on(&gateway, &mut sse, "c").await;
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    ends(sse).await;
    assert_eq!(gateway.refused("channel=c").await.status, 418);
}

#[tokio::test]
async fn who_is_kept_out_for_a_while_is_so_whatever_was_decided() {
    let gateway = Gateway::behind(&component("kept"), "cors.origins = ['https://a.b']").await;
    let mut decisions = gateway.app.authorizer.watch();
    // The policy's answer is kept, and given again.
    let first = as_user(&gateway, "a", "channel=g").await;
    let second = as_user(&gateway, "a", "channel=g").await;
    assert_eq!(revoke(&gateway, &json!({"subject": "alice", "for": "15m"})).await, 2);
    ends(first).await;
    ends(second).await;
    for cached in [false, true] {
        let reply = refused(&gateway, "a", "channel=g").await;
        assert_eq!((reply.status, &*reply.code()), (403, "revoked"), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "https://a.b");
        let watched = loop {
            let watched = within("a decision", decisions.recv()).await.expect("there is one");
            if watched.decision.revoked {
                break watched;
            }
        };
        assert_eq!(watched.decision.cached, cached, "what was kept is forgotten, and what is kept is asked about too");
    }
    drop(as_user(&gateway, "a", "channel=o").await);
    let list = ask(gateway.control, "GET", "/v1/revocations", &[], "").await.json();
    let revocation = &list["revocations"][0];
    assert_eq!(revocation["subject"], "alice", "{list}");
    let path = format!("/v1/revocations/{}", revocation["id"].as_str().expect("an id"));
    for status in [200, 404] {
        assert_eq!(ask(gateway.control, "DELETE", &path, &[], "").await.status, status);
    }
    drop(as_user(&gateway, "a", "channel=g").await);
    assert_eq!(ask(gateway.control, "GET", "/v1/revocations", &[], "").await.json(), json!({"revocations": []}));
}

#[tokio::test]
async fn it_holds_where_everybody_is_let_in_until_its_time_is_over() {
    let gateway = Gateway::start("").await;
    let begun = std::time::Instant::now();
    let time = Duration::from_millis(400);
    let reply = order(&gateway, &json!({"channel": "c", "for": "400ms"})).await.json();
    assert_eq!(reply["revocation"]["channel"], "c", "{reply}");
    gateway.open("channel=d").await.connected("d").await;
    until("it is let in again", || gateway.app.authorizer.revocations().list().is_empty()).await;
    // Its end is kept in whole milliseconds.
    assert!(begun.elapsed() + Duration::from_millis(1) >= time, "{:?}", begun.elapsed());
    gateway.open("channel=c&channel=d").await;
    order(&gateway, &json!({"all": true, "for": "1h"})).await;
    assert_eq!(gateway.refused("channel=c").await.code(), "revoked");
}

#[tokio::test]
async fn a_node_that_was_cut_off_does_what_it_missed_before_it_delivers_anything() {
    let gateway = Gateway::start("stream.reconcile-interval = '100ms'").await;
    let mut meant = gateway.open("channel=a&channel=c").await;
    let _connected = (meant.frame().await, meant.frame().await);
    let mut other = gateway.open("channel=a").await;
    other.connected("a").await;
    for round in 0..5 {
        gateway.store.cut();
        gateway.store.own(COMMANDS, "command", &json!({"kind": "revoke", "channel": "c"})).await;
        let events =
            [gateway.store.own("a", "e", &json!(round)).await, gateway.store.stock("a", "e", &json!(round)).await];
        gateway.store.own("c", "e", &json!("not for this one")).await;
        gateway.store.heal();
        ends(meant).await;
        assert_eq!(other.ids("a", 2).await, events);
        meant = gateway.open("channel=a&channel=c").await;
        let _connected = (meant.frame().await, meant.frame().await);
    }
}

#[tokio::test]
async fn what_rings_behind_a_command_waits_until_that_is_done() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    goes_on(&gateway, &mut sse, "c").await;
    let held = gateway.store.hold_reads().await;
    gateway.store.own(COMMANDS, "command", &json!({"kind": "revoke", "channel": "c"})).await;
    gateway.store.own("c", "e", &json!("not for this one")).await;
    drop(held);
    ends(sse).await;
}

#[tokio::test]
async fn a_doorbell_that_got_lost_delays_it_by_less_than_a_second() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    gateway.store.swallow_doorbells();
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    ends(sse).await;
}

#[tokio::test]
async fn what_is_read_behind_a_command_that_did_not_ring_waits_for_it() {
    let gateway = Gateway::start("").await;
    until("it knows that nothing was said", || gateway.app.commands.are_known()).await;
    for round in 0..5 {
        let [meant, other] = ["meant", "other"].map(|name| format!("{name}-{round}"));
        let held = gateway.store.hold_reads().await;
        let since_ever = async |channel: &str| gateway.open(&format!("channel={channel}&last_ack_{channel}=1")).await;
        let (mut of_meant, mut of_other) = (since_ever(&meant).await, since_ever(&other).await);
        until("they are registered", || gateway.app.streams.count() == 2).await;
        gateway.store.swallow_doorbells();
        gateway.store.own(COMMANDS, "command", &json!({"kind": "revoke", "channel": meant})).await;
        gateway.store.own(&meant, "e", &json!("not for this one")).await;
        let event = gateway.store.own(&other, "e", &json!(round)).await;
        drop(held);
        loop {
            let frame = of_meant.frame().await;
            match frame["type"].as_str() {
                Some("connected") => {}
                Some("reconnect") => break,
                _ => panic!("it was revoked before that: {frame}"),
            }
        }
        of_other.connected(&other).await;
        assert_eq!(of_other.ids(&other, 1).await, [event]);
        gateway.store.hold_doorbells();
        gateway.store.release_doorbells(&[], false).await;
        drop((of_meant, of_other));
        until("they are gone", || gateway.app.streams.count() == 0).await;
    }
}

#[tokio::test]
async fn nothing_is_delivered_while_the_commands_cannot_be_read() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    goes_on(&gateway, &mut sse, "c").await;
    gateway.store.set_wrong(COMMANDS, true);
    let ready = || ask(gateway.control, "GET", "/readyz", &[], "");
    until("it is seen", || !gateway.app.commands.are_known()).await;
    assert_eq!(ready().await.status, 503);
    let events = [gateway.store.own("c", "e", &json!(1)).await, gateway.store.stock("c", "e", &json!(2)).await];
    gateway.store.set_wrong(COMMANDS, false);
    assert_eq!(sse.ids("c", 2).await, events);
    assert_eq!(ready().await.status, 200);
}

#[tokio::test]
async fn the_streams_of_the_node_that_was_asked_end_though_the_store_is_away() {
    let gateway = Gateway::behind(&component("kept"), "").await;
    let (meant, other) =
        (as_user(&gateway, "a", "channel=g").await, as_user(&gateway, "a", "channel=g&channel=o").await);
    gateway.store.cut();
    for (what, ends_some) in [(json!({"channel": "x"}), 0), (json!({"channel": "g", "for": "15m"}), 2)] {
        let reply = order(&gateway, &what).await;
        assert_eq!((reply.status, &*reply.code()), (503, "store_unavailable"), "{reply:?}");
        let text = reply.json()["error"]["message"].to_string();
        assert!(text.contains(&format!("ended {ends_some} of its streams")), "{text}");
    }
    ends(meant).await;
    ends(other).await;
    assert!(gateway.app.authorizer.revocations().list().is_empty(), "who is kept out stands in the store");
    gateway.store.heal();
    drop(as_user(&gateway, "a", "channel=g").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_being_decided_about_meanwhile_does_not_slip_through() {
    let gateway = Gateway::behind(&component("slow"), "").await;
    for (what, let_in) in [(json!({"channel": "c"}), false), (json!({"channel": "d"}), true)] {
        let opening = gateway.open("channel=c");
        let revoking = async {
            until("the decision has begun", || gateway.app.streams.count() == 1).await;
            assert_eq!(revoke(&gateway, &what).await, 0, "it is no stream yet");
        };
        let (mut sse, ()) = within("both", async { tokio::join!(opening, revoking) }).await;
        if let_in {
            sse.connected("c").await;
            drop(sse);
        } else {
            ends(sse).await;
        }
        until("it is gone", || gateway.app.streams.count() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_slips_through_while_many_come_and_go() {
    let gateway = Gateway::behind(&component("kept"), "reject.delay = '0s'").await;
    let to = gateway.data;
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let query = if n % 2 == 0 { "channel=g" } else { "channel=g&channel=o" };
            let head =
                format!("GET /api/realtime?{query} HTTP/1.1\r\nhost: h\r\ncookie: {n}\r\nconnection: close\r\n\r\n");
            tokio::spawn(async move {
                for visit in n.. {
                    let mut socket = TcpStream::connect(to).await.expect("the port is open");
                    socket.write_all(head.as_bytes()).await.expect("it is sent");
                    let mut some = [0; 256];
                    // Some stay until they are told to go, and some only look.
                    while let Ok(1..) = socket.read(&mut some).await
                        && visit % 4 > 0
                    {}
                }
            })
        })
        .collect();
    let reading = || gateway.app.streams.list(0, 100, |reader| reader.channels.iter().any(|name| **name == *"g")).len();
    for round in 0..10 {
        until("they read", || reading() > 0).await;
        tokio::time::sleep(Duration::from_millis(round * 7 % 20)).await;
        let what = if round % 2 == 0 {
            json!({"subject": "alice", "for": "1h"})
        } else {
            json!({"channel": "g", "for": "1h"})
        };
        let revocation = order(&gateway, &what).await.json()["revocation"]["id"].clone();
        until("the last of them is gone", || reading() == 0).await;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let late = gateway.app.streams.list(0, 100, |_| true);
            assert!(late.is_empty(), "round {round}: {late:?}");
        }
        let path = format!("/v1/revocations/{}", revocation.as_str().expect("an id"));
        assert_eq!(ask(gateway.control, "DELETE", &path, &[], "").await.status, 200);
    }
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let gateway = Gateway::start("").await;
    let stalled = Sse::open_with(gateway.data, "/api/realtime?channel=c", &[], Some(4 << 10)).await;
    for n in 0..400 {
        gateway.store.stock("c", "e", &json!(format!("{n}{}", "x".repeat(50_000)))).await;
    }
    let begun = std::time::Instant::now();
    assert_eq!(revoke(&gateway, &json!({"all": true})).await, 1);
    until("it is cut", || gateway.app.streams.count() == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(stalled);
}

#[tokio::test]
async fn commands_that_were_trimmed_unseen_end_all_streams() {
    let gateway = Gateway::behind(&component("kept"), "").await;
    let mut sse = as_user(&gateway, "a", "channel=g").await;
    gateway.store.cut();
    for _ in 0..2 {
        gateway.store.add_fields(COMMANDS, &[("data", "{}"), ("event", "command")], Some(1)).await;
    }
    let event = gateway.store.own("g", "e", &json!(1)).await;
    gateway.store.heal();
    let farewell = sse.frame().await;
    assert_eq!(farewell["type"], "reconnect", "{farewell}");
    let mut decisions = gateway.app.authorizer.watch();
    let mut sse = sse.reconnect().await;
    assert!(!within("a decision", decisions.recv()).await.expect("there is one").decision.cached);
    sse.connected("g").await;
    assert_eq!(sse.ids("g", 1).await, [event], "it lost nothing");
    // Once is enough.
    gateway.store.cut();
    gateway.store.heal();
    goes_on(&gateway, &mut sse, "g").await;
}

#[tokio::test]
async fn a_store_that_went_back_ends_all_streams_and_lets_nobody_in_who_is_kept_out() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    revoke(&gateway, &json!({"channel": "d", "for": "1h"})).await;
    gateway.store.cut();
    gateway.store.lose_all_but("c", 0).await;
    gateway.store.heal();
    ends(sse).await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    assert_eq!(gateway.refused("channel=d").await.code(), "revoked");
    let list = ask(gateway.control, "GET", "/v1/revocations", &[], "").await.json();
    assert_eq!(list["revocations"][0]["channel"], "d", "the store is told again: {list}");
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    ends(sse).await;
}

#[tokio::test]
async fn a_node_that_starts_knows_who_is_kept_out() {
    let first = Gateway::start("").await;
    revoke(&first, &json!({"channel": "c", "for": "1h"})).await;
    let store = Arc::clone(&first.store);
    within("the first one ends", first.stop()).await.expect("without a panic");
    let second = Gateway::with(Some(store), &Door::AllowAll, "").await;
    until("it knows the commands", || second.app.commands.are_known()).await;
    assert_eq!(second.refused("channel=c").await.code(), "revoked");
    second.open("channel=d").await.connected("d").await;
}

#[tokio::test]
async fn whoever_is_let_in_before_the_commands_are_known_is_fed_nothing() {
    let first = Gateway::start("").await;
    revoke(&first, &json!({"channel": "c", "for": "1h"})).await;
    let store = Arc::clone(&first.store);
    within("the first one ends", first.stop()).await.expect("without a panic");
    let held = store.hold_reads().await;
    let second = Gateway::with(Some(Arc::clone(&store)), &Door::AllowAll, "").await;
    let sse = second.open("channel=c&last_ack_c=0").await;
    store.own("c", "e", &json!("not for this one")).await;
    drop(held);
    ends(sse).await;
}

#[tokio::test]
async fn what_is_no_command_is_passed_over() {
    let gateway = Gateway::start("").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let own = async |command: Value| gateway.store.own(COMMANDS, "command", &command).await;
    for command in [
        json!(7),
        json!({}),
        json!({"kind": 7}),
        json!({"kind": "dance", "all": true}),
        json!({"kind": "revoke", "channel": 7}),
        json!({"kind": "revoke", "address": "of a newer version"}),
        json!({"kind": "lift"}),
    ] {
        own(command).await;
    }
    gateway.store.own(COMMANDS, "another event", &json!({"kind": "revoke"})).await;
    gateway.store.add_fields(COMMANDS, &[("neither", "event")], None).await;
    gateway.store.publish(COMMANDS, "noise").await;
    own(json!({"kind": "revoke", "channel": "d"})).await;
    goes_on(&gateway, &mut sse, "c").await;
    assert_eq!(revoke(&gateway, &json!({"channel": "c"})).await, 1);
    ends(sse).await;
}

#[tokio::test]
async fn orders_that_are_none_are_refused_with_words() {
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
        let reply = ask(gateway.control, "POST", "/v1/revoke", &[JSON], body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
        assert!(reply.body.contains(word), "{body}: {}", reply.body);
    }
    gateway.store.cut();
    assert_eq!(order(&gateway, &json!({"all": true})).await.code(), "store_unavailable");
    assert_eq!(ask(gateway.control, "GET", "/v1/revocations", &[], "").await.status, 503);
    assert_eq!(ask(gateway.control, "DELETE", "/v1/revocations/1", &[], "").await.status, 503);
}

#[tokio::test]
async fn no_client_and_no_emitter_reaches_the_commands() {
    let gateway = Gateway::start("redis-rest.tokens = ['t']").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    for key in [
        COMMANDS,
        "tidegate:{default}:revocations",
        "tidegate:{default}:commands:replies:1-1",
        "tidegate:{other}:nodes",
    ] {
        assert_eq!(gateway.refused(&format!("channel={key}")).await.code(), "channel_not_allowed");
        let event = json!({"channel": key, "event": "command", "data": {"kind": "revoke"}}).to_string();
        assert_eq!(ask(gateway.control, "POST", "/v1/emit", &[JSON], &event).await.status, 403);
        let token = [JSON, ("authorization", "Bearer t")];
        for command in [
            json!(["XADD", key, "*", "event", "command", "data", r#"{"kind":"revoke"}"#]),
            json!(["XRANGE", key, "-", "+"]),
            json!(["PUBLISH", key, "x"]),
            json!(["EXPIRE", key, 0]),
        ] {
            let reply = ask(gateway.data, "POST", "/redis", &token, &command.to_string()).await;
            assert_eq!(reply.status, 403, "{command}");
        }
        let reply = ask(gateway.data, "POST", &format!("/redis/subscribe/{key}"), &token, "").await;
        assert_eq!(reply.status, 403);
    }
    goes_on(&gateway, &mut sse, "c").await;
}
