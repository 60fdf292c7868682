//! Which network namespaces programs run in. `/proc` tells, so a namespace is found that has no name or that vswitchd does not see mounted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::netns::{Identity, OWN};
use crate::broker::SystemError;
use api::Netns;

/// Programs that a sentence names; of more it tells the number.
const NAMED: usize = 3;

/// The processes that there were at one moment, by their network namespace. Those in vswitchd's own are left out: it does not depend on
/// the switch.
#[derive(Debug, Default)]
struct Programs(BTreeMap<Identity, Vec<u32>>);

/// The programs that run in each of these namespaces, such as "iperf3 (4711), sh (4712)"; `None`: no program does, or there is no such namespace.
///
/// # Errors
/// There is no `/proc`.
pub(super) fn programs_in(places: &[Netns]) -> Result<Vec<Option<String>>, SystemError> {
    let programs = Programs::look()?;
    Ok(places.iter().map(|netns| programs.in_netns(netns)).collect())
}

impl Programs {
    /// Looks at every process in `/proc`. One that has ended, or that vswitchd may not look at, counts as none.
    fn look() -> io::Result<Self> {
        let mut programs: BTreeMap<Identity, Vec<u32>> = BTreeMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok()) else { continue };
            if let Some(namespace) = Identity::at(Path::new(&format!("/proc/{pid}/ns/net"))) {
                programs.entry(namespace).or_default().push(pid);
            }
        }
        let own = Identity::at(Path::new(OWN)).ok_or(io::ErrorKind::NotFound)?;
        programs.remove(&own);
        Ok(Self(programs))
    }

    fn in_netns(&self, netns: &Netns) -> Option<String> {
        let pids = self.0.get(&Identity::now(netns)?)?;
        let named: Vec<String> = pids.iter().take(NAMED).map(|pid| format!("{} ({pid})", name(*pid))).collect();
        let more = pids.len() - named.len();
        Some(named.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() })
    }
}

/// The name of a process, without what a terminal would take for more than a name.
fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_counts_as_empty_and_so_does_one_that_is_none() {
        let programs = Programs::look().unwrap();
        for netns in ["/proc/self/ns/net", "/nowhere", "/proc/self/status"] {
            assert_eq!(programs.in_netns(&netns.to_owned().try_into().unwrap()), None, "{netns}");
        }
    }

    #[test]
    fn a_sentence_names_the_first_few() {
        let netns = Netns::try_from("/proc/self/ns/net".to_owned()).unwrap();
        let own = Identity::now(&netns).unwrap();
        let sentence = |count| Programs([(own, vec![std::process::id(); count])].into()).in_netns(&netns).unwrap();
        let one = format!("{} ({})", name(std::process::id()), std::process::id());
        assert_eq!(sentence(2), format!("{one}, {one}"));
        assert_eq!(sentence(5), format!("{one}, {one}, {one} and 2 more"));
    }
}
