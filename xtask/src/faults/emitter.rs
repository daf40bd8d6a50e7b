//! Emitters: directly to Redis as the stock emitter does, through `/redis`, through the control port, and with `tidegate emit`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::directory::Directory;
use super::history::{Id, Outcome, Token, Way};
use super::http;
use super::random::Random;
use super::resp::{Connection, Reply, slot};
use super::shared::{REST_TOKEN, Shared, pause};

/// After this time a reply counts as lost.
const REPLY_TIMEOUT: Duration = Duration::from_secs(4);

/// The time that replicas have to confirm an entry.
const WAIT_MS: &str = "2000";

/// How often a command follows redirections.
const MAX_REDIRECTIONS: usize = 5;

/// The data of an event: its token, and at times as many characters as fill the buffers of slow readers.
fn data(token: Token, random: &mut Random) -> Value {
    let padding = if random.one_in(5) { 4_000 } else { 20 };
    json!({ "t": token, "p": "x".repeat(padding) })
}

/// Emits until the faults are over, one event per interval.
pub fn run(shared: &Shared, directory: &Directory, program: &Path, way: Way, interval: Duration, mut random: Random) {
    let mut direct = Direct { directory, masters: BTreeMap::new(), connections: HashMap::new() };
    while !shared.is_settling() {
        let channel = random.index(shared.channels.len());
        let (Ok(number), Some(name)) = (u16::try_from(channel), shared.channels.get(channel)) else { return };
        if way == Way::Direct && !direct.is_ready(name) {
            pause(shared, Duration::from_millis(200));
            continue;
        }
        let token = shared.begin_emit(number, way);
        let data = data(token, &mut random);
        let outcome = match way {
            // The stock emitter may die between the two commands.
            Way::Direct => direct.emit(shared, name, &data, !random.one_in(10)),
            Way::Rest => rest(random.pick(&shared.gateways).data, name, &data),
            Way::Control => control(random.pick(&shared.gateways).control, name, &data),
            Way::Command => command(program, random.pick(&shared.gateways).control, name, &data),
        };
        // A gateway does not wait for replicas, so its answer promises nothing where entries have to survive.
        let confirmed = way == Way::Direct || shared.wait.is_none() || outcome == Outcome::Rejected;
        shared.end_emit(token, if confirmed { outcome } else { Outcome::Unknown });
        pause(shared, interval.mul_f64(0.5 + random.below(1000) as f64 / 1000.0));
    }
}

/// A connection to each master, found as a client of the topology finds it.
struct Direct<'a> {
    directory: &'a Directory,
    masters: BTreeMap<u16, u16>,
    connections: HashMap<u16, Connection>,
}

impl Direct<'_> {
    fn is_ready(&mut self, channel: &str) -> bool {
        if self.masters.is_empty() {
            self.masters = self.directory.masters();
        }
        self.masters.range(slot(channel)..).next().is_some()
    }

    fn emit(&mut self, shared: &Shared, channel: &str, data: &Value, publish: bool) -> Outcome {
        let Some(mut port) = self.masters.range(slot(channel)..).next().map(|(_, port)| *port) else {
            return Outcome::Rejected;
        };
        let text = data.to_string();
        let add = ["XADD", channel, "*", "data", &text, "event", "tick", "channel", channel];
        let mut ask = false;
        for _ in 0..MAX_REDIRECTIONS {
            let error = match self.command(port, &add, ask) {
                Ok(Reply::Text(text)) => {
                    let Ok(id) = text.parse() else { return Outcome::Unknown };
                    let confirmed = self.wait(shared, port);
                    if publish {
                        let payload =
                            json!({ "data": data, "event": "tick", "channel": channel, "id": text }).to_string();
                        let _ = self.command(port, &["PUBLISH", channel, &payload], false);
                    }
                    return if confirmed { Outcome::Acknowledged(id) } else { Outcome::Unknown };
                }
                Ok(Reply::Error(error)) => error,
                Ok(_) => return Outcome::Unknown,
                Err(error) => {
                    self.masters.clear();
                    // A refused connection carried no command.
                    let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                    return if refused { Outcome::Rejected } else { Outcome::Unknown };
                }
            };
            // `MOVED 1234 127.0.0.1:6379` and `ASK …`: the command was not executed.
            let redirection = error.rsplit_once(':').and_then(|(_, port)| self.directory.own_port(port.parse().ok()?));
            ask = error.starts_with("ASK ");
            match redirection.filter(|_| ask || error.starts_with("MOVED ")) {
                Some(other) => port = other,
                None => {
                    self.masters.clear();
                    return Outcome::Rejected;
                }
            }
            if !ask {
                self.masters.clear();
            }
        }
        Outcome::Rejected
    }

    /// Whether the entry just added counts as acknowledged.
    fn wait(&mut self, shared: &Shared, port: u16) -> bool {
        let Some(replicas) = shared.wait else { return true };
        let reply = self.command(port, &["WAIT", &replicas.to_string(), WAIT_MS], false);
        matches!(reply, Ok(Reply::Int(confirmed)) if confirmed >= i64::from(replicas))
    }

    fn command(&mut self, port: u16, args: &[&str], ask: bool) -> io::Result<Reply> {
        let mut connection = match self.connections.remove(&port) {
            Some(connection) => connection,
            None => Connection::open(port, REPLY_TIMEOUT)?,
        };
        if ask {
            connection.command(&["ASKING"])?;
        }
        let reply = connection.command(args)?;
        self.connections.insert(port, connection);
        Ok(reply)
    }
}

fn rest(port: u16, channel: &str, data: &Value) -> Outcome {
    let head = format!("POST /redis HTTP/1.1\r\nauthorization: Bearer {REST_TOKEN}\r\ncontent-type: application/json");
    let body = json!(["XADD", channel, "*", "data", data.to_string(), "event", "tick", "channel", channel]);
    let outcome = answer(http::request(port, &head, &body.to_string(), REPLY_TIMEOUT), "result");
    if let Outcome::Acknowledged(id) = outcome {
        let payload = json!({ "data": data, "event": "tick", "channel": channel, "id": id.to_string() }).to_string();
        let _ = http::request(port, &head, &json!(["PUBLISH", channel, payload]).to_string(), REPLY_TIMEOUT);
    }
    outcome
}

fn control(port: u16, channel: &str, data: &Value) -> Outcome {
    let head = "POST /v1/emit HTTP/1.1\r\ncontent-type: application/json";
    let body = json!({ "channel": channel, "event": "tick", "data": data }).to_string();
    answer(http::request(port, head, &body, REPLY_TIMEOUT), "id")
}

/// The outcome of an answer with an id. An error of the gateway does not say whether the store added the entry.
fn answer(answer: io::Result<(u16, String)>, member: &str) -> Outcome {
    let Ok((200..=299, body)) = answer else { return Outcome::Unknown };
    acknowledged(&body, member)
}

fn acknowledged(body: &str, member: &str) -> Outcome {
    let id = serde_json::from_str::<Value>(body).ok().and_then(|value| value.get(member)?.as_str()?.parse::<Id>().ok());
    id.map_or(Outcome::Unknown, Outcome::Acknowledged)
}

fn command(program: &Path, control: u16, channel: &str, data: &Value) -> Outcome {
    let mut command = Command::new(program);
    command.args(["emit", "--json", "--control", &format!("127.0.0.1:{control}"), channel, "tick", &data.to_string()]);
    match command.output() {
        Ok(output) if output.status.success() => acknowledged(&String::from_utf8_lossy(&output.stdout), "id"),
        _ => Outcome::Unknown,
    }
}
