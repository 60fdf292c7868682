//! IPv4 packets that are longer than the way on allows, and may be cut (RFC 791, section 3.2).

use packet::{Checksum, IpPacket, Offload, checksum};

use super::{Arrival, Decision, DropReason, Observer, Paths, Plan, Router};

const MORE: u16 = 0x2000;
/// The bit that says that an option is copied into every fragment (RFC 791, section 3.1).
const COPIED: u8 = 0x80;

impl Router {
    /// Sends a packet on, which is not a super-frame, in fragments of at most `mtu` bytes.
    pub(super) fn send_in_fragments(
        &mut self,
        at: &Arrival,
        (mut whole, offload): (Vec<u8>, Offload),
        plan: Plan,
        mtu: u16,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        let packet = IpPacket::parse(&whole, &at.ethernet).ok_or(DropReason::Malformed)?;
        whole.truncate(packet.end);
        if let Some(nat) = plan.nat {
            nat.apply(&mut whole, packet.network, &offload);
        }
        // A checksum covers all fragments, so the first cannot leave it to the receiver.
        if let Checksum::Partial { start, offset } = offload.checksum {
            checksum::complete(&mut whole, start, offset).ok_or(DropReason::Malformed)?;
        }
        let mut fate = Err(DropReason::Malformed);
        for piece in fragments(&whole, &packet, mtu.into()) {
            let index = paths.push_of((paths.id(at.index), plan.port), &piece, Offload::default())?;
            fate = Ok(self.resolve(index, Plan { nat: None, ..plan }, &packet, at, paths)?);
        }
        fate
    }
}

/// Cuts a packet whose IP header is at `packet.network` of `frame`.
fn fragments(frame: &[u8], packet: &IpPacket, mtu: usize) -> Vec<Vec<u8>> {
    let (front, header) = (&frame[..packet.network], &frame[packet.network..packet.transport]);
    let data = &frame[packet.transport..packet.end];
    let bits = u16::from_be_bytes([header[6], header[7]]);
    let room = (mtu - header.len()) / 8 * 8;
    let mut pieces = Vec::new();
    for (number, piece) in data.chunks(room).enumerate() {
        let mut header = if number == 0 { header.to_vec() } else { later_header(header) };
        let last = (number + 1) * room >= data.len();
        let more = if last { bits & MORE } else { MORE };
        let offset = (bits & 0x1fff) + u16::try_from(number * room / 8).unwrap_or(0);
        let length = u16::try_from(header.len() + piece.len()).unwrap_or(u16::MAX);
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum::Sum::new().plus(&header).checksum();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        pieces.push([front, &header, piece].concat());
    }
    pieces
}

/// The header of a fragment that is not the first: it repeats only the options that say so.
fn later_header(first: &[u8]) -> Vec<u8> {
    let (fixed, mut options) = first.split_at(20);
    let mut header = fixed.to_vec();
    while let Some((&kind, rest)) = options.split_first() {
        // End of options, no operation, or a type with its length.
        let length = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(rest.first().copied().unwrap_or(0)).max(2),
        };
        let (option, others) = options.split_at(length.min(options.len()));
        if kind & COPIED != 0 {
            header.extend_from_slice(option);
        }
        options = others;
    }
    header.resize(header.len().next_multiple_of(4), 0);
    header[0] = 0x40 | u8::try_from(header.len() / 4).unwrap_or(5);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header, Ipv4Options};
    use packet::Ethernet;
    use proptest::prelude::*;

    fn packet(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let mut header = Ipv4Header::new(length, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        header.options = Ipv4Options::try_from(options).unwrap();
        header.total_len = u16::try_from(header.header_len() + payload.len()).unwrap();
        (header.identification, header.dont_fragment) = (4711, false);
        header.header_checksum = header.calc_header_checksum();
        [&[0; 12][..], &[8, 0], &header.to_bytes(), payload].concat()
    }

    fn parse(frame: &[u8]) -> IpPacket {
        IpPacket::parse(frame, &Ethernet::parse(frame).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn fragments_fit_and_make_the_packet_again(length in 1usize..5000, mtu in 68usize..1500) {
            let payload: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let frame = packet(&[], &payload);
            let mut whole = vec![0; length];
            let pieces = fragments(&frame, &parse(&frame), mtu);
            for (number, piece) in pieces.iter().enumerate() {
                let part = parse(piece);
                prop_assert!(part.length() <= mtu);
                let (offset, more) = part.fragment.map_or((0, false), |part| (usize::from(part.offset), part.more));
                prop_assert_eq!(more, number + 1 < pieces.len());
                whole[offset..offset + part.end - part.transport].copy_from_slice(&piece[part.transport..part.end]);
            }
            prop_assert_eq!(whole, payload);
        }
    }

    #[test]
    fn a_fragment_of_a_fragment_keeps_its_place() {
        let mut frame = packet(&[], &[7; 100]);
        frame[20..22].copy_from_slice(&(MORE | 10).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum::Sum::new().plus(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let offsets: Vec<_> =
            fragments(&frame, &parse(&frame), 68).iter().map(|piece| parse(piece).fragment.unwrap()).collect();
        assert_eq!(
            offsets.iter().map(|part| (part.offset, part.more)).collect::<Vec<_>>(),
            [(80, true), (128, true), (176, true)]
        );
    }

    #[test]
    fn later_fragments_repeat_only_the_options_that_are_copied() {
        // Record route (7) is not copied, loose source route (131) is.
        let frame = packet(&[7, 3, 4, 131, 7, 4, 1, 2, 3, 4, 1, 0], &[7; 100]);
        let pieces = fragments(&frame, &parse(&frame), 84);
        assert_eq!(pieces[0][14] & 0x0f, 8);
        assert_eq!(pieces[1][14] & 0x0f, 7);
        assert_eq!(pieces[1][34..42], [131, 7, 4, 1, 2, 3, 4, 0]);
    }
}
