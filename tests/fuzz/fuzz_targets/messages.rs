//! Any text as JSON from others: a request or a capture on the control socket, what was kept of a switch, a call of Docker's. What is
//! understood is written as it was read, and laid out like the file.
//!
//! The first byte says which, and for a call of Docker's which method.
#![no_main]

use libfuzzer_sys::fuzz_target;
use api::{CaptureRequest, Request};
use plane::capture::Program;
use vswitch::config::{Config, FromHosts, State, merge};
use vswitch::docker::message::{self, DockerCall, Driver};
use vswitch::docker::{Network, Pools, overlay};
use vswitch::flannel::FlannelTables;
use vswitch::overlay::Elsewhere;

const METHODS: [&str; 14] = [
    "/NetworkDriver.CreateNetwork",
    "/NetworkDriver.DeleteNetwork",
    "/NetworkDriver.CreateEndpoint",
    "/NetworkDriver.DeleteEndpoint",
    "/NetworkDriver.Join",
    "/NetworkDriver.Leave",
    "/NetworkDriver.ProgramExternalConnectivity",
    "/NetworkDriver.RevokeExternalConnectivity",
    "/NetworkDriver.EndpointOperInfo",
    "/IpamDriver.RequestPool",
    "/IpamDriver.ReleasePool",
    "/IpamDriver.RequestAddress",
    "/IpamDriver.ReleaseAddress",
    "/Plugin.Activate",
];

fn request(text: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(text) {
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&again).unwrap(), request);
    }
}

fn capture(text: &[u8]) {
    if let Ok(capture) = serde_json::from_slice::<CaptureRequest>(text)
        && let Ok(program) = Program::of(&capture.filter)
    {
        let _ = program.run(text, &Default::default());
    }
}

fn state(text: &[u8]) {
    if let Ok(state) = serde_json::from_slice::<State>(text) {
        let again = serde_json::to_vec(&state).unwrap();
        assert_eq!(serde_json::from_slice::<State>(&again).unwrap(), state);
        let heard = FromHosts { overlay: &Elsewhere::default(), flannel: &FlannelTables::default() };
        let _ = merge(&Config::default(), &state, heard);
    }
}

fn call(driver: Driver, method: &str, text: &[u8]) {
    match message::read(driver, method, text) {
        Ok(DockerCall::Request(message::Request::CreateNetwork(create))) => {
            if let Ok(network) = Network::read(&create) {
                let _ = (network.own_bridge(None), network.vlans(), network.lan());
            }
        }
        Ok(DockerCall::Request(message::Request::RequestPool(pool))) => {
            let _ = Pools::default().request_pool(&pool, |_| false);
            let _ = overlay::named(&pool.options).map(|name| Pools::default().join(name, "10.0.0.0/8".parse().unwrap()));
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|input: &[u8]| {
    let [which, text @ ..] = input else { return };
    match which % 32 {
        0 => request(text),
        1 => capture(text),
        2 => state(text),
        other => {
            let driver = match which >> 6 {
                0 | 1 => Driver::Bridge,
                2 => Driver::Lan,
                _ => Driver::Overlay,
            };
            call(driver, METHODS[usize::from(other - 3) % METHODS.len()], text);
        }
    }
});
