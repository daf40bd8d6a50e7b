//! When an X.509 certificate is valid.

use std::time::{Duration, UNIX_EPOCH};

use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The times, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub from: u64,
    pub until: u64,
}

impl Validity {
    /// `None` if the certificate is not valid DER, or a time is before 1970.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let validity = Certificate::from_der(certificate).ok()?.tbs_certificate.validity;
        let [from, until] = [validity.not_before, validity.not_after].map(|time| time.to_unix_duration().as_secs());
        Some(Self { from, until })
    }
}

/// Formats a time for people.
pub(super) fn time(seconds: u64) -> String {
    /// The last second of the year 9999, the greatest that RFC 3339 can express.
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))).to_string()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Valid from a time before 2050 to a later one, which DER writes differently.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIHUMIGHAhQt8RdyqHEjRGzyCzQmbkyzzqCXITAFBgMrZXAwDDEKMAgGA1UEAwwB
YzAgFw0yNjExMzAwNTQzMDBaGA8yMDYwMTIzMTIzNTk1OVowDDEKMAgGA1UEAwwB
YzAqMAUGAytlcAMhAELixJCwKCeSRnP2Iv0gRQuh0yPsH2v2ZAT/X0Mon2n6MAUG
AytlcANBAO5SbkImwgsKqODL3LI/vGlIwtxSaJrPP08MHGOx/UP2mogkCwOoPMhi
iAQwWea1xpCO8QZiJbNKGxKNcj/n9gs=
-----END CERTIFICATE-----";

    #[test]
    fn times_of_a_certificate_are_read() {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("PEM");
        let Validity { from, until } = Validity::of(&certificate).expect("a certificate");
        assert_eq!((&*time(from), &*time(until)), ("2026-11-30T05:43:00Z", "2060-12-31T23:59:59Z"));
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_validity() {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("PEM");
        let cut = &certificate[..certificate.len() - 1];
        for bytes in [&b""[..], b"\x30", b"\x30\x84", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"text", cut] {
            assert_eq!(Validity::of(bytes), None, "{bytes:?}");
        }
    }
}
