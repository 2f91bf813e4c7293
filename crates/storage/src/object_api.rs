//! Describes and deletes an object over the JSON API. The client crate does both over gRPC only, which emulators and many proxies
//! do not support; reading an object through it downloads a byte and fails on empty objects.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/objects>

use std::time::SystemTime;

use gcstreamer_schema::crc32c;
use jiff::Timestamp;
use reqwest::header::{CONTENT_ENCODING, HOST, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use super::Stored;
use super::client_pool::Client;
use super::error::{Class, Situation, Target, WriteError};
use super::error_text::{Reason, error_text, reason_of};
use super::token_wait::NoAnswer;

/// Maximum length of an answer in bytes. Those of Cloud Storage have a few KiB; one that never ends must not fill the memory.
const MAX_ANSWER: usize = 64 << 10;
/// Error text for a longer answer.
const TOO_LONG: &str = "the answer is longer than 64 KiB, so it is not Cloud Storage's; a login page or a proxy stands between";

/// Error text for an answer with a `Content-Encoding`. Requests do not ask for one.
const CODED: &str = "the answer is compressed, which was not asked for; a proxy stands between";

impl Client {
    pub(crate) async fn stat(&self, target: Target<'_>) -> Result<Stored, WriteError> {
        let body = self
            .call(
                Method::GET,
                target,
                &[("fields", "name,bucket,generation,size,crc32c,timeCreated")],
            )
            .await?;
        let what = "the answer describes no object; a login page or a proxy stands between";
        stored(&body, target).ok_or_else(|| target.fail(Class::Transient, what))
    }

    pub(crate) async fn delete(&self, target: Target<'_>, generation: i64) -> Result<(), WriteError> {
        match self
            .call(Method::DELETE, target, &[("generation", &generation.to_string())])
            .await
        {
            // Already deleted, for example by an attempt whose answer was lost.
            Err(error) if error.http_status == Some(404) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn call(&self, method: Method, target: Target<'_>, query: &[(&str, &str)]) -> Result<Vec<u8>, WriteError> {
        let situation = self.situation(false);
        let parameters: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let url = format!(
            "{}/storage/v1/b/{}/o/{}?{}",
            self.origin,
            encoded(target.bucket),
            encoded(target.name),
            parameters.join("&")
        );
        let request = self.authorized(self.http.request(method, url), target, situation).await?;
        let response = request.send().await.map_err(|error| target.broken(&error))?;
        self.answer(response, target, situation).await
    }

    /// Adds the `Host` that the endpoint requires, and the credentials.
    pub(crate) async fn authorized(
        &self,
        mut request: RequestBuilder,
        target: Target<'_>,
        situation: Situation,
    ) -> Result<RequestBuilder, WriteError> {
        if let Some(host) = &self.host {
            request = request.header(HOST, host);
        }
        match self.token_wait.answer(self.provider.headers()).await {
            Ok(Ok(headers)) => Ok(request.headers(headers)),
            Ok(Err(error)) => Err(target.no_token(&error, situation)),
            Err(NoAnswer) => Err(target.no_token_in_time(situation)),
        }
    }

    /// Reads the answer of a server, at most [`MAX_ANSWER`] bytes.
    pub(crate) async fn answer(
        &self,
        response: Response,
        target: Target<'_>,
        situation: Situation,
    ) -> Result<Vec<u8>, WriteError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let (body, is_whole) = match read(response, MAX_ANSWER).await {
            Ok(read) => read,
            // The server may have stored the object before the connection broke.
            Err(error) if status.is_success() => return Err(target.unreadable(&error_text(&error))),
            Err(error) => return Err(target.broken(&error)),
        };
        let unread = match (is_whole, is_coded(&headers)) {
            (false, _) => Some(TOO_LONG),
            (true, true) => Some(CODED),
            (true, false) => None,
        };
        match (status.is_success(), unread) {
            (true, None) => Ok(body),
            (true, Some(why)) => Err(target.unreadable(why)),
            // The class of a 412 depends on its reason, which may be in the part that was not read.
            (false, Some(why)) if status.as_u16() == 412 => Err(target.unreadable(why)),
            (false, Some(why)) => Err(target.refused(status.as_u16(), &headers, &Reason::of_text(why), situation)),
            (false, None) => Err(target.refused(status.as_u16(), &headers, &reason_of(&body), situation)),
        }
    }
}

fn is_coded(headers: &HeaderMap) -> bool {
    let identity = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !identity(coding))
}

/// Returns the body up to `limit` bytes, and whether it is complete. If not, the connection is closed.
pub(crate) async fn read(mut response: Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if piece.len() > limit - body.len() {
            return Ok((body, false));
        }
        body.extend_from_slice(&piece);
    }
    Ok((body, true))
}

/// An object as the JSON API describes it. Names that the server omits are empty.
#[derive(Debug, Default)]
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) bucket: String,
    pub(crate) generation: Option<i64>,
    pub(crate) size: Option<u64>,
    pub(crate) crc32c: Option<u32>,
    pub(crate) created: Option<SystemTime>,
}

impl Description {
    /// Parses the JSON; its 64-bit numbers are strings.
    ///
    /// # Errors
    /// Describes why the body is not JSON, or not an object.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if !json.is_object() {
            return Err("it describes no object".to_owned());
        }
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let number = |name: &str| match json.get(name)? {
            Value::String(text) => text.parse::<i64>().ok(),
            number => number.as_i64(),
        };
        let created = text("timeCreated").and_then(|text| text.parse::<Timestamp>().ok());
        Ok(Self {
            name: text("name").unwrap_or_default().to_owned(),
            bucket: text("bucket").unwrap_or_default().to_owned(),
            generation: number("generation"),
            size: number("size").and_then(|size| u64::try_from(size).ok()),
            crc32c: text("crc32c").and_then(crc32c::from_base64),
            created: created.map(Into::into),
        })
    }
}

/// Returns the object that the JSON describes; `None` if it names another one than was requested.
fn stored(body: &[u8], target: Target<'_>) -> Option<Stored> {
    let stated = Description::parse(body).ok()?;
    let is_other = |stated: &str, wanted| !stated.is_empty() && stated != wanted;
    if is_other(&stated.name, target.name) || is_other(&stated.bucket, target.bucket) {
        return None;
    }
    Some(Stored {
        generation: stated.generation?,
        size: stated.size?,
        crc32c: stated.crc32c,
        created: stated.created,
    })
}

/// Percent-encodes everything except the unreserved characters of RFC 3986 section 2.3; the slash is encoded too.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::error::Action;
    use super::*;

    #[test]
    fn names_are_one_path_segment_whatever_they_hold() {
        assert_eq!(encoded("a/b c#d%é?.flv"), "a%2Fb%20c%23d%25%C3%A9%3F.flv");
    }

    #[test]
    fn an_object_is_read_from_its_json() {
        let json =
            br#"{"generation":"1700000000000001","size":"12","crc32c":"SZYC0g==","timeCreated":"1994-11-06T08:49:37.000Z"}"#;
        let target = Target {
            action: Action::GetMetadata,
            bucket: "b",
            name: "n",
        };
        let stored = |body: &[u8]| stored(body, target);
        let object = stored(json).unwrap();
        assert_eq!(
            (object.generation, object.size, object.crc32c),
            (1_700_000_000_000_001, 12, Some(1_234_567_890))
        );
        assert!(object.created.is_some());
        assert_eq!(stored(b"<html>"), None);
        assert_eq!(stored(b"{}"), None);
        let named = |name: &str, bucket: &str| format!(r#"{{"generation":"1","size":"12","name":"{name}","bucket":"{bucket}"}}"#);
        assert!(stored(named("n", "b").as_bytes()).is_some_and(|object| object.crc32c.is_none()));
        assert_eq!(
            stored(named("other", "b").as_bytes()),
            None,
            "a cache's answer to another question"
        );
        assert_eq!(stored(named("n", "other").as_bytes()), None);
    }
}
