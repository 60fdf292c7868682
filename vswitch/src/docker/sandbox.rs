//! Whether a container's network namespace is still there. `control/docker` asks when a container joins and when it looks for dead ones.
//! Touches the file system alone: it looks at the namespace's file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DockerError;
use crate::attach;

/// A container's network namespace.
///
/// Docker does not tell of a container that died while vswitchd or Docker itself was down; its sandbox tells it. A descriptor of a TAP
/// that was opened inside keeps the namespace alive, so the only sign is that its file is gone, or is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sandbox {
    /// Its file.
    pub path: PathBuf,
    /// The namespace's number; `None`: vswitchd did not see it.
    pub inode: Option<u64>,
}

impl Sandbox {
    /// The sandbox of this file.
    ///
    /// # Errors
    /// Not an absolute path.
    pub fn at(path: &str) -> Result<Self, DockerError> {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(DockerError::Sandbox(path.to_owned()));
        }
        Ok(Self { path: path.into(), inode: attach::netns_inode(Path::new(path)) })
    }

    /// Whether it is still there.
    pub fn is_alive(&self) -> bool {
        // Where dockerd's mounts are not seen, the file is all there is.
        self.inode.map_or_else(|| attach::is_there(&self.path), |known| attach::netns_inode(&self.path) == Some(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_gone_with_its_namespace_also_where_its_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0123");
        let text = path.to_str().unwrap();
        let mount = |namespace: &str| {
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(format!("/proc/self/ns/{namespace}"), &path).unwrap();
        };
        assert!(!Sandbox::at(text).unwrap().is_alive());
        mount("net");
        let sandbox = Sandbox::at(text).unwrap();
        assert!(sandbox.is_alive());
        mount("uts");
        assert!(!sandbox.is_alive(), "another namespace");
        mount("net");
        assert!(sandbox.is_alive());
        std::fs::remove_file(&path).unwrap();
        assert!(!sandbox.is_alive());
        std::fs::write(&path, "").unwrap();
        assert!(!sandbox.is_alive(), "what a namespace was mounted on");
        let unseen = Sandbox::at(text).unwrap();
        assert!(unseen.is_alive() && unseen.inode.is_none());
        for bad in ["", "relative", "/a\0b"] {
            assert!(Sandbox::at(bad).is_err());
        }
    }
}
