//! Costs by the number of channels: an event, an open, and a quiet channel.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::common::clients::{Clients, StreamRequest, open_each};
use crate::common::emit::{add_to, emit_to};
use crate::common::machine::{Machine, cpu, private, settled_cpu};
use crate::common::options::Options;
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Gateway, Server, commands_processed};
use crate::common::{median, micros};
use crate::figure::{Line, Panel};

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];
/// The most that a stream may have by default.
const CHANNELS_PER_STREAM: usize = 100;
const EVENTS_PER_SECOND: u32 = 200;
/// Channels whose notification is lost, at a time.
const LOST: usize = 20;
/// `stream.reconcile-interval` by default.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
const LINES: &str = "log.filter = \"warn\"\nstream.channel-memory = \"2GiB\"";

/// The costs with one number of channels.
struct Costs {
    channels: usize,
    /// µs of the gateway.
    event: f64,
    open: f64,
    /// Bytes of the gateway.
    bytes: f64,
    quiet: Quiet,
}

/// The cost of a minute without events.
#[derive(Clone, Copy)]
struct Quiet {
    /// µs of the gateway.
    gateway: f64,
    /// µs of Redis.
    redis: f64,
    commands: f64,
    /// The time until lost notifications are found, in s.
    found: f64,
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) -> Option<Panel> {
    let (redis, connection) = servers::redis().await?;
    let mut all = Vec::new();
    let idle = measure_quiet(machine, options, &redis, connection.clone(), &[]).await;
    for channels in SIZES.into_iter().filter(|size| *size <= options.limit(options.pick(100_000, 1_000))) {
        let names: Vec<String> = (0..channels).map(|number| format!("alice-{number}")).collect();
        eprintln!("{channels} channels");
        let (event, open, bytes) = measure_events(machine, options, &redis, connection.clone(), &names).await;
        let quiet = measure_quiet(machine, options, &redis, connection.clone(), &names).await;
        all.push(Costs { channels, event, open, bytes, quiet });
    }
    add_tables(report, &all, idle);
    #[expect(clippy::cast_precision_loss, reason = "less than 2^52 channels")]
    let line = |name, of: fn(&Costs) -> f64| Line {
        name,
        points: all.iter().map(|costs| (costs.channels as f64, of(costs))).collect(),
    };
    let lines = vec![line("event", |costs| costs.event), line("open and close", |costs| costs.open)];
    Some(Panel { title: "µs CPU by channels", axis: "channels", lines })
}

/// Streams that read all of these channels, each of them a part. An event that is emitted now is delivered.
async fn open_all(server: &Server, names: &[String]) -> Clients {
    let target = |names: &[String]| {
        let query: Vec<String> = names.iter().map(|name| format!("channel={name}")).collect();
        let mut request =
            StreamRequest::new(server.address, &format!("/api/realtime?{}", query.join("&")), "\"connected\"");
        // Once for each channel.
        request.occurrences = names.len();
        request
    };
    let requests: Vec<StreamRequest> = names.chunks(CHANNELS_PER_STREAM).map(target).collect();
    Clients::open_all(requests.into_iter()).await
}

/// The CPU time of an event and of an open in µs, and the bytes of a channel.
async fn measure_events(
    machine: &Machine,
    options: &Options,
    redis: &Server,
    mut connection: MultiplexedConnection,
    names: &[String],
) -> (f64, f64, f64) {
    // Without the checks of quiet channels.
    let lines = format!("{LINES}\nstream.reconcile-interval = \"1h\"");
    let server = Gateway { args: &["--allow-all"], lines: &lines, ..Gateway::default() }.start(machine, redis);
    drop(open_each(&[servers::realtime_request(&server, "warm-up")], 100).await);
    settled_cpu(server.pid).await;
    let before = private(server.pid);
    let mut clients = open_all(&server, names).await;
    settled_cpu(server.pid).await;
    tokio::time::sleep(options.pick(Duration::from_secs(10), Duration::from_secs(1))).await;
    #[expect(clippy::cast_precision_loss, reason = "less than 2^52 channels")]
    let bytes = (private(server.pid) - before) * 1024.0 / names.len() as f64;
    let (rounds, events, opens) = options.pick((6, 400, 500), (2, 50, 50));
    let (mut event_costs, mut open_costs, mut received) = (Vec::new(), Vec::new(), 0);
    let requests: Vec<StreamRequest> =
        sample(names, 50, 0).map(|name| servers::realtime_request(&server, name)).collect();
    for round in 0..rounds {
        let before = settled_cpu(server.pid).await;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / EVENTS_PER_SECOND);
        for name in sample(names, events, round) {
            ticks.tick().await;
            emit_to(&mut connection, &[name]).await;
        }
        received += events as u64;
        clients.wait_received(received).await;
        let event = micros(settled_cpu(server.pid).await - before, events);
        let before = cpu(server.pid);
        open_each(&requests, opens).await;
        let open = micros(settled_cpu(server.pid).await - before, opens);
        // The first round warms up.
        if round > 0 {
            event_costs.push(event);
            open_costs.push(open);
        }
    }
    (median(event_costs), median(open_costs), bytes)
}

async fn measure_quiet(
    machine: &Machine,
    options: &Options,
    redis: &Server,
    mut connection: MultiplexedConnection,
    names: &[String],
) -> Quiet {
    let server = Gateway { args: &["--allow-all"], lines: LINES, ..Gateway::default() }.start(machine, redis);
    let mut clients = open_all(&server, names).await;
    // Each channel has been checked.
    tokio::time::sleep(RECONCILE_INTERVAL * 2).await;
    let time = options.pick(Duration::from_secs(60), Duration::from_secs(10));
    let before = (cpu(server.pid), cpu(redis.pid), commands_processed(&mut connection).await);
    tokio::time::sleep(time).await;
    let (gateway, store) = (cpu(server.pid) - before.0, cpu(redis.pid) - before.1);
    // Those of this measurement itself are one or two.
    let commands = commands_processed(&mut connection).await - before.2;
    let per_minute = |value: f64| value * 60.0 / time.as_secs_f64();
    let (mut found, mut received) = (Duration::ZERO, 0);
    for round in 0..options.pick(3, 1) * usize::from(!names.is_empty()) {
        let lost: Vec<&str> = sample(names, LOST, round).collect();
        let start = Instant::now();
        add_to(&mut connection, &lost).await;
        received += lost.len() as u64;
        clients.wait_received(received).await;
        found = found.max(start.elapsed());
    }
    Quiet {
        gateway: per_minute(gateway.as_secs_f64() * 1e6),
        redis: per_minute(store.as_secs_f64() * 1e6),
        commands: per_minute(commands),
        found: found.as_secs_f64(),
    }
}

/// This number of names that are spread over all, others in each round.
fn sample(names: &[String], count: usize, round: usize) -> impl Iterator<Item = &str> {
    // A prime, so that neighbours are not on one stream.
    (0..count).map(move |index| &*names[(index * 7_919 + round * 104_729) % names.len()])
}

fn add_tables(report: &Report, all: &[Costs], idle: Quiet) {
    let columns = ["channels", "µs CPU per event", "µs CPU per open and close"];
    let mut table = Table::new("Growth with the number of channels", &columns);
    for costs in all {
        table.row(&[&costs.channels, &number(costs.event, 1), &number(costs.open, 1)]);
    }
    table.note(format!(
        "Medians of five turns with {EVENTS_PER_SECOND} events per second over all channels, which have one reader each; {CHANNELS_PER_STREAM} \
         channels per stream; `--allow-all`; `stream.reconcile-interval` is an hour. Opens are streams of one channel that is read already."
    ));
    report.add("growth-channels", &table);
    let columns = [
        "channels",
        "bytes per channel",
        "µs CPU of the gateway per channel and minute",
        "µs CPU of Redis per channel and minute",
        "Redis commands per channel and minute",
        "s until a lost notification is found",
    ];
    let mut table = Table::new("A quiet channel", &columns);
    for Costs { channels, bytes, quiet, .. } in all {
        #[expect(clippy::cast_precision_loss, reason = "less than 2^52 channels")]
        let per_channel = |value: f64, idle: f64, digits| number((value - idle) / *channels as f64, digits);
        table.row(&[
            channels,
            &number(*bytes, 0),
            &per_channel(quiet.gateway, idle.gateway, 0),
            &per_channel(quiet.redis, idle.redis, 0),
            &per_channel(quiet.commands, idle.commands, 1),
            &number(quiet.found, 1),
        ]);
    }
    table.note(format!(
        "`stream.reconcile-interval` is {} s, the default. Bytes are private memory, with a hundredth of a stream. A lost notification is an \
         entry without one; the time is the longest of several turns with {LOST} channels each. The costs of a gateway without channels are \
         subtracted: {} ms of CPU and {} commands a minute.",
        RECONCILE_INTERVAL.as_secs(),
        number(idle.gateway / 1e3, 0),
        number(idle.commands, 0),
    ));
    report.add("quiet-channels", &table);
}
