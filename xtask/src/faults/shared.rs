//! What the threads of a run share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::history::{Emit, Millis, Outcome, Token, Way};

/// The token of `/redis`.
pub const REST_TOKEN: &str = "token-of-the-fault-suite";

/// The ports of a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub data: u16,
    pub control: u16,
}

pub struct Shared {
    pub begin: Instant,
    pub channels: Vec<String>,
    pub gateways: Vec<Ports>,
    /// Replicas that have to confirm an entry before it counts as acknowledged.
    pub wait: Option<u8>,
    /// The faults are over: emitters stop, slow clients read on, and no client disconnects by itself.
    settling: AtomicBool,
    /// All threads end.
    stopped: AtomicBool,
    emits: Mutex<Vec<Emit>>,
}

impl Shared {
    pub fn new(channels: usize, gateways: Vec<Ports>, wait: Option<u8>) -> Self {
        Self {
            begin: Instant::now(),
            channels: (0..channels).map(|n| format!("faults:{n}")).collect(),
            gateways,
            wait,
            settling: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            emits: Mutex::default(),
        }
    }

    pub fn now(&self) -> Millis {
        Millis::try_from(self.begin.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    pub fn settle(&self) {
        self.settling.store(true, Ordering::SeqCst);
    }

    pub fn is_settling(&self) -> bool {
        self.settling.load(Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.settle();
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub fn emits(&self) -> MutexGuard<'_, Vec<Emit>> {
        self.emits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers an emit before it is sent.
    pub fn begin_emit(&self, channel: u16, way: Way) -> Token {
        let began = self.now();
        let mut emits = self.emits();
        emits.push(Emit { channel, way, began, ended: Millis::MAX, outcome: Outcome::Unknown });
        Token::try_from(emits.len() - 1).unwrap_or(Token::MAX)
    }

    pub fn end_emit(&self, token: Token, outcome: Outcome) {
        let ended = self.now();
        if let Some(emit) = self.emits().get_mut(token as usize) {
            (emit.ended, emit.outcome) = (ended, outcome);
        }
    }
}

/// Sleeps in parts, until the time is over or the faults are.
pub fn pause(shared: &Shared, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && !shared.is_settling() {
        std::thread::sleep(Duration::from_millis(50).min(end.saturating_duration_since(Instant::now())));
    }
}
