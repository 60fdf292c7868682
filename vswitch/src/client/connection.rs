//! The client's end of the control socket: one HTTP request on a Unix connection of its own for each question. Everything in `client` that
//! asks vswitchd goes through here; touches that socket, and at a shutdown waits for vswitchd's process.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;
use tokio::net::UnixStream;

use super::ClientError;
use super::words::interval;
use api::read::number;
use api::{CAPTURE_NUMBER, CaptureRequest, Reply, Request};

/// How to reach vswitchd. Each question has a connection of its own.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) path: PathBuf,
    /// How long an answer may take. The kernel takes connections for a vswitchd that does not run, as one under a debugger.
    pub(super) patience: Duration,
}

impl Control {
    /// Asks one question.
    pub(super) async fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        let body = self.in_time(async {
            let answer = self.send("/v1/request", request).await?;
            Ok(answer.into_body().collect().await.map_err(broken)?.to_bytes())
        });
        serde_json::from_slice(&body.await?).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Begins a capture: its number and its file.
    pub(super) async fn capture(&self, request: &CaptureRequest) -> Result<(u64, Incoming), ClientError> {
        let answer = self.in_time(self.send("/v1/capture", request)).await?;
        let number = answer.headers().get(CAPTURE_NUMBER).and_then(|value| value.to_str().ok()?.parse().ok());
        let number = number.ok_or_else(|| ClientError::Answer("the capture has no number".to_owned()))?;
        Ok((number, answer.into_body()))
    }

    /// Follows what happens: a stream of server-sent events.
    pub(super) async fn events(&self) -> Result<Incoming, ClientError> {
        let request = hyper::Request::get("/v1/events").body(Full::default());
        Ok(self.in_time(self.exchange(request)).await?.into_body())
    }

    /// Ends vswitchd, and waits until it has ended: its answer comes when all else is over, its process ends right after.
    pub(super) async fn shut_down(&self, keep: bool) -> Result<Reply, ClientError> {
        let stream = self.connect().await?;
        // The kernel's word for vswitchd's process: its own would mean another process in another PID namespace. Where the service manager
        // listens, it is that one's process, and the end of vswitchd's is not waited for.
        let listener = stream.peer_cred().ok().and_then(|peer| Pid::from_raw(peer.pid()?));
        let process = listener.and_then(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)));
        let reply = self.ask(&Request::Shutdown { keep }).await?;
        if let (Reply::Ended(ending), Some((pid, process))) = (&reply, process)
            && u32::try_from(pid.as_raw_pid()) == Ok(ending.pid)
        {
            let patience = Timespec::try_from(self.patience).ok();
            // vsctl has nothing else to do, so this may block. It fails only when a signal interrupts it, and then the end is near enough.
            if poll(&mut [PollFd::new(&process, PollFlags::IN)], patience.as_ref()) == Ok(0) {
                return Err(self.silent());
            }
        }
        Ok(reply)
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        tokio::time::timeout(self.patience, answer).await.map_err(|_| self.silent())?
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { path: self.path.display().to_string(), seconds: self.patience.as_secs() }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let path = || self.path.display().to_string();
        UnixStream::connect(&self.path).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied { path: path(), help: whose(&self.path) },
            _ => ClientError::Unreachable { path: path(), source },
        })
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = self.connect().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The request tells what goes wrong with the connection.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send(&self, path: &str, body: &impl Serialize) -> Result<hyper::Response<Incoming>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Argument(error.to_string()))?;
        let request = hyper::Request::post(path).header(hyper::header::CONTENT_TYPE, "application/json").body(Full::from(body));
        self.exchange(request).await
    }

    async fn exchange(
        &self,
        request: Result<hyper::Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<hyper::Response<Incoming>, ClientError> {
        let mut request = request.map_err(|error| ClientError::Argument(error.to_string()))?;
        request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("vswitch"));
        let length = request.body().size_hint().exact().unwrap_or_default();
        let answer = self.open().await?.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if status == hyper::StatusCode::PAYLOAD_TOO_LARGE {
            let sentence = format!("the request has {length} bytes, more than vswitchd reads at once: ask for less");
            return Err(ClientError::Refused(sentence));
        }
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let sentence = document["error"].as_str().map_or_else(|| format!("vswitchd answers {status}"), str::to_owned);
        Err(ClientError::Refused(sentence))
    }
}

/// For whom a socket is, and how to be one of them.
fn whose(path: &Path) -> String {
    let group = std::fs::metadata(path).map(|file| file.gid());
    let name = |gid| nix::unistd::Group::from_gid(gid).ok().flatten().map(|group| group.name);
    match group {
        Ok(0) => "it is for root alone: use sudo, or set `control-group` in [switch] to a group of yours".to_owned(),
        Ok(gid) => {
            let group = name(nix::unistd::Gid::from_raw(gid)).unwrap_or_else(|| gid.to_string());
            format!(
                "it is for root and group {group}: use sudo, or join the group (`usermod -aG {group} USER`, and log in again)"
            )
        }
        Err(_) => "its directory is closed to you: use sudo, or set `control` in [switch] to a place that is not".to_owned(),
    }
}

pub(super) fn broken(error: hyper::Error) -> ClientError {
    ClientError::Answer(error.to_string())
}

/// How long an answer may take: a bare number is one of seconds.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    if text.ends_with(|last: char| last.is_ascii_alphabetic()) {
        return interval(text);
    }
    match number(text)? {
        seconds @ 1..=86_400 => Ok(Duration::from_secs(seconds.unsigned_abs())),
        seconds => Err(format!("{seconds} is out of range: use 1 to 86400 seconds")),
    }
}
