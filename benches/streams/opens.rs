//! The cost of opening a stream, including its decision, and of closing it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::crowd::{StreamRequest, open_and_close};
use super::machine::{Machine, cpu, settled_cpu};
use super::median;
use super::servers::{self, Server};

const OPENS: usize = 1500;
const ROUNDS: usize = 6;
const CHANNEL: &str = "alice-opens";
/// Subjects with an active revocation.
const REVOKED: usize = 500;

struct Side {
    name: &'static str,
    /// Several sides may share a server.
    server: usize,
    request: StreamRequest,
    opens: usize,
    costs: Vec<f64>,
}

pub async fn measure(machine: &Machine) {
    println!("\n### An open and a close\n");
    let Some((redis, _connection)) = servers::redis().await else { return };
    let (mut servers_, mut sides) = (Vec::<Server>::new(), Vec::new());
    let mut add = |name, server: Option<Server>, request: &dyn Fn(&Server) -> StreamRequest, opens| {
        servers_.extend(server);
        let server = servers_.len() - 1;
        sides.push(Side { name, server, request: request(&servers_[server]), opens, costs: Vec::new() });
    };
    let ours = |server: &Server| servers::realtime(server, CHANNEL);
    let tidegate = |args: &[&str], lines: &str| Some(servers::tidegate(machine, &redis, args, lines));
    add("Tidegate, the Rust policy, a session in Redis", tidegate(&[], ""), &ours, OPENS);
    add("the same, with `decisions.log`", tidegate(&[], "decisions.log = \"decisions.jsonl\""), &ours, OPENS);
    add("the same, without its log", tidegate(&[], "log.filter = \"error\""), &ours, OPENS);
    let denying = servers::tidegate(machine, &redis, &[], "");
    deny(&denying).await;
    add("the same, while 500 are kept out", Some(denying), &ours, OPENS);
    add("the same, `--allow-all`", tidegate(&["--allow-all"], ""), &ours, OPENS);
    if let Some(nchan) = servers::nchan(machine, Some(authority().await)).await {
        add("nchan with its subrequest", Some(nchan), &|server| servers::of_nchan(server, "asked"), OPENS);
        add("nchan, without a decision", None, &|server| servers::of_nchan(server, "open"), OPENS);
    }
    if let Some(node) = servers::node(machine, &redis) {
        add("`handle()` on Node, the same rule", Some(node), &ours, OPENS / 5);
    }
    // One stream stays open, so that the channel stays open.
    let mut held = Vec::new();
    for side in &sides {
        held.push(side.request.open().await);
    }
    for round in 0..ROUNDS {
        for side in &mut sides {
            let pid = servers_[side.server].pid;
            settled_cpu(pid).await;
            let before = cpu(pid);
            open_and_close(&side.request, side.opens).await;
            let used = settled_cpu(pid).await - before;
            // The first round is a warm-up.
            if round > 0 {
                #[expect(clippy::cast_precision_loss, reason = "some thousands")]
                side.costs.push(used.as_secs_f64() * 1e6 / side.opens as f64);
            }
        }
    }
    let first = median(sides[0].costs.clone());
    println!("| | µs CPU | to Tidegate |\n| --- | ---: | ---: |");
    for side in &sides {
        let cost = median(side.costs.clone());
        println!("| {} | {cost:.0} | {:.2} |", side.name, cost / first);
    }
    println!("\nThe CPU of Redis, and of the server of nchan's subrequest, is not counted.");
}

/// A server that allows every request immediately.
async fn authority() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(agree(socket));
        }
    });
    address
}

async fn agree(mut socket: TcpStream) {
    let mut received = Vec::new();
    while socket.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
        if received.ends_with(b"\r\n\r\n") {
            received.clear();
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    }
}

/// Revokes other subjects.
async fn deny(server: &Server) {
    let to = server.control.expect("a control port");
    let mut socket = TcpStream::connect(to).await.expect("a connection");
    for number in 0..REVOKED {
        let body = format!("{{\"subject\":\"mallory-{number}\",\"for\":\"1h\"}}");
        let head = format!(
            "POST /v1/revoke HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).await.expect("the server reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(socket.read_buf(&mut answer).await.expect("an answer"), 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&answer));
    }
}
