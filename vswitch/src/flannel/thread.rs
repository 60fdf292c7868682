//! The way to the thread that deals with etcd. It takes in what etcd and who sits between sends, so it is confined as that of overlay networks is; what it
//! may not do itself, a thread beside it does that has read none of that.

use std::sync::Arc;
use std::thread::JoinHandle;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};

use super::run::{self, FlannelWays};
use super::{FlannelFile, FlannelSettings, FlannelTables};
use crate::confine::{Confinement, Role};
use crate::overlay::{Happening, runtime};

/// What the thread has to say.
#[derive(Clone, Debug)]
pub(crate) struct FlannelNews {
    /// What is known.
    pub(crate) tables: Arc<FlannelTables>,
    /// How it stands with etcd, in a word.
    pub(crate) state: &'static str,
    /// What is wrong, in a sentence.
    pub(crate) problem: Option<String>,
    /// Whether nothing is withdrawn for a while.
    pub(crate) is_held: bool,
    /// What happened.
    pub(crate) happened: Vec<Happening>,
}

/// The thread.
pub(crate) struct FlannelThread {
    end: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl FlannelThread {
    /// Starts the thread with what was kept. What it has to say goes to `tell`, which must not wait. `others`
    /// are the subnets that are taken here; until they are told, it takes none.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(
        settings: FlannelSettings,
        (kept, before): (FlannelFile, FlannelTables),
        (others, tell): (watch::Receiver<Option<Vec<IpNet>>>, impl FnMut(FlannelNews) + Send + 'static),
        sandbox: Confinement,
    ) -> Result<Self, String> {
        let (end, ends) = mpsc::channel(1);
        let no_thread = |error: std::io::Error| format!("the thread for flannel's network cannot start: {error}");
        let ways = FlannelWays { ends, tell: Box::new(tell), others, kept };
        let runtime = runtime().map_err(no_thread)?;
        let run = move || {
            sandbox.enter(Role::Overlay);
            runtime.block_on(run::run(settings, before, ways));
            // A name that nothing answers for is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("flannel".to_owned()).spawn(run).map_err(no_thread)?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for FlannelThread {
    fn drop(&mut self) {
        // It may have the end already.
        let _ = self.end.try_send(());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
