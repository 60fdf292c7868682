//! The first process in a lab's namespaces: it makes the hosts, starts what runs in them, and waits. When it ends, the kernel ends the others.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, mount, mount_bind_recursive};

use crate::enter::{self, Entrance};
use crate::file::HostName;
use crate::place::{Meta, Place, Process, make, write};
use crate::{During, LabError, namespace};

/// What is in /run by these names is the lab's own, not the host's.
const OWN_RUN: [&str; 5] = ["netns", "docker", "docker.sock", "containerd", "vswitch"];

/// Keeps the lab that was laid out until it is killed.
///
/// # Errors
/// Why it could not start; that is also told in the file `failed`.
pub(crate) fn keep(place: &Place) -> Result<(), LabError> {
    match build(place) {
        Ok(()) => reap(),
        Err(error) => {
            write(&place.in_run("failed"), error.to_string())?;
            Err(error)
        }
    }
}

/// Bounds what daemons and switches may write to their logs.
fn limit_files() -> Result<(), LabError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Fsize).maximum.map_or(enter::LARGEST, |most| most.min(enter::LARGEST));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Fsize, limit).map_err(io::Error::from).during(|| "the size of files cannot be limited".to_owned())
}

fn build(place: &Place) -> Result<(), LabError> {
    limit_files()?;
    let meta = place.meta()?.ok_or_else(|| LabError::refused("no lab was laid out: use `vsctl lab start`"))?;
    let lab = place.lab(&meta)?;
    // /proc is still that of outside, and so is the number that it tells.
    let own = fs::read_link("/proc/self").during(|| "/proc is missing".to_owned())?;
    let own = own.to_str().and_then(|number| number.parse().ok()).and_then(Process::of);
    place.save("keeper", &own.ok_or_else(|| LabError::refused("/proc does not tell this process"))?)?;
    mounts(place)?;
    if !meta.way_out {
        run(place, "ip", &["link", "set", "lo", "up"])?;
    }
    probe(place, &meta)?;
    for host in &lab.hosts {
        namespace::make_network(&host.name)?;
    }
    // Each sees the others' namespaces, which must be there before.
    for host in &lab.hosts {
        hold_host(place, &host.name)?;
    }
    let own = fs::read_link("/proc/self").during(|| "/proc is missing".to_owned())?;
    write(&place.inner(), own.as_os_str().as_encoded_bytes())?;
    let entrance = Entrance::new(place)?;
    start_switch(&entrance, None)?;
    for host in lab.hosts.iter().filter(|host| host.switch.is_some()) {
        start_switch(&entrance, Some(&host.name))?;
    }
    for host in &lab.hosts {
        for line in &host.start {
            entrance.run_all(&[crate::step::Step { host: Some(host.name.clone()), line: line.clone() }])?;
        }
        for (number, line) in host.daemons.iter().enumerate() {
            let mut command = entrance.command(Some(&host.name), &["sh", "-c", &format!("exec {line}")])?;
            spawn(place, &format!("{}-{number}", host.name), &mut command)?;
        }
    }
    entrance.run_all(&lab.faults)?;
    if meta.page.is_some() && !meta.way_out {
        spawn(place, "relay", &mut enter::lab_command(place, &["relay", "--inner"])?)?;
    }
    write(&place.in_run("ready"), "")
}

/// /run of the lab's own, in which namespaces have names, and all else of the host's; /proc of the lab's processes where the kernel allows it.
fn mounts(place: &Place) -> Result<(), LabError> {
    let host_run = place.host_run();
    let what = || "/run of the lab's own cannot be made".to_owned();
    mount_bind_recursive("/run", &host_run).map_err(io::Error::from).during(what)?;
    mount("lab", "/run", "tmpfs", MountFlags::empty(), Some(c"mode=755")).map_err(io::Error::from).during(what)?;
    let entries = fs::read_dir(&host_run).during(|| format!("{} cannot be read", host_run.display()))?;
    let is_own = |name: &std::ffi::OsStr| OWN_RUN.iter().any(|own| name == *own);
    for entry in entries.flatten().filter(|entry| !is_own(&entry.file_name())) {
        // One that cannot be had is one that the lab does without.
        let _ = symlink(entry.path(), Path::new("/run").join(entry.file_name()));
    }
    make(Path::new("/run/netns"))?;
    // A container's engine may have covered parts of /proc, and then the kernel allows no other. The numbers in it are those of outside, then.
    let _ = mount("proc", "/proc", "proc", MountFlags::empty(), None);
    Ok(())
}

/// Whether a TAP can be made here: a kernel that gives namespaces away may still forbid what is in them.
fn probe(place: &Place, meta: &Meta) -> Result<(), LabError> {
    let script = "ip tuntap add dev probe mode tap && ip link del probe";
    let outcome = enter::run(place, Command::new("unshare").args(["--net", "sh", "-c", script]))?;
    if outcome.is_well() {
        return Ok(());
    }
    let help = if !Path::new("/dev/net/tun").exists() {
        "there is no /dev/net/tun: sudo modprobe tun; in a container, --device /dev/net/tun"
    } else if meta.rootless {
        "/dev/net/tun must be for all users to open (chmod 666), and AppArmor must let users' namespaces have capabilities (Ubuntu: sudo sysctl -w \
         kernel.apparmor_restrict_unprivileged_userns=0, or a profile for vsctl with `userns,`); or start the lab as root"
    } else {
        "it needs CAP_NET_ADMIN: in a container, --privileged"
    };
    Err(LabError::refused(format!("a TAP device cannot be made ({}): {help}", outcome.seen())))
}

/// Starts the process that has a host's other namespaces, and waits until it has told its number.
fn hold_host(place: &Place, host: &HostName) -> Result<(), LabError> {
    let name = format!("host-{host}");
    let mut child = spawn(place, &name, &mut enter::lab_command(place, &["hold", host.as_str()])?)?;
    while !place.holder(host).exists() {
        if child.try_wait().during(|| name.clone())?.is_some() {
            return Err(LabError::Refused(last_words(place, &name)));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

fn start_switch(entrance: &Entrance<'_>, host: Option<&HostName>) -> Result<(), LabError> {
    let name = host.map_or_else(|| "switch".to_owned(), |host| format!("switch-{host}"));
    let (place, program) = (entrance.place, enter::programs().join("vswitchd").display().to_string());
    let file = place.switch(host).join("switch.toml").display().to_string();
    let mut command = entrance.command(host, &[&program, "--config", &file])?;
    let log = log(place, &name)?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = child.during(|| format!("{program} cannot be run"))?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said).during(|| name.clone())?;
    }
    if said.trim() == "ready" { Ok(()) } else { Err(LabError::refused(last_words(place, &name))) }
}

fn log(place: &Place, name: &str) -> Result<File, LabError> {
    let path = place.in_run(&format!("log/{name}.log"));
    File::create(&path).during(|| format!("{} cannot be written", path.display()))
}

/// The last line of a log.
fn last_words(place: &Place, name: &str) -> String {
    let said = fs::read_to_string(place.in_run(&format!("log/{name}.log"))).unwrap_or_default();
    said.trim().lines().last().unwrap_or("it said nothing").to_owned()
}

/// Starts what runs until the lab ends.
fn spawn(place: &Place, name: &str, command: &mut Command) -> Result<std::process::Child, LabError> {
    let output = log(place, name)?;
    let errors = output.try_clone().during(|| name.to_owned())?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().during(|| format!("{name} cannot be run"))
}

fn run(place: &Place, program: &str, words: &[&str]) -> Result<(), LabError> {
    let outcome = enter::run(place, Command::new(program).args(words))?;
    if outcome.is_well() {
        return Ok(());
    }
    Err(LabError::refused(format!("`{program} {}` failed: {}", words.join(" "), outcome.seen())))
}

/// Waits for whatever ends in here, as the first process of its namespace must, for ever.
fn reap() -> Result<(), LabError> {
    loop {
        if nix::sys::wait::wait().is_err() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}
