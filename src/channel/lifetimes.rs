//! The channels of a node and their lifetimes: a channel is created when it is first joined, and lingers after its last member left. All
//! of them together stay within a limit; when a client needs room, the channel that has lingered longest is removed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::channel::membership::Member;
use crate::channel::reader::jitter;
use crate::channel::{Channel, Link};
use crate::util::client_key::ClientKey;
use crate::util::client_shares::{ClientShare, ClientShares};
use crate::util::shares::Refusal;

/// What a channel costs in addition to its name: its state, its task while it is read, the last entries that it read (1.5 KiB), its
/// subscription, and a subscription that is being
/// cancelled. Measured by `tests/process/fairness.rs`.
pub(super) const CHANNEL_BYTES: usize = 4096;

/// Channels that a walk visits under one lock: streams that open meanwhile wait for less than a millisecond.
pub(super) const MAX_CHANNELS_PER_STEP: usize = 256;

/// All channels of a node.
pub(super) struct Lifetimes {
    pub by_name: HashMap<Arc<str>, Arc<Channel>>,
    /// The same channels, each with its number, for walks in steps.
    by_number: Slab<Arc<Channel>>,
    /// The channels with members, each by its [`Due`].
    joined: BTreeMap<Due, Arc<Channel>>,
    /// The channels without members, each by its [`Due`].
    lingering: BTreeMap<Due, Arc<Channel>>,
    lingering_bytes: usize,
    shares: ClientShares,
    limit_bytes: usize,
    linger: Duration,
    reconcile_interval: Duration,
}

/// When the channel is reconciled, or removed if it has no members; and the channel's number, which no other channel has at the same time.
pub(super) type Due = (Instant, usize);

impl Lifetimes {
    pub fn new(limit_bytes: usize, linger: Duration, reconcile_interval: Duration) -> Self {
        Self {
            by_name: HashMap::new(),
            by_number: Slab::new(),
            joined: BTreeMap::new(),
            lingering: BTreeMap::new(),
            lingering_bytes: 0,
            shares: ClientShares::new(limit_bytes),
            limit_bytes,
            linger,
            reconcile_interval,
        }
    }

    /// Bytes of all channels.
    pub fn bytes(&self) -> usize {
        self.shares.total() + self.lingering_bytes
    }

    /// Takes the share of a client for a channel; `None` if others have joined the channel already.
    pub fn share(&self, name: &str, client: &ClientKey) -> Result<Option<ClientShare>, Refusal> {
        let has_members = self.by_name.get(name).is_some_and(|channel| !channel.state.lock().members.is_empty());
        if has_members { Ok(None) } else { self.shares.take(client, cost(name)).map(Some) }
    }

    /// Enters a member. `new_channel` creates the channel, if there is none. Returns the channel and the member's slot.
    pub fn join(
        &mut self,
        name: &str,
        share: Option<ClientShare>,
        client: &Arc<ClientKey>,
        new_channel: impl FnOnce(Arc<str>, Due) -> Arc<Channel>,
    ) -> (Arc<Channel>, usize) {
        let now = Instant::now();
        let channel = if let Some(channel) = self.by_name.get(name) {
            Arc::clone(channel)
        } else {
            let slot = self.by_number.vacant_entry();
            let due = (now + jitter(self.reconcile_interval), slot.key());
            let channel = new_channel(name.into(), due);
            slot.insert(Arc::clone(&channel));
            self.by_name.insert(Arc::clone(&channel.name), Arc::clone(&channel));
            self.joined.insert(due, Arc::clone(&channel));
            channel
        };
        let mut state = channel.state.lock();
        if self.lingering.remove(&state.due).is_some() {
            self.lingering_bytes -= cost(name);
            // It was not reconciled while it lingered.
            state.due.0 = now;
            self.joined.insert(state.due, Arc::clone(&channel));
        }
        if state.members.is_empty() {
            state.share = share;
        }
        let member = state.members.insert(Member::new(client));
        if state.reads.waits_for_permit {
            state.reads.joined_while_waiting.push(Arc::clone(client));
        }
        drop(state);
        channel.wake_reader.notify_one();
        (channel, member)
    }

    /// Removes a member. Returns whether the channel was removed with it: only a channel that was opened lingers.
    #[must_use]
    pub fn leave(&mut self, channel: &Arc<Channel>, member: usize) -> bool {
        let mut state = channel.state.lock();
        let Some(left) = state.members.try_remove(member) else { return false };
        let other = state.members.iter().next().map(|(_, other)| Arc::clone(&other.client));
        if let Some(other) = other {
            // Who left does not pay for the others.
            if let Some(share) = state.share.as_mut().filter(|share| share.is_of(&left.client)) {
                share.transfer(&other);
            }
            return false;
        }
        state.share = None;
        self.joined.remove(&state.due);
        if !state.opened {
            drop(state);
            self.forget(channel);
            return true;
        }
        state.due.0 = Instant::now() + self.linger;
        self.lingering.insert(state.due, Arc::clone(channel));
        self.lingering_bytes += cost(&channel.name);
        false
    }

    /// Removes the channel that has lingered longest, if there is not enough room, or if its time is over `now`.
    pub fn evict(&mut self, now: Option<Instant>) -> Option<Arc<Channel>> {
        let has_room = self.bytes() <= self.limit_bytes;
        let first = self.lingering.first_entry()?;
        if has_room && now.is_none_or(|now| first.key().0 > now) {
            return None;
        }
        let channel = first.remove();
        self.lingering_bytes -= cost(&channel.name);
        self.forget(&channel);
        Some(channel)
    }

    /// Up to `max` channels that are due to be reconciled. Each is due again after `stream.reconcile-interval`.
    pub fn take_due(&mut self, now: Instant, max: usize) -> Vec<Arc<Channel>> {
        std::iter::from_fn(|| self.next_to_reconcile(now)).take(max).collect()
    }

    fn next_to_reconcile(&mut self, now: Instant) -> Option<Arc<Channel>> {
        let first = self.joined.first_entry().filter(|first| first.key().0 <= now)?;
        let channel = first.remove();
        let mut state = channel.state.lock();
        state.due.0 = now + jitter(self.reconcile_interval);
        self.joined.insert(state.due, Arc::clone(&channel));
        drop(state);
        Some(channel)
    }

    /// When the next channel is due to be reconciled.
    pub fn next_due(&self) -> Option<Instant> {
        self.joined.first_key_value().map(|((due, _), _)| *due)
    }

    /// Some of the channels from this number on, and the number to continue at; `None` at the end. A walk visits each channel that exists from
    /// its beginning to its end.
    pub fn step(&self, from: usize) -> Option<(Vec<Arc<Channel>>, usize)> {
        let to = from.saturating_add(MAX_CHANNELS_PER_STEP).min(self.by_number.capacity());
        (from < to).then(|| ((from..to).filter_map(|number| self.by_number.get(number).cloned()).collect(), to))
    }

    fn forget(&mut self, channel: &Arc<Channel>) {
        self.by_name.remove(&channel.name);
        let mut state = channel.state.lock();
        self.by_number.try_remove(state.due.1);
        // Ends the reading task, also while it waits for a permit.
        state.link = Link::Down;
        drop(state);
        channel.wake_reader.notify_one();
    }
}

fn cost(name: &str) -> usize {
    CHANNEL_BYTES + name.len()
}
