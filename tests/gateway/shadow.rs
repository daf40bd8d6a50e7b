//! Shadow evaluation: decisions of a shadow policy are counted, and have no effect.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::audit::AuditConfig;
use tidegate::audit::mask::MaskedField;
use tidegate::policy::info::PolicyOrigin;
use tidegate::shadow::counts::ShadowCounts;
use tidegate::shadow::decision_change;
use tidegate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

use crate::client::{Sse, send_request};
use crate::guests::component;
use crate::harness::{Gateway, load, wait_until};
use crate::origin::{Answer, Origin as Server};

const ALL_REQUESTS: ShadowSampling = ShadowSampling { share: 1.0, concurrency: 4 };

/// Starts shadow evaluation of this policy.
fn start_shadow(gateway: &Gateway, policy: &[u8], share: ShadowSampling) -> Arc<ShadowPolicy> {
    let shadow =
        Arc::new(ShadowPolicy::new(load(policy), PolicyOrigin::default(), share, 100, gateway.app.audit.mask()));
    gateway.app.shadow.replace(Some(Arc::clone(&shadow)));
    shadow
}

/// Waits until the shadow policy has these counts.
async fn wait_for_counts(shadow: &ShadowPolicy, expect: ShadowCounts) {
    wait_until(&format!("{expect:?}, of {:?}", shadow.report()), || shadow.counts() == expect).await;
}

fn example() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/rust-role-based/policy.wasm");
    std::fs::read(path).expect("the component exists")
}

#[tokio::test]
async fn shadow_decisions_are_counted_without_effect() {
    let gateway = Gateway::with_policy(&component("allow"), "").await;
    gateway.open("channel=c").await.connected("c").await;
    let same = start_shadow(&gateway, &component("allow"), ALL_REQUESTS);
    gateway.open("channel=c").await.connected("c").await;
    wait_for_counts(&same, ShadowCounts { agree: 1, ..ShadowCounts::default() }).await;
    let other = start_shadow(&gateway, &component("deny"), ALL_REQUESTS);
    gateway.open("channel=c").await.connected("c").await;
    wait_for_counts(&other, ShadowCounts { allow_to_reject: 1, ..ShadowCounts::default() }).await;
    gateway.activate(&component("deny")).await.expect("it loads");
    assert_eq!(gateway.request("channel=c").await.status, 418);
    wait_for_counts(&other, ShadowCounts { allow_to_reject: 1, agree: 1, ..ShadowCounts::default() }).await;
    let last = start_shadow(&gateway, &component("allow"), ALL_REQUESTS);
    assert_eq!(gateway.request("channel=c").await.status, 418);
    wait_for_counts(&last, ShadowCounts { reject_to_allow: 1, ..ShadowCounts::default() }).await;
    assert_eq!(other.counts().agree + same.counts().agree, 2, "the previous shadow policy is not evaluated any more");
    let report = last.report();
    let disagreement = &report.disagreements[0];
    assert_eq!(
        (disagreement.change, disagreement.generation),
        (decision_change::DecisionChange::RejectToAllow, Some(2))
    );
    assert_eq!((disagreement.active.status, disagreement.shadow.outcome), (Some(418), "allowed"));
    gateway.app.shadow.replace(None);
    assert_eq!(gateway.request("channel=c").await.status, 418);
    assert_eq!(last.counts(), ShadowCounts { reject_to_allow: 1, ..ShadowCounts::default() });
}

#[tokio::test]
async fn shadow_policy_sees_only_lookups_of_the_active_policy() {
    let config = r#"
        policy.lookup.prefixes = ["session:", "team:", "forbidden:"]
        [memory-store.seed]
        "session:s1" = '{"id":"alice","role":"member"}'
        "team:red:members" = ["alice"]"#;
    let gateway = Gateway::with_policy(&example(), config).await;
    let masked = AuditConfig { masked_fields: vec![MaskedField::Channels], ..AuditConfig::default() };
    gateway.app.audit.configure(masked).expect("nothing is written");
    let open = async |query: &str| {
        let mut sse = Sse::open(gateway.data, &format!("/api/realtime?{query}"), &[("cookie", "session=s1")]).await;
        assert_eq!(sse.frame().await["type"], "connected");
    };
    let same = start_shadow(&gateway, &example(), ALL_REQUESTS);
    open("channel=team-red&channel=alice").await;
    assert_eq!(gateway.request("channel=alice").await.status, 401);
    wait_for_counts(&same, ShadowCounts { agree: 2, ..ShadowCounts::default() }).await;
    // A key that the active policy did not look up.
    let with_lookup = start_shadow(&gateway, &component("lookup"), ALL_REQUESTS);
    open("channel=alice").await;
    wait_for_counts(&with_lookup, ShadowCounts { incomparable: 1, ..ShadowCounts::default() }).await;
    // The store is unreachable for the active policy, and so for the shadow policy.
    let in_outage = start_shadow(&gateway, &example(), ALL_REQUESTS);
    gateway.store.disconnect();
    let reply = send_request(gateway.data, "GET", "/api/realtime?channel=alice", &[("cookie", "session=s1")], "").await;
    assert_eq!(reply.status, 503);
    wait_for_counts(&in_outage, ShadowCounts { agree: 1, ..ShadowCounts::default() }).await;
    let strict = start_shadow(&gateway, &component("deny"), ALL_REQUESTS);
    assert_eq!(send_request(gateway.data, "GET", "/api/realtime?channel=alice", &[], "").await.status, 401);
    wait_for_counts(&strict, ShadowCounts { other: 1, ..ShadowCounts::default() }).await;
    let disagreement = strict.report().disagreements.remove(0);
    assert_eq!(disagreement.changed_fields, ["status", "headers", "body"]);
    assert!(disagreement.channels[0].starts_with('~'), "masked as in the decision log: {disagreement:?}");
}

#[tokio::test]
async fn shadow_policy_sends_no_requests() {
    let server = Server::start(Answer::new("200 OK", "", "hello")).await;
    let hosts = format!("policy.egress.hosts = [{{ url = 'http://{}', allow-private = true }}]", server.address);
    let gateway = Gateway::with_policy(&component("allow"), &hosts).await;
    let shadow = start_shadow(&gateway, &component("fetch"), ALL_REQUESTS);
    let to = server.address.to_string();
    let headers = [("x-to", &*to), ("x-times", "i")];
    Sse::open(gateway.data, "/api/realtime?channel=c", &headers).await.connected("c").await;
    wait_for_counts(&shadow, ShadowCounts { incomparable: 1, ..ShadowCounts::default() }).await;
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn cached_decision_is_not_compared() {
    let gateway = Gateway::with_policy(&component("kept"), "").await;
    let shadow = start_shadow(&gateway, &component("kept"), ALL_REQUESTS);
    for _ in 0..3 {
        gateway.open("channel=g").await.connected("g").await;
    }
    wait_for_counts(&shadow, ShadowCounts { agree: 1, cached: 2, ..ShadowCounts::default() }).await;
}

#[tokio::test]
async fn shadow_share_selects_the_same_clients_each_time() {
    let gateway = Gateway::with_policy(&component("deny"), "").await;
    let shadow = start_shadow(&gateway, &component("deny"), ShadowSampling { share: 0.5, ..ALL_REQUESTS });
    let (mut evaluated, mut last) = (Vec::new(), 0);
    for number in [(0..30), (0..30)].into_iter().flatten() {
        let cookie = format!("session={number}");
        send_request(gateway.data, "GET", "/api/realtime?channel=c", &[("cookie", &*cookie)], "").await;
        // The permit is taken before the answer is sent, so the shadow evaluation has finished when its permit is free again.
        wait_until("no shadow evaluation is running", || shadow.is_idle()).await;
        let now = shadow.counts().agree;
        evaluated.push(now > last);
        last = now;
    }
    let (first, second) = evaluated.split_at(30);
    assert_eq!(first, second, "a client is either always or never part of the share");
    assert!((3..28).contains(&first.iter().filter(|evaluated| **evaluated).count()), "{first:?}");
}

/// `policy.timeout` in the test of hostile shadow policies. Even on a busy machine, opening a stream takes a small part of it.
const SHADOW_TIMEOUT: Duration = Duration::from_secs(2);

/// The median duration of this many opens, each of which the policy must allow.
async fn median(gateway: &Gateway, opens: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..opens {
        let start = Instant::now();
        gateway.open("channel=c").await.connected("c").await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[opens / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_shadow_policies_do_not_slow_down_decisions() {
    let gateway = Gateway::with_policy(&component("allow"), "policy.max-memory = '16MiB'\npolicy.timeout = '2s'").await;
    median(&gateway, 50).await;
    let alone = median(&gateway, 200).await;
    for name in ["trap", "spin", "sleep", "grow", "recurse", "huge-answer", "invalid-status", "mixed"] {
        let share = ShadowSampling { share: 1.0, concurrency: 3 };
        let shadow = start_shadow(&gateway, &component(name), share);
        let with_shadow = median(&gateway, 100).await;
        println!("{name}: {alone:?} without the shadow policy, {with_shadow:?} with it, {:?}", shadow.counts());
        // No decision waits for a shadow evaluation, which lasts for the timeout if the policy sleeps; they only share the cores.
        assert!(with_shadow < SHADOW_TIMEOUT, "{name}: {with_shadow:?} with the shadow policy, {alone:?} without it");
        wait_until("the shadow evaluations have finished", || shadow.is_idle()).await;
        let counts = shadow.counts();
        let sum = counts.agree + counts.allow_to_reject + counts.other + counts.error + counts.dropped;
        assert_eq!(sum, 100, "{name}: {counts:?}");
        assert!(counts.error > 0 || name == "mixed", "{name}: {counts:?}");
        assert!(counts.dropped > 0 || name != "spin", "{name}: {counts:?}");
        assert!(shadow.report().disagreements.len() <= 64, "{name}");
    }
}
