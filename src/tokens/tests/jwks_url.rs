//! JWKS URLs, with a real server on loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::egress::origin::EgressOrigin;
use crate::egress::{Egress, EgressLimits};
use crate::tokens::jwks::{JwksSource, JwksTiming, KeyFetch};
use crate::tokens::key::KeySet;

/// What the server does with a request.
#[derive(Clone)]
enum Answer {
    /// Sends these bytes.
    Text(Vec<u8>),
    /// Waits until the answer changes.
    Wait,
    /// Closes the connection.
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

    fn source(&self, timing: JwksTiming) -> Arc<JwksSource> {
        self.source_with(timing, true)
    }

    fn source_with(&self, timing: JwksTiming, private: bool) -> Arc<JwksSource> {
        let url = format!("http://{}", self.address);
        let origin = EgressOrigin::parse(&url, private).expect("an origin");
        let bounds = EgressLimits { timeout: Duration::from_secs(10), max_response_size: 64 << 10, concurrency: 1 };
        let uri = format!("{url}/jwks.json").parse().expect("a URI");
        Arc::new(JwksSource::new(uri, Arc::new(Egress::new(vec![origin], bounds)), timing))
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
        // The client may have disconnected.
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

fn tokens_from(source: &Arc<JwksSource>) -> Tokens {
    let mut profile = profile(KeySet::from_pem(&P256.public).expect("a PEM"));
    profile.keys = KeySource::Jwks(Arc::clone(source));
    tokens([("app", profile)])
}

fn token(kid: &str, pair: &Pair) -> String {
    signed(json!({"alg": "ES256", "kid": kid}), &claims(), pair)
}

/// Verifies until there is a result; returns it and the number of waits.
async fn settled(tokens: &Tokens, token: &str) -> (Result<(), TokenError>, usize) {
    let mut waits = 0;
    loop {
        match tokens.verify(token, NOW_MS) {
            Verdict::Valid(_) => return (Ok(()), waits),
            Verdict::Invalid(error) => return (Err(error), waits),
            Verdict::Pending(wait) => {
                assert!(wait.until(Instant::now() + Duration::from_secs(15)).await, "the fetch ends")
            }
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
    assert!(tokio::time::timeout(Duration::from_secs(15), all).await.is_ok(), "timed out waiting: {what}");
}

fn is_unavailable(result: &Result<(), TokenError>) -> bool {
    matches!(result, Err(TokenError::Unavailable(_)))
}

#[tokio::test]
async fn concurrent_decisions_share_one_fetch() {
    let server = Server::start(Answer::Wait).await;
    let tokens = tokens_from(&server.source(JwksTiming::default()));
    tokens.start();
    let token = token("k", &P256);
    let waits: Vec<KeyFetch> = (0..300)
        .map(|_| match tokens.verify(&token, NOW_MS) {
            Verdict::Pending(wait) => wait,
            other => panic!("unexpected {other:?} without keys"),
        })
        .collect();
    let short = waits[0].clone().until(Instant::now() + Duration::from_millis(1)).await;
    assert!(!short, "the deadline ends the wait");
    server.answer.send_replace(keys(&P256, "k"));
    for wait in waits {
        assert!(wait.until(Instant::now() + Duration::from_secs(15)).await);
    }
    assert_eq!(settled(&tokens, &token).await, (Ok(()), 0));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn unknown_key_id_causes_one_fetch() {
    let server = Server::start(keys(&P256, "old")).await;
    let source = server.source(JwksTiming::default());
    let tokens = tokens_from(&source);
    assert_eq!(settled(&tokens, &token("old", &P256)).await, (Ok(()), 1));
    let new = Pair::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    server.answer.send_replace(keys(&new, "new"));
    source.shared.end_cooldown();
    assert_eq!(settled(&tokens, &token("new", &new)).await, (Ok(()), 1), "a key added after the first fetch");
    source.shared.end_cooldown();
    assert_eq!(settled(&tokens, &token("old", &P256)).await, (Err(TokenError::Untrusted), 1), "a removed key");
    assert_eq!(server.requests(), 3);
    for _ in 0..100 {
        assert_eq!(settled(&tokens, &token("old", &P256)).await, (Err(TokenError::Untrusted), 0));
    }
    assert_eq!(server.requests(), 3, "the cooldown has begun");
}

#[tokio::test]
async fn guessed_key_id_does_not_delay_the_key_that_is_published_later() {
    let server = Server::start(keys(&P256, "old")).await;
    let source = server.source(JwksTiming::default());
    let tokens = tokens_from(&source);
    assert_eq!(settled(&tokens, &token("old", &P256)).await, (Ok(()), 1));
    source.shared.end_cooldown();
    let next = Pair::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    assert_eq!(settled(&tokens, &token("next", &next)).await, (Err(TokenError::Untrusted), 1), "it is not published");
    server.answer.send_replace(keys(&next, "next"));
    assert_eq!(settled(&tokens, &token("next", &next)).await, (Err(TokenError::Untrusted), 0), "within the cooldown");
    source.shared.end_cooldown();
    assert_eq!(settled(&tokens, &token("next", &next)).await, (Ok(()), 1));
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn unknown_key_ids_cause_no_fetch_within_the_cooldown() {
    let server = Server::start(keys(&P256, "k")).await;
    let tokens = tokens_from(&server.source(JwksTiming::default()));
    assert_eq!(settled(&tokens, &token("k", &P256)).await, (Ok(()), 1));
    let forged = signed(json!({"alg": "ES256"}), &claims(), &P256);
    let rest = forged.split_once('.').expect("a token").1;
    for n in 0..5_000 {
        let header = crate::tokens::tests::keys::base64(
            json!({"alg": "ES256", "kid": format!("unknown {n}")}).to_string().as_bytes(),
        );
        let asked = settled(&tokens, &format!("{header}.{rest}")).await;
        assert_eq!(asked, (Err(TokenError::Untrusted), 0));
    }
    assert_eq!(settled(&tokens, &token("k", &P256)).await, (Ok(()), 0));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn fetching_is_retried_after_a_failure() {
    let server = Server::start(Answer::Close).await;
    let timing = JwksTiming { retry_delay: Duration::from_millis(20), ..JwksTiming::default() };
    let tokens = tokens_from(&server.source(timing));
    let token = token("k", &P256);
    let (first, waits) = settled(&tokens, &token).await;
    assert!(is_unavailable(&first) && waits <= 1, "{first:?} after {waits}");
    server.answer.send_replace(keys(&P256, "k"));
    until("the fetch is retried", || matches!(tokens.verify(&token, NOW_MS), Verdict::Valid(_))).await;
}

#[tokio::test]
async fn stale_keys_are_used_while_fetching_fails() {
    for (stale_if_error, serves) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
        let server = Server::start(keys(&P256, "k")).await;
        let age = Duration::from_millis(100);
        let retry_delay = Duration::from_millis(20);
        let timing = JwksTiming { min_age: age, max_age: age, stale_if_error, retry_delay, cooldown: Duration::ZERO };
        let tokens = tokens_from(&server.source(timing));
        assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
        server.answer.send_replace(Answer::Close);
        let down = server.requests();
        if serves {
            // After the second failed fetch the keys are stale for certain.
            until("further fetches", || server.requests() > down + 3).await;
            assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
            let other = settled(&tokens, &token("other", &P256)).await.0;
            assert!(is_unavailable(&other), "the server may have the key, but cannot be reached: {other:?}");
        } else {
            let token = token("k", &P256);
            until("the stale period ends", || {
                matches!(tokens.verify(&token, NOW_MS), Verdict::Invalid(TokenError::Unavailable(_)))
            })
            .await;
        }
        server.answer.send_replace(keys(&P256, "k"));
        let token = token("k", &P256);
        until("the server is back", || matches!(tokens.verify(&token, NOW_MS), Verdict::Valid(_))).await;
    }
}

#[tokio::test]
async fn keys_are_refreshed_before_they_become_stale() {
    let server = Server::start(keys(&P256, "k")).await;
    let age = Duration::from_millis(200);
    let timing = JwksTiming { min_age: age, max_age: age, stale_if_error: Duration::ZERO, ..JwksTiming::default() };
    let tokens = tokens_from(&server.source(timing));
    assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
    until("the keys are fetched again without a decision", || server.requests() >= 3).await;
    assert_eq!(settled(&tokens, &token("k", &P256)).await.0, Ok(()));
}

#[tokio::test]
async fn invalid_responses_yield_no_keys() {
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
        let (result, _) = settled(&tokens_from(&server.source(JwksTiming::default())), &token("k", &P256)).await;
        assert!(is_unavailable(&result), "{result:?}");
    }
    assert_eq!(elsewhere.requests(), 0, "redirects are not followed");
    let server = Server::start(keys(&P256, "k")).await;
    let (result, _) =
        settled(&tokens_from(&server.source_with(JwksTiming::default(), false)), &token("k", &P256)).await;
    assert!(is_unavailable(&result), "a private address that is not allowed: {result:?}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn freshness_follows_cache_headers_within_the_bounds() {
    let minute = Duration::from_secs(60);
    let timing = JwksTiming { min_age: minute, max_age: 60 * minute, ..JwksTiming::default() };
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
        let (_, fresh) = server.source(timing).shared.fetch().await.expect("keys");
        let is_near = fresh.abs_diff(expected) < Duration::from_secs(5);
        assert!(is_near, "{headers:?}: {fresh:?}, not {expected:?}");
    }
}
