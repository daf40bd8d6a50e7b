//! Clients that are cheap enough for hundreds: they keep the ids that they saw and the last `id:` line.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

type Id = (u64, u64);

/// `<ms>-<seq>`
pub fn parse_id(text: &str) -> Id {
    let (ms, seq) = text.split_once('-').expect("an id");
    (ms.parse().expect("ms"), seq.parse().expect("seq"))
}

/// Reads the blocks of a stream. HTTP/1.0: the body comes as it is, until the connection ends.
struct Blocks {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

/// The `id:` and the `data:` of a block.
type Block = (Option<String>, serde_json::Value);

impl Blocks {
    async fn open(mut socket: TcpStream, path: &str, last_id: Option<&str>) -> std::io::Result<Self> {
        let resume = last_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n{resume}\r\n").as_bytes()).await?;
        let mut lines = BufReader::new(socket).lines();
        let status = lines.next_line().await?.unwrap_or_default();
        if !status.contains(" 200 ") {
            return Err(std::io::Error::other(format!("answered {status:?}")));
        }
        while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
        Ok(Self { lines })
    }

    /// The next whole block; `None` at the end.
    async fn next(&mut self) -> std::io::Result<Option<Block>> {
        let (mut id, mut data) = (None, None);
        while let Some(line) = self.lines.next_line().await? {
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(text).expect("JSON"));
            } else if line.is_empty()
                && let Some(data) = data.take()
            {
                return Ok(Some((id, data)));
            }
        }
        Ok(None)
    }
}

/// A stream that comes back by itself as a browser's `EventSource` does: the same URL, with `Last-Event-ID`.
pub struct Client {
    state: Mutex<State>,
    changed: Notify,
    cut: Notify,
}

#[derive(Default)]
struct State {
    seen: HashMap<String, Vec<Id>>,
    opened: usize,
    cuts: usize,
}

impl Client {
    pub fn start(port: u16, path: &str) -> Arc<Self> {
        let client = Arc::new(Self { state: Mutex::default(), changed: Notify::new(), cut: Notify::new() });
        tokio::spawn(Arc::clone(&client).run(port, path.to_owned()));
        client
    }

    async fn run(self: Arc<Self>, port: u16, path: String) {
        let mut last_id: Option<String> = None;
        loop {
            let reading = async {
                let socket = TcpStream::connect(("127.0.0.1", port)).await?;
                let mut blocks = Blocks::open(socket, &path, last_id.as_deref()).await?;
                while let Some((id, data)) = blocks.next().await? {
                    // The two together, as a browser takes them.
                    last_id = id.or(last_id.take());
                    self.take(&data);
                }
                std::io::Result::Ok(())
            };
            tokio::select! {
                _ = reading => {}
                () = self.cut.notified() => self.state.lock().expect("state").cuts += 1,
            }
            let pause = rand::rng().random_range(5..150);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn take(&self, data: &serde_json::Value) {
        let mut state = self.state.lock().expect("state");
        let channel = data["channel"].as_str().unwrap_or_default().to_owned();
        if data["event"].is_string() {
            let id = parse_id(data["id"].as_str().expect("an id"));
            state.seen.entry(channel).or_default().push(id);
        } else if data["type"] == "connected" {
            state.opened += 1;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Cuts the connection.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    pub fn cuts(&self) -> usize {
        self.state.lock().expect("state").cuts
    }

    pub fn seen(&self, channel: &str) -> Vec<Id> {
        self.state.lock().expect("state").seen.get(channel).cloned().unwrap_or_default()
    }

    pub async fn until_opened(&self, channels: usize) {
        self.until("its channels open", |state| state.opened >= channels).await;
    }

    pub async fn until_seen(&self, channel: &str, last: Option<Id>) {
        self.until("the last entry", |state| state.seen.get(channel).and_then(|ids| ids.last()).copied() >= last).await;
    }

    async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(&self.state.lock().expect("state")) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "a client never saw {what}");
    }
}

/// A client that is connected and does not read.
pub struct Stalled(Blocks);

impl Stalled {
    pub async fn open(port: u16, path: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // So that the gateway feels it soon.
        socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
        let socket = socket.connect(([127, 0, 0, 1], port).into()).await.expect("connected");
        let mut blocks = Blocks::open(socket, path, None).await.expect("a stream");
        let (_, first) = blocks.next().await.expect("readable").expect("a block");
        assert_eq!(first["type"], "connected");
        Self(blocks)
    }

    /// Reads on, on the same connection, until so many events came.
    pub async fn read_all(mut self, count: usize) -> Vec<Id> {
        let mut ids = Vec::with_capacity(count);
        let reading = async {
            while ids.len() < count {
                let (_, data) = self.0.next().await.expect("readable").expect("a block");
                assert_ne!(data["type"], "gap", "nothing is gone");
                if data["event"].is_string() {
                    ids.push(parse_id(data["id"].as_str().expect("an id")));
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(240), reading).await.is_ok();
        assert!(in_time, "{} of {count} events came", ids.len());
        ids
    }
}
