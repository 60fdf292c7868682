//! What is for the gateway itself.

use super::*;

#[test]
fn arp_that_may_be_about_an_address_by_dhcp_goes_to_its_client() {
    let mut lab = Lab::new(true, nat());
    let own = [192, 0, 2, 10];
    for (operation, mac, sender, target, expected) in [
        (ArpOperation::REQUEST, 4, [192, 0, 2, 1], own, 0),
        (ArpOperation::REQUEST, 4, [192, 0, 2, 1], [192, 0, 2, 7], 0),
        (ArpOperation::REPLY, 4, [192, 0, 2, 7], [0; 4], 1),
        (ArpOperation::REQUEST, 4, [0; 4], [192, 0, 2, 7], 1),
        (ArpOperation::REQUEST, 4, own, [192, 0, 2, 1], 1),
        (ArpOperation::REPLY, 4, own, own, 1),
    ] {
        lab.send(WAN, &arp(operation, station(mac), Mac::BROADCAST, sender, target));
        assert_eq!(lab.datapath.take_punts().count(), expected, "{sender:?} {target:?}");
    }
    // It is no affair of a bridge's own, and what the uplink says itself comes back now and then.
    lab.send(A, &arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [0; 4], [10, 0, 0, 7]));
    lab.send(WAN, &arp(ArpOperation::REQUEST, gateway(9), Mac::BROADCAST, own, own));
    assert_eq!(lab.datapath.take_punts().count(), 0);
}
