//! Warnings in the log: of the configuration, and of proxies that it does not fit.

use crate::control_port::send_request;
use crate::guests::component;
use crate::processes::{Gateway, path};

#[tokio::test]
async fn short_secrets_are_warned_of_at_the_start_and_never_shown() {
    let short = "store = 'memory:'\nallow-all = true\ncontrol.token = 'k0ntrol-15-char'\nredis-rest.tokens = ['a-long-token-of-redis-rest', 's3cret']\n\
                 policy.tokens.app = { issuer = 'a', audience = 'b', secret = 'shared-s3cret' }\n";
    let gateway = Gateway::start(short).await;
    let log = &gateway.process.stderr;
    for key in ["control.token", "redis-rest.tokens", "policy.tokens.app.secret"] {
        log.wait_for_text(&format!("{key}: a ")).await;
    }
    log.wait_for_text("shorter than 16 characters").await;
    log.wait_for_text("shorter than 32 bytes").await;
    let text = log.text_so_far();
    assert!(!text.contains("s3cret") && !text.contains("k0ntrol"), "{text}");

    let gateway = Gateway::start(
        "store = 'memory:'\nallow-all = true\ncontrol.token = 'a-token-of-16-ch'\nredis-rest.tokens = ['another-of-16-ch']",
    )
    .await;
    gateway.process.signal("TERM").await;
    let log = gateway.process.end().await.stderr;
    assert!(!log.contains("shorter than"), "{log}");
}

#[tokio::test]
async fn forwarding_headers_that_do_not_fit_the_configuration_are_warned_of_once() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("deny.wasm"), component("deny")).expect("it is written");
    for (toml, header, warning) in [
        ("", "x-forwarded-for: 203.0.113.9\r\n", "ignored X-Forwarded-For: the peer is not in server.trusted-proxies"),
        ("server.trusted-proxies = ['127.0.0.1/32']", "", "a trusted proxy names no client that can be read"),
        (
            "server.trusted-proxies = ['127.0.0.1/32']",
            "x-forwarded-for: junk-203.0.113.9\r\n",
            "a trusted proxy names no client that can be read",
        ),
    ] {
        let policy = format!("store = 'memory:'\npolicy.file = '{}'", path(dir.path(), "deny.wasm"));
        let gateway = Gateway::start(&format!("{policy}\n{toml}")).await;
        for _ in 0..5 {
            assert_eq!(send_request(gateway.data, "GET", "/api/realtime", header, b"").await.0, 418);
        }
        gateway.process.stderr.wait_for_text(warning).await;
        gateway.process.signal("TERM").await;
        let log = gateway.process.end().await.stderr;
        assert_eq!(log.matches("X-Forwarded-For").count(), 1, "{log}");
        assert!(log.contains("127.0.0.1") && !log.contains("203.0.113.9"), "{log}");
    }
}
