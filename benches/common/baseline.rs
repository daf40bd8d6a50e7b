//! The baseline: a process that only writes the same bytes to the same number of sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// The argument with which this program is the baseline.
pub const PART: &str = "baseline";

/// The first bytes on each connection.
pub const OPEN: &str = "open";

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
            "write" => {
                let mut frame = vec![b'x'; number(2)];
                frame[0] = super::clients::MARK;
                for _ in 0..number(1) {
                    sockets.iter_mut().for_each(|socket| socket.write_all(&frame).expect("the client reads"));
                }
            }
            _ => sockets.clear(),
        }
    }
}
