//! Idle streams over HTTP/2, many on each connection.

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::clients::StreamRequest;

/// Open streams. They are not read: an idle stream sends little.
pub struct Http2Clients {
    _streams: Vec<Incoming>,
    _connections: JoinSet<()>,
}

impl Http2Clients {
    /// Opens this many streams.
    pub async fn open(request: &StreamRequest, streams: usize, per_connection: usize) -> Self {
        let (mut open, mut connections) = (Vec::with_capacity(streams), JoinSet::new());
        while open.len() < streams {
            let socket = TcpStream::connect(request.to).await.expect("a connection");
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.expect("HTTP/2");
            connections.spawn(async move {
                let _ = connection.await;
            });
            for _ in 0..per_connection.min(streams - open.len()) {
                let head = Request::get(format!("http://{}{}", request.to, request.target))
                    .header(header::ACCEPT, "text/event-stream")
                    .header(header::COOKIE, "session=alice")
                    .body(Empty::<Bytes>::new())
                    .expect("a request");
                sender.ready().await.expect("the connection is open");
                let response = sender.send_request(head).await.expect("a response");
                assert_eq!(response.status(), 200);
                let mut body = response.into_body();
                let mut received = Vec::new();
                while !String::from_utf8_lossy(&received).contains(request.open) {
                    let frame = body.frame().await.expect("the stream is open").expect("a frame");
                    received.extend(frame.into_data().unwrap_or_default());
                }
                open.push(body);
            }
        }
        Self { _streams: open, _connections: connections }
    }
}
