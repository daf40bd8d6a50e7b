//! `tidegate emit` and `tidegate tail`, with arguments and with pipes.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::client::Id;
use crate::processes::{ChildProcess, Gateway, ProcessOutput, reserved_port, run, run_tidegate, tidegate, wait_until};
use crate::redis_server::Redis;

/// `tidegate tail` of a gateway's channel.
fn tail(gateway: &Gateway, args: &[&str]) -> ChildProcess {
    let url = format!("http://{}/api/realtime", gateway.data);
    let mut command = tidegate(&[&["tail", &url], args].concat());
    command.stdin(Stdio::null());
    ChildProcess::start(command)
}

/// Waits until a tail has opened its channel.
async fn wait_until_open(tail: &ChildProcess) {
    let line = tail.stdout.lines(1).await.remove(0);
    assert!(line.starts_with(r#"{"type":"connected""#), "{line}");
}

/// The events of a tail's output, as JSON.
fn events(lines: &[String]) -> Vec<Value> {
    let parsed = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    parsed.filter(|value| value.get("event").is_some()).collect()
}

fn data(lines: &[String]) -> Vec<Value> {
    events(lines).into_iter().map(|mut event| event["data"].take()).collect()
}

fn id(text: &str) -> Id {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is an id"))
}

fn assert_fails(ended: &ProcessOutput, code: i32, words: &[&str]) {
    assert_eq!((ended.code(), &*ended.stdout), (Some(code), ""), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in {}", ended.stderr);
    }
}

#[tokio::test]
async fn events_emitted_through_store_or_gateway_are_tailed_as_lines() {
    let redis = Redis::start(&[]).await;
    let gateway = Gateway::start(&format!("store = \"{}\"\nallow-all = true", redis.url())).await;
    let (store, control) = (redis.url(), gateway.control.to_string());
    let follower = tail(&gateway, &["news", "other channel", "--all", "--count", "7"]);
    follower.stdout.lines(2).await;

    let by_store = run_tidegate(&["emit", "news", "post.created", r#"{ "b" : 1,"a":"ü" }"#, "--store", &store]).await;
    assert_eq!(by_store.code(), Some(0), "{by_store:?}");
    let by_gateway = run_tidegate(&["emit", "news", "post.created", "\"123\"", "--control", &control, "--json"]).await;
    assert_eq!(by_gateway.code(), Some(0), "{by_gateway:?}");
    let reply: Value = serde_json::from_str(&by_gateway.stdout).expect("JSON");
    assert!(id(&by_store.stdout) < id(reply["id"].as_str().expect("an id")));
    // The control port with its scheme, and null.
    let url = format!("http://{control}/");
    assert_eq!(run_tidegate(&["emit", "other channel", "e", "null", "--control", &url]).await.code(), Some(0));

    // One event per line; empty lines are skipped.
    for target in [["--store", &store], ["--control", &control]] {
        let mut command = tidegate(&["emit", "news", "line"]);
        command.args(target);
        let ended = run(command, Some("1\n\n[2]\n")).await;
        assert_eq!((ended.code(), ended.stdout.lines().count()), (Some(0), 2), "{ended:?}");
    }
    let ended = follower.end().await;
    assert_eq!(ended.code(), Some(0), "--count is reached: {ended:?}");
    let lines: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
    let mut expect = vec![json!({"b": 1, "a": "ü"}), json!("123"), json!(null)];
    expect.extend([json!(1), json!([2]), json!(1), json!([2])]);
    let mut received = events(&lines);
    // The order of events of different channels is not defined.
    let other = received.iter().position(|e| e["channel"] == "other channel").expect("the event of the other channel");
    let other = received.remove(other);
    assert_eq!((&other["data"], &other["event"]), (&Value::Null, &"e".into()));
    expect.remove(2);
    assert_eq!(received.iter().map(|e| e["data"].clone()).collect::<Vec<_>>(), expect);
    assert!(received.iter().all(|e| e["channel"] == "news" && e.as_object().is_some_and(|o| o.len() == 4)));

    // The same events as a replay: strings of Tidegate's emitter stay strings.
    let replay = tail(&gateway, &["news", "--since", "0", "--count", "6"]).end().await;
    let lines: Vec<String> = replay.stdout.lines().map(str::to_owned).collect();
    assert_eq!((replay.code(), data(&lines)), (Some(0), expect));

    // Retention of a channel.
    let trimmed =
        run_tidegate(&["emit", "news", "e", "true", "--max-length", "2", "--expire", "1h", "--store", &store]).await;
    assert_eq!(trimmed.code(), Some(0), "{trimmed:?}");
    assert_eq!(redis.entries("news").await.len(), 2);
    let mut admin = redis.connect().await;
    let ttl: i64 = redis::cmd("TTL").arg("news").query_async(&mut admin).await.expect("a time to live");
    assert!((3590..=3600).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn tail_survives_a_killed_gateway() {
    let redis = Redis::start(&[]).await;
    let (data_port, control_port) = (reserved_port(), reserved_port());
    let toml = format!(
        "listen = \"127.0.0.1:{data_port}\"\ncontrol.listen = \"127.0.0.1:{control_port}\"\nstore = \"{}\"\nallow-all = true",
        redis.url()
    );
    let store = redis.url();
    let emit = async |n: u32| {
        let ended = run_tidegate(&["emit", "news", "e", &n.to_string(), "--store", &store]).await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    };
    let gateway = Gateway::start(&toml).await;
    let follower = tail(&gateway, &["news", "--all"]);
    wait_until_open(&follower).await;
    for n in 0..3 {
        emit(n).await;
    }
    wait_until("three events arrive", async || events(&lines(&follower)).len() == 3).await;
    gateway.process.kill().await;
    for n in 3..6 {
        emit(n).await;
    }
    let gateway = Gateway::start(&toml).await;
    emit(6).await;
    wait_until("all events arrive", async || events(&lines(&follower)).len() >= 7).await;
    emit(7).await;
    wait_until("the last event arrives", async || events(&lines(&follower)).len() >= 8).await;
    let lines = lines(&follower);
    assert_eq!(data(&lines), (0..8).map(Value::from).collect::<Vec<_>>(), "each event once, in order");
    assert!(!lines.iter().any(|line| line.contains(r#""type":"gap""#)), "{lines:?}");
    let mut events = events(&lines);
    let ids: Vec<Id> = events.iter_mut().map(|e| id(e["id"].as_str().expect("an id"))).collect();
    assert_eq!(ids, redis.entries("news").await.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    drop(gateway);
}

/// The complete lines that a process has written so far.
fn lines(process: &ChildProcess) -> Vec<String> {
    let text = process.stdout.text_so_far();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn closed_pipe_ends_a_tail() {
    let gateway = Gateway::start("store = \"memory:\"\nallow-all = true").await;
    let control = gateway.control.to_string();
    for n in ["1", "2", "3"] {
        assert_eq!(run_tidegate(&["emit", "default", "e", n, "--control", &control]).await.code(), Some(0));
    }
    let url = format!("http://{}/api/realtime", gateway.data);
    let program = tidegate(&[]).as_std().get_program().to_owned();
    let mut command = tokio::process::Command::new("sh");
    let script = r#"{ "$0" tail "$1" --since 0; echo "code $?" >&2; } | head -n 1"#;
    command.args(["-c", script]).arg(program).arg(&url);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    let piped = ChildProcess::start(command);
    piped.stdout.lines(1).await;
    // `head` does not read the next line; an earlier event may already have been written to the closed pipe.
    run_tidegate(&["emit", "default", "e", "4", "--control", &control]).await;
    let ended = piped.end().await;
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    assert_eq!(ended.stderr, "code 0\n", "a closed pipe is not an error");
}

#[tokio::test]
async fn invalid_emit_and_tail_arguments_fail_with_a_message_and_a_code() {
    let redis = Redis::start(&[]).await;
    let toml = format!("store = \"{}\"\nallow-all = true\nchannels.deny = [\"secret*\"]", redis.url());
    let gateway = Gateway::start(&toml).await;
    let (store, control) = (redis.url(), gateway.control.to_string());
    for target in [["--store", &store], ["--control", &control]] {
        for bad in ["hello", "{", "{\"a\":}", "1 2", ""] {
            let ended = run_tidegate(&["emit", "news", "e", bad, target[0], target[1]]).await;
            assert_fails(&ended, 2, &["emit: the data is not JSON", "'\"hello\"'"]);
        }
        // The lines before an invalid one are emitted, as their ids show; the error names the line.
        let mut command = tidegate(&["emit", "news", "e"]);
        command.args(target);
        let ended = run(command, Some("1\nnope\n3\n")).await;
        assert_eq!((ended.code(), ended.stdout.lines().count()), (Some(2), 1), "{ended:?}");
        assert!(ended.stderr.contains("line 2") && ended.stderr.contains("not JSON"), "{}", ended.stderr);
    }
    assert_eq!(redis.entries("news").await.len(), 2);
    assert_fails(
        &run_tidegate(&["emit", "secret-a", "e", "1", "--control", &control]).await,
        1,
        &["403", "not a channel here"],
    );
    assert_fails(&run_tidegate(&["emit", "news", "e", "1", "--store=memory:"]).await, 2, &["--control"]);
    assert_fails(
        &run_tidegate(&["emit", "news", "e", "1", "--store", &store, "--control", &control]).await,
        2,
        &["cannot be used with"],
    );
    assert_fails(&run_tidegate(&["emit", "news"]).await, 2, &["Usage"]);
    let unused = format!("127.0.0.1:{}", reserved_port());
    assert_fails(
        &run_tidegate(&["emit", "news", "e", "1", "--control", &unused]).await,
        1,
        &["no gateway answers at", &unused],
    );
    let no_store = format!("redis://ann:s3cret@{unused}");
    let ended = run_tidegate(&["emit", "news", "e", "1", "--store", &no_store]).await;
    assert_fails(&ended, 1, &[&format!("--store redis://{unused}: "), "the store is unavailable"]);
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);

    assert_fails(&run_tidegate(&["tail", "redis://127.0.0.1"]).await, 2, &["http://"]);
    assert_fails(
        &run_tidegate(&["tail", &format!("http://{unused}/api/realtime")]).await,
        1,
        &["no gateway answers at", &unused],
    );
    let url = format!("http://{}/api/realtime", gateway.data);
    assert_fails(&run_tidegate(&["tail", &url, "secret-a"]).await, 1, &["answered 403", "not a channel here"]);
    assert_fails(
        &run_tidegate(&["tail", &url, "news", "--since", "yesterday"]).await,
        1,
        &["answered 400", "last_ack_news"],
    );
    assert_fails(&run_tidegate(&["tail", &url, "-H", "no header"]).await, 2, &["name: value"]);
}

#[tokio::test]
async fn commands_need_the_control_token() {
    let toml = "store = \"memory:\"\nallow-all = true\ncontrol.listen = \"127.0.0.1:0\"\ncontrol.token = \"t0ken\"";
    let gateway = Gateway::start(toml).await;
    let control = gateway.control.to_string();
    assert_fails(
        &run_tidegate(&["emit", "news", "e", "1", "--control", &control]).await,
        1,
        &["--token", "TIDEGATE_CONTROL_TOKEN"],
    );
    let other = run_tidegate(&["emit", "news", "e", "1", "--control", &control, "--token", "other"]).await;
    assert_fails(&other, 1, &[&control, "does not accept this token"]);
    let data = gateway.data.to_string();
    for command in [&["emit", "news", "e", "1"][..], &["policy", "status"], &["revoke", "--all"]] {
        let ended = run_tidegate(&[command, &["--control", &data, "--token", "t0ken"]].concat()).await;
        assert_fails(&ended, 1, &[&data, "is not the control port"]);
    }
    let accepted = run_tidegate(&["emit", "news", "e", "1", "--control", &control, "--token", "t0ken"]).await;
    assert_eq!(accepted.code(), Some(0), "{accepted:?}");
    let mut command = tidegate(&["emit", "news", "e", "1", "--control", &control]);
    command.env("TIDEGATE_CONTROL_TOKEN", "t0ken");
    assert_eq!(run(command, None).await.code(), Some(0));
}
