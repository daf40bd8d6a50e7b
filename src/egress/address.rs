//! The addresses that outbound requests may connect to, whatever a name resolves to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    Public,
    /// Of this machine or its network: only for origins with `allow-private`.
    Private,
    /// Link-local, where clouds serve credentials, multicast and reserved: never allowed.
    Forbidden,
}

pub fn classify(address: IpAddr) -> AddressKind {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

fn classify_v4(address: Ipv4Addr) -> AddressKind {
    match address.octets() {
        // The metadata services of two clouds, which serve credentials.
        [100, 100, 100, 200] | [168, 63, 129, 16] => AddressKind::Forbidden,
        // Loopback; private; carrier-grade NAT.
        [127 | 10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => AddressKind::Private,
        // This network; link-local; protocol assignments; documentation; the 6to4 relay; benchmarks; multicast and reserved.
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [224..=255, ..] => AddressKind::Forbidden,
        _ => AddressKind::Public,
    }
}

/// Metadata services of clouds in the unique-local range, which serve credentials.
const METADATA_SERVICES: [[u16; 8]; 2] = [[0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]];

fn classify_v6(address: Ipv6Addr) -> AddressKind {
    let segments = address.segments();
    if METADATA_SERVICES.contains(&segments) {
        return AddressKind::Forbidden;
    }
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressKind::Private,
        // Unique-local.
        [0xfc00..=0xfdff, ..] => AddressKind::Private,
        // An embedded IPv4 address, which decides: mapped, translated, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => classify_v4(embedded(high, low)),
        // Within the global range, but not global: Teredo and other protocol assignments, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => AddressKind::Forbidden,
        [0x2000..=0x3fff, ..] => AddressKind::Public,
        // Unspecified, IPv4-compatible, local NAT64, link-local, site-local, multicast and unassigned.
        _ => AddressKind::Forbidden,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_range_are_classified() {
        let all = |expected, addresses: &[&str]| {
            for text in addresses {
                assert_eq!(classify(text.parse().expect(text)), expected, "{text}");
            }
        };
        all(AddressKind::Public, &["1.1.1.1", "9.255.255.255", "11.0.0.1", "172.15.0.1", "172.32.0.1", "192.167.0.1"]);
        all(
            AddressKind::Public,
            &["100.63.0.1", "100.128.0.1", "169.253.0.1", "198.20.0.1", "223.255.255.255", "192.0.1.1"],
        );
        all(
            AddressKind::Public,
            &["2606:4700::1111", "2a00::1", "2001:4860:4860::8888", "::ffff:1.1.1.1", "64:ff9b::101:101"],
        );
        all(AddressKind::Public, &["2002:101:101::1"]);
        all(AddressKind::Private, &["127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255"]);
        all(AddressKind::Private, &["192.168.1.1", "100.64.0.1", "100.127.255.255", "::1", "fc00::1", "fdff::1"]);
        all(
            AddressKind::Private,
            &["::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:c0a8:101::5"],
        );
        all(AddressKind::Private, &["::ffff:0:127.0.0.1"]);
        all(
            AddressKind::Forbidden,
            &["0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "192.0.0.8", "192.0.2.1"],
        );
        all(AddressKind::Forbidden, &["198.51.100.7", "203.0.113.9", "198.18.0.1", "198.19.255.255", "192.88.99.1"]);
        all(AddressKind::Forbidden, &["224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"]);
        all(
            AddressKind::Forbidden,
            &["::", "::2", "::127.0.0.1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "100::1", "64:ff9b:1::1"],
        );
        all(AddressKind::Forbidden, &["100.100.100.200", "168.63.129.16"]);
        all(
            AddressKind::Forbidden,
            &["fd00:ec2::254", "fd20:ce::254", "2001:db8::1", "2001::1", "2001:10::1", "3fff::1", "4000::1"],
        );
        all(
            AddressKind::Forbidden,
            &["::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::", "::ffff:0.0.0.0"],
        );
    }
}
