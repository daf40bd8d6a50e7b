//! Who a client is, for fairness between clients.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A client among which a scarce resource is shared: first between networks, then between the subjects of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// An IPv4 address, or the /64 network of an IPv6 address, within which a client chooses its addresses. `None` if a trusted
    /// proxy does not name the client.
    pub network: Option<IpAddr>,
    /// The subject that the policy named; `None` before the decision, and for anonymous clients.
    pub subject: Option<Arc<str>>,
}

impl ClientKey {
    pub fn of_address(address: Option<IpAddr>) -> Self {
        Self { network: address.map(network_of), subject: None }
    }

    #[must_use]
    pub fn with_subject(self, subject: Option<Arc<str>>) -> Self {
        Self { subject, ..self }
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
