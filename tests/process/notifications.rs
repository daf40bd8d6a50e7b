//! Connections and subscriptions of a node to Redis do not grow with its clients.

use redis::cmd;

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
