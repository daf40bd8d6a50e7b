use std::pin::Pin;
use std::time::Duration;

use super::*;
use crate::stream::chunk::CHUNK_BYTES;
use crate::stream::fixture::Fixture;
use crate::stream::registry::EndReason;

/// The next chunk, as hyper would write it.
async fn chunk(stream: &mut EventStream) -> Option<Bytes> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_frame(cx));
    let frame = tokio::time::timeout(Duration::from_secs(15), frame).await.expect("a chunk, or the end");
    frame.map(|Ok(frame)| frame.into_data().expect("bytes"))
}

#[tokio::test]
async fn remainder_of_a_frame_is_not_sent_after_a_revocation() {
    for (revoke, expected) in [(true, ""), (false, "reconnect")] {
        let fixture = Fixture::new();
        let mut stream = fixture.stream();
        while !chunk(&mut stream).await.expect("the first frames").ends_with(b"}\n\n") {}
        fixture.emit(&"x".repeat(20 * CHUNK_BYTES)).await;
        assert!(chunk(&mut stream).await.expect("the event").starts_with(b"id: "));
        assert_eq!(chunk(&mut stream).await.expect("its first bytes").len(), CHUNK_BYTES);
        if revoke {
            fixture.revoke();
        } else {
            assert_eq!(fixture.streams.rotate(2, Duration::ZERO), 1);
            while fixture.streams.ended(EndReason::Rotated) == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut remainder = Vec::new();
        while let Some(bytes) = chunk(&mut stream).await {
            remainder.extend_from_slice(&bytes);
        }
        assert!(
            String::from_utf8_lossy(&remainder).contains(expected) && remainder.is_empty() == revoke,
            "{}",
            remainder.len()
        );
    }
}
