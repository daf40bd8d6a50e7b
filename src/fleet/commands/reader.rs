//! Reads the commands, and tells of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::event::{Body, NewEvent, StreamId};
use crate::fleet::commands::{Commands, EVENT, READ, REPLIES, ReceivedCommand, ResyncReason};
use crate::store::fleet_keys::FleetKeys;
use crate::store::{Limits, Retention, Store, StoreError};

/// A doorbell can get lost though its link stays up; so the commands are looked at this often.
const LOOK: Duration = Duration::from_millis(700);
/// After a read that failed, growing from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Looks in vain, after which the log is told why no channel goes on.
const PATIENCE: u32 = 4;
/// Entries of one read.
const PAGE: usize = 256;
/// Answers to what one look brought.
const AWAITED: usize = 64;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    /// Everything up to here.
    at: StreamId,
    /// Entries that the stream ever had, up to there.
    added: u64,
}

/// Something to be told to who sent a command.
type CommandReply = (StreamId, Value);

/// What came of one look.
#[derive(Default)]
struct Batch {
    answers: Vec<CommandReply>,
    /// Entries that are no commands, or wrong ones. Whoever writes thousands shall not fill the log: the first is told, and how many.
    passed_over: u64,
}

impl Batch {
    /// Whether this is to be told.
    const fn pass_over(&mut self) -> bool {
        self.passed_over += 1;
        self.passed_over == 1
    }
}

impl Commands {
    /// Hears what is said, for ever.
    pub async fn run(self: Arc<Self>) {
        let (key, mut position) = (self.keys.commands(), None);
        let (mut delay, mut vain) = (RETRY.0, 0);
        loop {
            let turn = tokio::time::timeout(LOOK, self.lead.wait_work()).await.ok();
            if turn.is_none() && !self.lead.is_synced() {
                vain += 1;
                if vain == PATIENCE && self.store.ping().await.is_ok() {
                    tracing::error!(
                        "no channel goes on, for {key} cannot be subscribed to: the store's user needs that channel and that key"
                    );
                }
                continue;
            }
            vain = 0;
            let mut look = Batch::default();
            let read = self.read_on(&mut position, &mut look).await;
            if look.passed_over > 1 {
                tracing::warn!(
                    entries = look.passed_over,
                    "so many entries of {key} were passed over; the first is told above"
                );
            }
            match read {
                Ok(at) => {
                    delay = RETRY.0;
                    self.lead.set_read_to(at);
                    if let Some(turn) = turn {
                        self.lead.mark_synced(turn);
                    }
                }
                Err(error) => {
                    // Be it that nothing rang: what cannot be known may have been said.
                    self.lead.mark_unsynced();
                    if !matches!(error, StoreError::Unavailable(_)) {
                        tracing::error!(%error, "the commands in {key} cannot be read: no channel goes on without");
                    }
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY.1);
                }
            }
            if !look.answers.is_empty() {
                tokio::spawn(say(Arc::clone(&self.store), self.keys.clone(), self.node.clone(), look.answers));
            }
        }
    }

    /// Reads to the end, and does what is said. Where the last entry is then, as every page says it: be it one that is trimmed or deleted
    /// meanwhile, which changes nothing.
    async fn read_on(&self, position: &mut Option<Position>, look: &mut Batch) -> Result<StreamId, StoreError> {
        loop {
            let Some(read) = position else {
                *position = Some(self.begin(ResyncReason::Start).await?);
                continue;
            };
            let limits = Limits { entries: PAGE, bytes: READ.0, max_event: READ.1 };
            let page = self.store.read(&self.keys.commands(), read.at, limits).await?;
            let state = page.stream.unwrap_or_default();
            if state.last < read.at || state.added < read.added {
                *read = self.begin(ResyncReason::WentBack).await?;
                continue;
            }
            for (id, body) in page.entries {
                self.hear(id, &body, look);
                // Behind a long absence there are thousands, and each looks at all streams.
                tokio::task::yield_now().await;
                *read = Position { at: id, added: read.added + 1 };
            }
            if page.complete {
                if state.added != read.added {
                    *read = self.begin(ResyncReason::Missed).await?;
                    continue;
                }
                read.at = state.last;
                return Ok(page.lead);
            }
        }
    }

    /// Goes to the end without reading, once all listeners know in another way what was said.
    async fn begin(&self, why: ResyncReason) -> Result<Position, StoreError> {
        match why {
            ResyncReason::First | ResyncReason::Start => {}
            ResyncReason::Missed => tracing::warn!("commands of the fleet were trimmed before they were read here"),
            ResyncReason::WentBack => tracing::warn!("the store holds fewer commands of the fleet than it did"),
        }
        // What is sent behind this is read; what was before is in what the listeners look at.
        let limits = Limits { entries: 0, bytes: READ.0, max_event: READ.1 };
        let state = self.store.read(&self.keys.commands(), StreamId::ZERO, limits).await?.stream.unwrap_or_default();
        let why = if why == ResyncReason::Start && state.added == 0 { ResyncReason::First } else { why };
        for (_, listener) in self.listeners() {
            listener.begin(why).await?;
        }
        Ok(Position { at: state.last, added: state.added })
    }

    fn hear(&self, id: StreamId, body: &Body, look: &mut Batch) {
        let fields: Map<String, Value> = match body {
            Body::Event { event, data, .. } if event == EVENT => serde_json::from_str(data).unwrap_or_default(),
            _ => Map::new(),
        };
        let Some(kind) = fields.get("kind").and_then(Value::as_str) else {
            if look.pass_over() {
                let key = self.keys.commands();
                tracing::warn!(%id, "an entry of {key} is no command: it is passed over");
            }
            return;
        };
        let Some((_, listener)) = self.listeners().into_iter().find(|(kinds, _)| kinds.contains(&kind)) else {
            if look.pass_over() {
                tracing::warn!(%id, kind, "a command that this version does not know: it is passed over");
            }
            return;
        };
        match listener.hear(&ReceivedCommand { id, fields: &fields }) {
            Ok(answer) => look.answers.extend(answer.map(|answer| (id, answer))),
            Err(why) => {
                if look.pass_over() {
                    tracing::error!(%id, kind, why, "a command is wrong: it is passed over");
                }
            }
        }
    }
}

/// Answers, for those who wait for that.
async fn say(store: Arc<dyn Store>, keys: FleetKeys, node: String, answers: Vec<CommandReply>) {
    let (most, seconds) = REPLIES;
    let retention = Retention { max_length: Some(most), expire_seconds: Some(seconds) };
    // After a long absence nobody waits for the older ones.
    let old = answers.len().saturating_sub(AWAITED);
    for (id, answer) in answers.into_iter().skip(old) {
        let event = NewEvent::new("answer", &json!({ "node": node, "answer": answer }));
        if let Err(error) = store.emit(&keys.command_replies(id), &event, retention).await {
            tracing::debug!(%error, "who sent a command is not answered");
            return;
        }
    }
}
