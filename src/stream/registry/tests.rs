use super::*;

fn reader(subject: &str) -> Reader {
    Reader {
        request: String::new(),
        subject: Some(subject.into()),
        channels: Box::new(["c".into()]),
        address: "".into(),
        since: 0,
        expires_at: None,
        version: 1,
    }
}

fn whom(subject: &str) -> Whom {
    Whom { subject: Some(subject.into()), channel: None }
}

#[tokio::test]
async fn who_registers_behind_a_revocation_is_found() {
    let streams = Streams::new(10);
    let place = || streams.admit(Cut::default()).expect("there is room");
    let registered = |ticket: &Ticket, subject| {
        ticket.register(reader(subject), None);
        ticket.shall_end(Waker::noop())
    };
    let (alice, bob) = (place(), place());
    assert_eq!(streams.revoke(&whom("alice")), 0, "nobody knows yet who they are");
    assert!(registered(&alice, "alice") && !registered(&bob, "bob"));
    let later = place();
    assert!(!registered(&later, "alice"), "it was decided about behind that");
    assert_eq!((streams.revoke(&whom("alice")), streams.ended(Why::Revoked)), (2, 2));
    assert!(later.shall_end(Waker::noop()) && !bob.shall_end(Waker::noop()));
}

#[tokio::test]
async fn who_may_have_been_meant_by_what_is_forgotten_counts_as_meant() {
    let streams = Streams::new(10);
    for (revocations, ends) in [(REMEMBERED, false), (REMEMBERED + 1, true)] {
        let ticket = streams.admit(Cut::default()).expect("there is room");
        (0..revocations).for_each(|n| {
            streams.revoke(&whom(&n.to_string()));
        });
        ticket.register(reader("alice"), None);
        assert_eq!(ticket.shall_end(Waker::noop()), ends, "{revocations}");
    }
}
