use super::*;

fn info(subject: &str) -> StreamInfo {
    StreamInfo {
        request_id: String::new(),
        subject: Some(subject.into()),
        channels: Box::new(["c".into()]),
        address: None,
        since: 0,
        expires_at: None,
        generation: 1,
    }
}

fn selector(subject: &str) -> StreamSelector {
    StreamSelector { subject: Some(subject.into()), channel: None }
}

#[tokio::test]
async fn stream_registered_after_revocation_is_closed() {
    let streams = StreamRegistry::new(10);
    let admit = || streams.admit(None, AbortSignal::default()).expect("a permit");
    let is_ended_on_registration = |permit: &StreamPermit, subject| {
        permit.register(info(subject), None);
        permit.is_end_requested(Waker::noop())
    };
    let (alice, bob) = (admit(), admit());
    assert_eq!(streams.revoke(&selector("alice")), 0, "their subjects are not known yet");
    assert!(is_ended_on_registration(&alice, "alice") && !is_ended_on_registration(&bob, "bob"));
    let later = admit();
    assert!(!is_ended_on_registration(&later, "alice"), "it was admitted after the revocation");
    assert_eq!((streams.revoke(&selector("alice")), streams.ended(EndReason::Revoked)), (2, 2));
    assert!(later.is_end_requested(Waker::noop()) && !bob.is_end_requested(Waker::noop()));
}

#[tokio::test]
async fn scarce_streams_are_refused_to_those_who_have_most() {
    let streams = StreamRegistry::new(20);
    let network = |last: u8| Some([192, 0, 2, last].into());
    let admit = |last| streams.admit(network(last), AbortSignal::default());
    let many: Vec<_> = (0..16).map(|_| admit(1).expect("not scarce")).collect();
    let mut first = admit(2).expect("the first of its network");
    assert_eq!(admit(1).err(), Some(Refusal::ShareExceeded));
    let mut proxied: Vec<_> =
        (0..3).map(|_| streams.admit(None, AbortSignal::default()).expect("only the limit applies")).collect();
    assert_eq!(admit(3).err(), Some(Refusal::Exhausted));
    drop(many);
    // By subject, whatever the network.
    let mut decided: Vec<_> = (0..16).map(|n| admit(10 + n).expect("not scarce any more")).collect();
    for permit in &mut decided {
        permit.set_subject("flood".into()).expect("not scarce");
    }
    assert_eq!(proxied[1].set_subject("flood".into()), Err(Refusal::ShareExceeded), "room for other subjects");
    first.set_subject("other".into()).expect("the first of this subject");
    assert_eq!(proxied[1].set_subject("flood".into()), Err(Refusal::ShareExceeded));
}

#[tokio::test]
async fn stream_that_missed_forgotten_revocations_is_closed() {
    let streams = StreamRegistry::new(10);
    for (revocations, ends) in [(MAX_RECENT_REVOCATIONS, false), (MAX_RECENT_REVOCATIONS + 1, true)] {
        let permit = streams.admit(None, AbortSignal::default()).expect("a permit");
        (0..revocations).for_each(|n| {
            streams.revoke(&selector(&n.to_string()));
        });
        permit.register(info("alice"), None);
        assert_eq!(permit.is_end_requested(Waker::noop()), ends, "{revocations}");
    }
}

/// The times at which a rotation ends streams of these ages in seconds, in ms from its start.
async fn rotated(ages: &[u64], window: Duration) -> Vec<u128> {
    let streams = StreamRegistry::new(ages.len());
    let oldest = ages.iter().max().copied().unwrap_or_default();
    let started = Instant::now();
    let mut permits = Vec::new();
    for age in ages {
        tokio::time::sleep_until(started + Duration::from_secs(oldest - age)).await;
        let permit = streams.admit(None, AbortSignal::default()).expect("a permit");
        permit.register(info("alice"), None);
        permits.push(permit);
    }
    tokio::time::sleep_until(started + Duration::from_secs(oldest)).await;
    let now = Instant::now();
    assert_eq!(streams.rotate(2, window), ages.len());
    streams.0.state.lock().due.iter().map(|(at, ..)| (*at - now).as_millis()).collect()
}

fn steps(first: u128, step: u128, count: u128) -> Vec<u128> {
    (0..count).map(|n| first + n * step).collect()
}

#[tokio::test(start_paused = true)]
async fn rotation_is_even_whatever_the_age_of_streams() {
    let minute = Duration::from_secs(60);
    assert_eq!(rotated(&[60; 100], minute).await, steps(0, 600, 100));
    assert_eq!(rotated(&[0; 100], minute).await, steps(10_000, 500, 100), "not before their minimum age");
    assert_eq!(rotated(&[3; 100], Duration::from_secs(10)).await, steps(5_000, 50, 100), "half of the window remains");
    let mixed = [[60; 50], [8; 50]].concat();
    assert_eq!(rotated(&mixed, minute).await, steps(0, 600, 100), "the younger ones come last anyway");
    assert_eq!(rotated(&[0; 100], Duration::ZERO).await, steps(0, 0, 100), "all of them at once");
}
