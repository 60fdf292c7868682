//! The part of a lab's file that vswitchd reads, with every line where it was: a problem that vswitchd finds has the line of the lab's file.

use std::fmt::Write;

use super::HostName;

/// The tables that are the lab's; what is below their headings, vswitchd does not see.
const OWN: [&str; 6] = ["lab", "draw", "host", "link", "fault", "stage"];

/// A cable between two hosts: a bridge with nothing but their ports.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) ends: [End; 2],
}

/// One end of a cable: `HOST:INTERFACE [ADDRESS...]`.
#[derive(Debug)]
pub(super) struct End {
    pub(super) host: HostName,
    pub(super) interface: String,
    pub(super) addresses: Vec<ipnet::IpNet>,
}

impl End {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{}\" is no end of a link: write one such as \"r1:eth1 10.0.0.1/30\"", text.escape_debug());
        let mut words = text.split_whitespace();
        let (host, interface) = words.next().and_then(|word| word.split_once(':')).ok_or_else(wrong)?;
        let is_sound =
            (1..=15).contains(&interface.len()) && interface.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_sound {
            return Err(wrong());
        }
        let address = |word: &str| {
            word.parse()
                .map_err(|_| format!("\"{}\" is no address with a prefix length, such as 10.0.0.1/30", word.escape_debug()))
        };
        let addresses = words.map(address).collect::<Result<_, _>>()?;
        Ok(Self { host: HostName::parse(host)?, interface: interface.to_owned(), addresses })
    }

    /// What its port is called.
    pub(super) fn port(&self) -> String {
        format!("{}-{}", self.host, self.interface)
    }
}

/// The text without the lab's own tables, and the cables behind it.
pub(super) fn part(text: &str, links: &[Link]) -> String {
    let mut part = String::with_capacity(text.len());
    let (mut own, mut open) = (false, None);
    for line in text.lines() {
        if open.is_none()
            && let Some(table) = heading(line)
        {
            own = OWN.contains(&table);
        }
        open = quote(line, open);
        if !own {
            part += line;
        }
        part.push('\n');
    }
    for Link { name, ends } in links {
        // Writing into a string cannot fail.
        let _ = write!(part, "[[bridge]]\nname = \"{name}\"\n");
        for end in ends {
            let addresses: Vec<String> = end.addresses.iter().map(|address| format!("\"{address}\"")).collect();
            let _ = write!(
                part,
                "[[port]]\nname = \"{}\"\nbridge = \"{name}\"\nnetns = \"{}\"\nifname = \"{}\"\naddresses = [{}]\n",
                end.port(),
                end.host,
                end.interface,
                addresses.join(", ")
            );
        }
    }
    part
}

/// The first word of a table's heading.
fn heading(line: &str) -> Option<&str> {
    let inside = line.trim_start().strip_prefix('[')?;
    let inside = inside.strip_prefix('[').unwrap_or(inside).trim_start();
    inside.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).next().filter(|word| !word.is_empty())
}

/// The quotation marks of a text of several lines that is open behind a line.
fn quote(line: &str, mut open: Option<&'static str>) -> Option<&'static str> {
    let mut rest = line;
    loop {
        match open {
            Some(mark) => {
                let Some((_, behind)) = rest.split_once(mark) else { return open };
                (open, rest) = (None, behind);
            }
            None => {
                let first = ["\"\"\"", "'''", "#", "\"", "'"].into_iter().filter_map(|mark| Some((rest.find(mark)?, mark)));
                // Of two that begin at the same place the longer one.
                let (at, mark) = first.min_by_key(|(at, mark)| (*at, 3 - mark.len().min(3)))?;
                let behind = &rest[at + mark.len()..];
                match mark {
                    "#" => return None,
                    "\"\"\"" | "'''" => (open, rest) = (Some(mark), behind),
                    _ => rest = behind_string(behind, mark),
                }
            }
        }
    }
}

/// What is behind a string of one line.
fn behind_string<'a>(text: &'a str, mark: &str) -> &'a str {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = mark == "\"",
            _ if mark.as_bytes() == [byte] => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vswitchd_sees_its_own_tables_where_they_were() {
        let text = "[lab]\nname = \"x\"\n[[port]]\nname = \"a\" # \"\"\"\n[[stage]]\nrun = '''\n[[port]]\n'''\n[[stage.check]]\nsays = \"\\\"[[port]]\"\n  [nat]\nports = \"1-2\"\n[[portal]]\n";
        let expected = "\n\n[[port]]\nname = \"a\" # \"\"\"\n\n\n\n\n\n\n  [nat]\nports = \"1-2\"\n[[portal]]\n";
        assert_eq!(part(text, &[]), expected);
    }

    #[test]
    fn a_cable_is_a_bridge_of_two_ports() {
        let ends = ["r1:eth1 10.0.0.1/30 fd00::1/64", "r2:eth0"].map(|end| End::parse(end).unwrap());
        let part = part("", &[Link { name: "r1-r2".to_owned(), ends }]);
        let table: toml::Table = toml::from_str(&part).unwrap();
        assert_eq!(table["port"].as_array().unwrap().len(), 2);
        assert!(part.contains("name = \"r1-eth1\"\nbridge = \"r1-r2\"\nnetns = \"r1\"\nifname = \"eth1\"\naddresses = [\"10.0.0.1/30\", \"fd00::1/64\"]"));
        for wrong in ["r1", "r1:", "r1:eth0 10.0.0.1", "R:eth0", "r1:e th0", "r1:0123456789abcdef"] {
            assert!(End::parse(wrong).is_err(), "{wrong}");
        }
    }
}
