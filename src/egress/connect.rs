//! Connections: a name is resolved once, and what it resolved to is checked and connected to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::egress::EgressError;
use crate::egress::address::{AddressKind, reach};
use crate::egress::origin::Origin;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// How names become addresses.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses of a name or of an address that is written as one.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// As the system does it.
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Connects to the origins of a client, and to nothing else.
#[derive(Clone)]
pub struct Connector {
    pub origins: Arc<[Origin]>,
    pub resolver: Arc<dyn Resolve>,
    /// For one address.
    pub timeout: Duration,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, EgressError> {
        let origin = self.origins.iter().find(|origin| origin.matches(&uri)).ok_or(EgressError::Denied)?;
        let host = origin.host();
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(host).await.map_err(|error| EgressError::Resolve(error.to_string()))?,
        };
        if addresses.is_empty() {
            return Err(EgressError::Resolve("the name has no address".into()));
        }
        let may = |address: &IpAddr| match reach(*address) {
            AddressKind::Public => true,
            AddressKind::Private => origin.private,
            AddressKind::Never => false,
        };
        let mut last = EgressError::Prohibited;
        for address in addresses.into_iter().filter(may).take(ADDRESSES) {
            let address = SocketAddr::new(address, origin.port());
            match tokio::time::timeout(self.timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A request is one small write; a failure here costs latency only.
                    let _ = stream.set_nodelay(true);
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => last = EgressError::Connect(error.to_string()),
                Err(_) => last = EgressError::Timeout,
            }
        }
        Err(last)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, EgressError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EgressError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
