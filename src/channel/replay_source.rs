//! The channel as a replay sees it: what a stream reads from the store by itself counts only while the channel has proven that the store still
//! has what the channel read.

use std::sync::Arc;

use crate::channel::sequencer::EntryKey;
use crate::channel::{Channel, ChannelState, Reads};
use crate::event::StreamId;
use crate::store::Page;

/// When a channel was proven. A page that was read later counts until another master may have taken over.
#[derive(Clone, Copy, Debug)]
pub struct ProofToken {
    takeovers: u32,
    epoch: u32,
    /// The channel had read everything up to here.
    read_to: StreamId,
}

pub struct ReplaySource(Arc<Channel>);

impl ReplaySource {
    pub(super) fn new(channel: &Arc<Channel>) -> Self {
        Self(Arc::clone(channel))
    }

    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Waits until the channel is proven. `None` if the store was reset since this epoch: the stream has to pull first.
    pub async fn proven(&self, epoch: u32) -> Option<ProofToken> {
        loop {
            // Before the look at the state, so that no wake-up is lost in between.
            let proven = self.0.proven.notified();
            if let Some(token) = self.0.state.lock().proof_token() {
                return (token.epoch == epoch).then_some(token);
            }
            proven.await;
        }
    }

    /// Whether a page counts that was read after this token was obtained.
    pub fn is_current(&self, token: ProofToken) -> bool {
        self.0.is_current(token)
    }

    /// Whether a page that was read after this position, after the token was obtained, shows that the store was reset, unnoticed by the channel.
    pub fn is_contradicted_by(&self, after: StreamId, page: &Page, token: ProofToken) -> bool {
        let state = self.0.state.lock();
        state.opened && state.sequencer.is_contradicted_by(after..=token.read_to, page)
    }

    /// Waits until the channel has read everything up to this entry of a page, so that it can tell if the store loses it. False if the page does
    /// not count any more, or if the channel does not find the entry.
    pub async fn has_read(&self, id: StreamId, token: ProofToken) -> bool {
        let mut required = None;
        loop {
            // Before the look at the state, so that no wake-up is lost in between.
            let read = self.0.proven.notified();
            if let Some(result) = self.look_for(id, token, &mut required) {
                return result;
            }
            read.await;
        }
    }

    /// The result of [`Self::has_read`]; `None` while a read is needed. `required` is the number of a read that finds the entry if it is there.
    fn look_for(&self, id: StreamId, token: ProofToken, required: &mut Option<u64>) -> Option<bool> {
        if !self.0.is_current(token) {
            return Some(false);
        }
        let state = self.0.state.lock();
        if !state.opened || state.sequencer.read_to() >= id {
            return Some(true);
        }
        let Reads { started, completed, requested, in_flight, .. } = state.reads;
        match *required {
            None => {
                *required = Some(started + 1);
                self.0.request_read(state);
                None
            }
            Some(required) => (completed >= required && !requested && !in_flight).then_some(false),
        }
    }

    /// Makes the channel prove what it read.
    pub fn require_proof(&self) {
        self.0.require_proof(self.0.state.lock());
    }

    /// The entries that the last reset lost. A stream may have received those up to the position where it was.
    pub fn lost(&self) -> Arc<[EntryKey]> {
        let state = self.0.state.lock();
        state.resets.current().map_or_else(Arc::default, |reset| Arc::clone(&reset.lost))
    }
}

impl Channel {
    pub(super) fn is_current(&self, token: ProofToken) -> bool {
        let now = self.state.lock().proof_token();
        now.is_some_and(|now| (now.takeovers, now.epoch) == (token.takeovers, token.epoch))
    }
}

impl ChannelState {
    /// `None` while the channel is not proven.
    fn proof_token(&self) -> Option<ProofToken> {
        let (epoch, read_to) = (self.resets.epoch(), self.sequencer.read_to());
        let token = ProofToken { takeovers: self.takeovers, epoch, read_to };
        (!self.opened || !self.sequencer.needs_proof()).then_some(token)
    }
}
