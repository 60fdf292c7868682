use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

use super::ClientError;
use crate::api::{CaptureRequest, Reply, Request};
use crate::control::CAPTURE_NUMBER;

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

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let silent = |_| ClientError::Silent { path: self.path.display().to_string(), seconds: self.patience.as_secs() };
        tokio::time::timeout(self.patience, answer).await.map_err(silent)?
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let unreachable = |source| ClientError::Unreachable { path: self.path.display().to_string(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // What goes wrong with it comes out of the request.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send(&self, path: &str, body: &impl Serialize) -> Result<hyper::Response<Incoming>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Argument(error.to_string()))?;
        let request = hyper::Request::post(path)
            .header(hyper::header::HOST, "vswitch")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| ClientError::Argument(error.to_string()))?;
        let answer = self.open().await?.send_request(request).await.map_err(broken)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let sentence = document["error"].as_str().map_or_else(|| format!("vswitchd answers {status}"), str::to_owned);
        Err(ClientError::Refused(sentence))
    }
}

pub(super) fn broken(error: hyper::Error) -> ClientError {
    ClientError::Answer(error.to_string())
}
