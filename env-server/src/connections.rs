//! Serves HTTP on a listener: so many connections at once and no more, and none whose head of a request does not arrive.

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// Until the head of a request has arrived.
const HEAD: Duration = Duration::from_secs(30);
/// After an error of the listener, as when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);
/// For answers that are under way at the end.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves `router` until `closing`; then nobody comes in any more, `ending` is done, and what is still answered is.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    most: usize,
    closing: impl Future<Output = ()>,
    ending: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(most));
    let over = watch::Sender::new(false);
    let mut closing = std::pin::pin!(closing);
    loop {
        // First a place, then a connection: whoever finds none waits in the socket, and costs no descriptor.
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection is not accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Requests and answers are small, and each waits for the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection broke");
            continue;
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()))
            .with_upgrades();
        let mut ended = over.subscribe();
        tokio::spawn(async move {
            let _place = place;
            let mut connection = std::pin::pin!(connection);
            let done = tokio::select! {
                done = &mut connection => done,
                // Its sender is gone only when all is over.
                _ = async { ended.wait_for(|ended| *ended).await.is_ok() } => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    drop(listener);
    over.send_replace(true);
    ending.await;
    // Every connection listens to that until it has ended. One that was upgraded is a socket, and ends with its lease.
    if timeout(GOODBYE, over.closed()).await.is_err() {
        tracing::debug!("connections are broken off");
    }
}
