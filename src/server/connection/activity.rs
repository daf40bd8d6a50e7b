//! What one connection does, and until when it may do so. A connection that owes a request ends in time, whatever bytes it sends; a
//! connection with a request in progress ends only if a response other than a stream is not read.

use std::net::IpAddr;
use std::sync::Arc;

use http::Version;
use parking_lot::Mutex;

use crate::server::connection::deadline::{Deadline, EndCause};
use crate::server::connection::limits::{ConnectionPermit, PortLimits};
use crate::util::shares::Share;

/// Bytes of a head that arrive without a share of the memory for connections: nearly all heads are smaller.
const FREE_HEAD_BYTES: usize = 8 << 10;

/// The activity of one connection.
pub struct Activity {
    limits: Arc<PortLimits>,
    /// Ascending in the order of arrival.
    id: u64,
    /// Whose connection it is; `None` for a trusted proxy's.
    holder: Option<IpAddr>,
    state: Mutex<State>,
    end: Arc<Deadline>,
}

struct State {
    /// Requests in progress, from the complete head until the response is written.
    exchanges: usize,
    /// Those of them that are streams. What a connection with a stream may hold counts with the stream.
    streams: usize,
    /// The socket is closed; exchanges may end later.
    closed: bool,
    /// Among the idle connections of the port, unless it was replaced.
    is_idle: bool,
    expects: Expects,
    /// What arrived since the last request.
    head_bytes: usize,
    /// Held by a head that is larger than [`FREE_HEAD_BYTES`].
    head_memory: Option<Share<IpAddr>>,
}

/// What a connection without a request in progress waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// The rest of a head, whose time runs.
    Head,
    /// The first byte of the next HTTP/1.1 request.
    Http1Request,
    /// The next HTTP/2 request. Other frames do not count.
    Http2Request,
}

impl Activity {
    /// The activity of a connection that was accepted just now.
    pub fn new(permit: &ConnectionPermit) -> Arc<Self> {
        let (limits, id, holder) = (Arc::clone(&permit.limits), permit.id, permit.holder);
        let state = State {
            exchanges: 0,
            streams: 0,
            closed: false,
            is_idle: true,
            expects: Expects::Head,
            head_bytes: 0,
            head_memory: None,
        };
        let activity = Arc::new(Self { limits, id, holder, state: Mutex::new(state), end: Arc::default() });
        activity.end.set(activity.limits.config.head_timeout, EndCause::HeadTimeout);
        activity.limits.idle().insert(holder, id, Arc::clone(&activity.end));
        activity
    }

    pub const fn limits(&self) -> &Arc<PortLimits> {
        &self.limits
    }

    /// Notes that bytes arrived. Fails if a head needs more memory than there is.
    pub fn received(&self, bytes: usize) -> Result<(), EndCause> {
        let mut state = self.state.lock();
        // Over HTTP/2 a head can arrive while other requests are in progress.
        let may_be_head = state.exchanges == 0 || (state.expects == Expects::Http2Request && state.streams == 0);
        if !may_be_head || bytes == 0 {
            return Ok(());
        }
        if state.expects == Expects::Http1Request {
            state.expects = Expects::Head;
            self.end.set(self.limits.config.head_timeout, EndCause::HeadTimeout);
        }
        state.head_bytes += bytes;
        if state.head_bytes > FREE_HEAD_BYTES && state.head_memory.is_none() {
            state.head_memory = Some(self.take_memory(self.limits.max_head_bytes)?);
        }
        Ok(())
    }

    /// Takes memory for a head or a response of this connection.
    pub fn take_memory(&self, bytes: usize) -> Result<Share<IpAddr>, EndCause> {
        self.limits.memory.take(self.holder, bytes).map_err(|_| {
            self.limits.ended(EndCause::Memory);
            EndCause::Memory
        })
    }

    /// Notes that a request has arrived.
    pub fn begin_exchange(&self, version: Version) {
        let mut state = self.state.lock();
        state.exchanges += 1;
        state.expects = if version == Version::HTTP_2 { Expects::Http2Request } else { Expects::Http1Request };
        (state.head_bytes, state.head_memory) = (0, None);
        if state.exchanges == 1 {
            // In this order: a connection that is being replaced right now keeps its request.
            self.leave_idle(&mut state);
            self.end.clear();
        }
    }

    /// Notes that a request in progress is a stream.
    pub fn begin_stream(&self) {
        let mut state = self.state.lock();
        state.streams += 1;
        (state.head_bytes, state.head_memory) = (0, None);
    }

    /// Notes that the response to a request, which may be a stream, is written or given up.
    pub fn end_exchange(&self, is_stream: bool) {
        let mut state = self.state.lock();
        state.exchanges -= 1;
        state.streams -= usize::from(is_stream);
        if state.exchanges > 0 || state.closed {
            return;
        }
        let config = &self.limits.config;
        let idle = if state.expects == Expects::Http2Request { config.http2_idle_timeout } else { config.idle_timeout };
        self.end.set(idle, EndCause::IdleTimeout);
        state.is_idle = true;
        self.limits.idle().insert(self.holder, self.id, Arc::clone(&self.end));
    }

    /// Notes that the socket is closed.
    pub fn close(&self) {
        let mut state = self.state.lock();
        (state.closed, state.head_memory) = (true, None);
        self.leave_idle(&mut state);
    }

    fn leave_idle(&self, state: &mut State) {
        if std::mem::take(&mut state.is_idle) {
            self.limits.idle().remove(self.holder, self.id);
        }
    }

    /// When the connection has to end.
    pub const fn end(&self) -> &Arc<Deadline> {
        &self.end
    }
}
