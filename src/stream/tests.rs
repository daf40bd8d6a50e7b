use super::*;
use crate::channel::order::Why;
use crate::event::user_frame;

fn event(ms: u64, frame: &Bytes) -> Out {
    Out { at: StreamId::new(ms, 0), frame: frame.clone(), is_gap: false }
}

/// The bytes of every frame that a stream writes itself.
#[test]
fn blocks_as_they_are_written() {
    let channels = ["team-red".to_owned(), "gr\u{fc}n\n".to_owned()];
    let mut positions = Positions::new(&channels);
    positions.set(1, Some(StreamId::new(255, 1)));
    let mut out = Piece::default();
    out.connected(&positions, "team-red", StreamId::new(16, 0));
    let frame = user_frame(StreamId::new(17, 0), "e", "{\"a\":1}", "team-red");
    assert!(out.item(&mut positions, 0, &event(17, &frame)));
    let gap = Gap { after: StreamId::new(17, 0), resumed: StreamId::new(19, 2), certain: true, why: Why::Trimmed };
    out.gap(&positions, &channels[1], gap);
    out.error("team-red");
    let expect = concat!(
        "id: 1fb25166:-,ff-1\n",
        "data: {\"type\":\"connected\",\"channel\":\"team-red\",\"cursor\":\"16-0\"}\n\n",
        "id: 1fb25166:11-0,ff-1\n",
        "data: {\"id\":\"17-0\",\"data\":{\"a\":1},\"event\":\"e\",\"channel\":\"team-red\"}\n\n",
        "id: 1fb25166:11-0,ff-1\n",
        "data: {\"type\":\"gap\",\"channel\":\"gr\u{fc}n\\n\",\"after\":\"17-0\",\"resumed\":\"19-2\",\"certain\":true,\"reason\":\"trimmed\"}\n\n",
        "data: {\"type\":\"error\",\"error\":\"channel \\\"team-red\\\" cannot be read\"}\n\n",
    );
    assert_eq!(String::from_utf8_lossy(&out.bytes), expect);
}

#[test]
fn a_large_frame_ends_the_piece_and_is_not_copied() {
    let mut positions = Positions::new(&["c".to_owned()]);
    let mut out = Piece::default();
    let large = Bytes::from(vec![b'x'; PIECE]);
    assert!(out.item(&mut positions, 0, &event(1, &large)));
    assert_eq!(out.rest.as_ptr(), large.as_ptr());
    assert!(!out.item(&mut positions, 0, &event(2, &Bytes::from_static(b"data: x\n\n"))));
    assert_eq!(positions.get(0), Some(StreamId::new(1, 0)), "nothing was written, so nothing was seen");
}
