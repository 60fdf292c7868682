//! JSON that other programs send.

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

/// Reads an object.
///
/// # Errors
/// What is wrong with it, with the key that it is at.
pub(crate) fn read<T: DeserializeOwned>(document: &[u8]) -> Result<T, String> {
    // A list of a structure's fields in their order would do as well.
    if !document.trim_ascii_start().starts_with(b"{") {
        return Err("it is no JSON object".to_owned());
    }
    let mut document = serde_json::Deserializer::from_slice(document);
    let read = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let is_known = error.path().iter().any(|segment| !matches!(segment, Segment::Unknown));
        if is_known { format!("`{}`: {}", error.path(), error.inner()) } else { error.inner().to_string() }
    })?;
    document.end().map_err(|error| error.to_string())?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Document {
        #[serde(default, rename = "items")]
        _items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        #[serde(rename = "port")]
        _port: u16,
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        for (document, said) in [
            ("", "it is no JSON object"),
            ("null", "it is no JSON object"),
            (" [[]]", "it is no JSON object"),
            ("{", "EOF while parsing an object at line 1 column 1"),
            (
                r#"{"items": [{"port": 7}, {"port": 65536}]}"#,
                "`items[1].port`: invalid value: integer `65536`, expected u16 at line 1 column 38",
            ),
            (r#"{"items": [{}]}"#, "`items[0]`: missing field `port` at line 1 column 13"),
            ("{} {}", "trailing characters at line 1 column 4"),
        ] {
            assert_eq!(super::read::<Document>(document.as_bytes()).unwrap_err(), said);
        }
    }
}
