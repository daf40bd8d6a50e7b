//! The cost of opening a stream, with its decision, and of closing it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::clients::{StreamRequest, open_and_close};
use crate::common::machine::{Machine, cpu, settled_cpu};
use crate::common::median;
use crate::common::servers::{self, Server};

const OPENS: usize = 1500;
const ROUNDS: usize = 6;
const CHANNEL: &str = "alice-opens";
/// Active revocations of other clients.
const REVOCATIONS: usize = 500;

struct Contender {
    name: &'static str,
    /// The index of its server. Several contenders may share one.
    server: usize,
    request: StreamRequest,
    opens: usize,
    costs: Vec<f64>,
}

pub async fn measure(machine: &Machine) {
    println!("\n### An open and a close\n");
    let Some((redis, _connection)) = servers::redis().await else { return };
    let (mut servers_, mut contenders) = (Vec::<Server>::new(), Vec::new());
    let mut add = |name, server: Option<Server>, request: &dyn Fn(&Server) -> StreamRequest, opens| {
        servers_.extend(server);
        let server = servers_.len() - 1;
        contenders.push(Contender { name, server, request: request(&servers_[server]), opens, costs: Vec::new() });
    };
    let ours = |server: &Server| servers::realtime_request(server, CHANNEL);
    let tidegate = |args: &[&str], lines: &str| Some(servers::tidegate(machine, &redis, args, lines));
    add("Tidegate, the Rust policy, a session in Redis", tidegate(&[], ""), &ours, OPENS);
    add("the same, with `decisions.log`", tidegate(&[], "decisions.log = \"decisions.jsonl\""), &ours, OPENS);
    add("the same, without its log", tidegate(&[], "log.filter = \"error\""), &ours, OPENS);
    let with_revocations = servers::tidegate(machine, &redis, &[], "");
    add_revocations(&with_revocations).await;
    add("the same, with 500 active revocations", Some(with_revocations), &ours, OPENS);
    add("the same, `--allow-all`", tidegate(&["--allow-all"], ""), &ours, OPENS);
    if let Some(nchan) = servers::nchan(machine, Some(start_authority().await)).await {
        add("nchan with its subrequest", Some(nchan), &|server| servers::nchan_request(server, "authorized"), OPENS);
        add("nchan, without a decision", None, &|server| servers::nchan_request(server, "open"), OPENS);
    }
    if let Some(node) = servers::node(machine, &redis) {
        add("`handle()` on Node, the same rule", Some(node), &ours, OPENS / 5);
    }
    // One stream of each stays open, so that the channel is not removed.
    let mut open_streams = Vec::new();
    for contender in &contenders {
        open_streams.push(contender.request.open().await);
    }
    for round in 0..ROUNDS {
        for contender in &mut contenders {
            let pid = servers_[contender.server].pid;
            settled_cpu(pid).await;
            let before = cpu(pid);
            open_and_close(&contender.request, contender.opens).await;
            let used = settled_cpu(pid).await - before;
            // The first round warms up.
            if round > 0 {
                #[expect(clippy::cast_precision_loss, reason = "some thousands")]
                contender.costs.push(used.as_secs_f64() * 1e6 / contender.opens as f64);
            }
        }
    }
    let first = median(contenders[0].costs.clone());
    println!("| | µs CPU | ratio to Tidegate |\n| --- | ---: | ---: |");
    for contender in &contenders {
        let cost = median(contender.costs.clone());
        println!("| {} | {cost:.0} | {:.2} |", contender.name, cost / first);
    }
    println!("\nThe CPU time of Redis and of the server of nchan's subrequests is not counted.");
}

/// Starts the server of nchan's subrequests, which allows all of them.
async fn start_authority() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(allow_all(socket));
        }
    });
    address
}

async fn allow_all(mut socket: TcpStream) {
    let mut received = Vec::new();
    while socket.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
        if received.ends_with(b"\r\n\r\n") {
            received.clear();
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    }
}

/// Revokes the access of other clients.
async fn add_revocations(server: &Server) {
    let to = server.control.expect("a control port");
    let mut socket = TcpStream::connect(to).await.expect("a connection");
    for number in 0..REVOCATIONS {
        let body = format!("{{\"subject\":\"mallory-{number}\",\"for\":\"1h\"}}");
        let head = format!(
            "POST /v1/revoke HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).await.expect("the server reads");
        let mut response = Vec::new();
        while !response.ends_with(b"}") {
            assert_ne!(socket.read_buf(&mut response).await.expect("a response"), 0);
        }
        assert!(response.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&response));
    }
}
