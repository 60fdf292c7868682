//! The workers' threads, and what becomes of the process without any one of its threads.

use std::thread::JoinHandle;

use super::voices::Voices;
use crate::confine::{Confinement, Role};
use plane::worker::{Command, Handle, Worker};

/// Threads of a vswitchd besides its workers, at the least: two of the control side and one that takes over while that waits, the
/// services, spanning trees, and one that goes to a namespace.
const OTHERS: usize = 6;

/// The workers' threads.
pub(super) struct DataPlane {
    pub(super) handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlane {
    pub(super) fn start(count: usize, voices: &Voices, sandbox: &Confinement) -> std::io::Result<Self> {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), count);
        let mut workers = Vec::new();
        for _ in 0..count {
            let voices = voices.clone();
            workers.push(Worker::new(seed, Box::new(move |event| voices.notify(event)))?);
        }
        let handles: Vec<Handle> = workers.iter().map(|(_, handle)| handle.clone()).collect();
        let mut threads = Vec::new();
        for (number, (mut worker, _)) in workers.into_iter().enumerate() {
            let others = handles.iter().enumerate().filter(|(other, _)| *other != number);
            worker.set_peers(others.map(|(_, handle)| handle.clone()).collect());
            if let Some(router) = handles.first().filter(|_| number > 0) {
                worker.set_router(router.clone());
            }
            let sandbox = sandbox.clone();
            threads.push(std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                sandbox.enter(Role::Worker);
                worker.run();
            })?);
        }
        Ok(Self { handles, threads })
    }

    pub(super) fn stop(self) {
        self.handles.iter().for_each(|handle| handle.hint(Command::Stop));
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Makes a panic on any thread the end of the process, whatever the build: else the thread would be gone, and a vswitchd that moves
/// nothing would go on and look well. A service manager starts another, which takes its devices over as after any crash.
pub fn end_with_any_thread() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Whether so many workers, and the other threads, can be had. It is looked before the control side starts, whose runtime waits for
/// ever for a thread that it does not get.
pub(super) fn check_threads(workers: usize) -> Result<(), (usize, std::io::Error)> {
    let count = workers + OTHERS;
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    std::thread::scope(|scope| {
        let started = (0..count).try_for_each(|_| {
            let released = released.clone();
            let thread = std::thread::Builder::new().name("probe".to_owned());
            // It ends when `release` is dropped.
            thread.spawn_scoped(scope, move || released.recv().is_err()).map(drop)
        });
        drop(release);
        started.map_err(|error| (count, error))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    const CHILD: &str = "VSWITCH_TEST_THREAD_PANICS";

    /// The test runs itself once more, as the process that is to end.
    #[test]
    fn a_thread_that_panics_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            end_with_any_thread();
            let _ = std::thread::Builder::new().name("worker-0".to_owned()).spawn(|| panic!("as asked for")).unwrap().join();
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let mut own = Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", "control::workers::tests::a_thread_that_panics_ends_the_process", "--nocapture"]);
        let output = own.env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
        assert!(said.contains("worker-0") && said.contains("as asked for"), "{said}");
    }

    #[test]
    fn threads_that_can_be_had_are_had() {
        assert!(check_threads(3).is_ok());
    }
}
