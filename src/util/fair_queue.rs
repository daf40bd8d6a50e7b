//! Queues whose clients are served in turns, so that a flood by one client does not delay the others: first between networks, within a
//! network between subjects (before the decision: connections). The client with the least in service is served first, and of equals the one
//! that was served longest ago.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::util::client_key::ClientKey;

/// A semaphore whose waiters are served in turns. Clones share the permits.
#[derive(Clone, Debug)]
pub struct FairSemaphore(Arc<Mutex<SemaphoreState>>);

#[derive(Debug)]
struct SemaphoreState {
    free: usize,
    waiting: FairQueue<oneshot::Sender<FairPermit>>,
}

/// A permit of a [`FairSemaphore`]. Dropping it serves the next waiter.
#[derive(Debug)]
pub struct FairPermit {
    semaphore: FairSemaphore,
    client: Arc<ClientKey>,
}

/// A waiter, which leaves the queue when it is dropped.
struct Waiter<'a> {
    semaphore: &'a FairSemaphore,
    client: &'a ClientKey,
    ticket: u64,
}

impl FairSemaphore {
    pub fn new(permits: usize) -> Self {
        Self(Arc::new(Mutex::new(SemaphoreState { free: permits, waiting: FairQueue::default() })))
    }

    /// Waits for a permit on behalf of a client. Dropping the future leaves the queue.
    pub async fn acquire(&self, client: &Arc<ClientKey>) -> FairPermit {
        loop {
            let (ticket, granted) = {
                let mut state = self.0.lock();
                if let Some(permit) = self.take(&mut state, client) {
                    return permit;
                }
                let (grant, granted) = oneshot::channel();
                (state.waiting.push(client, grant), granted)
            };
            let _waiter = Waiter { semaphore: self, client, ticket };
            // A sender leaves the queue only to send, so this does not fail.
            if let Ok(permit) = granted.await {
                return permit;
            }
        }
    }

    /// A permit, if one is free.
    pub fn try_acquire(&self, client: &Arc<ClientKey>) -> Option<FairPermit> {
        self.take(&mut self.0.lock(), client)
    }

    fn take(&self, state: &mut SemaphoreState, client: &Arc<ClientKey>) -> Option<FairPermit> {
        state.free = state.free.checked_sub(1)?;
        state.waiting.start(client);
        Some(FairPermit { semaphore: self.clone(), client: Arc::clone(client) })
    }

    pub fn available_permits(&self) -> usize {
        self.0.lock().free
    }

    /// Of these clients, one that would be served first.
    pub fn best_off<'a>(&self, clients: impl IntoIterator<Item = &'a Arc<ClientKey>>) -> Option<&'a Arc<ClientKey>> {
        let (state, mut clients) = (self.0.lock(), clients.into_iter());
        // Without a queue, it makes no difference.
        if state.free > 0 { clients.next() } else { clients.min_by_key(|client| state.waiting.load(client)) }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.semaphore.0.lock().waiting.remove(self.client, self.ticket);
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        let mut state = self.semaphore.0.lock();
        state.waiting.finish(&self.client);
        let Some((client, grant)) = state.waiting.pop() else {
            state.free += 1;
            return;
        };
        drop(state);
        // A waiter that was dropped meanwhile returns the permit, whose drop serves the next one.
        drop(grant.send(Self { semaphore: self.semaphore.clone(), client: Arc::new(client) }));
    }
}

/// A queue of items whose clients are served in turns; the items of one client are in order. Each operation takes logarithmic time, and
/// a client without items costs no memory.
#[derive(Debug)]
pub struct FairQueue<T> {
    networks: Turns<Option<IpAddr>, Turns<Inner, BTreeMap<u64, T>>>,
    last_ticket: u64,
}

/// Who takes turns within a network.
type Inner = (Option<Arc<str>>, Option<SocketAddr>);

/// How much a client, and before that its network, has in service and in the queue.
type Load = [usize; 4];

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { networks: Turns::default(), last_ticket: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Adds an item of a client. The ticket is for [`Self::remove`].
    pub fn push(&mut self, client: &ClientKey, item: T) -> u64 {
        let ticket = self.next_ticket();
        self.networks.change(&client.network, |network| {
            network.arrive(ticket);
            network.queue.change(&inner(client), |client| {
                client.arrive(ticket);
                client.queue.insert(ticket, item);
            });
        });
        ticket
    }

    /// Removes the next item. Its client has it in service until [`Self::finish`].
    pub fn pop(&mut self) -> Option<(ClientKey, T)> {
        let turn = self.next_ticket();
        let network = *self.networks.first()?;
        self.networks.change(&network, |entry| {
            entry.serve(turn);
            let key = entry.queue.first()?.clone();
            let item = entry.queue.change(&key, |client| {
                client.serve(turn);
                client.queue.pop_first()
            });
            let (subject, connection) = key;
            Some((ClientKey { network, subject, connection }, item?.1))
        })
    }

    /// Removes an item that waits; `None` if it was served already.
    pub fn remove(&mut self, client: &ClientKey, ticket: u64) -> Option<T> {
        self.networks.change(&client.network, |network| {
            let item = network.queue.change(&inner(client), |client| {
                let item = client.queue.remove(&ticket)?;
                client.waiting -= 1;
                Some(item)
            })?;
            network.waiting -= 1;
            Some(item)
        })
    }

    /// Puts something in service for a client that did not wait.
    pub fn start(&mut self, client: &ClientKey) {
        let turn = self.next_ticket();
        self.networks.change(&client.network, |network| {
            (network.in_service, network.turn) = (network.in_service + 1, turn);
            network.queue.change(&inner(client), |client| {
                (client.in_service, client.turn) = (client.in_service + 1, turn);
            });
        });
    }

    /// Ends the service of one item of a client.
    pub fn finish(&mut self, client: &ClientKey) {
        self.networks.change(&client.network, |network| {
            network.in_service = network.in_service.saturating_sub(1);
            network.queue.change(&inner(client), |client| client.in_service = client.in_service.saturating_sub(1));
        });
    }

    /// A client with a smaller load is served earlier.
    pub fn load(&self, client: &ClientKey) -> Load {
        let Some(network) = self.networks.entries.get(&client.network) else { return [0; 4] };
        let of_client = network.queue.entries.get(&inner(client));
        let (in_service, waiting) = of_client.map_or((0, 0), |client| (client.in_service, client.waiting));
        [network.in_service, in_service, waiting, network.waiting]
    }

    pub fn is_empty(&self) -> bool {
        self.networks.order.is_empty()
    }

    fn next_ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }
}

fn inner(client: &ClientKey) -> Inner {
    (client.subject.clone(), client.connection)
}

/// Those who take turns at one level.
#[derive(Debug)]
struct Turns<K, Q> {
    /// Those that have something in service or in the queue.
    entries: BTreeMap<K, Turn<Q>>,
    /// Those that have something in the queue, by `in_service` and `turn`: the order in which they are served.
    order: BTreeMap<(usize, u64), K>,
}

#[derive(Debug, Default)]
struct Turn<Q> {
    in_service: usize,
    waiting: usize,
    /// When this was served last, or began to wait, as a ticket: unique.
    turn: u64,
    queue: Q,
}

impl<K, Q> Default for Turns<K, Q> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), order: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, Q: Default> Turns<K, Q> {
    /// Changes an entry, and updates its position.
    fn change<R>(&mut self, key: &K, change: impl FnOnce(&mut Turn<Q>) -> R) -> R {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.waiting > 0 {
            self.order.remove(&(entry.in_service, entry.turn));
        }
        let result = change(entry);
        if entry.waiting > 0 {
            self.order.insert((entry.in_service, entry.turn), key.clone());
        } else if entry.in_service == 0 {
            self.entries.remove(key);
        }
        result
    }

    /// Who is served next.
    fn first(&self) -> Option<&K> {
        self.order.first_key_value().map(|(_, key)| key)
    }
}

impl<Q> Turn<Q> {
    fn arrive(&mut self, ticket: u64) {
        if self.waiting == 0 && self.in_service == 0 {
            self.turn = ticket;
        }
        self.waiting += 1;
    }

    fn serve(&mut self, turn: u64) {
        self.waiting -= 1;
        self.in_service += 1;
        self.turn = turn;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn client(network: u8, subject: &str) -> Arc<ClientKey> {
        let key = ClientKey::of_address(Some([192, 0, 2, network].into()));
        Arc::new(key.with_subject((!subject.is_empty()).then(|| subject.into())))
    }

    /// The order in which items are served, each as soon as the one before it is finished.
    fn served(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| {
            let (client, item) = queue.pop()?;
            queue.finish(&client);
            Some(item)
        })
        .collect()
    }

    #[test]
    fn networks_take_turns_and_subjects_within_them() {
        let mut queue = FairQueue::default();
        for item in ["a1", "a2", "a3", "a4"] {
            queue.push(&client(1, "a"), item);
        }
        for item in ["b1", "b2"] {
            queue.push(&client(1, "b"), item);
        }
        for item in ["c1", "c2", "c3"] {
            queue.push(&client(2, ""), item);
        }
        assert_eq!(served(&mut queue), ["a1", "c1", "b1", "c2", "a2", "c3", "b2", "a3", "a4"]);
        assert!(queue.is_empty() && queue.networks.entries.is_empty(), "no client is remembered");
    }

    #[test]
    fn who_has_most_in_service_is_served_last() {
        let mut queue = FairQueue::default();
        let (a, b) = (client(1, "a"), client(1, "b"));
        (0..3).for_each(|_| queue.start(&a));
        for item in ["a1", "a2"] {
            queue.push(&a, item);
        }
        for item in ["b1", "b2", "b3", "b4"] {
            queue.push(&b, item);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(order, ["b1", "b2", "b3", "a1", "b4", "a2"]);
        (0..5).for_each(|_| queue.finish(&a));
        (0..4).for_each(|_| queue.finish(&b));
        assert!(queue.networks.entries.is_empty());
    }

    #[test]
    fn removed_items_are_not_served() {
        let mut queue = FairQueue::default();
        let a = client(1, "a");
        let tickets = ["a1", "a2", "a3"].map(|item| queue.push(&a, item));
        assert_eq!(queue.remove(&a, tickets[0]), Some("a1"));
        assert_eq!(queue.remove(&a, tickets[0]), None);
        assert_eq!(queue.remove(&client(9, "z"), tickets[1]), None, "of another client");
        assert_eq!(served(&mut queue), ["a2", "a3"]);
        assert_eq!(queue.remove(&a, tickets[2]), None, "it was served");
        assert!(queue.networks.entries.is_empty());
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = FairPermit> + 'a>>;

    fn poll(waiting: &mut Waiting<'_>) -> Option<FairPermit> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn other_client_gets_the_next_permit_of_a_flooded_semaphore() {
        let semaphore = FairSemaphore::new(2);
        let (flood, other) = (client(1, "flood"), client(1, "other"));
        let acquire = |client| -> Waiting<'_> { Box::pin(semaphore.acquire(client)) };
        let mut flooding: Vec<_> = (0..1000).map(|_| acquire(&flood)).collect();
        let mut held: Vec<_> = flooding.iter_mut().filter_map(poll).collect();
        assert_eq!((held.len(), semaphore.available_permits()), (2, 0));
        let mut waiting = acquire(&other);
        assert!(poll(&mut waiting).is_none());
        assert_eq!(semaphore.best_off([&flood, &other]), Some(&other));
        held.pop();
        let permit = poll(&mut waiting).expect("the next permit");
        drop((held, permit));
        let served = flooding.iter_mut().skip(2).filter_map(poll).count();
        assert_eq!(served, 998, "each permit that is dropped serves the next waiter");
        assert_eq!(semaphore.available_permits(), 2);
    }

    #[test]
    fn dropped_waiter_loses_no_permit() {
        let semaphore = FairSemaphore::new(1);
        let a = client(1, "a");
        let acquire = || -> Waiting<'_> { Box::pin(semaphore.acquire(&a)) };
        let (mut first, mut second, mut third) = (acquire(), acquire(), acquire());
        let permit = poll(&mut first).expect("free");
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
        // The second has the permit, and does not learn of it.
        drop(permit);
        drop(second);
        let permit = poll(&mut third).expect("the permit was passed on");
        let mut fourth = acquire();
        assert!(poll(&mut fourth).is_none());
        drop(fourth);
        drop(permit);
        assert_eq!(semaphore.available_permits(), 1);
        assert!(semaphore.0.lock().waiting.networks.entries.is_empty());
    }
}
