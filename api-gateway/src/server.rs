//! From a listening socket to answered requests, and to a stop that does not cut anybody short without need.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use crate::denied::Peer;
use crate::front::turned_away;
use crate::gateway::Gateway;
use crate::linger::Lingering;
use crate::patience::{Impatient, Patience};
use crate::router::{normalise, router};
use crate::share::connections::Connection;

/// The largest head of a request, in bytes, and the most headers.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
/// How long the record of who was turned away is waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// When the machine of a silent client is asked whether it is there, how often again, and how many times.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 4;
/// How often histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves until `shutdown`, then lets open requests end: streams at once and in order, others within the grace.
pub async fn serve(listener: TcpListener, gateway: Gateway, shutdown: CancellationToken) -> io::Result<()> {
    let service = router(gateway.clone()).map_request(normalise::<axum::body::Body>);
    let connections = TaskTracker::new();
    let telling = tokio::spawn(turned_away::record(gateway.clone()));
    let cut = CancellationToken::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        let next = async {
            let place = gateway.shares().connections().place().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = upkeep.tick() => {
                gateway.metrics().upkeep();
                continue;
            }
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(connection) = gateway.shares().connections().open(peer.ip(), place) else {
                    continue;
                };
                let (service, gateway, cut) = (service.clone(), gateway.clone(), cut.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = serve_connection((stream, peer), &connection, service, &gateway) => {}
                        () = connection.cut().cancelled() => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, or a client that left before it was accepted. Neither ends the server.
                tracing::warn!(error = %error, "cannot accept a connection");
                if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) {
                    gateway.shares().connections().make_room();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    gateway.closing().cancel();
    let sessions = gateway.sessions();
    connections.close();
    sessions.close();
    let ended = async { tokio::join!(connections.wait(), sessions.wait()) };
    if tokio::time::timeout(gateway.config().shutdown_grace, ended).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            sessions = sessions.len(),
            "requests are cut off: they did not end in time"
        );
        cut.cancel();
        connections.wait().await;
    }
    let _ = tokio::time::timeout(LAST_WORDS, telling).await;
    Ok(())
}

async fn serve_connection<S>(
    (stream, peer): (TcpStream, SocketAddr),
    connection: &Arc<Connection>,
    service: S,
    gateway: &Gateway,
) where
    S: Service<axum::extract::Request, Response = axum::response::Response, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    if let Err(error) = prepare(&stream) {
        tracing::debug!(error = %error, "a connection ended before it began");
        return;
    }
    let patience = Patience::new(gateway.config().stalled_client_limit);
    let stream = Impatient::new(stream, &patience);
    let opened = Arc::clone(connection);
    let service = service.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let expects_continue = request.headers().contains_key(hyper::header::EXPECT);
        request.extensions_mut().insert(Peer(peer.ip()));
        request.extensions_mut().insert(Arc::clone(&opened));
        patience.begin_request();
        request.extensions_mut().insert(patience.clone());
        request.map(|body| axum::body::Body::new(Lingering::new(body, expects_continue, &patience)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(gateway.config().head_limit)
        .max_buf_size(MAX_HEAD_BYTES.max(128 << 10))
        .max_headers(MAX_HEADERS)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = gateway.closing().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection broke");
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Answers are written whole: waiting for more would only make them late.
    stream.set_nodelay(true)?;
    // A client whose machine is gone says nothing, and one that has nothing to say neither.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_AGAIN)?;
    Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVE_TRIES)?)
}
