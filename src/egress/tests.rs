//! Resolution of hostile names, and requests to real servers on loopback.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http_body_util::{BodyExt, Empty, Full};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::egress::body::limit_request_body;

/// A resolver with scripted answers; the last one repeats.
struct ScriptedResolver {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    queries: AtomicUsize,
}

impl ScriptedResolver {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().expect("an address")).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), queries: AtomicUsize::new(0) })
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolve for ScriptedResolver {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().expect("no test panics under this lock");
        let last = answers.len() == 1;
        let next = if last { answers.front().cloned() } else { answers.pop_front() };
        next.ok_or_else(|| std::io::Error::other("no such name"))
    }
}

/// A server that responds `hello` to each request and counts connections.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while socket.read_buf(&mut request).await.unwrap_or(0) > 0 {
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
                    }
                }
            });
        }
    });
    (address, connections)
}

fn limits() -> EgressLimits {
    EgressLimits { timeout: Duration::from_secs(10), max_response_size: 1024, concurrency: 2 }
}

fn egress(url: &str, private: bool, names: &Arc<ScriptedResolver>) -> Arc<Egress> {
    let origin = EgressOrigin::parse(url, private).expect("an origin");
    Arc::new(Egress::with_resolver(vec![origin], limits(), Arc::clone(names) as Arc<dyn Resolve>))
}

fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

async fn get(egress: &Arc<Egress>, url: &str) -> Result<Bytes, EgressError> {
    let request = Request::get(url).body(empty()).expect("a request");
    Ok(egress.send(request, RequestTimeouts::default()).await?.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn names_that_resolve_to_forbidden_addresses_are_refused() {
    let (address, connections) = server().await;
    let url = format!("http://auth.example:{}", address.port());
    for inside in ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fe80::1", "::1", "0.0.0.0"] {
        let names = ScriptedResolver::new(&[&[inside]]);
        assert_eq!(get(&egress(&url, false, &names), &url).await, Err(EgressError::Prohibited), "{inside}");
    }
    for never in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::ffff:169.254.169.254"] {
        let names = ScriptedResolver::new(&[&[never]]);
        assert_eq!(get(&egress(&url, true, &names), &url).await, Err(EgressError::Prohibited), "{never}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn checked_address_is_the_one_connected_to() {
    let (address, connections) = server().await;
    let url = format!("http://auth.example:{}", address.port());
    // A second query would get another answer; there must be none.
    let names = ScriptedResolver::new(&[&["169.254.1.1", "127.0.0.1"], &["127.0.0.2"]]);
    let client = egress(&url, true, &names);
    for _ in 0..3 {
        assert_eq!(
            get(&client, &url).await.expect("hello"),
            "hello",
            "the allowed address, and the connection is reused"
        );
    }
    assert_eq!((names.queries(), connections.load(Ordering::SeqCst)), (1, 1));
    // Another client does not share the connection: its origin allows no private address.
    let names = ScriptedResolver::new(&[&["127.0.0.1"]]);
    assert_eq!(get(&egress(&url, false, &names), &url).await, Err(EgressError::Prohibited));
}

#[tokio::test]
async fn unresolvable_names_and_forbidden_methods_fail() {
    let url = "http://auth.example";
    let names = ScriptedResolver::new(&[]);
    assert!(matches!(get(&egress(url, true, &names), url).await, Err(EgressError::Resolve(_))));
    let names = ScriptedResolver::new(&[&[]]);
    assert!(matches!(get(&egress(url, true, &names), url).await, Err(EgressError::Resolve(_))));
    for (method, url) in [(Method::CONNECT, "http://auth.example/"), (Method::TRACE, "http://auth.example/")] {
        let request = Request::builder().method(method).uri(url).body(empty()).expect("a request");
        let sent = egress("http://auth.example", true, &names).send(request, RequestTimeouts::default()).await;
        assert_eq!(sent.map(|_| ()), Err(EgressError::Method));
    }
}

/// A server with a self-signed certificate. The task returns whether a handshake completed.
async fn self_signed() -> (SocketAddr, tokio::task::JoinHandle<bool>) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=auth.example \
        -addext subjectAltName=DNS:auth.example -keyout key.pem -out cert.pem";
    let made = std::process::Command::new("sh").args(["-ec", script]).current_dir(&folder).output().expect("a shell");
    assert!(made.status.success(), "{made:?}");
    let cert = CertificateDer::from_pem_file(folder.path().join("cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("they belong together");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let served = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        acceptor.accept(socket).await.is_ok()
    });
    (address, served)
}

#[tokio::test]
async fn self_signed_certificate_is_refused() {
    let (address, served) = self_signed().await;
    let url = format!("https://auth.example:{}", address.port());
    let result = get(&egress(&url, true, &ScriptedResolver::new(&[&["127.0.0.1"]])), &url).await;
    assert!(matches!(result, Err(EgressError::Tls(_))), "{result:?}");
    assert!(!served.await.expect("it ends"));
}

#[tokio::test]
async fn requests_wait_for_a_permit_until_their_timeout() {
    let (address, _) = server().await;
    let url = format!("http://{address}");
    let names = ScriptedResolver::new(&[]);
    let client = egress(&url, true, &names);
    let send = |head| {
        let request = Request::get(&url).body(empty()).expect("a request");
        client.send(request, RequestTimeouts { head, between_frames: None })
    };
    let (first, second) = (send(None).await.expect("a response"), send(None).await.expect("a response"));
    assert_eq!(
        send(Some(Duration::from_millis(50))).await.map(|_| ()),
        Err(EgressError::Busy),
        "both permits are held by responses"
    );
    drop((first, second));
    send(None).await.expect("a permit is available again");
}

#[tokio::test]
async fn request_body_is_limited() {
    let (address, _) = server().await;
    let url = format!("http://{address}");
    let body = Full::new(Bytes::from(vec![b'x'; 100])).map_err(|never| -> EgressError { match never {} });
    let body = limit_request_body(body, 99).boxed_unsync();
    let request = Request::post(&url).body(body).expect("a request");
    let sent = egress(&url, true, &ScriptedResolver::new(&[])).send(request, RequestTimeouts::default()).await;
    assert_eq!(sent.map(|_| ()), Err(EgressError::RequestTooLarge));
}
