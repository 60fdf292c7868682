//! The lab's namespaces from within: how a command comes into them, and how a host's are made.
//!
//! In the lab of an ordinary user no command is root: it runs as that user and has every capability in the lab's namespaces. Mapped to root, with a
//! single user to map, they could not become another user, which tcpdump and others try when root starts them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use crate::enter::environment;
use crate::file::HostName;
use crate::place::{Place, write};
use crate::{During, LabError};

/// Becomes a command in a host, or beside the switch; `keeper` is the keeper's number in the /proc that this process sees.
pub(crate) fn enter(place: &Place, keeper: &str, host: Option<&HostName>, words: &[String]) -> Result<(), LabError> {
    let meta = place.meta()?.ok_or_else(|| LabError::refused("no lab runs"))?;
    // In there, /proc does not know this process, which could not say then where its program is.
    let environment = environment(place, host);
    let mut kinds = vec!["user", "pid", "mnt"];
    if !meta.way_out {
        kinds.insert(1, "net");
    }
    join(keeper, &kinds)?;
    let mut home = place.in_run("hosts");
    if let Some(host) = host {
        let holder = place.holder(host);
        let number = fs::read_to_string(&holder).during(|| format!("host \"{host}\" has no process, {}", holder.display()))?;
        join(number.trim(), &["net", "uts", "mnt"])?;
        home = place.home(host);
    }
    if !nix::unistd::geteuid().is_root() {
        keep_capabilities().during(|| "the lab's capabilities cannot be kept".to_owned())?;
    }
    // What is started next is the first that has a number in there.
    let mut command = Command::new("unshare");
    command.args(["--fork", "--", "env", "-C"]).arg(home).args(environment).args(words);
    Err(LabError::System("unshare cannot be run (it is in the package util-linux)".to_owned(), command.exec()))
}

/// Moves this process, which has one thread, into another's namespaces.
fn join(number: &str, kinds: &[&str]) -> Result<(), LabError> {
    let of = |process: &str, kind: &str| format!("/proc/{process}/ns/{kind}");
    let what = |kind: &str| format!("the lab's namespace of kind {kind} cannot be entered");
    let mut open = Vec::new();
    for kind in kinds {
        let file = File::open(of(number, kind)).during(|| what(kind))?;
        // The kernel refuses the namespace of users in which a process is already (EINVAL of setns(2)). /proc/self is there as long as that is to be asked.
        let is_in = |file: &File| Ok::<bool, io::Error>(file.metadata()?.ino() == fs::metadata(of("self", kind))?.ino());
        if *kind != "user" || !is_in(&file).during(|| what(kind))? {
            open.push((*kind, file));
        }
    }
    for (kind, file) in open {
        setns(file, CloneFlags::empty()).map_err(io::Error::from).during(|| what(kind))?;
    }
    Ok(())
}

/// Hands every capability on to what is started: a program of an ordinary user's has only those of the ambient set (capabilities(7)).
fn keep_capabilities() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
    let mut sets = capabilities(None)?;
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    for capability in sets.permitted.iter().filter(|capability| CapabilitySet::all().contains(*capability)) {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Makes a network by the name of a host, with its loopback up.
pub(crate) fn make_network(host: &HostName) -> Result<(), LabError> {
    let path = format!("/run/netns/{host}");
    write(Path::new(&path), "")?;
    let what = || format!("the network of host \"{host}\" cannot be made");
    // A thread's network is its own, and that of what it starts.
    let made = std::thread::scope(|scope| {
        let made = scope.spawn(|| -> io::Result<bool> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount_bind("/proc/thread-self/ns/net", &path)?;
            Ok(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success())
        });
        made.join().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
    });
    if made.during(what)? { Ok(()) } else { Err(LabError::refused(format!("{}: `ip link set lo up` failed", what()))) }
}

/// Holds a host's namespaces: its network, which was made before, its own name, and its own files in /etc.
pub(crate) fn hold(place: &Place, host: &HostName) -> Result<(), LabError> {
    let what = || format!("host \"{host}\" cannot be made");
    let network = File::open(format!("/run/netns/{host}")).during(what)?;
    setns(network, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).during(what)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).map_err(io::Error::from).during(what)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(io::Error::from).during(what)?;
    nix::unistd::sethostname(host.as_str()).map_err(io::Error::from).during(what)?;
    // Where the kernel allows no other, /sys tells of the lab's network instead of the host's.
    let _ = mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None);
    cover(&place.etc(host), Path::new("/etc"), host)?;
    let number = fs::read_link("/proc/self").during(what)?;
    write(&place.holder(host), number.as_os_str().as_encoded_bytes())?;
    loop {
        nix::unistd::pause();
    }
}

/// Puts each file of a directory, and of those in it, over the one of the same name.
fn cover(from: &Path, over: &Path, host: &HostName) -> Result<(), LabError> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        let target = over.join(entry.file_name());
        if entry.path().is_dir() {
            cover(&entry.path(), &target, host)?;
            continue;
        }
        let what = || format!("{} of host \"{host}\" cannot take the place of the machine's file", target.display());
        mount_bind(entry.path(), &target).map_err(io::Error::from).during(what)?;
    }
    Ok(())
}
