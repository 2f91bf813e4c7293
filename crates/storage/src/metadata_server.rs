//! Access tokens of the metadata server, over plain HTTP. Outside Google Cloud, anybody on the network may answer in its place,
//! so an answer is read up to a limit. The client crate has no such limit.
//!
//! <https://cloud.google.com/compute/docs/access/authenticate-workloads#applications>

use std::time::Duration;

use google_cloud_auth::credentials::{CacheableResource, Credentials};
use google_cloud_gax::error::CredentialsError;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::http_client::direct_http_client;
use super::object_api::read;
use super::own_tasks::OwnTasks;

/// Host of the server, unless the environment variable sets another one.
const ROOT: &str = "metadata.google.internal";
const VARIABLE: &str = "GCE_METADATA_HOST";
const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// Maximum length of an answer in bytes. A token has 1 to 2 KiB, at most 4.
const MAX_ANSWER: usize = 64 << 10;
/// Minimum remaining lifetime of a token that is not renewed. The server issues a new one in the last 5 minutes of the old one,
/// so this must be shorter.
const RENEW: Duration = Duration::from_secs(225);
/// Minimum remaining lifetime of a token that is used.
const USABLE: Duration = Duration::from_secs(10);
/// Timeout of a renewal while the old token is still usable.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a renewal that failed while the token is still usable.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// Lifetime of a token if the server does not state one.
const UNSAID: Duration = Duration::from_secs(300);

/// The source of a request's credentials.
#[derive(Debug)]
pub(crate) enum Provider {
    /// The client crate, for credentials files.
    Library(OwnTasks<Credentials>),
    /// The metadata server.
    Metadata(MetadataServer),
}

impl Provider {
    /// Returns the headers that a request needs.
    pub(crate) async fn headers(&self) -> Result<HeaderMap, CredentialsError> {
        match self {
            Self::Library(credentials) => match credentials.headers(Default::default()).await? {
                CacheableResource::New { data, .. } => Ok(data),
                CacheableResource::NotModified => Ok(HeaderMap::new()),
            },
            Self::Metadata(server) => server.headers().await,
        }
    }
}

/// Fetches and caches the access token of this machine's service account. Without a usable token, dropping a call of
/// [`MetadataServer::headers`] lets the next call send a request of its own.
#[derive(Debug)]
pub(crate) struct MetadataServer {
    http: reqwest::Client,
    url: String,
    quota_project: Option<String>,
    held: Mutex<Renewal>,
}

#[derive(Debug, Default)]
struct Renewal {
    token: Option<Token>,
    /// No renewal before this time while the token is usable: one is in progress, or has failed.
    renew_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Token {
    /// Marked as sensitive: its `Debug` does not show it.
    authorization: HeaderValue,
    until: Instant,
}

impl Token {
    fn has_left(&self, life: Duration) -> bool {
        self.until.saturating_duration_since(Instant::now()) > life
    }
}

impl MetadataServer {
    /// Creates the client; contacts no server.
    pub(crate) fn from_environment(quota_project: Option<String>) -> Result<Self, reqwest::Error> {
        let host = std::env::var(VARIABLE).ok().filter(|host| !host.is_empty());
        Self::at(host.as_deref().unwrap_or(ROOT), quota_project)
    }

    fn at(host: &str, quota_project: Option<String>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            // Not through a proxy: it cannot reach the metadata server of this machine, or it answers with the token of its own
            // machine.
            http: direct_http_client()?,
            url: format!("http://{}{PATH}", host.trim_end_matches('/')),
            quota_project,
            held: Mutex::default(),
        })
    }

    async fn headers(&self) -> Result<HeaderMap, CredentialsError> {
        let token = self.token().await?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.authorization);
        if let Some(project) = self.quota_project.as_deref().and_then(|project| project.parse().ok()) {
            headers.insert("x-goog-user-project", project);
        }
        Ok(headers)
    }

    async fn token(&self) -> Result<Token, CredentialsError> {
        let mut held = self.held.lock().await;
        let Some(token) = held.token.clone().filter(|token| token.has_left(USABLE)) else {
            // The lock is held during the request: nothing can be sent without a token, so all callers wait for the same answer.
            let fetched = self.fetch().await?;
            *held = Renewal {
                token: Some(fetched.clone()),
                renew_at: None,
            };
            return Ok(fetched);
        };
        let now = Instant::now();
        if token.has_left(RENEW) || held.renew_at.is_some_and(|at| now < at) {
            return Ok(token);
        }
        held.renew_at = Some(now + RENEW_AGAIN);
        // Unlocked during the renewal: only this caller waits for it, the others use the current token.
        drop(held);
        let Ok(Ok(renewed)) = timeout(PATIENCE, self.fetch()).await else {
            return Ok(token);
        };
        *self.held.lock().await = Renewal {
            token: Some(renewed.clone()),
            renew_at: None,
        };
        Ok(renewed)
    }

    async fn fetch(&self) -> Result<Token, CredentialsError> {
        const WHAT: &str = "failed to fetch token";
        // The server refuses requests without this header.
        let call = self.http.get(&self.url).header("metadata-flavor", "Google");
        // Taken before the request, so that the token never seems to live longer than it does.
        let asked = Instant::now();
        let response = call.send().await.map_err(|error| CredentialsError::new(true, WHAT, error))?;
        let status = response.status();
        let read = read(response, MAX_ANSWER).await;
        let (body, is_whole) = read.map_err(|error| CredentialsError::new(true, WHAT, error))?;
        if !status.is_success() {
            let is_transient = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            return Err(CredentialsError::from_msg(
                is_transient,
                format!("{WHAT}: the metadata server answered {}", status.as_u16()),
            ));
        }
        // Not a metadata server: some networks redirect unknown names to a page of their own.
        let stranger = |why: &str| CredentialsError::from_msg(false, format!("{WHAT}: the answer {why}"));
        if !is_whole {
            return Err(stranger("is longer than 64 KiB, so it is not the metadata server's"));
        }
        token_in(&body, asked).ok_or_else(|| stranger("holds no token, so it is not the metadata server's"))
    }
}

fn token_in(body: &[u8], asked: Instant) -> Option<Token> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| json.get(name).and_then(Value::as_str);
    let (kind, token) = (text("token_type").unwrap_or("Bearer"), text("access_token")?);
    let mut authorization = HeaderValue::try_from(format!("{kind} {token}")).ok()?;
    authorization.set_sensitive(true);
    let seconds = json.get("expires_in").and_then(Value::as_u64);
    // At most a day: a huge number would overflow the addition below, which panics.
    let life = seconds.map_or(UNSAID, |seconds| Duration::from_secs(seconds.min(86400)));
    Some(Token {
        authorization,
        until: asked + life,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every connection with this, and with its last 64 KiB again and again if `endless`; returns the bytes that it sent.
    async fn server(answer: String, endless: bool) -> (MetadataServer, Arc<AtomicU64>, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (sent, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, times) = (Arc::clone(&sent), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                times.fetch_add(1, Ordering::Relaxed);
                let mut request = [0; 4096];
                let read = connection.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
                assert!(request.contains("metadata-flavor: google"), "{request}");
                connection.write_all(answer.as_bytes()).await.unwrap();
                while endless && connection.write_all(&[b' '; 65536]).await.is_ok() {
                    count.fetch_add(65536, Ordering::Relaxed);
                }
            }
        });
        (MetadataServer::at(&host, Some("billed".into())).unwrap(), sent, asked)
    }

    fn answer(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn an_answer_that_never_ends_is_not_read_to_its_end() {
        for status in ["200 OK", "503 Busy", "404 Not Found"] {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 1000000000000\r\n\r\n");
            let (server, sent, _) = server(head, true).await;
            server.headers().await.unwrap_err();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let sent = sent.load(Ordering::Relaxed);
            assert!(
                sent < 16 << 20,
                "{status}: {sent} bytes left the server, socket buffers included"
            );
        }
    }

    #[tokio::test]
    async fn a_token_is_asked_for_once_until_it_is_about_to_expire() {
        let body = |life: u64| format!(r#"{{"access_token":"SECRET","expires_in":{life},"token_type":"Bearer"}}"#);
        for (life, times) in [(3599, 1), (200, 3)] {
            let (server, _, asked) = server(answer("200 OK", &body(life)), false).await;
            for _ in 0..3 {
                let headers = server.headers().await.unwrap();
                assert_eq!(headers[AUTHORIZATION], "Bearer SECRET");
                assert_eq!(headers["x-goog-user-project"], "billed");
            }
            assert_eq!(asked.load(Ordering::Relaxed), times, "{life} s");
            assert!(!format!("{server:?}").contains("SECRET"));
        }
    }

    /// Returns a token that is about to expire, and then answers no more requests.
    #[tokio::test]
    async fn a_server_that_falls_silent_holds_up_nobody_who_has_a_good_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let times = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                if times.fetch_add(1, Ordering::Relaxed) == 0 {
                    let mut request = [0; 4096];
                    let _ = connection.read(&mut request).await.unwrap();
                    let body = r#"{"access_token":"SECRET","expires_in":100}"#;
                    connection.write_all(answer("200 OK", body).as_bytes()).await.unwrap();
                } else {
                    silent.push(connection);
                }
            }
        });
        let server = Arc::new(MetadataServer::at(&host, None).unwrap());
        server.headers().await.unwrap();
        let began = Instant::now();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let server = Arc::clone(&server);
            calls.spawn(async move { (server.headers().await.unwrap(), Instant::now()) });
        }
        let mut waited: Vec<Duration> = Vec::new();
        while let Some(call) = calls.join_next().await {
            waited.push(call.unwrap().1 - began);
        }
        waited.sort_unstable();
        assert!(waited[6] < Duration::from_secs(3), "{waited:?}");
        assert!(waited[7] < PATIENCE + Duration::from_secs(3), "{waited:?}");
        // Another request does not ask it again at once.
        let began = Instant::now();
        server.headers().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_server_that_is_down_is_an_outage_and_a_strangers_page_is_not() {
        for (status, body, is_transient) in [
            ("503 Busy", "", true),
            ("404 Not Found", "", false),
            ("302 Found", "", false),
            ("200 OK", "<html>log in</html>", false),
            ("200 OK", "{\"access_token\":\"a\\nb\"}", false),
        ] {
            let (server, ..) = server(answer(status, body), false).await;
            let error = server.headers().await.unwrap_err();
            assert_eq!(error.is_transient(), is_transient, "{status} {body}: {error}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let error = MetadataServer::at(&nobody, None).unwrap().headers().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
}
