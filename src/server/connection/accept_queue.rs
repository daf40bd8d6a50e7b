//! Closing a listener without resetting clients. A connection in the accept queue, or in its handshake, is established from the client's
//! point of view: closing the listener would reset it, and browsers do not retry a reset as they retry a refused connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Handshakes that have begun are completed within this time on nearly all networks.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(200);

/// Accepts every connection that is established, and closes the listener.
pub async fn close(listener: TcpListener, mut accept: impl FnMut(TcpStream, SocketAddr)) {
    match ignore_new_handshakes(&listener) {
        Ok(()) => {
            let _ = tokio::time::timeout(HANDSHAKE_TIMEOUT, async {
                while let Ok((socket, peer)) = listener.accept().await {
                    accept(socket, peer);
                }
            })
            .await;
        }
        Err(error) => {
            tracing::debug!(%error, "cannot ignore new handshakes: closing the listener may reset some connections")
        }
    }
    if let Err(error) = accept_remaining(listener, accept) {
        tracing::debug!(%error, "cannot accept all waiting connections: closing the listener resets the others");
    }
}

/// Makes the kernel ignore packets that would begin a connection: the client's kernel retransmits a second later, and finds the port closed.
/// The filter is a classic BPF program for SYN (0x02) without ACK (0x10) in the flags of the TCP header.
#[cfg(target_os = "linux")]
fn ignore_new_handshakes(listener: &TcpListener) -> std::io::Result<()> {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    socket2::SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn ignore_new_handshakes(_: &TcpListener) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Accepts with the kernel's own call: the runtime may not have been notified of all waiting connections yet.
fn accept_remaining(listener: TcpListener, mut accept: impl FnMut(TcpStream, SocketAddr)) -> std::io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((socket, peer)) => {
                socket.set_nonblocking(true)?;
                accept(TcpStream::from_std(socket)?, peer);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
