//! The host's networks that containers may not reach by it, such as those of other containers. `Common::refuses` asks for each packet; the
//! control side says which they are. A pure function.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// Networks that the host reaches, and that containers do not reach by it. The host's own addresses in them are not apart.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// Sorted, none in another.
    nets: Vec<IpNet>,
    own: HashSet<IpAddr>,
}

impl Apart {
    /// The networks of these addresses of the host.
    pub(super) fn new(addresses: &[IpNet]) -> Self {
        let mut nets = IpNet::aggregate(&addresses.to_vec());
        nets.sort_unstable();
        Self { nets, own: addresses.iter().map(IpNet::addr).collect() }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        let after = self.nets.partition_point(|net| net.network() <= address);
        let net = after.checked_sub(1).and_then(|index| self.nets.get(index));
        net.is_some_and(|net| net.contains(&address)) && !self.own.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_apart_and_the_host_in_it_is_not() {
        let addresses = ["172.17.0.1/16", "172.17.200.1/24", "10.5.0.1/24", "fd00:17::1/64"].map(|text| text.parse().unwrap());
        let apart = Apart::new(&addresses);
        for (address, is_apart) in [
            ("172.17.0.2", true),
            ("172.17.200.2", true),
            ("172.17.255.255", true),
            ("10.5.0.255", true),
            ("fd00:17::2", true),
            ("172.17.0.1", false),
            ("172.17.200.1", false),
            ("fd00:17::1", false),
            ("172.16.255.255", false),
            ("172.18.0.0", false),
            ("10.5.1.0", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("fd00:18::2", false),
            ("::", false),
        ] {
            assert_eq!(apart.has(address.parse().unwrap()), is_apart, "{address}");
        }
        assert!(!Apart::default().has("172.17.0.2".parse().unwrap()));
    }
}
