//! Carries the bytes of the web view between the host's network and the lab's: a browser is in the one, vswitchd in the other, and both see the
//! files of the lab.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::place::Place;
use crate::{During, LabError};

/// Where the lab's vswitchd listens in the lab's network.
pub(crate) const INNER: &str = "127.0.0.1:8080";

/// How long it waits after a connection could not be taken, as where there are no descriptors left: the next would fail likewise.
const REST: Duration = Duration::from_millis(200);

fn wait<F: Future<Output = Result<(), LabError>>>(work: F) -> Result<(), LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.during(|| "the relay cannot wait for connections".to_owned())?.block_on(work)
}

/// The lab's half: from a socket among its files to the web view.
pub(crate) fn inner(socket: &Path) -> Result<(), LabError> {
    wait(async {
        let listener = UnixListener::bind(socket).during(|| format!("{} cannot be listened on", socket.display()))?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(async move { carry(stream, TcpStream::connect(INNER).await).await })),
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    })
}

/// The host's half: from a port of the host to that socket, until the lab ends.
pub(crate) fn outer(place: &Place, listener: std::net::TcpListener) -> Result<(), LabError> {
    wait(async {
        let what = || "the web view cannot be listened for".to_owned();
        listener.set_nonblocking(true).during(what)?;
        let listener = TcpListener::from_std(listener).during(what)?;
        let socket = place.in_run("web.sock");
        while place.keeper().is_some() {
            let Ok(accepted) = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await else { continue };
            let socket = socket.clone();
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(async move { carry(stream, UnixStream::connect(socket).await).await })),
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
        Ok(())
    })
}

async fn carry(mut near: impl AsyncRead + AsyncWrite + Unpin, far: std::io::Result<impl AsyncRead + AsyncWrite + Unpin>) {
    if let Ok(mut far) = far {
        // A browser that goes away is no failure.
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}
