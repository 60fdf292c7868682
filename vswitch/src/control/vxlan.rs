//! Tunnels: ports that are made of UDP sockets.
//!
//! A tunnel has a port of its own and a sender on each worker, and hears through sockets that it may share with others
//! ([`super::sockets`]). Peers change while frames pass.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::inventory::{Vport, VportKind};
use super::plan;
use super::sockets::{Ear, Open};
use super::{ControlError, Switch};
use crate::attach::AttachError;
use crate::attach::underlay::{self, Underlay};
use api::{BridgeName, FrameRate, Origin, PortName, PortPolicy, PortState, Reach, ResourceKey, VxlanInfo, VxlanSpec};
use plane::datapath::{BridgeId, PortId, PortSettings, RemoteStation, TunnelSettings};
use plane::device::{Sources, Tunnel, UnderlayDrop, Wireguard};
use plane::worker::Command;

/// A tunnel as it runs.
pub(super) struct TunnelPort {
    pub(super) spec: VxlanSpec,
    pub(super) origin: Origin,
    pub(super) run: Run,
}

/// Whether a tunnel runs.
pub(super) enum Run {
    Up(Live),
    /// It could not be opened; the sentence says why.
    Down(String),
}

/// What a running tunnel has.
pub(super) struct Live {
    pub(super) id: PortId,
    pub(super) shared: Arc<Tunnel>,
    pub(super) sources: Arc<Sources>,
    /// Of an encrypted network.
    pub(super) wireguard: Option<Arc<Wireguard>>,
    /// Of one that leads from the gateway of its bridge: the bridge that it is the only port of.
    pub(super) beyond: Option<BridgeId>,
    underlay: Underlay,
    /// Why nothing that it sends leaves this host, if so.
    pub(super) trouble: Option<String>,
    pub(super) ears: Vec<Ear>,
}

impl TunnelPort {
    pub(super) fn live(&self) -> Option<&Live> {
        match &self.run {
            Run::Up(live) => Some(live),
            Run::Down(_) => None,
        }
    }
}

impl Live {
    /// Largest inner packet.
    pub(super) fn mtu(&self, spec: &VxlanSpec) -> u16 {
        inner_mtu(spec, &self.underlay)
    }
}

impl Switch {
    pub(super) fn make_vxlan(&mut self, spec: VxlanSpec, origin: Origin) -> Result<(), ControlError> {
        self.check_vxlan(&spec)?;
        let (name, bridge) = (spec.name.clone(), spec.bridge.clone());
        let before = self.inventory.port_mtu(&bridge)?;
        let run = Run::Up(self.open_vxlan(&spec, origin)?);
        self.inventory.put(TunnelPort { spec, origin, run });
        if let Err(error) = self.fit_mtu(&bridge, before) {
            // Without the tunnel the devices are as they were.
            self.close_vxlan(&name);
            return Err(error);
        }
        Ok(())
    }

    /// A tunnel that could not be opened, which a reload tries again.
    pub(super) fn add_vxlan_down(&mut self, spec: VxlanSpec, origin: Origin, error: &ControlError) {
        let run = Run::Down(error.to_string());
        self.inventory.put(TunnelPort { spec, origin, run });
    }

    pub(super) fn change_vxlan(&mut self, spec: VxlanSpec, origin: Origin) -> Result<(), ControlError> {
        let name = spec.name.clone();
        let tunnel = self.inventory.tunnel(&name)?;
        let old = tunnel.spec.clone();
        let Some(live) = tunnel.live().filter(|_| !plan::needs_new_sockets(&old, &spec)) else {
            return self.replace_vxlan(spec, origin);
        };
        let (id, beyond, shared) = (live.id, live.beyond, Arc::clone(&live.shared));
        let underlay = underlay::survey(&spec).map_err(|error| ControlError::Attach(name.clone(), error))?;
        self.inventory.bridge(&spec.bridge)?;
        let places = BTreeSet::from([old.bridge.clone(), spec.bridge.clone()]);
        let before: Vec<_> = places.iter().map(|bridge| self.inventory.port_mtu(bridge)).collect::<Result<_, _>>()?;
        shared.set_mtu(inner_mtu(&spec, &underlay));
        self.set_tunnel((id, beyond), &shared, (&spec, origin))?;
        if let Some(TunnelPort { spec: kept, origin: kept_origin, run: Run::Up(live) }) =
            self.inventory.find_mut::<TunnelPort>(&name)
        {
            (*kept, *kept_origin, live.underlay) = (spec, origin, underlay);
        }
        for (bridge, before) in places.iter().zip(before) {
            if let Err(error) = self.fit_mtu(bridge, before) {
                tracing::warn!("{error}");
            }
        }
        Ok(())
    }

    /// Looks whether the underlay still carries what tunnels send, and whether its MTUs are what they were, and follows them.
    pub(super) fn follow_underlay(&mut self) {
        let (mut moved, mut told) = (Vec::new(), Vec::new());
        for tunnel in self.inventory.all_mut::<TunnelPort>() {
            let TunnelPort { spec, run: Run::Up(live), .. } = tunnel else { continue };
            let now = underlay::survey(spec);
            let trouble = match &now {
                Ok(now) => now.trouble(spec),
                Err(error @ (AttachError::NotLocal(_) | AttachError::NoInterface { .. })) => Some(error.to_string()),
                // That it could not be looked at says nothing about it.
                Err(_) => continue,
            };
            if trouble != live.trouble {
                told.push((spec.name.clone(), trouble.clone()));
                live.trouble = trouble;
            }
            // The MTU of a way that is gone is no news.
            moved.extend(
                now.ok().filter(|now| now.has_way && now.mtu != live.underlay.mtu).map(|now| (spec.name.clone(), now.mtu)),
            );
        }
        told.into_iter().for_each(|(name, trouble)| self.tell_trouble(name, trouble));
        for (name, mtu) in moved {
            let Some(tunnel) = self.inventory.find::<TunnelPort>(&name) else { continue };
            let (spec, origin) = (tunnel.spec.clone(), tunnel.origin);
            match self.change_vxlan(spec, origin) {
                Ok(()) => tracing::info!(vxlan = %name, "the underlay's MTU is {mtu} now"),
                Err(error) => tracing::warn!("the MTU of vxlan \"{name}\" cannot follow the underlay's: {error}"),
            }
        }
    }

    fn tell_trouble(&mut self, name: PortName, trouble: Option<String>) {
        match &trouble {
            Some(why) => tracing::warn!(vxlan = %name, "nothing that it sends leaves this host: {why}"),
            None => tracing::info!(vxlan = %name, "what it sends leaves this host again"),
        }
        self.note_link(name, trouble.unwrap_or_else(|| "the underlay is there again".to_owned()));
    }

    /// What a reload says of tunnels whose frames do not leave this host.
    pub(super) fn underlay_notes(&self) -> impl Iterator<Item = String> {
        let trouble =
            |tunnel: &TunnelPort| Some(format!("vxlan \"{}\": {}", tunnel.spec.name, tunnel.live()?.trouble.as_ref()?));
        self.inventory.all::<TunnelPort>().filter_map(trouble)
    }

    pub(super) fn drop_vxlan(&mut self, name: &PortName) -> Result<(), ControlError> {
        let TunnelPort { spec, .. } = self.inventory.tunnel(name)?;
        let bridge = spec.bridge.clone();
        let before = self.inventory.port_mtu(&bridge)?;
        self.close_vxlan(name);
        if let Err(error) = self.fit_mtu(&bridge, before) {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    /// What the user should know about MTUs, one sentence for each bridge whose devices get less than it says.
    pub(super) fn mtu_notes(&self) -> Vec<String> {
        let note = |tunnel: &TunnelPort| {
            let (spec, live) = (&tunnel.spec, tunnel.live()?);
            let (mtu, whole) = (live.mtu(spec), self.inventory.bridges.get(&spec.bridge)?.spec.mtu);
            (mtu < whole).then(|| {
                format!(
                    "vxlan \"{}\" carries packets of up to {mtu} bytes, for the underlay's MTU is {}: the TAP and veth devices of \
                     bridge \"{}\" get MTU {mtu} instead of {whole}; set `mtu = {mtu}` there, or raise the underlay's",
                    spec.name, live.underlay.mtu, spec.bridge
                )
            })
        };
        self.inventory.all::<TunnelPort>().filter_map(note).collect()
    }

    pub(super) fn note_too_big(&self, id: PortId) {
        let tunnel = self.inventory.by_id(id).and_then(TunnelPort::of);
        if let Some((tunnel, live)) = tunnel.and_then(|tunnel| Some((tunnel, tunnel.live()?))) {
            tracing::warn!(
                vxlan = %tunnel.spec.name,
                "a frame was longer than the {} bytes that the underlay's MTU of {} leaves; such frames are dropped and counted as \
                 packet-too-big, and this is not said again",
                live.mtu(&tunnel.spec),
                live.underlay.mtu
            );
        }
    }

    /// Says for how long a bridge remembers addresses.
    pub(super) fn set_tunnels_ageing(&self, bridge: &BridgeName, seconds: u32) {
        let on_it = self.inventory.all::<TunnelPort>().filter(|tunnel| tunnel.spec.bridge == *bridge);
        on_it.filter_map(TunnelPort::live).for_each(|live| live.shared.set_ageing(seconds));
    }

    pub(super) fn vxlan_infos(&self, bridge: Option<&BridgeName>) -> Result<Vec<VxlanInfo>, ControlError> {
        if let Some(name) = bridge {
            self.inventory.bridge(name)?;
        }
        let on_it = self.inventory.all::<TunnelPort>().filter(|tunnel| bridge.is_none_or(|name| tunnel.spec.bridge == *name));
        Ok(on_it.map(|tunnel| self.vxlan_info(tunnel)).collect())
    }

    fn vxlan_info(&self, tunnel: &TunnelPort) -> VxlanInfo {
        let TunnelPort { spec, origin, run } = tunnel;
        let live = match run {
            Run::Up(live) => live,
            Run::Down(why) => return VxlanInfo::new(spec, *origin, PortState::Unusable(why.clone())),
        };
        let open: Vec<&Open> = live.ears.iter().filter_map(|ear| self.plane.sockets.ears.get(ear)).collect();
        let runs = open.iter().all(|ear| ear.runs);
        let features = [(live.sources.is_segmenting(), "udp_gso"), (runs, "udp_gro")];
        let drops = UnderlayDrop::ALL.map(|reason| {
            let count = open.iter().map(|ear| ear.counters.read(reason)).sum();
            (reason.name().replace('-', "_"), count)
        });
        let mut info = VxlanInfo::new(spec, *origin, live.state());
        info.reach.remotes = live.remotes();
        info.reach.heard = live.shared.peers.all().filter(|(_, configured)| !configured).map(|(address, _)| address).collect();
        info.underlay.underlay_mtu = Some(live.underlay.mtu);
        info.underlay.underlay_drops = drops.into_iter().collect();
        info.mtu = Some(live.mtu(spec));
        info.features = features.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()).collect();
        info
    }

    fn check_vxlan(&self, spec: &VxlanSpec) -> Result<(), ControlError> {
        if !self.inventory.has::<TunnelPort>(&spec.name) {
            self.check_free(&ResourceKey::Vxlan(spec.name.clone()))?;
        }
        let others = || self.inventory.all::<TunnelPort>().map(|tunnel| &tunnel.spec).filter(|other| other.name != spec.name);
        match others().find(|other| other.collides_with(spec)) {
            Some(other) => Err(ControlError::VniTaken(spec.name.clone(), spec.vni.number(), spec.port, other.name.clone())),
            None => Ok(()),
        }
    }

    /// Takes a tunnel's sockets away and gives it others; if that fails, the first ones come back.
    fn replace_vxlan(&mut self, spec: VxlanSpec, origin: Origin) -> Result<(), ControlError> {
        self.check_vxlan(&spec)?;
        self.inventory.bridge(&spec.bridge)?;
        let old = self.inventory.tunnel(&spec.name)?;
        let (old, old_origin) = (old.spec.clone(), old.origin);
        self.drop_vxlan(&spec.name)?;
        let Err(error) = self.make_vxlan(spec, origin) else { return Ok(()) };
        if let Err(again) = self.make_vxlan(old.clone(), old_origin) {
            tracing::error!("could not be taken back: {again}");
            self.add_vxlan_down(old, old_origin, &again);
        }
        Err(error)
    }

    /// Opens what a tunnel needs; all or nothing.
    fn open_vxlan(&mut self, spec: &VxlanSpec, origin: Origin) -> Result<Live, ControlError> {
        let failed = |error: AttachError| ControlError::Attach(spec.name.clone(), error);
        let underlay = underlay::survey(spec).map_err(failed)?;
        let group = match &spec.reach {
            Reach::Peers(_) => None,
            Reach::Group(group, _) => Some(*group),
        };
        let shared = Arc::new(Tunnel::new(spec.vni, spec.port, group, inner_mtu(spec, &underlay)));
        let sources = self.sources(spec, &underlay).map_err(failed)?;
        let wireguard = self.wireguard(spec, &sources)?;
        let sealed = spec.wireguard.map(|port| Ear::Sealed(SocketAddr::new(spec.local, port)));
        let host = sealed.unwrap_or(Ear::Host(SocketAddr::new(spec.local, spec.port)));
        let group = group.zip(underlay.interface);
        let ears: Vec<Ear> = std::iter::once(host)
            .chain(group.map(|(group, interface)| Ear::Group(SocketAddr::new(group, spec.port), interface)))
            .collect();
        let id = PortId(self.inventory.port_ids.vacancy());
        self.inventory.port_ids.insert(id.0, spec.name.clone());
        let beyond = self.open_beyond(spec)?;
        let trouble = underlay.trouble(spec);
        let live = Live { id, beyond, shared, sources, wireguard, underlay, trouble, ears };
        if let Err(error) = self.connect(spec, origin, &live) {
            self.disconnect(spec, &live);
            self.close_beyond(&live);
            return Err(error);
        }
        Ok(live)
    }

    fn close_vxlan(&mut self, name: &PortName) {
        if let Some(Vport::Tunnel(tunnel)) = self.inventory.remove(name)
            && let TunnelPort { spec, run: Run::Up(live), .. } = *tunnel
        {
            self.disconnect(&spec, &live);
            self.close_beyond(&live);
        }
    }

    /// Tells every worker how a running tunnel is now, and to forget what was behind peers that are no more.
    fn set_tunnel(
        &mut self,
        (id, beyond): (PortId, Option<BridgeId>),
        shared: &Tunnel,
        (spec, origin): (&VxlanSpec, Origin),
    ) -> Result<(), ControlError> {
        let gone = shared.set_peers(&named(spec));
        let settings = self.prepare_tunnel((shared, beyond), spec, origin)?;
        self.plane.tell_all(|| Command::SetPort(id, settings.clone()))?;
        for peer in gone {
            self.plane.tell_all(|| Command::ForgetPeer(id, peer))?;
        }
        self.set_beyond(beyond, spec, shared.mtu())
    }

    /// Gives the peers their numbers; returns what the datapath needs to know.
    pub(super) fn prepare_tunnel(
        &self,
        (shared, beyond): (&Tunnel, Option<BridgeId>),
        spec: &VxlanSpec,
        origin: Origin,
    ) -> Result<PortSettings, ControlError> {
        let bridge = self.inventory.bridge(&spec.bridge)?;
        shared.set_peers(&named(spec));
        shared.set_ageing(u32::try_from(bridge.spec.ageing.as_secs()).unwrap_or(u32::MAX));
        let stations = spec.stations.iter().filter_map(|station| {
            Some(RemoteStation { mac: station.mac, peer: shared.peers.number(station.peer)?, ip: station.ip })
        });
        let mut stations: Vec<RemoteStation> = stations.collect();
        stations.sort_by_key(|station| station.mac);
        let told = origin == Origin::Cluster;
        let tunnel = Some(TunnelSettings { learn: spec.learn, mtu: shared.mtu(), stations: stations.into(), told });
        let policy = PortPolicy { broadcast_limit: spec.bum_limit.and_then(FrameRate::new), ..PortPolicy::default() };
        let settings = PortSettings { vlans: spec.vlans.clone(), tunnel, ..PortSettings::on(beyond.unwrap_or(bridge.id)) };
        Ok(settings.under(policy, Instant::now()))
    }

    /// Gives the devices of a bridge the MTU that its tunnels leave, if that is another than before.
    fn fit_mtu(&mut self, bridge: &BridgeName, before: u16) -> Result<(), ControlError> {
        let now = self.inventory.port_mtu(bridge)?;
        if now == before {
            return Ok(());
        }
        self.change_mtu(bridge, now, before)?;
        self.refresh_gateways()?;
        self.tell_services();
        Ok(())
    }
}

/// The hosts that the user named, as peers or in static entries.
fn named(spec: &VxlanSpec) -> Vec<IpAddr> {
    let mut all = spec.reach.peers();
    all.extend(spec.stations.iter().map(|station| station.peer));
    all.sort_unstable();
    all.dedup();
    all
}

/// What the underlay's MTU leaves. A station needs 68 bytes (RFC 791, section 3.2), whatever the underlay says.
fn inner_mtu(spec: &VxlanSpec, underlay: &Underlay) -> u16 {
    const LEAST: u16 = 68;
    let outer = u16::try_from(underlay.mtu).unwrap_or(u16::MAX);
    let sealed = if spec.wireguard.is_some() { plane::device::wireguard_overhead(spec.local) } else { 0 };
    let most = spec.routed.as_ref().and_then(|routed| routed.mtu).unwrap_or(u16::MAX);
    outer.saturating_sub(vxlan::overhead(spec.local)).saturating_sub(sealed).min(most).max(LEAST)
}
