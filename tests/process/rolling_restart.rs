//! A rolling restart under load: two nodes on one Redis behind a load balancer. Clients receive reconnect frames and no errors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use crate::emitter::{self, EmitterReport};
use crate::event_source::{Source, assert_complete, stored_entries, wait_for_all};
use crate::processes::{Gateway, is_full_soak, reserved_port};
use crate::redis_server::Redis;

const CHANNELS: [&str; 2] = ["rolling", "rolling/ü"];

/// A round-robin load balancer: a connection that one node refuses goes to the other.
async fn balance(listener: TcpListener, nodes: [SocketAddr; 2]) {
    for connection in 0.. {
        let (mut client, _) = listener.accept().await.expect("a connection");
        tokio::spawn(async move {
            for number in [connection % 2, (connection + 1) % 2] {
                if let Ok(mut node) = TcpStream::connect(nodes[number]).await {
                    // Either side may close the connection.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
                    return;
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_loses_no_events() {
    let (streams, pause) = if is_full_soak() { (1000, 10) } else { (300, 1) };
    let pause = Duration::from_secs(pause);
    let redis = Redis::start(&[]).await;
    let ports = [reserved_port(), reserved_port()];
    let start = async |number: usize| {
        Gateway::start(&format!(
            "store = \"{}\"\nallow-all = true\nlog.filter = \"tidegate=info,tidegate::authz=warn\"\nlisten = \"127.0.0.1:{}\"\n\
             drain.delay = \"500ms\"\ndrain.duration = \"1500ms\"",
            redis.url(),
            ports[number]
        ))
        .await
    };
    let mut nodes = vec![start(0).await, start(1).await];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let to = listener.local_addr().expect("its address");
    tokio::spawn(balance(listener, [nodes[0].data, nodes[1].data]));

    let sources: Vec<_> = (0..streams).map(|number| Source::new(number, &CHANNELS, None)).collect();
    for source in &sources {
        tokio::spawn(Arc::clone(source).follow(to));
    }
    assert_eq!(
        wait_for_all(&sources, Duration::from_secs(30), |received| received.is_open()).await,
        0,
        "all streams are open"
    );
    let begin = Instant::now();
    // Longer than the whole test takes, so that the emitters run until the end.
    let time = 2 * pause + Duration::from_secs(14);
    let emitters: Vec<_> = (0..2).map(|n| emitter::start(redis.port, &CHANNELS, n, 8, time)).collect();
    for number in 0..2 {
        tokio::time::sleep(pause).await;
        let node = nodes.remove(0);
        node.process.signal("TERM").await;
        let ended = node.process.end().await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("did not read"), "{}", ended.stderr);
        nodes.push(start(number).await);
    }
    let restarted = begin.elapsed();
    let mut added = 0;
    for emitter in emitters {
        added += EmitterReport::of(emitter).await.added;
    }
    let mut all = Vec::new();
    for channel in CHANNELS {
        all.push(stored_entries(&redis, channel).await);
    }
    let late = wait_for_all(&sources, Duration::from_secs(30), |received| received.has_all(&all)).await;
    let deliveries = assert_complete(&sources, &all);
    println!(
        "rolling: {streams} streams, {added} entries, {deliveries} deliveries, two restarts in {:.1} s",
        restarted.as_secs_f64()
    );
    assert_eq!(late, 0);
    assert!(restarted < time, "the emitters ran until the end of the restarts: {restarted:?}");
    assert!(sources.iter().all(|source| !source.lock().reconnects.is_empty()), "all streams were rotated");
}
