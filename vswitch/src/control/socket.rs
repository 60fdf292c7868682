//! Unix sockets that others find by their path.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as BlockingListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use crate::broker::{Descriptor, SystemError, requests};

/// Longest path of a socket: `sun_path` (unix(7)) less its terminating zero.
const LONGEST_PATH: usize = 107;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPurpose {
    /// Its name in a sentence.
    name: &'static str,
    /// The key of `switch.toml` that sets its path.
    key: &'static str,
    /// Who may use it.
    mode: u32,
}

/// `vsctl`'s.
pub(super) const CONTROL: SocketPurpose = SocketPurpose { name: "control socket", key: "`control`", mode: 0o660 };
/// That of who takes over.
pub(super) const TAKEOVER: SocketPurpose = SocketPurpose { name: "takeover socket", key: "`control`", mode: 0o600 };
/// Docker's.
pub(super) const DOCKER: SocketPurpose = SocketPurpose { name: "Docker's socket", key: "`socket` in [docker]", mode: 0o600 };

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit a socket's address.
    #[error("{} {}: its path has {} bytes; a Unix socket's may have {LONGEST_PATH}: set a shorter {}", .0.name, .1.display(), .1.as_os_str().len(), .0.key)]
    TooLong(SocketPurpose, PathBuf),
    /// No such group.
    #[error("`control-group`: there is no group \"{0}\": make it with `groupadd {0}`, or name another, or its number")]
    NoGroup(String),
    /// Another process serves it.
    #[error("{} {}: another vswitchd serves it: stop that one, or set another {} and `state-dir`", .0.name, .1.display(), .0.key)]
    InUse(SocketPurpose, PathBuf),
    /// Something else is there.
    #[error("{} {}: there is a file that is not a socket: remove it, or set another {}", .0.name, .1.display(), .0.key)]
    NotASocket(SocketPurpose, PathBuf),
    /// The web view cannot be opened.
    #[error(transparent)]
    Web(#[from] crate::web::WebError),
    /// The operating system refused.
    #[error("{} {}: {source}", .0.name, .1.display(), source = .2)]
    Refused(SocketPurpose, PathBuf, #[source] io::Error),
}

/// A socket that is listened on; its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    /// `None`: it was there before and stays, so that a client that comes while vswitchd is away waits.
    pub(super) file: Option<SocketFile>,
    /// Where its file is that this process is to remove in the end, once it serves the socket instead of another.
    pub(super) adopts: Option<SocketPlace>,
}

impl Socket {
    /// Takes over the file that another process made.
    pub(super) fn adopt(&mut self) {
        if let Some(place) = self.adopts.take() {
            self.file = SocketFile::at(&place);
        }
    }
}

/// A socket that another process opened.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) listener: BlockingListener,
    /// Whether its file is this process's, to be removed in the end.
    pub(super) ours: bool,
}

/// The file of a socket, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    place: SocketPlace,
    /// Its device and inode, for the file that is there may be that of another socket. No other file has them for as long as the socket is open.
    identity: FileIdentity,
}

/// Of a file that is left to another process. No file has these.
const LEFT: FileIdentity = (0, 0);

/// Where a socket is, and for whom.
#[derive(Clone, Debug)]
pub(super) struct SocketPlace {
    pub(super) path: PathBuf,
    pub(super) purpose: SocketPurpose,
    /// The group that may use it; `None`: that of the process.
    pub(super) group: Option<u32>,
}

impl SocketFile {
    /// The file of a socket that is there; `None`: it was removed.
    fn at(place: &SocketPlace) -> Option<Self> {
        Some(Self { place: place.clone(), identity: identify(&place.path).ok()? })
    }

    /// Leaves the file to another process.
    pub(super) fn leave(mut self) {
        self.identity = LEFT;
    }

    /// The socket once more, if its file is gone; `None`: it is there.
    pub(super) fn remake(&self) -> Result<Option<Socket>, SocketError> {
        let refused = |source| SocketError::Refused(self.place.purpose, self.place.path.clone(), source);
        match identify(&self.place.path).map_err(|error| error.0) {
            Ok(identity) if identity == self.identity => Ok(None),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(error)),
            // What another program put there is for `bind` to judge.
            _ => bind(&self.place).map(Some),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity != LEFT {
            remove_socket(&self.place.path, &self.identity);
        }
    }
}

/// The number of a group that is called or numbered so.
pub(super) fn group(name: &str) -> Result<u32, SocketError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = nix::unistd::Group::from_name(name).ok().flatten();
    found.map(|group| group.gid.as_raw()).ok_or_else(|| SocketError::NoGroup(name.to_owned()))
}

/// Opens a socket: that among `passed`, which another process opened, or a new one, which replaces one that a killed vswitchd left.
pub(super) fn open(place: &SocketPlace, passed: &mut Vec<Passed>) -> Result<Socket, SocketError> {
    let SocketPlace { path, purpose, .. } = place;
    let is_it = |socket: &Passed| socket.listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path));
    let Some(number) = passed.iter().position(is_it) else { return bind(place) };
    let Passed { listener, ours } = passed.swap_remove(number);
    let refused = |source| SocketError::Refused(*purpose, path.clone(), source);
    let listener =
        listener.set_nonblocking(true).and_then(|()| if ours { listen(listener) } else { UnixListener::from_std(listener) });
    let listener = listener.map_err(refused)?;
    Ok(Socket { listener, file: None, adopts: ours.then(|| place.clone()) })
}

fn bind(place: &SocketPlace) -> Result<Socket, SocketError> {
    let SocketPlace { path, purpose, group } = place;
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(SocketError::TooLong(*purpose, path.clone()));
    }
    let (Descriptor(listener), identity) = make_socket(path, &purpose.mode, group).map_err(|refusal| match refusal {
        SocketRefusal::InUse => SocketError::InUse(*purpose, path.clone()),
        SocketRefusal::NotASocket => SocketError::NotASocket(*purpose, path.clone()),
        SocketRefusal::Refused(SystemError(source)) => SocketError::Refused(*purpose, path.clone(), source),
    })?;
    let listener = listen(listener.into()).map_err(|source| SocketError::Refused(*purpose, path.clone(), source))?;
    Ok(Socket { listener, file: Some(SocketFile { place: place.clone(), identity }), adopts: None })
}

/// Listens at a socket, once more if another process of vswitchd's did. Clients are told who they talk to by who did so last (`unix_listen`), and wait for
/// the end of that process.
fn listen(listener: BlockingListener) -> io::Result<UnixListener> {
    rustix::net::listen(&listener, BACKLOG)?;
    UnixListener::from_std(listener)
}

/// Clients that wait to be accepted; the kernel cuts it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Device and inode of a file.
type FileIdentity = (u64, u64);

/// Why there is no socket at a path.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SocketRefusal {
    InUse,
    NotASocket,
    Refused(SystemError),
}

impl From<io::Error> for SocketRefusal {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// Where a broker makes sockets: those that the file of the switch has. Empty where this process is none.
static PLACES: OnceLock<Places> = OnceLock::new();

struct Places {
    paths: Vec<PathBuf>,
    owner: Option<u32>,
}

/// Says, in a broker, where sockets may be, and whose they are, if not its own user's.
pub(super) fn make_none_but(paths: Vec<PathBuf>, owner: Option<u32>) {
    // Said once.
    let _ = PLACES.set(Places { paths, owner });
}

fn is_allowed(path: &Path) -> io::Result<()> {
    let is_known = PLACES.get().is_none_or(|places| places.paths.iter().any(|place| place == path));
    if is_known { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

requests! {
    /// Opens a socket that listens at a path, for a group if one is given, instead of one that a killed vswitchd left.
    fn make_socket(path: &Path = PathBuf, mode: &u32 = u32, group: &Option<u32> = Option<u32>) -> Result<(Descriptor, FileIdentity), SocketRefusal>, by make;
    /// Which file is at a path.
    fn identify(path: &Path = PathBuf) -> Result<FileIdentity, SystemError>, by identity;
    /// Removes a socket's file, if it is still this one.
    fn remove_socket(path: &Path = PathBuf, identity: &FileIdentity = FileIdentity) -> (), by remove;
}

fn make(path: &Path, mode: &u32, group: &Option<u32>) -> Result<(Descriptor, FileIdentity), SocketRefusal> {
    is_allowed(path)?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    make_way(path)?;
    let listener = BlockingListener::bind(path).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => SocketRefusal::InUse,
        _ => source.into(),
    })?;
    listener.set_nonblocking(true)?;
    // Whatever has the path by now, this is the file that gets owner and mode.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
    let found = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    if !FileType::from_raw_mode(found.st_mode).is_socket() {
        return Err(SocketRefusal::NotASocket);
    }
    let this = format!("/proc/self/fd/{}", file.as_raw_fd());
    let owner = PLACES.get().and_then(|places| places.owner);
    if owner.is_some() || group.is_some() {
        std::os::unix::fs::chown(&this, owner, *group)?;
    }
    std::fs::set_permissions(&this, std::fs::Permissions::from_mode(*mode & 0o666))?;
    Ok((Descriptor(listener.into()), (found.st_dev, found.st_ino)))
}

fn identity(path: &Path) -> Result<FileIdentity, SystemError> {
    is_allowed(path)?;
    Ok(std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))?)
}

fn remove(path: &Path, known: &FileIdentity) {
    let is_socket = || std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if identity(path).is_ok_and(|identity| identity == *known) && is_socket() {
        // It may be removed by hand just now.
        let _ = std::fs::remove_file(path);
    }
}

/// Removes a socket on which no process listens.
fn make_way(path: &Path) -> Result<(), SocketRefusal> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketRefusal::NotASocket),
        Ok(_) => {}
    }
    // One who has no room for connections is there, and is not waited for.
    let probe = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, probe, None).map_err(io::Error::from)?;
    let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
    match rustix::net::connect(&probe, &address) {
        Ok(()) | Err(Errno::AGAIN) => Err(SocketRefusal::InUse),
        Err(Errno::CONNREFUSED) => Ok(std::fs::remove_file(path)?),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> Result<Socket, SocketError> {
        open(path, &mut Vec::new())
    }

    fn open(path: &Path, passed: &mut Vec<Passed>) -> Result<Socket, SocketError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = SocketPlace { path: path.to_owned(), purpose: CONTROL, group: None };
        runtime.block_on(async { super::open(&place, passed) })
    }

    #[test]
    fn a_socket_that_was_passed_is_used_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["control.sock", "other.sock"].map(|name| directory.path().join(name));
        let pass = |path: &Path, ours| Passed { listener: BlockingListener::bind(path).unwrap(), ours };
        let mut passed = vec![pass(&other, false), pass(&path, false)];
        drop(open(&path, &mut passed).unwrap());
        assert!(path.exists());
        assert_eq!(passed.len(), 1);
        // One that a vswitchd opened goes with its successor, once that serves it, and unless it leaves the file to another.
        let take = |passed| open(&other, &mut vec![passed]).unwrap();
        drop(take(Passed { ours: true, ..passed.remove(0) }));
        assert!(other.exists());
        std::fs::remove_file(&other).unwrap();
        let mut left = take(pass(&other, true));
        left.adopt();
        left.file.unwrap().leave();
        assert!(other.exists());
        std::fs::remove_file(&other).unwrap();
        take(pass(&other, true)).adopt();
        assert!(!other.exists());
        drop(bind(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_makes_way_and_a_live_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/control.sock");
        drop(bind(&path).unwrap());
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(bind(&path).unwrap_err().to_string().contains("another vswitchd serves it"));
        assert!(path.exists());
        drop(live);
    }

    #[test]
    fn a_socket_whose_file_is_gone_is_made_again_and_anothers_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let Socket { listener, file, .. } = bind(&path).unwrap();
        let file = file.unwrap();
        assert!(file.remake().unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
        let again = file.remake().unwrap().unwrap();
        drop(file);
        drop(listener);
        assert!(path.exists(), "the first one's end took the second one's file");
        std::fs::remove_file(&path).unwrap();
        let other = BlockingListener::bind(&path).unwrap();
        assert!(again.file.as_ref().unwrap().remake().unwrap_err().to_string().contains("another vswitchd serves it"));
        drop(again);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn a_group_is_a_name_or_a_number() {
        assert_eq!((group("root").unwrap(), group("4711").unwrap()), (0, 4711));
        assert!(group("no-such-group").unwrap_err().to_string().contains("there is no group \"no-such-group\""));
    }

    #[test]
    fn nothing_but_a_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(..))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let long = directory.path().join("x".repeat(108));
        assert!(bind(&long).unwrap_err().to_string().contains("a Unix socket's may have 107"));
    }
}
