//! The connections of the server.
//!
//! A client that does not send the whole header of a request in time is disconnected. `axum::serve` would wait for ever, so
//! clients that have not even logged in could use up all file descriptors of the process.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long the header of a request may take. It counts from the answer before it, so it also limits how long a connection may be
/// idle.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The same behind Google's load balancers. They reuse connections that were idle for up to 600 s, and answer 502 if the server
/// has closed one.
/// <https://cloud.google.com/load-balancing/docs/https/request-distribution#http-keepalive>
pub(super) const BEHIND_BALANCER: Duration = Duration::from_secs(620);

/// Serves connections until `ends` is true, then waits until all open ones have ended.
pub(super) async fn accept(mut listener: TcpListener, router: Router, patience: Duration, mut ends: watch::Receiver<bool>) {
    let (all, open) = watch::channel(());
    loop {
        let stream = tokio::select! {
            // axum's `Listener` handles errors: it ignores those of a single connection, and waits a second after others, such as
            // too many open files.
            (stream, _) = Listener::accept(&mut listener) => stream,
            _ = ends.wait_for(|ends| *ends) => break,
        };
        let (open, router, ends) = (open.clone(), router.clone(), ends.clone());
        tokio::spawn(async move {
            serve(stream, router, patience, ends).await;
            drop(open);
        });
    }
    // The receiver of this function, too: `closed` waits until all of them are dropped.
    drop((listener, open));
    all.closed().await;
}

/// Serves one connection until it ends. Once `ends` is true, finishes the current answer and closes it.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    patience: Duration,
    mut ends: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // Errors are ignored, since the client causes them: it has disconnected, was silent for too long, or does not speak HTTP.
    let is_ending = tokio::select! {
        _ = connection.as_mut() => false,
        _ = ends.wait_for(|ends| *ends) => true,
    };
    if is_ending {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_a_request_is_held_for_half_a_minute_and_a_slow_answer_for_as_long_as_it_takes() {
        let slow = get(async || {
            tokio::time::sleep(PATIENCE * 4).await;
            "slow"
        });
        let (_end, ends) = watch::channel(false);
        let (mut client, stream) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(serve(stream, Router::new().route("/", slow), PATIENCE, ends));
        let began = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let count = client.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK"));
        assert!(began.elapsed() >= PATIENCE * 4);
        // The next request arrives byte by byte and never ends.
        let began = Instant::now();
        let (mut half, mut rest) = (tokio::io::split(client), Vec::new());
        let drip = async {
            while half.1.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE * 2, async {
            tokio::select! {
                _ = half.0.read_to_end(&mut rest) => {}
                () = drip => {}
            }
        });
        ended.await.expect("it is hung up on");
        assert!(began.elapsed() >= PATIENCE && began.elapsed() <= PATIENCE + Duration::from_secs(2));
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_with_the_server_and_an_answer_is_sent_to_its_end() {
        let slow = get(async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            "slow"
        });
        let (end, ends) = watch::channel(false);
        let router = Router::new().route("/", slow);
        let (idle, stream) = tokio::io::duplex(1 << 16);
        let idling = tokio::spawn(serve(stream, router.clone(), BEHIND_BALANCER, ends.clone()));
        let (mut client, stream) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(serve(stream, router, BEHIND_BALANCER, ends));
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        end.send(true).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("slow"), "{answer}");
        idling.await.unwrap();
        serving.await.unwrap();
        drop(idle);
    }
}
