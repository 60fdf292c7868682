use std::path::Path;

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

/// A connection to vswitchd.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn open(path: &Path) -> Result<Self, ClientError> {
        let unreachable = |source| ClientError::Unreachable { path: path.display().to_string(), source };
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // What goes wrong with it comes out of the request.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Asks one question.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let answer = self.send("/v1/request", request).await?;
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Begins a capture: its number and its file.
    pub(super) async fn capture(mut self, request: &CaptureRequest) -> Result<(u64, Incoming), ClientError> {
        let answer = self.send("/v1/capture", request).await?;
        let number = answer.headers().get(CAPTURE_NUMBER).and_then(|value| value.to_str().ok()?.parse().ok());
        let number = number.ok_or_else(|| ClientError::Answer("the capture has no number".to_owned()))?;
        Ok((number, answer.into_body()))
    }

    async fn send(&mut self, path: &str, body: &impl Serialize) -> Result<hyper::Response<Incoming>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Argument(error.to_string()))?;
        let request = hyper::Request::post(path)
            .header(hyper::header::HOST, "vswitch")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| ClientError::Argument(error.to_string()))?;
        let answer = self.sender.send_request(request).await.map_err(broken)?;
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
