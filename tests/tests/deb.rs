//! The Debian package that `dist/deb` builds: what is in it, and that it is installed and removed again.
//!
//! It is installed into a copy of the machine's own root directory, in a mount namespace: an overlay, whose changes go with it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use vswitch_tests::{needs, program};

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

#[track_caller]
fn ok(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Builds the package of what is built already.
fn package() -> PathBuf {
    ok(Command::new(checkout().join("dist/deb")).arg("--built"));
    let built = std::fs::read_dir(checkout().join("target/debian")).unwrap().map(|entry| entry.unwrap().path());
    let mut packages: Vec<PathBuf> = built.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    packages.sort_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap());
    packages.pop().unwrap()
}

/// What is done as root of a machine that has no switch yet.
const INSTALLED: &str = r#"
set -e
package=$1
mkdir -p /run/over && mount -t tmpfs none /run/over && mkdir /run/over/up /run/over/work /run/over/root
mount -t overlay overlay -o lowerdir=/,upperdir=/run/over/up,workdir=/run/over/work /run/over/root
cp "$package" /run/over/root/tmp/vswitch.deb
cd /run/over/root
mount --bind /dev dev && mount -t proc none proc && mount -t tmpfs none run
there() { chroot . sh -c "$1"; }
rm -rf etc/vswitch var/lib/vswitch usr/bin/vswitchd usr/bin/vsctl
there 'dpkg --force-depends -i /tmp/vswitch.deb' > /run/over/log 2>&1 || { cat /run/over/log >&2; exit 1; }
echo "status: $(there 'dpkg-query -W -f "\${db:Status-Status}" vswitch')"
echo "version: $(there 'vswitchd --version')"
there 'vswitchd --config /etc/vswitch/switch.toml --check' && echo 'file: good'
echo "cni: $(there 'echo "{}" | CNI_COMMAND=VERSION /usr/lib/cni/vswitch-cni')"
echo "netavark: $(there '/usr/libexec/netavark/vswitch info')"
for page in man1/vsctl.1 man8/vswitchd.8 man8/vswitch-cni.8 man8/vswitch-netavark.8; do [ -f usr/share/man/$page.gz ] && echo "page: $page"; done
grep -h ^ExecStart= usr/lib/systemd/system/vswitchd.service usr/lib/systemd/system/vswitchd-broker@.service
[ ! -x usr/bin/systemctl ] || [ -L etc/systemd/system/multi-user.target.wants/vswitchd.service ] && echo 'service: on'
there 'bash -c ". /usr/share/bash-completion/completions/vsctl && complete -p vsctl"' | grep -o 'vsctl$'
# It runs as it is installed, and Docker would find it.
there 'vswitchd --config /etc/vswitch/switch.toml > /run/said 2> /run/log & until grep -q ready /run/said; do sleep 0.1; done
    [ -S /run/docker/plugins/vswitch.sock ] && vsctl show > /dev/null && vsctl shutdown && wait' && echo 'it runs'
# A file that was changed survives an upgrade and a removal; not a purge.
echo '# mine' >> etc/vswitch/switch.toml
mkdir -p var/lib/vswitch && touch var/lib/vswitch/state.json
there 'dpkg --force-depends -i /tmp/vswitch.deb' > /run/over/log 2>&1 || { cat /run/over/log >&2; exit 1; }
there 'dpkg -r vswitch' > /run/over/log 2>&1 || { cat /run/over/log >&2; exit 1; }
grep -q '^# mine' etc/vswitch/switch.toml && echo 'removed: the file stays'
[ ! -e usr/bin/vswitchd ] && [ ! -L etc/systemd/system/multi-user.target.wants/vswitchd.service ] && echo 'removed: the rest is gone'
there 'dpkg -P vswitch' > /run/over/log 2>&1 || { cat /run/over/log >&2; exit 1; }
[ ! -e etc/vswitch ] && [ ! -e var/lib/vswitch ] && [ ! -e usr/share/doc/vswitch ] && echo 'purged: nothing is left'
"#;

#[test]
fn the_package_is_installed_and_removed() {
    needs!("dpkg", "dpkg-deb", "unshare", "chroot", "cargo");
    let has = |program: &Path| Command::new(program).arg("--version").output().is_ok();
    if !has(Path::new("cargo-deb")) && !has(&checkout().join("target/tools/bin/cargo-deb")) {
        return vswitch_tests::skipped(
            "the_package_is_installed_and_removed",
            "there is no cargo-deb: cargo install --locked --root target/tools cargo-deb",
        );
    }
    let package = package();
    let fields = ok(Command::new("dpkg-deb").arg("--field").arg(&package));
    for field in ["Package: vswitch", "Section: net", "Depends: libc6"] {
        assert!(fields.contains(field), "{field}: {fields}");
    }
    let listed = ok(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for path in [
        "./usr/bin/vswitchd",
        "./usr/bin/vsctl",
        "./usr/share/doc/vswitch/reference.md",
        "./usr/lib/systemd/system/vswitchd-broker.socket",
        "./usr/lib/systemd/system/vswitchd-docker.socket",
    ] {
        assert!(listed.contains(path), "{path}: {listed}");
    }
    assert!(!listed.contains("usr/local"), "{listed}");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--propagation=private", "bash", "-c", INSTALLED, "bash"]).arg(&package);
    let said = ok(&mut unshare);
    let version = ok(Command::new(program("vswitchd")).arg("--version"));
    for line in [
        "status: installed",
        &format!("version: {}", version.trim()),
        "file: good",
        "page: man1/vsctl.1",
        "page: man8/vswitchd.8",
        "page: man8/vswitch-cni.8",
        "page: man8/vswitch-netavark.8",
        "ExecStart=/usr/bin/vswitchd --broker-at /run/vswitchd-broker.sock --config /etc/vswitch/switch.toml",
        "ExecStart=/usr/bin/vswitchd --broker-service --mounts /proc/1/ns/mnt --config /etc/vswitch/switch.toml",
        "service: on",
        "vsctl",
        "it runs",
        "removed: the file stays",
        "removed: the rest is gone",
        "purged: nothing is left",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert!(said.contains("netavark: {\"api_version\":\"1.0.0\"") && said.contains("\"supportedVersions\""), "{said}");
}
