//! All clients reconnect with their positions after a restart of the gateway.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::clients::{MARK, StreamRequest};
use crate::common::emit::{add_to, emit_to};
use crate::common::machine::{Machine, cpu, peak, private, settled_cpu};
use crate::common::median;
use crate::common::options::Options;
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Gateway, Server, commands_processed, free};

const STREAMS_PER_CHANNEL: usize = 10;
/// Entries of each channel before the restart.
const ENTRIES: usize = 5;
/// More than the files that a server has open in addition to its streams.
const OTHER_FILES: usize = 500;
/// Streams that are opened concurrently before the restart.
const CONCURRENT_OPENS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(120);

/// A client with the events that it received.
struct Client {
    channel: usize,
    /// The last `id:`.
    position: String,
    socket: TcpStream,
}

#[derive(Default)]
struct Figures {
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    commands: Vec<f64>,
    steady: Vec<f64>,
    peak: Vec<f64>,
    steady_after: Vec<f64>,
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, mut connection)) = servers::redis().await else { return };
    let most = options.limit(machine.files.saturating_sub(OTHER_FILES));
    let streams = options.pick(10_000, 300).min(most);
    let channels: Vec<String> =
        (0..streams.div_ceil(STREAMS_PER_CHANNEL)).map(|number| format!("alice-{number}")).collect();
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    for _ in 0..ENTRIES {
        add_to(&mut connection, &names).await;
    }
    let mut figures = Figures::default();
    for round in 0..options.pick(3, 1) {
        let start = Instant::now();
        // Each restart adds two entries to each channel.
        let plan = Plan { channels: &names, streams, entries: ENTRIES + 2 * round };
        restart(machine, &redis, &mut connection, &plan, &mut figures).await;
        eprintln!("round {round} took {:.1?}", start.elapsed());
    }
    let mut table = Table::new(format!("A restart with {streams} streams"), &["", ""]);
    let mut row = |name: &str, values: Vec<f64>, digits| table.row(&[&name, &number(median(values), digits)]);
    row("s until all streams are live again", figures.seconds, 2);
    row("s of CPU of the gateway until then", figures.cpu_seconds, 2);
    row("Redis commands until then", figures.commands, 0);
    row("MiB of private memory before the restart", figures.steady, 0);
    row("MiB of memory at most while clients reconnect", figures.peak, 0);
    row("MiB of private memory after it", figures.steady_after, 0);
    table.note(format!(
        "{} channels with {STREAMS_PER_CHANNEL} streams and at least {ENTRIES} entries each; `--allow-all`. The gateway is stopped, one event is emitted \
         to each channel, and the gateway is started. Then all clients connect at once with `Last-Event-ID`. A stream is live when its client \
         has received the event that it missed. The time begins when the gateway listens. Each client receives each event once, which the bench \
         checks. The most memory is `VmHWM`, with the pages of the program.",
        names.len()
    ));
    report.add("storm", &table);
}

/// The clients of a round.
struct Plan<'a> {
    channels: &'a [&'a str],
    streams: usize,
    /// Entries of each channel.
    entries: usize,
}

async fn restart(
    machine: &Machine,
    redis: &Server,
    connection: &mut MultiplexedConnection,
    plan: &Plan<'_>,
    figures: &mut Figures,
) {
    let channels = plan.channels;
    let listen = free();
    let gateway = Gateway { args: &["--allow-all"], lines: "log.filter = \"error\"", listen, ..Gateway::default() };
    let server = gateway.start(machine, redis);
    let clients = open_clients(&server, plan).await;
    settled_cpu(server.pid).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    figures.steady.push(private(server.pid) / 1024.0);
    // Stops the gateway, and waits for it.
    drop(server);
    let positions: Vec<(usize, String)> = clients.into_iter().map(|client| (client.channel, client.position)).collect();
    add_to(connection, channels).await;
    let before = commands_processed(connection).await;
    let server = gateway.start(machine, redis);
    let start = Instant::now();
    let mut reconnecting = JoinSet::new();
    for (channel, position) in positions {
        let request = servers::realtime_request(&server, channels[channel]).with_header("Last-Event-ID", &position);
        reconnecting.spawn(async move { open_client(&request, channel, 1).await });
    }
    let mut clients = Vec::with_capacity(plan.streams);
    while let Some(client) = reconnecting.join_next().await {
        clients.push(client.expect("every client reconnects"));
    }
    figures.seconds.push(start.elapsed().as_secs_f64());
    figures.cpu_seconds.push(cpu(server.pid).as_secs_f64());
    figures.commands.push(commands_processed(connection).await - before);
    figures.peak.push(peak(server.pid) / 1024.0);
    // All of them are live.
    emit_to(connection, channels).await;
    for client in &mut clients {
        let mut received = Vec::new();
        read_events(&mut client.socket, &mut received, 1).await;
    }
    settled_cpu(server.pid).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut rest = Vec::new();
    for client in &clients {
        while client.socket.try_read_buf(&mut rest).is_ok_and(|read| read > 0) {}
    }
    assert_eq!(count(&rest), 0, "no event is delivered twice");
    figures.steady_after.push(private(server.pid) / 1024.0);
}

async fn open_clients(server: &Server, plan: &Plan<'_>) -> Vec<Client> {
    let Plan { channels, streams, entries } = *plan;
    let (mut opening, mut clients) = (JoinSet::new(), Vec::with_capacity(streams));
    for number in 0..streams {
        if opening.len() >= CONCURRENT_OPENS {
            clients.push(opening.join_next().await.expect("a task").expect("every stream opens"));
        }
        let channel = number % channels.len();
        let target = format!("/api/realtime?channel={0}&last_ack_{0}=0", channels[channel]);
        let request = StreamRequest::new(server.address, &target, "\"connected\"");
        opening.spawn(async move { open_client(&request, channel, entries).await });
    }
    while let Some(client) = opening.join_next().await {
        clients.push(client.expect("every stream opens"));
    }
    clients
}

/// Opens a stream, and reads this number of events.
async fn open_client(request: &StreamRequest, channel: usize, events: usize) -> Client {
    let (mut socket, mut received) = tokio::time::timeout(TIMEOUT, request.open_and_read()).await.expect("it opens");
    read_events(&mut socket, &mut received, events).await;
    let text = String::from_utf8_lossy(&received);
    let position = text.rsplit_once("id: ").and_then(|(_, rest)| rest.split_once('\n'));
    Client { channel, position: position.expect("a position").0.trim().to_owned(), socket }
}

/// Reads until this number of events has been received, and not one more.
async fn read_events(socket: &mut TcpStream, received: &mut Vec<u8>, events: usize) {
    while count(received) < events {
        let read = tokio::time::timeout(TIMEOUT, socket.read_buf(received)).await.expect("an event");
        assert_ne!(read.expect("an event"), 0, "the stream ended");
    }
    assert_eq!(count(received), events, "no event is delivered twice");
}

fn count(received: &[u8]) -> usize {
    received.iter().filter(|byte| **byte == MARK).count()
}
