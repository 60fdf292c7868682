//! Who may ask what of the web view.
//!
//! Every request must name this place in `Host`, and whatever page sends it must be from here (`Origin`): else a page of somewhere else, which a
//! user of this host looks at, could ask by the user's browser, also under a name that its owner points at 127.0.0.1 (DNS rebinding). What does
//! more than read counters and tables needs the token as well.

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};

use super::WebSettings;

/// Why a request is not answered.
pub(super) type Rejection = (StatusCode, String);

/// What requests are measured by.
#[derive(Debug)]
pub(super) struct Guard {
    /// Names without their ports, in lower case.
    hosts: Vec<String>,
    token: String,
    /// Where the token is, for a sentence.
    place: String,
}

impl Guard {
    pub(super) fn new(settings: &WebSettings, token: String, place: String) -> Self {
        let address = settings.listen.ip();
        let own = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        // Every address is no name.
        hosts.extend((!address.is_unspecified()).then_some(own));
        hosts.extend(settings.hosts.iter().map(|host| host.to_ascii_lowercase()));
        Self { hosts, token, place }
    }

    /// Whether a request is for this place, and no page of elsewhere sends it.
    pub(super) fn check_place(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let host = one(headers, HOST.as_str()).unwrap_or_default();
        if !self.hosts.iter().any(|own| *own == without_port(&host)) {
            let sentence = format!(
                "this is not \"{}\": use the address in `listen` of [web], or add the name to its `hosts`",
                host.escape_debug()
            );
            return Err((StatusCode::MISDIRECTED_REQUEST, sentence));
        }
        if headers.contains_key(ORIGIN) {
            let origin = one(headers, ORIGIN.as_str()).unwrap_or_default();
            // A proxy in front of it may speak TLS.
            let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if from != Some(host.as_str()) {
                return Err((StatusCode::FORBIDDEN, "pages from elsewhere may not ask here".to_owned()));
            }
        }
        Ok(())
    }

    /// Whether a request has the token.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        if self.has_token(headers) {
            return Ok(());
        }
        let sentence = format!(
            "this needs the token, as the header `Authorization: Bearer TOKEN`; it is in {} for root to read",
            self.place
        );
        Err((StatusCode::UNAUTHORIZED, sentence))
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        given.is_some_and(|given| is_same(given.trim().as_bytes(), self.token.as_bytes()))
    }
}

/// Compares in a time that does not tell how much of it was right.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// A header that is there once, in lower case.
fn one(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut all = headers.get_all(name).iter();
    let value = all.next().filter(|_| all.next().is_none())?;
    Some(value.to_str().ok()?.to_ascii_lowercase())
}

fn without_port(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|end| end + 1) } else { host.find(':') };
    let (name, rest) = host.split_at(end.unwrap_or(host.len()));
    let port = rest.strip_prefix(':').unwrap_or_default();
    let is_port = rest.is_empty() || !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_port { name } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn status(check: fn(&Guard, &HeaderMap) -> Result<(), Rejection>, headers: &[(&'static str, &str)]) -> u16 {
        let settings = WebSettings { hosts: vec!["Switch.lan".to_owned()], ..WebSettings::default() };
        let guard = Guard::new(&settings, TOKEN.to_owned(), "/x/web-token".to_owned());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check(&guard, &map).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn only_this_place_is_asked_and_only_by_its_own_pages() {
        let get = |headers: &[(&'static str, &str)]| status(Guard::check_place, headers);
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "switch.lan:80"] {
            assert_eq!(get(&[("host", host)]), 200, "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost:x", "localhost:", "[::1", "[::2]", "0.0.0.0", "127.0.0.2"]
        {
            assert_eq!(get(&[("host", host)]), 421, "{host}");
        }
        assert_eq!(get(&[]), 421, "no Host at all");
        assert_eq!(get(&[("host", "localhost"), ("host", "localhost")]), 421, "two of them");
        let with = |origin| get(&[("host", "localhost:8080"), ("origin", origin)]);
        for origin in ["http://localhost:8080", "https://localhost:8080"] {
            assert_eq!(with(origin), 200, "{origin}");
        }
        for origin in ["null", "http://localhost", "http://localhost:8081", "http://evil.example", "", "localhost:8080"] {
            assert_eq!(with(origin), 403, "{origin}");
        }
    }

    #[test]
    fn what_does_more_than_read_needs_the_token() {
        let post = |authorization: Option<&str>| {
            let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
            status(Guard::check_token, &headers)
        };
        assert_eq!(post(Some("Bearer 0123456789abcdef")), 200);
        for wrong in
            ["Bearer 0123456789abcdee", "Bearer 0123456789abcde", "Bearer ", "0123456789abcdef", "Basic 0123456789abcdef"]
        {
            assert_eq!(post(Some(wrong)), 401, "{wrong}");
        }
        assert_eq!(post(None), 401);
    }
}
