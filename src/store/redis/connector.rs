//! Clients of the nodes and sentinels of a store, with the certificates that are current when a connection is opened.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
};

use tokio::sync::watch;

use crate::store::options::StoreOptions;
use crate::store::redis::certificates::CertificateFiles;
use crate::store::redis::node_link::Changes;
use crate::store::url::{Address, RedisUrl};
use crate::telemetry::metrics::Metrics;
use crate::util::fingerprint::FileSnapshot;

/// The files of certificates are compared at this interval.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How to connect to the servers of a store.
pub(crate) struct Connector {
    /// User, password and database for the nodes.
    settings: RedisConnectionInfo,
    /// The same for sentinels.
    sentinel_settings: RedisConnectionInfo,
    /// An address with the current certificates; its host and port are replaced.
    template: RwLock<ConnectionAddr>,
    /// Counts changes of the certificates.
    renewals: watch::Sender<u64>,
}

impl Connector {
    /// Reads the files of certificates, and follows them. An error is a mistake in the configuration. Needs a runtime.
    pub fn open(url: &RedisUrl, options: &StoreOptions, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<Self>> {
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
        let files = CertificateFiles::of(options);
        // Before the files are read, so that no change after that is missed.
        let snapshot = files.as_ref().map(|files| FileSnapshot::take(files.paths()));
        let template =
            files.as_ref().map_or_else(|| Ok(plain.clone()), |files| with_certificates(plain.clone(), files))?;
        let connector = Arc::new(Self {
            settings: url.settings.clone(),
            sentinel_settings,
            template: RwLock::new(template),
            renewals: watch::Sender::new(0),
        });
        if let (Some(files), Some(snapshot)) = (files, snapshot) {
            tokio::spawn(follow(Arc::downgrade(&connector), files, snapshot, Arc::clone(metrics)));
        }
        Ok(connector)
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

    /// Changes of the certificates: the next client has others.
    pub fn renewals(&self) -> Changes {
        Some(self.renewals.subscribe())
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

/// Follows the files until the connector is dropped.
async fn follow(
    connector: Weak<Connector>,
    files: CertificateFiles,
    mut snapshot: FileSnapshot,
    metrics: Arc<Metrics>,
) {
    let mut is_retry = false;
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let Some(connector) = connector.upgrade() else { return };
        if !is_retry && !snapshot.has_changed() {
            continue;
        }
        snapshot = FileSnapshot::take(files.paths());
        let (present, new_files) = (connector.template.read().clone(), files.clone());
        let loaded = tokio::task::spawn_blocking(move || with_certificates(present, &new_files)).await;
        match loaded.map_err(anyhow::Error::from).flatten() {
            Ok(template) => {
                *connector.template.write() = template;
                connector.renewals.send_modify(|renewals| *renewals += 1);
                tracing::info!("the certificates for the store were renewed");
                is_retry = false;
            }
            // A certificate and its key are two files: perhaps only one of them has been written yet.
            Err(_) if !is_retry => is_retry = true,
            Err(error) => {
                metrics.certificate_errors.inc();
                tracing::error!(error = format!("{error:#}"), "the new certificates for the store are not used");
                is_retry = false;
            }
        }
    }
}

/// The address with the certificates of these files.
fn with_certificates(address: ConnectionAddr, files: &CertificateFiles) -> anyhow::Result<ConnectionAddr> {
    let info: ConnectionInfo = address.into_connection_info()?;
    Ok(Client::build_with_tls(info, files.load()?)?.get_connection_info().addr().clone())
}
