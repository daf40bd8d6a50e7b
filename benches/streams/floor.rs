//! The floor: a process that does nothing but write the same bytes to the same number of sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// How this process is told to be the floor.
pub const PART: &str = "floor";

/// What it says first on each connection.
pub const OPEN: &str = "open";

/// Serves one who says `open <sockets>`, `write <events> <bytes>` or `close`, line by line on the first connection.
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("floor on http://{}", listener.local_addr().expect("its address"));
    let (mut boss, _) = listener.accept().expect("a connection");
    let mut lines = BufReader::new(boss.try_clone().expect("a handle")).lines();
    let mut sockets: Vec<TcpStream> = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        match words[0] {
            "open" => {
                let next = || {
                    let (mut socket, _) = listener.accept().expect("a connection");
                    socket.set_nodelay(true).expect("an option");
                    // More of them would wait to be accepted than the system lets wait.
                    socket.write_all(OPEN.as_bytes()).expect("it reads");
                    socket
                };
                sockets = (0..number(1)).map(|_| next()).collect();
                boss.write_all(b"!").expect("whoever asked is there");
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
