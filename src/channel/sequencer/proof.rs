//! The proof that the entries that were read are still in the store: a comparison of the last of them with those that the store has.

use crate::channel::sequencer::history::ReadHistory;
use crate::event::StreamId;
use crate::store::{Page, ReadRequest, StreamState};

/// A comparison, which takes several pages if the entries are large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// The entries up to here were compared; `None` before the first page.
    compared_to: Option<StreamId>,
    /// The last entry that was read and is there.
    common: Option<StreamId>,
    /// After `common`, entries are missing that may have been deleted.
    has_deleted: bool,
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// There are more entries to compare.
    Unfinished(Proof),
    /// Nothing is lost. `common` is the last entry that was read and is there; `None` if all of them were trimmed.
    Proven { common: Option<StreamId> },
    /// Entries are lost, or were added before the last one that was read, after the entry `common`; `None` if no common entry is known.
    /// `certain` is false if all that are missing may have been deleted, or if the key may have expired and been created again.
    Diverged { common: Option<StreamId>, certain: bool },
}

/// Why an entry that was read is not there.
enum Absence {
    Trimmed,
    MaybeDeleted,
    Lost,
}

impl Absence {
    /// Trimming removes the oldest entries, and a stream that has dropped none was not trimmed.
    fn of(id: StreamId, stream: &StreamState) -> Self {
        if id > stream.last {
            Self::Lost
        } else if stream.added > stream.length && stream.first.is_none_or(|first| id < first) {
            Self::Trimmed
        } else if id <= stream.max_deleted {
            Self::MaybeDeleted
        } else {
            Self::Lost
        }
    }
}

impl Proof {
    /// The next read: from before the oldest entry of the history.
    pub fn request(&self, history: &ReadHistory) -> ReadRequest {
        let (after, is_entry) = match self.compared_to {
            Some(position) => (position, self.common == Some(position)),
            None => (history.after(), history.starts_at_entry()),
        };
        ReadRequest { after, is_entry, notified: 0, wants_state: true }
    }

    /// Compares the history, whose last entry is at most `read_to`, with the page of [`Self::request`].
    pub fn compare(
        mut self,
        history: &ReadHistory,
        page: &Page,
        stream: &StreamState,
        read_to: StreamId,
    ) -> Comparison {
        let start = self.compared_to.unwrap_or_else(|| history.after());
        let end = if page.complete { read_to } else { page.entries.last().map_or(start, |(id, _)| *id).min(read_to) };
        let mut present = page.entries.iter().take_while(|(id, _)| *id <= end).peekable();
        if self.compared_to.is_none() && history.starts_at_entry() {
            if page.has_after {
                self.common = Some(start);
            } else if !self.may_miss(start, stream) {
                return self.diverged(stream, read_to);
            }
        }
        for (id, content) in history.entries_after(start).take_while(|(id, _)| *id <= end) {
            match present.peek() {
                Some((other, body)) if *other <= id => {
                    if *other < id || body.content_hash() != content {
                        return self.diverged(stream, read_to);
                    }
                    present.next();
                    (self.common, self.has_deleted) = (Some(id), false);
                }
                _ if self.may_miss(id, stream) => {}
                _ => return self.diverged(stream, read_to),
            }
        }
        let is_finished = page.complete || end >= read_to;
        let is_unread = present.next().is_some();
        if is_unread || (is_finished && (stream.last < read_to || self.has_deleted)) {
            let certain = is_unread || stream.last < read_to;
            return Comparison::Diverged { common: self.common, certain };
        }
        if is_finished {
            Comparison::Proven { common: self.common }
        } else {
            Comparison::Unfinished(Self { compared_to: Some(end), ..self })
        }
    }

    /// Whether nothing is lost although this entry is not there.
    fn may_miss(&mut self, id: StreamId, stream: &StreamState) -> bool {
        match Absence::of(id, stream) {
            Absence::Trimmed => true,
            Absence::MaybeDeleted => {
                self.has_deleted = true;
                true
            }
            Absence::Lost => false,
        }
    }

    /// An entry is lost, or was added before one that was read.
    fn diverged(&self, stream: &StreamState, read_to: StreamId) -> Comparison {
        // All entries are later ones: the key may have expired and been created again.
        let is_new = self.common.is_none() && stream.first.is_some_and(|first| first > read_to);
        Comparison::Diverged { common: self.common, certain: !is_new }
    }
}
