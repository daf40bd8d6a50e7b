//! The client's address and scheme as policies, the decision cache and operators see them, directly and through trusted proxies.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Sse, send_request};
use crate::guests::component;
use crate::harness::{Gateway, with_timeout};

/// The request that the policy `echo` got, without the authority: the scheme and the client's address.
async fn seen_by_policy(to: SocketAddr, headers: &[u8]) -> (String, String) {
    let head =
        [b"GET /api/realtime HTTP/1.1\r\nhost: gate.example\r\n", headers, b"connection: close\r\n\r\n"].concat();
    let mut socket = TcpStream::connect(to).await.expect("the port is open");
    socket.write_all(&head).await.expect("it is sent");
    let mut answer = String::new();
    with_timeout("an answer", socket.read_to_string(&mut answer)).await.expect("text");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let parts: Vec<&str> = body.split('|').collect();
    assert_eq!((parts[1], parts[3]), ("gate.example", "gate.example;"), "{answer}");
    (parts[0].to_owned(), parts[2].to_owned())
}

/// `listen`, `server.trusted-proxies`, and what a request from 127.0.0.1 with these headers is seen as.
#[tokio::test]
async fn policy_sees_the_client_that_a_trusted_proxy_names() {
    let echo = component("echo");
    for listen in ["127.0.0.1:0", "[::]:0"] {
        let start = async |trusted: &str| {
            let toml = format!("listen = '{listen}'\nserver.trusted-proxies = {trusted}");
            let gateway = Gateway::with_policy(&echo, &toml).await;
            let to = SocketAddr::from(([127, 0, 0, 1], gateway.data.port()));
            (gateway, to)
        };
        let direct = start("[]").await;
        let with_proxy = start("['127.0.0.0/8']").await;
        let mapped_network = start("['::ffff:127.0.0.0/104']").await;
        for (headers, scheme, address) in [
            (&b""[..], "http", ""),
            (b"x-forwarded-proto: https\r\n", "https", ""),
            (b"x-forwarded-for: 203.0.113.9\r\nx-forwarded-proto: https\r\n", "https", "203.0.113.9"),
            (b"x-forwarded-for: 10.0.0.1, 203.0.113.9\r\n", "http", "203.0.113.9"),
            (b"x-forwarded-for: \xff, 203.0.113.9\r\n", "http", "203.0.113.9"),
            (b"x-forwarded-for: 10.0.0.1, \xe9\r\nX-Forwarded-For: 203.0.113.9\r\n", "http", "203.0.113.9"),
            (b"x-forwarded-for: 203.0.113.9:4711\r\n", "http", "203.0.113.9"),
            (b"x-forwarded-for: ::ffff:203.0.113.9, ::ffff:127.0.0.9\r\n", "http", "203.0.113.9"),
            (b"x-forwarded-for: [2001:DB8::7]:4711\r\n", "http", "2001:db8::7"),
            (b"x-forwarded-for: 127.0.0.7\r\n", "http", "127.0.0.7"),
            (b"x-forwarded-for: 203.0.113.9, junk\r\n", "http", ""),
            (b"x-forwarded-for: 203.0.113.9, \xff\r\n", "http", ""),
            (b"x-forwarded-for: 203.0.113.9,\r\n", "http", ""),
            (b"x-forwarded-for:\r\n", "http", ""),
            (b"forwarded: for=203.0.113.9;proto=https\r\n", "http", ""),
        ] {
            let case = format!("{listen} {:?}", String::from_utf8_lossy(headers));
            let own = ("http".to_owned(), "127.0.0.1".to_owned());
            assert_eq!(seen_by_policy(direct.1, headers).await, own, "{case} without a proxy");
            for (_, to) in [&with_proxy, &mapped_network] {
                let expect = (scheme.to_owned(), address.to_owned());
                assert_eq!(seen_by_policy(*to, headers).await, expect, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn answer_by_address_is_not_shared_by_clients_without_a_known_one() {
    let gateway = Gateway::with_policy(&component("kept"), "server.trusted-proxies = ['127.0.0.1/32']").await;
    let mut decisions = gateway.app.authorizer.watch();
    for (forwarded, cached) in [
        ("203.0.113.9", false),
        ("198.51.100.7, ::ffff:203.0.113.9", true),
        ("203.0.113.9:4711", true),
        ("203.0.113.10", false),
        ("junk, 203.0.113.10", true),
        ("203.0.113.9, junk", false),
        ("203.0.113.9, junk", false),
        ("", false),
    ] {
        let headers = [("x-forwarded-for", forwarded), ("cookie", "a")];
        let reply = send_request(gateway.data, "GET", "/api/realtime?channel=n", &headers, "").await;
        assert_eq!(reply.status, 403);
        let decision = with_timeout("a decision", decisions.recv()).await.expect("there is one");
        assert_eq!(decision.decision.cached, cached, "{forwarded:?}");
    }
}

#[tokio::test]
async fn operators_see_the_address_of_each_stream() {
    let gateway = Gateway::start("server.trusted-proxies = ['127.0.0.1/32']").await;
    let mut streams = Vec::new();
    for forwarded in ["203.0.113.9", "::ffff:203.0.113.9", "2001:DB8::7", "junk"] {
        let mut sse = Sse::open(gateway.data, "/api/realtime?channel=c", &[("x-forwarded-for", forwarded)]).await;
        sse.connected("c").await;
        streams.push(sse);
    }
    let list = async |query: &str| {
        let reply = send_request(gateway.control, "GET", &format!("/v1/streams{query}"), &[], "").await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.body);
        reply.json()["streams"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|info| info["address"].clone())
            .collect::<Vec<_>>()
    };
    let (v4, v6) = (json!("203.0.113.9"), json!("2001:db8::7"));
    assert_eq!(list("").await, [v4.clone(), v4.clone(), v6.clone(), json!(null)]);
    assert_eq!(list("?address=203.0.113.9").await, [v4.clone(), v4.clone()]);
    assert_eq!(list("?address=::ffff:203.0.113.9").await, [v4.clone(), v4]);
    assert_eq!(list("?address=2001:db8:0::7").await, [v6]);
    assert_eq!(list("?address=").await, [json!(null)]);
    assert_eq!(list("?address=192.0.2.1").await, [json!(null); 0]);
    let reply = send_request(gateway.control, "GET", "/v1/streams?address=junk", &[], "").await;
    assert_eq!((reply.status, &*reply.code()), (400, "invalid_parameter"));
}
