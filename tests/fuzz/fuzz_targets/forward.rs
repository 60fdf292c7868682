//! Any frames on any ports, between changes of the ports, through the whole datapath.
#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use packet::{Batch, Mac, Offload, VlanId};
use vswitch::api::{ControlFrames, VlanMode};
use vswitch::datapath::{BridgeId, BridgeSettings, Datapath, Guard, Outputs, PortId, PortSettings};

#[derive(Arbitrary, Debug)]
enum Step {
    Frames(u8, Vec<(Vec<u8>, [u8; 10])>),
    SetPort { port: u8, bridge: bool, vlan: u16, trunk: u16, guard: bool, limit: Option<u8> },
    RemovePort(u8),
    SetBridge { bridge: bool, mtu: u16, macs: u8, pass: bool },
    RemoveBridge(bool),
    Wait(u16),
    Flush(bool),
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = Instant::now();
    let mut datapath = Datapath::new(now, 1);
    let (mut batch, mut outputs) = (Batch::new(), Outputs::new());
    for step in steps {
        match step {
            Step::Frames(port, frames) => {
                batch.set_ingress(port.into());
                for (bytes, header) in frames.iter().take(Batch::FRAMES) {
                    batch.push(bytes, Offload::decode(*header, bytes.len()).unwrap_or_default());
                }
                datapath.forward(now, &mut batch, &mut outputs);
                for egress in outputs.used() {
                    assert_ne!(*egress, PortId(port.into()), "nothing goes back");
                    assert!(outputs.queue(*egress).len() <= batch.frames().len());
                }
                outputs.clear();
                batch.clear();
            }
            Step::SetPort { port, bridge, vlan, trunk, guard, limit } => {
                let vlan = VlanId::try_from(vlan);
                let trunk = VlanId::try_from(trunk);
                let vlans = match (vlan, trunk) {
                    (Err(_), Err(_)) => VlanMode::All,
                    (Ok(vlan), Err(_)) => VlanMode::Access(vlan),
                    (native, Ok(vlan)) => VlanMode::Trunk { allowed: vec![vlan], native: native.ok() },
                };
                let guard = guard.then(|| Guard { mac: Mac([2, 0, 0, 0, 0, port]), addresses: vec![[10, 0, 0, port].into()] });
                let bridge = BridgeId(bridge.into());
                let broadcast_limit = limit.map(|limit| u32::from(limit) + 1);
                datapath.set_port(now, PortId(port.into()), &PortSettings { bridge, vlans, guard, broadcast_limit, tunnel: None });
            }
            Step::RemovePort(port) => datapath.remove_port(PortId(port.into())),
            Step::SetBridge { bridge, mtu, macs, pass } => {
                let control_frames = if pass { ControlFrames::Pass } else { ControlFrames::Drop };
                let settings = BridgeSettings { mtu, ageing: 300, max_macs: u32::from(macs) + 1, control_frames };
                datapath.set_bridge(now, BridgeId(bridge.into()), settings);
            }
            Step::RemoveBridge(bridge) => datapath.remove_bridge(BridgeId(bridge.into())),
            Step::Wait(seconds) => {
                now += Duration::from_secs(seconds.into());
                datapath.expire(now);
            }
            Step::Flush(bridge) => datapath.flush_fdb(BridgeId(bridge.into())),
        }
        for bridge in [BridgeId(0), BridgeId(1)] {
            assert!(datapath.fdb(now, bridge).rows.len() <= 256, "the table keeps its cap");
        }
    }
});
