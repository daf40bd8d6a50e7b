//! A channel of which the store loses random tails.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tidegate::event::StreamId;

use crate::faulty_store::FaultyStore;

/// The entries that a store has, and what happened to them.
pub struct RandomHistory {
    /// Tells what led to a failure.
    pub log: String,
    pub contents: BTreeMap<StreamId, Value>,
    /// The greatest id that any entry had.
    pub greatest: StreamId,
    count: usize,
}

impl RandomHistory {
    pub fn new(seed: u64) -> Self {
        Self { log: format!("seed {seed}"), contents: BTreeMap::new(), greatest: StreamId::ZERO, count: 0 }
    }

    /// Adds one to five entries, of which this share is notified.
    pub async fn grow(&mut self, store: &FaultyStore, rng: &mut StdRng, notified: f64) {
        for _ in 0..rng.random_range(1..6) {
            self.count += 1;
            store.advance_clock(rng.random_range(0..20));
            let data = json!(format!("entry {}", self.count));
            let id = match rng.random_bool(notified) {
                true => store.emit_stock("c", "e", &data).await,
                false => store.add("c", "e", &data).await,
            };
            self.log += &format!(", {id}={}", self.count);
            self.greatest = self.greatest.max(id);
            self.contents.insert(id, data);
        }
    }

    /// The last entry.
    pub fn last(&self) -> (StreamId, Value) {
        self.contents.last_key_value().map(|(id, data)| (*id, data.clone())).expect("an entry")
    }

    /// Loses the last entries, and returns the id of the last one that is left.
    pub async fn lose_tail(&mut self, store: &FaultyStore, lost: usize) -> StreamId {
        store.lose_tail("c", lost).await;
        let left = store.ids("c").await;
        self.contents.retain(|id, _| left.contains(id));
        left.last().copied().unwrap_or_default()
    }

    /// Adds an entry after all others that ever were.
    pub async fn end(&mut self, store: &FaultyStore) -> (StreamId, Value) {
        store.set_clock(self.greatest.ms + 1_000);
        let data = json!("last");
        let id = store.emit_stock("c", "e", &data).await;
        self.contents.insert(id, data.clone());
        (id, data)
    }
}
