//! Workers whose clock the test moves.

use super::*;
use crate::datapath::Counters;

/// Workers that run when the test says so, with two ports.
pub(super) struct Still {
    pub(super) workers: Vec<Worker>,
    /// Of each port, one far end per worker.
    pub(super) far: Vec<Vec<FarEnd>>,
    pub(super) began: Instant,
    pub(super) now: Instant,
}

impl Still {
    pub(super) fn new(workers: usize) -> Self {
        let now = Instant::now();
        let made: Vec<_> = (0..workers).map(|_| Worker::new(1, Box::new(|_| {})).unwrap()).collect();
        let router = made[0].1.clone();
        let mut still =
            Self { workers: made.into_iter().map(|(worker, _)| worker).collect(), far: Vec::new(), began: now, now };
        let settings = BridgeSettings { mtu: 1500, ageing: 300, max_macs: 100, ..BridgeSettings::default() };
        for (number, worker) in still.workers.iter_mut().enumerate() {
            worker.execute(Command::SetBridge(BridgeId(0), settings.clone()), now);
            if number > 0 {
                worker.set_router(router.clone());
            }
        }
        (0..2).for_each(|port| still.attach(port, Capabilities::ALL));
        still
    }

    pub(super) fn attach(&mut self, port: u32, capabilities: Capabilities) {
        let far = self.workers.iter_mut().map(|worker| {
            let (near, far) = Memory::new(capabilities, 1_000_000);
            worker.attach(PortId(port), &PortSettings::on(BridgeId(0)), Box::new(near), self.now).unwrap();
            far
        });
        let far = far.collect();
        self.far.truncate(port as usize);
        self.far.push(far);
    }

    pub(super) fn impair(&mut self, port: u32, table: &str) {
        self.hold(port, api::PortPolicy { impair: serde_json::from_str(table).unwrap(), ..Default::default() });
    }

    /// Sets the policy of a port.
    pub(super) fn hold(&mut self, port: u32, policy: api::PortPolicy) {
        let settings = PortSettings::on(BridgeId(0)).under(policy, self.now);
        self.workers.iter_mut().for_each(|worker| worker.execute(Command::SetPort(PortId(port), settings.clone()), self.now));
    }

    /// Lets all workers do what there is to do at this time.
    pub(super) fn work(&mut self, after: Duration) {
        self.now = self.began + after;
        // What one hands over, another does in the next round.
        for _ in 0..3 {
            for worker in self.workers.iter_mut().rev() {
                worker.make_all_ready();
                while !worker.ready.is_empty() {
                    worker.turn(self.now);
                }
                while worker.route(self.now) {}
                while worker.stops.next().is_some_and(|next| next <= self.now) {
                    worker.release(self.now);
                }
            }
        }
    }

    /// Runs from one thing to do to the next until there is nothing more.
    pub(super) fn run(&mut self) {
        while let Some(next) = self.workers.iter().filter_map(|worker| worker.stops.next()).min() {
            self.work(next.max(self.now) - self.began);
        }
    }

    pub(super) fn counters(&self, port: u32) -> Counters {
        let mut sum = Counters::default();
        self.workers.iter().for_each(|worker| sum.add(worker.datapath.counters(PortId(port)).unwrap()));
        sum
    }

    /// All that left by a port.
    pub(super) fn drain(&self, port: usize) -> Vec<(Vec<u8>, Offload)> {
        self.far[port].iter().flat_map(FarEnd::drain).collect()
    }
}
