//! Keeps the host's own network stack away from an interface that the switch listens to.
//!
//! Without it the kernel would answer ARP requests for every address of the host that come in there, and route packets that
//! are addressed to the interface. Packet sockets get their copy of a frame before traffic control sees it
//! (`__netif_receive_skb_core`: `ptype_all`, then `sch_handle_ingress`), so a filter that drops everything there is enough.

use std::io;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rustix::io::Errno;

use super::error::is;
use super::netlink::Netlink;

/// Attributes of classic BPF filters (linux/pkt_cls.h).
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
/// `struct sock_filter { BPF_RET | BPF_K, 0, 0, TC_ACT_SHOT }`: drop.
const DROP: (u16, u32) = (0x06, 2);

/// Drops all that the interface would hand to the host's stack. Doing it again is fine.
pub(super) fn isolate(netlink: &Netlink, index: u32) -> io::Result<()> {
    let index = i32::try_from(index).map_err(|_| Errno::NODEV)?;
    let mut qdisc = TcMessage::with_index(index);
    qdisc.header.parent = TcHandle::CLSACT;
    qdisc.header.handle = TcHandle { major: 0xffff, minor: 0 };
    qdisc.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    create(netlink, RouteNetlinkMessage::NewQueueDiscipline(qdisc))?;

    let mut filter = TcMessage::with_index(index);
    filter.header.parent = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
    filter.header.handle = TcHandle { major: 0, minor: 1 };
    // Priority 1, every protocol.
    filter.header.info = u32::from(TcHandle { major: 1, minor: 3u16.to_be() });
    filter.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned()), TcAttribute::Options(program())];
    create(netlink, RouteNetlinkMessage::NewTrafficFilter(filter))
}

fn program() -> Vec<TcOption> {
    let (code, action) = DROP;
    let instruction: Vec<u8> = code.to_ne_bytes().into_iter().chain([0, 0]).chain(action.to_ne_bytes()).collect();
    let length = 1u16.to_ne_bytes().to_vec();
    vec![
        TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(TCA_BPF_OPS_LEN, length))),
        TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(TCA_BPF_OPS, instruction))),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]
}

fn create(netlink: &Netlink, message: RouteNetlinkMessage) -> io::Result<()> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut handle = netlink.handle.clone();
    let mut answers = handle.request(request).map_err(super::netlink::into_io)?;
    while let Some(answer) = netlink.runtime.block_on(answers.next()) {
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() && !is(&error.to_io(), Errno::EXIST) => {
                return Err(error.to_io());
            }
            _ => {}
        }
    }
    Ok(())
}
