//! Settings of a policy.

use crate::guests::component;
use crate::harness::Gateway;

#[tokio::test]
async fn settings_are_readable_through_both_interfaces() {
    let gateway =
        Gateway::with_policy(&component("settings"), "policy.settings = { word = 'v${CARGO_PKG_VERSION}$$' }").await;
    let word = concat!("v", env!("CARGO_PKG_VERSION"), "$");
    for query in ["channel=own", "channel=wasi-config"] {
        let reply = gateway.request(query).await;
        assert_eq!((reply.status, &*reply.body), (418, word), "{query}");
    }
    let gateway = Gateway::with_policy(&component("settings"), "policy.settings = { Word = 'x' }").await;
    for query in ["channel=own", "channel=wasi-config"] {
        assert_eq!(gateway.request(query).await.status, 404, "{query}");
    }
}
