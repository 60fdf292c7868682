//! The labs that come with the program, in the order in which they are best taken.

use std::path::Path;

use crate::LabError;
use crate::file::Source;

macro_rules! labs {
    ($($name:literal)*) => {
        &[$(Shelved {
            name: $name,
            toml: include_str!(concat!("../../../labs/", $name, ".toml")),
            text: include_str!(concat!("../../../labs/", $name, ".md")),
        }),*]
    };
}

/// A lab of the program's own.
#[derive(Debug)]
pub(crate) struct Shelved {
    pub(crate) name: &'static str,
    toml: &'static str,
    text: &'static str,
}

/// All of them.
pub(crate) const LABS: &[Shelved] = labs![
    "cable" "learning" "arp" "vlans" "loop" "subnets" "dhcp" "names" "ipv6" "snat" "publish" "mtu" "loss" "bufferbloat" "ospf" "vxlan" "docker" "faults"
];

impl Shelved {
    pub(crate) fn source(&self) -> Source {
        Source { file: format!("labs/{}.toml", self.name), toml: self.toml.to_owned(), text: self.text.to_owned() }
    }
}

/// The lab of a name, or of a file.
pub(crate) fn find(name: &str) -> Result<Source, LabError> {
    if let Some(lab) = LABS.iter().find(|lab| lab.name == name) {
        return Ok(lab.source());
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension == "toml") {
        return Source::of_file(path);
    }
    let scored = LABS.iter().map(|lab| (strsim::damerau_levenshtein(name, lab.name), lab.name));
    let near = scored.min().filter(|(distance, near)| distance * 3 <= near.len().max(3));
    let hint = near.map_or_else(
        || "`vsctl lab list` has all; of a lab of your own, name the file, NAME.toml".to_owned(),
        |(_, near)| format!("did you mean {near}?"),
    );
    Err(LabError::refused(format!("there is no lab \"{}\": {hint}", name.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::read;

    #[test]
    fn every_lab_can_be_read_with_any_seed_and_is_called_as_its_file_is() {
        for lab in LABS {
            for seed in 0..4 {
                let read = read(&lab.source(), &seed.to_string()).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(read.about.name, lab.name);
                assert!(read.about.minutes <= 60, "{} takes {} minutes", lab.name, read.about.minutes);
            }
        }
    }

    #[test]
    fn a_name_that_is_none_gets_the_nearest() {
        assert!(find("cabel").unwrap_err().to_string().contains("did you mean cable?"));
        assert!(find("xyz").unwrap_err().to_string().contains("vsctl lab list"));
    }
}
