//! The cost of an event by the number of channels and readers, for events one after the other and in bursts.

use std::time::Duration;

use hdrhistogram::Histogram;
use redis::aio::MultiplexedConnection;
use redis::{Script, pipe};
use serde_json::json;

use crate::common::clients::{Clients, MARK, histogram};
use crate::common::machine::{Machine, cpu, settled_cpu};
use crate::common::options::Options;
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Server};
use crate::common::{median, micros};

/// Tidegate's emitter, and a stock one: an entry without a type, then its notification.
const EMITTERS: [(&str, &str); 2] =
    [("Tidegate's emitter", include_str!("../../src/store/redis/emit.lua")), ("stock", STOCK)];
/// In a script, so that both cost the client one command.
const STOCK: &str = "
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[5], '*', 'data', ARGV[1], 'event', ARGV[2], 'channel', KEYS[1])
redis.call('PUBLISH', KEYS[1], ARGV[4] .. ',\"id\":\"' .. id .. '\"}')";
/// The script's arguments for a stream that does not expire, and an emit that is not tried again.
const NO_TOKEN: [&str; 6] = ["", "", "0", "0", "0", "0"];
const BURST_EVENTS: usize = 20;
const BURSTS: usize = 10;
const ROUNDS: usize = 6;

struct Scenario {
    channels: usize,
    readers: usize,
    events: usize,
    per_second: u32,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario { channels: 1, readers: 1, events: 200, per_second: 100 },
    Scenario { channels: 200, readers: 1, events: 400, per_second: 200 },
    Scenario { channels: 1, readers: 1000, events: 60, per_second: 40 },
];

struct Figures {
    gateway: Vec<f64>,
    redis: Vec<f64>,
    gateway_bursts: Vec<f64>,
    redis_bursts: Vec<f64>,
    latencies: Histogram<u64>,
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, connection)) = servers::redis().await else { return };
    let mut table = Table::new(
        "An event, by channels, readers and emitters",
        &[
            "channels × readers, emitter",
            "µs CPU of the gateway",
            "µs CPU of Redis",
            "µs p50 / p99",
            &format!("gateway, bursts of {BURST_EVENTS}"),
            "Redis, bursts",
        ],
    );
    for scenario in SCENARIOS {
        let rounds = options.pick(ROUNDS, 2);
        measure_scenario(&mut table, machine, &redis, connection.clone(), &scenario, rounds).await;
    }
    table.note(format!("Medians of {} turns. All readers of a channel together: the CPU time per event.", ROUNDS - 1));
    report.add("events", &table);
}

async fn measure_scenario(
    table: &mut Table,
    machine: &Machine,
    redis: &Server,
    mut connection: MultiplexedConnection,
    scenario: &Scenario,
    rounds: usize,
) {
    let server = servers::tidegate(machine, redis, &["--allow-all"], "stream.reconcile-interval = \"1h\"");
    let mut channels = Vec::new();
    for number in 0..scenario.channels {
        let name = format!("alice-{number}");
        let clients = Clients::open(&servers::realtime_request(&server, &name), scenario.readers).await;
        channels.push((name, clients));
    }
    let mut figures = EMITTERS.map(|_| Figures {
        gateway: Vec::new(),
        redis: Vec::new(),
        gateway_bursts: Vec::new(),
        redis_bursts: Vec::new(),
        latencies: histogram(),
    });
    for round in 0..rounds {
        for (figures, (_, script)) in figures.iter_mut().zip(EMITTERS) {
            let before = (settled_cpu(server.pid).await, cpu(redis.pid));
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / scenario.per_second);
            for event in 0..scenario.events {
                ticks.tick().await;
                emit(&mut connection, &channels, event, 1, script).await;
            }
            wait(&mut channels).await;
            let single = (settled_cpu(server.pid).await - before.0, cpu(redis.pid) - before.1);
            let latencies = channels.iter().map(|(_, clients)| clients.take_latencies());
            let latencies = latencies.fold(histogram(), |mut all, one| {
                all.add(one).expect("the same bounds");
                all
            });
            let before = (settled_cpu(server.pid).await, cpu(redis.pid));
            for burst in 0..BURSTS {
                emit(&mut connection, &channels, burst * BURST_EVENTS, BURST_EVENTS, script).await;
                wait(&mut channels).await;
            }
            let bursts = (settled_cpu(server.pid).await - before.0, cpu(redis.pid) - before.1);
            channels.iter().for_each(|(_, clients)| drop(clients.take_latencies()));
            // The first round warms up.
            if round > 0 {
                figures.gateway.push(micros(single.0, scenario.events));
                figures.redis.push(micros(single.1, scenario.events));
                figures.gateway_bursts.push(micros(bursts.0, BURSTS * BURST_EVENTS));
                figures.redis_bursts.push(micros(bursts.1, BURSTS * BURST_EVENTS));
                figures.latencies.add(latencies).expect("the same bounds");
            }
        }
    }
    for (figures, (name, _)) in figures.into_iter().zip(EMITTERS) {
        let latency = |quantile| figures.latencies.value_at_quantile(quantile);
        table.row(&[
            &format!("{} × {}, {name}", scenario.channels, scenario.readers),
            &number(median(figures.gateway), 1),
            &number(median(figures.redis), 1),
            &format!("{} / {}", latency(0.5), latency(0.99)),
            &number(median(figures.gateway_bursts), 1),
            &number(median(figures.redis_bursts), 1),
        ]);
    }
}

/// Emits events at once, each on the next channel.
async fn emit(
    connection: &mut MultiplexedConnection,
    channels: &[(String, Clients)],
    first: usize,
    count: usize,
    script: &str,
) {
    let script = Script::new(script);
    let data = json!({ "text": "the quick brown fox jumps over the lazy dog", "mark": char::from(MARK) }).to_string();
    let mut commands = pipe();
    for number in first..first + count {
        let (channel, clients) = &channels[number % channels.len()];
        clients.record_emission();
        let head = format!(r#"{{"data":{data},"event":"fox","channel":"{channel}""#);
        commands
            .invoke_script(script.key(channel).arg(&data).arg("fox").arg("json").arg(head).arg(100).arg(&NO_TOKEN))
            .ignore();
    }
    if commands.exec_async(connection).await.is_err() {
        // The script is not loaded yet, so the pipeline did nothing.
        script.prepare_invoke().load_async(connection).await.expect("Redis loads the script");
        commands.exec_async(connection).await.expect("Redis executes the script");
    }
}

async fn wait(channels: &mut [(String, Clients)]) {
    for (_, clients) in channels {
        clients.wait_all_received().await;
    }
}
