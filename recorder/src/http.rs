//! The recorder's HTTP server: `/healthz`, `/readyz`, `/status`, `/metrics`. All are read-only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::camera::report::Board;
use crate::health::Health;
use crate::metrics::{self, Whole};
use crate::status;

/// The connection of a client is closed if it sends no complete request within this time.
const REQUEST: Duration = Duration::from_secs(10);
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The data that is served.
pub struct Sources {
    /// Reports of the cameras.
    pub board: Arc<Board>,
    /// Whether the recorder works.
    pub health: Arc<Health>,
    /// Returns the figures of the whole recorder.
    pub whole: Box<dyn Fn() -> Whole + Send + Sync>,
    /// Version of GStreamer.
    pub gstreamer: String,
}

/// Serves connections. Never returns: abort the task to stop it.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&sources)))),
            // Probably too many open files. `accept` would fail again at once: pause until some are closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: TcpStream, sources: Arc<Sources>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &sources)) }
    });
    // Errors of a connection are faults of the client.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(method: &Method, path: &str, sources: &Sources) -> Response<Full<Bytes>> {
    let answer = |is_so: bool, words: [&str; 2]| match is_so {
        true => (StatusCode::OK, TEXT, format!("{}\n", words[0])),
        false => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", words[1])),
    };
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let (code, kind, body) = match path {
        _ if !is_read => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
        "/healthz" => answer(sources.health.is_healthy(), ["ok", "the recorder hangs"]),
        "/readyz" => answer(sources.health.is_ready(), ["ready", "not every camera has been tried yet"]),
        "/status" => (StatusCode::OK, JSON, status::json(&sources.board.all())),
        "/metrics" => {
            let body = metrics::openmetrics(&sources.board.all(), (sources.whole)(), &sources.gstreamer);
            (StatusCode::OK, OPENMETRICS, body)
        }
        _ => {
            let all = "/healthz /readyz /status /metrics\n";
            (StatusCode::NOT_FOUND, TEXT, all.to_owned())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !is_read {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Requests `/healthz` of a recorder on this machine. Blocks.
///
/// # Errors
/// There is no answer, or its status is not 200. The text says why.
pub fn check(listen: SocketAddr) -> Result<(), String> {
    use std::io::{Read, Write};
    // The unspecified address (0.0.0.0, ::) is only for listening: connect to the loopback address.
    let mut address = listen;
    if address.ip().is_unspecified() {
        let any = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
        address.set_ip(any.parse().map_err(|_| "no loopback address".to_owned())?);
    }
    let failed = |error: std::io::Error| format!("no answer from http://{address}/healthz: {error}");
    let mut stream = std::net::TcpStream::connect_timeout(&address, REQUEST).map_err(failed)?;
    stream.set_read_timeout(Some(REQUEST)).map_err(failed)?;
    stream
        // HTTP/1.0: the server closes the connection after its answer, which ends the reading below.
        .write_all(format!("GET /healthz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .map_err(failed)?;
    let mut answer = Vec::new();
    // Bounded: another program may listen on this port.
    stream.take(4096).read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!(
            "http://{address}/healthz says: {}",
            answer.lines().last().unwrap_or("nothing")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::report::Report;
    use crate::camera::state::State;

    fn sources() -> Sources {
        let board = Arc::new(Board::default());
        board.put(Report::new("cam1", None, "fmp4", State::Connecting, "waiting"));
        Sources {
            board,
            health: Arc::default(),
            whole: Box::new(Whole::default),
            gstreamer: "1.22".to_owned(),
        }
    }

    #[test]
    fn each_path_has_its_answer_and_nothing_can_be_written() {
        let sources = sources();
        let get = |path: &str| answer(&Method::GET, path, &sources);
        for (path, code, kind) in [
            ("/healthz", 200, TEXT),
            ("/readyz", 503, TEXT),
            ("/status", 200, JSON),
            ("/metrics", 200, OPENMETRICS),
            ("/", 404, TEXT),
        ] {
            let response = get(path);
            assert_eq!(
                (response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap()),
                (code, kind),
                "{path}"
            );
        }
        let response = answer(&Method::POST, "/status", &sources);
        assert_eq!(
            (response.status().as_u16(), response.headers()[ALLOW].to_str().unwrap()),
            (405, "GET, HEAD")
        );
    }

    #[tokio::test]
    async fn healthcheck_asks_the_server_and_says_why_it_failed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, Arc::new(sources())));
        let check_it = move |address| tokio::task::spawn_blocking(move || check(address));
        assert_eq!(check_it(address).await.unwrap(), Ok(()));
        let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!(check_it(any).await.unwrap(), Ok(()));
        task.abort();
        let _ = task.await;
        assert!(check_it(address).await.unwrap().unwrap_err().contains("no answer"));
    }
}
