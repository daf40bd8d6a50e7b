//! Keys behind a URL, with a server that is really there, on loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::egress::{Bounds, Egress, Origin};

/// What a server does with a request.
#[derive(Clone)]
enum Answer {
    /// These bytes.
    Text(Vec<u8>),
    /// Nothing, until it is told something else.
    Wait,
    /// It closes the connection.
    Close,
}

struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    answer: watch::Sender<Answer>,
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (answer, answers) = watch::channel(answer);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answers.clone(), Arc::clone(&count)));
            }
        });
        Self { address, requests, answer }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn remote(&self, timing: Timing) -> Arc<Remote> {
        self.remote_with(timing, true)
    }

    fn remote_with(&self, timing: Timing, private: bool) -> Arc<Remote> {
        let url = format!("http://{}", self.address);
        let origin = Origin::parse(&url, private).expect("an origin");
        let bounds = Bounds { timeout: Duration::from_secs(10), response: 64 << 10, concurrency: 1 };
        let uri = format!("{url}/jwks.json").parse().expect("a URI");
        Arc::new(Remote::new(uri, Arc::new(Egress::new(vec![origin], bounds)), timing))
    }
}

async fn serve(mut socket: TcpStream, mut answers: watch::Receiver<Answer>, count: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    count.fetch_add(1, Ordering::SeqCst);
    let answer = answers.wait_for(|answer| !matches!(answer, Answer::Wait)).await.map(|answer| answer.clone());
    if let Ok(Answer::Text(bytes)) = answer {
        // A client that is gone has read enough.
        let _ = socket.write_all(&bytes).await;
    }
}

fn response(status: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    Answer::Text([head.as_bytes(), body].concat())
}

fn keys(pair: &Pair, kid: &str) -> Answer {
    response("200 OK", "", &pair.jwks(kid))
}

fn behind(remote: &Arc<Remote>) -> Tokens {
    let mut profile = profile(KeySet::pem(&P256.public).expect("a PEM"));
    profile.source = Source::Remote(Arc::clone(remote));
    tokens([("app", profile)])
}

fn token(kid: &str, pair: &Pair) -> String {
    signed(json!({"alg": "ES256", "kid": kid}), &claims(), pair)
}

/// Asks until there is an answer, and says how often it had to wait.
async fn settled(tokens: &Tokens, token: &str) -> (Result<(), TokenError>, usize) {
    let mut waits = 0;
    loop {
        match tokens.verify(token, NOW_MS) {
            Verdict::Holds(_) => return (Ok(()), waits),
            Verdict::Fails(error) => return (Err(error), waits),
            Verdict::Wait(wait) => assert!(wait.until(Instant::now() + Duration::from_secs(15)).await, "it ends"),
        }
        waits += 1;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(15), all).await.is_ok(), "this did not happen: {what}");
}

fn is_unavailable(result: &Result<(), TokenError>) -> bool {
    matches!(result, Err(TokenError::Unavailable(_)))
}

#[tokio::test]
async fn one_fetch_for_all_who_wait() {
    let server = Server::start(Answer::Wait).await;
    let tokens = behind(&server.remote(Timing::default()));
    tokens.start();
    let token = token("k", &P256);
    let waits: Vec<Wait> = (0..300)
        .map(|_| match tokens.verify(&token, NOW_MS) {
            Verdict::Wait(wait) => wait,
            other => panic!("{other:?} without keys"),
        })
        .collect();
    let short = waits[0].clone().until(Instant::now() + Duration::from_millis(1)).await;
    assert!(!short, "who has no time left does not wait");
    server.answer.send_replace(keys(&P256, "k"));
    for wait in waits {
        assert!(wait.until(Instant::now() + Duration::from_secs(15)).await);
    }
    assert_eq!(settled(&tokens, &token).await, (Ok(()), 0));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once() {
    let server = Server::start(keys(&P256, "old")).await;
    let timing = Timing { cooldown: Duration::ZERO, ..Timing::default() };
    let tokens = behind(&server.remote(timing));
    assert_eq!(settled(&tokens, &token("old", &P256)).await, (Ok(()), 1));
    let new = Pair::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    server.answer.send_replace(keys(&new, "new"));
    assert_eq!(settled(&tokens, &token("new", &new)).await, (Ok(()), 1), "a key that came after the start");
    assert_eq!(settled(&tokens, &token("old", &P256)).await, (Err(TokenError::Untrusted), 1), "a key that went");
    assert_eq!(server.requests(), 3);
    for _ in 0..100 {
        assert_eq!(settled(&tokens, &token("old", &P256)).await, (Err(TokenError::Untrusted), 0));
    }
    assert_eq!(server.requests(), 3, "it is known to be unknown");
}

#[tokio::test]
async fn a_storm_of_unknown_keys_causes_no_storm_of_fetches() {
    let server = Server::start(keys(&P256, "k")).await;
    let tokens = behind(&server.remote(Timing::default()));
    assert_eq!(settled(&tokens, &token("k", &P256)).await, (Ok(()), 1));
    let forged = signed(json!({"alg": "ES256"}), &claims(), &P256);
    let rest = forged.split_once('.').expect("a token").1;
    for n in 0..5_000 {
        let header = super::keys::base64(json!({"alg": "ES256", "kid": format!("unknown {n}")}).to_string().as_bytes());
        let asked = settled(&tokens, &format!("{header}.{rest}")).await;
        assert_eq!(asked, (Err(TokenError::Untrusted), 0));
    }
    assert_eq!(settled(&tokens, &token("k", &P256)).await, (Ok(()), 0));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_url_that_is_down_and_comes_back() {
    let server = Server::start(Answer::Close).await;
    let timing = Timing { retry: Duration::from_millis(20), ..Timing::default() };
    let tokens = behind(&server.remote(timing));
    let token = token("k", &P256);
    let (first, waits) = settled(&tokens, &token).await;
    assert!(is_unavailable(&first) && waits <= 1, "{first:?} after {waits}");
    server.answer.send_replace(keys(&P256, "k"));
    until("it tries again by itself", || matches!(tokens.verify(&token, NOW_MS), Verdict::Holds(_))).await;
}

#[tokio::test]
async fn old_keys_serve_for_a_while() {
    for (stale_if_error, serves) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
        let server = Server::start(keys(&P256, "k")).await;
        let age = Duration::from_millis(100);
        let retry = Duration::from_millis(20);
        let timing =
            Timing { min_age: age, max_age: age, stale_if_error, retry, cooldown: Duration::ZERO, ..Timing::default() };
        let tokens = behind(&server.remote(timing));
        assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
        server.answer.send_replace(Answer::Close);
        let down = server.requests();
        if serves {
            // The second try comes long after they grew old at the latest.
            until("it is asked again", || server.requests() > down + 3).await;
            assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
            let other = settled(&tokens, &token("other", &P256)).await.0;
            assert!(is_unavailable(&other), "a key that may be there where nobody answers: {other:?}");
        } else {
            let token = token("k", &P256);
            until("they are too old", || {
                matches!(tokens.verify(&token, NOW_MS), Verdict::Fails(TokenError::Unavailable(_)))
            })
            .await;
        }
        server.answer.send_replace(keys(&P256, "k"));
        let token = token("k", &P256);
        until("it is there again", || matches!(tokens.verify(&token, NOW_MS), Verdict::Holds(_))).await;
    }
}

#[tokio::test]
async fn keys_are_fetched_anew_before_they_grow_old() {
    let server = Server::start(keys(&P256, "k")).await;
    let age = Duration::from_millis(200);
    let timing = Timing { min_age: age, max_age: age, stale_if_error: Duration::ZERO, ..Timing::default() };
    let tokens = behind(&server.remote(timing));
    assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
    until("it is asked again, without a decision", || server.requests() >= 3).await;
    assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
}

#[tokio::test]
async fn answers_that_are_no_keys() {
    let jwks = P256.jwks("k");
    let large = [b"{\"keys\":[],\"x\":\"".to_vec(), vec![b'x'; 70 << 10], b"\"}".to_vec()].concat();
    let elsewhere = Server::start(keys(&P256, "k")).await;
    let redirect = format!("location: http://{}/jwks.json\r\n", elsewhere.address);
    for answer in [
        response("302 Found", &redirect, &jwks),
        response("500 Internal Server Error", "", &jwks),
        response("204 No Content", "", b""),
        response("200 OK", "", b"<html>"),
        response("200 OK", "", b"{\"keys\":[]}"),
        response("200 OK", "", &large),
        Answer::Text([b"HTTP/1.1 200 OK\r\n\r\n", &large[..]].concat()),
        Answer::Text(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n{".to_vec()),
        Answer::Text(b"nonsense\r\n\r\n".to_vec()),
    ] {
        let server = Server::start(answer).await;
        let (result, _) = settled(&behind(&server.remote(Timing::default())), &token("k", &P256)).await;
        assert!(is_unavailable(&result), "{result:?}");
    }
    assert_eq!(elsewhere.requests(), 0, "redirects are not followed");
    let server = Server::start(keys(&P256, "k")).await;
    let (result, _) = settled(&behind(&server.remote_with(Timing::default(), false)), &token("k", &P256)).await;
    assert!(is_unavailable(&result), "a private address that is not allowed: {result:?}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn how_long_keys_are_good() {
    let minute = Duration::from_secs(60);
    let timing = Timing { min_age: minute, max_age: 60 * minute, ..Timing::default() };
    for (headers, expected) in [
        ("", minute),
        ("cache-control: max-age=600\r\n", 10 * minute),
        ("cache-control: public, max-age=600\r\nage: 300\r\n", 5 * minute),
        ("cache-control: max-age=999999\r\n", 60 * minute),
        ("cache-control: max-age=5\r\n", minute),
        ("cache-control: no-store\r\n", minute),
        ("cache-control: no-cache\r\n", minute),
    ] {
        let server = Server::start(response("200 OK", headers, &P256.jwks("k"))).await;
        let fresh = server.remote(timing).fresh().await;
        let near = fresh.abs_diff(expected) < Duration::from_secs(5);
        assert!(near, "{headers:?}: {fresh:?}, not {expected:?}");
    }
}
