//! Where connections come in. The socket outlives the gateway: whoever arrives while nobody accepts waits in it for the
//! successor. A gateway that leaves serves the connections it has until their clients close them or have had their next
//! answer: an idle connection that is closed from here may meet a request on its way.

use std::{future::pending, io, net::SocketAddr, time::Duration};

use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tracing::warn;

/// After this the idle connections of a gateway that has left are closed.
const LINGER: Duration = Duration::from_secs(60);

/// Accepts until its gateway leaves.
pub struct Door {
    listener: TcpListener,
    open: watch::Receiver<bool>,
}

impl Door {
    /// Closed for good once `open` is false or its sender is gone.
    pub fn new(socket: &std::net::TcpListener, open: watch::Receiver<bool>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(socket.try_clone()?)?, open })
    }
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = tokio::select! {
            biased;
            () = closed(self.open.clone()) => None,
            accepted = Listener::accept(&mut self.listener) => Some(accepted),
        };
        let Some((stream, from)) = accepted else { return pending().await };
        // Tokens are small packets: each must leave at once.
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%error, "TCP_NODELAY could not be set");
        }
        (stream, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn closed(mut open: watch::Receiver<bool>) {
    // An error means that the gateway is gone.
    let _ = open.wait_for(|open| !open).await;
}

/// Returns when idle connections are to be closed: at once when told so, a while after the gateway has left otherwise.
pub async fn time_to_hang_up(open: watch::Receiver<bool>, mut hang_up: watch::Receiver<bool>) {
    let told = async {
        if hang_up.wait_for(|hang_up| *hang_up).await.is_err() {
            pending::<()>().await;
        }
    };
    let left = async {
        closed(open).await;
        sleep(LINGER).await;
    };
    tokio::select! {
        () = told => {}
        () = left => {}
    }
}
