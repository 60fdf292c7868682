//! Explicit congestion notification across a tunnel (RFC 6040), in its normal mode.

use packet::checksum::Sum;

/// The two bits in the TOS field or traffic class (RFC 3168, section 5).
const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// A congestion mark on a packet whose sender would not understand it: it must be dropped (RFC 6040, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the underlay marked congestion on a packet that cannot carry the mark")]
pub struct Unmarkable;

/// The traffic class that comes out of a tunnel, of that of the packet inside and that of the one around it (RFC 6040, figure 4).
/// Its DSCP is the inner one.
///
/// # Errors
/// The one combination in which the packet must be dropped.
pub const fn combine(inner: u8, outer: u8) -> Result<u8, Unmarkable> {
    let mark = match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => return Err(Unmarkable),
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) => CE,
        (0b10, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Ok(inner & !MASK | mark)
}

/// Carries what happened to the outer packet over to the packet in `frame`. A frame without one stays as it is.
///
/// # Errors
/// The packet must be dropped.
pub fn carry(frame: &mut [u8], outer: u8) -> Result<(), Unmarkable> {
    if outer & MASK == NOT_ECT {
        return Ok(());
    }
    let Some((network, inner)) = crate::inner::traffic_class(frame) else { return Ok(()) };
    let combined = combine(inner, outer)?;
    if combined != inner {
        set_traffic_class(frame, network, combined);
    }
    Ok(())
}

/// Marks congestion on the packet in `frame`. Says whether it is marked then: that of a sender which would not understand it is not (RFC 3168,
/// section 5).
pub fn mark(frame: &mut [u8]) -> bool {
    let is_packet = crate::inner::traffic_class(frame).is_some();
    is_packet && carry(frame, CE).is_ok()
}

fn set_traffic_class(frame: &mut [u8], network: usize, class: u8) {
    let Some(header) = frame.get_mut(network..) else { return };
    match header {
        [first, second, ..] if *first >> 4 == 6 => {
            (*first, *second) = (*first & 0xf0 | class >> 4, *second & 0x0f | class << 4);
        }
        [first, tos, rest @ ..] => {
            let before = Sum::new().plus(&[*first, *tos]).folded();
            *tos = class;
            let after = Sum::new().plus(&[*first, *tos]).folded();
            // The checksum is updated, not computed anew, so that a wrong one stays wrong (RFC 1624, equation 3).
            if let Some(field) = rest.get_mut(8..10) {
                let old = u16::from_be_bytes([field[0], field[1]]);
                let sum = Sum::new().plus_number(!old).plus_number(!before).plus_number(after);
                field.copy_from_slice(&sum.checksum().to_be_bytes());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const ECT_0: u8 = 0b10;

    #[test]
    fn a_packet_is_marked_if_its_sender_understands_it() {
        for (class, marked) in [(0xb8, None), (0xba, Some(0xbb)), (0xb9, Some(0xbb)), (0xbb, Some(0xbb))] {
            for six in [false, true] {
                let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
                let mut frame = Vec::new();
                let builder = if six { builder.ipv6([1; 16], [2; 16], 9) } else { builder.ipv4([1; 4], [2; 4], 9) };
                builder.udp(1, 2).write(&mut frame, b"x").unwrap();
                set_traffic_class(&mut frame, 14, class);
                let before = frame.clone();
                assert_eq!(mark(&mut frame), marked.is_some());
                assert_eq!(crate::inner::traffic_class(&frame), Some((14, marked.unwrap_or(class))));
                assert!(marked.is_some() || frame == before);
            }
        }
        assert!(!mark(&mut [0; 60]) && !mark(&mut []), "no packet");
    }

    #[test]
    fn marks_combine_as_in_figure_4_of_rfc_6040() {
        let outers = [NOT_ECT, ECT_0, ECT_1, CE];
        for (inner, row) in [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), Err(Unmarkable)]),
            (ECT_0, [Ok(ECT_0), Ok(ECT_0), Ok(ECT_1), Ok(CE)]),
            (ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)]),
            (CE, [Ok(CE); 4]),
        ] {
            assert_eq!(outers.map(|outer| combine(inner, outer)), row, "inner {inner:02b}");
            let dscp = 0b1011_1000;
            assert_eq!(outers.map(|outer| combine(inner | dscp, outer)), row.map(|cell| cell.map(|mark| mark | dscp)));
        }
    }

    #[test]
    fn a_marked_packet_keeps_a_good_checksum() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut frame, b"x")
            .unwrap();
        assert_eq!(carry(&mut frame, CE), Err(Unmarkable));
        set_traffic_class(&mut frame, 14, ECT_0);
        carry(&mut frame, CE).unwrap();
        assert_eq!(frame[15], CE);
        let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
    }

    #[test]
    fn ipv6_has_its_class_across_two_bytes() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64).udp(1, 2).write(&mut frame, b"x").unwrap();
        set_traffic_class(&mut frame, 14, 0xb8 | ECT_0);
        carry(&mut frame, CE).unwrap();
        assert_eq!(crate::inner::traffic_class(&frame), Some((14, 0xb8 | CE)));
        assert_eq!(frame[14] >> 4, 6);
    }

    #[test]
    fn what_is_no_packet_stays_as_it_is() {
        for bytes in [&[][..], &[0; 13], &[0; 14], &[0xff; 60], &[8, 0]] {
            let mut frame = bytes.to_vec();
            assert_eq!(carry(&mut frame, CE), Ok(()));
            assert_eq!(frame, bytes);
        }
    }
}
