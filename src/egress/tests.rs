//! Names that are pointed elsewhere, and connections to a server that is really there.

use crate::egress::body::CappedBody;
use crate::egress::connect::Resolve;
use crate::egress::origin::Origin;
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

/// A name service whose answers are written down; the last one is for all that come after.
struct Scripted {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().expect("an address")).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolve for Scripted {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().expect("no test panics under this lock");
        let last = answers.len() == 1;
        let next = if last { answers.front().cloned() } else { answers.pop_front() };
        next.ok_or_else(|| std::io::Error::other("there is no such name"))
    }
}

/// A server that says `hello` to each request, and counts connections.
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

fn bounds() -> EgressLimits {
    EgressLimits { timeout: Duration::from_secs(10), response: 1024, concurrency: 2 }
}

fn egress(url: &str, private: bool, names: &Arc<Scripted>) -> Arc<Egress> {
    let origin = Origin::parse(url, private).expect("an origin");
    Arc::new(Egress::with_resolver(vec![origin], bounds(), Arc::clone(names) as Arc<dyn Resolve>))
}

fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

async fn get(egress: &Arc<Egress>, url: &str) -> Result<Bytes, EgressError> {
    let request = Request::get(url).body(empty()).expect("a request");
    Ok(egress.send(request, RequestDeadline::default()).await?.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn a_name_that_is_pointed_inside() {
    let (address, connections) = server().await;
    let url = format!("http://auth.example:{}", address.port());
    for inside in ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fe80::1", "::1", "0.0.0.0"] {
        let names = Scripted::new(&[&[inside]]);
        assert_eq!(get(&egress(&url, false, &names), &url).await, Err(EgressError::Prohibited), "{inside}");
    }
    for never in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::ffff:169.254.169.254"] {
        let names = Scripted::new(&[&[never]]);
        assert_eq!(get(&egress(&url, true, &names), &url).await, Err(EgressError::Prohibited), "{never}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_was_checked_is_what_is_connected_to() {
    let (address, connections) = server().await;
    let url = format!("http://auth.example:{}", address.port());
    // A second question would have another answer; it is not asked.
    let names = Scripted::new(&[&["169.254.1.1", "127.0.0.1"], &["127.0.0.2"]]);
    let client = egress(&url, true, &names);
    for _ in 0..3 {
        assert_eq!(
            get(&client, &url).await.expect("hello"),
            "hello",
            "the address that may be, and the connection kept"
        );
    }
    assert_eq!((names.asked(), connections.load(Ordering::SeqCst)), (1, 1));
    // The same connection is nobody else's: this client's entry allows no private address.
    let names = Scripted::new(&[&["127.0.0.1"]]);
    assert_eq!(get(&egress(&url, false, &names), &url).await, Err(EgressError::Prohibited));
}

#[tokio::test]
async fn what_does_not_resolve_or_is_no_request() {
    let url = "http://auth.example";
    let names = Scripted::new(&[]);
    assert!(matches!(get(&egress(url, true, &names), url).await, Err(EgressError::Resolve(_))));
    let names = Scripted::new(&[&[]]);
    assert!(matches!(get(&egress(url, true, &names), url).await, Err(EgressError::Resolve(_))));
    for (method, url) in [(Method::CONNECT, "http://auth.example/"), (Method::TRACE, "http://auth.example/")] {
        let request = Request::builder().method(method).uri(url).body(empty()).expect("a request");
        let sent = egress("http://auth.example", true, &names).send(request, RequestDeadline::default()).await;
        assert_eq!(sent.map(|_| ()), Err(EgressError::Method));
    }
}

/// A server whose certificate nobody vouches for. Says whether a handshake came to its end.
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
async fn a_certificate_that_nobody_vouches_for() {
    let (address, served) = self_signed().await;
    let url = format!("https://auth.example:{}", address.port());
    let said = get(&egress(&url, true, &Scripted::new(&[&["127.0.0.1"]])), &url).await;
    assert!(matches!(said, Err(EgressError::Tls(_))), "{said:?}");
    assert!(!served.await.expect("it ends"));
}

#[tokio::test]
async fn requests_wait_for_their_turn_and_not_for_ever() {
    let (address, _) = server().await;
    let url = format!("http://{address}");
    let names = Scripted::new(&[]);
    let client = egress(&url, true, &names);
    let send = |head| {
        let request = Request::get(&url).body(empty()).expect("a request");
        client.send(request, RequestDeadline { head, silence: None })
    };
    let (first, second) = (send(None).await.expect("a response"), send(None).await.expect("a response"));
    assert_eq!(
        send(Some(Duration::from_millis(50))).await.map(|_| ()),
        Err(EgressError::Busy),
        "two are read, and there are two places"
    );
    drop((first, second));
    send(None).await.expect("a place is free again");
}

#[tokio::test]
async fn a_request_has_its_bounds_too() {
    let (address, _) = server().await;
    let url = format!("http://{address}");
    let body = Full::new(Bytes::from(vec![b'x'; 100])).map_err(|never| -> EgressError { match never {} });
    let body = CappedBody::new(body, 99, EgressError::RequestTooLarge).boxed_unsync();
    let request = Request::post(&url).body(body).expect("a request");
    let sent = egress(&url, true, &Scripted::new(&[])).send(request, RequestDeadline::default()).await;
    assert_eq!(sent.map(|_| ()), Err(EgressError::RequestTooLarge));
}
