//! Puts the extcap program and the Lua plugin where Wireshark looks for them, and takes them away again.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::ClientError;

/// The program in the extcap folder, and the plugin.
const PROGRAM: &str = "vswitch";
const PLUGIN: &str = "vswitch.lua";
const LUA: &str = include_str!("vswitch.lua");

/// Where Wireshark looks.
#[derive(Debug, PartialEq, Eq)]
struct Folders {
    extcap: PathBuf,
    lua: PathBuf,
}

pub(super) fn install(dir: Option<&Path>, control: &Path) -> Result<(), ClientError> {
    let folders = Folders::find(dir)?;
    let own = std::env::current_exe().map_err(|error| ClientError::System("the program does not know where it is", error))?;
    let control = std::path::absolute(control).unwrap_or_else(|_| control.to_owned());
    let program = script(&own.display().to_string(), &control.display().to_string());
    write(&folders.extcap.join(PROGRAM), &program, 0o755)?;
    write(&folders.lua.join(PLUGIN), LUA, 0o644)?;
    eprintln!(
        "Wireshark and tshark have the interface vswitch-all and one for each port, and the fields vswitch.drop, vswitch.nat, ..."
    );
    Ok(())
}

pub(super) fn remove(dir: Option<&Path>) -> Result<(), ClientError> {
    let folders = Folders::find(dir)?;
    for path in [folders.extcap.join(PROGRAM), folders.lua.join(PLUGIN)] {
        match fs::remove_file(&path) {
            Ok(()) => eprintln!("removed {}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ClientError::Write { what: path.display().to_string(), source }),
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), ClientError> {
    let wrong = |source| ClientError::Write { what: path.display().to_string(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(wrong)?;
    }
    fs::write(path, text).map_err(wrong)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(wrong)?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

/// What Wireshark runs: this very vsctl, asking the same vswitchd.
fn script(program: &str, control: &str) -> String {
    let (program, control) = (quoted(program), quoted(control));
    format!(
        "#!/bin/sh\n# Wireshark asks this for vswitch's interfaces. `vsctl extcap install` wrote it, `vsctl extcap remove` removes it.\n\
         exec {program} --control {control} extcap call -- \"$@\"\n"
    )
}

/// A word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

impl Folders {
    /// Asks tshark or Wireshark, whichever there is.
    fn find(dir: Option<&Path>) -> Result<Self, ClientError> {
        if let Some(dir) = dir {
            return Ok(Self { extcap: dir.to_owned(), lua: dir.to_owned() });
        }
        let answers = ["tshark", "wireshark"]
            .into_iter()
            .filter_map(|program| Command::new(program).args(["-G", "folders"]).output().ok());
        let is_root = rustix::process::geteuid().is_root();
        let mut found = answers.filter_map(|output| Self::read(&String::from_utf8_lossy(&output.stdout), is_root));
        found.next().ok_or_else(|| {
            ClientError::Argument(
                "neither tshark nor wireshark says where its folders are: install one of them, or name a folder with --dir"
                    .to_owned(),
            )
        })
    }

    /// Reads `tshark -G folders`. Releases before 4.2 name no personal folder of extcap programs; it is in that of the configuration.
    fn read(text: &str, is_root: bool) -> Option<Self> {
        let folder = |wanted: &str| {
            let line = text.lines().find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == wanted));
            line.map(|(_, path)| PathBuf::from(path.trim()))
        };
        if is_root {
            let extcap = folder("Global Extcap path").or_else(|| folder("Extcap path"));
            return Some(Self { extcap: extcap?, lua: folder("Global Lua Plugins")? });
        }
        let extcap = folder("Personal Extcap path").or_else(|| Some(folder("Personal configuration")?.join("extcap")));
        Some(Self { extcap: extcap?, lua: folder("Personal Lua Plugins")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_where_wireshark_says() {
        let old = "Personal configuration:\t/home/u/.config/wireshark\nPersonal Lua Plugins:\t/home/u/.local/lib/wireshark/plugins\n\
                   Global Lua Plugins: \t/usr/lib/wireshark/plugins\nExtcap path:         \t/usr/lib/wireshark/extcap\n";
        let folders = |extcap: &str, lua: &str| Some(Folders { extcap: extcap.into(), lua: lua.into() });
        assert_eq!(
            Folders::read(old, false),
            folders("/home/u/.config/wireshark/extcap", "/home/u/.local/lib/wireshark/plugins")
        );
        assert_eq!(Folders::read(old, true), folders("/usr/lib/wireshark/extcap", "/usr/lib/wireshark/plugins"));
        let new = format!("{old}Personal Extcap path:\t/home/u/.local/lib/wireshark/extcap\n");
        assert_eq!(Folders::read(&new, false).unwrap().extcap, Path::new("/home/u/.local/lib/wireshark/extcap"));
        assert_eq!(Folders::read("", false), None);
    }

    #[test]
    fn both_files_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        install(Some(directory.path()), Path::new("/run/it's.sock")).unwrap();
        let program = fs::read_to_string(directory.path().join(PROGRAM)).unwrap();
        assert!(program.contains(r"--control '/run/it'\''s.sock' extcap call"), "{program}");
        assert!(directory.path().join(PLUGIN).exists());
        remove(Some(directory.path())).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
