//! The host that a request names, on both ports and in both versions of HTTP.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::send_request;
use crate::guests::component;
use crate::harness::{Gateway, with_timeout};

/// The answer to these bytes, and whatever follows it until the server closes.
async fn answer(to: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(to).await.expect("the port is open");
    socket.write_all(request).await.expect("it is sent");
    let mut answer = Vec::new();
    with_timeout("an answer", socket.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(line: &str, hosts: &[&[u8]]) -> Vec<u8> {
    let mut head = format!("{line}\r\n").into_bytes();
    for host in hosts {
        head.extend([b"Host: ", *host, b"\r\n"].concat());
    }
    head.extend(b"Connection: close\r\n\r\n");
    head
}

#[tokio::test]
async fn invalid_hosts_are_400_on_both_ports() {
    let gateway = Gateway::with_policy(&component("echo"), "control.token = 'token-of-this-test'").await;
    for (port, path) in [(gateway.data, "/api/realtime"), (gateway.data, "/healthz"), (gateway.control, "/healthz")] {
        for (target, hosts) in [
            (path.to_owned(), &[][..]),
            (format!("http://uri.example{path}"), &[]),
            (path.into(), &[&b"one"[..], b"two"]),
            (path.into(), &[b"one", b"one"]),
            (format!("http://one{path}"), &[b"one", b"one"]),
            (path.into(), &[b""]),
            (path.into(), &[b"h/x?y"]),
            (path.into(), &[b"user@h"]),
            (path.into(), &[b"user:password@h:80"]),
            (path.into(), &[b"a b"]),
            (path.into(), &[b"h:x"]),
            (path.into(), &[b"h:80:81"]),
            (path.into(), &[b"[::1"]),
            (path.into(), &[b"h\xe9"]),
            (path.into(), &[b"http://h"]),
            (format!("http://uri.example{path}"), &[b"h/x"]),
            (format!("http://user@uri.example{path}"), &[b"uri.example"]),
        ] {
            let head = request(&format!("GET {target} HTTP/1.1"), hosts);
            let answer = answer(port, &head).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{}: {answer}", String::from_utf8_lossy(&head));
            assert!(answer.contains(r#"{"error":{"code":"invalid_host","message":""#), "{answer}");
            assert!(answer.to_lowercase().contains("cache-control: no-store"), "{answer}");
        }
        let head = request(&format!("GET {path} HTTP/1.0"), &[b"one", b"two"]);
        assert!(answer(port, &head).await.contains("invalid_host"), "also in HTTP/1.0");
    }
    for port in [gateway.data, gateway.control] {
        assert!(answer(port, b"GET /healthz HTTP/1.0\r\n\r\n").await.contains(" 200 OK"), "HTTP/1.0 requires no host");
    }
}

#[tokio::test]
async fn policy_sees_one_host() {
    let gateway = Gateway::with_policy(&component("echo"), "").await;
    for (line, host, expect) in [
        ("GET /api/realtime HTTP/1.1", &[&b"gate.example"[..]][..], "http|gate.example|127.0.0.1|gate.example;"),
        ("GET /api/realtime HTTP/1.1", &[b"Gate:8080"], "http|Gate:8080|127.0.0.1|Gate:8080;"),
        (
            "GET http://uri.example/api/realtime HTTP/1.1",
            &[b"header.example"],
            "http|uri.example|127.0.0.1|uri.example;",
        ),
        ("GET https://[::1]:80/api/realtime HTTP/1.1", &[b"header.example"], "http|[::1]:80|127.0.0.1|[::1]:80;"),
        ("GET http://uri.example/api/realtime HTTP/1.0", &[], "http|uri.example|127.0.0.1|uri.example;"),
        ("GET /api/realtime HTTP/1.0", &[], "http||127.0.0.1|"),
    ] {
        let answer = answer(gateway.data, &request(line, host)).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{expect}")), "{line}: {answer}");
    }
}

#[tokio::test]
async fn absolute_target_decides_who_may_use_the_control_port() {
    let gateway = Gateway::start("").await;
    let own = gateway.control.to_string();
    for (target, host, status) in [
        ("/readyz".to_owned(), &*own, "200"),
        (format!("http://{own}/readyz"), "evil.example", "200"),
        ("http://evil.example/readyz".into(), &own, "403"),
    ] {
        let answer = answer(gateway.control, &request(&format!("GET {target} HTTP/1.1"), &[host.as_bytes()])).await;
        assert_eq!(&answer[9..12], status, "{target}: {answer}");
    }
    let reply = send_request(gateway.control, "GET", "/readyz", &[("origin", "http://h")], "").await;
    assert_eq!((reply.status, &*reply.code()), (403, "origin_not_allowed"));
}

/// The status and body of one request over HTTP/2, which has these headers in addition to method, scheme and path.
async fn http2(to: SocketAddr, headers: &[(&str, &str)]) -> (u16, String) {
    // Literals without indexing, whose names are literals too: no client library sends these requests.
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/api/realtime")];
    let mut block = Vec::new();
    for (name, value) in fields.iter().chain(headers) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.bytes());
        }
    }
    let length = u8::try_from(block.len()).expect("a short block");
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    wire.extend([0, 0, length, 1, 5, 0, 0, 0, 1]);
    wire.extend(block);
    let mut socket = TcpStream::connect(to).await.expect("the port is open");
    socket.write_all(&wire).await.expect("it is sent");
    let (mut status, mut body) = (0, Vec::new());
    with_timeout("an answer", async {
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.expect("a frame");
            let [high, middle, low, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            socket.read_exact(&mut payload).await.expect("its payload");
            match kind {
                0 => body.extend(payload),
                // 400 is in the static table, at index 12; 418 is a literal with the name of index 8.
                1 => status = if payload[0] == 0x8c { 400 } else { 418 },
                3 => panic!("the stream was reset: {payload:?}"),
                7 => panic!("the connection ends: {payload:?}"),
                _ => {}
            }
            if kind <= 1 && flags & 1 == 1 {
                return;
            }
        }
    })
    .await;
    (status, String::from_utf8(body).expect("text"))
}

#[tokio::test]
async fn host_and_authority_of_http2_are_one() {
    let gateway = Gateway::with_policy(&component("echo"), "").await;
    let seen = |host: &str| (418, format!("http|{host}|127.0.0.1|{host};"));
    assert_eq!(http2(gateway.data, &[(":authority", "gate.example")]).await, seen("gate.example"));
    assert_eq!(http2(gateway.data, &[(":authority", "gate:80"), ("host", "GATE:80")]).await, seen("gate:80"));
    assert_eq!(http2(gateway.data, &[("host", "gate.example")]).await, seen("gate.example"));
    for headers in [
        &[][..],
        &[(":authority", "one"), ("host", "two")],
        &[(":authority", "one"), ("host", "one"), ("host", "one")],
        &[(":authority", "one"), ("host", "one:80")],
        &[("host", "one"), ("host", "two")],
        &[("host", "h/x")],
        &[("host", "")],
        &[(":authority", "user@h")],
    ] {
        for port in [gateway.data, gateway.control] {
            let (status, body) = http2(port, headers).await;
            assert_eq!(status, 400, "{headers:?}: {body}");
            assert!(body.contains("invalid_host"), "{headers:?}: {body}");
        }
    }
}
