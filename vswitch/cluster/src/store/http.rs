//! HTTP to the members of a store: one is asked, and the next if it does not answer in time or has no leader.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::{PATIENCE, Settings, StoreError, StoreKind, Trouble};

/// The members of a store that speaks HTTP.
pub(super) struct Members {
    kind: StoreKind,
    endpoints: Vec<String>,
    /// The member that answered last.
    current: AtomicUsize,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    has_certificate: bool,
}

/// What is asked of a member.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// The path and the query.
    pub(super) path: &'a str,
    pub(super) header: Option<(&'static str, String)>,
    pub(super) body: String,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

/// What a member answers.
pub(super) struct Reply {
    pub(super) endpoint: String,
    pub(super) status: u16,
    /// `X-Consul-Index`.
    pub(super) index: u64,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    /// Whether another member may know better.
    fn is_hopeless(&self) -> bool {
        matches!(self.status, 500 | 502 | 503 | 504)
    }
}

impl Members {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let mut endpoints = Vec::new();
        for endpoint in &settings.endpoints {
            endpoints.push(checked(endpoint, settings)?);
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(PATIENCE));
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls(settings)?).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https.wrap_connector(http));
        Ok(Self {
            kind: settings.kind,
            endpoints,
            current: AtomicUsize::new(0),
            client,
            has_certificate: settings.identity.is_some(),
        })
    }

    /// The members as they were named.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoints[self.current.load(Ordering::Relaxed) % self.endpoints.len()]
    }

    /// Asks each member in turn, from the one that answered last.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Reply, StoreError> {
        let mut last = None;
        for _ in 0..self.endpoints.len() {
            let endpoint = self.endpoint().to_owned();
            let answer = tokio::time::timeout(ask.patience, self.exchange(&endpoint, ask)).await;
            let silent = || Err(Trouble::Silent(ask.patience.as_secs()).at(self.kind, &endpoint));
            match answer.unwrap_or_else(|_| silent()) {
                Ok(reply) if !reply.is_hopeless() => return Ok(reply),
                other => last = Some(other),
            }
            self.current.fetch_add(1, Ordering::Relaxed);
        }
        last.unwrap_or_else(|| Err(Trouble::Unreachable("it has no members".to_owned()).at(self.kind, "")))
    }

    async fn exchange(&self, endpoint: &str, ask: &Ask<'_>) -> Result<Reply, StoreError> {
        let response = self.send(endpoint, ask).await?;
        let status = response.status().as_u16();
        let index = response.headers().get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| Trouble::TooMuch(format!("the answer ({error})")).at(self.kind, endpoint))?;
        Ok(Reply { endpoint: endpoint.to_owned(), status, index: index.unwrap_or(0), body: body.to_bytes() })
    }

    /// Asks the current member for an answer that has no end.
    pub(super) async fn stream(&self, ask: &Ask<'_>) -> Result<(String, Response<Incoming>), StoreError> {
        let endpoint = self.endpoint().to_owned();
        let silent = |_| Trouble::Silent(ask.patience.as_secs()).at(self.kind, &endpoint);
        let answer =
            tokio::time::timeout(ask.patience, self.send(&endpoint, ask)).await.map_err(silent).and_then(|answer| answer);
        if answer.is_err() {
            self.current.fetch_add(1, Ordering::Relaxed);
        }
        Ok((endpoint, answer?))
    }

    async fn send(&self, endpoint: &str, ask: &Ask<'_>) -> Result<Response<Incoming>, StoreError> {
        let failed = |trouble: Trouble| trouble.at(self.kind, endpoint);
        let mut attempts = 0;
        loop {
            let mut request = Request::builder().method(&ask.method).uri(format!("{endpoint}{}", ask.path));
            if let Some((name, value)) = &ask.header {
                request = request.header(*name, value);
            }
            let request = request.body(Full::new(Bytes::from(ask.body.clone())));
            let request = request.map_err(|error| failed(Trouble::Other(error.to_string())))?;
            attempts += 1;
            match self.client.request(request).await {
                Ok(response) => return Ok(response),
                Err(error) if attempts < ATTEMPTS && was_closed_at_once(&error) => {}
                Err(error) => return Err(failed(unreachable(&error, self.has_certificate))),
            }
        }
    }
}

/// Whether a connection was closed before anything was asked. With TLS 1.3 a member that does not take this host's certificate says so only when the
/// connection is there already (RFC 8446, section 4.4.2.4), and its alert is not always read in time; then it is when all is tried again.
fn was_closed_at_once(error: &(dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_canceled)
}

/// How often is asked where a connection is closed at once.
const ATTEMPTS: usize = 4;

/// The deepest cause of a request that came to nothing.
fn unreachable(error: &(dyn Error + 'static), has_certificate: bool) -> Trouble {
    let mut cause = error;
    let mut secure = None;
    loop {
        // An error of I/O shows what it wraps, but not as its source.
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        // A member that takes only TLS closes what does not begin so.
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            let closed = "it closed the connection without an answer (if it speaks TLS, write https:// and give `ca`)";
            return Trouble::Unreachable(closed.to_owned());
        }
        secure = secure.or(cause.downcast_ref::<rustls::Error>());
        match inner.map(|inner| inner as &(dyn Error + 'static)).or(cause.source()) {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    match secure {
        Some(error) => Trouble::Tls(advice(error, has_certificate)),
        None => Trouble::Unreachable(cause.to_string()),
    }
}

/// What to do about an error of TLS.
fn advice(error: &rustls::Error, has_certificate: bool) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Wrong, Error};
    match error {
        Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => {
            "the store's certificate has expired: renew it, or set this host's clock".to_owned()
        }
        Error::InvalidCertificate(Wrong::UnknownIssuer) => {
            "the store's certificate is signed by none of those in `ca`: give the file of its issuer".to_owned()
        }
        Error::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) => {
            "the store's certificate is for another name: use a name in `endpoints` that it bears".to_owned()
        }
        // Which alert comes depends on the version of TLS.
        Error::AlertReceived(Alert::CertificateRequired | Alert::BadCertificate | Alert::HandshakeFailure)
            if !has_certificate =>
        {
            "the store wants a client certificate: give `cert` and `key`".to_owned()
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the store says that this host's certificate has expired: renew `cert`".to_owned()
        }
        // What is written in Go says no more of one that has expired.
        Error::AlertReceived(Alert::BadCertificate | Alert::UnknownCA) => {
            "the store does not take this host's certificate: give a `cert` that is signed by the store's own issuer and has not expired"
                .to_owned()
        }
        Error::InvalidMessage(_) => "what answers speaks no TLS: write http:// in `endpoints`".to_owned(),
        other => other.to_string(),
    }
}

/// An endpoint without a slash at its end.
pub(super) fn checked(endpoint: &str, settings: &Settings) -> Result<String, String> {
    let wrong = |why: &str| format!("endpoint \"{}\" {why}", endpoint.escape_debug());
    let uri: Uri = endpoint.parse().map_err(|_| wrong("is no URL: write http://ADDRESS:PORT"))?;
    match uri.scheme_str() {
        Some("http") => Ok(()),
        Some("https") if settings.ca.is_none() => Err(wrong("needs `ca`, the file of the certificate of its issuer")),
        Some("https") => Ok(()),
        _ => Err(wrong("has no scheme: write http://ADDRESS:PORT or https://ADDRESS:PORT")),
    }?;
    match uri.authority() {
        Some(authority) if authority.port_u16().is_none() => {
            Err(wrong("has no port: write it behind the address, as in :2379"))
        }
        Some(_) if uri.path().len() > 1 || uri.query().is_some() => {
            Err(wrong("has a path: write only the address and the port"))
        }
        Some(_) => Ok(endpoint.trim_end_matches('/').to_owned()),
        None => Err(wrong("has no address: write http://ADDRESS:PORT")),
    }
}

fn tls(settings: &Settings) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots);
    let Some((cert, key)) = &settings.identity else { return Ok(config.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "private key", &error))?;
    let config = config.with_client_auth_cert(certificates(cert)?, private);
    config.map_err(|error| format!("{} and {} do not belong together: {error}", cert.display(), key.display()))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let list = list.map_err(|error| unreadable(path, "certificate", &error))?;
    if list.is_empty() { Err(format!("{} holds no certificate: give a file in PEM", path.display())) } else { Ok(list) }
}

fn unreadable(path: &std::path::Path, what: &str, error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => format!("{}: {error}", path.display()),
        rustls::pki_types::pem::Error::NoItemsFound => format!("{} holds no {what}: give a file in PEM", path.display()),
        other => format!("{} holds no readable {what}: {other}", path.display()),
    }
}

/// Most bytes of an answer. A page of a list has less than one MiB, a list of all 10,000 endpoints of a prefix 3 MiB.
const LONGEST: usize = 64 << 20;
