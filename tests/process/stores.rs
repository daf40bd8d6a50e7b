//! Store URLs: unreachable, with a password, or on a Unix socket. No password is printed, not even in a trace log.

use redis::aio::MultiplexedConnection;
use redis::cmd;

use crate::client::Sse;
use crate::control_port::{JSON, send_request};
use crate::processes::{ChildProcess, Gateway, path, run_tidegate};
use crate::redis_server::Redis;

const SECRET: &str = "s3cret-Pa55";

/// A configuration with a trace log.
pub fn trace_config(store: &str) -> String {
    format!("store = \"{store}\"\nallow-all = true\nlog.filter = \"trace\"")
}

fn assert_no_secret(text: &str) {
    assert!(
        !text.contains(SECRET),
        "the password is printed: {}",
        text.lines().find(|l| l.contains(SECRET)).unwrap_or("")
    );
}

/// Asserts that events reach a stream, and that the password was not printed.
pub async fn assert_store_works(gateway: Gateway, admin: &mut MultiplexedConnection) {
    let mut stream = Sse::open(gateway.data, "channel=news&last_ack_news=0").await;
    stream.connected("news").await;
    let mut add = cmd("XADD");
    add.arg("news").arg("*").arg(&["data", "\"live\"", "event", "e", "channel", "news"]);
    let id: String = add.query_async(admin).await.expect("added");
    let payload = format!(r#"{{"data":"live","event":"e","channel":"news","id":"{id}"}}"#);
    let receivers: u64 = cmd("PUBLISH").arg("news").arg(payload).query_async(admin).await.expect("published");
    assert_eq!((receivers, stream.data().await), (1, "live".into()));
    let mut replay = Sse::open(gateway.data, "channel=news&last_ack_news=0").await;
    replay.connected("news").await;
    assert_eq!(replay.data().await, "live");
    drop((stream, replay));
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_no_secret(&ended.all());
}

/// Asserts that the start fails with an error that contains these texts, and not the password.
async fn assert_start_fails(process: ChildProcess, texts: &[&str]) {
    let ended = process.end().await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    let error = ended.stderr.lines().last().unwrap_or_default();
    for text in texts {
        assert!(error.contains(text), "{text:?} is not in {error}");
    }
    assert_no_secret(&ended.all());
}

#[tokio::test]
async fn unreachable_store_fails_the_start_or_is_waited_for() {
    let mut redis = Redis::unstarted(&[]);
    let store = format!("redis://ann:{SECRET}@127.0.0.1:{}/3", redis.port);
    let shown = format!("redis://127.0.0.1:{}/3", redis.port);
    let (process, _dir) = Gateway::launch(&trace_config(&store), &[]);
    assert_start_fails(process, &[&shown, "--wait-for-store", "refused"]).await;

    let (process, dir) = Gateway::launch(&trace_config(&redis.url()), &["--wait-for-store"]);
    process.stderr.wait_for_text("waiting for the store").await;
    assert!(process.stdout.text_so_far().is_empty(), "no address is printed yet");
    redis.restart().await;
    assert_store_works(Gateway::wait_until_ready(process, dir).await, &mut redis.connect().await).await;
}

#[tokio::test]
async fn wait_for_store_does_not_retry_authentication_errors() {
    let redis = Redis::with_password(&["--requirepass", "another"], ":another").await;
    let store = format!("redis://:{SECRET}@127.0.0.1:{}", redis.port);
    for args in [&[][..], &["--wait-for-store"]] {
        let (process, _dir) = Gateway::launch(&trace_config(&store), args);
        assert_start_fails(process, &[&format!("redis://127.0.0.1:{}", redis.port)]).await;
    }
    // Without a password.
    let (process, _dir) = Gateway::launch(&trace_config(&redis.url()), &[]);
    assert_start_fails(process, &["NOAUTH"]).await;
}

#[tokio::test]
async fn store_url_selects_password_and_database() {
    let redis = Redis::with_password(&["--requirepass", SECRET], &format!(":{SECRET}")).await;
    let mut admin = redis.connect().await;
    let _: () = cmd("SELECT").arg(7).query_async(&mut admin).await.expect("a database");
    let store = format!("redis://:{SECRET}@127.0.0.1:{}/7", redis.port);
    assert_store_works(Gateway::start(&trace_config(&store)).await, &mut admin).await;
    assert!(redis.entries("news").await.is_empty(), "other databases stay empty");
}

#[tokio::test]
async fn documented_redis_permissions_are_sufficient() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let documentation = include_str!("../../docs/operations/redis.md");
    let (_, rule) = documentation.split_once("ACL SETUSER tidegate ").expect("the documentation has a rule");
    let rule = rule.split("```").next().expect("the rule ends").replace(">password", &format!(">{SECRET}"));
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("tidegate");
    rule.split_whitespace().for_each(|word| {
        user.arg(word);
    });
    let _: () = user.query_async(&mut admin).await.expect("the rule is valid");
    let store = format!("redis://tidegate:{SECRET}@127.0.0.1:{}", redis.port);
    let emitted =
        run_tidegate(&["emit", "other", "e", "1", "--max-length", "5", "--expire", "1h", "--store", &store]).await;
    assert_eq!(emitted.code(), Some(0), "{emitted:?}");
    let revoked = run_tidegate(&["revoke", "--channel", "none", "--for", "1h", "--store", &store]).await;
    assert_eq!(revoked.code(), Some(0), "{revoked:?}");
    let listed = run_tidegate(&["revoke", "--list", "--json", "--store", &store]).await;
    assert!(listed.stdout.contains("none") && !listed.stdout.contains("\"now\":null"), "{listed:?}");
    assert_store_works(Gateway::start(&trace_config(&store)).await, &mut admin).await;

    let wrong = format!("redis://tidegate:x{SECRET}@127.0.0.1:{}", redis.port);
    let (process, _dir) = Gateway::launch(&trace_config(&wrong), &[]);
    assert_start_fails(process, &[&redis.url()]).await;
    let refused = run_tidegate(&["emit", "other", "e", "1", "--store", &wrong]).await;
    assert_eq!((refused.code(), refused.stdout.is_empty()), (Some(1), true), "{refused:?}");
    assert_no_secret(&refused.all());
}

#[tokio::test]
async fn store_is_reachable_through_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = path(dir.path(), "redis.sock");
    let redis = Redis::with_password(&["--unixsocket", &socket, "--requirepass", SECRET], &format!(":{SECRET}")).await;
    let mut admin = redis.connect().await;
    let _: () = cmd("SELECT").arg(2).query_async(&mut admin).await.expect("a database");
    assert_store_works(
        Gateway::start(&trace_config(&format!("redis+unix://{socket}?db=2&pass={SECRET}"))).await,
        &mut admin,
    )
    .await;

    let missing = path(dir.path(), "nowhere.sock");
    let (process, _dir) = Gateway::launch(&trace_config(&format!("redis+unix://{missing}?pass={SECRET}")), &[]);
    assert_start_fails(process, &[&format!("redis+unix://{missing}")]).await;
}

#[tokio::test]
async fn invalid_store_url_is_not_printed() {
    for store in [format!("http://ann:{SECRET}@h"), format!("redis://ann:{SECRET}@h:99999"), format!("{SECRET}@h")] {
        for command in [&["serve", "--allow-all"][..], &["emit", "c", "e", "1"]] {
            let ended = run_tidegate(&[command, &["--store", &store]].concat()).await;
            assert_eq!(ended.code(), Some(2), "{ended:?}");
            assert!(ended.stderr.contains("redis://user:password@"), "{}", ended.stderr);
            assert_no_secret(&ended.all());
        }
    }
}

#[tokio::test]
async fn check_warns_about_other_databases_of_the_server() {
    let mut redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let store = format!("redis://127.0.0.1:{}/2", redis.port);
    let check = async || run_tidegate(&["check", "--allow-all", "--store", &store]).await;
    let set = async |admin: &mut MultiplexedConnection, database: u8| {
        let mut set = redis::pipe();
        set.cmd("SELECT").arg(database).ignore().cmd("SET").arg("k").arg(1).ignore();
        set.exec_async(admin).await.expect("set");
    };
    set(&mut admin, 2).await;
    let ended = check().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("(answers)") && !ended.stderr.contains("database"), "{ended:?}");
    set(&mut admin, 3).await;
    let ended = check().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("warning: store: database 3 of this server is in use"), "{ended:?}");
    // A check does not need the store.
    redis.kill().await;
    let ended = check().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("does not answer"), "{ended:?}");
}

/// A channel falls back to an older state, or is created again, and goes on with ids below those that clients have got.
#[tokio::test]
async fn entry_that_reveals_an_older_state_is_delivered() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let gateway = Gateway::start(&format!("store = \"{}\"\nallow-all = true", redis.url())).await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    let emit = async |admin: &mut MultiplexedConnection, id: &str| {
        let payload = format!(r#"{{"data":"{id}","event":"e","channel":"news","id":"{id}"}}"#);
        let mut emit = redis::pipe();
        emit.atomic().cmd("XADD").arg("news").arg(id).arg(&["data", id, "event", "e", "channel", "news"]);
        emit.cmd("PUBLISH").arg("news").arg(payload);
        emit.exec_async(admin).await.expect("emitted");
    };
    for id in ["100-0", "200-0"] {
        emit(&mut admin, id).await;
        assert_eq!(stream.data().await, id);
    }
    let state: Vec<u8> = cmd("DUMP").arg("news").query_async(&mut admin).await.expect("the state");
    for id in ["300-0", "400-0"] {
        emit(&mut admin, id).await;
        assert_eq!(stream.data().await, id);
    }
    let mut restore = cmd("RESTORE");
    restore.arg("news").arg(0).arg(state).arg("REPLACE").exec_async(&mut admin).await.expect("restored");
    for (id, after, resumed) in [("250-0", Some("200-0"), "250-0"), ("1-0", None, "1-0")] {
        if id == "1-0" {
            emit(&mut admin, "251-0").await;
            assert_eq!(stream.data().await, "251-0");
            cmd("FLUSHALL").exec_async(&mut admin).await.expect("deleted");
        }
        emit(&mut admin, id).await;
        let gap = stream.frame().await;
        assert_eq!((&gap["type"], &gap["reason"]), (&"gap".into(), &"store-reset".into()), "{gap}");
        assert_eq!((&gap["after"], &gap["resumed"]), (&after.into(), &resumed.into()), "{gap}");
        assert_eq!(stream.data().await, id);
    }
}

/// The operator has to give the missing permission, so no endpoint reports the refusal as an error of the client.
#[tokio::test]
async fn command_refused_by_redis_is_a_bad_gateway_on_every_endpoint() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let rule = async |admin: &mut MultiplexedConnection, rule: &[&str]| {
        let mut user = cmd("ACL");
        user.arg("SETUSER").arg("limited").arg(rule);
        let () = user.query_async(admin).await.expect("the rule is valid");
    };
    rule(&mut admin, &["on", &format!(">{SECRET}"), "~*", "&*", "+@all"]).await;
    let store = format!("redis://limited:{SECRET}@127.0.0.1:{}", redis.port);
    let toml = format!("store = \"{store}\"\nallow-all = true\nredis-rest.tokens = [\"{}\"]", "t".repeat(16));
    let gateway = Gateway::start(&toml).await;
    let bearer = format!("authorization: Bearer {}\r\n", "t".repeat(16));
    let twice: &[u8] = br#"["XADD","c","1-1","event","e"]"#;
    assert_eq!(send_request(gateway.data, "POST", "/redis", &bearer, twice).await.0, 200);
    assert_eq!(send_request(gateway.data, "POST", "/redis", &bearer, twice).await.0, 400, "an existing id is an error");

    rule(&mut admin, &["-xadd", "-hgetall", "-hset", "-get", "-getrange"]).await;
    let event: &[u8] = br#"{"channel":"c","event":"e"}"#;
    for (method, path, body) in [
        ("POST", "/v1/emit", event),
        ("POST", "/v1/revoke", br#"{"subject":"alice"}"#),
        ("POST", "/v1/revoke", br#"{"subject":"alice","for":"15m"}"#),
        ("GET", "/v1/revocations", b""),
        ("DELETE", "/v1/revocations/0123456789abcdef", b""),
        ("GET", "/v1/fleet", b""),
    ] {
        let (status, answer) = send_request(gateway.control, method, path, JSON, body).await;
        let code = answer["error"]["code"].as_str();
        assert_eq!((status, code), (502, Some("store_refused")), "{method} {path}: {answer}");
        assert!(!answer.to_string().contains(SECRET), "{answer}");
    }
    let (status, answer) = send_request(gateway.data, "POST", "/redis", &bearer, twice).await;
    assert!(status == 502 && answer["error"].is_string(), "{status} {answer}");
}
