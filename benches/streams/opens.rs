//! The cost of opening a stream, with its decision, and of closing it.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::clients::{NUMBER, StreamRequest, open_and_close};
use crate::common::machine::{Machine, cpu, settled_cpu};
use crate::common::options::Options;
use crate::common::peers::{self, Peer};
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Gateway, Server};
use crate::common::{median, micros};
use crate::guests;

pub const CHANNEL: &str = "alice-opens";
/// Active revocations of other clients.
const REVOCATIONS: usize = 500;
const TIDEGATE: &str = "Tidegate, the Rust policy, a session in Redis";
const TYPESCRIPT: &str = "the same, the policy in TypeScript";
const ALLOW_ALL: &str = "the same, `--allow-all`";
const LOGGED: &str = "the same, with its log";
const SMALL_POLICY: &str = "the same, a policy of a few instructions";
const OWN_CHANNEL: &str = "the same, each on a channel of its own";
/// A log without a line for an open.
const QUIET: &str = "log.filter = \"warn\"";
const CONNECTION: &str = "Tidegate, a connection without a request";
const HEALTH: &str = "Tidegate, `GET /healthz`";
const NCHAN: &str = "nchan";

/// One kind of open. Several may share a server.
struct Contender {
    name: &'static str,
    /// The index of its server.
    server: usize,
    request: StreamRequest,
    opens: usize,
    costs: Vec<f64>,
    per_second: Vec<f64>,
    busy: Vec<f64>,
}

/// The contenders and their servers.
#[derive(Default)]
struct Field {
    servers: Vec<Server>,
    contenders: Vec<Contender>,
}

impl Field {
    fn add(&mut self, name: &'static str, server: Server, request: StreamRequest, opens: usize) {
        self.servers.push(server);
        self.add_to_last(name, request, opens);
    }

    /// Adds a contender on the last server.
    fn add_to_last(&mut self, name: &'static str, request: StreamRequest, opens: usize) {
        let (costs, per_second, busy) = (Vec::new(), Vec::new(), Vec::new());
        self.contenders.push(Contender {
            name,
            server: self.servers.len() - 1,
            request,
            opens,
            costs,
            per_second,
            busy,
        });
    }

    fn cost(&self, name: &str) -> f64 {
        let found = self.contenders.iter().find(|contender| contender.name == name);
        found.map_or(f64::NAN, |contender| median(contender.costs.clone()))
    }
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, _connection)) = servers::redis().await else { return };
    let (opens, rounds) = options.pick((1_500, 10), (100, 3));
    let opens = options.limit(opens);
    let mut field = Field::default();
    add_tidegate(&mut field, machine, &redis, opens).await;
    if options.has_peers {
        for peer in Peer::all(machine).await {
            field.add(peer.name, peer.server, peer.request, opens);
        }
        if let Some(nchan) = peers::nchan(machine, Some(start_authority().await)).await {
            let request = peers::nchan_request(&nchan, "authorized");
            field.add("nchan with its subrequest", nchan, request, opens);
        }
        if let Some(node) = peers::node(machine, &redis) {
            let request = servers::realtime_request(&node, CHANNEL);
            field.add("`handle()` on Node, the same rule", node, request, opens / 5);
        }
    }
    // One stream of each stays open, so that the channel is not removed.
    let mut open_streams = Vec::new();
    for contender in &field.contenders {
        open_streams.push(contender.request.open().await);
    }
    for round in 0..rounds {
        for contender in &mut field.contenders {
            let pid = field.servers[contender.server].pid;
            settled_cpu(pid).await;
            let (before, start) = (cpu(pid), Instant::now());
            open_and_close(&contender.request, contender.opens).await;
            let elapsed = start.elapsed().as_secs_f64();
            let used = settled_cpu(pid).await - before;
            // The first round warms up.
            if round > 0 {
                contender.costs.push(micros(used, contender.opens));
                #[expect(clippy::cast_precision_loss, reason = "some thousands")]
                contender.per_second.push(contender.opens as f64 / elapsed);
                contender.busy.push(used.as_secs_f64() / elapsed * 100.0);
            }
        }
    }
    add_table(report, &field, rounds);
    add_stages(report, &field);
}

async fn add_tidegate(field: &mut Field, machine: &Machine, redis: &Server, opens: usize) {
    let tidegate = |args: &[&str], lines: &str| servers::tidegate(machine, redis, args, lines);
    let mut add = |name, server: Server| {
        let request = servers::realtime_request(&server, CHANNEL);
        field.add(name, server, request, opens);
    };
    add(TIDEGATE, tidegate(&[], ""));
    let typescript = servers::root().join("target/guests/typescript-role-based.wasm");
    if typescript.exists() {
        let policy = Some((&*typescript, servers::LONG_TIMEOUTS));
        add(TYPESCRIPT, Gateway { lines: QUIET, policy, ..Gateway::default() }.start(machine, redis));
    } else {
        eprintln!("the policy in TypeScript is left out: `cargo xtask guests` builds it");
    }
    add(ALLOW_ALL, tidegate(&["--allow-all"], ""));
    add(LOGGED, Gateway::default().start(machine, redis));
    add("the same, with its log and `decisions.log`", {
        Gateway { lines: "decisions.log = \"decisions.jsonl\"", ..Gateway::default() }.start(machine, redis)
    });
    let with_revocations = tidegate(&[], "");
    add_revocations(&with_revocations).await;
    add("the same, with 500 active revocations", with_revocations);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("policy.wasm");
    std::fs::write(&file, guests::component("allow")).expect("the policy is written");
    let small = Gateway { lines: QUIET, policy: Some((&file, "timeout = \"20s\"")), ..Gateway::default() };
    add(SMALL_POLICY, small.start(machine, redis));
    let server = tidegate(&[], "");
    let request = servers::realtime_request(&server, &format!("alice-{NUMBER}"));
    let (bare, health) =
        (StreamRequest::bare(server.address, ""), StreamRequest::new(server.address, "/healthz", "\r\n\r\n"));
    field.add(OWN_CHANNEL, server, request, opens);
    field.add_to_last(CONNECTION, bare, opens);
    field.add_to_last(HEALTH, health, opens);
}

fn add_table(report: &Report, field: &Field, rounds: usize) {
    let columns = ["", "µs CPU", "ratio to nchan", "opens per second", "% of the core"];
    let mut table = Table::new("An open and a close", &columns);
    for contender in &field.contenders {
        let cost = median(contender.costs.clone());
        table.row(&[
            &contender.name,
            &number(cost, 1),
            &number(cost / field.cost(NCHAN), 2),
            &number(median(contender.per_second.clone()), 0),
            &number(median(contender.busy.clone()), 0),
        ]);
    }
    table.note(format!(
        "Medians of {} turns, 32 opens at a time. The gateway has `log.filter = \"warn\"` and so no line for an open, unless a row names \
         its log. The CPU time of Redis and of the server of nchan's subrequests is not counted. Where the server does not use the core, the load \
         or Redis limits the opens per second.",
        rounds - 1
    ));
    report.add("opens", &table);
}

/// The parts of an open, as differences between kinds of opens.
fn add_stages(report: &Report, field: &Field) {
    let mut table = Table::new("Where the CPU time of an open goes", &["", "µs CPU"]);
    let difference = |more: &str, less: &str| number(field.cost(more) - field.cost(less), 1);
    table.row(&[&"accept of a connection, and its end", &number(field.cost(CONNECTION), 1)]);
    table.row(&[&"HTTP head and a response", &difference(HEALTH, CONNECTION)]);
    table.row(&[
        &"admission, a subscribed channel, registration, `connected`, end of the stream",
        &difference(ALLOW_ALL, HEALTH),
    ]);
    table.row(&[&"a decision of a policy of a few instructions", &difference(SMALL_POLICY, ALLOW_ALL)]);
    table.row(&[&"the work of the Rust policy, and its lookup in Redis", &difference(TIDEGATE, SMALL_POLICY)]);
    table.row(&[&"all of these", &number(field.cost(TIDEGATE), 1)]);
    table.row(&[&"in addition: the first subscription to a channel", &difference(OWN_CHANNEL, TIDEGATE)]);
    table.row(&[&"in addition: the line in the log", &difference(LOGGED, TIDEGATE)]);
    table.note("Each row but the first is the difference between two kinds of opens in the table above.");
    report.add("stages", &table);
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
