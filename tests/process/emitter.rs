//! An emitter like the npm package, in a separate process: `XADD`, and some time later `PUBLISH`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use redis::{Client, Connection, cmd};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::processes::ChildProcess;

const PLAN: &str = "EMITTER_PLAN";

/// Pseudo-random numbers, the same in every run.
pub struct Random(pub u64);

impl Random {
    /// A number less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Starts an emitter: this program, with the test function below.
pub fn start(port: u16, channels: &[&str], number: u64, per_second: u64, time: Duration) -> ChildProcess {
    let plan = json!({
        "port": port, "channels": channels, "number": number, "per_second": per_second, "ms": time.as_millis() as u64
    });
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "emitter::emitter_process", "--nocapture"]).env(PLAN, plan.to_string());
    ChildProcess::start(command)
}

/// Counts of an emitter.
pub struct EmitterReport {
    /// Entries that were added.
    pub added: u64,
    /// Entries that may have been added: the emitter lost its connection before the reply.
    pub uncertain: u64,
    pub published: u64,
}

impl EmitterReport {
    pub async fn of(emitter: ChildProcess) -> Self {
        let ended = emitter.end().await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        // The test harness may have written the beginning of the line.
        let json = ended.stdout.lines().find_map(|line| line.split_once("REPORT ")).expect("a report").1;
        let json: Value = serde_json::from_str(json).expect("JSON");
        let number = |name: &str| json[name].as_u64().expect("a number");
        Self { added: number("added"), uncertain: number("uncertain"), published: number("published") }
    }
}

#[test]
#[ignore = "not a test: the process of an emitter, which `start` runs"]
fn emitter_process() {
    let Ok(plan) = std::env::var(PLAN) else { return };
    let plan: Value = serde_json::from_str(&plan).expect("a plan");
    let number = |name: &str| plan[name].as_u64().expect("a number");
    let channels: Vec<&str> = plan["channels"].as_array().expect("channels").iter().filter_map(Value::as_str).collect();
    let client = Client::open(format!("redis://127.0.0.1:{}", number("port"))).expect("a URL");
    let mut emitter = Emitter { client, connection: None, added: 0, uncertain: 0, published: 0 };
    let mut random = Random(number("number"));
    let pause = Duration::from_millis(1000 / number("per_second"));
    let begin = Instant::now();
    let end = begin + Duration::from_millis(number("ms"));
    // Ordered by the time of the publication, which is not the order of the entries.
    let mut notifications: BinaryHeap<Reverse<(Instant, String, String)>> = BinaryHeap::new();
    for n in 0.. {
        let emit_time = begin + pause * n;
        while let Some(Reverse((due, ..))) = notifications.peek()
            && (*due <= emit_time || emit_time >= end)
        {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if let Some(Reverse((_, channel, payload))) = notifications.pop() {
                emitter.publish(&channel, &payload);
            }
        }
        if emit_time >= end {
            break;
        }
        std::thread::sleep(emit_time.saturating_duration_since(Instant::now()));
        let channel = channels[random.below(channels.len() as u64) as usize];
        let data = format!(r#"{{"emitter":{},"n":{n},"text":"Grüße \" {}"}}"#, number("number"), random.below(1 << 40));
        let Some(id) = emitter.add(channel, &data, end) else { continue };
        // One emit in fifty fails between the entry and the notification.
        if random.below(50) > 0 {
            let channel = channel.to_owned();
            let payload = format!(r#"{{"data":{data},"event":"tick","channel":"{channel}","id":"{id}"}}"#);
            let max_delay = [0, 0, 2, 20, 150, 700][random.below(6) as usize];
            notifications.push(Reverse((
                Instant::now() + Duration::from_millis(random.below(max_delay + 1)),
                channel,
                payload,
            )));
        }
    }
    let report = json!({ "added": emitter.added, "uncertain": emitter.uncertain, "published": emitter.published });
    println!("REPORT {report}");
}

struct Emitter {
    client: Client,
    connection: Option<Connection>,
    added: u64,
    uncertain: u64,
    published: u64,
}

impl Emitter {
    fn connected(&mut self) -> Option<&mut Connection> {
        if self.connection.is_none() {
            let connection = self.client.get_connection_with_timeout(Duration::from_secs(2)).ok()?;
            connection.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            self.connection = Some(connection);
        }
        self.connection.as_mut()
    }

    /// Adds an entry. It retries only if Redis has certainly not added the entry.
    fn add(&mut self, channel: &str, data: &str, end: Instant) -> Option<String> {
        while Instant::now() < end {
            if let Some(connection) = self.connected() {
                let fields = ["data", data, "event", "tick", "channel", channel];
                match cmd("XADD").arg(channel).arg("*").arg(&fields).query::<String>(connection) {
                    Ok(id) => {
                        self.added += 1;
                        return Some(id);
                    }
                    // Redis refuses the command while it loads its data.
                    Err(error) if error.code().is_some() => {}
                    Err(_) => {
                        self.connection = None;
                        self.uncertain += 1;
                        return None;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn publish(&mut self, channel: &str, payload: &str) {
        let Some(connection) = self.connected() else { return };
        match cmd("PUBLISH").arg(channel).arg(payload).query::<u64>(connection) {
            Ok(_) => self.published += 1,
            Err(error) if error.code().is_some() => {}
            Err(_) => self.connection = None,
        }
    }
}
