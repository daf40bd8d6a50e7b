//! Connects to allowed origins. A name is resolved once; the addresses that are checked are those that are connected to (no DNS
//! rebinding).

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
use crate::egress::address::{AddressKind, classify};
use crate::egress::origin::EgressOrigin;

/// Maximum addresses of one name that are tried.
const MAX_ADDRESSES_TRIED: usize = 4;

#[async_trait]
pub trait Resolve: Send + Sync {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system.
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Connects to the given origins only.
#[derive(Clone)]
pub struct Connector {
    pub origins: Arc<[EgressOrigin]>,
    pub resolver: Arc<dyn Resolve>,
    /// The timeout of one attempt to connect.
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
            return Err(EgressError::Resolve("the name has no addresses".into()));
        }
        let is_allowed = |address: &IpAddr| match classify(*address) {
            AddressKind::Public => true,
            AddressKind::Private => origin.allow_private,
            AddressKind::Forbidden => false,
        };
        let mut last_error = EgressError::Prohibited;
        for address in addresses.into_iter().filter(is_allowed).take(MAX_ADDRESSES_TRIED) {
            let address = SocketAddr::new(address, origin.port);
            match tokio::time::timeout(self.timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A request is one small write, which should not be delayed; without the option it only is slower.
                    let _ = stream.set_nodelay(true);
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => last_error = EgressError::Connect(error.to_string()),
                Err(_) => last_error = EgressError::Timeout,
            }
        }
        Err(last_error)
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
