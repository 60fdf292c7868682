//! The way to the thread that deals with the store.
//!
//! It takes in what the store and who sits between sends, so it is confined. What it may not do itself, a thread beside it does that has read none of
//! that, `overlay-files`: it reads the files of secrets and certificates, keeps the tables, and asks for the addresses of members that are
//! given by name.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::key::PublicKey;
use cluster::record::Name;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::run::{self, Ways};
use super::{ClusterSettings, Elsewhere, OverlayFile, Truth};
use crate::confine::{Confinement, Role};
use api::{ClusterAnswer, ClusterQuestion, OverlayName};

/// What the thread is told and asked.
pub(super) enum OverlayInput {
    /// What is here now.
    Truth(Truth),
    /// A question, answered from memory.
    Ask(ClusterQuestion, Sender<ClusterAnswer>),
    /// The end. What was announced goes, unless this host comes back at once.
    End {
        /// Whether it goes.
        leave: bool,
    },
}

/// What the thread has to say.
#[derive(Clone, Debug)]
pub(crate) struct OverlayNews {
    /// What is elsewhere.
    pub(crate) tables: Arc<Elsewhere>,
    /// What happened.
    pub(crate) happened: Vec<Happening>,
}

/// What happened in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A host is there.
    Joined(String, IpAddr),
    /// A host is there no more.
    Gone(String, IpAddr),
    /// The store is reached. `again`: not for the first time.
    Up {
        /// Not for the first time.
        again: bool,
    },
    /// The store is not reached, or is not this host's.
    Down(String),
    /// Something that a user should know.
    Note(String),
}

/// The thread, and what it is asked.
pub(crate) struct Thread {
    inputs: mpsc::UnboundedSender<OverlayInput>,
    thread: Option<JoinHandle<()>>,
}

/// How long an answer from memory may take, on a machine that is overloaded.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the first answer of a store may take that is `required`.
const FIRST: Duration = Duration::from_secs(20);

impl Thread {
    /// Starts the thread with the tables that were kept, and this host's key. What it has to say goes to `tell`, which must not wait.
    ///
    /// # Errors
    /// There is no thread to be had. With `required`, also the sentence of a store that is not to be used.
    pub(crate) fn start(
        settings: ClusterSettings,
        (kept, before, key): (OverlayFile, Elsewhere, Option<PublicKey>),
        tell: impl FnMut(OverlayNews) + Send + 'static,
        sandbox: Confinement,
    ) -> Result<Self, String> {
        let (inputs, inputs_in) = mpsc::unbounded_channel();
        let (first, first_in) = bounded(1);
        let no_thread = |error: std::io::Error| format!("the thread for overlay networks cannot start: {error}");
        let without = |sentence: String| format!("{sentence}; `required = true` allows no start without the store");
        let required = settings.required;
        let ways = Ways { inputs: inputs_in, tell: Box::new(tell), first: Some(first), kept, key };
        let runtime = runtime().map_err(no_thread)?;
        let run = move || {
            sandbox.enter(Role::Overlay);
            runtime.block_on(run::run(settings, before, ways));
            // A name that nothing answers for is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("overlay".to_owned()).spawn(run).map_err(no_thread)?;
        let this = Self { inputs, thread: Some(thread) };
        if required {
            match first_in.recv_timeout(FIRST) {
                Ok(outcome) => outcome.map_err(without)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(without(format!("the store did not answer within {} s", FIRST.as_secs())));
                }
            }
        }
        Ok(this)
    }

    fn tell(&self, input: OverlayInput) {
        // The thread ends only with this.
        let _ = self.inputs.send(input);
    }

    /// Says what is here now.
    pub(crate) fn set(&self, truth: Truth) {
        self.tell(OverlayInput::Truth(truth));
    }

    /// Asks something that is answered from memory; `None`: it is too busy.
    pub(crate) fn ask(&self, question: ClusterQuestion) -> Option<ClusterAnswer> {
        let (reply, answer) = bounded(1);
        self.tell(OverlayInput::Ask(question, reply));
        answer.recv_timeout(PATIENCE).ok()
    }

    /// Ends the thread. With `leave`, other hosts hear at once that this one is gone, if the store is there.
    pub(crate) fn end(mut self, leave: bool) {
        self.tell(OverlayInput::End { leave });
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.tell(OverlayInput::End { leave: true });
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A runtime whose one thread for what may block is there already, and stays: a confined thread could start none.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).thread_keep_alive(Duration::MAX).thread_name("overlay-files");
    let runtime = runtime.build()?;
    runtime.block_on(runtime.spawn_blocking(|| ()))?;
    Ok(runtime)
}

/// As the cluster has it. What an overlay may be called is stricter.
pub(super) fn name(network: &OverlayName) -> Option<Name> {
    network.as_str().parse().ok()
}
