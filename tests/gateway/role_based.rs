//! The example policy's world, byte for byte, as the committed component decides it; and a freshly built one the same.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::client::{Reply, Sse, ask};
use crate::harness::Gateway;

const SEED: &str = r#"
    policy.lookup.prefixes = ["session:", "team:"]
    [memory.seed]
    "session:alice" = '{"id":"alice","role":"member"}'
    "session:bob" = '{"id":"bob","role":"member"}'
    "session:root" = '{"id":"root","role":"admin"}'
    "session:s1" = '{"id":"carol"}'
    "session:broken" = '{"id":'
    "session:no-id" = '{"role":"admin"}'
    "session:a-set" = ["alice"]
    "team:red:members" = ["alice", "root"]
    "team:blue:members" = ["bob"]
    "team:text:members" = "alice"
"#;

/// Status and body; none for who is let in.
type Refusal = Option<(u16, &'static str)>;

const UNAUTHORIZED: Refusal = Some((401, "Unauthorized"));
const ADMIN: Refusal = Some((403, "Admin access required"));
const TEAM: Refusal = Some((403, "Not a team member"));
const OWN: Refusal = Some((403, "You can only access your own channels"));
const TRY_AGAIN: Refusal = Some((503, "Try again"));
const IN: Refusal = None;

/// Cookies, channels, and the refusal.
const WORLD: &[(&str, &str, Refusal)] = &[
    ("", "default", UNAUTHORIZED),
    ("session=", "default", UNAUTHORIZED),
    ("session=mallory", "default", UNAUTHORIZED),
    ("session=mallory", "admin-x", UNAUTHORIZED),
    ("other=alice", "default", UNAUTHORIZED),
    ("session=broken", "default", UNAUTHORIZED),
    ("session=no-id", "admin-x", UNAUTHORIZED),
    ("session=a-set", "default", TRY_AGAIN),
    ("session=alice", "", IN),
    ("session=alice", "default", IN),
    ("a=b; session=alice; c=d", "default", IN),
    ("session=alice", "alice", IN),
    ("session=alice", "alice-inbox", IN),
    ("session=alice", "alice-", IN),
    ("session=alice", "alice2", OWN),
    ("session=alice", "Alice", OWN),
    ("session=alice", "bob-inbox", OWN),
    ("session=alice", "default-2", OWN),
    ("session=alice", "team-red", IN),
    ("session=alice", "team-blue", TEAM),
    ("session=alice", "team-none", TEAM),
    ("session=alice", "team-", TEAM),
    ("session=alice", "team-text", TRY_AGAIN),
    ("session=alice", "admin-ops", ADMIN),
    ("session=alice", "admin-", ADMIN),
    ("session=alice", "admin", OWN),
    ("session=bob", "team-blue", IN),
    ("session=bob", "team-red", TEAM),
    ("session=root", "admin-ops", IN),
    ("session=root", "team-red", IN),
    ("session=root", "team-blue", TEAM),
    ("session=root", "alice", OWN),
    ("session=s1", "carol-x", IN),
    ("session=s1", "s1", OWN),
    ("session=alice", "default alice team-red alice-inbox", IN),
    ("session=alice", "default admin-ops team-blue bob", ADMIN),
    ("session=alice", "team-red team-blue admin-ops", TEAM),
    ("session=alice", "alice bob admin-ops", OWN),
];

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/rust-role-based/policy.wasm")
}

async fn assert_decides_the_world(path: &Path) {
    let component = std::fs::read(path).expect("the component is there");
    let gateway = Gateway::behind(&component, SEED).await;
    for (cookies, channels, refusal) in WORLD {
        let what = format!("{cookies:?} {channels:?} by {}", path.display());
        // Nobody asks for the empty list: without a channel it is `default`.
        let query: String = channels.split_whitespace().map(|name| format!("channel={name}&")).collect();
        let target = format!("/api/realtime?{query}");
        let headers = [("cookie", *cookies)];
        let headers = if cookies.is_empty() { &[][..] } else { &headers };
        match refusal {
            None => {
                let mut sse = Sse::open(gateway.data, &target, headers).await;
                for _ in 0..channels.split_whitespace().count().max(1) {
                    assert_eq!(sse.frame().await["type"], "connected", "{what}");
                }
            }
            Some((status, body)) => {
                let reply = ask(gateway.data, "GET", &target, headers, "").await;
                assert_refused(&reply, *status, body, &what);
            }
        }
    }
    gateway.store.cut();
    for channel in ["default", "admin-x", "team-red", "bob"] {
        let target = format!("/api/realtime?channel={channel}");
        let reply = ask(gateway.data, "GET", &target, &[("cookie", "session=alice")], "").await;
        assert_refused(&reply, 503, "Try again", channel);
        let reply = ask(gateway.data, "GET", &target, &[], "").await;
        assert_refused(&reply, 401, "Unauthorized", channel);
    }
}

fn assert_refused(reply: &Reply, status: u16, body: &str, what: &str) {
    assert_eq!((reply.status, &*reply.body, &*reply.header("content-type")), (status, body, "text/plain"), "{what}");
    assert_eq!(reply.header("content-length"), body.len().to_string(), "{what}");
}

#[tokio::test]
async fn the_committed_policy_decides_the_example_world_byte_for_byte() {
    assert_decides_the_world(&committed()).await;
}

#[tokio::test]
async fn a_freshly_built_policy_decides_as_the_committed_one_does() {
    let folder = std::env::var_os("TIDEGATE_FRESH_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests"), PathBuf::from);
    let path = folder.join("rust-role-based.wasm");
    if path.exists() {
        assert_decides_the_world(&path).await;
    } else {
        let required = std::env::var_os("TIDEGATE_REQUIRE_GUESTS").is_some();
        assert!(!required, "{} is missing: cargo xtask guests builds it", path.display());
    }
}

#[tokio::test]
async fn a_policy_without_leave_to_look_up_lets_nobody_in() {
    let component = std::fs::read(committed()).expect("the component is there");
    let gateway = Gateway::behind(&component, "").await;
    let reply = ask(gateway.data, "GET", "/api/realtime", &[("cookie", "session=alice")], "").await;
    assert_refused(&reply, 503, "Try again", "denied");
    assert!(gateway.is_untouched());
}

#[tokio::test]
async fn the_operator_reads_who_and_why_and_the_client_does_not() {
    let component = std::fs::read(committed()).expect("the component is there");
    let gateway = Gateway::behind(&component, SEED).await;
    let mut decisions = gateway.app.gate.watch();
    let target = "/api/realtime?channel=team-blue";
    let reply = ask(gateway.data, "GET", target, &[("cookie", "session=alice")], "").await;
    assert_eq!(reply.status, 403);
    let watched = decisions.try_recv().expect("a decision");
    assert_eq!(watched.channels, ["team-blue"]);
    assert_eq!(watched.decision.reason.as_deref(), Some("alice is not in team blue"));
    assert!(watched.decision.policy.starts_with("sha256:"));
    assert!(!format!("{watched:?}").contains("session"), "no cookie is shown");
    let mut sse = Sse::open(gateway.data, "/api/realtime", &[("cookie", "session=alice")]).await;
    sse.connected("default").await;
    assert_eq!(gateway.store.own("default", "e", &json!(1)).await, sse.ids("default", 1).await[0]);
    let watched = decisions.try_recv().expect("a decision");
    let tidegate::policy::Outcome::Allowed(grant) = &watched.decision.outcome else { panic!("alice is let in") };
    assert_eq!(grant.subject.as_deref(), Some("alice"));
}
