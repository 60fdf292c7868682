//! Any bytes with any offload metadata through the parsers and out of a port that takes no offloads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::{Batch, Capabilities, Egress, Ethernet, Layers, Offload, Queued, Tag, TagEdit};

fuzz_target!(|input: (u8, [u8; 10], &[u8])| {
    let (choice, header, bytes) = input;
    let _ = Ethernet::parse(bytes);
    let _ = Layers::parse(bytes);
    if let Some(bpdu) = rstp::Bpdu::from_frame(bytes) {
        assert_eq!(rstp::Bpdu::from_frame(&bpdu.to_frame(packet::Mac([2, 0, 0, 0, 0, 1]))), Some(bpdu));
    }
    let offload = Offload::decode(header, bytes.len()).unwrap_or_default();
    let mut batch = Batch::new();
    batch.push(bytes, offload);
    batch.push(bytes, offload);
    let edit = match choice & 3 {
        0 => TagEdit::Keep,
        1 => TagEdit::Pop,
        2 => TagEdit::Push(Tag(10)),
        _ => TagEdit::Set(Tag(10)),
    };
    let bit = |number: u8| choice >> number & 1 == 1;
    let capabilities = Capabilities { checksum: bit(2), tcp4: bit(3), tcp6: bit(4), udp: bit(5), tunnel: bit(6) };
    let queue: Vec<_> = batch.frames().iter().map(|frame| Queued { frame, edit, peer: 0 }).collect();
    let mut sent = 0;
    Egress::new().run(&queue, capabilities, &mut |packet| {
        assert!(capabilities.accept(packet.offload), "a port gets only what it takes");
        sent += packet.parts.iter().map(|part| part.len()).sum::<usize>();
    });
    // The longest headers that are repeated have 512 bytes.
    assert!(sent <= 2 * (bytes.len() + 4) * 513, "segmentation does not run away");
});
