//! The remote IPAM driver: subnets and addresses, where `--ipam-driver vswitch` asks for them.
//!
//! Docker's own address management does for networks of one host, and is the default. This one is answered from the first version on, because
//! Docker remembers what a plugin implements until it is restarted. It refuses subnets that overlap those that it gave before; the identifier of
//! a subnet follows from the subnet alone, so that Docker may ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DockerError;
use super::message::{ADDRESS_TYPE, GATEWAY, ReleaseAddress, RequestAddress, RequestPool};
use super::overlay::Part;
use api::OverlayName;

/// Most subnets.
const MOST_POOLS: usize = 1024;
/// Most addresses of one subnet.
const MOST_ADDRESSES: usize = 65_536;

/// The subnets that were given, by their identifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pools(BTreeMap<String, Pool>);

/// A subnet that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Pool {
    net: IpNet,
    /// The part of it that addresses are chosen from.
    range: IpNet,
    /// The overlay network that it is a subnet of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    overlay: Option<OverlayName>,
    given: BTreeSet<IpAddr>,
}

impl Pools {
    /// Gives a subnet; `is_used` says which are others' already, for those that the driver chooses itself.
    ///
    /// # Errors
    /// Not a subnet, or one that overlaps another.
    pub fn request_pool(&mut self, request: &RequestPool, is_used: impl Fn(&IpNet) -> bool) -> Result<Value, DockerError> {
        let asked = asked_subnet(request)?;
        let net = match asked {
            None if !request.range.is_empty() => return Err(refuse("an `--ip-range` needs a `--subnet` that it is in")),
            None => self.choose(request.v6, is_used)?,
            Some(net) => net,
        };
        let range = if request.range.is_empty() { net } else { subnet(&request.range)? };
        if !net.contains(&range) {
            return Err(refuse(format!("the range {range} is not in the subnet {net}: use a part of it")));
        }
        let id = if range == net { net.to_string() } else { format!("{net},{range}") };
        self.add(id, Pool { net, range, overlay: None, given: BTreeSet::new() })
    }

    /// Gives a subnet of an overlay network.
    ///
    /// # Errors
    /// It overlaps another.
    pub fn join(&mut self, overlay: OverlayName, net: IpNet) -> Result<Value, DockerError> {
        self.add(format!("{overlay}/{net}"), Pool { net, range: net, overlay: Some(overlay), given: BTreeSet::new() })
    }

    fn add(&mut self, id: String, new: Pool) -> Result<Value, DockerError> {
        let net = new.net;
        if self.0.get(&id).is_none_or(|pool| !pool.given.is_empty()) {
            if let Some(other) = self.0.values().find(|pool| overlap(&pool.net, &net)) {
                return Err(refuse(match &other.overlay {
                    Some(name) if new.overlay == other.overlay => {
                        format!("this host has a network of Docker's in overlay network \"{name}\" already: use that one")
                    }
                    _ => format!("subnet {net} overlaps {} of another network: use one that is apart", other.net),
                }));
            }
            if self.0.len() >= MOST_POOLS {
                return Err(DockerError::TooMany(format!("{MOST_POOLS} subnets")));
            }
            self.0.insert(id.clone(), new);
        }
        Ok(json!({ "PoolID": id, "Pool": net.to_string(), "Data": {} }))
    }

    /// Takes back the address of a container that Docker has forgotten.
    pub fn forget(&mut self, address: IpAddr) {
        for pool in self.0.values_mut().filter(|pool| pool.net.contains(&address)) {
            pool.given.remove(&address);
        }
    }

    /// The overlay network that a subnet was given of.
    pub fn overlay_of(&self, id: &str) -> Option<&OverlayName> {
        self.0.get(id)?.overlay.as_ref()
    }

    /// The overlay network that has a subnet.
    pub fn overlay_with(&self, net: &IpNet) -> Option<&OverlayName> {
        self.0.values().find(|pool| pool.net == *net && pool.overlay.is_some())?.overlay.as_ref()
    }

    /// Whether a subnet that was given overlaps another.
    pub fn overlaps(&self, net: &IpNet) -> bool {
        self.0.values().any(|pool| overlap(&pool.net, net))
    }

    /// The addresses of an overlay network that were given.
    pub fn given_of(&self, overlay: &OverlayName) -> BTreeSet<IpAddr> {
        let pools = self.0.values().filter(|pool| pool.overlay.as_ref() == Some(overlay));
        pools.flat_map(|pool| &pool.given).copied().collect()
    }

    /// Takes a subnet back; one that was not given is fine.
    pub fn release_pool(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Gives an address: that which is asked for, or one that is free. Of an overlay network, one that is this host's `part`.
    ///
    /// # Errors
    /// One that is given, or none left.
    pub fn request_address(&mut self, request: &RequestAddress, part: Option<Part<'_>>) -> Result<Value, DockerError> {
        let pool = self.0.get_mut(&request.pool);
        let pool =
            pool.ok_or_else(|| refuse(format!("the driver vswitch gave no subnet \"{}\"", request.pool.escape_debug())))?;
        let for_gateway = request.options.get(ADDRESS_TYPE).and_then(Value::as_str) == Some(GATEWAY);
        if pool.given.len() >= MOST_ADDRESSES {
            return Err(DockerError::TooMany(format!("{MOST_ADDRESSES} addresses of {}", pool.net)));
        }
        let address = match (request.address.as_str(), part) {
            ("", Some(part)) if !for_gateway => Some(part.free(&pool.net, |address| pool.is_free(address))?),
            ("", part) if for_gateway => part.and_then(|part| part.gateway(&pool.net)).or_else(|| pool.free(pool.net)),
            ("", _) => pool.free(pool.range),
            (text, part) => {
                let address = address(text)?;
                part.filter(|part| part.is_made && !for_gateway).map_or(Ok(()), |part| part.check(address))?;
                Some(address)
            }
        };
        let address = address.ok_or_else(|| refuse(format!("no address of {} is free", pool.range)))?;
        if !pool.net.contains(&address) {
            return Err(refuse(format!("the address {address} is not in the subnet {}", pool.net)));
        }
        if !pool.is_host(address) {
            return Err(refuse(format!("the address {address} stands for all of {}: use one of a host in it", pool.net)));
        }
        if !pool.given.insert(address) {
            return Err(refuse(format!("the address {address} is in use: use another")));
        }
        Ok(json!({ "Address": format!("{address}/{}", pool.net.prefix_len()), "Data": {} }))
    }

    /// Takes an address back; one that was not given is fine.
    pub fn release_address(&mut self, request: &ReleaseAddress) {
        if let (Some(pool), Ok(address)) = (self.0.get_mut(&request.pool), address(&request.address)) {
            pool.given.remove(&address);
        }
    }

    /// A subnet that is free: a /24 of 10.224.0.0/12, or a /64 of a unique local prefix (RFC 4193).
    fn choose(&self, v6: bool, is_used: impl Fn(&IpNet) -> bool) -> Result<IpNet, DockerError> {
        let v4_net = |number: u16| Ipv4Net::new(Ipv4Addr::from(0x0ae0_0000 | u32::from(number) << 8), 24).ok().map(IpNet::V4);
        let v6_net =
            |number: u16| Ipv6Net::new(Ipv6Addr::new(0xfd76, 0x7377, 0x6974, number, 0, 0, 0, 0), 64).ok().map(IpNet::V6);
        let all = (0..4096).filter_map(|number| if v6 { v6_net(number) } else { v4_net(number) });
        let mut free = all.filter(|net| self.0.values().all(|pool| !overlap(&pool.net, net)) && !is_used(net));
        free.next().ok_or_else(|| refuse("every subnet that the driver chooses from is in use: give one with --subnet"))
    }
}

impl Pool {
    /// The lowest address of `part` that is free and that a host may have.
    fn free(&self, part: IpNet) -> Option<IpAddr> {
        addresses(part).find(|address| self.is_free(*address))
    }

    fn is_free(&self, address: IpAddr) -> bool {
        self.is_host(address) && !self.given.contains(&address)
    }

    fn is_host(&self, address: IpAddr) -> bool {
        IpNet::new(address, self.net.prefix_len()).is_ok_and(|net| api::is_host(&net))
    }
}

/// The first addresses of a subnet: more than were ever given.
pub(super) fn addresses(net: IpNet) -> impl Iterator<Item = IpAddr> {
    let first = match net {
        IpNet::V4(net) => u128::from(u32::from(net.network())),
        IpNet::V6(net) => u128::from(net.network()),
    };
    let v4 = matches!(net, IpNet::V4(_));
    let address = move |number: u128| match u32::try_from(number) {
        Ok(number) if v4 => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    };
    (first..first.saturating_add(MOST_ADDRESSES as u128 + 2)).map(address).take_while(move |address| net.contains(address))
}

/// The subnet that is asked for, if any is.
///
/// # Errors
/// Not a subnet, or one of the wrong IP version.
pub fn asked_subnet(request: &RequestPool) -> Result<Option<IpNet>, DockerError> {
    let net = Some(request.pool.as_str()).filter(|text| !text.is_empty()).map(subnet).transpose()?;
    match net.filter(|net| request.v6 && net.addr().is_ipv4()) {
        Some(net) => Err(refuse(format!("the subnet {net} is wanted for IPv6, and is of IPv4"))),
        None => Ok(net),
    }
}

/// The address that is asked for.
///
/// # Errors
/// None is, or what is none.
pub fn asked_address(request: &RequestAddress) -> Result<IpAddr, DockerError> {
    address(&request.address)
}

fn subnet(text: &str) -> Result<IpNet, DockerError> {
    let net: Option<IpNet> = text.parse().ok();
    net.map(|net| net.trunc()).ok_or_else(|| DockerError::NotAnAddress(text.to_owned(), "a subnet, such as 10.78.0.0/24"))
}

fn address(text: &str) -> Result<IpAddr, DockerError> {
    let bare = text.split('/').next().unwrap_or_default();
    bare.parse().map_err(|_| DockerError::NotAnAddress(text.to_owned(), "an address"))
}

pub(super) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

fn refuse(sentence: impl Into<String>) -> DockerError {
    DockerError::Ipam(sentence.into())
}

#[cfg(test)]
mod tests {
    use super::super::message::Driver;
    use super::*;

    fn pool(pools: &mut Pools, pool: &str, range: &str, v6: bool) -> Result<String, String> {
        let request = RequestPool {
            driver: Driver::Bridge,
            options: BTreeMap::new(),
            pool: pool.to_owned(),
            range: range.to_owned(),
            v6,
        };
        let answer = pools.request_pool(&request, |_| false).map_err(|error| error.to_string())?;
        Ok(answer["PoolID"].as_str().unwrap().to_owned())
    }

    fn take(pools: &mut Pools, pool: &str, address: &str, for_gateway: bool) -> Result<String, String> {
        let options = if for_gateway { [(ADDRESS_TYPE.to_owned(), GATEWAY.into())].into() } else { BTreeMap::new() };
        let request = RequestAddress { pool: pool.to_owned(), address: address.to_owned(), options };
        let answer = pools.request_address(&request, None).map_err(|error| error.to_string())?;
        Ok(answer["Address"].as_str().unwrap().to_owned())
    }

    #[test]
    fn addresses_come_from_the_range_and_the_gateway_from_the_subnet() {
        let mut pools = Pools::default();
        let id = pool(&mut pools, "10.9.0.0/24", "10.9.0.64/30", false).unwrap();
        assert_eq!(id, "10.9.0.0/24,10.9.0.64/30");
        assert_eq!(take(&mut pools, &id, "", true).unwrap(), "10.9.0.1/24");
        assert_eq!(take(&mut pools, &id, "", false).unwrap(), "10.9.0.64/24");
        assert_eq!(take(&mut pools, &id, "10.9.0.66", false).unwrap(), "10.9.0.66/24");
        assert!(take(&mut pools, &id, "10.9.0.66", false).unwrap_err().contains("is in use"));
        assert!(take(&mut pools, &id, "10.8.0.1", false).unwrap_err().contains("not in the subnet"));
        for edge in ["10.9.0.0", "10.9.0.255"] {
            assert!(take(&mut pools, &id, edge, false).unwrap_err().contains("stands for all of 10.9.0.0/24"), "{edge}");
        }
        take(&mut pools, &id, "", false).unwrap();
        take(&mut pools, &id, "", false).unwrap();
        assert!(take(&mut pools, &id, "", false).unwrap_err().contains("is free"));
        pools.release_address(&ReleaseAddress { pool: id.clone(), address: "10.9.0.65".to_owned() });
        assert_eq!(take(&mut pools, &id, "", false).unwrap(), "10.9.0.65/24");
    }

    #[test]
    fn subnets_are_apart_and_a_repeated_request_has_the_same_answer() {
        let mut pools = Pools::default();
        let id = pool(&mut pools, "10.9.0.0/16", "", false).unwrap();
        assert_eq!(pool(&mut pools, "10.9.0.0/16", "", false).unwrap(), id);
        take(&mut pools, &id, "", true).unwrap();
        for taken in ["10.9.0.0/16", "10.9.3.0/24", "10.0.0.0/8"] {
            assert!(pool(&mut pools, taken, "", false).unwrap_err().contains("overlaps 10.9.0.0/16"), "{taken}");
        }
        pools.release_pool(&id);
        pools.release_pool(&id);
        assert_eq!(pool(&mut pools, "10.0.0.0/8", "", false).unwrap(), "10.0.0.0/8");
        assert!(pool(&mut pools, "11.0.0.0/8", "12.0.0.0/16", false).unwrap_err().contains("not in the subnet"));
        assert!(pool(&mut pools, "11.0.0.0/8", "", true).unwrap_err().contains("is wanted for IPv6"));
        assert!(pool(&mut pools, "", "12.0.0.0/16", false).is_err() && pool(&mut pools, "x", "", false).is_err());
    }

    #[test]
    fn a_subnet_is_chosen_where_none_is_asked_for() {
        let mut pools = Pools::default();
        let all: BTreeSet<String> = (0..3)
            .map(|_| {
                let id = pool(&mut pools, "", "", false).unwrap();
                take(&mut pools, &id, "", true).unwrap();
                id
            })
            .collect();
        assert_eq!(all.iter().map(String::as_str).collect::<Vec<_>>(), ["10.224.0.0/24", "10.224.1.0/24", "10.224.2.0/24"]);
        let id = pool(&mut pools, "", "", true).unwrap();
        assert_eq!(take(&mut pools, &id, "", true).unwrap(), "fd76:7377:6974::1/64");
        let full = Pools::default().choose(false, |_| true);
        assert!(full.is_err());
    }
}
