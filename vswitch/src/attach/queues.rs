//! What is open of a device, of which any process can make the devices of workers.

use std::sync::Arc;

use packet::Capabilities;
use serde::{Deserialize, Serialize};

use super::{sockets, tap};
use crate::broker::Descriptor;
use plane::device::{Device, PacketSocket, SteeringTable, Tap};

/// The queues of a TAP, or the sockets on an interface, of all workers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Queues {
    pub(super) kind: QueueKind,
    pub(super) capabilities: Capabilities,
    /// For what is sparse: one for each worker.
    pub(super) sparse: Vec<Descriptor>,
    /// For bulk flows, as many for each worker: those of the first come first.
    pub(super) bulk: Vec<Descriptor>,
    /// The table and the program by which bulk flows are placed; `None`: there are no queues for them.
    pub(super) steering: Option<[Descriptor; 2]>,
}

/// What a table of flows is made of, for another process.
pub(super) fn steering(SteeringTable { table, program }: SteeringTable) -> [Descriptor; 2] {
    [table, program].map(Descriptor)
}

/// What they are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum QueueKind {
    Tap {
        /// Whether the TAP has several; if not, the workers share the one, and the first reads it.
        many: bool,
    },
    Sockets {
        virtio_header: bool,
    },
}

impl Queues {
    /// A device for each worker, in no order.
    pub fn devices(self) -> Vec<Box<dyn Device>> {
        let (workers, capabilities) = (self.sparse.len(), self.capabilities);
        let each = self.bulk.len() / workers.max(1);
        let table = self.steering.map(|[table, program]| Arc::new(SteeringTable { table: table.0, program: program.0 }));
        let mut bulk = self.bulk.into_iter().map(|queue| queue.0);
        let device = |(worker, Descriptor(first)): (usize, Descriptor)| {
            // The kernel counts first the queues of what is sparse, then each worker's for bulk flows.
            let number = u32::try_from(workers + worker * each).unwrap_or(u32::MAX);
            let steering = table.as_ref().map(|table| table.part(number, each));
            let others = bulk.by_ref().take(each).collect();
            let device: Box<dyn Device> = match self.kind {
                QueueKind::Tap { many } => {
                    let open = if many || worker == 0 { Tap::new } else { Tap::write_only };
                    let tap = open(first, capabilities);
                    Box::new(match steering {
                        Some(steering) => tap.with_bulk(others, tap::QUEUE_LENGTH as usize, steering),
                        None => tap,
                    })
                }
                QueueKind::Sockets { virtio_header } => {
                    let socket = PacketSocket::new(first, capabilities, virtio_header);
                    Box::new(match steering {
                        Some(steering) => socket.with_bulk(others, sockets::MOST_FRAMES, steering),
                        None => socket,
                    })
                }
            };
            device
        };
        self.sparse.into_iter().enumerate().map(device).collect()
    }
}
