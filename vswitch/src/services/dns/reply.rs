//! What becomes of a DNS question to a gateway: answered here, passed on to the host's resolvers, or ignored. `services/network.rs` calls it.
//! A pure function of the message and of what is known about the bridge.

use std::convert::Infallible;
use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{OptBuilder, PushError};
use domain::base::name::{Name, ToName};
use domain::base::{Message, MessageBuilder, Rtype, Serial, Ttl};
use domain::rdata::{A, Aaaa, Ptr, Soa};

use super::names::{NameDirectory, NameFound};
use super::{LOCAL, Transport, ZONE};

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::services) enum Decision {
    /// This is the answer.
    Answer(Vec<u8>),
    /// The host's resolvers are asked.
    Forward,
    /// It is no question.
    Ignore,
}

/// Seconds for which an answer of ours may be kept: stations come and go.
const SECONDS: u32 = 30;
/// Longest answer in a datagram to a question without EDNS (RFC 1035, section 4.2.1), and to one with it, whatever it allows.
const PLAIN: u16 = 512;
const EXTENDED: u16 = 1232;

/// A name as labels in lower case. What is not ASCII, and a dot inside a label, matches nothing.
fn labels(name: &impl ToName) -> Vec<String> {
    let plain = |byte: &u8| if byte.is_ascii() && *byte != b'.' { char::from(byte.to_ascii_lowercase()) } else { '\u{fffd}' };
    let all = name.iter_labels().filter(|label| !label.is_root());
    all.map(|label| label.as_slice().iter().map(plain).collect()).collect()
}

/// Decides about a message to port 53.
pub(in crate::services) fn decide(directory: &NameDirectory<'_>, payload: &[u8], transport: Transport) -> Decision {
    let Ok(message) = Message::from_octets(payload) else { return Decision::Ignore };
    if message.header().qr() {
        return Decision::Ignore;
    }
    if message.header().opcode() != Opcode::QUERY {
        return failed(payload, Rcode::NOTIMP);
    }
    // Of EDNS there is one version (RFC 6891, section 6.1.3).
    if message.opt().is_some_and(|opt| opt.version() > 0) {
        return error(payload, OptRcode::BADVERS).map_or(Decision::Ignore, Decision::Answer);
    }
    let Ok(question) = message.sole_question() else { return failed(payload, Rcode::FORMERR) };
    let found = directory.find(&labels(question.qname()));
    let records = match (&found, question.qclass()) {
        (NameFound::Foreign, _) => return Decision::Forward,
        (NameFound::Station(addresses), Class::IN | Class::ANY) => addresses.as_slice(),
        _ => &[],
    };
    let wanted: Vec<_> = records.iter().filter(|address| fits(question.qtype(), address)).copied().collect();
    let longest = longest(&message, transport);
    answer(&message, &found, &wanted, longest).map_or_else(|_| failed(payload, Rcode::SERVFAIL), Decision::Answer)
}

fn fits(kind: Rtype, address: &IpAddr) -> bool {
    kind == Rtype::ANY || kind == if address.is_ipv4() { Rtype::A } else { Rtype::AAAA }
}

fn failed(payload: &[u8], code: Rcode) -> Decision {
    failure(payload, code).map_or(Decision::Ignore, Decision::Answer)
}

/// An answer without records: an error, or, as `NOERROR`, one that did not fit.
pub(in crate::services) fn failure(payload: &[u8], code: Rcode) -> Option<Vec<u8>> {
    error(payload, code.into())
}

fn error(payload: &[u8], code: OptRcode) -> Option<Vec<u8>> {
    let message = Message::from_octets(payload).ok()?;
    let mut answer = MessageBuilder::new_vec().start_error(&message, code.rcode());
    answer.header_mut().set_ra(true);
    answer.header_mut().set_tc(code == OptRcode::NOERROR);
    let mut additional = answer.additional();
    if message.opt().is_some() {
        let extended = |opt: &mut OptBuilder<'_, Vec<u8>>| {
            opt.set_rcode(code);
            size(opt)
        };
        additional.opt(extended).ok()?;
    }
    Some(additional.finish())
}

/// Our own EDNS: the size, and nothing else.
fn size(opt: &mut OptBuilder<'_, Vec<u8>>) -> Result<(), Infallible> {
    opt.set_udp_payload_size(EXTENDED);
    Ok(())
}

/// Longest answer that the question allows.
fn longest(message: &Message<&[u8]>, transport: Transport) -> u16 {
    match transport {
        Transport::Udp(_) => message.opt().map_or(PLAIN, |opt| opt.udp_payload_size().clamp(PLAIN, EXTENDED)),
        Transport::Tcp => u16::MAX,
    }
}

fn answer(message: &Message<&[u8]>, found: &NameFound, addresses: &[IpAddr], longest: u16) -> Result<Vec<u8>, PushError> {
    let question = message.sole_question().map_err(|_| PushError::ShortBuf)?;
    // Room for OPT itself, which comes last.
    let limit = usize::from(longest) - 11;
    let mut builder = MessageBuilder::new_vec();
    builder.set_push_limit(limit);
    let code = if *found == NameFound::Nothing { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut answer = builder.start_answer(message, code)?;
    answer.header_mut().set_ra(true);
    answer.header_mut().set_aa(true);
    let owner = question.qname();
    let mut empty = addresses.is_empty();
    for address in addresses {
        let pushed = match address {
            IpAddr::V4(address) => answer.push((owner, SECONDS, A::new(*address))),
            IpAddr::V6(address) => answer.push((owner, SECONDS, Aaaa::new(*address))),
        };
        if pushed.is_err() {
            answer.header_mut().set_tc(true);
            break;
        }
    }
    if let NameFound::Reverse(target) = found
        && matches!(question.qtype(), Rtype::PTR | Rtype::ANY)
    {
        let target: Name<Vec<u8>> = target.parse().map_err(|_| PushError::ShortBuf)?;
        answer.push((owner, SECONDS, Ptr::new(target)))?;
        empty = false;
    }
    let mut authority = answer.authority();
    if empty {
        authority.push(authority_of(message)?)?;
    }
    let mut additional = authority.additional();
    additional.clear_push_limit();
    if message.opt().is_some() {
        additional.opt(size)?;
    }
    Ok(additional.finish())
}

type Authority = (Name<Vec<u8>>, u32, Soa<Name<Vec<u8>>>);

/// The SOA that says for how long "no" holds (RFC 2308, section 3), of the zone in which the name is.
fn authority_of(message: &Message<&[u8]>) -> Result<Authority, PushError> {
    let name = |text: &str| text.parse::<Name<Vec<u8>>>().map_err(|_| PushError::ShortBuf);
    let question = message.sole_question().map_err(|_| PushError::ShortBuf)?;
    let labels = labels(question.qname());
    let zone = match labels.as_slice() {
        [.., last] if last == ZONE || last == LOCAL => name(last)?,
        _ => question.qname().to_name(),
    };
    let seconds = Ttl::from_secs(SECONDS);
    let soa = Soa::new(name(ZONE)?, name("vswitch.internal")?, Serial(1), seconds, seconds, seconds, seconds);
    Ok((zone, SECONDS, soa))
}
