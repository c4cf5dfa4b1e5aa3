//! Serves HTTP on a listener: so many connections at once and no more, and none whose head of a request does not
//! arrive. axum's own server sets neither limit.

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::sync::Semaphore;
use tracing::debug;

/// What the connections of a listener may take.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// A place for each connection at once. Whoever shares them shares the limit: the successor of a server whose
    /// connections go on, for one.
    pub places: Arc<Semaphore>,
    /// A connection whose next request has not arrived as far as the end of its head is closed after this.
    pub head_timeout: Duration,
}

impl ConnectionLimits {
    /// That many connections, and thirty seconds for a head.
    pub fn new(connections: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        Self { places, head_timeout: Duration::from_secs(30) }
    }
}

/// Serves `router` until `closing`; then returns when the connections there are have had their answers. Dropped, it
/// accepts no more, and they go on.
pub async fn serve<L>(
    mut listener: L,
    router: Router,
    limits: ConnectionLimits,
    closing: impl Future<Output = ()>,
) where
    L: Listener,
    L::Addr: Debug,
{
    let connections = GracefulShutdown::new();
    let mut closing = std::pin::pin!(closing);
    loop {
        // First a place, then a connection: whoever finds none waits in the socket, and costs no descriptor.
        let accepted = async {
            let place = limits.places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, (stream, _)) = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = accepted => accepted,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            // Of a client: it left, or sent what is no request, or nothing.
            if let Err(error) = connection.await {
                debug!(%error, "a connection broke");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn connections_that_send_no_request_are_closed_and_never_more_than_there_are_places() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let limits = ConnectionLimits { head_timeout: Duration::from_millis(50), ..ConnectionLimits::new(3) };
        let places = limits.places.clone();
        let router = Router::new().route("/", get(async || "here"));
        let server = tokio::spawn(serve(listener, router, limits, std::future::pending()));
        let mut silent = Vec::new();
        for number in 0..10 {
            let mut stream = TcpStream::connect(address).await.expect("the socket takes it");
            let head: &[u8] = if number % 2 == 0 { b"GET / HTTP/1.1\r\nHost: loc" } else { b"" };
            stream.write_all(head).await.expect("sent");
            silent.push(stream);
        }
        // Behind all of them: they are closed, three at a time, and the last one is answered.
        let mut client = TcpStream::connect(address).await.expect("the socket takes it");
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("here"), "{answer}");
        for stream in &mut silent {
            // Closed, with or without a word about it.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        while places.available_permits() < 2 {
            tokio::task::yield_now().await;
        }
        server.abort();
    }
}
