//! What an operator can do when a TLS handshake fails.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use redis::RedisError;
use rustls::{AlertDescription, CertificateError, Error};

/// The cause of a failed handshake, with the remedy; `None` for another error, and for one that may pass.
pub(super) fn describe(error: &RedisError) -> Option<String> {
    let text = match tls_error(error.source()?)? {
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server requires a client certificate: set store-cert and store-key"
        }
        Error::AlertReceived(alert) => {
            return Some(format!(
                "the server ended the TLS handshake ({alert:?}): check that it accepts the client certificate (store-cert)"
            ));
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate of the server is not of a CA that is trusted: set store-ca"
        }
        Error::InvalidCertificate(cause) => {
            return Some(format!("the certificate of the server is not valid: {cause}"));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The error of the TLS library within one of the Redis library.
fn tls_error<'a>(source: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let source = match source.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        Some(shared) => &**shared as &(dyn StdError + 'static),
        None => source,
    };
    source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}
