//! Who reads most: streams by channel, by subject and by version.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::server::recent::short;
use crate::stream::registry::StreamRegistry;

/// So many of each are shown.
const SHOWN: usize = 20;
/// Streams that are looked at under one lock.
const PAGE: usize = 512;
/// What was counted holds at least so long, and for so many times what counting took: pages that many people look at cost
/// a node a few percent of one core.
const FRESH: Duration = Duration::from_millis(900);
const PART: u32 = 20;

/// A name and how many streams have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The channel's or the subject's.
    pub name: String,
    /// How many.
    pub streams: usize,
}

/// What was counted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counted {
    /// The channels with the most streams.
    pub by_channel: Vec<Share>,
    /// How many channels there are.
    pub channels: usize,
    /// The subjects with the most streams.
    pub by_subject: Vec<Share>,
    /// How many subjects there are.
    pub subjects: usize,
    /// Streams by the number of the version that let them in.
    pub by_version: BTreeMap<u64, usize>,
}

/// The last count.
#[derive(Default)]
pub struct Top(Mutex<Option<(Instant, Arc<Counted>)>>);

impl Top {
    /// What was counted a moment ago, or is counted now. Whoever comes meanwhile waits for it.
    pub fn get(&self, streams: &StreamRegistry) -> Arc<Counted> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        if let Some((until, counted)) = &*last
            && start < *until
        {
            return Arc::clone(counted);
        }
        let counted = Arc::new(count(streams));
        let until = Instant::now() + FRESH.max(start.elapsed() * PART);
        *last = Some((until, Arc::clone(&counted)));
        counted
    }
}

fn count(streams: &StreamRegistry) -> Counted {
    let (mut readers, mut after) = (Vec::new(), 0);
    loop {
        let page = streams.list(after, PAGE, |_| true);
        let Some((last, _)) = page.last() else { break };
        after = *last;
        readers.extend(page.into_iter().map(|(_, reader)| reader));
    }
    let (mut channels, mut subjects) = (HashMap::new(), HashMap::new());
    let mut by_version = BTreeMap::new();
    for reader in &readers {
        reader.channels.iter().for_each(|name| *channels.entry(&**name).or_default() += 1);
        if let Some(subject) = &reader.subject {
            *subjects.entry(&**subject).or_default() += 1;
        }
        *by_version.entry(reader.generation).or_default() += 1;
    }
    let (channel_count, subject_count) = (channels.len(), subjects.len());
    Counted {
        by_channel: most(channels),
        channels: channel_count,
        by_subject: most(subjects),
        subjects: subject_count,
        by_version,
    }
}

fn most(counts: HashMap<&str, usize>) -> Vec<Share> {
    let mut all: Vec<(&str, usize)> = counts.into_iter().collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    all.truncate(SHOWN);
    all.into_iter().map(|(name, streams)| Share { name: short(name), streams }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::registry::{AbortSignal, StreamInfo};

    #[tokio::test]
    async fn the_largest_come_first() {
        let streams = StreamRegistry::new(10_000);
        let mut tickets = Vec::new();
        for n in 0..2_000u64 {
            let ticket = streams.admit(AbortSignal::default()).expect("a place");
            let reader = StreamInfo {
                request_id: n.to_string(),
                subject: (n % 2 == 0).then(|| format!("user-{}", n % 4).into()),
                channels: [format!("c{n}").into(), format!("team-{}", n % 3).into()].into(),
                address: "127.0.0.1".into(),
                since: n,
                expires_at: None,
                generation: 1 + n / 1_500,
            };
            ticket.register(reader, None);
            tickets.push(ticket);
        }
        let top = Top::default();
        let counted = top.get(&streams);
        let share = |name: &str, streams| Share { name: name.into(), streams };
        assert_eq!(counted.by_channel[..3], [share("team-0", 667), share("team-1", 667), share("team-2", 666)]);
        assert_eq!((counted.by_channel.len(), counted.channels, counted.subjects), (SHOWN, 2_003, 2));
        assert_eq!(counted.by_subject, [share("user-0", 500), share("user-2", 500)]);
        assert_eq!(counted.by_version, [(1, 1_500), (2, 500)].into());
        drop(tickets);
        assert!(Arc::ptr_eq(&counted, &top.get(&streams)), "it is not counted again at once");
    }
}
