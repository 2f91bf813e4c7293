//! Looking at and deleting an object over the JSON API. The client crate can do both over gRPC only, which emulators and
//! many proxies do not carry; its way of reading an object downloads a byte of it and fails on empty ones.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/objects>

use google_cloud_auth::credentials::CacheableResource;
use jiff::Timestamp;
use reqwest::header::HOST;
use reqwest::{Method, Response};
use serde_json::Value;

use super::Stored;
use super::causes::reason_of;
use super::client_pool::Client;
use super::error::{Class, Situation, Target, WriteError};

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

impl Client {
    pub(crate) async fn stat(&self, target: Target<'_>) -> Result<Stored, WriteError> {
        let body = self
            .call(Method::GET, target, &[("fields", "generation,size,crc32c,timeCreated")])
            .await?;
        let what = "the answer describes no object; a login page or a proxy stands between";
        stored(&body).ok_or_else(|| target.fail(Class::Transient, what))
    }

    pub(crate) async fn delete(&self, target: Target<'_>, generation: i64) -> Result<(), WriteError> {
        match self
            .call(Method::DELETE, target, &[("generation", &generation.to_string())])
            .await
        {
            Err(error) if error.http_status == Some(404) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn call(&self, method: Method, target: Target<'_>, query: &[(&str, &str)]) -> Result<Vec<u8>, WriteError> {
        let situation = Situation {
            in_session: false,
            metadata_server: self.metadata_server,
        };
        let parameters: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let url = format!(
            "{}/storage/v1/b/{}/o/{}?{}",
            self.origin,
            encoded(target.bucket),
            encoded(target.name),
            parameters.join("&")
        );
        let mut request = self.http.request(method, url);
        if let Some(host) = &self.host {
            request = request.header(HOST, host);
        }
        match self.provider.headers(Default::default()).await {
            Ok(CacheableResource::New { data, .. }) => request = request.headers(data),
            Ok(CacheableResource::NotModified) => {}
            Err(error) => return Err(target.no_token(&error, situation)),
        }
        let response = request.send().await.map_err(|error| target.broken(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read(response).await.map_err(|error| target.broken(&error))?;
        if status.is_success() {
            return Ok(body);
        }
        Err(target.refused(status.as_u16(), &headers, &reason_of(&body), situation))
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        let room = MAX_ANSWER.saturating_sub(body.len());
        body.extend(piece.into_iter().take(room));
        if body.len() >= MAX_ANSWER {
            break;
        }
    }
    Ok(body)
}

/// The object that the JSON describes. Numbers of 64 bits are strings there.
fn stored(body: &[u8]) -> Option<Stored> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let text = |name| json.get(name).and_then(Value::as_str);
    let created = text("timeCreated").and_then(|text| text.parse::<Timestamp>().ok());
    Some(Stored {
        generation: text("generation")?.parse().ok()?,
        size: text("size")?.parse().ok()?,
        crc32c: text("crc32c").and_then(decoded_crc),
        created: created.map(Into::into),
    })
}

/// Four big-endian bytes in base64: eight characters, of which the last two are padding.
fn decoded_crc(text: &str) -> Option<u32> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.strip_suffix("==").filter(|digits| digits.len() == 6)?;
    let bits = digits.bytes().try_fold(0u64, |bits, digit| {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        Some((bits << 6) | u64::try_from(value).ok()?)
    })?;
    u32::try_from(bits >> 4).ok()
}

/// Percent-encoding, RFC 3986 section 2.3: all but the unreserved characters, the slash too.
fn encoded(text: &str) -> String {
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
    use super::*;

    #[test]
    fn names_are_one_path_segment_whatever_they_hold() {
        assert_eq!(encoded("a/b c#d%é?.flv"), "a%2Fb%20c%23d%25%C3%A9%3F.flv");
    }

    #[test]
    fn an_object_is_read_from_its_json() {
        let json =
            br#"{"generation":"1700000000000001","size":"12","crc32c":"SZYC0g==","timeCreated":"1994-11-06T08:49:37.000Z"}"#;
        let object = stored(json).unwrap();
        assert_eq!(
            (object.generation, object.size, object.crc32c),
            (1_700_000_000_000_001, 12, Some(1_234_567_890))
        );
        assert!(object.created.is_some());
        assert_eq!(stored(b"<html>"), None);
        assert_eq!(stored(b"{}"), None);
        assert_eq!(decoded_crc("/ieOcg=="), Some(0xfe27_8e72));
        assert_eq!(decoded_crc("AAAA"), None);
        assert_eq!(decoded_crc("!!!!!!=="), None);
    }
}
