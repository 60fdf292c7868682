//! Any datagram through everything that a tunnel's receiver does to it, but for the sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::{Checksum, Ethernet, checksum};
use vxlan::{Admission, Binding, Bindings, Header, Inner, Peers, ecn};

fuzz_target!(|input: (u8, [u8; 16], Vec<u8>)| {
    let (class, source, mut datagram) = input;
    let Ok((header, frame)) = Header::decode(&datagram) else { return };
    assert_eq!(Header::decode(&[&header.encode()[..], frame].concat()), Ok((header, frame)));
    let (inner, before) = (Inner::of(frame), frame.to_vec());
    let frame = &mut datagram[vxlan::HEADER..];
    if ecn::carry(frame, class).is_ok() {
        assert_eq!((Inner::of(frame).flow, frame.len()), (inner.flow, before.len()), "only marks change");
    }
    if let Checksum::Partial { start, offset } = checksum::examine(frame) {
        checksum::complete(frame, start, offset).expect("the field is in the frame");
    }
    if let Ok(ethernet) = Ethernet::parse(frame) {
        let known = Binding { ip: source.into(), mac: ethernet.destination };
        let bindings: Bindings = [known, Binding { ip: [10, 0, 0, 9].into(), ..known }].into_iter().collect();
        assert!(bindings.answer(frame, &ethernet).is_none_or(|answer| answer.bytes().len() >= 60));
    }
    let peers = Peers::new(true);
    let Admission::Known(number) = peers.admit(source.into(), 0) else { panic!("there is room") };
    assert_eq!(peers.address(number), Some(std::net::IpAddr::from(source).to_canonical()));
});
