//! The channels that a node wants to be subscribed to, and the commands that are left to send: clients are served in turns, and a
//! subscription that no client waits for any more is not sent.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use tokio::time::Instant;

use crate::util::client_key::ClientKey;
use crate::util::fair_queue::FairQueue;

/// Maximum channels of one `SUBSCRIBE`. What follows waits for its reply.
const MAX_SUBSCRIBE_CHANNELS: usize = 256;
/// Maximum channels of one `UNSUBSCRIBE`. It is larger, so that fewer channels wait to be unsubscribed than subscribed.
const MAX_UNSUBSCRIBE_CHANNELS: usize = 1024;
/// The delay after the first refusal of a channel, and the longest one: an operator who corrects the rights should see the effect soon.
const MIN_REFUSED_DELAY: Duration = Duration::from_secs(1);
const MAX_REFUSED_DELAY: Duration = Duration::from_secs(30);
/// Channels that one step of a restart takes: about 0.2 ms, for which clients that join a channel may wait.
const MAX_RESTARTED_CHANNELS: usize = 1024;

#[derive(Default)]
pub(super) struct Subscriptions {
    wanted: IndexMap<Arc<str>, Wanted>,
    /// The channels of `wanted` that a restart has not reached yet: those with a lower index.
    to_restart: usize,
    to_subscribe: FairQueue<Arc<str>>,
    to_unsubscribe: HashSet<Arc<str>>,
    /// The channels that the store refused, by the time of the next attempt.
    refused: BTreeSet<(Instant, Arc<str>)>,
}

/// A channel to be subscribed to.
struct Wanted {
    client: Arc<ClientKey>,
    state: State,
    /// The store may be subscribed to it on this connection.
    is_sent: bool,
    /// Refusals since the last success.
    refusals: u32,
}

enum State {
    /// With its ticket in `to_subscribe`.
    Queued(u64),
    Sent,
    /// Until the next attempt.
    Refused(Instant),
}

/// The next commands, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub subscribe: Vec<Arc<str>>,
    pub unsubscribe: Vec<Arc<str>>,
}

impl Subscriptions {
    /// Wants a channel for this client, or also for this client.
    pub fn subscribe(&mut self, channel: &Arc<str>, client: &Arc<ClientKey>) {
        let is_sent = self.to_unsubscribe.remove(channel);
        match self.wanted.get_mut(channel) {
            None => {
                let state = State::Queued(self.to_subscribe.push(client, Arc::clone(channel)));
                let wanted = Wanted { client: Arc::clone(client), state, is_sent, refusals: 0 };
                self.wanted.insert(Arc::clone(channel), wanted);
            }
            // The channel is subscribed on behalf of the client that is best off.
            Some(Wanted { client: known, state: State::Queued(ticket), .. })
                if self.to_subscribe.load(client) < self.to_subscribe.load(known) =>
            {
                self.to_subscribe.remove(known, *ticket);
                *ticket = self.to_subscribe.push(client, Arc::clone(channel));
                *known = Arc::clone(client);
            }
            Some(_) => {}
        }
    }

    /// No client wants the channel any more. A subscription that was not sent yet is never sent.
    pub fn unsubscribe(&mut self, channel: &str) {
        let Some((channel, wanted)) = self.wanted.swap_remove_entry(channel) else { return };
        match wanted.state {
            State::Queued(ticket) => drop(self.to_subscribe.remove(&wanted.client, ticket)),
            State::Refused(until) => drop(self.refused.remove(&(until, Arc::clone(&channel)))),
            State::Sent => {}
        }
        if wanted.is_sent {
            self.to_unsubscribe.insert(channel);
        }
    }

    /// On a new connection nothing is subscribed. [`Self::continue_restart`] has to follow before the next commands are taken.
    pub fn restart(&mut self) {
        self.to_unsubscribe = HashSet::new();
        self.to_restart = self.wanted.len();
    }

    /// Queues some of the channels again; returns whether more are left. Not all at once, because clients wait for the lock. The last go first: an
    /// unsubscribed channel is replaced by the last one, which then was queued already or is queued again, and new ones come after them.
    pub fn continue_restart(&mut self) -> bool {
        self.to_restart = self.to_restart.min(self.wanted.len());
        for _ in 0..MAX_RESTARTED_CHANNELS.min(self.to_restart) {
            self.to_restart -= 1;
            let Some((channel, wanted)) = self.wanted.get_index_mut(self.to_restart) else { continue };
            wanted.is_sent = false;
            if let State::Refused(until) = wanted.state {
                self.refused.remove(&(until, Arc::clone(channel)));
            }
            if !matches!(wanted.state, State::Queued(_)) {
                wanted.state = State::Queued(self.to_subscribe.push(&wanted.client, Arc::clone(channel)));
            }
        }
        self.to_restart > 0
    }

    /// Takes the next commands; `None` if there is nothing to do.
    pub fn take(&mut self, now: Instant) -> Option<Batch> {
        while self.next_attempt().is_some_and(|until| until <= now)
            && let Some((_, channel)) = self.refused.pop_first()
        {
            if let Some(wanted) = self.wanted.get_mut(&channel) {
                wanted.state = State::Queued(self.to_subscribe.push(&wanted.client, channel));
            }
        }
        let mut batch = Batch::default();
        while batch.subscribe.len() < MAX_SUBSCRIBE_CHANNELS
            && let Some((client, channel)) = self.to_subscribe.pop()
        {
            self.to_subscribe.finish(&client);
            if let Some(wanted) = self.wanted.get_mut(&channel) {
                (wanted.state, wanted.is_sent) = (State::Sent, true);
            }
            batch.subscribe.push(channel);
        }
        batch.unsubscribe = self.to_unsubscribe.iter().take(MAX_UNSUBSCRIBE_CHANNELS).cloned().collect();
        for channel in &batch.unsubscribe {
            self.to_unsubscribe.remove(channel);
        }
        if self.to_unsubscribe.is_empty() {
            // A set that was large keeps its memory.
            self.to_unsubscribe = HashSet::new();
        }
        (batch != Batch::default()).then_some(batch)
    }

    /// When [`Self::take`] has something to do again, unless something changes before.
    pub fn next_attempt(&self) -> Option<Instant> {
        self.refused.first().map(|(until, _)| *until)
    }

    /// The store confirmed a channel.
    pub fn confirmed(&mut self, channel: &str) {
        if let Some(wanted) = self.wanted.get_mut(channel) {
            wanted.refusals = 0;
        }
    }

    /// The store refused a channel. Returns whether it is still wanted.
    pub fn refused(&mut self, channel: &Arc<str>, now: Instant) -> bool {
        let Some(wanted) = self.wanted.get_mut(channel) else {
            self.to_unsubscribe.remove(channel);
            return false;
        };
        wanted.is_sent = false;
        if matches!(wanted.state, State::Sent) {
            let delay = MIN_REFUSED_DELAY.saturating_mul(1 << wanted.refusals.min(10)).min(MAX_REFUSED_DELAY);
            wanted.refusals = wanted.refusals.saturating_add(1);
            wanted.state = State::Refused(now + delay);
            self.refused.insert((now + delay, Arc::clone(channel)));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(subject: &str) -> Arc<ClientKey> {
        Arc::new(ClientKey::default().with_subject(Some(subject.into())))
    }

    fn name(text: impl ToString) -> Arc<str> {
        text.to_string().into()
    }

    #[test]
    fn unwanted_subscription_is_not_sent() {
        let (mut subscriptions, alice, now) = (Subscriptions::default(), client("alice"), Instant::now());
        for n in 0..10_000 {
            subscriptions.subscribe(&name(n), &alice);
            subscriptions.unsubscribe(&n.to_string());
        }
        assert_eq!(subscriptions.take(now), None);
        subscriptions.subscribe(&name("a"), &alice);
        assert_eq!(subscriptions.take(now).expect("a").subscribe, [name("a")]);
        subscriptions.unsubscribe("a");
        subscriptions.subscribe(&name("a"), &alice);
        let again = Batch { subscribe: vec![name("a")], unsubscribe: Vec::new() };
        assert_eq!(subscriptions.take(now), Some(again), "the hub waits for a confirmation");
        subscriptions.unsubscribe("a");
        assert_eq!(subscriptions.take(now).expect("a").unsubscribe, [name("a")]);
        assert_eq!((subscriptions.take(now), subscriptions.wanted.len()), (None, 0));
    }

    #[test]
    fn flood_of_subscriptions_does_not_delay_other_clients() {
        let (mut subscriptions, flood, other) = (Subscriptions::default(), client("flood"), client("other"));
        (0..10_000).for_each(|n| subscriptions.subscribe(&name(n), &flood));
        // One channel of its own, and one that the flood wants too.
        subscriptions.subscribe(&name("own"), &other);
        subscriptions.subscribe(&name(9_999), &other);
        for is_new_connection in [false, true] {
            if is_new_connection {
                subscriptions.restart();
                while subscriptions.continue_restart() {}
            }
            let batch = subscriptions.take(Instant::now()).expect("a batch").subscribe;
            assert_eq!(batch.len(), MAX_SUBSCRIBE_CHANNELS);
            let is_first = |channel: &str| batch[..5].contains(&name(channel));
            assert!(is_first("own") && is_first("9999"), "{:?}", &batch[..5]);
        }
    }

    #[test]
    fn channels_that_change_during_a_restart_are_subscribed_once() {
        let (mut subscriptions, alice, now) = (Subscriptions::default(), client("alice"), Instant::now());
        let count = 3 * MAX_RESTARTED_CHANNELS;
        (0..count).for_each(|n| subscriptions.subscribe(&name(n), &alice));
        while subscriptions.take(now).is_some() {}
        assert!(subscriptions.refused(&name(7), now) && subscriptions.refused(&name(count - 7), now));
        subscriptions.restart();
        assert!(subscriptions.continue_restart());
        // The first is replaced by the last, which the restart has passed, and the last but one leaves after that.
        for gone in [0, count - 2] {
            subscriptions.unsubscribe(&name(gone));
        }
        subscriptions.subscribe(&name("new"), &alice);
        subscriptions.subscribe(&name(1), &alice);
        while subscriptions.continue_restart() {}
        let mut taken = Vec::new();
        while let Some(batch) = subscriptions.take(now) {
            taken.extend(batch.subscribe);
        }
        taken.sort();
        let mut expected: Vec<_> = (1..count).filter(|n| *n != count - 2).map(name).chain([name("new")]).collect();
        expected.sort();
        assert_eq!(taken, expected);
        assert_eq!(subscriptions.next_attempt(), None);
    }

    #[test]
    fn refused_channels_are_tried_again_after_increasing_delays() {
        let (mut subscriptions, alice, mut now) = (Subscriptions::default(), client("alice"), Instant::now());
        subscriptions.subscribe(&name("secret"), &alice);
        let mut delays = Vec::new();
        for _ in 0..7 {
            assert_eq!(subscriptions.take(now).expect("an attempt").subscribe, [name("secret")]);
            assert!(subscriptions.refused(&name("secret"), now));
            assert_eq!(subscriptions.take(now), None);
            let next = subscriptions.next_attempt().expect("another attempt");
            delays.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        subscriptions.unsubscribe("secret");
        assert_eq!((subscriptions.take(now), subscriptions.next_attempt()), (None, None));
    }
}
