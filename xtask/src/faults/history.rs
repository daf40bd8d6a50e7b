//! What emitters and clients observed in a run, and what the store holds at its end.

use std::fmt;
use std::str::FromStr;

/// The id of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub ms: u64,
    pub seq: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, seq) = text.split_once('-').ok_or(())?;
        Ok(Self { ms: ms.parse().map_err(|_| ())?, seq: seq.parse().map_err(|_| ())? })
    }
}

/// Milliseconds since the begin of the run.
pub type Millis = u32;

/// The number of an emit, which is the data of its event.
pub type Token = u32;

/// How an event is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `XADD` and `PUBLISH` to the master of the key.
    Direct,
    /// `POST /redis` of a gateway.
    Rest,
    /// `POST /v1/emit` of a gateway.
    Control,
    /// `tidegate emit`.
    Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged(Id),
    /// The store or the gateway refused it.
    Rejected,
    /// The reply was lost: the event may exist.
    Unknown,
}

/// One attempt to emit an event. No attempt is repeated.
#[derive(Clone, Copy, Debug)]
pub struct Emit {
    pub channel: u16,
    pub way: Way,
    pub began: Millis,
    pub ended: Millis,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Trimmed,
    StoreReset,
    TooLarge,
    UnknownPosition,
}

impl Reason {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "trimmed" => Self::Trimmed,
            "store-reset" => Self::StoreReset,
            "too-large" => Self::TooLarge,
            "unknown-position" => Self::UnknownPosition,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub after: Option<Id>,
    pub resumed: Id,
    pub certain: bool,
    pub reason: Reason,
}

/// Why a connection ended, or was not established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it.
    Client,
    /// The gateway ended the stream; with `reconnect` after a frame of this type.
    Stream { reconnect: bool },
    /// It was reset or ended within a chunk.
    Broken(String),
    /// There was no answer.
    Refused(String),
    /// There was another answer than a stream.
    Status(u16),
    /// There was no frame for longer than a client waits.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Open {
        gateway: u8,
    },
    Connected {
        channel: u16,
        cursor: Id,
    },
    Event {
        channel: u16,
        id: Id,
        token: Token,
    },
    Gap {
        channel: u16,
        gap: Gap,
    },
    Closed {
        gateway: u8,
        began: Millis,
        end: End,
    },
    /// A frame that the protocol does not allow here.
    Unexpected(String),
}

#[derive(Clone, Debug)]
pub struct Record {
    pub at: Millis,
    pub item: Item,
}

/// All that a client observed, over all its connections.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub channels: Vec<u16>,
    /// Whether it reads so slowly that a gateway may end its streams.
    pub slow: bool,
    /// Whether it resumes by `last_ack_…`, which does not have the content of its last entry.
    pub by_ack: bool,
    pub records: Vec<Record>,
}

/// A time in which a gateway was killed or stopped.
#[derive(Clone, Copy, Debug)]
pub struct GatewayFault {
    pub gateway: u8,
    pub from: Millis,
    pub until: Millis,
}

/// What a history is compared with.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// By token.
    pub emits: Vec<Emit>,
    /// The entries of each channel on the masters at the end, in order.
    pub surviving: Vec<Vec<(Id, Token)>>,
    pub gateway_faults: Vec<GatewayFault>,
    /// Whether everything that was acknowledged has to survive.
    pub durable: bool,
}

/// The text form of a history, for a report.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} ", f64::from(self.at) / 1000.0)?;
        match &self.item {
            Item::Open { gateway } => write!(f, "open on gateway {gateway}"),
            Item::Connected { channel, cursor } => write!(f, "channel {channel}: connected at {cursor}"),
            Item::Event { channel, id, token } => write!(f, "channel {channel}: event {id}, emit {token}"),
            Item::Gap { channel, gap: Gap { after, resumed, certain, reason } } => {
                let after = after.map_or("null".to_owned(), |id| id.to_string());
                write!(f, "channel {channel}: gap after {after}, resumed {resumed}, certain {certain}, {reason:?}")
            }
            Item::Closed { gateway, began, end } => {
                write!(f, "connection to gateway {gateway} of {:.3} ended: {end:?}", f64::from(*began) / 1000.0)
            }
            Item::Unexpected(text) => write!(f, "unexpected: {text}"),
        }
    }
}
