//! A Docker host of its own, and what runs on it.
//!
//! A [`DockerHost`] is a mount, network and PID namespace held by one process that waits for its standard input to close: `/run`,
//! `/var/lib/docker` and `/etc/docker` are empty file systems there, so dockerd, containerd and vswitchd use the paths that
//! they always use and touch nothing of the machine's. When the test drops it, or dies, the kernel ends every process in it, and
//! everything else goes with the last of them; only the containers' cgroups are removed by hand. Where the dockerd is another than the
//! machine's ([`Engine`]), the root directory is another too.
//!
//! ```text
//!   outside                                  the host
//!   198.51.100.1, 2001:db8:1::1 on lo        192.0.2.1/24, 2001:db8::1/64 on wan
//!   192.0.2.2, 2001:db8::2 on lan ─────────── wan
//!   DNS: outside.example                     dockerd, vswitchd
//!   HTTP on port 80                          HTTP on port 8000
//! ```
//!
//! Both images, `busybox` and `httpd`, are Debian's static busybox and OpenBSD's `netcat`, made from one directory by `docker import`. A client
//! that asks `http://…/cgi-bin/who` learns which server answers and from which address the server was asked.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::lab::{Outcome, PATIENCE, program, run_within, wait};
use crate::settings::SETTINGS;

/// A word for lines of the shell: which server answers.
pub const FROM: &str = r"
# from NAME|host|outside ADDRESS[:PORT]: who answers there, and as whom it is asked.
from() {
    local url=http://$2/cgi-bin/who
    for i in 1 2 3 4 5 6; do
        case $1 in
            host) curl -g -s -m 3 $url && return ;;
            outside) outside curl -g -s -m 3 $url && return ;;
            *) docker exec $1 timeout 3 wget -q -O- $url 2> /dev/null && return ;;
        esac
        sleep 0.5
    done
    echo nobody
}
";

/// A host with a dockerd and a vswitchd, and an outside that it reaches by a link.
pub struct DockerHost {
    holder: Child,
    pid: u32,
    cgroup: String,
    daemons: Vec<Daemon>,
}

/// A program that was started on the host and runs until it is told to end.
struct Daemon {
    name: &'static str,
    nsenter: Child,
    pid: u32,
}

impl DockerHost {
    /// A host with its images, on which a vswitchd with this `switch.toml` and then the machine's dockerd were started.
    ///
    /// # Panics
    /// If one of them does not come up.
    #[track_caller]
    pub fn with(file: &str) -> Self {
        Self::on(Engine::Installed, file)
    }

    /// The same with the dockerd of this engine.
    ///
    /// # Panics
    /// If one of them does not come up.
    #[track_caller]
    pub fn on(engine: Engine, file: &str) -> Self {
        let mut host = Self::bare(engine);
        host.write("/run/switch.toml", file);
        host.start_vswitchd();
        host.start_dockerd(&[]);
        host.import();
        host
    }

    /// A host of the machine's own Docker on which nothing runs yet but the HTTP servers and the DNS server of the outside.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        Self::bare(Engine::Installed)
    }

    /// The same of this engine.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn bare(engine: Engine) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("vswitch-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]);
        unshare.args(["bash", "-c", "set -e; eval \"$3\"; eval \"$0\"; touch /run/made; while read -r; do :; done", HOST]);
        let root = engine.root().expect("an engine that can be had");
        unshare.arg(root.unwrap_or_default()).arg(built()).arg(SETTINGS);
        let holder = unshare.stdin(Stdio::piped()).spawn().expect("unshare");
        let mut host = Self { pid: 0, holder, cgroup, daemons: Vec::new() };
        host.until("the host is there", |host| {
            assert!(host.holder.try_wait().expect("a child").is_none(), "the host cannot be made: see above");
            host.pid = child_of(host.holder.id()).unwrap_or(0);
            host.pid != 0 && host.file("/run/made").exists()
        });
        host
    }

    /// Starts vswitchd with `/run/switch.toml` and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    #[track_caller]
    pub fn start_vswitchd(&mut self) {
        self.start_vswitchd_by(&[]);
    }

    /// The same as a user of its own, with the capabilities that the unit of the broker in `dist/` has, and the directories that systemd makes for it.
    ///
    /// # Panics
    /// If it does not become ready.
    #[track_caller]
    pub fn start_vswitchd_as_service(&mut self) {
        const USER: &str = "64124";
        let unit =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/vswitchd-broker@.service")).expect("a file");
        let given = unit.lines().filter_map(|line| line.strip_prefix("AmbientCapabilities=")).flat_map(|line| line.split(' '));
        let given: Vec<String> = given.map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
        let directories = "/run/vswitch /var/lib/vswitch";
        self.sh(&format!("mkdir -p {directories} && chown -R {USER}:{USER} {directories}")).ok();
        let ids = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()];
        let capabilities = ["inh", "ambient"].map(|set| format!("--{set}-caps={}", given.join(",")));
        let words: Vec<String> = ["setpriv".to_owned()].into_iter().chain(ids).chain(capabilities).collect();
        self.start_vswitchd_by(&words);
    }

    #[track_caller]
    fn start_vswitchd_by(&mut self, prefix: &[String]) {
        let _ = std::fs::remove_file(self.file("/run/vswitchd.out"));
        let own = [program("vswitchd").display().to_string(), "--config".to_owned(), "/run/switch.toml".to_owned()];
        let words: Vec<String> = prefix.iter().cloned().chain(own).collect();
        self.start("vswitchd", &words);
        self.until("vswitchd is ready", |host| host.read("/run/vswitchd.out") == "ready\n");
    }

    /// Starts dockerd with these options besides the usual ones, and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn start_dockerd(&mut self, more: &[&str]) {
        let cgroup = format!("--cgroup-parent=/{}", self.cgroup);
        let words: Vec<String> = ["/usr/sbin/dockerd", &cgroup].iter().chain(more).map(|&word| word.to_owned()).collect();
        self.start("dockerd", &words);
        self.until("dockerd answers", |host| host.sh("docker version").code == Some(0));
    }

    fn start(&mut self, name: &'static str, words: &[String]) {
        assert!(self.daemons.iter().all(|daemon| daemon.name != name), "{name} runs already");
        let log =
            |end| File::options().create(true).append(true).open(self.file(&format!("/run/{name}.{end}"))).expect("a log");
        let (stdout, stderr) = (log("out"), log("log"));
        let nsenter = self.command().args(words).stdout(stdout).stderr(stderr).spawn().expect("nsenter");
        let mut pid = None;
        self.until("it is started", |_| {
            pid = child_of(nsenter.id());
            pid.is_some()
        });
        self.daemons.push(Daemon { name, pid: pid.unwrap_or(0), nsenter });
    }

    /// Makes the images `busybox` and `httpd`.
    ///
    /// # Panics
    /// If Docker does not take them.
    #[track_caller]
    pub fn import(&self) {
        self.make_image();
        self.import_with("docker", "");
    }

    /// Makes `/run/image`, the directory of both images.
    ///
    /// # Panics
    /// If it cannot.
    #[track_caller]
    pub fn make_image(&self) {
        self.sh(IMAGE).ok();
    }

    /// Imports both with `docker` or `podman`, by these names behind that of a registry.
    ///
    /// # Panics
    /// If it does not take them.
    #[track_caller]
    pub fn import_with(&self, program: &str, registry: &str) {
        self.sh(&format!("program={program} registry={registry}\n{IMPORT}")).ok();
    }

    /// The control group that everything of this host's is to be in.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Sends `vswitchd` or `dockerd` a signal and waits for its end.
    ///
    /// # Panics
    /// If it does not run or does not end.
    #[track_caller]
    pub fn stop(&mut self, name: &str, signal: i32) -> std::process::ExitStatus {
        let index = self.daemons.iter().position(|daemon| daemon.name == name).expect("it runs");
        let mut daemon = self.daemons.remove(index);
        // SAFETY: plain system call; the process is the child of a child that was not waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(daemon.pid.cast_signed(), signal) }, 0);
        let status = wait(&mut daemon.nsenter, name);
        if name == "dockerd" && signal == libc::SIGKILL {
            // dockerd takes its containerd along, which leaves what keeps the next one from starting.
            self.sh("rm -f /run/docker.pid /run/docker/containerd/*.sock* /run/docker/containerd/containerd.pid").ok();
        }
        status
    }

    /// The process of `vswitchd` or `dockerd`, as seen from the test.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self, name: &str) -> u32 {
        self.daemons.iter().find(|daemon| daemon.name == name).expect("it runs").pid
    }

    /// Runs lines of bash on the host. `docker`, `vswitchd` and `vsctl` are on the path, and `outside COMMAND` runs a command outside.
    /// Code 124: they did not end within 50 seconds.
    ///
    /// # Panics
    /// If bash cannot be run.
    #[track_caller]
    pub fn sh(&self, lines: &str) -> Outcome {
        self.sh_within(50, lines)
    }

    /// As [`DockerHost::sh`], for what takes longer: at most so many seconds.
    ///
    /// # Panics
    /// If bash cannot be run.
    #[track_caller]
    pub fn sh_within(&self, seconds: u32, lines: &str) -> Outcome {
        let bound = seconds.to_string();
        let mut command = self.command();
        command.args(["timeout", "-k", "1", &bound, "bash", "-c", lines]);
        run_within(&mut command, Duration::from_secs(u64::from(seconds) + 10))
    }

    /// The host's first process, as seen from the test.
    pub(crate) const fn holder(&self) -> u32 {
        self.pid
    }

    /// Something to be run on the host: give it a program.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid.to_string()).args(["--mount", "--net", "--pid", "--"]).stdin(Stdio::null());
        // Only Debian's own: on some machines /usr/local/bin/docker is something else.
        command.env("PATH", format!("{}:/run/bin:/usr/sbin:/usr/bin:/sbin:/bin", built().display())).env_remove("DOCKER_HOST");
        command
    }

    /// Where a file of the host's is seen from the test.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Writes a file on the host.
    ///
    /// # Panics
    /// If it cannot.
    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.file(path), text).expect("a file written");
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.file(path)).unwrap_or_default()
    }

    /// Makes the outside a LAN by a vswitchd of its own, which runs `file`.
    ///
    /// # Panics
    /// If it does not become ready.
    #[track_caller]
    pub fn switch_outside(&self, file: &str) {
        self.write("/run/lan.toml", file);
        self.sh("outside vswitchd --config /run/lan.toml > /run/lan.ready 2>&1 & until grep -q ready /run/lan.ready; do sleep 0.1; done").ok();
    }

    /// What `vswitchd` or `dockerd` logged so far.
    pub fn log(&self, name: &str) -> String {
        self.read(&format!("/run/{name}.log"))
    }

    /// Waits until `what` holds.
    ///
    /// # Panics
    /// If it does not within a minute.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "not within a minute: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Default for DockerHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DockerHost {
    fn drop(&mut self) {
        if std::thread::panicking() && self.pid != 0 {
            for name in ["vswitchd", "dockerd"] {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
                eprintln!("{name} said, at the end:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        // Its first process reads until this closes; the kernel ends the others with it.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        for daemon in &mut self.daemons {
            let _ = daemon.nsenter.wait();
        }
        let line = format!("find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} +", self.cgroup);
        let _ = Command::new("sh").args(["-c", &line]).status();
    }
}

/// Where vswitchd and vsctl are.
fn built() -> PathBuf {
    program("vsctl").parent().expect("a directory").to_owned()
}

/// The child of a process that has one.
fn child_of(pid: u32) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

/// What the first process of a host runs before it waits, with the engine's root, which may be empty, and the directory of what was built.
const HOST: &str = r#"
if [ -n "$1" ]; then
    mkdir -p "$1$2"
    mount --bind "$1" /mnt && cd /mnt
    mount -t proc none proc && mount --rbind /sys sys && mount --rbind /dev dev && mount -t tmpfs none tmp && mount --bind "$2" ".$2"
    pivot_root . . && umount -l . && cd /
fi
mkdir -p /var/lib/docker /var/lib/vswitch /etc/docker
for directory in /run /var/lib/docker /var/lib/vswitch /etc/docker; do mount -t tmpfs none $directory; done
mkdir -p /run/netns /run/bin /run/www/cgi-bin
cat > /run/www/cgi-bin/who <<'END'
#!/bin/sh
asker=${REMOTE_ADDR#[} && asker=${asker#::ffff:} && asker=${asker%]}
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$(cat /etc/hostname)" "$asker"
END
chmod +x /run/www/cgi-bin/who
printf 'nameserver 192.0.2.2\n' > /run/resolv.conf && mount --bind /run/resolv.conf /etc/resolv.conf
printf '#!/bin/sh\nexec nsenter --net=/run/netns/outside -- "$@"\n' > /run/bin/outside && chmod +x /run/bin/outside
export PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin
ip link set lo up
ip netns add outside && outside bash -c "$3"
ip link add wan type veth peer name lan netns outside
ip addr add 192.0.2.1/24 dev wan && ip addr add 2001:db8::1/64 dev wan nodad && ip link set wan up
ip route add default via 192.0.2.2 && ip -6 route add default via 2001:db8::2
outside ip link set lo up
outside ip addr add 198.51.100.1/32 dev lo && outside ip addr add 2001:db8:1::1/128 dev lo nodad
outside ip addr add 192.0.2.2/24 dev lan && outside ip addr add 2001:db8::2/64 dev lan nodad && outside ip link set lan up
for place in host outside; do
    mkdir /run/$place && cp -a /run/www /run/$place/ && echo $place > /run/$place/hostname
    sed -i "s,/etc/hostname,/run/$place/hostname," /run/$place/www/cgi-bin/who
done
busybox httpd -p 8000 -h /run/host/www
outside busybox httpd -p 80 -h /run/outside/www
outside dnsmasq --conf-file=/dev/null --pid-file=/run/dnsmasq.pid --no-resolv --no-hosts --listen-address=192.0.2.2 --bind-interfaces \
    --address=/outside.example/198.51.100.1 --address=/outside.example/2001:db8:1::1
"#;

/// Makes what is in the images.
const IMAGE: &str = r#"
set -e
mkdir -p /run/image/bin /run/image/etc /run/image/root /run/image/tmp
cp "$(command -v busybox)" /run/image/bin/busybox
for name in $(busybox --list); do [ $name = busybox ] || ln -sf busybox /run/image/bin/$name; done
cp -a /run/www /run/image/ && echo "<h1>It works!</h1>" > /run/image/www/index.html
echo 'root:x:0:0:root:/root:/bin/sh' > /run/image/etc/passwd
# busybox's own nc knows no UDP.
cp "$(readlink -f "$(command -v nc)")" /run/image/bin/netcat
ldd /run/image/bin/netcat | grep -o '/[^ ]*' | xargs -I@ cp --parents -L @ /run/image/
"#;

/// Imports it twice.
const IMPORT: &str = r#"
set -e -o pipefail
tar -c -C /run/image . | $program import --change 'CMD ["sh"]' - ${registry}busybox
tar -c -C /run/image . | $program import --change 'CMD ["httpd", "-f", "-p", "80", "-h", "/www"]' --change 'EXPOSE 80' - ${registry}httpd
"#;
