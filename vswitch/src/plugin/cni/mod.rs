//! CNI, the Container Network Interface of containerd, CRI-O and Kubernetes: specification 1.1, and configurations of 0.3.0 to 1.0.
//!
//! A call is told what to do in `CNI_COMMAND`, about which container in `CNI_CONTAINERID`, `CNI_NETNS` and `CNI_IFNAME`, and reads the network's
//! configuration. *ADD* gives an interface and prints it; *DEL* takes it away, and succeeds when it, the namespace or all of vswitchd is gone
//! with the container; *CHECK* compares; *GC* takes away all but what the runtime still knows; *STATUS* says whether *ADD* could be.

mod config;
mod fault;
mod ipam;
mod result;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{LONGEST, Outcome, Variable, ask, is_away, sentence};
use crate::client::ClientError;
use api::{ContainerAddresses, ContainerInfo, ContainerKey, Reply, Request, Runtime};
use config::{NetworkConfig, VERSIONS};
use fault::{Code, Fault};
use result::Granted;

/// Carries out a call.
pub fn run(variable: Variable<'_>, input: impl Read) -> Outcome {
    let mut document = Vec::new();
    let read = input.take(LONGEST).read_to_end(&mut document);
    let done = read.map_err(|error| Fault::new(Code::Io, format!("the configuration cannot be read: {error}")));
    let done = done.and_then(|_| Call { variable, document: &document }.run());
    let version = config::version_of(&document);
    match done {
        Ok(None) => Outcome { text: String::new(), is_done: true },
        Ok(Some(answer)) => Outcome { text: format!("{answer}\n"), is_done: true },
        Err(fault) => Outcome { text: format!("{}\n", fault.document(&version)), is_done: false },
    }
}

/// One call.
struct Call<'a> {
    variable: Variable<'a>,
    document: &'a [u8],
}

impl Call<'_> {
    fn run(&self) -> Result<Option<Value>, Fault> {
        let command = self.text("CNI_COMMAND")?;
        if command == "VERSION" {
            let version = config::version_of(self.document);
            return Ok(Some(json!({ "cniVersion": version, "supportedVersions": VERSIONS })));
        }
        let config = NetworkConfig::read(self.document)?;
        match command.as_str() {
            "ADD" => self.add(&config).map(Some),
            "DEL" => self.delete(&config).map(|()| None),
            "CHECK" => self.check(&config).map(|()| None),
            "GC" => self.collect(&config).map(|()| None),
            "STATUS" => self.status(&config).map(|()| None),
            other => Err(Fault::new(
                Code::Environment,
                format!("CNI_COMMAND is \"{}\": use ADD, DEL, CHECK, GC, STATUS or VERSION", other.escape_debug()),
            )),
        }
    }

    /// Gives the container an interface. What a delegate gave is given back where the switch refuses.
    fn add(&self, config: &NetworkConfig) -> Result<Value, Fault> {
        let (key, netns) = (self.key()?, self.netns()?);
        let delegate = config.delegate().map(|plugin| self.delegate(plugin)).transpose()?;
        let granted = delegate.as_ref().map(|delegate| delegate.add(self.document)).transpose()?;
        let added = self.attach(config, key, &netns, granted.as_ref());
        let info = added.inspect_err(|_| {
            // The fault that counts is the first one.
            let _ = delegate.as_ref().map(|delegate| delegate.run("DEL", self.document));
        })?;
        Ok(result::document(config, &info, &netns, granted.as_ref()))
    }

    fn attach(
        &self,
        config: &NetworkConfig,
        key: ContainerKey,
        netns: &Path,
        granted: Option<&Granted>,
    ) -> Result<ContainerInfo, Fault> {
        let mut spec = config.container(key, netns, &self.arguments())?;
        if let Some(granted) = granted {
            spec.addresses = ContainerAddresses::Given(granted.addresses.clone());
            (spec.gateways, spec.routes) = granted.ways(config.is_internal());
        }
        self.container(&Request::AttachContainer(Box::new(spec)))
    }

    fn delete(&self, config: &NetworkConfig) -> Result<(), Fault> {
        let key = self.key()?;
        let deleted = self.ask(&Request::DetachContainer(key));
        // What the namespace took with it, the switch finds out by itself.
        let is_gone = self.netns().is_ok_and(|netns| !netns.exists()) || self.path("CNI_NETNS").is_none();
        match deleted {
            Err(error) if !(is_away(&error) && is_gone) => return Err(error.into()),
            _ => {}
        }
        config.delegate().map_or(Ok(()), |plugin| self.delegate(plugin)?.run("DEL", self.document).map(drop))
    }

    fn check(&self, config: &NetworkConfig) -> Result<(), Fault> {
        let (key, netns) = (self.key()?, self.netns()?);
        let Some(previous) = config.previous() else {
            return Err(Fault::new(Code::Config, "CHECK needs `prevResult`, what ADD printed".to_owned()));
        };
        let info = self.container(&Request::CheckContainer(key))?;
        result::compare(previous, &info, &netns)?;
        config.delegate().map_or(Ok(()), |plugin| self.delegate(plugin)?.run("CHECK", self.document).map(drop))
    }

    fn collect(&self, config: &NetworkConfig) -> Result<(), Fault> {
        let kept: BTreeSet<ContainerKey> = config.valid_attachments()?;
        self.ask(&Request::KeepContainers(Runtime::Cni, config.name().clone(), kept))?;
        config.delegate().map_or(Ok(()), |plugin| self.delegate(plugin)?.run("GC", self.document).map(drop))
    }

    fn status(&self, config: &NetworkConfig) -> Result<(), Fault> {
        let request = Request::CheckNetwork(Runtime::Cni, Box::new(config.network()?));
        self.ask(&request).map_err(|error| Fault::new(Code::Unavailable, sentence(&error)))?;
        config.delegate().map_or(Ok(()), |plugin| self.delegate(plugin)?.run("STATUS", self.document).map(drop))
    }

    fn container(&self, request: &Request) -> Result<ContainerInfo, Fault> {
        match self.ask(request)? {
            Reply::Container(info) => Ok(*info),
            _ => Err(ClientError::Answer("it is about something else".to_owned()).into()),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        ask(self.variable, request)
    }

    fn delegate(&self, plugin: &str) -> Result<ipam::Delegate, Fault> {
        ipam::Delegate::find(plugin, &self.path("CNI_PATH").unwrap_or_default())
    }

    fn key(&self) -> Result<ContainerKey, Fault> {
        let wrong = |error: String| Fault::new(Code::Environment, error);
        let ifname = self.text("CNI_IFNAME")?.parse().map_err(|error| wrong(format!("CNI_IFNAME: {error}")))?;
        let container = self.text("CNI_CONTAINERID")?;
        ContainerKey::new(Runtime::Cni, &container, ifname).map_err(|error| wrong(format!("CNI_CONTAINERID: {error}")))
    }

    fn netns(&self) -> Result<PathBuf, Fault> {
        let missing =
            || Fault::new(Code::Environment, "CNI_NETNS is empty: it names the container's network namespace".to_owned());
        self.path("CNI_NETNS").map(PathBuf::from).ok_or_else(missing)
    }

    /// What `CNI_ARGS` says, such as `IgnoreUnknown=1;K8S_POD_NAME=web`.
    fn arguments(&self) -> Vec<(String, String)> {
        let text = self.path("CNI_ARGS").unwrap_or_default().to_string_lossy().into_owned();
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn path(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Result<String, Fault> {
        let text = self.path(name).and_then(|value| value.into_string().ok());
        text.ok_or_else(|| {
            let sentence = format!("{name} is not set: this program is a CNI plugin, which a container's runtime calls");
            Fault::new(Code::Environment, sentence)
        })
    }
}
