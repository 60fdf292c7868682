//! What the process gives up as a whole, before it has other threads.

use std::path::Path;

use landlock::{Access, AccessFs, RulesetCreatedAttr, Scope, path_beneath_rules};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, sock_filter,
};

use super::{ABI, BPF_MAP_UPDATE_ELEM, Failure, drop_capabilities, equal_unsigned, masked, no_files, rule};

/// Gives up capabilities, system calls, and files to write elsewhere than in `state_dir`.
pub(super) fn confine(state_dir: &Path) -> Result<(), Failure> {
    let ruleset = no_files(Scope::Signal.into())?.add_rules(path_beneath_rules(["/"], AccessFs::from_read(ABI)))?;
    ruleset.add_rules(path_beneath_rules(writable(state_dir), AccessFs::from_all(ABI)))?.restrict_self()?;
    drop_capabilities()?;
    let [refused, missing] = filters()?;
    if cfg!(target_arch = "x86_64") {
        seccompiler::apply_filter(&no_x32())?;
    }
    seccompiler::apply_filter(&refused)?;
    Ok(seccompiler::apply_filter(&missing)?)
}

/// Where the process may write. A directory that cannot be made yet, as on a disk that is full, is made below this one later.
pub(crate) fn writable(state_dir: &Path) -> Option<&Path> {
    state_dir.ancestors().find(|place| place.is_dir())
}

/// What no thread of the process may do: start programs, enter or make namespaces, mount, look into other processes, change the kernel. Any other
/// call is left to the filters of roles. clone3(2), whose flags a filter cannot see, is said to be missing, and the C library uses clone(2) instead.
fn filters() -> Result<[BpfProgram; 2], Failure> {
    let architecture = || std::env::consts::ARCH.try_into();
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        OF_NO_THREAD.iter().chain(&YOUNG).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![rule([masked(0, libc::CLONE_NEWUSER, libc::CLONE_NEWUSER)])?]);
    let update = u64::from(BPF_MAP_UPDATE_ELEM.cast_unsigned());
    let others = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, update)?;
    rules.insert(libc::SYS_bpf, vec![SeccompRule::new(vec![others])?]);
    // A limit is a way to end another process of the same user: Landlock does not know it.
    let others = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![others])?]);
    // What is put into a terminal is typed into the shell from which vswitchd was started.
    rules.insert(libc::SYS_ioctl, vec![rule([equal_unsigned(1, TIOCSTI)])?, rule([equal_unsigned(1, TIOCLINUX)])?]);
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let refused = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture()?)?;
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let missing = SeccompFilter::new(rules, SeccompAction::Allow, missing, architecture()?)?;
    Ok([refused.try_into()?, missing.try_into()?])
}

/// Refuses every call of the ABI x32, which kernels for x86-64 may have beside their own: bit 30 stands in their numbers
/// (arch/x86/include/uapi/asm/unistd.h).
fn no_x32() -> BpfProgram {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    vec![
        // The number is the first word of `struct seccomp_data`.
        step(LOAD, 0, 0),
        step(IF_AT_LEAST, 1, 0x4000_0000),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
    ]
}

/// Puts a character into a terminal's input, and its like for consoles (asm-generic/ioctls.h).
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
/// Calls that are younger than the C library's list: fchmodat2, setxattrat, removexattrat, open_tree_attr, file_setattr (asm-generic/unistd.h).
const YOUNG: [i64; 5] = [452, 463, 466, 467, 469];

/// What [`filters`] refuses, whatever the arguments.
const OF_NO_THREAD: &[i64] = &[
    // Whose a file is, and for whom: Landlock lets the owner change that.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // What it does passes no filter.
    libc::SYS_io_uring_setup,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_personality,
    // Of any process of the same user, too.
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_process_madvise,
];

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::super::Confinement;
    use super::super::tests::{CHILD, Forbidden, socket};
    use super::*;

    /// What a process without rights would do, if it could; each says whether it was refused.
    const OF_THE_PROCESS: [Forbidden; 12] = [
        ("write", || std::fs::write("/var/tmp/vswitch-forbidden", "").is_err()),
        ("execve", || Command::new("/bin/true").exec().raw_os_error() == Some(libc::EPERM)),
        ("packet", || socket(libc::AF_PACKET, rustix::net::SocketType::RAW)),
        ("raw", || socket(libc::AF_INET, rustix::net::SocketType::RAW)),
        ("mount", || rustix::mount::mount_bind("/", "/mnt").is_err()),
        ("namespace", || sys::netns::unshare().is_err()),
        ("setuid", || rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(1)).is_err()),
        ("bpf", || sys::bpf::array(1).is_err()),
        ("prlimit", || {
            let (parent, none) = (rustix::process::getppid(), rustix::process::Rlimit { current: None, maximum: None });
            rustix::process::prlimit(parent, rustix::process::Resource::Core, none).is_err()
        }),
        ("nice", || rustix::process::setpriority_process(rustix::process::getppid(), 19).is_err()),
        ("chmod", || std::fs::set_permissions("/var/tmp", std::os::unix::fs::PermissionsExt::from_mode(0o1777)).is_err()),
        ("chown", || std::os::unix::fs::chown("/var/tmp", Some(0), None).is_err()),
    ];

    /// The test runs itself once more, as the process that gives all up.
    #[test]
    fn a_process_without_rights_that_tries_what_is_forbidden_is_refused() {
        if let Ok(state_dir) = std::env::var(CHILD) {
            Confinement::on(Path::new(&state_dir)).unwrap().close_process().unwrap();
            let allowed = OF_THE_PROCESS.iter().filter(|(_, attempt)| !attempt()).map(|(name, _)| *name).collect::<Vec<_>>();
            assert_eq!(allowed, Vec::<&str>::new());
            // What it is for is there still: threads, files to read, and its own to write.
            std::fs::write(Path::new(&state_dir).join("state.json"), "{}").unwrap();
            std::thread::spawn(|| std::fs::read("/etc/passwd").unwrap()).join().unwrap();
            return;
        }
        let name = "confine::process::tests::a_process_without_rights_that_tries_what_is_forbidden_is_refused";
        let state_dir = tempfile::tempdir().unwrap();
        let mut own = Command::new(std::env::current_exe().unwrap());
        let output = own.args(["--exact", name, "--nocapture"]).env(CHILD, state_dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
