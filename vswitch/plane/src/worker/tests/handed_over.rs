//! What one worker hands to the one that routes: no flow waits for another's queue.

use etherparse::PacketBuilder;

use super::fates::{datagram, gateway};
use super::still::Still;
use super::*;

/// Two workers, of which the first routes, and a gateway.
fn routed() -> Still {
    let mut still = Still::new(2);
    for worker in &mut still.workers {
        worker.execute(Command::SetGateway(BridgeId(0), Some(gateway())), still.now);
    }
    still
}

/// Lets the second worker hand over what came in by port 0.
fn hand_over(still: &mut Still) {
    still.workers[1].make_all_ready();
    while !still.workers[1].ready.is_empty() {
        still.workers[1].turn(still.now);
    }
}

/// A ping to the gateway.
fn echo() -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], gateway().mac.0).ipv4([10, 0, 0, 11], [10, 0, 0, 1], 64);
    builder.icmpv4_echo_request(7, 1).write(&mut bytes, b"ping").unwrap();
    bytes
}

#[test]
fn a_ping_does_not_wait_for_a_flood_that_was_handed_over_before() {
    let mut still = routed();
    let long = [&datagram(1, [203, 0, 113, 9])[..], &[0; 1300]].concat();
    (0..900).for_each(|_| assert!(still.far[0][1].push(&long, Offload::default())));
    assert!(still.far[0][1].push(&echo(), Offload::default()));
    hand_over(&mut still);
    // The flood had its turn when the ping came.
    assert!(still.workers[0].route(still.now) && still.workers[0].route(still.now));
    let answers = still.drain(0).into_iter().filter(|(bytes, _)| bytes[23] == 1 && bytes[34] == 0).count();
    assert_eq!(answers, 1, "the echo reply");
    assert!(still.counters(0).drops(DropReason::NoRoute) < 900, "the flood still waits");
    still.work(Duration::ZERO);
    assert_eq!(still.counters(0).drops(DropReason::NoRoute), 900);
}

#[test]
fn what_was_handed_over_goes_on_before_the_worker_stands_still() {
    let mut still = routed();
    assert!(still.far[0][1].push(&echo(), Offload::default()));
    hand_over(&mut still);
    let (reply, answer) = crossbeam_channel::bounded(1);
    still.workers[0].execute(Command::Pause(reply), still.now);
    answer.recv().unwrap();
    let answers = still.drain(0).into_iter().filter(|(bytes, _)| bytes[23] == 1 && bytes[34] == 0).count();
    assert_eq!(answers, 1, "the echo reply");
}

#[test]
fn what_finds_no_room_is_lost_from_the_longest_queue_and_counted() {
    let mut still = routed();
    let few = |port: u16| datagram(port, [203, 0, 113, 9]);
    (0..5).for_each(|_| assert!(still.far[0][1].push(&few(2), Offload::default())));
    hand_over(&mut still);
    for _ in 0..3 {
        (0..1000).for_each(|_| assert!(still.far[0][1].push(&few(1), Offload::default())));
        hand_over(&mut still);
        let lost = still.workers[0].inbox.take_in(still.now);
        assert!(lost.iter().all(|frame| frame.bytes == few(1)));
        lost.into_iter().for_each(|frame| still.workers[0].lose_handover(frame));
    }
    still.work(Duration::ZERO);
    let counters = still.counters(0);
    let (lost, routed) = (counters.drops(DropReason::QueueFull), counters.drops(DropReason::NoRoute));
    assert!(lost > 1900 && lost + routed == 3005, "{lost} lost, {routed} routed");
    assert_eq!(counters.rx_frames, 3005);
}
