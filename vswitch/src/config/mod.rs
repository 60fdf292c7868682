//! stub
#![allow(missing_docs)]
use crate::api::*;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
#[derive(Debug)]
pub struct Problem(String);
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
#[derive(Debug, thiserror::Error)]
#[error("state")]
pub struct StateError;
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SwitchSettings {
    pub control: PathBuf,
    pub state_dir: PathBuf,
    #[serde(default = "one")]
    pub workers: usize,
}
fn one() -> usize {
    1
}
impl SwitchSettings {
    pub fn difference(&self, _o: &Self) -> Option<&'static str> {
        None
    }
}
#[derive(Clone, Debug)]
pub struct Config {
    pub switch: SwitchSettings,
    pub bridges: Vec<BridgeSpec>,
    pub ports: Vec<PortSpec>,
}
#[derive(Deserialize)]
struct File {
    switch: SwitchSettings,
    bridge: Vec<BridgeSpec>,
    port: Vec<PortSpec>,
}
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|e| vec![Problem(e.to_string())])?;
    let f: File = toml::from_str(&text).map_err(|e| vec![Problem(e.to_string())])?;
    Ok(Config { switch: f.switch, bridges: f.bridge, ports: f.port })
}
pub fn export(_s: &SwitchSettings, _b: &[BridgeSpec], _p: &[PortSpec]) -> String {
    String::new()
}
#[derive(Clone, Debug)]
pub enum Change<T> {
    Set(T),
    Deleted,
}
#[derive(Default, Debug)]
pub struct Made {
    pub netns: BTreeSet<String>,
    pub ports: BTreeMap<PortName, PortSpec>,
}
#[derive(Default, Debug)]
pub struct State {
    pub bridges: BTreeMap<BridgeName, Change<BridgeSpec>>,
    pub ports: BTreeMap<PortName, Change<PortSpec>>,
    pub made: Made,
}
pub struct StateFile;
impl StateFile {
    pub fn open(_d: &Path) -> Result<(Self, State), StateError> {
        Ok((Self, State::default()))
    }
    pub fn save(&self, _s: &State) -> Result<(), StateError> {
        Ok(())
    }
}
pub struct Merged {
    pub bridges: BTreeMap<BridgeName, (BridgeSpec, Origin)>,
    pub ports: BTreeMap<PortName, (PortSpec, Origin)>,
    pub notes: Vec<String>,
}
pub fn merge(c: &Config, _s: &State) -> Merged {
    Merged {
        bridges: c.bridges.iter().map(|b| (b.name.clone(), (b.clone(), Origin::File))).collect(),
        ports: c.ports.iter().map(|b| (b.name.clone(), (b.clone(), Origin::File))).collect(),
        notes: vec![],
    }
}
