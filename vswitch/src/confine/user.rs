//! The user that vswitchd becomes where root starts it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

use super::drop_bounding_set;
use crate::keep::Directory;

/// A user without rights, whose files nothing but vswitchd's are.
#[derive(Clone, Debug)]
pub struct OwnUser {
    name: String,
    uid: Uid,
    gid: Gid,
}

/// Why vswitchd does not become a user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// It has none of the rights that it takes.
    #[error("--user {0} is for root: this user becomes no other")]
    NotRoot(String),
    /// What is kept is another user's.
    #[error("state-dir {place} is not of --user {1}: `chown -R {1}: {place}` makes it so", place = .0.display())]
    StateOfOther(PathBuf, String),
    /// The operating system refused it.
    #[error("--user {0}: {1}")]
    System(String, #[source] io::Error),
}

impl OwnUser {
    /// The one that is called or numbered so. A number that has no name is its group's as well.
    ///
    /// # Errors
    /// A sentence: there is none, or it is root.
    pub fn find(name: &str) -> Result<Self, String> {
        let number = name.parse().ok().map(Uid::from_raw);
        let known = number.map_or_else(|| User::from_name(name), User::from_uid).ok().flatten();
        let (uid, gid) = match (known, number) {
            (Some(user), _) => (user.uid, user.gid),
            (None, Some(uid)) => (uid, Gid::from_raw(uid.as_raw())),
            (None, None) => return Err("there is no user of that name: `useradd --system` makes one".to_owned()),
        };
        if uid.is_root() {
            return Err("root owns all that there is: name a user that owns nothing else".to_owned());
        }
        Ok(Self { name: name.to_owned(), uid, gid })
    }

    /// Its number.
    pub(crate) const fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Makes the directory of what is kept this user's, if it is not there.
    ///
    /// # Errors
    /// It is another user's.
    pub(crate) fn keep_in(&self, state_dir: &Path) -> Result<(), UserError> {
        match std::fs::symlink_metadata(state_dir) {
            Ok(found) if found.uid() == self.uid() => Ok(()),
            Ok(_) => Err(UserError::StateOfOther(state_dir.to_owned(), self.name.clone())),
            // Where it cannot be made, that is told of later.
            Err(_) if Directory::make(state_dir).is_err() => Ok(()),
            Err(_) => std::os::unix::fs::chown(state_dir, Some(self.uid()), Some(self.gid.as_raw()))
                .map_err(|error| UserError::System(self.name.clone(), error)),
        }
    }

    /// Makes this process one of that user, with no group but the user's own, for ever.
    ///
    /// # Errors
    /// It is not root's.
    pub(crate) fn become_it(&self) -> Result<(), UserError> {
        if Uid::effective() == self.uid {
            return Ok(());
        }
        if !Uid::effective().is_root() {
            return Err(UserError::NotRoot(self.name.clone()));
        }
        // The kernel takes the other sets away with the user (capabilities(7)).
        drop_bounding_set();
        let changed = setgroups(&[]).and_then(|()| setresgid(self.gid, self.gid, self.gid));
        let changed = changed.and_then(|()| setresuid(self.uid, self.uid, self.uid));
        changed.map_err(|errno| UserError::System(self.name.clone(), errno.into()))
    }
}
