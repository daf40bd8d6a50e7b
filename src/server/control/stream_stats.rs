//! Stream counts by channel, by subject and by generation of the policy.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinError;

use crate::server::recent_rejections::truncate;
use crate::stream::registry::StreamRegistry;

/// Channels and subjects that are listed.
const MAX_NAMES: usize = 20;
/// Streams that are read under one lock of the registry.
const PAGE_STREAMS: usize = 512;
/// Least time for which the statistics are reused.
const MIN_AGE: Duration = Duration::from_millis(900);
/// They are reused for this many times what counting took, so that counting costs a node at most some 5 % of a core, however often the
/// status is requested.
const AGE_PER_COST: u32 = 20;

/// A channel or subject and its number of streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamCount {
    /// The channel or the subject.
    pub name: String,
    /// Its open streams.
    pub streams: usize,
}

/// Stream counts of one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamStats {
    /// The channels with the most streams.
    pub by_channel: Vec<StreamCount>,
    /// Channels with a stream.
    pub channels: usize,
    /// The subjects with the most streams.
    pub by_subject: Vec<StreamCount>,
    /// Subjects with a stream.
    pub subjects: usize,
    /// Streams by the generation of the policy that admitted them.
    pub by_generation: BTreeMap<u64, usize>,
}

/// Caches the last statistics. The lock is held while streams are counted, so it is one that callers await.
#[derive(Default)]
pub struct StreamStatsCache(Arc<Mutex<Option<CachedStats>>>);

/// Statistics, with the time until which they are reused.
type CachedStats = (Arc<StreamStats>, Instant);

impl StreamStatsCache {
    /// The cached statistics, or new ones. Concurrent callers wait for one count, which runs on a thread for blocking work: counting many
    /// streams takes long enough to delay the streams of a runtime worker. Fails if that thread panics.
    pub async fn get(&self, streams: &StreamRegistry) -> Result<Arc<StreamStats>, JoinError> {
        let mut cached = Arc::clone(&self.0).lock_owned().await;
        if let Some((stats, expires_at)) = &*cached
            && Instant::now() < *expires_at
        {
            return Ok(Arc::clone(stats));
        }
        let streams = streams.clone();
        // The closure owns the lock, so a caller that disconnects cannot start a second count while the first one runs.
        tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let stats = Arc::new(count(&streams));
            let expires_at = Instant::now() + MIN_AGE.max(start.elapsed() * AGE_PER_COST);
            *cached = Some((Arc::clone(&stats), expires_at));
            stats
        })
        .await
    }
}

fn count(streams: &StreamRegistry) -> StreamStats {
    let (mut infos, mut after) = (Vec::new(), 0);
    loop {
        let page = streams.list(after, PAGE_STREAMS, |_| true);
        let Some((last, _)) = page.last() else { break };
        after = *last;
        infos.extend(page.into_iter().map(|(_, info)| info));
    }
    let (mut channels, mut subjects) = (HashMap::new(), HashMap::new());
    let mut by_generation = BTreeMap::new();
    for info in &infos {
        info.channels.iter().for_each(|name| *channels.entry(&**name).or_default() += 1);
        if let Some(subject) = &info.subject {
            *subjects.entry(&**subject).or_default() += 1;
        }
        *by_generation.entry(info.generation).or_default() += 1;
    }
    StreamStats {
        channels: channels.len(),
        by_channel: largest(channels),
        subjects: subjects.len(),
        by_subject: largest(subjects),
        by_generation,
    }
}

fn largest(counts: HashMap<&str, usize>) -> Vec<StreamCount> {
    let mut all: Vec<(&str, usize)> = counts.into_iter().collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    all.truncate(MAX_NAMES);
    all.into_iter().map(|(name, streams)| StreamCount { name: truncate(name), streams }).collect()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::stream::registry::{AbortSignal, StreamInfo};

    #[tokio::test]
    async fn largest_counts_come_first_and_counts_are_reused() {
        let streams = StreamRegistry::new(10_000);
        let mut permits = Vec::new();
        for n in 0..2_000u64 {
            let permit = streams.admit(None, AbortSignal::default()).expect("a permit");
            let info = StreamInfo {
                request_id: n.to_string(),
                subject: (n % 2 == 0).then(|| format!("user-{}", n % 4).into()),
                channels: [format!("c{n}").into(), format!("team-{}", n % 3).into()].into(),
                address: None,
                since: n,
                expires_at: None,
                generation: 1 + n / 1_500,
            };
            permit.register(info, None);
            permits.push(permit);
        }
        let cache = StreamStatsCache::default();
        let stats = cache.get(&streams).await.expect("counted");
        let count = |name: &str, streams| StreamCount { name: name.into(), streams };
        assert_eq!(stats.by_channel[..3], [count("team-0", 667), count("team-1", 667), count("team-2", 666)]);
        assert_eq!((stats.by_channel.len(), stats.channels, stats.subjects), (MAX_NAMES, 2_003, 2));
        assert_eq!(stats.by_subject, [count("user-0", 500), count("user-2", 500)]);
        assert_eq!(stats.by_generation, [(1, 1_500), (2, 500)].into());
        drop(permits);
        let again = cache.get(&streams).await.expect("cached");
        assert!(Arc::ptr_eq(&stats, &again), "streams are not counted again at once");
    }

    #[tokio::test]
    async fn callers_await_a_count_and_an_abandoned_count_completes() {
        let (streams, cache) = (StreamRegistry::new(1), StreamStatsCache::default());
        let mut cx = Context::from_waker(Waker::noop());
        let counting = cache.0.lock().await;
        let mut waiting = Box::pin(cache.get(&streams));
        assert!(waiting.as_mut().poll(&mut cx).is_pending(), "a caller waits without blocking this thread");
        drop(counting);
        let _begun = waiting.as_mut().poll(&mut cx);
        drop(waiting);
        assert!(cache.0.lock().await.is_some(), "the count was completed without its caller");
    }
}
