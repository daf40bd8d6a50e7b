//! A candidate is asked beside the policy in force: what it says is counted, and changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::audit::AuditConfig;
use tidegate::audit::mask::MaskedField;
use tidegate::policy::info::PolicyOrigin;
use tidegate::shadow::counts::ShadowCounts;
use tidegate::shadow::decision_change;
use tidegate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

use crate::client::{Sse, ask};
use crate::guests::component;
use crate::harness::{Gateway, load, until};
use crate::origin::{Answer, Origin as Server};

const ALL: ShadowSampling = ShadowSampling { share: 1.0, concurrency: 4 };

/// Asks this policy beside the one in force from now on.
fn propose(gateway: &Gateway, policy: &[u8], share: ShadowSampling) -> Arc<ShadowPolicy> {
    let candidate =
        Arc::new(ShadowPolicy::new(load(policy), PolicyOrigin::default(), share, 100, gateway.app.audit.mask()));
    gateway.app.shadow.replace(Some(Arc::clone(&candidate)));
    candidate
}

/// Waits until these are the counts.
async fn counts(candidate: &ShadowPolicy, expect: ShadowCounts) {
    until(&format!("{expect:?}, of {:?}", candidate.report()), || candidate.counts() == expect).await;
}

fn example() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/rust-role-based/policy.wasm");
    std::fs::read(path).expect("the component is there")
}

#[tokio::test]
async fn what_it_would_have_said_is_counted_and_has_no_effect() {
    let gateway = Gateway::behind(&component("allow"), "").await;
    gateway.open("channel=c").await.connected("c").await;
    let same = propose(&gateway, &component("allow"), ALL);
    gateway.open("channel=c").await.connected("c").await;
    counts(&same, ShadowCounts { agree: 1, ..ShadowCounts::default() }).await;
    let other = propose(&gateway, &component("deny"), ALL);
    gateway.open("channel=c").await.connected("c").await;
    counts(&other, ShadowCounts { allow_to_reject: 1, ..ShadowCounts::default() }).await;
    gateway.replace(&component("deny")).await.expect("it loads");
    assert_eq!(gateway.refused("channel=c").await.status, 418);
    counts(&other, ShadowCounts { allow_to_reject: 1, agree: 1, ..ShadowCounts::default() }).await;
    let last = propose(&gateway, &component("allow"), ALL);
    assert_eq!(gateway.refused("channel=c").await.status, 418);
    counts(&last, ShadowCounts { reject_to_allow: 1, ..ShadowCounts::default() }).await;
    assert_eq!(other.counts().agree + same.counts().agree, 2, "who was asked before is asked no more");
    let report = last.report();
    let told = &report.disagreements[0];
    assert_eq!((told.change, told.generation), (decision_change::DecisionChange::RejectToAllow, Some(2)));
    assert_eq!((told.active.status, told.shadow.outcome), (Some(418), "allowed"));
    gateway.app.shadow.replace(None);
    assert_eq!(gateway.refused("channel=c").await.status, 418);
    assert_eq!(last.counts(), ShadowCounts { reject_to_allow: 1, ..ShadowCounts::default() });
}

#[tokio::test]
async fn it_has_the_look_ups_of_the_real_run_and_no_others() {
    let world = r#"
        policy.lookup.prefixes = ["session:", "team:", "forbidden:"]
        [memory-store.seed]
        "session:s1" = '{"id":"alice","role":"member"}'
        "team:red:members" = ["alice"]"#;
    let gateway = Gateway::behind(&example(), world).await;
    let masked = AuditConfig { masked_fields: vec![MaskedField::Channels], ..AuditConfig::default() };
    gateway.app.audit.configure(masked).expect("nothing is written");
    let open = async |query: &str| {
        let mut sse = Sse::open(gateway.data, &format!("/api/realtime?{query}"), &[("cookie", "session=s1")]).await;
        assert_eq!(sse.frame().await["type"], "connected");
    };
    let same = propose(&gateway, &example(), ALL);
    open("channel=team-red&channel=alice").await;
    assert_eq!(gateway.refused("channel=alice").await.status, 401);
    counts(&same, ShadowCounts { agree: 2, ..ShadowCounts::default() }).await;
    // A key that the policy in force did not ask for.
    let curious = propose(&gateway, &component("lookup"), ALL);
    open("channel=alice").await;
    counts(&curious, ShadowCounts { incomparable: 1, ..ShadowCounts::default() }).await;
    // The store is away for the real run, and so for the candidate.
    let away = propose(&gateway, &example(), ALL);
    gateway.store.cut();
    let reply = ask(gateway.data, "GET", "/api/realtime?channel=alice", &[("cookie", "session=s1")], "").await;
    assert_eq!(reply.status, 503);
    counts(&away, ShadowCounts { agree: 1, ..ShadowCounts::default() }).await;
    let strict = propose(&gateway, &component("deny"), ALL);
    assert_eq!(ask(gateway.data, "GET", "/api/realtime?channel=alice", &[], "").await.status, 401);
    counts(&strict, ShadowCounts { other: 1, ..ShadowCounts::default() }).await;
    let told = strict.report().disagreements.remove(0);
    assert_eq!(told.changed_fields, ["status", "headers", "body"]);
    assert!(told.channels[0].starts_with('~'), "masked as in the decision log: {told:?}");
}

#[tokio::test]
async fn it_sends_nothing() {
    let server = Server::start(Answer::new("200 OK", "", "hello")).await;
    let hosts = format!("policy.egress.hosts = [{{ url = 'http://{}', allow-private = true }}]", server.address);
    let gateway = Gateway::behind(&component("allow"), &hosts).await;
    let candidate = propose(&gateway, &component("fetch"), ALL);
    let to = server.address.to_string();
    let headers = [("x-to", &*to), ("x-times", "i")];
    Sse::open(gateway.data, "/api/realtime?channel=c", &headers).await.connected("c").await;
    counts(&candidate, ShadowCounts { incomparable: 1, ..ShadowCounts::default() }).await;
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn an_answer_that_is_given_again_is_not_compared() {
    let gateway = Gateway::behind(&component("kept"), "").await;
    let candidate = propose(&gateway, &component("kept"), ALL);
    for _ in 0..3 {
        gateway.open("channel=g").await.connected("g").await;
    }
    counts(&candidate, ShadowCounts { agree: 1, cached: 2, ..ShadowCounts::default() }).await;
}

#[tokio::test]
async fn a_share_of_clients_is_asked_about() {
    let gateway = Gateway::behind(&component("deny"), "").await;
    let candidate = propose(&gateway, &component("deny"), ShadowSampling { share: 0.5, ..ALL });
    let (mut asked, mut last) = (Vec::new(), 0);
    for number in [(0..30), (0..30)].into_iter().flatten() {
        let cookie = format!("session={number}");
        ask(gateway.data, "GET", "/api/realtime?channel=c", &[("cookie", &*cookie)], "").await;
        // A place is taken before the answer goes out, so all that is asked is done when another one has its place back.
        until("nothing is being asked", || candidate.is_idle()).await;
        let now = candidate.counts().agree;
        asked.push(now > last);
        last = now;
    }
    let (first, second) = asked.split_at(30);
    assert_eq!(first, second, "the same client is always in or always out");
    assert!((3..28).contains(&first.iter().filter(|asked| **asked).count()), "{first:?}");
}

/// The median of so many opens, each of which has to come in.
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
async fn hostile_candidates_harm_nobody() {
    let gateway = Gateway::behind(&component("allow"), "policy.max-memory = '16MiB'\npolicy.timeout = '500ms'").await;
    median(&gateway, 50).await;
    let alone = median(&gateway, 200).await;
    for name in ["trap", "spin", "sleep", "grow", "recurse", "huge-answer", "invalid-status", "mixed"] {
        let share = ShadowSampling { share: 1.0, concurrency: 3 };
        let candidate = propose(&gateway, &component(name), share);
        let beside = median(&gateway, 100).await;
        println!("{name}: {alone:?} alone, {beside:?} beside it, {:?}", candidate.counts());
        // Nothing waits for it. What is left is that it and everything else share the cores.
        assert!(beside < alone * 5 + Duration::from_millis(20), "{name}: {beside:?} beside it, {alone:?} alone");
        until("it is done", || candidate.is_idle()).await;
        let counts = candidate.counts();
        let sum = counts.agree + counts.allow_to_reject + counts.other + counts.error + counts.dropped;
        assert_eq!(sum, 100, "{name}: {counts:?}");
        assert!(counts.error > 0 || name == "mixed", "{name}: {counts:?}");
        assert!(counts.dropped > 0 || name != "spin", "{name}: {counts:?}");
        assert!(candidate.report().disagreements.len() <= 64, "{name}");
    }
}
