//! The services of one bridge side by side: DHCP, router advertisements and DNS. `Services` has one for each bridge and gives
//! it frames and the time; what it returns is sent by others. Touches nothing.

use std::time::Duration;

use domain::base::iana::Rcode;
use ipnet::IpNet;
use rand::rngs::StdRng;

use super::dns::{Asker, Decision, NameDirectory, Query, ReplyTo, Sent, StreamId, Streams, Transport, decide, failure};
use super::leases::{Lease, Leases};
use super::ra::Advertiser;
use super::shares::Shares;
use super::wire::{Arp, Datagram, Hop, Segment, Solicitation};
use super::{GatewayAnswer, Link, Output, Punt, Shortages, Usage, dhcp4, dhcp6};
use api::PortName;

/// The services of one bridge.
#[derive(Debug)]
pub(super) struct NetworkServices {
    link: Link,
    dhcp4: Option<dhcp4::Server>,
    dhcp6: Option<dhcp6::Server6>,
    advertiser: Option<Advertiser>,
    streams: Streams,
    /// Whether the log was told that a station got no address; once is enough until the subnets change.
    told: bool,
    /// Whether a table went, so that what was kept of it must too.
    dropped: bool,
}

impl NetworkServices {
    pub(super) fn new(now: Duration, link: Link, kept: Vec<Lease>, seed: u64) -> Self {
        let (v4, v6) = kept.into_iter().partition(|lease| lease.address.is_ipv4());
        Self {
            dhcp4: dhcp4::Server::new(&link, v4),
            dhcp6: dhcp6::Server6::new(&link, v6),
            advertiser: advertises(&link).then(|| Advertiser::new(now, &link)),
            streams: Streams::new(link.mtu, seed),
            link,
            told: false,
            dropped: false,
        }
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    /// Takes on another configuration; returns what stations must hear at once.
    pub(super) fn set_link(&mut self, now: Duration, link: Link) -> Option<GatewayAnswer> {
        self.told &= link.addresses == self.link.addresses;
        match (&mut self.dhcp4, link.dhcp4_subnet()) {
            (Some(server), Some(subnet)) => server.set_link(&link, subnet),
            (server, _) => {
                self.dropped |= server.is_some();
                *server = dhcp4::Server::new(&link, Vec::new());
            }
        }
        match (&mut self.dhcp6, link.dhcp6_subnet()) {
            (Some(server), Some(subnet)) => server.set_link(&link, subnet),
            (server, _) => {
                self.dropped |= server.is_some();
                *server = dhcp6::Server6::new(&link, Vec::new());
            }
        }
        let old = std::mem::replace(&mut self.link, link);
        self.streams.set_link(self.link.mtu, |address| self.link.is_own(address));
        if self.link.advertises_as(&old) {
            return None;
        }
        if !advertises(&self.link) || old.mac != self.link.mac {
            let last = self.advertiser.take().and_then(|mut advertiser| advertiser.cease(&old));
            self.advertiser = advertises(&self.link).then(|| Advertiser::new(now, &self.link));
            return last.map(|frame| self.unasked(frame));
        }
        match &mut self.advertiser {
            Some(advertiser) => advertiser.set_link(now, &self.link),
            None => self.advertiser = Some(Advertiser::new(now, &self.link)),
        }
        None
    }

    /// The gateway ends.
    pub(super) fn cease(&mut self) -> Option<GatewayAnswer> {
        let frame = self.advertiser.as_mut().and_then(|advertiser| advertiser.cease(&self.link));
        frame.map(|frame| self.unasked(frame))
    }

    pub(super) fn tick(&mut self, now: Duration, random: &mut StdRng) -> Vec<GatewayAnswer> {
        let frame = self.advertiser.as_mut().and_then(|advertiser| advertiser.tick(now, &self.link, random));
        let mut frames = self.streams.tick(now);
        frames.extend(frame.map(|frame| (None, frame)));
        let mut answers: Vec<_> = frames.into_iter().map(|sent| self.sent(sent)).collect();
        answers.extend(self.offer(now));
        answers
    }

    fn unasked(&self, frame: Vec<u8>) -> GatewayAnswer {
        self.sent((None, frame))
    }

    fn sent(&self, (vlan, frame): Sent) -> GatewayAnswer {
        GatewayAnswer { bridge: self.link.bridge.clone(), vlan, frame }
    }

    pub(super) fn solicited(&mut self, now: Duration, punt: &Punt, from: Solicitation) -> Option<GatewayAnswer> {
        let frame = self.advertiser.as_mut()?.solicited(now, &self.link, from)?;
        Some(GatewayAnswer { vlan: punt.vlan, ..self.unasked(frame) })
    }

    /// A datagram for one of the DHCP servers.
    pub(super) fn requested(&mut self, now: Duration, punt: &Punt, datagram: &Datagram<'_>) -> Option<GatewayAnswer> {
        let link = &self.link;
        let frame = match datagram.destination.port() {
            dhcp4::SERVER_PORT => self.dhcp4.as_mut()?.receive(now, link, punt, datagram),
            dhcp6::SERVER_PORT => self.dhcp6.as_mut()?.receive(now, link, &punt.port, datagram),
            _ => None,
        };
        self.tell_of_exhaustion(now);
        frame.map(|frame| GatewayAnswer { vlan: punt.vlan, ..self.unasked(frame) })
    }

    /// A station says by ARP which address it has.
    pub(super) fn seen(&mut self, now: Duration, punt: &Punt, arp: Arp) -> Vec<GatewayAnswer> {
        let said = self.dhcp4.as_mut().map(|server| server.see(now, &self.link, &punt.port, arp));
        self.said(now, said.unwrap_or_default())
    }

    /// Whether a station waits until it is known that its address is free.
    pub(super) fn is_probing(&self) -> bool {
        self.dhcp4.as_ref().is_some_and(dhcp4::Server::is_probing)
    }

    /// Offers the addresses that no station has said to have.
    pub(super) fn offer(&mut self, now: Duration) -> Vec<GatewayAnswer> {
        let said = self.dhcp4.as_mut().map(|server| server.tick(now, &self.link));
        self.said(now, said.unwrap_or_default())
    }

    fn said(&mut self, now: Duration, said: Vec<(Punt, Vec<u8>)>) -> Vec<GatewayAnswer> {
        self.tell_of_exhaustion(now);
        said.into_iter().map(|(punt, frame)| self.sent((punt.vlan, frame))).collect()
    }

    fn tell_of_exhaustion(&mut self, now: Duration) {
        if self.told {
            return;
        }
        let bridge = &self.link.bridge;
        let short = self.pools(now).find(|pool| pool.shortages != Shortages::default());
        if let Some(Usage { subnet, size, used, shortages }) = short {
            if shortages.exhausted > 0 {
                tracing::warn!(
                    %bridge,
                    "a station got no address: of the {size} of {subnet} that may be given out {used} are in use (`vsctl leases {bridge}` \
                     lists them); give the bridge a larger subnet, or stations addresses of their own"
                );
            } else {
                tracing::warn!(
                    %bridge,
                    "a station got no address: its port has its share of {subnet}, which is half of what may be given out, or of what \
                     may be offered at a time (`vsctl leases {bridge}` lists who has which)"
                );
            }
            self.told = true;
        }
    }

    /// A datagram to port 53.
    pub(super) fn asked(&self, now: Duration, punt: &Punt, datagram: &Datagram<'_>, questions: &mut Shares) -> Option<Output> {
        if !self.link.is_own(datagram.destination.ip()) {
            return None;
        }
        let reply_to = ReplyTo {
            bridge: self.link.bridge.clone(),
            vlan: punt.vlan,
            hop: Hop { from: self.link.mac, to: datagram.mac },
            from: datagram.destination,
            to: datagram.source,
            mtu: self.link.mtu,
        };
        match self.decide(now, &punt.port, (datagram.payload, Transport::Udp(reply_to.room())), questions) {
            Decision::Ignore => None,
            Decision::Answer(message) => reply_to.wrap(&message).map(Output::Answer),
            Decision::Forward => Some(Output::Ask(Query::new(punt.port.clone(), Asker::Datagram(reply_to), datagram.payload))),
        }
    }

    /// A TCP segment to port 53.
    pub(super) fn heard(&mut self, now: Duration, punt: &Punt, segment: &Segment<'_>, questions: &mut Shares) -> Vec<Output> {
        let hop = Hop { from: self.link.mac, to: segment.mac };
        let is_own = self.link.is_own(segment.destination.ip());
        let (stream, sent) = self.streams.receive(now, (&punt.port, punt.vlan), segment, hop, is_own);
        let mut outputs: Vec<Output> = sent.into_iter().map(|sent| Output::Answer(self.sent(sent))).collect();
        if let Some(stream) = stream {
            outputs.extend(self.converse(now, &stream, questions));
        }
        outputs
    }

    /// What the resolvers said to a question on a connection.
    pub(super) fn resolved(
        &mut self,
        now: Duration,
        stream: &StreamId,
        answer: Option<&[u8]>,
        questions: &mut Shares,
    ) -> Vec<Output> {
        self.streams.say(now, stream, answer);
        self.converse(now, stream, questions)
    }

    /// Takes what a connection asks, as far as it may, and sends what there is to say.
    fn converse(&mut self, now: Duration, stream: &StreamId, questions: &mut Shares) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some((port, question)) = self.streams.question(now, stream) {
            match self.decide(now, &port, (&question, Transport::Tcp), questions) {
                Decision::Ignore => self.streams.say(now, stream, None),
                Decision::Answer(message) => self.streams.say(now, stream, Some(&message)),
                Decision::Forward => {
                    let asker = Asker::Stream(self.link.bridge.clone(), *stream);
                    outputs.push(Output::Ask(Query::new(port, asker, &question)));
                }
            }
        }
        let sent = self.streams.send(now, stream);
        outputs.extend(sent.into_iter().map(|sent| Output::Answer(self.sent(sent))));
        outputs
    }

    /// What becomes of a question; one to be asked on is counted.
    fn decide(
        &self,
        now: Duration,
        port: &PortName,
        (question, transport): (&[u8], Transport),
        questions: &mut Shares,
    ) -> Decision {
        let directory = NameDirectory { link: &self.link, leases: self.tables().collect(), now: now.as_secs() };
        match decide(&directory, question, transport) {
            Decision::Forward if !questions.begin(port) => {
                failure(question, Rcode::SERVFAIL).map_or(Decision::Ignore, Decision::Answer)
            }
            decision => decision,
        }
    }

    fn tables(&self) -> impl Iterator<Item = &Leases> {
        let v4 = self.dhcp4.as_ref().map(|server| &server.leases);
        v4.into_iter().chain(self.dhcp6.as_ref().map(|server| &server.leases))
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.tables().flat_map(Leases::rows)
    }

    pub(super) fn take_changed(&mut self) -> bool {
        let v4 = self.dhcp4.as_mut().is_some_and(|server| server.leases.take_changed());
        let v6 = self.dhcp6.as_mut().is_some_and(|server| server.leases.take_changed());
        std::mem::take(&mut self.dropped) | v4 | v6
    }

    /// How far the addresses are given out.
    pub(super) fn pools(&self, now: Duration) -> impl Iterator<Item = Usage> {
        let v4 = self.dhcp4.as_ref().map(|server| &server.leases).zip(self.link.dhcp4_subnet().map(IpNet::V4));
        let v6 = self.dhcp6.as_ref().map(|server| &server.leases).zip(self.link.dhcp6_subnet().map(IpNet::V6));
        v4.into_iter().chain(v6).map(move |(leases, subnet)| {
            let (size, used) = leases.usage(now.as_secs());
            Usage { subnet: subnet.trunc(), size, used, shortages: leases.shortages() }
        })
    }
}

fn advertises(link: &Link) -> bool {
    !link.prefixes().is_empty()
}
