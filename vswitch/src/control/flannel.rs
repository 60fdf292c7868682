//! A network of flannel's, as far as the switch itself is concerned: what it makes of what the thread hears that deals with etcd, and how it stands.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::overlay::ClusterWord;
use super::plan::Step;
use super::vxlan::TunnelPort;
use super::{ControlError, Switch};
use crate::config::Config;
use crate::confine::Confinement;
use crate::flannel::{FlannelFile, FlannelNews, FlannelSettings, FlannelTables, FlannelThread};
use crate::overlay::Happening;
use api::{BridgeName, BridgeSpec, FlannelHost, FlannelInfo, Network, Origin, PortName, Resource, ResourceKey};

/// What belongs to flannel's network.
pub(super) struct FlannelDesk {
    /// `None`: the file has no `[flannel]`.
    thread: Option<FlannelThread>,
    /// Where the thread's news go.
    news: UnboundedSender<FlannelNews>,
    /// The subnets that others have here, for the thread.
    others: watch::Sender<Option<Vec<IpNet>>>,
    /// How it stood with etcd when it was last told.
    state: &'static str,
    problem: Option<String>,
    is_held: bool,
    /// What was said of what cannot be.
    said: BTreeSet<String>,
}

impl FlannelDesk {
    /// Starts the thread if the file has a network of flannel's. Returns what was kept of it, and what is to be said.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        config: &Config,
        news: UnboundedSender<FlannelNews>,
        sandbox: &Confinement,
    ) -> Result<(Self, FlannelTables, Option<String>), String> {
        let (others, others_in) = watch::channel(None);
        let mut desk =
            Self { thread: None, news, others, state: "waiting", problem: None, is_held: false, said: BTreeSet::new() };
        let Some(settings) = &config.flannel else { return Ok((desk, FlannelTables::default(), None)) };
        let kept = FlannelFile::new(&config.switch.state_dir);
        let (tables, note) = kept.read(&settings.prefix);
        let news = desk.news.clone();
        // At the end there is no receiver any more.
        let tell = move |heard| drop(news.send(heard));
        desk.thread = Some(FlannelThread::start(settings.clone(), (kept, tables.clone()), (others_in, tell), sandbox.clone())?);
        Ok((desk, tables, note))
    }

    /// Ends the thread. The other hosts do not hear of it: this one keeps its subnet.
    pub(super) fn end(&mut self) {
        self.thread = None;
    }
}

impl Switch {
    /// Takes in what the thread has to say.
    pub(super) fn hear_flannel(&mut self, heard: FlannelNews) {
        // One that has ended may have said something last.
        if self.flannel.thread.is_none() {
            return;
        }
        let FlannelNews { tables, state, problem, is_held, happened } = heard;
        (self.flannel.state, self.flannel.problem, self.flannel.is_held) = (state, problem, is_held);
        self.ledger.flannel = tables;
        happened.into_iter().for_each(|happening| self.note_word(word(happening)));
        self.follow_flannel();
    }

    /// Brings the bridge and the tunnel to what is known. To be called often; it does nothing if nothing has changed.
    pub(super) fn follow_flannel(&mut self) {
        if self.flannel.thread.is_none() || !self.life.started_up {
            return;
        }
        let others = self.others();
        self.flannel.others.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&others);
            *known = Some(others);
            is_new
        });
        let mut said: BTreeSet<String> = self.flannel_clash().into_iter().collect();
        for step in self.flannel_steps() {
            let done = match step.key() {
                ResourceKey::Bridge(_) => self.apply(vec![step]).map(drop),
                _ => self.set_heard_tunnel(step),
            };
            said.extend(done.err().map(|error| error.to_string()));
        }
        for sentence in said.difference(&self.flannel.said) {
            tracing::warn!("flannel's network: {sentence}");
        }
        self.flannel.said = said;
    }

    /// Whether what is new has no subnet of flannel's network, in which this host has a part already.
    ///
    /// # Errors
    /// It has one.
    pub(super) fn check_apart(&self, resource: &Resource) -> Result<(), ControlError> {
        let Some(settings) = &self.ledger.file.flannel else { return Ok(()) };
        let network = match resource {
            Resource::Bridge(bridge) if bridge.name != settings.bridge => {
                Network { bridges: vec![bridge], ..Network::default() }
            }
            Resource::Uplink(uplink) => Network { uplinks: vec![uplink], ..Network::default() },
            _ => return Ok(()),
        };
        let clash = self.ledger.flannel.clash(settings, &network);
        clash.map_or(Ok(()), |sentence| Err(ControlError::FlannelsSubnet(sentence)))
    }

    /// The subnets of other bridges and of uplinks, for the thread, which takes none in a network that overlaps one.
    fn others(&self) -> Vec<IpNet> {
        let own = self.ledger.file.flannel.as_ref().map(|settings| &settings.bridge);
        let network = self.inventory.network();
        let bridges = network.bridges.iter().filter(|bridge| Some(&bridge.name) != own).flat_map(|bridge| &bridge.addresses);
        bridges.chain(network.uplinks.iter().flat_map(|uplink| uplink.addresses())).copied().collect()
    }

    /// Why this host can have no part in the whole network, although etcd has one.
    fn flannel_clash(&self) -> Option<String> {
        self.ledger.flannel.clash(self.ledger.file.flannel.as_ref()?, &self.inventory.network())
    }

    /// The steps from what runs to what flannel's network asks for. A bridge that vsctl has removed has no part in it, and what runs stays where the
    /// network clashes with something.
    fn flannel_steps(&self) -> Vec<Step> {
        let tunnels = self.inventory.all::<TunnelPort>().filter(|tunnel| tunnel.origin == Origin::Flannel);
        let bridge = |settings: &FlannelSettings| self.inventory.bridges.get(&settings.bridge);
        let settings = self.ledger.file.flannel.as_ref();
        let Some((settings, bridge)) = settings.and_then(|settings| Some((settings, bridge(settings)?))) else {
            return tunnels.map(|tunnel| Step::Delete(ResourceKey::Vxlan(tunnel.spec.name.clone()))).collect();
        };
        if !self.ledger.flannel.is_apart(settings, &self.inventory.network()) {
            return Vec::new();
        }
        let (tables, mut steps) = (&self.ledger.flannel, Vec::new());
        let wanted = tables.given(settings, &bridge.spec);
        if wanted != bridge.spec {
            steps.push(Step::Set(wanted.into(), bridge.origin));
        }
        let wanted = tables.tunnel(settings, &self.inventory.network());
        let is_old = |tunnel: &&TunnelPort| wanted.as_ref().is_none_or(|wanted| wanted.name != tunnel.spec.name);
        steps.extend(tunnels.filter(is_old).map(|tunnel| Step::Delete(ResourceKey::Vxlan(tunnel.spec.name.clone()))));
        let Some(wanted) = wanted else { return steps };
        let running = self.inventory.find::<TunnelPort>(&wanted.name).filter(|tunnel| tunnel.origin == Origin::Flannel);
        match running {
            None => steps.push(Step::Add(Resource::from(wanted), Origin::Flannel)),
            Some(tunnel) if tunnel.spec != wanted || tunnel.live().is_none() => {
                steps.push(Step::Set(Resource::from(wanted), Origin::Flannel));
            }
            Some(_) => {}
        }
        steps
    }

    /// Has the thread deal with the network that the file names now.
    pub(super) fn change_flannel(&mut self, before: &Config) -> Option<String> {
        if before.flannel == self.ledger.file.flannel {
            return None;
        }
        self.flannel.end();
        let note = match FlannelDesk::start(&self.ledger.file, self.flannel.news.clone(), &self.plane.sandbox) {
            Ok((desk, tables, note)) => {
                (self.flannel, self.ledger.flannel) = (desk, Arc::new(tables));
                note
            }
            Err(error) => Some(error),
        };
        for step in self.flannel_steps() {
            if let Err(error) = self.apply(vec![step]) {
                tracing::warn!("flannel's network: {error}");
            }
        }
        note
    }

    /// Whether a bridge has the subnet of this host.
    pub(super) fn is_of_flannel(&self, bridge: &BridgeName) -> bool {
        self.ledger.file.flannel.as_ref().is_some_and(|settings| settings.bridge == *bridge)
    }

    /// Whether a bridge that is changed keeps what it has by flannel's network.
    pub(super) fn check_subnet(&self, spec: &BridgeSpec) -> Result<(), ControlError> {
        let running = self.inventory.bridges.get(&spec.name).filter(|bridge| self.is_of_flannel(&bridge.spec.name));
        let Some(running) = running.map(|bridge| &bridge.spec) else { return Ok(()) };
        let changed = [
            (running.addresses != spec.addresses, "addresses"),
            (running.dhcp != spec.dhcp, "dhcp"),
            (running.uplink != spec.uplink, "uplink"),
        ];
        let changed = changed.iter().find(|(is_other, _)| *is_other);
        changed.map_or(Ok(()), |(_, key)| Err(ControlError::FlannelsBridge(spec.name.clone(), key)))
    }

    /// A bridge as the file is to have it: without what it has by flannel's network.
    pub(super) fn without_subnet(&self, bridge: &BridgeSpec) -> BridgeSpec {
        match self.is_of_flannel(&bridge.name) {
            true => BridgeSpec { addresses: Vec::new(), dhcp: false, uplink: None, ..bridge.clone() },
            false => bridge.clone(),
        }
    }

    /// The network, as this host knows it.
    pub(super) fn flannel_info(&self) -> Result<FlannelInfo, ControlError> {
        let settings = self.ledger.file.flannel.as_ref().ok_or(ControlError::NoFlannel)?;
        let (desk, tables) = (&self.flannel, &self.ledger.flannel);
        let table = &tables.table;
        let mut tunnels = self.inventory.all::<TunnelPort>().filter(|tunnel| tunnel.origin == Origin::Flannel);
        let tunnel = tunnels.next();
        let remotes = tunnel.and_then(TunnelPort::live).map(|live| live.remotes()).unwrap_or_default();
        let stands = |host: IpAddr| remotes.iter().find(|peer| peer.address == host).map(|peer| peer.state.clone());
        let hosts = table.hosts.iter().map(|(subnet, host)| FlannelHost {
            subnet: (*subnet).into(),
            underlay: host.host.into(),
            mac: host.mac,
            tunnel: stands(host.host.into()),
        });
        Ok(FlannelInfo {
            state: desk.state.to_owned(),
            problem: desk.problem.clone().or_else(|| desk.said.first().cloned()),
            endpoints: settings.endpoints.clone(),
            prefix: settings.prefix.clone(),
            underlay: Some(settings.underlay.into()),
            bridge: Some(settings.bridge.clone()),
            tunnel: tunnel.map(|tunnel| -> PortName { tunnel.spec.name.clone() }),
            network: table.net.as_ref().map(|net| net.network.into()),
            vni: table.net.as_ref().map(|net| net.vni),
            port: table.net.as_ref().map(|net| net.port),
            subnet: table.own.map(Into::into),
            mac: Some(tables.mac),
            held: desk.is_held,
            hosts: hosts.collect(),
        })
    }
}

/// What is to be said of something that happened.
fn word(happening: Happening) -> ClusterWord {
    let (warning, summary, address) = match happening {
        Happening::Joined(subnet, host) => (None, format!("a host of flannel's network has {subnet}"), Some(host)),
        Happening::Gone(subnet, host) => (None, format!("no host of flannel's network has {subnet} any more"), Some(host)),
        Happening::Up { again: false } => (None, "etcd of flannel's network is reached".to_owned(), None),
        Happening::Up { again: true } => (None, "etcd of flannel's network is reached again".to_owned(), None),
        Happening::Down(why) => {
            let rest = "packets are forwarded by what is known, and it is tried again";
            (
                Some(format!("flannel's network: {why}; {rest}")),
                format!("etcd of flannel's network is not to be used: {why}"),
                None,
            )
        }
        Happening::Note(sentence) => (Some(format!("flannel's network: {sentence}")), sentence, None),
    };
    ClusterWord { warning, summary, address }
}
