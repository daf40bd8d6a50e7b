//! What a channel remembers of the last resets of its store: where slow streams continue, and which entries were lost.

use crate::channel::sequencer::StoreReset;
use crate::event::{ContentHash, StreamId, short_hash};

/// A stream that misses more resets than these gets some entries twice, if the oldest of them has the least position.
const MAX_RESETS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Resets {
    /// Grows with each reset. A cursor of an older epoch may be beyond the end of the stream.
    epoch: u32,
    /// The last one began the epoch.
    last: Vec<StoreReset>,
}

impl Resets {
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Starts a new epoch.
    pub fn push(&mut self, reset: StoreReset) {
        self.epoch = self.epoch.wrapping_add(1);
        self.last.push(reset);
        if self.last.len() > MAX_RESETS {
            let oldest = self.last.remove(0);
            if let Some(next) = self.last.first_mut().filter(|next| oldest.position < next.position) {
                (next.position, next.common) = (oldest.position, oldest.common);
            }
        }
    }

    /// The reset that began this epoch.
    pub fn current(&self) -> Option<&StoreReset> {
        self.last.last()
    }

    /// The one of the resets after an epoch with the least position, where streams of that epoch continue; and the last entry that they received
    /// and the store still has, if it is known.
    pub fn least_since(&self, epoch: u32) -> Option<(&StoreReset, Option<StreamId>)> {
        let count = usize::try_from(self.epoch.wrapping_sub(epoch)).unwrap_or(usize::MAX);
        let since = self.last.get(self.last.len().saturating_sub(count)..)?;
        let reset = since.iter().min_by_key(|reset| reset.position)?;
        // Of a reset without a common entry it is not known what it left of those before.
        let common = reset.common.filter(|_| since.iter().all(|reset| reset.common.is_some()));
        Some((reset, common))
    }

    /// The reset that lost an entry with this id, with the position after which a client continues that has received it. `content` is the hash of
    /// the entry that has the id now, if there is one: the entry that was lost may have returned. `received` is that of the entry which the
    /// client has received, if it is known. With the reset comes the last entry that the client has received and the store still has, if it is
    /// known.
    pub fn that_lost(
        &self,
        id: StreamId,
        content: Option<u64>,
        received: Option<ContentHash>,
    ) -> Option<(&StoreReset, Option<StreamId>)> {
        let (mut position, mut found, mut is_common_known) = (id, None, true);
        for reset in &self.last {
            // Where the client would have continued may be lost, too.
            if position > reset.position && (found.is_some() || has_lost(reset, id, content, received)) {
                (position, found) = (reset.position, Some(reset));
            }
            is_common_known &= found.is_none() || reset.common.is_some();
        }
        found.map(|reset| (reset, reset.common.filter(|_| is_common_known)))
    }
}

fn has_lost(reset: &StoreReset, id: StreamId, content: Option<u64>, received: Option<ContentHash>) -> bool {
    let found = reset.lost.binary_search_by_key(&id, |(id, _)| *id);
    let Some((_, lost)) = found.ok().and_then(|index| reset.lost.get(index)) else { return false };
    let is_received = received.is_none() || short_hash(*lost).is_none_or(|lost| Some(lost) == received);
    is_received && content != Some(*lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId::new(ms, 0)
    }

    fn resets(of: &[(u64, &[u64])]) -> Resets {
        let mut resets = Resets::default();
        for (position, lost) in of {
            let (position, lost) = (id(*position), lost.iter().map(|ms| (id(*ms), 0)).collect());
            resets.push(StoreReset { position, common: Some(position), resumed: position, certain: true, lost });
        }
        resets
    }

    #[test]
    fn stream_that_missed_resets_continues_after_the_first_position() {
        let check = |positions: &[u64], missed: u32, expect: Option<u64>| {
            let resets = resets(&positions.iter().map(|position| (*position, &[][..])).collect::<Vec<_>>());
            let reset = resets.least_since(resets.epoch() - missed);
            assert_eq!(reset.map(|(reset, _)| reset.position.ms), expect, "{missed} of {positions:?}");
        };
        check(&[4, 7], 0, None);
        check(&[4, 7], 1, Some(7));
        check(&[4, 7], 2, Some(4));
        // More than are kept.
        check(&[3, 6, 7, 8, 9, 9], 1, Some(9));
        check(&[3, 6, 7, 8, 9, 9], 4, Some(3));
        check(&[3, 6, 7, 8, 9, 9], 6, Some(3));
    }

    #[test]
    fn common_entry_is_unknown_after_a_reset_without_one() {
        let mut resets = resets(&[(5, &[6]), (7, &[8])]);
        let common = |resets: &Resets| {
            let since = resets.least_since(0).and_then(|(_, common)| common);
            (since, resets.that_lost(id(6), None, None).and_then(|(_, common)| common))
        };
        assert_eq!(common(&resets), (Some(id(5)), Some(id(5))));
        let (position, lost) = (id(6), [(id(7), 0)].into());
        resets.push(StoreReset { position, common: None, resumed: position, certain: true, lost });
        assert_eq!(common(&resets), (None, None));
    }

    #[test]
    fn lost_id_has_the_position_where_its_client_continues() {
        let check = |resets: &Resets, lost, expect: Option<u64>| {
            assert_eq!(resets.that_lost(id(lost), None, None).map(|(reset, _)| reset.position.ms), expect, "{lost}");
        };
        let resets = resets(&[(5, &[6, 7]), (4, &[5, 8]), (6, &[9])]);
        check(&resets, 5, Some(4));
        check(&resets, 7, Some(4));
        check(&resets, 8, Some(4));
        check(&resets, 9, Some(6));
        check(&resets, 4, None);
        check(&resets, 10, None);
        // The entry is there again, or another one has its id.
        assert_eq!(resets.that_lost(id(9), Some(0), None), None);
        assert_eq!(resets.that_lost(id(9), Some(1), None).map(|(reset, _)| reset.position.ms), Some(6));
    }

    #[test]
    fn lost_entry_is_that_of_the_content_which_the_client_received() {
        let mut resets = Resets::default();
        let (position, lost) = (id(5), [(id(6), 7), (id(8), 0)].into());
        resets.push(StoreReset { position, common: Some(position), resumed: position, certain: true, lost });
        let check = |lost, received, expect: bool| {
            let received = ContentHash::new(received);
            assert_eq!(resets.that_lost(id(lost), None, received).is_some(), expect, "{lost} {received:?}");
        };
        check(6, 7, true);
        check(6, 3, false);
        // The content that was lost is not known.
        check(8, 3, true);
    }
}
