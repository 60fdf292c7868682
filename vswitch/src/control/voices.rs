//! How the workers, the services and the other threads reach the control loop.

use tokio::sync::mpsc;

use crate::flannel::FlannelNews;
use crate::overlay::OverlayNews;
use crate::services::Output;
use crate::stp::StpNews;
use plane::datapath::{Punt, Tickets};
use plane::worker::Event;

/// Frames to the services and from them that may wait. One that finds no room is lost, as on a wire; to the services there is room for all
/// that have a ticket.
const FRAMES: usize = Tickets::MOST;

/// How workers and services reach the control side without ever waiting. What stations can cause as often as they like finds room in a bounded
/// queue or is lost. What they cannot has a queue without bounds, so that none of it is lost: a device goes once, leases change rarely, and
/// what is told of addresses is told twice a second at most.
#[derive(Clone)]
pub(super) struct Voices {
    punts: mpsc::Sender<Event>,
    gone: mpsc::UnboundedSender<Event>,
    said: mpsc::Sender<Output>,
    changed: mpsc::UnboundedSender<Output>,
    /// To the thread that speaks for spanning trees, past the control side.
    bpdus: crossbeam_channel::Sender<Punt>,
    pub(super) trees: mpsc::Sender<StpNews>,
    pub(super) overlay: mpsc::UnboundedSender<OverlayNews>,
    pub(super) flannel: mpsc::UnboundedSender<FlannelNews>,
}

/// The control side's end of it.
pub(super) struct Hearing {
    punts: mpsc::Receiver<Event>,
    gone: mpsc::UnboundedReceiver<Event>,
    said: mpsc::Receiver<Output>,
    changed: mpsc::UnboundedReceiver<Output>,
    trees: mpsc::Receiver<StpNews>,
    overlay: mpsc::UnboundedReceiver<OverlayNews>,
    flannel: mpsc::UnboundedReceiver<FlannelNews>,
}

/// What the control side hears.
pub(super) enum Said {
    /// A worker says this.
    Event(Event),
    /// The services say this.
    Output(Output),
    Tree(StpNews),
    Overlay(OverlayNews),
    Flannel(FlannelNews),
}

impl Hearing {
    /// The next thing that is said. A wait for it that is given up misses nothing.
    pub(super) async fn next(&mut self) -> Said {
        tokio::select! {
            Some(event) = self.gone.recv() => Said::Event(event),
            Some(event) = self.punts.recv() => Said::Event(event),
            Some(output) = self.changed.recv() => Said::Output(output),
            Some(output) = self.said.recv() => Said::Output(output),
            Some(news) = self.trees.recv() => Said::Tree(news),
            Some(news) = self.overlay.recv() => Said::Overlay(news),
            Some(news) = self.flannel.recv() => Said::Flannel(news),
            // Those who speak have ended, and so will who listens.
            else => std::future::pending().await,
        }
    }
}

/// `workers` is how many of them punt BPDUs, each by tickets of its own.
pub(super) fn channels(workers: usize) -> (Voices, Hearing, crossbeam_channel::Receiver<Punt>) {
    let ((punts, punts_in), (said, said_in)) = (mpsc::channel(FRAMES), mpsc::channel(FRAMES));
    let ((gone, gone_in), (changed, changed_in)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let ((trees, trees_in), (bpdus, bpdus_in)) = (mpsc::channel(FRAMES), crossbeam_channel::bounded(FRAMES * workers));
    let ((overlay, overlay_in), (flannel, flannel_in)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let heard = Hearing {
        punts: punts_in,
        gone: gone_in,
        said: said_in,
        changed: changed_in,
        trees: trees_in,
        overlay: overlay_in,
        flannel: flannel_in,
    };
    (Voices { punts, gone, said, changed, bpdus, trees, overlay, flannel }, heard, bpdus_in)
}

impl Voices {
    /// What a worker tells. At the end the control side does not listen any more.
    pub(super) fn notify(&self, event: Event) {
        match event {
            Event::Punt(_) => drop(self.punts.try_send(event)),
            Event::Bpdu(punt) => drop(self.bpdus.try_send(punt)),
            Event::DeviceGone(_)
            | Event::PacketTooBig(_)
            | Event::Held(..)
            | Event::Macs(..)
            | Event::Incident(_)
            | Event::Sessions => drop(self.gone.send(event)),
        }
    }

    /// What the services say.
    pub(super) fn say(&self, output: Output) {
        match output {
            Output::Changed(..) | Output::Leases(_) | Output::Usage(_) => drop(self.changed.send(output)),
            output => drop(self.said.try_send(output)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::client;
    use plane::datapath::Ticket;
    use plane::datapath::{BridgeId, PortId};

    #[test]
    fn a_flood_of_frames_for_the_services_hides_no_lease_and_no_lost_device() {
        let (voices, mut heard, _bpdus) = channels(1);
        for _ in 0..2 * FRAMES {
            voices.notify(Event::Punt(Punt {
                bridge: BridgeId(0),
                port: PortId(0),
                vlan: None,
                frame: Vec::new(),
                ticket: Ticket::default(),
            }));
            voices.say(Output::Uplink("wan".parse().unwrap(), Vec::new()));
        }
        voices.notify(Event::DeviceGone(PortId(1)));
        let lost = Output::Changed("wan".parse().unwrap(), client::Event::Lost);
        voices.say(lost.clone());
        assert_eq!(heard.gone.try_recv(), Ok(Event::DeviceGone(PortId(1))));
        assert_eq!(heard.changed.try_recv(), Ok(lost));
        assert_eq!((heard.punts.len(), heard.said.len()), (FRAMES, FRAMES));
    }
}
