//! Positions in requests and in `id:` lines.

use super::*;

#[test]
fn acks_are_times_or_stream_ids() {
    let check = |text: &str, expect: Option<StartPosition>| assert_eq!(parse_ack(text), expect, "{text:?}");
    check("0", Some(StartPosition::From(StreamId::ZERO)));
    check("1732464000000", Some(StartPosition::From(StreamId::new(1_732_464_000_000, 0))));
    check("5-7", Some(StartPosition::Id(StreamId::new(5, 7))));
    check("5-0", Some(StartPosition::IdOrTime(StreamId::new(5, 0))));
    check("5-07", Some(StartPosition::Between(StreamId::new(5, 7))));
    check("5-00", Some(StartPosition::Between(StreamId::new(5, 0))));
    check("5-18446744073709551615", Some(StartPosition::Between(StreamId::new(5, u64::MAX))));
    for bad in ["", "abc", "1-2-3", "12345678901234567890", "-1", "1.5", "NaN", "5-", "+5", " 5"] {
        let expect = (bad == "12345678901234567890")
            .then_some(StartPosition::From(StreamId::new(12_345_678_901_234_567_890, 0)));
        check(bad, expect);
    }
    check("99999999999999999999", None);
}

fn at(ms: u64, seq: u64) -> KnownPosition {
    KnownPosition::At(Position::entry(StreamId::new(ms, seq)))
}

/// Positions in these channels.
fn of(known: &[(&str, KnownPosition)]) -> Positions {
    let mut positions = Positions::new(&known.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    known.iter().enumerate().for_each(|(i, (_, position))| positions.set(i, *position));
    positions
}

/// The id of a line, whose length was computed before.
fn id(positions: &Positions) -> String {
    let mut line = BytesMut::new();
    positions.write_line(&mut line);
    assert_eq!(line.len(), positions.line_bytes());
    let line = String::from_utf8(line.to_vec()).expect("text");
    line.strip_prefix("id: ").and_then(|line| line.strip_suffix('\n')).expect("a line").to_owned()
}

/// What a stream of these channels takes from an id.
fn resumed(channels: &[&str], id: &[u8]) -> Vec<KnownPosition> {
    let mut positions = of(&channels.iter().map(|name| (*name, KnownPosition::None)).collect::<Vec<_>>());
    positions.resume(id);
    (0..channels.len()).map(|i| positions.get(i)).collect()
}

#[test]
fn written_ids_resume_the_same_positions() {
    let last = KnownPosition::At(Position { id: StreamId::new(u64::MAX, u64::MAX), is_entry: false, content: None });
    let entry = |content| {
        let position = Position::entry(StreamId::new(0x193a, 1));
        KnownPosition::At(Position { content: ContentHash::new(content), ..position })
    };
    let known = [
        ("a", at(0x193a, 1)),
        ("b", KnownPosition::None),
        ("c", last),
        ("d", entry(u32::MAX)),
        ("e", entry(0x1a)),
        ("", KnownPosition::Unusable),
    ];
    let text = id(&of(&known));
    assert_eq!(
        text,
        "ca978112:193a-1,3e23e816:-,2e7d2c03:ffffffffffffffff-ffffffffffffffff,18ac3e73:193a-1-ffffffff,\
         3f79bb7b:193a-1-1a,e3b0c442:?"
    );
    assert_eq!(resumed(&known.map(|(name, _)| name), text.as_bytes()), known.map(|(_, position)| position));
}

#[test]
fn position_that_is_not_an_entry_stays_one() {
    let check = |position: Position, text: &str, start: StartPosition| {
        assert_eq!(parse_ack(text), Some(start));
        let line = id(&of(&[("a", KnownPosition::At(position))]));
        let [KnownPosition::At(position)] = resumed(&["a"], line.as_bytes())[..] else { panic!("{line}") };
        assert_eq!(position.start(), start, "{line}");
    };
    let id = StreamId::new(25, 0);
    let entry = StreamId::new(25, 7);
    check(Position::entry(entry), "25-7", StartPosition::Id(entry));
    check(Position { id: entry, is_entry: false, content: None }, "25-07", StartPosition::Between(entry));
    check(Position { id, is_entry: false, content: None }, "25-00", StartPosition::Between(id));
    let id = StreamId::new(25, u64::MAX);
    check(Position { id, is_entry: false, content: None }, "25-18446744073709551615", StartPosition::Between(id));
    // An empty stream is not marked: nothing is before it.
    let position = Position { id: StreamId::ZERO, is_entry: false, content: None };
    check(position, "0-0", StartPosition::Id(StreamId::ZERO));
}

#[test]
fn ids_are_hex_without_leading_zeros() {
    let numbers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]).chain([u64::MAX]);
    for number in numbers {
        let line = id(&of(&[("a", KnownPosition::None), ("b", at(number, number / 3))]));
        assert_eq!(line, format!("ca978112:-,3e23e816:{number:x}-{:x}", number / 3));
    }
}

#[test]
fn id_of_another_list_resumes_the_channels_of_both() {
    let ab = id(&of(&[("a", at(7, 7)), ("b", at(8, 8))]));
    let check = |channels: &[&str], expect: &[KnownPosition]| {
        assert_eq!(resumed(channels, ab.as_bytes()), expect, "{channels:?}");
    };
    check(&["a", "b"], &[at(7, 7), at(8, 8)]);
    check(&["b", "a"], &[at(8, 8), at(7, 7)]);
    check(&["b"], &[at(8, 8)]);
    check(&["c", "b", "d", "a"], &[KnownPosition::None, at(8, 8), KnownPosition::None, at(7, 7)]);
    check(&["c", "ab"], &[KnownPosition::Unusable; 2]);
    // Two channels with one hash: only their own list tells them apart.
    let twice = "ca978112:7-7,ca978112:8-8,3e23e816:9-9";
    assert_eq!(resumed(&["c", "b", "a"], twice.as_bytes())[2], KnownPosition::Unusable);
    assert_eq!(resumed(&["c", "a", "b"], twice.as_bytes())[1], at(8, 8));
}

#[test]
fn usable_parts_of_an_id_are_used_and_others_are_noticed() {
    let check = |id: &[u8], expect: KnownPosition| {
        assert_eq!(resumed(&["a", "b"], id), [expect; 2], "{}", String::from_utf8_lossy(id));
    };
    for id in [
        "",
        "0",
        "42",
        "-",
        "?",
        ":",
        ",",
        "1732464000000",
        "1732464000000-0",
        "zzzzzzzz:1-1,zzzzzzzz:2-2",
        "ca978112",
        "CA978112:1-1,3E23E816:2-2",
        "26580d00:1a228a4e91d-0,1a228a4eaa8-0",
        "00000000:1-1,00000000:2-2",
    ] {
        check(id.as_bytes(), KnownPosition::Unusable);
    }
    check(b"\xff\xfe", KnownPosition::Unusable);
    check(b"ca978112:1-1\xff,x", KnownPosition::Unusable);
    check(&vec![b'x'; 60_000], KnownPosition::Unusable);
    check(&b"00000000:1-1,".repeat(5_000), KnownPosition::Unusable);
    for bad in [
        "",
        "1",
        "x-1",
        "+2-1",
        "1-",
        "-1-0",
        "10000000000000000-0",
        "1-1-",
        "1-1-0",
        "1-1-x",
        "1-1-100000000",
        "1-1-1-1",
        "1-00-1",
        "??",
        "--",
    ] {
        let id = format!("ca978112:{bad},3e23e816:2-2");
        assert_eq!(resumed(&["a", "b"], id.as_bytes()), [KnownPosition::Unusable, at(2, 2)], "{id}");
    }
    // If a part cannot be read, it may have been that of the other channel.
    for cut in ["3e23e816:2-2,ca97", "ca97811:1-1,3e23e816:2-2", "3e23e816:2-2,", "3e23e816:2-2, ca978112:1-1"] {
        assert_eq!(resumed(&["a", "b"], cut.as_bytes()), [KnownPosition::Unusable, at(2, 2)], "{cut}");
    }
    // The id of an entry is that of the only channel.
    assert_eq!(resumed(&["a"], b"1732464000000-3"), [at(1_732_464_000_000, 3)]);
    for id in ["1732464000000", "1-2-3", "-1-0", "99999999999999999999-0", "x-0"] {
        assert_eq!(resumed(&["a"], id.as_bytes()), [KnownPosition::Unusable], "{id}");
    }
}
