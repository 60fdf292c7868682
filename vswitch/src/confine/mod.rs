//! What the process gives up for ever before it takes in anything of others, and what its threads give up besides.
//!
//! vswitchd needs rights to make devices and namespaces; those are its [broker](crate::broker)'s, a process of its own. With
//! `Confinement::close_process` the process that reads what others send gives up
//!
//! - every capability, in all sets, and all ways to get one (`no_new_privs`);
//! - system calls by which programs are started, namespaces entered, file systems mounted, other processes looked into or the kernel changed
//!   (seccomp(2));
//! - all files to write but those in `state-dir`, and signals for other processes (landlock(7), where the kernel has it).
//!
//! Its threads that read frames, DNS, DHCP, BPDUs and the TCP of stations, HTTP of the web view, and what the store of overlay networks answers, need
//! far less: each of them calls `Confinement::enter` first, and from then on has
//!
//! - a list of system calls by `Role`, any other of which ends the process. No thread of these may start a thread, make memory executable, or open
//!   sockets other than of IP; and to open a file is refused, but to the services;
//! - no file at all, but for the services the directory in which leases are kept.
//!
//! What they cannot do themselves, the other threads do: those of the control side, which take in requests of `vsctl` and Docker, netlink's
//! messages, and what these threads tell; one for each `host` uplink that asks the broker for ports below 1024 (`host/doors.rs`); and those
//! that read and write files for overlay networks and for flannel's, and ask for the addresses of their stores (`overlay/thread.rs`).
//!
//! **What this is not.** A station that could make one of these threads run code of its own could write where the control side reads, and so do what
//! that may: speak as the switch, and ask the broker for what is on its list. It could start no program, and write no file elsewhere.
//!
//! **What it costs.** A system call of a filtered thread takes some 70 ns more (of 380, for the least of calls in a virtual machine of two
//! processors), although the kernel looks it up in a bitmap. Super-frames do not notice; of small frames, each of which takes two calls, it was 5 % of
//! a worker's time.

mod process;
mod user;

pub(crate) use process::writable;
pub use user::{OwnUser, UserError};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Moves frames between open devices.
    Worker,
    /// Speaks DHCP and DNS for gateways, and keeps leases.
    Services,
    /// Speaks RSTP.
    Trees,
    /// Is the other end of stations' TCP, and has sockets of the host.
    Host,
    /// Answers browsers.
    Web,
    /// Makes files of frames, for others to write.
    Capture,
    /// Speaks with the store of overlay networks.
    Overlay,
}

/// Why threads cannot be confined.
#[derive(Debug, thiserror::Error)]
#[error("vswitchd cannot give up its rights ({0}): `vswitchd --no-sandbox` runs with them")]
pub struct ConfinementError(#[source] Failure);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("capabilities cannot be given up: {0}")]
    Capabilities(#[from] rustix::io::Errno),
    #[error("no filter of system calls for this processor: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("the kernel takes no filter of system calls: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("no thread to try it on: {0}")]
    Thread(#[from] std::io::Error),
}

/// Whether threads are confined, and by what.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// `None`: they are not.
    walls: Option<Walls>,
}

#[derive(Clone, Debug)]
struct Walls {
    /// Where the services keep leases.
    state_dir: PathBuf,
    /// Whether the kernel has Landlock.
    landlock: bool,
}

impl Confinement {
    /// Threads keep what they have.
    pub fn off() -> Self {
        Self::default()
    }

    /// Threads are confined, which is tried on one of its own. The services keep files in `state_dir`.
    ///
    /// # Errors
    /// The kernel does not know how, or does not let this process.
    pub fn on(state_dir: &Path) -> Result<Self, ConfinementError> {
        let state_dir = state_dir.to_owned();
        let tried = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("sandbox".to_owned());
            let thread = thread.spawn_scoped(scope, || confine(Role::Services, &state_dir))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let landlock = tried.map_err(ConfinementError)?;
        Ok(Self { walls: Some(Walls { state_dir, landlock }) })
    }

    /// Confines the calling thread for ever. Where that fails, which it did not when it was tried, the process ends: what is to come is not taken in
    /// by a thread that has rights.
    pub(crate) fn enter(&self, role: Role) {
        let Some(walls) = &self.walls else { return };
        if let Err(error) = confine(role, &walls.state_dir) {
            tracing::error!("a thread ({role:?}) cannot be confined: {error}");
            std::process::exit(1);
        }
    }

    /// Gives up, for ever, what rights the whole process has: its capabilities, system calls that take some or lead to some, and files to write
    /// outside `state_dir`. To be called before it starts another thread.
    ///
    /// # Errors
    /// As of [`Confinement::on`].
    pub(crate) fn close_process(&self) -> Result<(), ConfinementError> {
        let Some(walls) = &self.walls else { return Ok(()) };
        process::confine(&walls.state_dir).map_err(ConfinementError)
    }

    /// What it is made of, in a few words.
    pub fn words(&self) -> &'static str {
        match &self.walls {
            None => "off",
            Some(Walls { landlock: true, .. }) => "no capabilities, seccomp, landlock",
            Some(Walls { landlock: false, .. }) => "no capabilities, seccomp",
        }
    }
}

/// Says whether the kernel has Landlock.
fn confine(role: Role, state_dir: &Path) -> Result<bool, Failure> {
    let (program, refusals) = (filter(role)?, refusals()?);
    let landlock = close_files(role, state_dir)?;
    drop_capabilities()?;
    // Of two filters the stricter one counts. The first is there when the second is applied, and lets that through.
    if role != Role::Services {
        seccompiler::apply_filter(&refusals)?;
    }
    seccompiler::apply_filter(&program)?;
    Ok(landlock)
}

/// Takes away files, as far as the kernel knows how; a directory that is not there needs no exception.
fn close_files(role: Role, state_dir: &Path) -> Result<bool, Failure> {
    let open = Some(state_dir).filter(|_| role == Role::Services);
    let ruleset = no_files(Scope::from_all(ABI))?.add_rules(path_beneath_rules(open, AccessFs::from_all(ABI)))?;
    Ok(ruleset.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// What the kernels of 6.12 and later know; earlier ones do what they can.
const ABI: landlock::ABI = landlock::ABI::V6;

/// Rules by which there are no files, nor what is in these scopes.
fn no_files(scopes: BitFlags<Scope>) -> Result<RulesetCreated, Failure> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(ABI))?;
    Ok(ruleset.scope(scopes)?.create()?)
}

/// Without CAP_SETPCAP the bounding set stays, from which `no_new_privs` lets nothing come.
fn drop_bounding_set() {
    for capability in CapabilitySet::all().iter() {
        // A kernel may not know the last ones.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

fn drop_capabilities() -> Result<(), Failure> {
    drop_bounding_set();
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

fn filter(role: Role) -> Result<BpfProgram, Failure> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(of(role).iter().chain(REFUSED).map(|call| (*call, Vec::new())));
    // Memory that is written is never run.
    let not_executable = || rule([masked(2, libc::PROT_EXEC, 0)]);
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
    // abort(3), and the name that a thread gives itself.
    rules.insert(libc::SYS_tgkill, vec![rule([equal(0, rustix::process::getpid().as_raw_nonzero().get())])?]);
    rules.insert(libc::SYS_prctl, vec![rule([equal(0, libc::PR_SET_NAME)])?]);
    let requests = ioctls(role).iter().map(|request| rule([equal_unsigned(1, *request)]));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    if role == Role::Worker {
        // Which queue a flow of a station comes by (`plane::device::Steering`).
        rules.insert(libc::SYS_bpf, vec![rule([equal(0, BPF_MAP_UPDATE_ELEM)])?]);
    }
    if opens_sockets(role) {
        let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM].into_iter();
        let kinds = kinds.flat_map(|kind| [libc::AF_INET, libc::AF_INET6].map(|family| (family, kind)));
        let sockets = kinds.map(|(family, kind)| rule([equal(0, family), masked(1, SOCKET_KIND, kind)]));
        rules.insert(libc::SYS_socket, sockets.collect::<Result<_, _>>()?);
    }
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?.try_into()?)
}

/// Refuses to open files, and leaves all else to the other filter. The GNU C library opens two of them unasked, and does without where it cannot: when
/// it gives memory back, it looks whether that may be had again (`check_may_shrink_heap`, /proc/sys/vm/overcommit_memory), and when it makes room for a
/// thread's memory, how many processors there are.
fn refusals() -> Result<BpfProgram, Failure> {
    let rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EACCES.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()?)
}

/// All of these conditions.
fn rule<const COUNT: usize>(
    conditions: [Result<SeccompCondition, seccompiler::BackendError>; COUNT],
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

fn equal(argument: u8, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    equal_unsigned(argument, value.cast_unsigned())
}

fn equal_unsigned(argument: u8, value: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
}

fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let mask = SeccompCmpOp::MaskedEq(mask.cast_unsigned().into());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, value.cast_unsigned().into())
}

/// The bits of a socket's type that are no flags (`SOCK_TYPE_MASK`, linux/net.h).
const SOCKET_KIND: i32 = 0xf;
/// The command of bpf(2) that changes a value of an open map (linux/bpf.h).
const BPF_MAP_UPDATE_ELEM: i32 = 2;
/// Asks for a device's settings; without capabilities, changes none (linux/sockios.h).
const SIOCETHTOOL: u32 = 0x8946;
/// The number of an interface (linux/sockios.h).
const SIOCGIFINDEX: u32 = 0x8933;
/// Whether a descriptor waits, and how much it has to read (asm-generic/ioctls.h).
const FIONBIO: u32 = 0x5421;
const FIONREAD: u32 = 0x541b;

const fn opens_sockets(role: Role) -> bool {
    matches!(role, Role::Services | Role::Trees | Role::Host | Role::Overlay)
}

const fn ioctls(role: Role) -> &'static [u32] {
    match role {
        Role::Services => &[FIONBIO, FIONREAD, SIOCGIFINDEX],
        Role::Trees => &[SIOCETHTOOL],
        Role::Worker | Role::Host | Role::Web | Role::Capture | Role::Overlay => &[FIONBIO, FIONREAD],
    }
}

/// What a role needs besides [`ALWAYS`].
const fn of(role: Role) -> &'static [i64] {
    match role {
        // When what waits on a line, or for its rate, is due.
        Role::Worker => &[libc::SYS_timerfd_create, libc::SYS_timerfd_settime],
        Role::Trees | Role::Capture => &[],
        Role::Services => SERVICES,
        Role::Host => &[libc::SYS_bind, libc::SYS_listen, libc::SYS_connect, libc::SYS_accept4],
        Role::Web => &[libc::SYS_accept4],
        Role::Overlay => &[libc::SYS_bind, libc::SYS_connect],
    }
}

/// What opens a file.
const REFUSED: &[i64] = &[
    libc::SYS_openat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
];

/// DNS servers to ask; and leases, which Landlock holds to their directory.
const SERVICES: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
];

/// What every thread needs: descriptors that are open already, memory, time, and the other threads of this process. None of these depends on an
/// argument, so that the kernel looks them up in a bitmap instead of running the filter (from 5.11 on).
const ALWAYS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_dup,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    /// A name, and what tries it and says whether it was refused.
    pub(super) type Forbidden = (&'static str, fn() -> bool);

    pub(super) const CHILD: &str = "VSWITCH_TEST_FORBIDDEN";
    const ROLES: [Role; 7] = [Role::Worker, Role::Services, Role::Trees, Role::Host, Role::Web, Role::Capture, Role::Overlay];

    /// What a station would have a thread do, if it could; each says whether it was refused.
    const FORBIDDEN: [Forbidden; 9] = [
        ("open", || std::fs::File::open("/etc/shadow").is_err()),
        ("execve", || Command::new("/bin/true").exec().raw_os_error().is_some()),
        ("thread", || std::thread::Builder::new().spawn(|| ()).is_err()),
        ("packet", || socket(libc::AF_PACKET, rustix::net::SocketType::RAW)),
        ("netlink", || socket(libc::AF_NETLINK, rustix::net::SocketType::RAW)),
        ("raw", || socket(libc::AF_INET, rustix::net::SocketType::RAW)),
        ("mount", || rustix::mount::mount_bind("/", "/mnt").is_err()),
        ("setuid", || rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(1)).is_err()),
        ("kill", || rustix::process::test_kill_process(rustix::process::Pid::INIT).is_err()),
    ];

    pub(super) fn socket(family: i32, kind: rustix::net::SocketType) -> bool {
        let family = rustix::net::AddressFamily::from_raw(u16::try_from(family).unwrap());
        rustix::net::socket(family, kind, None).is_err()
    }

    /// The test runs itself once more, as the process that ends by what it tries.
    #[test]
    fn a_confined_thread_that_tries_what_is_forbidden_is_refused_or_ends_the_process() {
        if let Ok(tried) = std::env::var(CHILD) {
            let (role, what) = tried.split_once(' ').unwrap();
            let role = ROLES.into_iter().find(|known| format!("{known:?}") == role).unwrap();
            let attempt = FORBIDDEN.into_iter().find(|(name, _)| *name == what).unwrap().1;
            let sandbox = Confinement::on(&std::env::temp_dir()).unwrap();
            let refused = std::thread::spawn(move || {
                sandbox.enter(role);
                attempt()
            });
            std::process::exit(if refused.join().unwrap() { 0 } else { 99 });
        }
        let name = "confine::tests::a_confined_thread_that_tries_what_is_forbidden_is_refused_or_ends_the_process";
        let ends = |role: Role, what: &str| {
            let mut own = Command::new(std::env::current_exe().unwrap());
            own.args(["--exact", name, "--nocapture"]).env(CHILD, format!("{role:?} {what}"));
            own.output().unwrap().status
        };
        for role in ROLES {
            for (what, _) in FORBIDDEN {
                let status = ends(role, what);
                // To the services, which have files of their own, Landlock refuses it.
                let expected = if what == "open" { (Some(0), None) } else { (None, Some(libc::SIGSYS)) };
                assert_eq!((status.code(), status.signal()), expected, "{role:?} {what}");
            }
        }
    }

    #[test]
    fn a_confined_thread_has_no_capability_and_goes_on_with_what_it_is_for() {
        let state_dir = tempfile::tempdir().unwrap();
        let sandbox = Confinement::on(state_dir.path()).unwrap();
        assert!(sandbox.words().starts_with("no capabilities, seccomp"), "{}", sandbox.words());
        let (kept, (done, waits)) = (state_dir.path().join("leases.json"), std::sync::mpsc::channel());
        let there = kept.clone();
        let thread = std::thread::spawn(move || {
            sandbox.enter(Role::Services);
            std::fs::write(&there, "leases").unwrap();
            done.send((rustix::thread::gettid().as_raw_nonzero(), std::fs::read("/etc/passwd").is_err())).unwrap();
            std::thread::park();
        });
        let (id, refused) = waits.recv().unwrap();
        assert!(refused, "a file elsewhere is not read");
        let status = std::fs::read_to_string(format!("/proc/self/task/{id}/status")).unwrap();
        thread.thread().unpark();
        thread.join().unwrap();
        for line in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "Seccomp:\t2",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "leases");
        assert_eq!(Confinement::off().words(), "off");
    }
}
