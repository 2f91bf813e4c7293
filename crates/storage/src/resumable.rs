//! Uploads an object in a resumable session: after a break, the server keeps the bytes that it has received.
//!
//! The client crate can do this too, but it reads an answer of any length to its end, and sends the access token to
//! whatever session address the server names.
//!
//! <https://cloud.google.com/storage/docs/performing-resumable-uploads>

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{RequestBuilder, Url};

use super::body_source::{Source, SourceError};
use super::client_pool::Client;
use super::endpoint::is_google_host;
use super::error::{Class, Situation, Target, WriteError};
use super::object_api::Description;
use super::single_shot::{resource, streamed};
use super::watchdog::Progress;
use super::{ObjectRequest, Pacer};

/// Wait before a broken session is resumed.
const RESUME_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of sends in a row after which the server has no more bytes than ever before. Ends an attempt at a server that
/// keeps answering 308 without storing anything.
const MAX_READS: u32 = 2;
/// Maximum number of bytes sent in one attempt, as a multiple of the object's size. Ends an attempt at a server that has one byte
/// more each time. Well above 1, because each break of a bad link loses the bytes in the socket buffers, often more than arrived.
const MAX_SENT: u64 = 8;

/// What the server has of a session.
enum ServerState {
    /// The finished object.
    Object(Description),
    /// This many bytes, from the beginning.
    Bytes(u64),
}

/// A session in use.
pub(crate) struct Session<'a> {
    client: &'a Client,
    request: &'a ObjectRequest,
    target: Target<'a>,
    url: Url,
}

impl Client {
    /// Begins a session for an object that must not exist yet.
    pub(crate) async fn begin<'a>(&'a self, request: &'a ObjectRequest, target: Target<'a>) -> Result<Session<'a>, WriteError> {
        let situation = self.situation(false);
        let url = self.upload_url("resumable", request);
        let call = self.http.post(url).header(CONTENT_TYPE, "application/json; charset=UTF-8");
        let call = self.authorized(call, target, situation).await?;
        let call = call.body(resource(request).to_string());
        let response = call.send().await.map_err(|error| target.broken(&error))?;
        if !response.status().is_success() {
            return Err(match self.answer(response, target, situation).await {
                Ok(_) => target.fail(Class::Transient, NO_SESSION),
                Err(error) => error,
            });
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or_else(|| target.fail(Class::Transient, NO_SESSION))?;
        let Some(url) = self.session_url(location) else {
            return Err(target.fail(Class::Transient, ELSEWHERE));
        };
        Ok(Session {
            client: self,
            request,
            target,
            url,
        })
    }

    pub(crate) fn situation(&self, in_session: bool) -> Situation {
        Situation {
            in_session,
            metadata_server: self.metadata_server,
        }
    }

    /// Returns the address for the requests of a session; `None` if `location` is at another server, which must not get
    /// credentials.
    fn session_url(&self, location: &str) -> Option<Url> {
        let own = Url::parse(&self.origin).ok()?;
        let url = own.join(location).ok()?;
        if url.origin() == own.origin() {
            return Some(url);
        }
        let at_endpoint = || {
            let mut at_endpoint = own.clone();
            at_endpoint.set_path(url.path());
            at_endpoint.set_query(url.query());
            at_endpoint
        };
        // A gateway may return the address of the server behind it. `upload_id` distinguishes that from the address of a login
        // page.
        if self.is_gateway && url.query_pairs().any(|(name, _)| name == "upload_id") {
            return Some(at_endpoint());
        }
        let is_https = url.scheme() == "https" && url.port().is_none() && own.scheme() == "https";
        let host = url.host_str().filter(|_| is_https)?;
        if self.host.as_deref() == Some(host) {
            // The endpoint is a private one for this host, whose public address may not be reachable from here.
            return Some(at_endpoint());
        }
        (is_google_host(host) && self.host.is_none() && !self.is_gateway).then_some(url)
    }
}

const NO_SESSION: &str = "the answer names no session; a login page or a proxy stands between";
const ELSEWHERE: &str =
    "the answer names a session at another server, which gets neither the object nor credentials; a proxy stands between";

impl Session<'_> {
    /// Sends the object. If the connection breaks after bytes have left, resumes where the server's bytes end. Stops when the
    /// server has no more bytes than ever before ([`MAX_READS`]), or when [`MAX_SENT`] is reached.
    pub(crate) async fn store(&self, pacer: &Arc<dyn Pacer>, progress: &Arc<Progress>) -> Result<Description, WriteError> {
        let (mut offset, mut furthest, mut reads, mut is_first) = (0, 0, 0, true);
        // At least 1: an empty object is sent as well.
        let max_sent = self.request.size.max(1).saturating_mul(MAX_SENT);
        while reads < MAX_READS && progress.sent() < max_sent {
            reads += 1;
            match self.send(offset, pacer, progress).await {
                Ok(ServerState::Object(object)) => return Ok(object),
                Ok(ServerState::Bytes(_)) => {}
                // If nothing has left, the server has nothing to continue from.
                Err(error) if reads < MAX_READS && is_broken(&error) && progress.sent() > 0 => {
                    tokio::time::sleep(RESUME_AFTER).await;
                }
                Err(error) if is_first => return Err(error),
                Err(error) => return Err(later(error)),
            }
            is_first = false;
            match self.held().await.map_err(later)? {
                ServerState::Object(object) => return Ok(object),
                ServerState::Bytes(held) => {
                    // Compared with the maximum, not with the last answer: a server whose offset goes back and forth would never
                    // end the loop.
                    if held > furthest {
                        (furthest, reads) = (held, 0);
                    }
                    offset = held;
                }
            }
        }
        Err(later(self.target.of_source(&SourceError::KeepsNothing)))
    }

    /// Sends the bytes from `offset` to the end.
    async fn send(&self, offset: u64, pacer: &Arc<dyn Pacer>, progress: &Arc<Progress>) -> Result<ServerState, WriteError> {
        let size = self.request.size;
        let source = Source::from(&self.request.body, offset, Arc::clone(pacer), Arc::clone(progress));
        let source = source.map_err(|error| self.target.of_source(&error))?;
        let range = match size.checked_sub(1) {
            Some(last) if offset < size => format!("bytes {offset}-{last}/{size}"),
            // The server has all bytes, but has not finished the object.
            _ => format!("bytes */{size}"),
        };
        let call = self.put().await?.header(CONTENT_RANGE, range);
        self.answer(call.body(streamed(source))).await
    }

    /// Asks the server how many bytes it has.
    async fn held(&self) -> Result<ServerState, WriteError> {
        let call = self.put().await?.header(CONTENT_RANGE, "bytes */*");
        self.answer(call.header(CONTENT_LENGTH, 0)).await
    }

    async fn put(&self) -> Result<RequestBuilder, WriteError> {
        let call = self.client.http.put(self.url.clone());
        let call = call.header(CONTENT_TYPE, "application/octet-stream");
        self.client.authorized(call, self.target, self.client.situation(true)).await
    }

    async fn answer(&self, call: RequestBuilder) -> Result<ServerState, WriteError> {
        let response = call.send().await.map_err(|error| self.target.http_error(&error))?;
        // 308 is "Resume Incomplete" here; its body has no meaning and is not read.
        if response.status().as_u16() == 308 {
            return Ok(ServerState::Bytes(held_bytes(response.headers())));
        }
        let situation = self.client.situation(true);
        let answer = self.client.answer(response, self.target, situation).await?;
        let object = Description::parse(&answer).map_err(|why| self.target.unreadable(&why))?;
        Ok(ServerState::Object(object))
    }
}

/// Returns how many bytes the server has, from the `Range` of a 308 answer; 0 if that is absent or unreadable.
fn held_bytes(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.trim().strip_prefix("bytes=0-")?.parse::<u64>().ok());
    last.map_or(0, |last| last.saturating_add(1))
}

/// Marks an error that follows a send without an answer: it does not tell whether that send stored the object.
fn later(error: WriteError) -> WriteError {
    WriteError {
        may_be_stored: true,
        ..error
    }
}

/// Returns whether the session can be resumed after this error. Answers that ask to wait (429) are left to the scheduler.
fn is_broken(error: &WriteError) -> bool {
    error.class == Class::Transient
        && match error.http_status {
            // Includes a reset connection and an unreadable answer.
            None => true,
            Some(status) => matches!(status, 408 | 500 | 502..=504),
        }
}

#[cfg(test)]
mod tests {
    use super::super::Endpoint;
    use super::super::http_client::http_client;
    use super::super::metadata_server::Provider;
    use super::super::own_tasks::OwnTasks;
    use super::super::token_wait::TokenWait;
    use super::*;
    use google_cloud_auth::credentials::anonymous;
    use reqwest::header::HeaderValue;

    /// Returns where the requests of a session at this address go.
    fn session_at(endpoint: Option<&str>, location: &str) -> Option<String> {
        let endpoint = endpoint.map_or_else(Endpoint::google, |uri| Endpoint::resolve(Some(uri), None).unwrap());
        let (origin, host) = endpoint.origin_and_host(None);
        let client = Client {
            serial: 0,
            http: http_client().unwrap(),
            provider: Provider::Library(OwnTasks::none(anonymous::Builder::new().build())),
            token_wait: TokenWait::default(),
            origin,
            host,
            is_gateway: endpoint.is_gateway(),
            metadata_server: false,
        };
        client.session_url(location).map(String::from)
    }

    #[tokio::test]
    async fn a_session_is_continued_where_the_user_has_sent_the_request_and_nowhere_else() {
        const PATH: &str = "/upload/storage/v1/b/b/o?uploadType=resumable&upload_id=X";
        let at = |origin: &str| format!("{origin}{PATH}");
        let google = at("https://storage.googleapis.com");
        for (endpoint, location, want) in [
            (None, google.clone(), Some(google.clone())),
            (None, PATH.to_owned(), Some(google.clone())),
            (None, at("https://elsewhere.example"), None),
            // Behind a gateway Google itself may not be reachable, nor a host that only the gateway knows.
            (
                Some("https://gateway.example"),
                google.clone(),
                Some(at("https://gateway.example")),
            ),
            (
                Some("https://gateway.example"),
                at("http://inner:8080"),
                Some(at("https://gateway.example")),
            ),
            (
                Some("https://gateway.example:8443"),
                google.clone(),
                Some(at("https://gateway.example:8443")),
            ),
            (
                Some("https://gateway.example"),
                "https://login.example/sso?next=x".to_owned(),
                None,
            ),
            (
                Some("https://private.googleapis.com"),
                google.clone(),
                Some(at("https://private.googleapis.com")),
            ),
            (Some("https://private.googleapis.com"), at("https://elsewhere.example"), None),
            (
                Some("https://storage.europe-west3.rep.googleapis.com"),
                google.clone(),
                Some(google),
            ),
            (Some("http://gateway.example"), at("https://storage.googleapis.com"), None),
        ] {
            assert_eq!(session_at(endpoint, &location), want, "{endpoint:?} {location}");
        }
    }

    #[test]
    fn a_308_without_a_readable_range_means_that_nothing_was_kept() {
        let held = |range: Option<&'static str>| {
            let range = range.map(|range| (RANGE, HeaderValue::from_static(range)));
            held_bytes(&range.into_iter().collect())
        };
        assert_eq!(held(None), 0);
        assert_eq!(held(Some("bytes=0-524287")), 524_288);
        for wrong in ["bytes=5-9", "0-9", "bytes=0--1", "bytes=0-99999999999999999999"] {
            assert_eq!(held(Some(wrong)), 0, "{wrong}");
        }
        assert_eq!(
            held(Some("bytes=0-18446744073709551615")),
            u64::MAX,
            "refused later as beyond the end"
        );
    }
}
