//! Spanning trees: a thread that speaks RSTP for every bridge that is part of one, and has the workers do what comes of it.
//!
//! **What it holds.** For each such bridge an [`rstp::Bridge`], which decides, and the numbers by which bridge and workers know the ports.
//! [`Trees`] is that, without a clock; [`run`] is the thread around it, with the clock.
//!
//! **Who calls it.** Workers punt BPDUs to it over a bounded channel, past the control side, which may be busy for longer than a neighbour waits.
//! The control side tells it which bridges and ports there are and whether their links are up, and waits until it has taken note: so nothing is
//! done about a port whose number another has by then.
//!
//! **In order.** A port stops on every worker before a BPDU says that it has stopped, for this thread waits for the workers. They never wait for it.
//!
//! **What bounds it.** The BPDUs that may wait, fairly shared by ports ([`Tickets`](plane::datapath::Tickets)); a port keeps what it heard last; what it
//! tells the control side finds room or is lost. A bridge has at most 4095 ports in its tree; those beyond forward nothing.

mod run;
mod trees;

pub(crate) use run::{StpInput, run};
pub(crate) use trees::{StpNews, StpStates, TreePort, TreeSpec, What};
