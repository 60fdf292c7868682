//! Starts and stops a lab, from outside of it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::file::{Lab, Source, read};
use crate::place::{INSIDE, Meta, Place, Process, VARIABLE, make, write};
use crate::progress::Progress;
use crate::{During, LabError, enter, guide, relay};

/// How long the keeper may take until all runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is asked for names.
const RESOLVERS: &str = "/etc/resolv.conf";

/// Where a browser finds the lab.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WebAt {
    /// Nowhere.
    Off,
    /// At a port of 127.0.0.1, or at any that is free.
    Port(u16),
}

/// Starts a lab and waits until all of it runs.
///
/// # Errors
/// Why not; nothing runs then.
pub(crate) fn start(place: &Place, source: &Source, seed: &str, web: WebAt) -> Result<Meta, LabError> {
    check_seed(seed)?;
    let lab = read(source, seed)?;
    if lab.about.root && !nix::unistd::geteuid().is_root() {
        return Err(LabError::refused(format!("only root can run the lab {}: try `sudo vsctl lab start {0}`", lab.about.name)));
    }
    for (program, package) in &lab.about.needs {
        if !enter::is_there(program) {
            return Err(LabError::refused(format!(
                "the lab needs {program}, which is not installed: apt-get install {package}"
            )));
        }
    }
    if let Some(meta) = place.meta()?.filter(|_| place.keeper().is_some()) {
        return Err(LabError::refused(format!("the lab {} runs already: end it with `vsctl lab stop`", meta.name)));
    }
    // What is left of one that was killed, or whose start was interrupted.
    stop(place)?;
    let begun = lay_out(place, source, seed, &lab, web).and_then(|(meta, listener)| {
        begin(place, &lab, &meta, listener)?;
        Ok(meta)
    });
    begun.inspect_err(|_| {
        // Nothing stays of what did not start; why it did not is what is told.
        let _ = stop(place);
    })
}

fn check_seed(seed: &str) -> Result<(), LabError> {
    let is_sound = (1..=64).contains(&seed.len()) && seed.chars().all(|c| c.is_ascii_alphanumeric() || "._-@".contains(c));
    if is_sound {
        return Ok(());
    }
    Err(LabError::refused(format!(
        "\"{}\" is no seed: use up to 64 letters, digits and . _ - @, such as your name",
        seed.escape_debug()
    )))
}

/// Writes all that the lab is made of, and takes a port for its web view.
fn lay_out(place: &Place, source: &Source, seed: &str, lab: &Lab, web: WebAt) -> Result<(Meta, Option<TcpListener>), LabError> {
    for directory in ["log", "holders", "hosts", "etc"] {
        make(&place.in_run(directory))?;
    }
    make(&place.host_run())?;
    let listener = match web {
        WebAt::Off => None,
        WebAt::Port(port) => Some(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            LabError::System(
                format!("the web view cannot have port {port}, choose another with --port, or none with --no-web"),
                error,
            )
        })?),
    };
    let port = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
    let meta = Meta {
        name: lab.about.name.clone(),
        file: source.file.clone(),
        seed: seed.to_owned(),
        rootless: !nix::unistd::geteuid().is_root(),
        way_out: lab.about.way_out,
        page: port.map(|port| format!("http://127.0.0.1:{port}/")),
    };
    write(&place.in_run("lab.toml"), &source.toml)?;
    write(&place.in_run("lab.md"), &source.text)?;
    place.save("meta.json", &meta)?;
    let web = port.map(|port| match lab.about.way_out {
        true => format!("127.0.0.1:{port}"),
        false => relay::INNER.to_owned(),
    });
    lay_out_switch(place, None, &lab.switch, web.as_deref())?;
    for host in &lab.hosts {
        make(&place.home(&host.name))?;
        // The machine's name servers are out of reach, and every program that wants a name would wait for them.
        if !lab.about.way_out && std::path::Path::new(RESOLVERS).exists() {
            make(&place.etc(&host.name))?;
            write(&place.etc(&host.name).join("resolv.conf"), "# nobody to ask for names\n")?;
        }
        for (path, content) in &host.files {
            let path = path
                .strip_prefix("/etc/")
                .map_or_else(|| place.home(&host.name).join(path), |path| place.etc(&host.name).join(path));
            path.parent().map_or(Ok(()), make)?;
            write(&path, content)?;
        }
        if let Some(text) = &host.switch {
            lay_out_switch(place, Some(&host.name), text, None)?;
        }
    }
    guide::write(place, lab, &meta, &Progress::load(place, lab)?)?;
    check_switches(lab, place, source)?;
    Ok((meta, listener))
}

fn lay_out_switch(place: &Place, host: Option<&crate::file::HostName>, text: &str, web: Option<&str>) -> Result<(), LabError> {
    let directory = place.switch(host);
    make(&directory)?;
    let settings = format!(
        "\n[switch]\ncontrol = {:?}\nstate-dir = {:?}\n",
        directory.join("control.sock").display().to_string(),
        directory.join("state").display().to_string()
    );
    let web = web.map(|listen| {
        format!("[web]\nlisten = \"{listen}\"\nguide = {:?}\n", place.in_run("guide.html").display().to_string())
    });
    write(&directory.join("switch.toml"), format!("{text}{settings}{}", web.unwrap_or_default()))
}

/// Asks vswitchd whether it can read the files. Lines are those of the lab's file.
fn check_switches(lab: &Lab, place: &Place, source: &Source) -> Result<(), LabError> {
    let own = lab.hosts.iter().filter(|host| host.switch.is_some()).map(|host| Some(&host.name));
    for host in std::iter::once(None).chain(own) {
        let file = place.switch(host).join("switch.toml");
        let mut command = Command::new(enter::programs().join("vswitchd"));
        let outcome = enter::run(place, command.arg("--config").arg(&file).arg("--check"))?;
        if !outcome.is_well() {
            return Err(LabError::refused(outcome.text.trim().replace(&file.display().to_string(), &source.file)));
        }
    }
    Ok(())
}

/// Makes the namespaces with the keeper in them, and waits for it.
fn begin(place: &Place, lab: &Lab, meta: &Meta, listener: Option<TcpListener>) -> Result<(), LabError> {
    let mut command = Command::new("setsid");
    command.args(["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
    if meta.rootless {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    // Of a lab with a way out, vswitchd has the web view's port itself.
    let listener = listener.filter(|_| !meta.way_out);
    if !meta.way_out {
        command.arg("--net");
    }
    let log = File::create(place.in_run("log/keeper.log")).during(|| "the keeper has no log".to_owned())?;
    let errors = log.try_clone().during(|| "the keeper has no log".to_owned())?;
    let program = enter::vsctl()?;
    command.arg("--").arg(&program).args(["lab", "keep"]).env(VARIABLE, place.root()).env(INSIDE, "1");
    let what = || "setsid and unshare cannot be run (they are in the package util-linux)".to_owned();
    let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().during(what)?;
    // The keeper ends with it, and has not told its own number yet: this start may be interrupted.
    remember(place, "parent", &child)?;
    wait(place, child, lab, meta)?;
    let Some(listener) = listener else { return Ok(()) };
    let mut command = Command::new("setsid");
    command.arg(&program).args(["lab", "relay"]).env(VARIABLE, place.root());
    let listener = Stdio::from(OwnedFd::from(listener));
    let child = command.stdin(listener).stdout(Stdio::null()).stderr(Stdio::null()).spawn().during(what)?;
    remember(place, "relay", &child)
}

/// Keeps the number of a process for `stop`.
fn remember(place: &Place, name: &str, child: &Child) -> Result<(), LabError> {
    let process = i32::try_from(child.id()).ok().and_then(Process::of);
    process.map_or(Ok(()), |process| place.save(name, &process))
}

fn wait(place: &Place, mut child: Child, lab: &Lab, meta: &Meta) -> Result<(), LabError> {
    let end = Instant::now() + PATIENCE;
    loop {
        if place.in_run("ready").exists() {
            return Ok(());
        }
        if let Ok(sentence) = fs::read_to_string(place.in_run("failed")) {
            return Err(LabError::Refused(sentence));
        }
        let ended = child.try_wait().during(|| "the keeper cannot be waited for".to_owned())?;
        // It may have told something just before.
        if ended.is_some() && !place.in_run("failed").exists() {
            let said = fs::read_to_string(place.in_run("log/keeper.log")).unwrap_or_default();
            return Err(LabError::Refused(forbidden(said.trim(), meta)));
        }
        if Instant::now() > end {
            return Err(LabError::refused(format!(
                "the lab {} has not started within {} s",
                lab.about.name,
                PATIENCE.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Why there are no namespaces, and what would help.
fn forbidden(said: &str, meta: &Meta) -> String {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let help = if !meta.rootless {
        "it needs CAP_SYS_ADMIN: in a container, --privileged"
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        "AppArmor keeps ordinary users from namespaces: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or start the lab as root"
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        "this kernel keeps ordinary users from namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1, or start the lab as root"
    } else if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        "ordinary users may have no namespaces: sudo sysctl -w user.max_user_namespaces=10000, or start the lab as root"
    } else if fs::exists("/.dockerenv").unwrap_or(false) {
        "this is a container, in which Docker's seccomp profile forbids it: run the container with --security-opt seccomp=unconfined"
    } else {
        "start the lab as root"
    };
    format!("the lab's namespaces cannot be made ({said}): {help}")
}

/// Ends what runs and removes what it was made of.
pub(crate) fn stop(place: &Place) -> Result<(), LabError> {
    for name in ["parent", "keeper", "relay"] {
        if let Ok(Some(process)) = place.load::<Process>(name) {
            process.kill()?;
        }
    }
    match fs::remove_dir_all(place.run()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).during(|| format!("{} cannot be removed", place.run().display()))
        }
        _ => Ok(()),
    }
}

/// Whatever changes what runs is done from outside.
pub(crate) fn check_outside() -> Result<(), LabError> {
    if std::env::var_os(INSIDE).is_some() {
        return Err(LabError::refused("this is a shell inside of the lab: leave it with `exit` first"));
    }
    Ok(())
}
