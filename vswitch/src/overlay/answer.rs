//! What the thread answers, from what it knows.

use std::collections::BTreeMap;

use cluster::record::{Endpoint, Name};
use packet::Mac;

use super::HostRow;
use super::run::Room;
use super::thread::name;
use api::{ClusterAnswer, ClusterHost, ClusterNetwork, ClusterQuestion, ClusterStation, ClusterStatus, Finding, OverlayName};

impl Room {
    /// The answer to a question, as far as this thread knows it: of hosts not how their tunnels are, and of a check not what the tables of the
    /// switch say.
    pub(super) fn answer(&self, question: &ClusterQuestion) -> ClusterAnswer {
        match question {
            ClusterQuestion::Status => ClusterAnswer::Status(Box::new(self.status())),
            ClusterQuestion::Hosts => ClusterAnswer::Hosts(self.hosts_known()),
            ClusterQuestion::Networks => ClusterAnswer::Networks(self.networks_known()),
            ClusterQuestion::Endpoints(of) => ClusterAnswer::Endpoints(self.stations(of.as_ref())),
            ClusterQuestion::Check => ClusterAnswer::Check(self.findings()),
            ClusterQuestion::Acl => ClusterAnswer::Acl(super::rights(&self.settings)),
        }
    }

    fn status(&self) -> ClusterStatus {
        let (settings, view) = (&self.settings, self.agent.view());
        ClusterStatus {
            store: settings.store.to_string(),
            endpoints: settings.endpoints.clone(),
            prefix: settings.prefix.clone(),
            node: settings.node.to_string(),
            underlay: Some(settings.underlay),
            key: view.key().map(|key| key.to_string()),
            state: self.standing.state().word().to_owned(),
            since_seconds: self.now().saturating_sub(self.standing.since()).as_secs(),
            problem: self.problem().or_else(|| self.lives.problem()),
            cluster_id: view.id().map(str::to_owned),
            held: view.is_held(),
            hosts: self.tables.hosts.len(),
            networks: view.networks().count().max(self.tables.networks.len()),
            stations: self.tables.networks.values().map(|table| table.stations.len()).sum(),
        }
    }

    fn problem(&self) -> Option<String> {
        let view = self.agent.view();
        let network = || view.refused_networks().map(|(_, refusal)| refusal.to_string()).next();
        let absent = || self.here.problem(self.settings.underlay);
        let refusal = view.refusal().map(ToString::to_string).or_else(absent).or_else(network);
        refusal.or_else(|| self.standing.problem().map(str::to_owned))
    }

    fn hosts_known(&self) -> Vec<ClusterHost> {
        let view = self.agent.view();
        let joined: Vec<&Name> = view.joined().collect();
        let host = |(name, row): (&String, &HostRow), idle: bool| {
            let here = *name == self.settings.node.to_string();
            let has_part = |network: &&&Name| view.members(network).any(|member| member.as_str() == name);
            let stations = joined.iter().map(|network| view.endpoints(network).filter(|(of, ..)| of.as_str() == name).count());
            ClusterHost {
                name: name.clone(),
                underlay: row.underlay,
                port: row.port,
                key: row.key.map(|key| key.to_string()),
                version: row.version.clone(),
                here,
                idle,
                networks: joined.iter().filter(has_part).map(ToString::to_string).collect(),
                stations: stations.sum(),
                tunnel: None,
                // What answers at the address of an idle host is another one.
                probe: self.lives.of(row).filter(|_| !here && !idle).map(|life| life.word().to_owned()),
            }
        };
        let idle = view.idle().map(|(name, record)| (name.to_string(), HostRow::from(record)));
        let idle: BTreeMap<String, HostRow> = idle.filter(|(name, _)| !self.tables.hosts.contains_key(name)).collect();
        let known = self.tables.hosts.iter().map(|row| host(row, false));
        let mut hosts: Vec<ClusterHost> = known.chain(idle.iter().map(|row| host(row, true))).collect();
        hosts.sort_by(|one, other| one.name.cmp(&other.name));
        hosts
    }

    fn networks_known(&self) -> Vec<ClusterNetwork> {
        let view = self.agent.view();
        let stored = view
            .networks()
            .map(|(name, network)| (name.clone(), (Some(network.vni), network.subnets.clone(), network.encrypt)));
        let mut all: BTreeMap<Name, _> = stored.collect();
        for (network, local) in &self.truth.networks {
            let Some(key) = name(network) else { continue };
            let vni = view.vni(&key);
            all.entry(key).or_insert_with(|| (vni, local.subnets.clone(), local.encrypt));
        }
        let row = |(key, (vni, subnets, encrypt)): (Name, (Option<u32>, Vec<ipnet::IpNet>, bool))| {
            let local = key.as_str().parse::<OverlayName>().ok().and_then(|network| self.truth.networks.get(&network));
            let refused = view.network_refusal(&key).or(view.refusal()).filter(|_| local.is_some()).map(ToString::to_string);
            ClusterNetwork {
                name: key.to_string(),
                docker: docker_line(key.as_str(), &subnets, encrypt),
                vni,
                encrypt,
                subnets,
                bridge: local.and_then(|local| local.bridge.clone()),
                tunnel: local.and_then(|local| local.tunnel.clone()),
                hosts: view.members(&key).map(ToString::to_string).collect(),
                stations: view.endpoints(&key).count(),
                problem: refused,
            }
        };
        all.into_iter().map(row).collect()
    }

    fn stations(&self, of: Option<&OverlayName>) -> Vec<ClusterStation> {
        let view = self.agent.view();
        let is_meant = |network: &&Name| of.is_none_or(|of| of.as_str() == network.as_str());
        let row = |network: &Name, host: &Name, mac: Mac, endpoint: &Endpoint| ClusterStation {
            network: network.to_string(),
            mac,
            ips: endpoint.ips.clone(),
            host: host.to_string(),
            name: endpoint.name.clone(),
            sequence: endpoint.sequence,
        };
        let of_network = |network: &Name| -> Vec<ClusterStation> {
            view.endpoints(network).map(|(host, mac, endpoint)| row(network, host, mac, endpoint)).collect()
        };
        view.joined().filter(is_meant).flat_map(of_network).collect()
    }

    /// What the store and this host's truth do not agree on.
    fn findings(&self) -> Vec<Finding> {
        let view = self.agent.view();
        let (absent, problem) = (self.here.problem(self.settings.underlay), self.problem());
        let problem = problem.filter(|problem| absent.as_ref() != Some(problem));
        let finding = |sentence| Finding { network: None, mac: None, host: None, sentence };
        let sentences = absent.into_iter().chain(problem).chain(self.shared_addresses());
        let mut findings: Vec<Finding> = sentences.map(finding).collect();
        for network in view.joined() {
            let about = |mac: Mac, host: &Name, sentence: String| Finding {
                network: Some(network.to_string()),
                mac: Some(mac),
                host: Some(host.to_string()),
                sentence,
            };
            let stored: BTreeMap<Mac, &Endpoint> = view
                .endpoints(network)
                .filter(|(host, ..)| *host == view.me())
                .map(|(_, mac, endpoint)| (mac, endpoint))
                .collect();
            for (mac, ours) in view.ours(network).filter(|(mac, ours)| stored.get(mac) != Some(ours)) {
                let sentence = match stored.get(&mac) {
                    None => "is here, and the store does not have it yet".to_owned(),
                    Some(_) => format!("is here with other facts than the store has: {:?}", ours.ips),
                };
                findings.push(about(mac, view.me(), sentence));
            }
            let known: Vec<Mac> = view.ours(network).map(|(mac, _)| mac).collect();
            let stray = stored.keys().filter(|mac| !known.contains(mac));
            findings.extend(stray.map(|mac| about(*mac, view.me(), "is in the store as this host's, and not here".to_owned())));
            findings.extend(self.doubles(network));
            findings.extend(self.keyless(network));
        }
        findings
    }

    /// That hosts have one `underlay`.
    fn shared_addresses(&self) -> impl Iterator<Item = String> {
        self.agent.view().doubles().into_iter().map(|(underlay, hosts)| {
            let hosts: Vec<String> = hosts.into_iter().map(ToString::to_string).collect();
            let both = if hosts.len() == 2 { "both" } else { "all" };
            format!("hosts {} {both} say that their `underlay` is {underlay}: correct one", hosts.join(" and "))
        })
    }

    /// Hosts that have a part in an encrypted network and no key.
    fn keyless(&self, network: &Name) -> Vec<Finding> {
        let view = self.agent.view();
        let is_keyless = |member: &&Name| view.hosts().any(|(host, record)| host == *member && record.key.is_none());
        let members = view.members(network).filter(|_| view.is_encrypted(network) == Some(true)).filter(is_keyless);
        let finding = |host: &Name| Finding {
            network: Some(network.to_string()),
            mac: None,
            host: Some(host.to_string()),
            sentence: "has no key, so it gets no frames of this encrypted network: see what its log says of wireguard.key"
                .to_owned(),
        };
        members.map(finding).collect()
    }

    /// Addresses that two stations announce, and announcements of hosts that have no part in the network.
    fn doubles(&self, network: &Name) -> Vec<Finding> {
        let view = self.agent.view();
        let mut holders: BTreeMap<std::net::IpAddr, Mac> = BTreeMap::new();
        let mut findings = Vec::new();
        for (host, mac, endpoint) in view.endpoints(network) {
            let about = |sentence: String| Finding {
                network: Some(network.to_string()),
                mac: Some(mac),
                host: Some(host.to_string()),
                sentence,
            };
            if !view.members(network).any(|member| member == host) {
                findings.push(about("is announced by a host that has no part in the network".to_owned()));
            }
            let gateways = self.truth.networks.iter().filter(|(name, _)| name.as_str() == network.as_str());
            let is_gateway = |ip: &std::net::IpAddr| {
                gateways.clone().any(|(_, local)| {
                    local.stations.values().any(|station| station.name.as_deref() == Some(GATEWAY) && station.ips.contains(ip))
                })
            };
            for ip in endpoint.ips.iter().filter(|ip| !is_gateway(ip)) {
                if let Some(other) = holders.insert(*ip, mac).filter(|other| *other != mac) {
                    findings.push(about(format!("has {ip}, as {other} has")));
                }
            }
        }
        findings
    }
}

/// What to type for a network of Docker's that is this host's part of an overlay network.
fn docker_line(name: &str, subnets: &[ipnet::IpNet], encrypt: bool) -> String {
    let encrypted = if encrypt { "-o vswitch.encrypt=true " } else { "" };
    let v6 = if subnets.iter().any(|net| net.addr().is_ipv6()) { "--ipv6 " } else { "" };
    format!(
        "docker network create -d vswitch-overlay --ipam-driver vswitch-overlay {v6}-o vswitch.net={name} {encrypted}\
         --ipam-opt vswitch.net={name} {name}"
    )
}

/// The name of a gateway among stations: those of several hosts may have one address.
pub(crate) const GATEWAY: &str = "gateway";
