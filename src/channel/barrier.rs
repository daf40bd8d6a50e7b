//! One stream of the store that goes before all channels: after a lost link none of them goes on before that one was read to its
//! end. What it holds is its reader's business.

use std::sync::Arc;

use tokio::sync::watch;

use crate::event::StreamId;

/// The stream that goes first, between the hub, which hears of it, and its reader.
pub struct CommandBarrier {
    key: Arc<str>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    link: Link,
    /// Grows with all that is heard, so that a read does not count for what came while it was under way.
    turn: u64,
    /// How far it was read.
    read_to: StreamId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// The subscription is not confirmed.
    Down,
    /// There is something to be read.
    Behind,
    /// It was read to its end, and whatever comes will ring.
    CaughtUp,
}

/// Something is to be read; to be given to [`CommandBarrier::caught_up`] behind a read that began after this was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpToken(u64);

impl CommandBarrier {
    pub(super) fn new(key: Arc<str>) -> Self {
        Self { key, state: watch::Sender::new(State { link: Link::Down, turn: 0, read_to: StreamId::ZERO }) }
    }

    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub(super) fn watching(&self) {
        self.go(|_| Link::Behind);
    }

    pub(super) fn rang(&self) {
        self.go(|link| if link == Link::Down { link } else { Link::Behind });
    }

    pub(super) fn lost(&self) {
        self.go(|_| Link::Down);
    }

    fn go(&self, to: impl FnOnce(Link) -> Link) {
        self.state.send_modify(|state| *state = State { link: to(state.link), turn: state.turn + 1, ..*state });
    }

    /// Whether channels may go on.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.state.borrow().link == Link::CaughtUp
    }

    /// Waits until channels may go on.
    pub async fn passed(&self) {
        if !self.is_caught_up() {
            // The sender is this one's own, so it is not gone.
            let _ = self.state.subscribe().wait_for(|state| state.link == Link::CaughtUp).await;
        }
    }

    /// It was seen to end here, beside something else that was read. A doorbell that did not ring makes no difference so.
    pub(super) fn stands_at(&self, last: StreamId) {
        self.state.send_if_modified(|state| {
            let is_news = state.link == Link::CaughtUp && state.read_to != last;
            if is_news {
                *state = State { link: Link::Behind, turn: state.turn + 1, ..*state };
            }
            is_news
        });
    }

    /// It could not be read: no channel goes on until it can.
    pub fn unread(&self) {
        self.rang();
    }

    /// It was read up to here.
    pub fn read_to(&self, at: StreamId) {
        self.state.send_if_modified(|state| {
            state.read_to = at;
            // Nobody waits for that.
            false
        });
    }

    /// Waits until there is something to be read.
    pub async fn wanted(&self) -> CatchUpToken {
        let mut state = self.state.subscribe();
        let turn = state.wait_for(|state| state.link == Link::Behind).await.map_or(0, |state| state.turn);
        CatchUpToken(turn)
    }

    /// Lets the channels go on, if nothing was heard since.
    pub fn caught_up(&self, turn: CatchUpToken) {
        self.state.send_if_modified(|state| {
            let is_all = state.link == Link::Behind && state.turn == turn.0;
            if is_all {
                state.link = Link::CaughtUp;
            }
            is_all
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_is_heard_while_it_is_read_is_read_too() {
        let lead = CommandBarrier::new("first".into());
        let wanted = || lead.wanted().now_or_never();
        let may_go_on = || lead.passed().now_or_never().is_some();
        assert!(wanted().is_none() && !may_go_on(), "nothing is known of it");
        lead.rang();
        assert!(wanted().is_none(), "a link that is down has to be confirmed first");
        lead.watching();
        let turn = wanted().expect("it is to be read");
        lead.rang();
        lead.caught_up(turn);
        assert!(!may_go_on(), "it rang while it was read");
        lead.caught_up(wanted().expect("once more"));
        assert!(may_go_on() && wanted().is_none());
        lead.rang();
        let turn = wanted().expect("there is more");
        assert!(!may_go_on());
        lead.lost();
        lead.watching();
        lead.caught_up(turn);
        assert!(!may_go_on(), "the link was lost while it was read");
        lead.caught_up(wanted().expect("anew"));
        assert!(may_go_on());
    }

    #[test]
    fn what_did_not_ring_is_seen_by_whoever_reads() {
        let lead = CommandBarrier::new("first".into());
        let catch_up = |at| {
            let turn = lead.wanted().now_or_never().expect("it is to be read");
            lead.read_to(at);
            lead.caught_up(turn);
        };
        let [one, two] = [1, 2].map(|ms| StreamId::new(ms, 0));
        lead.watching();
        catch_up(one);
        lead.stands_at(one);
        assert!(lead.is_caught_up());
        for seen in [two, StreamId::ZERO] {
            lead.stands_at(seen);
            assert!(!lead.is_caught_up(), "there is more, or less, than was read");
            catch_up(seen);
            assert!(lead.is_caught_up());
        }
        lead.unread();
        assert!(!lead.is_caught_up());
    }
}
