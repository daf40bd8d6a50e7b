//! Compares the deliveries of each client with the acknowledged entries and with those that survived.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{Emit, End, Evidence, Gap, History, Id, Item, Millis, Outcome, Reason, Token};

/// A rule that a run broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An entry was delivered twice to one client.
    Repeated,
    /// An entry was delivered after one that follows it in the stream.
    OutOfOrder,
    /// A surviving entry was not delivered.
    Missing,
    /// A delivered entry did not survive, and no gap reported it.
    LossWithoutGap,
    /// A delivered event was never emitted, or on another channel, or with another id than the acknowledged one.
    Forged,
    /// One emit made two entries.
    Doubled,
    /// An acknowledged entry did not survive where it has to.
    Lost,
    /// A gateway without a fault ended a stream or refused one.
    StreamEnded,
    /// A frame that the protocol does not allow.
    Protocol,
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub client: Option<usize>,
    pub text: String,
}

/// What a run had, for the report.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub acknowledged: usize,
    pub rejected: usize,
    pub unknown: usize,
    pub surviving: usize,
    /// Acknowledged entries that did not survive.
    pub lost: usize,
    pub connections: usize,
    pub deliveries: usize,
    /// Deliveries of entries that did not survive.
    pub lost_deliveries: usize,
    /// Entries that were delivered again, as gaps told the client: they had been lost and were there again, or it was not known which were lost.
    pub returned: usize,
    /// Losses without a gap and missing entries of clients that resume by `last_ack_…` at an id that another entry has: no gateway can
    /// tell.
    pub unrecognized: usize,
    /// By reason, and whether the gap is certain.
    pub gaps: BTreeMap<(Reason, bool), usize>,
    /// The longest time between an acknowledgement and a delivery, except to slow readers.
    pub longest_delay: Millis,
    /// By rule.
    pub violations: BTreeMap<Rule, usize>,
}

impl Figures {
    pub fn count(&self, rule: Rule) -> usize {
        self.violations.get(&rule).copied().unwrap_or(0)
    }

    pub fn gaps(&self, certain: bool) -> usize {
        self.gaps.iter().filter(|((_, other), _)| *other == certain).map(|(_, count)| count).sum()
    }
}

/// Checks all clients.
pub fn check(clients: &[History], evidence: &Evidence) -> (Figures, Vec<Violation>) {
    let mut figures = Figures::default();
    let mut violations = check_emits(evidence, &mut figures);
    let surviving: Vec<HashSet<(Id, Token)>> =
        evidence.surviving.iter().map(|entries| entries.iter().copied().collect()).collect();
    for (number, history) in clients.iter().enumerate() {
        let mut violation = |rule, text| violations.push(Violation { rule, client: Some(number), text });
        check_connections(history, evidence, &mut figures, &mut violation);
        let mut channels = split(history, &mut violation);
        for channel in &history.channels {
            let view = channels.remove(channel).unwrap_or_default();
            let index = usize::from(*channel);
            let (Some(set), Some(list)) = (surviving.get(index), evidence.surviving.get(index)) else { continue };
            Channel { number: *channel, slow: history.slow, by_ack: history.by_ack, view: &view, set, list, evidence }
                .check(&mut figures, &mut violation);
        }
    }
    for violation in &violations {
        *figures.violations.entry(violation.rule).or_default() += 1;
    }
    (figures, violations)
}

fn check_emits(evidence: &Evidence, figures: &mut Figures) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut violation = |rule, text| violations.push(Violation { rule, client: None, text });
    let mut found: HashMap<Token, Id> = HashMap::new();
    for (channel, entries) in evidence.surviving.iter().enumerate() {
        figures.surviving += entries.len();
        for (id, token) in entries {
            if let Some(other) = found.insert(*token, *id) {
                violation(
                    Rule::Doubled,
                    format!("emit {token} made the entries {other} and {id} of channel {channel}"),
                );
            }
        }
    }
    for (token, emit) in evidence.emits.iter().enumerate() {
        match emit.outcome {
            Outcome::Rejected => figures.rejected += 1,
            Outcome::Unknown => figures.unknown += 1,
            Outcome::Acknowledged(id) => {
                figures.acknowledged += 1;
                match Token::try_from(token).ok().and_then(|token| found.get(&token)) {
                    Some(other) if *other == id => {}
                    Some(other) => {
                        violation(Rule::Forged, format!("emit {token} was acknowledged as {id} and is {other}"))
                    }
                    None => {
                        figures.lost += 1;
                        if evidence.durable {
                            violation(
                                Rule::Lost,
                                format!("emit {token}: entry {id} of channel {} ({:?})", emit.channel, emit.way),
                            );
                        }
                    }
                }
            }
        }
    }
    violations
}

fn check_connections(
    history: &History,
    evidence: &Evidence,
    figures: &mut Figures,
    violation: &mut dyn FnMut(Rule, String),
) {
    for record in &history.records {
        match &record.item {
            Item::Open { .. } => figures.connections += 1,
            Item::Closed { gateway, began, end } => {
                let excused = match end {
                    End::Client => true,
                    End::Stream { .. } | End::Broken(_) if history.slow => true,
                    _ => evidence
                        .gateway_faults
                        .iter()
                        .any(|fault| fault.gateway == *gateway && fault.from <= record.at && fault.until >= *began),
                };
                if !excused {
                    violation(Rule::StreamEnded, record.to_string());
                }
            }
            Item::Unexpected(_) => violation(Rule::Protocol, record.to_string()),
            _ => {}
        }
    }
}

/// What a client observed on one channel.
#[derive(Default)]
struct View {
    /// The first position, and when the client got it.
    start: Option<(Id, Millis)>,
    /// Events and gaps in order, each with its time.
    items: Vec<(Millis, Observed)>,
}

enum Observed {
    /// A connection began at this position.
    Connected(Id),
    Event(Id, Token),
    Gap(Gap),
}

fn split(history: &History, violation: &mut dyn FnMut(Rule, String)) -> HashMap<u16, View> {
    let mut channels: HashMap<u16, View> = HashMap::new();
    let mut open = HashSet::new();
    for record in &history.records {
        match record.item {
            Item::Open { .. } => open.clear(),
            Item::Connected { channel, cursor } => {
                if !open.insert(channel) {
                    violation(Rule::Protocol, format!("connected twice: {record}"));
                }
                let view = channels.entry(channel).or_default();
                view.start.get_or_insert((cursor, record.at));
                view.items.push((record.at, Observed::Connected(cursor)));
            }
            Item::Event { channel, id, token } => {
                if !open.contains(&channel) {
                    violation(Rule::Protocol, format!("an event before connected: {record}"));
                }
                channels.entry(channel).or_default().items.push((record.at, Observed::Event(id, token)));
            }
            Item::Gap { channel, gap } => {
                channels.entry(channel).or_default().items.push((record.at, Observed::Gap(gap)))
            }
            Item::Closed { .. } | Item::Unexpected(_) => {}
        }
    }
    channels
}

struct Channel<'a> {
    number: u16,
    slow: bool,
    by_ack: bool,
    view: &'a View,
    set: &'a HashSet<(Id, Token)>,
    list: &'a [(Id, Token)],
    evidence: &'a Evidence,
}

impl Channel<'_> {
    fn check(&self, figures: &mut Figures, violation: &mut dyn FnMut(Rule, String)) {
        let number = self.number;
        let Some((start, started)) = self.view.start else {
            return violation(Rule::Missing, format!("channel {number} was never connected"));
        };
        // Of the last event, or where the stream continued after a gap; and how far back a gap without a common entry may go.
        let (mut position, mut received) = (start, start);
        let mut delivered: HashSet<(Id, Token)> = HashSet::new();
        // Deliveries that a gap withdrew, with the number of such gaps since; one that proves the loss counts twice.
        let mut withdrawn: HashMap<(Id, Token), usize> = HashMap::new();
        for (at, item) in &self.view.items {
            match item {
                Observed::Connected(_) => {}
                Observed::Gap(gap) => {
                    *figures.gaps.entry((gap.reason, gap.certain)).or_default() += 1;
                    // The stream continues after the last entry that is left; `resumed` may be the next entry.
                    if gap.reason == Reason::StoreReset {
                        let window = window(received.min(gap.resumed));
                        for entry in delivered.iter().filter(|(id, _)| *id > least(gap)) {
                            let again = match gap.after {
                                // Entries before `resumed` were not there, and neither was any if the stream ended before the delivered
                                // entries. If it is not certain what the client has received, entries are delivered again.
                                Some(after) => gap.resumed <= after || entry.0 < gap.resumed || !gap.certain,
                                // Without a key there was none. Else it is not known what the client lacks of the last minute.
                                None => gap.resumed == NONE || entry.0 > window,
                            };
                            *withdrawn.entry(*entry).or_default() += if again { 2 } else { 1 };
                        }
                        position = least(gap).min(before(gap.resumed));
                        received = gap.after.unwrap_or(window);
                    }
                }
                Observed::Event(id, token) => {
                    figures.deliveries += 1;
                    let seconds = f64::from(*at) / 1000.0;
                    let has_returned = withdrawn.remove(&(*id, *token)).is_some_and(|gaps| gaps >= 2);
                    if has_returned {
                        figures.returned += 1;
                    } else if !delivered.insert((*id, *token)) {
                        violation(Rule::Repeated, format!("channel {number}: entry {id} again at {seconds:.3}"));
                    } else if *id <= position {
                        violation(
                            Rule::OutOfOrder,
                            format!("channel {number}: entry {id} after {position} at {seconds:.3}"),
                        );
                    }
                    (position, received) = (*id, *id);
                    self.check_origin(*id, *token, violation);
                    // An entry that is delivered again was not late.
                    if let Some(delay) = self.delay(*token, started, *at).filter(|_| !has_returned) {
                        figures.longest_delay = figures.longest_delay.max(delay);
                    }
                }
            }
        }
        let taken = self.taken();
        self.check_losses(&taken, figures, violation);
        for (id, token) in self.list.iter().filter(|entry| !delivered.contains(entry)) {
            if taken.last().is_some_and(|(_, taken)| id <= taken) {
                figures.unrecognized += 1;
                continue;
            }
            // Where the store lost entries, a new entry can have an id before the client's start.
            let began = self.evidence.emits.get(*token as usize).map_or(0, |emit| emit.began);
            if *id > start || began > started {
                let within = if self.is_in_gap(*id) { " (within a gap)" } else { "" };
                violation(Rule::Missing, format!("channel {number}: entry {id}, emit {token}{within}"));
            }
        }
    }

    /// Whether an entry is in the range that a gap reports.
    fn is_in_gap(&self, id: Id) -> bool {
        let contains = |gap: &Gap| gap.after.is_none_or(|after| after < id) && id <= gap.resumed;
        self.view.items.iter().any(|(_, item)| matches!(item, Observed::Gap(gap) if contains(gap)))
    }

    /// Where the client resumed by `last_ack_…` with the id of an entry that was lost, while another entry had the id, and at which time. A
    /// gateway that never read the lost one takes the other for it, so that new entries up to there are missed, and there is no gap. In the
    /// order of times, each with the greatest id so far.
    fn taken(&self) -> Vec<(Millis, Id)> {
        let (mut taken, mut last) = (Vec::new(), None);
        for (at, item) in &self.view.items {
            match item {
                Observed::Event(id, token) => last = Some((*id, *token)),
                Observed::Gap(_) => last = None,
                Observed::Connected(cursor) => {
                    let Some((id, token)) = last.filter(|(id, _)| self.by_ack && id == cursor) else { continue };
                    let is_other = |(number, emit): (usize, &Emit)| {
                        let is_here = emit.channel == self.number && emit.outcome == Outcome::Acknowledged(id);
                        is_here && Token::try_from(number).is_ok_and(|number| number != token)
                    };
                    if !self.set.contains(&(id, token)) && self.evidence.emits.iter().enumerate().any(is_other) {
                        let greatest = taken.last().map_or(id, |(_, greatest)| id.max(*greatest));
                        taken.push((*at, greatest));
                    }
                }
            }
        }
        taken
    }

    /// Each delivered entry that did not survive needs a later gap that begins before the entry, or whose beginning is not known. It reports a
    /// store reset, or trimming where a client reconnects while the key is missing: the key may have expired.
    fn check_losses(&self, taken: &[(Millis, Id)], figures: &mut Figures, violation: &mut dyn FnMut(Rule, String)) {
        // The least position to which a later gap goes back.
        let mut back: Option<Id> = None;
        for (at, item) in self.view.items.iter().rev() {
            match item {
                Observed::Gap(gap) if matches!(gap.reason, Reason::StoreReset | Reason::Trimmed) => {
                    back = Some(back.map_or(least(gap), |back| back.min(least(gap))));
                }
                Observed::Event(id, token) if !self.set.contains(&(*id, *token)) => {
                    figures.lost_deliveries += 1;
                    let is_reported = back.is_some_and(|back| back < *id);
                    if !is_reported && taken.iter().any(|(taken_at, taken)| taken_at >= at && taken >= id) {
                        figures.unrecognized += 1;
                    } else if !is_reported {
                        let seconds = f64::from(*at) / 1000.0;
                        violation(Rule::LossWithoutGap, format!("channel {}: entry {id} of {seconds:.3}", self.number));
                    }
                }
                Observed::Gap(_) | Observed::Event(..) | Observed::Connected(_) => {}
            }
        }
    }

    fn check_origin(&self, id: Id, token: Token, violation: &mut dyn FnMut(Rule, String)) {
        let emit = self.evidence.emits.get(token as usize);
        let genuine = emit.is_some_and(|emit| {
            emit.channel == self.number && !matches!(emit.outcome, Outcome::Acknowledged(other) if other != id)
        });
        if !genuine {
            violation(Rule::Forged, format!("channel {}: entry {id}, emit {token}: {emit:?}", self.number));
        }
    }

    /// The delay of an event that was emitted after the client connected first.
    fn delay(&self, token: Token, started: Millis, at: Millis) -> Option<Millis> {
        let emit = self.evidence.emits.get(token as usize)?;
        let acknowledged = matches!(emit.outcome, Outcome::Acknowledged(_));
        (acknowledged && emit.began > started && !self.slow).then(|| at.saturating_sub(emit.ended))
    }
}

/// The id of an empty stream.
const NONE: Id = Id { ms: 0, seq: 0 };

/// What a gap without a common entry makes the gateway deliver again, in ms before the position of the client or the end of the stream.
const WINDOW_MS: u64 = 60_000;

fn window(end: Id) -> Id {
    before(Id { ms: end.ms.saturating_sub(WINDOW_MS), seq: 0 })
}

/// The position from which a gap reports entries.
fn least(gap: &Gap) -> Id {
    gap.after.map_or(NONE, |after| after.min(gap.resumed))
}

fn before(id: Id) -> Id {
    match id {
        Id { ms: 0, seq: 0 } => id,
        Id { ms, seq: 0 } => Id { ms: ms - 1, seq: u64::MAX },
        Id { ms, seq } => Id { ms, seq: seq - 1 },
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
