use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::store::options::StoreOptions;
use crate::store::redis::RedisStore;
use crate::store::redis::link::Link;
use crate::store::{KeyLookup, StoreError};

/// Replies to a look-up with its key; `hash` is of another type, and at `close` the connection ends.
async fn serve(socket: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(socket).lines();
    loop {
        let words = lines.next_line().await.ok()??.strip_prefix('*')?.parse::<usize>().ok()?;
        let mut command = Vec::new();
        for _ in 0..words {
            lines.next_line().await.ok()?;
            command.push(lines.next_line().await.ok()??);
        }
        let reply = match [&*command[0], command.last()?] {
            ["HELLO", _] => "%1\r\n+proto\r\n:3\r\n".to_owned(),
            ["GET", "close"] => return None,
            ["GET", "hash"] => "-WRONGTYPE of another type\r\n".to_owned(),
            ["GET", key] => format!("${}\r\n{key}\r\n", key.len()),
            _ => "+OK\r\n".to_owned(),
        };
        lines.get_mut().write_all(reply.as_bytes()).await.ok()?;
    }
}

async fn store() -> RedisStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    let url = format!("redis://127.0.0.1:{port}").parse().expect("a URL");
    let options = StoreOptions::new(url, Duration::from_secs(5));
    RedisStore::open(&options, &Default::default(), Default::default()).expect("valid").expect("a Redis")
}

#[tokio::test]
async fn look_ups_of_one_moment_are_sent_together_and_each_gets_its_own_reply() {
    let store = store().await;
    let Link::Batching(link) = &store.lookups else { panic!("one node") };
    let waiting = || link.0.waiting.lock().len();
    for count in [1, 63, 64, 65, 200] {
        let keys: Vec<String> = (0..count).map(|n| if n == 2 { "hash".into() } else { n.to_string() }).collect();
        let mut all = Box::pin(join_all(keys.iter().map(|key| store.get(key))));
        // A caller that gives up takes nothing from the others.
        assert!(poll_immediate(Box::pin(store.get("given up"))).await.is_none());
        assert!(poll_immediate(&mut all).await.is_none());
        assert_eq!(waiting(), count + 1, "no task has run in between");
        for (key, reply) in keys.iter().zip(all.await) {
            match &**key {
                "hash" => assert!(matches!(reply, Err(StoreError::WrongType)), "{reply:?}"),
                key => assert_eq!(reply.expect("a value").as_deref(), Some(key.as_bytes())),
            }
        }
        assert_eq!(waiting(), 0);
    }
    let (lost, other) = tokio::join!(store.get("close"), store.get("other"));
    assert!(lost.is_err() && other.is_err(), "no look-up is sent twice");
    assert_eq!(store.get("again").await.expect("another connection"), Some(b"again".to_vec()));
}
