//! The loop of the thread that speaks for spanning trees, which the control side starts (`control/stp.rs`): BPDUs, changes, and its clock.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select_biased};

use super::trees::{StpNews, StpStates, TreeSpec, Trees};
use api::StpInfo;
use plane::datapath::Punt;
use plane::worker::Handle;

/// What the thread is told and asked. Each is answered, so that the control side knows when it was done.
pub(crate) enum StpInput {
    /// The bridges that are part of a tree from now on.
    Set(Vec<TreeSpec>, Sender<()>),
    /// A question how they stand.
    List(Sender<Vec<StpInfo>>),
}

/// Most BPDUs that are received before anything else has its turn.
const TOGETHER: usize = 256;
/// A process that did not run for longer than that, as when it was stopped by a signal, has been given up by its neighbours: they wait for three
/// hellos, six seconds.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Speaks for bridges until the last sender of `inputs` is gone. `tell` must not wait.
pub(crate) fn run(
    (workers, states): (Vec<Handle>, StpStates),
    inputs: &Receiver<StpInput>,
    bpdus: &Receiver<Punt>,
    tell: impl FnMut(StpNews),
) {
    let mut trees = Trees::new(workers, states, tell);
    let mut tick = Instant::now();
    loop {
        let due = if trees.is_empty() { never() } else { crossbeam_channel::at(tick) };
        select_biased! {
            recv(inputs) -> input => {
                let was_empty = trees.is_empty();
                match input {
                    Ok(StpInput::Set(specs, done)) => {
                        trees.set(specs);
                        let _ = done.send(());
                    }
                    // The control side may have given up waiting.
                    Ok(StpInput::List(reply)) => drop(reply.send(trees.list())),
                    Err(_) => return,
                }
                if was_empty {
                    tick = Instant::now() + rstp::TICK;
                }
            }
            // A tick that is late is not made up for, and does not wait for BPDUs that come without end.
            recv(due) -> _ => {
                let now = Instant::now();
                if now.saturating_duration_since(tick) > GIVEN_UP {
                    tracing::warn!("this process did not run for a while: its bridges join their spanning trees anew");
                    trees.restart();
                }
                trees.tick();
                tick = now + rstp::TICK;
            }
            recv(bpdus) -> bpdu => match bpdu {
                Ok(punt) => {
                    trees.receive(&punt);
                    bpdus.try_iter().take(TOGETHER).for_each(|punt| trees.receive(&punt));
                    trees.flush();
                }
                Err(_) => return,
            },
        }
    }
}
