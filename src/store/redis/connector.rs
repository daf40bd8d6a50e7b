//! Clients of the nodes and sentinels of a store, with the certificates that are current when a connection is opened.

use std::sync::Arc;

use parking_lot::RwLock;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
};

use crate::store::options::StoreOptions;
use crate::store::redis::certificates::CertificateFiles;
use crate::store::url::{Address, RedisUrl};

/// How to connect to the servers of a store.
pub(crate) struct Connector {
    /// User, password and database for the nodes.
    settings: RedisConnectionInfo,
    /// The same for sentinels.
    sentinel_settings: RedisConnectionInfo,
    /// An address with the current certificates; its host and port are replaced.
    template: RwLock<ConnectionAddr>,
}

impl Connector {
    /// Reads the files of certificates. An error is a mistake in the configuration.
    pub fn new(url: &RedisUrl, options: &StoreOptions) -> anyhow::Result<Arc<Self>> {
        let mut sentinel_settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &options.sentinel_user {
            sentinel_settings = sentinel_settings.set_username(user);
        }
        if let Some(password) = &options.sentinel_password {
            sentinel_settings = sentinel_settings.set_password(password.reveal());
        }
        let plain = if url.has_tls {
            ConnectionAddr::TcpTls { host: String::new(), port: 0, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(String::new(), 0)
        };
        let template = match CertificateFiles::of(options) {
            Some(files) => with_certificates(plain, &files)?,
            None => plain,
        };
        Ok(Arc::new(Self { settings: url.settings.clone(), sentinel_settings, template: RwLock::new(template) }))
    }

    /// A client of a node.
    pub fn client(&self, address: &Address) -> Result<Client, RedisError> {
        self.client_with(self.address(address), &self.settings)
    }

    /// A client of a single server, which may be at a Unix socket.
    pub fn client_at(&self, address: &ConnectionAddr) -> Result<Client, RedisError> {
        let address = match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                self.address(&Address { host: host.clone(), port: *port })
            }
            other => other.clone(),
        };
        self.client_with(address, &self.settings)
    }

    /// A client of a sentinel.
    pub fn sentinel_client(&self, address: &Address) -> Result<Client, RedisError> {
        self.client_with(self.address(address), &self.sentinel_settings)
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.settings.db()
    }

    fn client_with(&self, address: ConnectionAddr, settings: &RedisConnectionInfo) -> Result<Client, RedisError> {
        Client::open(address.into_connection_info()?.set_redis_settings(settings.clone()))
    }

    fn address(&self, Address { host, port }: &Address) -> ConnectionAddr {
        let (host, port) = (host.clone(), *port);
        match &*self.template.read() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        }
    }
}

/// The address with the certificates of these files.
fn with_certificates(address: ConnectionAddr, files: &CertificateFiles) -> anyhow::Result<ConnectionAddr> {
    let info: ConnectionInfo = address.into_connection_info()?;
    Ok(Client::build_with_tls(info, files.load()?)?.get_connection_info().addr().clone())
}
