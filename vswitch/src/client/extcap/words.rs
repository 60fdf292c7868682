//! The command line that Wireshark gives an extcap program: `--key value` and `--key=value`, in any order.

/// The words, by their keys without dashes.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<(String, Option<String>)>);

impl Words {
    pub(super) fn read(words: &[String]) -> Self {
        let mut all: Vec<(String, Option<String>)> = Vec::new();
        for word in words {
            match (word.strip_prefix("--"), all.last_mut()) {
                (Some(key), _) => all.push(match key.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (key.to_owned(), None),
                }),
                (None, Some((_, value @ None))) => *value = Some(word.clone()),
                // A word that belongs to no key is none of ours.
                (None, _) => {}
            }
        }
        Self(all)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).and_then(|(_, value)| value.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_values_in_either_form() {
        let words =
            ["--capture", "--extcap-version=4.0", "--fifo", "/tmp/f", "--extcap-capture-filter", "tcp port 80", "stray"];
        let words = Words::read(&words.map(str::to_owned));
        assert!(words.has("capture") && !words.has("extcap-config") && words.value("capture").is_none());
        assert_eq!((words.value("extcap-version"), words.value("fifo")), (Some("4.0"), Some("/tmp/f")));
        assert_eq!(words.value("extcap-capture-filter"), Some("tcp port 80"));
    }
}
