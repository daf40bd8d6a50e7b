//! An HTTP server for outbound requests of policies and for JWKS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the server answers a request.
#[derive(Clone)]
pub enum Answer {
    /// Status line and header fields, and the body.
    Response(String, Vec<u8>),
    /// No answer until another one is set.
    Wait,
}

impl Answer {
    /// A response with a `content-length`.
    pub fn new(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        Self::Response(format!("{status}\r\n{headers}content-length: {}\r\n", body.len()), body.into())
    }
}

pub struct Origin {
    pub address: SocketAddr,
    pub answer: watch::Sender<Answer>,
    requests: Arc<AtomicUsize>,
}

impl Origin {
    pub async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port has an address");
        let (answer, answers) = watch::channel(answer);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answers.clone(), Arc::clone(&count)));
            }
        });
        Self { address, answer, requests }
    }

    /// Number of requests received so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
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
    if let Ok(Answer::Response(head, body)) = answer {
        let head = format!("HTTP/1.1 {head}connection: close\r\n\r\n");
        // A client that disconnected has read enough.
        let _ = socket.write_all(&[head.as_bytes(), &body].concat()).await;
    }
}
