use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DockerError;

/// A container's network namespace.
///
/// Docker does not tell of a container that died while vswitchd or Docker itself was down; its sandbox tells it. A descriptor of a TAP
/// that was opened inside keeps the namespace alive, so the only sign is that its file is gone, or is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sandbox {
    /// Its file.
    pub path: PathBuf,
    /// The file's number; `None`: it was not there yet.
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
        Ok(Self { path: path.into(), inode: inode(Path::new(path)) })
    }

    /// Whether it is still there.
    pub fn is_alive(&self) -> bool {
        let now = inode(&self.path);
        now.is_some() && (self.inode.is_none() || now == self.inode)
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_gone_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0123");
        let text = path.to_str().unwrap();
        assert!(!Sandbox::at(text).unwrap().is_alive());
        std::fs::write(&path, "").unwrap();
        let sandbox = Sandbox::at(text).unwrap();
        assert!(sandbox.is_alive());
        // Kept, so that the number is not given again at once.
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        assert!(!sandbox.is_alive());
        std::fs::write(&path, "").unwrap();
        assert!(!sandbox.is_alive());
        for bad in ["", "relative", "/a\0b"] {
            assert!(Sandbox::at(bad).is_err());
        }
    }
}
