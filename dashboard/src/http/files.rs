//! The page's files, and the login.

use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::StringRejection;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, SET_COOKIE, VARY};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Shared;
use super::error::ApiError;
use crate::page;
use crate::settings::Auth;

/// Answers with a file of the page, in the best encoding that the browser accepts.
pub(super) async fn file(method: Method, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here", ""));
    }
    let file = page::find(uri.path()).ok_or_else(|| ApiError::not_found("there is no such page"))?;
    let has = |name, value: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.contains(value))
    };
    // Names stay the same when the content changes, so the browser must revalidate each time; it mostly gets a 304.
    let common = [(CACHE_CONTROL, "no-cache"), (ETAG, file.etag), (VARY, "Accept-Encoding")];
    // RFC 9110 section 13.1.2: the header may be a list, and `W/` in front of a tag does not count.
    if has(IF_NONE_MATCH, file.etag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let (encoding, bytes) = match () {
        () if takes(&headers, "br") => (Some("br"), file.brotli),
        () if takes(&headers, "gzip") => (Some("gzip"), file.gzip),
        () => (None, file.plain),
    };
    let mut response = (common, [(CONTENT_TYPE, file.content_type)], Body::from(bytes)).into_response();
    if let Some(encoding) = encoding {
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, axum::http::HeaderValue::from_static(encoding));
    }
    Ok(response)
}

/// Returns whether `Accept-Encoding` names a coding, without `q=0` (RFC 9110 section 12.5.3).
fn takes(headers: &HeaderMap, coding: &str) -> bool {
    let values = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|entry| {
        let mut words = entry.split(';').map(str::trim);
        let is_named = words.next().is_some_and(|word| word.eq_ignore_ascii_case(coding));
        let weight = words.find_map(|word| word.strip_prefix("q=").or_else(|| word.strip_prefix("Q=")));
        is_named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

#[derive(Deserialize)]
struct LogIn {
    token: String,
}

/// `POST /login`: checks the token and sets the cookie.
pub(super) async fn log_in(State(shared): State<Shared>, body: Result<String, StringRejection>) -> Result<Response, ApiError> {
    // A body that is too long or not text is treated as one without a token.
    let body = body.unwrap_or_default();
    // The page sends JSON; `curl -d token=…` sends a form.
    let form = || {
        body.strip_prefix("token=").map(|token| LogIn {
            token: decoded(token.trim_end()),
        })
    };
    let sent: Option<LogIn> = serde_json::from_str(&body).ok().or_else(form);
    let sent = sent.ok_or_else(|| ApiError::bad_request("no token was sent", "send {\"token\": \"…\"}"))?;
    if !matches!(shared.app.auth, Auth::Token(_)) {
        return Err(ApiError::not_found("this dashboard asks for no token"));
    }
    match shared.app.auth.log_in(&sent.token, !shared.app.is_loopback) {
        Some(cookie) => Ok((
            StatusCode::NO_CONTENT,
            [(SET_COOKIE, cookie), (CACHE_CONTROL, "no-store".into())],
        )
            .into_response()),
        None => {
            tracing::warn!("a login with a wrong token");
            Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "this is not the token",
                "it is the content of the file of --auth token:FILE",
            )
            .takes_token())
        }
    }
}

/// Decodes a value of a form (`application/x-www-form-urlencoded`).
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (first, after.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_that_is_refused_or_only_looks_like_one_is_not_used() {
        let takes = |value: &str, coding| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            takes(&headers, coding)
        };
        for value in ["br", "gzip, deflate, br", "gzip;q=1.0, BR; q=0.5"] {
            assert!(takes(value, "br"), "{value}");
        }
        for value in ["gzip", "br;q=0", "br; q=0.000, gzip", "xbr", "", "br;q=x"] {
            assert!(!takes(value, "br"), "{value}");
        }
    }
}
