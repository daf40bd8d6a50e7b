//! Who a client is, for fairness between clients.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// A client among which a scarce resource is shared: first between networks, then between the subjects of one network, or between its
/// connections where the subject is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// An IPv4 address, or the /64 network of an IPv6 address, within which a client chooses its addresses. `None` if a trusted
    /// proxy does not name the client.
    pub network: Option<IpAddr>,
    /// The subject that the policy named; `None` before the decision, and for anonymous clients.
    pub subject: Option<Arc<str>>,
    /// The peer of the connection, as long as there is no subject.
    pub connection: Option<SocketAddr>,
}

impl ClientKey {
    pub fn of_address(address: Option<IpAddr>) -> Self {
        Self { network: address.map(network_of), ..Self::default() }
    }

    #[must_use]
    pub fn with_connection(self, peer: SocketAddr) -> Self {
        Self { connection: Some(peer), ..self }
    }

    /// The same client after the decision. An anonymous client remains the one of its connection.
    #[must_use]
    pub fn with_subject(self, subject: Option<Arc<str>>) -> Self {
        let connection = self.connection.filter(|_| subject.is_none());
        Self { subject, connection, ..self }
    }
}

/// The network of which one client may use all addresses.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (!0 << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_client_are_one_key() {
        let key = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(key("2001:db8:1:2::7"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::7"), key("2001:db8:1:3::7"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
