//! The floor: a process with one thread that writes the same bytes to the same number of sockets, with one `writev` for each.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::net::{TcpListener, TcpStream};

/// The argument with which this program is the baseline.
pub const PART: &str = "baseline";

/// The first bytes on each connection.
pub const OPEN: &str = "open";
/// The bytes of a stream of its own before the bytes that all streams share: the head of a chunk and the line with the position.
const HEAD_BYTES: usize = 40;
/// The end of a chunk.
const END: &[u8] = b"\r\n";

/// Executes the commands of the first connection, one per line: `open <sockets>`, `write <events> <bytes>` or `close`.
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("baseline on http://{}", listener.local_addr().expect("its address"));
    let (mut controller, _) = listener.accept().expect("a connection");
    let mut lines = BufReader::new(controller.try_clone().expect("a handle")).lines();
    let mut sockets: Vec<TcpStream> = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        let arguments: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| arguments[index].parse::<usize>().expect("a number");
        match arguments[0] {
            "open" => {
                let next = || {
                    let (mut socket, _) = listener.accept().expect("a connection");
                    socket.set_nodelay(true).expect("an option");
                    // The client waits for these bytes before it connects again: the accept queue is short.
                    socket.write_all(OPEN.as_bytes()).expect("the client reads");
                    socket
                };
                sockets = (0..number(1)).map(|_| next()).collect();
                controller.write_all(b"!").expect("the controller is connected");
            }
            "write" => write(&mut sockets, number(1), number(2)),
            _ => sockets.clear(),
        }
    }
}

/// Writes events of this size to each socket, all of them with one system call.
fn write(sockets: &mut [TcpStream], events: usize, size: usize) {
    let head = [b'h'; HEAD_BYTES];
    let mut shared = vec![b'x'; size.saturating_sub(HEAD_BYTES + END.len()).max(1)];
    shared[0] = super::clients::MARK;
    let slices: Vec<IoSlice> = (0..events).flat_map(|_| [&head[..], &shared, END]).map(IoSlice::new).collect();
    let all: usize = slices.iter().map(|slice| slice.len()).sum();
    for socket in sockets {
        let written = socket.write_vectored(&slices).expect("the client reads");
        assert_eq!(written, all, "the send buffer is larger");
    }
}
