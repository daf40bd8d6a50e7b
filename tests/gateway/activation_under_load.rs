//! Five activations per second under a steady load of requests. With `TIDEGATE_SOAK=full` each test runs for two minutes, with 500
//! requests per second.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tidegate::wasm::component::Policy;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::guests::{async_authorizer, authorizer};
use crate::harness::{Gateway, InitialPolicy, load, wait_until};
use crate::sandbox_limits::REALLOC;

/// How long each policy stays active.
const ACTIVATION_INTERVAL: Duration = Duration::from_millis(200);
/// Time between the acknowledgement of an activation and the check of the sockets. A head that passed before the acknowledgement is
/// written in the same poll of its connection, which may be interrupted.
const WRITE_GRACE: Duration = Duration::from_millis(100);

/// Duration, and requests per second.
fn size() -> (Duration, u32) {
    let full = std::env::var("TIDEGATE_SOAK").is_ok_and(|soak| soak == "full");
    if full { (Duration::from_secs(120), 500) } else { (Duration::from_secs(4), 100) }
}

/// A policy that allows or rejects each request after `wait`, with its name in the header `x-name`. `cached`: its decisions may be cached.
/// `is_async`: it uses the asynchronous ABI.
fn policy(name: &str, allows: bool, wait: Duration, cached: bool, is_async: bool) -> Policy {
    let answer = if allows {
        "(data (i32.const 64) (i32 0 0) (i32 0 0 0) (i32 0 0 0) (i64 0 0) (i32 128 1))".to_owned()
    } else {
        format!("(data (i32.const 64) (i32 1 0) (i32 418) (i32 128 1) (i32 320 {}))", name.len())
    };
    let wait = if wait.is_zero() {
        String::new()
    } else {
        format!("(call $block (call $subscribe-duration (i64.const {})))", wait.as_nanos())
    };
    let cache = if cached { "(call $cache-for (i32.const 60) (i32.const 0) (i32.const 0))" } else { "" };
    let (import, export, end) = if is_async {
        let length = name.len();
        let fields =
            if allows { "0 0 0 0 0 0 0 0 128 1".to_owned() } else { format!("418 128 1 320 {length} 0 0 0 0 0") };
        let fields: Vec<String> = (0..)
            .zip(fields.split(' '))
            .map(|(at, value)| format!("(i{}.const {value})", if at == 7 { 64 } else { 32 }))
            .collect();
        (
            r#"(import "[export]tidegate:policy/authorizer@0.1.0" "[task-return]authorize"
                (func $return (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32)))"#,
            r#"(export "[async-lift]tidegate:policy/authorizer@0.1.0#authorize")"#,
            format!(
                r#"(call $return (i32.const {}) {}) (i32.const 0))
  (func (export "[callback][async-lift]tidegate:policy/authorizer@0.1.0#authorize") (param i32 i32 i32) (result i32) unreachable)"#,
                u32::from(!allows),
                fields.join(" ")
            ),
        )
    } else {
        ("", r#"(export "tidegate:policy/authorizer@0.1.0#authorize")"#, "(i32.const 64))".to_owned())
    };
    let text = format!(
        r#"(module
  {import}
  (import "tidegate:policy/answer@0.1.0" "cache-for" (func $cache-for (param $seconds i32) (param $names i32) (param $count i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe-duration (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (memory (export "memory") 17)
  {answer}
  (data (i32.const 128) (i32 256 6 320 {length}))
  (data (i32.const 256) "x-name")
  (data (i32.const 320) "{name}")
  {REALLOC}
  (func {export}
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    {wait}
    {cache}
    {end})"#,
        length = name.len()
    );
    load(&if is_async { async_authorizer(&text) } else { authorizer(&text) })
}

/// The answer that a client received.
struct Answer {
    /// The oldest generation that may answer: the one that was active before the request, or a later one that was active before the answer.
    oldest: usize,
    received: Instant,
    status: u16,
    name: String,
}

/// Requests that wait for their answers.
#[derive(Default)]
struct Waiting {
    /// The latest acknowledged activation.
    acknowledged: usize,
    sockets: HashMap<u32, (Arc<TcpStream>, usize)>,
}

impl Waiting {
    /// Raises the oldest generation that may answer, for each request without an answer. It checks the sockets and not the tasks that read them,
    /// as those may not have been scheduled yet.
    fn raise_oldest_generation(&mut self) {
        for (socket, oldest) in self.sockets.values_mut() {
            let peeked = SockRef::from(&**socket).peek(&mut [MaybeUninit::uninit()]);
            if peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                *oldest = self.acknowledged;
            }
        }
    }
}

/// Requests a stream and reads its head. Requests use several source addresses, as one has too few ports for a minute.
async fn request_stream(to: SocketAddr, number: u32, waiting: Arc<Mutex<Waiting>>) -> Result<Answer, String> {
    let text = |step: &'static str| move |error: std::io::Error| format!("{step}: {error}");
    let socket = TcpSocket::new_v4().map_err(text("a socket"))?;
    let from = SocketAddr::from(([127, 0, 0, u8::try_from(2 + number % 200).expect("it is small")], 0));
    socket.bind(from).map_err(text("bind"))?;
    let socket = Arc::new(socket.connect(to).await.map_err(text("connect"))?);
    {
        let mut waiting = waiting.lock().expect("no task panicked");
        let oldest = waiting.acknowledged;
        waiting.sockets.insert(number, (Arc::clone(&socket), oldest));
    }
    let head = format!("GET /api/realtime?channel=c HTTP/1.1\r\nhost: {to}\r\ncookie: n={}\r\n\r\n", number % 50);
    let sent = socket.try_write(head.as_bytes()).map_err(text("send"))?;
    assert_eq!(sent, head.len(), "a new socket accepts it");
    let mut wire = Vec::new();
    while !wire.windows(4).any(|four| four == b"\r\n\r\n") {
        socket.readable().await.map_err(text("read"))?;
        match socket.try_read_buf(&mut wire) {
            Ok(0) => return Err(format!("the connection ended after {:?}", String::from_utf8_lossy(&wire))),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(text("read")(error)),
            _ => {}
        }
    }
    let received = Instant::now();
    let (_, oldest) = waiting.lock().expect("no task panicked").sockets.remove(&number).expect("it exists");
    let head = String::from_utf8_lossy(&wire).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    let names: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("x-name: ")).collect();
    Ok(Answer { oldest, received, status, name: names.join(" and ") })
}

/// When an activation began, and how long its acknowledgement took.
struct Activation {
    name: &'static str,
    begun: Instant,
    duration: Duration,
}

/// `second_is_async`: the second policy uses the asynchronous ABI, and so runs in another engine.
async fn run_under_load(wait: Duration, cached: bool, second_is_async: bool) {
    let (duration, rate) = size();
    let names = ["allows", "rejects"];
    let policies = names.map(|name| policy(name, name == "allows", wait, cached, second_is_async && name == "rejects"));
    let gateway = Arc::new(Gateway::start_with(None, &InitialPolicy::Missing, "").await);
    gateway.app.authorizer.activate(policies[0].clone()).drained().await;
    let start = Instant::now();
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let activating = {
        let (gateway, waiting) = (Arc::clone(&gateway), Arc::clone(&waiting));
        tokio::spawn(async move {
            let mut activations = vec![Activation { name: names[0], begun: start, duration: Duration::ZERO }];
            let mut tick = tokio::time::interval(ACTIVATION_INTERVAL);
            tick.tick().await;
            while start.elapsed() < duration {
                tick.tick().await;
                let next = activations.len() % 2;
                let begun = Instant::now();
                gateway.app.authorizer.activate(policies[next].clone()).drained().await;
                waiting.lock().expect("no task panicked").acknowledged = activations.len();
                activations.push(Activation { name: names[next], begun, duration: begun.elapsed() });
                tokio::time::sleep(WRITE_GRACE).await;
                waiting.lock().expect("no task panicked").raise_oldest_generation();
            }
            activations
        })
    };
    let mut requests = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    for number in 0..u32::try_from(duration.as_secs()).expect("it is short") * rate {
        tick.tick().await;
        requests.spawn(request_stream(gateway.data, number, Arc::clone(&waiting)));
    }
    let answers: Vec<Answer> =
        requests.join_all().await.into_iter().collect::<Result<_, _>>().expect("no connection fails");
    let activations = activating.await.expect("the activations succeeded");

    let mut counts: HashMap<&str, u32> = HashMap::new();
    for answer in &answers {
        let (status, name) = (answer.status, &*answer.name);
        let expected = if name == "allows" { 200 } else { 418 };
        assert!(
            names.contains(&name) && status == expected,
            "status {status} with the name {name:?} is not the answer of one generation"
        );
        *counts.entry(name).or_default() += 1;
        // The generation was active at some time during the request, and was not replaced before the head was written.
        let was_active = activations[answer.oldest..]
            .iter()
            .any(|activation| activation.name == name && activation.begun <= answer.received);
        assert!(
            was_active,
            "policy {name:?} answered after it was replaced, {:?} after the start",
            answer.received - start
        );
    }
    let slowest = activations.iter().map(|activation| activation.duration).max().unwrap_or_default();
    println!(
        "{} answers {counts:?}, {} activations, the slowest acknowledged in {slowest:?}",
        answers.len(),
        activations.len()
    );
    assert!(counts.len() == 2 && counts.values().all(|count| *count as usize > answers.len() / 10), "{counts:?}");
    wait_until("no retired decision is left", || {
        gateway.app.authorizer.retired().is_empty() && gateway.app.authorizer.in_flight() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_comes_from_one_generation() {
    run_under_load(Duration::ZERO, false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_comes_from_one_generation_when_decisions_outlast_it() {
    run_under_load(Duration::from_millis(300), false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_comes_from_one_generation_when_decisions_are_cached() {
    run_under_load(Duration::ZERO, true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_comes_from_one_generation_when_policies_have_different_engines() {
    run_under_load(Duration::from_millis(5), false, true).await;
}
