//! Network namespaces: finding, making and removing them, and working inside one.
//!
//! A thread is in one network namespace, and sockets and TAPs belong to the namespace of the thread that opens them. All work
//! is done on a thread of its own that ends afterwards, so no thread of a pool is ever left in a foreign namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use netlink_packet_route::link::LinkMessage;
use rustix::fs::{FlockOperation, Mode, OFlags, StatFs};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::error::{AttachError, Doing, NET_ADMIN, Place, SYS_ADMIN};
use super::netlink::{self, Netlink};
use super::requests;
use super::watch::{self, NamespaceNumber};
use api::Netns;
use sys::netns;

/// The mount namespace in which namespaces get their names; none: vswitchd's own.
static NAMED_IN: OnceLock<File> = OnceLock::new();

/// Where `ip netns` looks for namespaces (ip-netns(8)).
const DIRECTORY: &str = "/run/netns";
/// How often and how long it is waited for its lock, which `ip netns` holds for milliseconds.
const LOCKED: (u32, Duration) = (100, Duration::from_millis(20));
/// The namespace of the calling thread; `/proc/self` would be that of the process's first thread.
pub(super) const OWN: &str = "/proc/thread-self/ns/net";

/// What tells a namespace from every other one that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// That of the namespace with this name now; `None`: there is none.
    pub fn now(netns: &Netns) -> Option<Self> {
        let path = netns.path();
        // Most can be seen by everybody, and the control loop looks often.
        Self::at(&path).or_else(|| requests::identity(&path))
    }

    /// That of the namespace that a file stands for; `None`: there is no such file.
    pub(super) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// An open network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    /// How it was asked for.
    pub(super) place: Place,
    /// `None`: that of vswitchd.
    file: Option<File>,
    /// Whether opening it made it.
    pub(super) made: bool,
    /// Its number, if it is watched.
    pub(super) number: Option<NamespaceNumber>,
}

impl Namespace {
    /// That of vswitchd.
    pub(super) fn own() -> Self {
        Self { place: Place(None), file: None, made: false, number: None }
    }

    /// One that exists.
    pub(super) fn open(netns: Option<&Netns>) -> Result<Self, AttachError> {
        let Some(netns) = netns else { return Ok(Self::own()) };
        let path = netns.path();
        match open_namespace(&path) {
            Ok(None) => Err(AttachError::NotNetns(path)),
            Ok(Some(file)) => Ok(Self { place: Place(Some(netns.clone())), file: Some(file), made: false, number: None }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(AttachError::NoNetns { netns: netns.clone(), source })
            }
            Err(source) => Err(source).doing(SYS_ADMIN, || format!("open {}", path.display())),
        }
    }

    /// One that exists or that a name can make.
    pub(super) fn open_or_make(netns: Option<&Netns>, mark: &str) -> Result<Self, AttachError> {
        let made = match netns {
            Some(Netns::Name(name)) => make_netns(name, mark)?,
            _ => false,
        };
        Ok(Self { made, ..Self::open(netns)? })
    }

    /// The same, with its number. A namespace that cannot get a number is not watched.
    pub(super) fn numbered(self) -> Self {
        let number = self.descriptor().ok().and_then(|file| watch::number(file.as_fd()).ok());
        Self { number, ..self }
    }

    /// What tells it from others, also of its name; `None`: vswitchd's own.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.file.as_ref()?.metadata().ok().as_ref().map(Identity::of)
    }

    /// A descriptor of it, for moving devices there.
    pub(super) fn descriptor(&self) -> Result<File, AttachError> {
        let file = match &self.file {
            Some(file) => file.try_clone(),
            None => File::open(OWN),
        };
        file.doing(SYS_ADMIN, || "open vswitchd's own network namespace".to_owned())
    }

    /// Does `work` there, on a thread of its own.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, AttachError> + Send) -> Result<T, AttachError> {
        on_own_thread(|| {
            if let (Some(file), Some(netns)) = (&self.file, &self.place.0) {
                netns::enter(file.as_fd()).map_err(|errno| match errno {
                    Errno::INVAL => AttachError::NotNetns(netns.path()),
                    _ => refused(errno, format!("enter network namespace {netns}")),
                })?;
            }
            work()
        })
    }

    /// As [`Namespace::run`], with a netlink socket of that namespace.
    pub(super) fn with_netlink<T: Send>(
        &self,
        work: impl FnOnce(&Netlink) -> Result<T, AttachError> + Send,
    ) -> Result<T, AttachError> {
        self.run(|| {
            let netlink = Netlink::open().doing(NET_ADMIN, || format!("open a netlink socket {}", self.place))?;
            work(&netlink)
        })
    }
}

/// Lets namespaces get their names in another mount namespace than vswitchd's own, from now on: a name is a mount, and one of a service that has
/// a mount namespace for itself is seen by no other process.
///
/// # Errors
/// The file cannot be opened, or this was done before.
pub fn name_namespaces_in(mounts: &Path) -> io::Result<()> {
    NAMED_IN.set(File::open(mounts)?).map_err(|_| io::ErrorKind::AlreadyExists.into())
}

/// As [`on_own_thread`], where namespaces get their names.
fn where_names_are<T: Send>(work: impl FnOnce() -> Result<T, AttachError> + Send) -> Result<T, AttachError> {
    on_own_thread(|| {
        let enter = NAMED_IN.get().map_or(Ok(()), |mounts| netns::enter_mounts(mounts.as_fd()));
        enter.map_err(|errno| refused(errno, "enter the mount namespace of --mounts".to_owned()))?;
        work()
    })
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, AttachError> + Send) -> Result<T, AttachError> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("netns".to_owned());
        let thread = builder.spawn_scoped(scope, work).doing(SYS_ADMIN, || "start a thread".to_owned())?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The namespace that is called so. What is no name of one leads to no other file.
fn named(name: &str) -> Result<Netns, AttachError> {
    match Netns::try_from(name.to_owned()) {
        Ok(netns @ Netns::Name(_)) => Ok(netns),
        _ => Err(AttachError::NotNetns(name.into())),
    }
}

fn refused(errno: Errno, doing: String) -> AttachError {
    AttachError::Kernel { doing, needs: SYS_ADMIN, source: errno.into() }
}

/// Makes the network namespace `name` as `ip netns add` does, with its loopback up and IPv6 on, whatever new namespaces of this machine begin
/// with. The alias of its loopback is its mark, from the moment at which it gets its name. Returns whether it had to be made.
///
/// # Errors
/// Mostly a missing `CAP_SYS_ADMIN`. Nothing is left behind then.
pub fn make_netns(name: &str, mark: &str) -> Result<bool, AttachError> {
    let path = named(name)?.path();
    let doing = || format!("make network namespace \"{name}\" at {}", path.display());
    where_names_are(|| {
        let _lock = shared_directory().doing(SYS_ADMIN, || format!("make {DIRECTORY} a place for namespaces"))?;
        let file = match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(errno) => return Err(refused(errno, doing())),
        };
        if rustix::fs::fstatfs(&file).is_ok_and(|stat| is_of_namespaces(&stat)) {
            return Ok(false);
        }
        let made = netns::unshare().doing(SYS_ADMIN, doing).and_then(|()| {
            ipv6_on();
            let up = Netlink::open().and_then(|netlink| netlink.change(loopback(mark)));
            up.doing(NET_ADMIN, || format!("set up the loopback of \"{name}\""))?;
            rustix::mount::mount_bind(OWN, &path).doing(SYS_ADMIN, doing)
        });
        if made.is_err() {
            // The error that counts is the first one.
            let _ = unname(name);
        }
        made.map(|()| true)
    })
}

/// Removes the namespace's name as `ip netns del` does; the namespace ends with the last process and file that holds it. One
/// that is gone already is fine.
///
/// # Errors
/// A missing `CAP_SYS_ADMIN`.
pub(super) fn remove_netns(name: &str) -> Result<(), AttachError> {
    where_names_are(|| unname(name))
}

/// Marks a namespace that an earlier release made, which gave it no mark.
///
/// # Errors
/// It is gone, or cannot be entered.
pub(super) fn mark_netns(name: &str, mark: &str) -> Result<(), AttachError> {
    let namespace = Namespace::open(Some(&named(name)?))?;
    let doing = || format!("mark the loopback {}", namespace.place);
    namespace.with_netlink(|netlink| netlink.change(loopback(mark)).doing(NET_ADMIN, doing))
}

/// Whether what has this name now was made with this mark. Where a crash left the name and nothing behind it, it was.
///
/// # Errors
/// It cannot be entered.
pub(super) fn is_marked_netns(name: &str, mark: &str) -> Result<bool, AttachError> {
    let namespace = match Namespace::open(Some(&named(name)?)) {
        Err(AttachError::NoNetns { .. }) => return Ok(false),
        Err(AttachError::NotNetns(_)) => return Ok(true),
        opened => opened?,
    };
    let doing = || format!("look at the loopback {}", namespace.place);
    let loopback = namespace.with_netlink(|netlink| netlink.link("lo").doing(NET_ADMIN, doing))?;
    Ok(loopback.is_some_and(|link| link.alias.as_deref() == Some(mark)))
}

fn unname(name: &str) -> Result<(), AttachError> {
    let path = named(name)?.path();
    let removed = match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        // EINVAL: a plain file, as a crash between making the file and mounting it leaves.
        Ok(()) | Err(Errno::INVAL) => rustix::fs::unlink(&path),
        Err(errno) => Err(errno),
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused(errno, format!("remove network namespace \"{name}\" at {}", path.display()))),
    }
}

/// A sentence for the user if namespaces that vswitchd makes could not be seen from outside: `ip netns exec` runs its command
/// in a mount namespace of its own, which new mounts do not leave.
pub(super) fn netns_warning() -> Option<String> {
    let mounts = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let (ours, first) = (mounts("self")?, mounts("1")?);
    (ours != first && NAMED_IN.get().is_none()).then(|| {
        "vswitchd runs in a mount namespace of its own (as under `ip netns exec`), so network namespaces that it makes cannot \
         be seen from outside: make them beforehand with `ip netns add`, or start vswitchd with \
         `nsenter --net=/run/netns/NAME`, which changes the network namespace only"
            .to_owned()
    })
}

/// Makes the directory a shared mount, so that namespaces made here appear in every mount namespace that shares it. The file
/// returned holds the lock under which `ip netns` does the same.
fn shared_directory() -> io::Result<impl Drop> {
    match rustix::fs::mkdir(DIRECTORY, Mode::from_raw_mode(0o755)) {
        // Whatever the umask is: users list namespaces, too.
        Ok(()) => rustix::fs::chmod(DIRECTORY, Mode::from_raw_mode(0o755))?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let directory = rustix::fs::open(DIRECTORY, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    lock(&directory)?;
    let share = || rustix::mount::mount_change(DIRECTORY, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        // It is not a mount point yet.
        Err(Errno::INVAL) => rustix::mount::mount_bind_recursive(DIRECTORY, DIRECTORY).and_then(|()| share())?,
        result => result?,
    }
    Ok(directory)
}

/// Waits for the lock of a directory, but not for ever: any user may keep it.
fn lock(directory: &OwnedFd) -> io::Result<()> {
    let (turns, pause) = LOCKED;
    for _ in 0..turns {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(pause),
            outcome => return Ok(outcome?),
        }
    }
    Err(io::Error::other(format!("another program keeps {DIRECTORY} locked: `lslocks` says which")))
}

/// Opens what a file stands for; `None`: that is no namespace. A FIFO, or a device, is not even opened: that may wait, or do something.
fn open_namespace(path: &Path) -> io::Result<Option<File>> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if !is_of_namespaces(&rustix::fs::fstatfs(&found)?) {
        return Ok(None);
    }
    // What the path leads to may be something else by now.
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Some)
}

/// The number of the namespace that a file stands for; `None`: it is not there, or is none.
pub fn netns_inode(path: &Path) -> Option<u64> {
    inode_at(path).or_else(|| requests::inode(path))
}

/// That of a file that this process can see.
pub(super) fn inode_at(path: &Path) -> Option<u64> {
    let is_namespace = rustix::fs::statfs(path).is_ok_and(|stat| is_of_namespaces(&stat));
    std::fs::metadata(path).ok().filter(|_| is_namespace).map(|metadata| metadata.ino())
}

/// The name of a namespace that is not there and will be made when a port wants it.
pub fn netns_to_make(netns: &Netns) -> Option<String> {
    match netns {
        Netns::Name(name) if netns_inode(&netns.path()).is_none() => Some(name.clone()),
        _ => None,
    }
}

/// The number of vswitchd's own.
pub fn own_netns_inode() -> Option<u64> {
    netns_inode(Path::new(OWN))
}

/// Whether the file system is that of namespaces (`NSFS_MAGIC`, linux/magic.h).
const fn is_of_namespaces(stat: &StatFs) -> bool {
    stat.f_type == 0x6e73_6673
}

/// Lets devices of the calling thread's namespace have IPv6 addresses: with `net.core.devconf_inherit_init_net` set, a namespace begins with what
/// the host has (`addrconf_init_net`), also without IPv6. Where /proc/sys cannot be written, an address that is then refused says so.
fn ipv6_on() {
    for devices in ["all", "default", "lo"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{devices}/disable_ipv6"), "0");
    }
}

/// The message that sets a namespace's loopback up and gives it a mark. It is the first device of every namespace (`loopback_net_init`).
fn loopback(mark: &str) -> LinkMessage {
    netlink::change(1).up().alias(mark).build()
}
