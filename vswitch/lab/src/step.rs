//! A line to be typed, as a lab's file has it: `pc1$ ip addr show` in a host, `$ vsctl show` beside the switch.

use std::fmt;

use crate::file::HostName;

/// A shell's command, and where it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The host, or none for where the switch is.
    pub(crate) host: Option<HostName>,
    pub(crate) line: String,
}

impl Step {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            format!(
                "\"{}\" does not say where it is typed: write \"HOST$ command\", or \"$ command\" for the switch's own place",
                text.escape_debug()
            )
        };
        let (place, line) = text.split_once('$').ok_or_else(wrong)?;
        let line = line.strip_prefix(char::is_whitespace).ok_or_else(wrong)?.trim();
        if line.is_empty() {
            return Err(format!("\"{}\" has no command behind its $", text.escape_debug()));
        }
        let host = if place.is_empty() { None } else { Some(HostName::parse(place).map_err(|_| wrong())?) };
        Ok(Self { host, line: line.to_owned() })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}")?;
        }
        write!(f, "$ {}", self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_where_it_is_typed() {
        let step = Step::parse("pc1$ echo $HOME; ls").unwrap();
        assert_eq!(
            (step.host.as_ref().map(ToString::to_string).as_deref(), step.line.as_str()),
            (Some("pc1"), "echo $HOME; ls")
        );
        assert_eq!(step.to_string(), "pc1$ echo $HOME; ls");
        assert_eq!(Step::parse("$ vsctl show").unwrap(), Step { host: None, line: "vsctl show".to_owned() });
        for wrong in ["ls", "echo $HOME", "pc1$", "pc1$ ", "pc1$ls", "a b$ ls", "$"] {
            assert!(Step::parse(wrong).is_err(), "{wrong}");
        }
    }
}
