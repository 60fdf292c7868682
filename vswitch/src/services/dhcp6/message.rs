//! The wire format: a type, a transaction and options, each with a type and a length of 16 bits. Options inside options are
//! looked into as far as the server understands them, one level deep, so that no message can make it recurse.

/// Message types (RFC 8415, section 7.3).
pub(super) mod kind {
    pub(in crate::services) const SOLICIT: u8 = 1;
    pub(in crate::services) const ADVERTISE: u8 = 2;
    pub(in crate::services) const REQUEST: u8 = 3;
    pub(in crate::services) const CONFIRM: u8 = 4;
    pub(in crate::services) const RENEW: u8 = 5;
    pub(in crate::services) const REBIND: u8 = 6;
    pub(in crate::services) const REPLY: u8 = 7;
    pub(in crate::services) const RELEASE: u8 = 8;
    pub(in crate::services) const DECLINE: u8 = 9;
    pub(in crate::services) const INFORMATION: u8 = 11;
}

/// Option codes (RFC 8415, section 21; RFC 3646).
pub(super) mod option {
    pub(in crate::services) const CLIENT: u16 = 1;
    pub(in crate::services) const SERVER: u16 = 2;
    pub(in crate::services) const IA_NA: u16 = 3;
    pub(in crate::services) const ADDRESS: u16 = 5;
    pub(in crate::services) const STATUS: u16 = 13;
    pub(in crate::services) const RAPID: u16 = 14;
    pub(in crate::services) const DNS: u16 = 23;
    pub(in crate::services) const SEARCH: u16 = 24;
    pub(in crate::services) const IA_PD: u16 = 25;
}

/// Status codes (RFC 8415, section 21.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Success = 0,
    NoAddresses = 2,
    NoBinding = 3,
    NotOnLink = 4,
    NoPrefix = 6,
}

/// Longest DUID: a type and 128 bytes (RFC 8415, section 11.1).
const LONGEST_DUID: usize = 130;
/// Most identity associations of a message that are looked at; clients have one for each interface.
const MOST_ASSOCIATIONS: usize = 4;
/// IAID, T1, T2, before the options of an association.
const IA_HEADER: usize = 12;

/// A received message.
#[derive(Debug)]
pub(super) struct Message6<'a> {
    pub(super) kind: u8,
    pub(super) transaction: [u8; 3],
    options: &'a [u8],
}

impl<'a> Message6<'a> {
    /// Reads a message; `None` if it is cut off or its client's DUID is longer than one may be.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let ([kind, a, b, c], options) = payload.split_first_chunk::<4>()?;
        let message = Self { kind: *kind, transaction: [*a, *b, *c], options };
        message.client().is_none_or(|duid| (1..=LONGEST_DUID).contains(&duid.len())).then_some(message)
    }

    pub(super) fn option(&self, code: u16) -> Option<&'a [u8]> {
        options(self.options).find(|(found, _)| *found == code).map(|(_, data)| data)
    }

    pub(super) fn client(&self) -> Option<&'a [u8]> {
        self.option(option::CLIENT)
    }

    pub(super) fn server(&self) -> Option<&'a [u8]> {
        self.option(option::SERVER)
    }

    /// The identity associations for addresses.
    pub(super) fn associations(&self) -> impl Iterator<Item = Association<'a>> {
        let all = options(self.options).filter(|(code, _)| *code == option::IA_NA);
        all.filter_map(|(_, data)| Association::parse(data)).take(MOST_ASSOCIATIONS)
    }

    /// The identifiers of associations for prefixes, which are not delegated here.
    pub(super) fn delegations(&self) -> impl Iterator<Item = [u8; 4]> {
        let all = options(self.options).filter(|(code, _)| *code == option::IA_PD);
        all.filter_map(|(_, data)| data.first_chunk().copied()).take(MOST_ASSOCIATIONS)
    }
}

/// An identity association: what a client calls one of its interfaces, and addresses that it has or wishes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Association<'a> {
    pub(super) id: [u8; 4],
    options: &'a [u8],
}

impl<'a> Association<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        Some(Self { id: *data.first_chunk()?, options: data.get(IA_HEADER..)? })
    }

    pub(super) fn addresses(self) -> impl Iterator<Item = std::net::Ipv6Addr> {
        let all = options(self.options).filter(|(code, _)| *code == option::ADDRESS);
        all.filter_map(|(_, data)| data.first_chunk::<16>().map(|bytes| (*bytes).into()))
    }
}

/// Options until the first that is cut off.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let ([c0, c1, l0, l1], rest) = bytes.split_first_chunk::<4>()?;
        let (data, rest) = rest.split_at_checked(u16::from_be_bytes([*l0, *l1]).into())?;
        bytes = rest;
        Some((u16::from_be_bytes([*c0, *c1]), data))
    })
}

/// Appends an option; one that is too long is left out.
pub(super) fn put(bytes: &mut Vec<u8>, code: u16, data: &[u8]) {
    if let Ok(length) = u16::try_from(data.len()) {
        bytes.extend(code.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(data);
    }
}

/// Appends a status.
pub(super) fn put_status(bytes: &mut Vec<u8>, status: Status) {
    put(bytes, option::STATUS, &(status as u16).to_be_bytes());
}

/// A domain name as labels (RFC 1035, section 3.1).
pub(super) fn name(text: &str) -> Vec<u8> {
    let labels = text
        .split('.')
        .filter_map(|label| u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length)).zip(Some(label)));
    let mut bytes: Vec<u8> = labels.flat_map(|(length, label)| std::iter::once(length).chain(label.bytes())).collect();
    bytes.push(0);
    bytes
}
