//! The baseline: a process that only writes the same bytes to the same number of sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// The argument that starts this program as the baseline.
pub const PART: &str = "baseline";

/// The first bytes on each connection.
pub const OPEN: &str = "open";

/// Serves the commands `open <sockets>`, `write <events> <bytes>` and `close`, one a line on the first connection.
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("baseline on http://{}", listener.local_addr().expect("its address"));
    let (mut control, _) = listener.accept().expect("a connection");
    let mut lines = BufReader::new(control.try_clone().expect("a handle")).lines();
    let mut sockets: Vec<TcpStream> = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        match words[0] {
            "open" => {
                let next = || {
                    let (mut socket, _) = listener.accept().expect("a connection");
                    socket.set_nodelay(true).expect("an option");
                    // Accept one by one, as the accept queue of the system is shorter than the number of sockets.
                    socket.write_all(OPEN.as_bytes()).expect("it reads");
                    socket
                };
                sockets = (0..number(1)).map(|_| next()).collect();
                control.write_all(b"!").expect("the bench is connected");
            }
            "write" => {
                let mut frame = vec![b'x'; number(2)];
                frame[0] = super::crowd::MARK;
                for _ in 0..number(1) {
                    sockets.iter_mut().for_each(|socket| socket.write_all(&frame).expect("they read"));
                }
            }
            _ => sockets.clear(),
        }
    }
}
