//! Who may use `tidegate dev`: its sessions and its token are public.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::processes::{ChildProcess, Gateway, tidegate, with_timeout};

/// What acts or reads with a known secret: method, path, headers, body, and the status for a visitor of this machine.
const REQUESTS: [(&str, &str, &str, &str, u16); 8] = [
    ("GET", "/", "", "", 200),
    ("GET", "/playground/state", "", "", 200),
    ("POST", "/playground/emit", "content-type: application/json\r\n", r#"{"channel":"c","event":"e"}"#, 200),
    ("POST", "/redis", "authorization: Bearer tidegate-dev\r\n", r#"["XRANGE","c","-","+"]"#, 200),
    ("POST", "/redis/pipeline", "authorization: Bearer tidegate-dev\r\n", "[]", 200),
    ("POST", "/redis/subscribe/c", "authorization: Bearer tidegate-dev\r\n", "", 200),
    ("GET", "/api/realtime/as/root?channel=admin-ops", "", "", 200),
    ("GET", "/api/realtime?channel=admin-ops", "cookie: session=root\r\n", "", 200),
];

async fn start(args: &[&str]) -> Gateway {
    let mut command = tidegate(&["dev", "--control", "127.0.0.1:0"]);
    command.args(args).stdin(std::process::Stdio::null());
    Gateway::wait_until_ready(ChildProcess::start(command), tempfile::tempdir().expect("a directory")).await
}

/// The status, and the answer as far as it has arrived.
async fn request(to: SocketAddr, request: (&str, &str, &str, &str, u16), headers: &str) -> (u16, String) {
    let (method, path, own, body, _) = request;
    let length = if method == "POST" { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    let head = format!("{method} {path} HTTP/1.1\r\n{headers}{own}{length}connection: close\r\n\r\n{body}");
    let mut socket = TcpStream::connect(to).await.expect("the port is open");
    socket.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    // A stream does not end.
    while !(answer.contains("\r\n\r\n") && (answer.starts_with("HTTP/1.1 200") || answer.contains("\"code\""))) {
        let mut part = [0; 4096];
        let count = with_timeout("an answer", socket.read(&mut part)).await.expect("an answer");
        assert!(count > 0, "{head}: {answer}");
        answer += &String::from_utf8_lossy(&part[..count]);
    }
    (answer[9..12].parse().expect("a status"), answer)
}

/// An address of this machine that others reach, if there is one; no packet is sent.
fn network_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.99:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[tokio::test]
async fn dev_answers_this_machine_only() {
    let gateway = start(&["--listen", "0.0.0.0:0"]).await;
    gateway.process.stdout.wait_for_text("Requests from other machines are refused").await;
    let port = gateway.data.port();
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    for case in REQUESTS {
        for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "[::1]".into()] {
            let (status, answer) = request(here, case, &format!("host: {host}\r\n")).await;
            assert_eq!(status, case.4, "{case:?} {host}: {answer}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080"] {
            let (status, answer) = request(here, case, &format!("host: {host}\r\n")).await;
            assert!(status == 403 && answer.contains("loopback_only"), "{case:?} {host}: {answer}");
            let (status, answer) = request(here, case, &format!("host: {host}\r\norigin: http://{host}\r\n")).await;
            assert!(status == 403 && answer.contains("loopback_only"), "{case:?} from {host}: {answer}");
        }
        for origin in ["https://evil.example", "null", "http://192.0.2.1", "http://localhost.evil.example:3000"] {
            let (status, answer) =
                request(here, case, &format!("host: localhost:{port}\r\norigin: {origin}\r\n")).await;
            assert!(status == 403 && answer.contains("origin_not_allowed"), "{case:?} {origin}: {answer}");
        }
        if let Some(address) = network_address() {
            let to = SocketAddr::new(address, port);
            for host in [to.to_string(), "localhost".into()] {
                let (status, answer) =
                    request(to, case, &format!("host: {host}\r\nx-forwarded-for: 127.0.0.1\r\n")).await;
                assert!(status == 403 && answer.contains("loopback_only"), "{case:?} {to}: {answer}");
            }
        }
    }
    // An app on this machine reads streams from a page of another port.
    for case in &REQUESTS[6..] {
        let headers = format!("host: localhost:{port}\r\norigin: http://localhost:3000\r\n");
        assert_eq!(request(here, *case, &headers).await.0, 200, "{case:?}");
    }
    let health = ("GET", "/healthz", "", "", 200);
    assert_eq!(request(here, health, "host: gate.example\r\n").await.0, 200, "a probe needs no address");
}

#[tokio::test]
async fn playground_unsafe_opens_dev_and_says_so() {
    let gateway = start(&["--listen", "127.0.0.1:0", "--playground-unsafe"]).await;
    gateway.process.stdout.wait_for_text("WARNING: --playground-unsafe: any client that reaches this port").await;
    for case in REQUESTS {
        let (status, answer) = request(gateway.data, case, "host: dev.example\r\n").await;
        assert_eq!(status, case.4, "{case:?}: {answer}");
    }
    let log = gateway.process.stderr.text_so_far();
    assert!(!log.contains("shorter than"), "the token of dev is short on purpose: {log}");
}
