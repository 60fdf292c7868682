//! A small file system for a test to fill, to write-protect or to take away.

use crate::lab::Lab;

/// A file system of its own, of 4 MiB, on a directory of a lab, until this is dropped.
pub struct Mounted(String);

impl Mounted {
    /// On the directory of this name, which is made.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[track_caller]
    pub fn new(lab: &Lab, name: &str) -> Self {
        let path = lab.path(name).display().to_string();
        lab.sh(&format!("mkdir -p {path} && mount -t tmpfs -o size=4m,mode=700 life {path}")).ok();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}
