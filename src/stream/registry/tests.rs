use super::*;

fn reader(subject: &str) -> StreamInfo {
    StreamInfo {
        request: String::new(),
        subject: Some(subject.into()),
        channels: Box::new(["c".into()]),
        address: "".into(),
        since: 0,
        expires_at: None,
        version: 1,
    }
}

fn selector(subject: &str) -> StreamSelector {
    StreamSelector { subject: Some(subject.into()), channel: None }
}

#[tokio::test]
async fn who_registers_behind_a_revocation_is_found() {
    let streams = StreamRegistry::new(10);
    let place = || streams.admit(AbortSignal::default()).expect("there is room");
    let registered = |ticket: &StreamPermit, subject| {
        ticket.register(reader(subject), None);
        ticket.shall_end(Waker::noop())
    };
    let (alice, bob) = (place(), place());
    assert_eq!(streams.revoke(&selector("alice")), 0, "nobody knows yet who they are");
    assert!(registered(&alice, "alice") && !registered(&bob, "bob"));
    let later = place();
    assert!(!registered(&later, "alice"), "it was decided about behind that");
    assert_eq!((streams.revoke(&selector("alice")), streams.ended(EndReason::Revoked)), (2, 2));
    assert!(later.shall_end(Waker::noop()) && !bob.shall_end(Waker::noop()));
}

#[tokio::test]
async fn who_may_have_been_meant_by_what_is_forgotten_counts_as_meant() {
    let streams = StreamRegistry::new(10);
    for (revocations, ends) in [(REMEMBERED, false), (REMEMBERED + 1, true)] {
        let ticket = streams.admit(AbortSignal::default()).expect("there is room");
        (0..revocations).for_each(|n| {
            streams.revoke(&selector(&n.to_string()));
        });
        ticket.register(reader("alice"), None);
        assert_eq!(ticket.shall_end(Waker::noop()), ends, "{revocations}");
    }
}

/// When those streams go, in ms from now: of so many, each so old, when there is so much time.
async fn rotated(ages: &[u64], within: Duration) -> Vec<u128> {
    let streams = StreamRegistry::new(ages.len());
    let oldest = ages.iter().max().copied().unwrap_or_default();
    let begun = Instant::now();
    let mut tickets = Vec::new();
    for age in ages {
        tokio::time::sleep_until(begun + Duration::from_secs(oldest - age)).await;
        let ticket = streams.admit(AbortSignal::default()).expect("there is room");
        ticket.register(reader("alice"), None);
        tickets.push(ticket);
    }
    tokio::time::sleep_until(begun + Duration::from_secs(oldest)).await;
    let now = Instant::now();
    assert_eq!(streams.rotate(2, within), ages.len());
    streams.0.live().due.iter().map(|(at, ..)| (*at - now).as_millis()).collect()
}

fn steps(first: u128, step: u128, count: u128) -> Vec<u128> {
    (0..count).map(|n| first + n * step).collect()
}

#[tokio::test(start_paused = true)]
async fn rotation_is_even_however_old_streams_are() {
    let minute = Duration::from_secs(60);
    assert_eq!(rotated(&[60; 100], minute).await, steps(0, 600, 100));
    assert_eq!(rotated(&[0; 100], minute).await, steps(10_000, 500, 100), "they are let alone at first");
    assert_eq!(rotated(&[3; 100], Duration::from_secs(10)).await, steps(5_000, 50, 100), "and not until the end");
    let mixed = [[60; 50], [8; 50]].concat();
    assert_eq!(rotated(&mixed, minute).await, steps(0, 600, 100), "the young ones are the last anyway");
    assert_eq!(rotated(&[0; 100], Duration::ZERO).await, steps(0, 0, 100), "all of them, now");
}
