//! How to connect to a store.

use std::path::PathBuf;
use std::time::Duration;

use crate::store::url::StoreUrl;
use crate::util::hidden::Hidden;

/// The URL of a store, and what a URL cannot contain.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub url: StoreUrl,
    /// PEM file of CA certificates to trust, instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate, with its chain.
    pub certificate: Option<PathBuf>,
    /// PEM file of the private key of `certificate`.
    pub key: Option<PathBuf>,
    /// User for the sentinels; without one `sentinel_password` is that of their default user.
    pub sentinel_user: Option<String>,
    /// Password for the sentinels; without one nothing is sent to authenticate there.
    pub sentinel_password: Option<Hidden>,
    /// Limit for connecting, and for each reply.
    pub timeout: Duration,
}

/// An option that contradicts another one.
#[derive(Debug)]
pub struct OptionMistake {
    /// The name of the option in `tidegate.toml`.
    pub option: &'static str,
    /// The mistake, and the remedy.
    pub problem: &'static str,
}

impl StoreOptions {
    /// Options with only a URL.
    pub fn new(url: StoreUrl, timeout: Duration) -> Self {
        Self { url, ca: None, certificate: None, key: None, sentinel_user: None, sentinel_password: None, timeout }
    }

    /// Checks that each option has an effect.
    pub fn validate(&self) -> Result<(), OptionMistake> {
        let mistake = |option, problem| Err(OptionMistake { option, problem });
        if !self.url.has_tls() {
            let files = [("store-ca", &self.ca), ("store-cert", &self.certificate), ("store-key", &self.key)];
            if let Some((option, _)) = files.into_iter().find(|(_, file)| file.is_some()) {
                let problem = "the store is not rediss://, rediss-cluster:// or rediss-sentinel://, and only TLS has certificates: remove it, \
                               or correct `store`";
                return mistake(option, problem);
            }
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => return mistake("store-cert", "a certificate needs its private key: set store-key"),
            (None, Some(_)) => return mistake("store-key", "a private key needs its certificate: set store-cert"),
            _ => {}
        }
        let credentials = [
            ("store-sentinel-user", self.sentinel_user.is_some()),
            ("store-sentinel-password", self.sentinel_password.is_some()),
        ];
        if !self.url.has_sentinels()
            && let Some((option, _)) = credentials.into_iter().find(|(_, is_set)| *is_set)
        {
            return mistake(
                option,
                "the store is not redis-sentinel:// or rediss-sentinel://: remove it, or correct `store`",
            );
        }
        if self.sentinel_password.as_ref().is_some_and(|password| password.reveal().is_empty()) {
            return mistake("store-sentinel-password", "the password is empty: remove it, or set one");
        }
        if self.sentinel_user.is_some() && self.sentinel_password.is_none() {
            return mistake("store-sentinel-user", "a user needs a password: set store-sentinel-password");
        }
        Ok(())
    }
}
