//! Real servers of stores, each on the loopback of a network namespace of its own, in a directory that goes with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster::store::{Settings, StoreKind};
use tempfile::TempDir;

/// A server that a test wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Etcd,
    Consul,
    ZooKeeper,
}

/// A server that runs.
pub(crate) struct Place {
    kind: Kind,
    pub(crate) child: Child,
    directory: TempDir,
    is_secured: bool,
}

/// Runs a future to its end.
pub(crate) fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future);
}

/// Whether this is the run of a test within a namespace. If it is not, the test is run there, or said to be skipped.
pub(crate) fn isolated(test: &str, kind: Kind) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        return true;
    }
    if let Err(reason) = kind.program() {
        skip(test, kind, &reason);
        return false;
    }
    let unshared = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    if !unshared.is_ok_and(|status| status.success()) {
        testing::skipped(test, "it needs root, or `unshare` of util-linux");
        return false;
    }
    let myself = std::env::current_exe().unwrap();
    let inside = Command::new("unshare")
        .arg("--net")
        .arg(myself)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout).into_owned() + &String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{said}");
    eprint!("{said}");
    false
}

/// etcd is a small package, which `tests/run` installs. The others are large, or of an older Debian: they are tried where they are.
fn skip(test: &str, kind: Kind, reason: &str) {
    match kind {
        Kind::Etcd => testing::skipped(test, reason),
        Kind::Consul | Kind::ZooKeeper => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
        }
    }
}

impl Kind {
    /// The program, or why there is none.
    fn program(self) -> Result<PathBuf, String> {
        let (name, places, advice) = match self {
            Self::Etcd => ("etcd", ["/usr/bin/etcd", "/usr/local/bin/etcd"], "install the package etcd-server"),
            Self::Consul => (
                "consul",
                ["/usr/bin/consul", "/usr/local/bin/consul"],
                "install consul, or name its program in VSWITCH_CONSUL",
            ),
            Self::ZooKeeper => ("ZooKeeper", ["/usr/share/java/zookeeper.jar", ""], "install the package zookeeper"),
        };
        let named = std::env::var_os("VSWITCH_CONSUL").filter(|_| self == Self::Consul).map(PathBuf::from);
        let mut found = named.into_iter().chain(places.map(PathBuf::from));
        found.find(|path| path.is_file()).ok_or_else(|| format!("{name} is not here: {advice}"))
    }

    fn command(self, directory: &Path) -> Command {
        let program = self.program().unwrap();
        let data = directory.join("data");
        let mut command = Command::new(&program);
        match self {
            Self::Etcd => command
                .arg("--data-dir")
                .arg(data)
                .args(["--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379"])
                .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--auth-token-ttl", "2", "--bcrypt-cost", "4"])
                .args([
                    "--heartbeat-interval",
                    "100",
                    "--election-timeout",
                    "500",
                    "--unsafe-no-fsync",
                    "--log-level",
                    "error",
                ]),
            Self::Consul => command
                .args(["agent", "-dev", "-bind=127.0.0.1", "-hcl=disable_update_check = true", "-hcl=session_ttl_min = \"2s\""])
                .args(["-hcl=ports { dns = -1 grpc = -1 }", "-log-level=err"]),
            Self::ZooKeeper => {
                let settings = "tickTime=500\ninitLimit=10\nsyncLimit=5\nminSessionTimeout=1000\nmaxClientCnxns=0\nclientPort=2181\nadmin.enableServer=false\n";
                std::fs::write(directory.join("zoo.cfg"), format!("{settings}dataDir={}\n", data.display())).unwrap();
                command = Command::new("java");
                command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(class_path(&program));
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(directory.join("zoo.cfg"))
            }
        };
        command
    }

    fn endpoint(self) -> &'static str {
        match self {
            Self::Etcd => "http://127.0.0.1:2379",
            Self::Consul => "http://127.0.0.1:8500",
            Self::ZooKeeper => "127.0.0.1:2181",
        }
    }
}

/// The archives beside ZooKeeper's that it needs.
fn class_path(zookeeper: &Path) -> String {
    let java = zookeeper.parent().unwrap();
    let wanted =
        ["zookeeper.jar", "zookeeper-jute.jar", "metrics-core.jar", "slf4j-api.jar", "slf4j-nop.jar", "commons-cli.jar"];
    let more = ["snappy-java.jar", "log4j-1.2.jar"];
    let mut paths: Vec<String> = wanted.iter().chain(&more).map(|name| java.join(name).display().to_string()).collect();
    let archives = std::fs::read_dir(java).unwrap().map(|entry| entry.unwrap().path());
    let netty = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("netty"));
    paths.extend(archives.filter(netty).map(|path| path.display().to_string()));
    paths.join(":")
}

impl Place {
    /// Starts a server, and waits until it answers.
    pub(crate) async fn new(kind: Kind) -> Self {
        Self::start(kind, false).await
    }

    /// An etcd that speaks TLS only, and asks its clients for certificates.
    pub(crate) async fn secured() -> Self {
        Self::start(Kind::Etcd, true).await
    }

    async fn start(kind: Kind, is_secured: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if is_secured {
            make_certificates(directory.path());
        }
        let child = spawn(kind, directory.path(), is_secured);
        let place = Self { kind, child, directory, is_secured };
        place.answers().await;
        place
    }

    /// Kills the server, and starts it again with what it has kept.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.kind, self.directory.path(), self.is_secured);
        self.answers().await;
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn answers(&self) {
        let store = self.settings().open().unwrap();
        let mut last = None;
        for _ in 0..200 {
            match store.open().await {
                Ok(session) => return store.close(&session).await.unwrap(),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        panic!("{:?} does not start: {last:?}\n{log}", self.kind);
    }

    /// A file of the server's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The way to it.
    pub(crate) fn settings(&self) -> Settings {
        let kind = match self.kind {
            Kind::Etcd => StoreKind::Etcd,
            Kind::Consul => StoreKind::Consul,
            Kind::ZooKeeper => StoreKind::ZooKeeper,
        };
        let mut settings = Settings::new(kind, vec![self.kind.endpoint().to_owned()]);
        if self.is_secured {
            settings.endpoints = vec![self.kind.endpoint().replace("http:", "https:")];
            settings.ca = Some(self.file("ca.pem"));
            settings.identity = Some((self.file("client.pem"), self.file("client.key")));
        }
        settings
    }

    /// Makes etcd forget all history.
    pub(crate) fn compact(&self) {
        let revision = self.ask("/v3/kv/range", r#"{"key":"AA=="}"#);
        let revision: serde_json::Value = serde_json::from_str(&revision).unwrap();
        let revision = revision["header"]["revision"].as_str().unwrap();
        self.ask("/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#));
    }

    /// Gives etcd two users: root, whose password is `secret`, and guest, who may do nothing.
    pub(crate) fn guard(&self) {
        self.ask("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#);
        self.ask("/v3/auth/role/add", r#"{"name":"root"}"#);
        self.ask("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
        self.ask("/v3/auth/user/add", r#"{"name":"guest","password":"guest"}"#);
        self.ask("/v3/auth/enable", "{}");
    }

    fn ask(&self, path: &str, body: &str) -> String {
        let settings = self.settings();
        let url = format!("{}{path}", settings.endpoints[0]);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "-d", body, &url]);
        if let (Some(ca), Some((cert, key))) = (settings.ca, settings.identity) {
            curl.arg("--cacert").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key);
        }
        let said = curl.output().unwrap();
        assert!(said.status.success(), "{path}: {said:?}");
        String::from_utf8(said.stdout).unwrap()
    }
}

fn spawn(kind: Kind, directory: &Path, is_secured: bool) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = kind.command(directory);
    if is_secured {
        let at = |name: &str| directory.join(name);
        command.args(["--listen-client-urls", "https://127.0.0.1:2379", "--advertise-client-urls", "https://127.0.0.1:2379"]);
        command.arg("--cert-file").arg(at("server.pem")).arg("--key-file").arg(at("server.key"));
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(at("ca.pem"));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// An issuer, a server's certificate, and those of four clients: one without a CommonName, one with it, one of another issuer, and one that has expired.
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
        assert!(made.status.success(), "{arguments}: {made:?}");
    };
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for issuer in ["ca", "other"] {
        openssl(&format!("req -x509 {KEY} -days 2 -keyout {issuer}.key -out {issuer}.pem -subj /O={issuer}"));
    }
    std::fs::write(directory.join("end"), "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n").unwrap();
    for (name, subject, issuer, days) in [
        ("server", "/O=s", "ca", 2),
        ("client", "/O=c", "ca", 2),
        ("named", "/CN=c", "ca", 2),
        ("stranger", "/O=c", "other", 2),
        ("expired", "/O=c", "ca", -1),
    ] {
        openssl(&format!("req -new {KEY} -keyout {name}.key -out {name}.csr -subj {subject}"));
        let by = format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial -days {days} -extfile end");
        openssl(&format!("x509 -req -in {name}.csr -out {name}.pem {by}"));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const INSIDE: &str = "VSWITCH_INSIDE_A_NAMESPACE";
