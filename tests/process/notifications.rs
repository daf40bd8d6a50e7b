//! Connections and subscriptions of a node to Redis do not grow with its clients, and notifications of other databases make no events.

use redis::{Script, cmd};

use crate::client::Sse;
use crate::processes::{Gateway, wait_until};
use crate::redis_server::Redis;

#[tokio::test]
async fn redis_connections_and_subscriptions_do_not_grow_with_clients() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let mut before: Vec<u64> = connections(&mut admin).await;
    before.sort_unstable();
    let gateway = Gateway::start(&format!("store = \"{}\"\nallow-all = true", redis.url())).await;
    let mut add = redis::pipe();
    for n in 0..100 {
        add.cmd("XADD").arg("news").arg("*").arg(&["data", &n.to_string(), "event", "e", "channel", "news"]).ignore();
    }
    add.exec_async(&mut admin).await.expect("the history is added");

    let mut streams = Vec::new();
    let mut connection_counts = Vec::new();
    for number in 0..50 {
        // Half of them replay, which uses a separate connection.
        let ack = if number % 2 == 0 { "&last_ack_news=0" } else { "" };
        let mut stream = Sse::open(gateway.data, &format!("channel=news&channel=other{ack}")).await;
        for _ in 0..if ack.is_empty() { 2 } else { 102 } {
            stream.frame().await;
        }
        streams.push(stream);
        if number == 1 || number == 49 {
            let now = connections(&mut admin).await;
            connection_counts.push(now.iter().filter(|id| !before.contains(id)).count());
        }
    }
    assert_eq!(connection_counts, [3, 3], "connections of the gateway with 2 streams and with 50");
    assert_eq!(subscribers(&mut admin, "news").await, 1);
    assert_eq!(subscribers(&mut admin, "other").await, 1);

    // One notification reaches all streams.
    let mut add = cmd("XADD");
    add.arg("other").arg("*").arg(&["data", "1", "event", "e", "channel", "other"]);
    let id: String = add.query_async(&mut admin).await.expect("added");
    let payload = format!(r#"{{"data":1,"event":"e","channel":"other","id":"{id}"}}"#);
    let receivers: u64 = cmd("PUBLISH").arg("other").arg(payload).query_async(&mut admin).await.expect("published");
    assert_eq!(receivers, 1);
    for stream in &mut streams {
        assert_eq!(stream.data().await, 1);
    }

    // There is no subscription to a channel without clients.
    let mut channels: Vec<String> = cmd("PUBSUB").arg("CHANNELS").query_async(&mut admin).await.expect("channels");
    channels.sort();
    assert_eq!(
        channels,
        ["news", "other", "tidegate:{default}:commands", "tidegate:{default}:policy:changed"],
        "besides the channels only those of the fleet are subscribed to"
    );
    gateway.process.signal("TERM").await;
    drop(streams);
    assert_eq!(gateway.process.end().await.code(), Some(0));
    wait_until("the gateway's connections end", async || connections(&mut admin).await == before).await;
}

/// The databases of one Redis share pub/sub: what staging publishes in database 3 reaches a gateway of production on database 0.
#[tokio::test]
async fn event_of_another_database_is_not_delivered() {
    let redis = Redis::start(&[]).await;
    let (mut production, mut staging) = (redis.connect().await, redis.connect().await);
    let () = cmd("SELECT").arg(3).query_async(&mut staging).await.expect("a database");
    let gateway = Gateway::start(&format!("store = \"{}\"\nallow-all = true", redis.url())).await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    // Two entries that trim to one, so the first is in its notification only.
    let emit_two = Script::new(
        "for n = 1, 2 do
           local id = redis.call('XADD', KEYS[1], 'MAXLEN', '=', 1, '*', 'data', ARGV[n], 'event', 'e', 'channel', KEYS[1])
           redis.call('PUBLISH', KEYS[1], cjson.encode({ id = id, data = ARGV[n], event = 'e', channel = KEYS[1] }))
         end",
    );
    for round in 0..5 {
        // At first the key exists in the other database only.
        let mut add = cmd("XADD");
        add.arg("news").arg("*").arg(&["data", "staging", "event", "e", "channel", "news"]);
        let id: String = add.query_async(&mut staging).await.expect("added");
        for prev in ["", r#","prev":"0-0""#] {
            let payload = format!(r#"{{"data":"staging","event":"e","channel":"news","id":"{id}"{prev}}}"#);
            cmd("PUBLISH").arg("news").arg(payload).exec_async(&mut staging).await.expect("published");
        }
        let data = [0, 1].map(|n| format!("production {round}.{n}"));
        emit_two.key("news").arg(&data).invoke_async::<()>(&mut production).await.expect("emitted");
        // Instead of the first entry there is a gap, if the foreign notification was not read before.
        let mut frame = stream.frame().await;
        assert!(frame["data"] == data[0] || frame["certain"] == true, "{frame}");
        while frame["data"] != data[1] {
            frame = stream.frame().await;
            assert!(frame["data"] != "staging", "{frame}");
        }
    }
}

async fn connections(admin: &mut redis::aio::MultiplexedConnection) -> Vec<u64> {
    let list: String = cmd("CLIENT").arg("LIST").query_async(admin).await.expect("the clients");
    let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    ids
}

async fn subscribers(admin: &mut redis::aio::MultiplexedConnection, channel: &str) -> u64 {
    let (_, count): (String, u64) =
        cmd("PUBSUB").arg("NUMSUB").arg(channel).query_async(admin).await.expect("the number");
    count
}
