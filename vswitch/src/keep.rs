//! Files that must outlive the process, in a directory of vswitchd's own.
//!
//! vswitchd often runs as root, and its directory may be where others can write. So the directory must be this user's or root's, files
//! are opened by their names in it (openat(2)) and never through a symbolic link, and what is read must be a plain file of the same
//! owners. A file is written beside its place and renamed into it: a crash at any moment leaves it or the one before.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No file of ours is longer.
const LONGEST: u64 = 64 << 20;

/// A directory for such files.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// Opens one that is there.
    ///
    /// # Errors
    /// It is not there, it is not a directory, or another user owns it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        check_owner(std::fs::symlink_metadata(path)?.uid())?;
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        check_owner(rustix::fs::fstat(&fd)?.st_uid)?;
        Ok(Self(fd))
    }

    /// Opens one, which is made if missing.
    ///
    /// # Errors
    /// As for [`Directory::open`], or it cannot be made.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    /// What a file holds.
    ///
    /// # Errors
    /// It is not there, or nothing that vswitchd wrote.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(name, OFlags::RDONLY)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Replaces what a file holds. What it held before stays under the name `old`, if one is given.
    ///
    /// # Errors
    /// The disk is full or read-only; the file is as it was then.
    pub(crate) fn write(&self, name: &str, bytes: &[u8], old: Option<&str>) -> io::Result<()> {
        let new = format!("{name}.new");
        let written = self.write_new(&new, bytes).and_then(|()| {
            old.iter().for_each(|old| self.keep_old(name, old));
            Ok(rustix::fs::renameat(&self.0, &new, &self.0, name)?)
        });
        if written.is_err() {
            // It takes room that there may be too little of. The error that counts is the first one.
            let _ = self.remove(&new);
        }
        written?;
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR);
        let file = match create() {
            // A crash left it, or another user set it as a trap: in either case it is not written to.
            Err(Errno::EXIST) => {
                self.remove(name)?;
                create()?
            }
            result => result?,
        };
        let mut file = File::from(file);
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Gives a file another name besides its own; where the file system cannot do that, there is no old one.
    fn keep_old(&self, name: &str, old: &str) {
        let _ = self.remove(old);
        let _ = rustix::fs::linkat(&self.0, name, &self.0, old, AtFlags::empty());
    }

    /// What a file in the directory at `path` holds as JSON; `None`: it is not there.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, name: &str) -> Result<Option<T>, String> {
        let said = |why: &dyn Display| format!("{}: {why}", path.join(name).display());
        match Self::open(path).and_then(|directory| directory.read(name)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| said(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(said(&error)),
        }
    }

    /// Replaces what a file in the directory at `path` holds by this as JSON.
    ///
    /// # Errors
    /// As of [`Directory::make`] and [`Directory::write`].
    pub(crate) fn write_json(path: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
        Self::make(path)?.write(name, &serde_json::to_vec(value)?, None)
    }

    /// Removes a file. One that is gone is fine.
    ///
    /// # Errors
    /// The disk is read-only.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a file that vswitchd wrote; with [`OFlags::CREATE`], one that may be missing.
    ///
    /// # Errors
    /// It is missing, a symbolic link, no plain file, or another user's.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Without NONBLOCK, opening a FIFO would wait for its writer.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
            Errno::LOOP => io::Error::other("it is a symbolic link, which vswitchd does not follow: remove it"),
            // Without rights another user's file is not opened, to be refused afterwards.
            Errno::ACCESS => match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => check_owner(found.st_uid).err().unwrap_or_else(|| Errno::ACCESS.into()),
                Err(errno) => errno.into(),
            },
            errno => errno.into(),
        })?;
        let file = File::from(file);
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is no plain file: remove it"));
        }
        check_owner(found.uid())?;
        Ok(file)
    }

    /// The descriptor, to be locked.
    pub(crate) const fn descriptor(&self) -> &OwnedFd {
        &self.0
    }
}

fn check_owner(owner: u32) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if owner == own || owner == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("it belongs to user {owner}, not to user {own}, who runs vswitchd: change that with chown")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_the_one_before_stays() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::make(&place.path().join("deep/er")).unwrap();
        assert_eq!(directory.read("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        for text in ["one", "two", "three"] {
            directory.write("a", text.as_bytes(), Some("a.old")).unwrap();
        }
        assert_eq!((directory.read("a").unwrap(), directory.read("a.old").unwrap()), (b"three".to_vec(), b"two".to_vec()));
        assert_eq!(directory.read("a.new").unwrap_err().kind(), io::ErrorKind::NotFound);
        directory.remove("a").unwrap();
        directory.remove("a").unwrap();
    }

    #[test]
    fn links_and_pipes_are_neither_followed_nor_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let target = place.path().join("precious");
        std::fs::write(&target, "precious").unwrap();
        for name in ["a", "a.new", "a.old"] {
            std::os::unix::fs::symlink(&target, place.path().join(name)).unwrap();
        }
        assert!(directory.read("a").unwrap_err().to_string().contains("symbolic link"));
        directory.write("a", b"new", Some("a.old")).unwrap();
        assert_eq!((std::fs::read(&target).unwrap(), directory.read("a").unwrap()), (b"precious".to_vec(), b"new".to_vec()));
        let pipe = place.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(directory.read("pipe").unwrap_err().to_string().contains("no plain file"));
    }

    #[test]
    fn what_is_somebody_elses_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("theirs");
        let directory = Directory::make(&path).unwrap();
        directory.write("a", b"1", None).unwrap();
        std::os::unix::fs::chown(path.join("a"), Some(4711), None).unwrap();
        assert!(directory.read("a").unwrap_err().to_string().contains("belongs to user 4711"));
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        assert!(Directory::make(&path).unwrap_err().to_string().contains("belongs to user 4711"));
        // Another user's link may lead to a directory of ours.
        let link = place.path().join("link");
        std::os::unix::fs::symlink(place.path(), &link).unwrap();
        Directory::open(&link).unwrap();
        std::os::unix::fs::lchown(&link, Some(4711), None).unwrap();
        assert!(Directory::open(&link).is_err());
    }
}
