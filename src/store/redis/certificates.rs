//! The files with root certificates, and with the certificate that the gateway shows a server.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::store::options::StoreOptions;
use crate::store::redis::validity::{Validity, time};
use crate::util::clock::now_ms;
use crate::util::files;

/// Maximum size of a PEM file of certificates; the bundle of a Linux distribution has about 250 KB.
const MAX_CERTIFICATES_BYTES: u64 = 4 << 20;
/// Maximum size of a PEM file of a private key.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// The files, whose contents change when certificates are renewed.
#[derive(Clone, Debug)]
pub(super) struct CertificateFiles {
    ca: Option<PathBuf>,
    /// Of the client certificate and its key.
    pair: Option<(PathBuf, PathBuf)>,
}

impl CertificateFiles {
    /// The files that the options name; `None` if they name none.
    pub fn of(options: &StoreOptions) -> Option<Self> {
        let StoreOptions { ca, certificate, key, .. } = options;
        let pair = certificate.clone().zip(key.clone());
        (ca.is_some() || pair.is_some()).then(|| Self { ca: ca.clone(), pair })
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        let pair = self.pair.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(pair).cloned().collect()
    }

    /// Reads and checks the files. An error names the option and the file, and has nothing of a key.
    pub fn load(&self) -> anyhow::Result<TlsCertificates> {
        let root_cert = self.ca.as_deref().map(load_roots).transpose()?;
        let client_tls = self.pair.as_ref().map(|(certificate, key)| load_pair(certificate, key)).transpose()?;
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

fn load_roots(path: &Path) -> anyhow::Result<Vec<u8>> {
    let pem = read(path, "store-ca", MAX_CERTIFICATES_BYTES)?;
    parse_certificates(&pem, path, "store-ca")?;
    Ok(pem)
}

fn load_pair(certificate: &Path, key: &Path) -> anyhow::Result<ClientTlsConfig> {
    let client_cert = read(certificate, "store-cert", MAX_CERTIFICATES_BYTES)?;
    let chain = parse_certificates(&client_cert, certificate, "store-cert")?;
    let client_key = read(key, "store-key", MAX_KEY_BYTES)?;
    let parsed = PrivateKeyDer::from_pem_slice(&client_key).map_err(|_| {
        // The error of the parser may quote the file.
        let shown = files::display(key);
        anyhow!(
            "store-key: {shown}: has no private key without a passphrase, which begins with -----BEGIN PRIVATE KEY-----"
        )
    })?;
    if let Some(first) = chain.first() {
        check_validity(first, certificate)?;
    }
    match CertifiedKey::from_der(chain, parsed, &rustls::crypto::ring::default_provider()) {
        Ok(_) => Ok(ClientTlsConfig { client_cert, client_key }),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => bail!(
            "store-key: {}: is not the key of the first certificate in {} (store-cert)",
            files::display(key),
            files::display(certificate)
        ),
        Err(error) => bail!("store-cert, store-key: cannot be used: {error}"),
    }
}

/// Time passes while a gateway runs, so the end of a certificate in use is not checked again: the server checks it.
fn check_validity(certificate: &CertificateDer<'_>, path: &Path) -> anyhow::Result<()> {
    // What cannot be read here is for the server to judge.
    let (Some(Validity { from, until }), now) = (Validity::of(certificate), now_ms() / 1_000) else { return Ok(()) };
    let shown = files::display(path);
    ensure!(now <= until, "store-cert: {shown}: expired at {}: renew the certificate", time(until));
    ensure!(
        now >= from,
        "store-cert: {shown}: is valid only from {}: correct the clock, or the certificate",
        time(from)
    );
    Ok(())
}

fn read(path: &Path, option: &str, max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    files::read(path, max_bytes).with_context(|| format!("{option}: cannot read {}", files::display(path)))
}

fn parse_certificates(pem: &[u8], path: &Path, option: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let shown = files::display(path);
    let certificates = certificates.map_err(|_| anyhow!("{option}: {shown}: is not valid PEM"))?;
    ensure!(
        !certificates.is_empty(),
        "{option}: {shown}: has no certificate, which begins with -----BEGIN CERTIFICATE-----"
    );
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::url::StoreUrl;

    fn options(ca: &Path) -> StoreOptions {
        let url: StoreUrl = "rediss://redis.example".parse().expect("a store URL");
        StoreOptions { ca: Some(ca.to_path_buf()), ..StoreOptions::new(url, Duration::from_secs(1)) }
    }

    #[test]
    fn file_without_a_certificate_as_ca_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        for text in ["", "no certificate", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            std::fs::write(&path, text).expect("written");
            let files = CertificateFiles::of(&options(&path)).expect("files");
            let error = files.load().expect_err(text).to_string();
            assert!(error.contains("store-ca: ") && error.contains("has no certificate"), "{error}");
        }
    }

    #[test]
    fn fifo_as_ca_is_refused_without_blocking() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a FIFO");
        let (sender, result) = std::sync::mpsc::channel();
        let files = CertificateFiles::of(&options(&pipe)).expect("files");
        std::thread::spawn(move || sender.send(files.load().err()));
        let result = result.recv_timeout(Duration::from_secs(10)).expect("the read does not block");
        let error = format!("{:#}", result.expect("refused"));
        assert!(error.contains("not a regular file"), "{error}");
    }
}
