//! Addresses for containers whose runtime leaves the choice to the switch.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// Why a container gets no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing to choose from.
    #[error("bridge \"{0}\" has no subnet to choose an address from: give it `addresses`, or the container an address")]
    NoSubnet(String),
    /// A subnet is full.
    #[error("every address of {0} is in use: remove a container, or take a larger subnet")]
    Full(IpNet),
    /// Another one has it.
    #[error("the address {0} is that of {1} already: use another")]
    Taken(IpAddr, String),
    /// Not on the network.
    #[error("the address {0} is in no subnet of the network, which has {1}: use one that is")]
    Outside(IpAddr, String),
    /// More than one of a subnet.
    #[error("the address {0} is a second one of the subnet {1}, of which a container has one: leave out one of the two")]
    Second(IpAddr, IpNet),
    /// Not an address of a host.
    #[error("the address {0} stands for all of its subnet: use one of a host in it")]
    Edge(IpAddr),
    /// A range that is elsewhere.
    #[error("the range {0} is in no subnet of the bridge, which has {1}: use a part of one")]
    RangeOutside(IpNet, String),
}

/// The subnets of a bridge, each as the gateway's address in it.
pub struct Subnets<'a> {
    /// What the bridge is called.
    pub bridge: &'a str,
    /// Its addresses.
    pub gateways: &'a [IpNet],
}

impl Subnets<'_> {
    /// Chooses an address in each subnet: a wished one, else the first of the subnet, or of the `ranges` in it, that is not `taken`.
    ///
    /// # Errors
    /// A wish or a range in no subnet, or no address left.
    pub fn choose(&self, wishes: &[IpAddr], ranges: &[IpNet], taken: &BTreeSet<IpAddr>) -> Result<Vec<IpNet>, AddressError> {
        if self.gateways.is_empty() {
            return Err(AddressError::NoSubnet(self.bridge.to_owned()));
        }
        for wish in wishes {
            let Some(net) = self.subnet(*wish) else { return Err(AddressError::Outside(*wish, self.list())) };
            if is_edge(&net, *wish) {
                return Err(AddressError::Edge(*wish));
            }
        }
        if let Some(range) = ranges.iter().find(|range| !self.gateways.iter().any(|net| net.contains(*range))) {
            return Err(AddressError::RangeOutside(*range, self.list()));
        }
        let mut chosen = Vec::new();
        for gateway in self.gateways {
            let net = gateway.trunc();
            let wish = wishes.iter().copied().find(|wish| net.contains(wish));
            let address = wish.or_else(|| first_free(&net, ranges, taken)).ok_or(AddressError::Full(net))?;
            chosen.extend(IpNet::new(address, net.prefix_len()));
        }
        let is_chosen = |wish: &IpAddr| chosen.iter().any(|net| net.addr() == *wish);
        if let Some((wish, net)) =
            wishes.iter().find(|wish| !is_chosen(wish)).and_then(|wish| Some((*wish, self.subnet(*wish)?)))
        {
            return Err(AddressError::Second(wish, net));
        }
        Ok(chosen)
    }

    /// The subnet that an address is in.
    pub fn subnet(&self, address: IpAddr) -> Option<IpNet> {
        self.gateways.iter().map(IpNet::trunc).find(|net| net.contains(&address))
    }

    fn list(&self) -> String {
        self.gateways.iter().map(|net| net.trunc().to_string()).collect::<Vec<_>>().join(", ")
    }
}

fn first_free(net: &IpNet, ranges: &[IpNet], taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let inside: Vec<&IpNet> = ranges.iter().filter(|range| net.contains(*range)).collect();
    let whole = [net];
    let parts = if inside.is_empty() { &whole[..] } else { &inside };
    // As many as are taken, and two edges, and then there is one.
    let candidates = parts.iter().flat_map(|part| all(part).take(taken.len() + 3));
    let mut free = candidates.filter(|address| !is_edge(net, *address) && !taken.contains(address));
    free.next()
}

/// The addresses of a subnet, in order.
fn all(net: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match net {
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            Box::new((first..=last).map(|number| IpAddr::V4(number.into())))
        }
        IpNet::V6(net) => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            Box::new((first..=last).map(|number| IpAddr::V6(number.into())))
        }
    }
}

/// Whether an address stands for the subnet or for all stations in it; a subnet of one or two addresses has no such (RFC 3021, RFC 6164).
fn is_edge(net: &IpNet, address: IpAddr) -> bool {
    let is_small = net.max_prefix_len() - net.prefix_len() < 2;
    let is_last = address == net.broadcast() && net.addr().is_ipv4();
    !is_small && (address == net.network() || is_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn choose(gateways: &[&str], wishes: &[&str], ranges: &[&str], taken: &[&str]) -> Result<Vec<String>, String> {
        let gateways = nets(gateways);
        let mut taken: BTreeSet<IpAddr> = taken.iter().map(|text| text.parse().unwrap()).collect();
        taken.extend(gateways.iter().map(IpNet::addr));
        let wishes: Vec<IpAddr> = wishes.iter().map(|text| text.parse().unwrap()).collect();
        let chosen = Subnets { bridge: "br0", gateways: &gateways }.choose(&wishes, &nets(ranges), &taken);
        chosen.map(|nets| nets.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_free_address_of_each_subnet_is_chosen() {
        let both = ["10.0.0.1/24", "fd00::1/64"];
        assert_eq!(choose(&both, &[], &[], &[]).unwrap(), ["10.0.0.2/24", "fd00::2/64"]);
        assert_eq!(choose(&both, &[], &[], &["10.0.0.2", "10.0.0.3"]).unwrap(), ["10.0.0.4/24", "fd00::2/64"]);
        assert_eq!(choose(&both, &["10.0.0.9"], &[], &[]).unwrap(), ["10.0.0.9/24", "fd00::2/64"]);
        assert_eq!(choose(&both, &[], &["10.0.0.128/25"], &["10.0.0.128"]).unwrap(), ["10.0.0.129/24", "fd00::2/64"]);
        assert_eq!(choose(&["10.0.0.0/31"], &[], &[], &[]).unwrap(), ["10.0.0.1/31"]);
    }

    #[test]
    fn what_cannot_be_chosen_is_said() {
        for (gateways, wishes, ranges, taken, part) in [
            (&[][..], &[][..], &[][..], &[][..], "bridge \"br0\" has no subnet"),
            (&["10.0.0.1/30"], &[], &[], &["10.0.0.2"], "every address of 10.0.0.0/30 is in use"),
            (
                &["10.0.0.1/24"],
                &["10.0.1.9"],
                &[],
                &[],
                "the address 10.0.1.9 is in no subnet of the network, which has 10.0.0.0/24",
            ),
            (&["10.0.0.1/24"], &["10.0.0.255"], &[], &[], "stands for all of its subnet"),
            (&["10.0.0.1/24"], &["10.0.0.8", "10.0.0.9"], &[], &[], "10.0.0.9 is a second one of the subnet 10.0.0.0/24"),
            (&["10.0.0.1/24"], &[], &["10.1.0.0/25"], &[], "the range 10.1.0.0/25 is in no subnet"),
        ] {
            let error = choose(gateways, wishes, ranges, taken).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
