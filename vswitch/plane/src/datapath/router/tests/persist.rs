//! A data plane that carries on where another ended.

use super::*;

/// A lab in the place of another, of which the clock began an hour before.
fn successor(old: &Lab) -> Lab {
    let mut new = Lab::new(true, nat());
    new.publish();
    new.now += Duration::from_secs(3600);
    for bridge in [BridgeId(0), BridgeId(1), UPLINK] {
        assert_eq!(new.datapath.import(bridge, old.datapath.export(bridge, old.now), new.now), 0);
    }
    new
}

#[test]
fn a_flow_goes_on_as_if_nothing_had_been() {
    let mut old = Lab::new(true, nat());
    old.introduce();
    old.publish();
    assert_eq!(old.send(A, &out(64, b"query")).len(), 1);
    let forwarded = udp((station(4), HOST, 999), (gateway(9), [192, 0, 2, 10], 8080), 60, b"in");
    assert_eq!(old.send(WAN, &forwarded).len(), 1);
    let mut new = successor(&old);
    // The other end speaks first, and nothing is asked for or flooded.
    let back = udp((station(4), HOST, 53), (gateway(9), [192, 0, 2, 10], 5000), 60, b"answer");
    let left = new.send(WAN, &back);
    let [Left(A, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), (HOST, 53, [10, 0, 0, 11], 5000, 59));
    assert_eq!(new.send(WAN, &forwarded).len(), 1);
    let again = udp((station(1), [10, 0, 0, 11], 5000), (station(2), [10, 0, 0, 12], 1), 64, b"bridged");
    assert!(matches!(&new.send(A, &again)[..], [Left(B, _)]));
    let bridges = [BridgeId(0), BridgeId(1), UPLINK];
    let counted = |lab: &Lab| bridges.map(|bridge| lab.datapath.export(bridge, lab.now)).map(|saved| saved.sessions.len());
    assert_eq!(counted(&new), [0, 0, 2]);
}

#[test]
fn what_fits_nothing_here_stays_out() {
    let mut old = Lab::new(true, nat());
    old.introduce();
    old.publish();
    let forwarded = udp((station(4), HOST, 999), (gateway(9), [192, 0, 2, 10], 8080), 60, b"in");
    assert_eq!(old.send(WAN, &forwarded).len(), 1);
    // Without the forward, without port B, and with another gateway's bridge.
    let mut new = Lab::new(true, nat());
    new.datapath.remove_port(B);
    assert_eq!(new.datapath.import(UPLINK, old.datapath.export(UPLINK, old.now), new.now), 1);
    assert_eq!(new.datapath.import(BridgeId(0), old.datapath.export(BridgeId(0), old.now), new.now), 0);
    let ports = new.datapath.export(BridgeId(0), new.now).addresses.into_iter().map(|row| row.place.port);
    assert_eq!(ports.collect::<Vec<_>>(), [A]);
    assert_eq!(new.datapath.import(BridgeId(77), old.datapath.export(UPLINK, old.now), new.now), 1);
}
