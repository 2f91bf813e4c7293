//! Serves the bytes of chunks. An object that is not a chunk by name and metadata is never served.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use gcstreamer_schema::Container;
use gcstreamer_schema::time::rfc3339_ms;
use serde::Deserialize;

use super::Shared;
use super::api::At;
use super::ask::{Object, Question};
use super::error::ApiError;
use super::hls::nothing;
use super::range::{Wanted, range_of, wanted};
use crate::hls::playlist::{Playing, encoded, playing};
use crate::hls::remux::Picture;
use crate::index::{Chunk, HOUR};

/// Addresses name a generation of an object, whose bytes never change.
// `private`: shared caches on the way must not store recordings.
const IMMUTABLE: &str = "private, max-age=31536000, immutable";

async fn chunk_of(shared: &Shared, generation: i64, name: &str) -> Result<Chunk, ApiError> {
    let found = shared.app.index.find(name, generation).await?;
    found
        .map(|(_, chunk)| chunk)
        .ok_or_else(|| ApiError::not_found("there is no such recording"))
}

/// Header with the time at which a picture was taken.
const PICTURE_TIME: HeaderName = HeaderName::from_static("picture-time");

/// Validity of a signed address.
const SIGNED_FOR: Duration = Duration::from_secs(600);
/// How long a browser may reuse a redirect: well below [`SIGNED_FOR`], since loading a segment may take long.
const REDIRECT_FOR: &str = "private, max-age=240";

/// `?delivery=proxy`
#[derive(Debug, Deserialize)]
pub(super) struct By {
    delivery: Option<String>,
}

impl By {
    /// Returns whether the bytes must go through the dashboard, because the page could not load them from the bucket.
    pub(super) fn is_proxy(&self) -> bool {
        self.delivery.as_deref() == Some("proxy")
    }
}

/// Redirects the player to the bucket. `None`: there is no signer, or signing failed; the bytes go through the dashboard then.
async fn redirect(shared: &Shared, chunk: &Chunk) -> Option<Response> {
    let signer = shared.app.signer.as_ref()?;
    let bucket = shared.app.index.bucket();
    match signer.url(bucket, &chunk.name, chunk.generation, SIGNED_FOR).await {
        Ok(address) => {
            let headers = [(LOCATION, address), (CACHE_CONTROL, REDIRECT_FOR.to_owned())];
            Some((StatusCode::FOUND, headers).into_response())
        }
        Err(error) => {
            tracing::warn!("a recording goes through the dashboard: {error}");
            None
        }
    }
}

/// `GET /media/{generation}/{object}.{ts|mp4|m4s}`
pub(super) async fn media(
    State(shared): State<Shared>,
    method: Method,
    Object { generation, file }: Object,
    Question(by): Question<By>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::not_found("there is no such recording");
    let (name, extension) = file.rsplit_once('.').ok_or_else(unknown)?;
    let chunk = chunk_of(&shared, generation, name).await?;
    let passes = matches!(
        (extension, playing(&chunk)),
        ("ts", Playing::Transport) | ("mp4", Playing::Fragmented)
    );
    // GET only: the signature covers the method.
    if passes
        && method == Method::GET
        && !by.is_proxy()
        && let Some(response) = redirect(&shared, &chunk).await
    {
        return Ok(response);
    }
    let range = range_of(&headers, &etag(&chunk));
    match (extension, chunk.meta.container) {
        ("ts", Container::MpegTs) => stored(&shared, &method, &chunk, "video/mp2t", range).await,
        ("mp4", Container::Fmp4) if playing(&chunk) == Playing::Fragmented => {
            stored(&shared, &method, &chunk, "video/mp4", range).await
        }
        ("mp4", _) => Ok(held(
            &shared.app.media.remuxed(&shared.app.index, &chunk).await?.init,
            &chunk,
            range,
        )),
        ("m4s", _) => Ok(held(
            &shared.app.media.remuxed(&shared.app.index, &chunk).await?.segment,
            &chunk,
            range,
        )),
        _ => Err(unknown()),
    }
}

/// Answers with the object's own bytes, streamed as they arrive.
async fn stored(
    shared: &Shared,
    method: &Method,
    chunk: &Chunk,
    kind: &'static str,
    range: Option<&str>,
) -> Result<Response, ApiError> {
    let part = match wanted(range, chunk.size) {
        Wanted::Unsatisfiable => return Ok(unsatisfiable(chunk.size)),
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
    };
    let bytes = part.clone().unwrap_or(0..chunk.size);
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let download = shared.app.index.download(chunk, bytes.clone()).await;
        let download = download.map_err(crate::media::MediaError::from)?;
        Body::from_stream(stream::try_unfold(download, |mut download| async move {
            let piece = download
                .next()
                .await
                .inspect_err(|error| tracing::warn!("a recording broke off: {error}"))?;
            Ok::<_, gcstreamer_storage::WriteError>(piece.map(|piece| (piece, download)))
        }))
    };
    let mut response = (described(chunk, kind, bytes.end - bytes.start), body).into_response();
    if let Some(part) = part {
        partial(&mut response, &part, chunk.size);
    }
    Ok(response)
}

/// Answers with bytes that are in memory.
fn held(bytes: &Bytes, chunk: &Chunk, range: Option<&str>) -> Response {
    let size = bytes.len() as u64;
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    match wanted(range, size) {
        Wanted::Unsatisfiable => unsatisfiable(size),
        Wanted::Whole => (described(chunk, "video/mp4", size), bytes.clone()).into_response(),
        Wanted::Part(part) => {
            let body = bytes.slice(index(part.start)..index(part.end));
            let mut response = (described(chunk, "video/mp4", body.len() as u64), body).into_response();
            partial(&mut response, &part, size);
            response
        }
    }
}

fn etag(chunk: &Chunk) -> String {
    format!("\"{}\"", chunk.generation)
}

fn described(chunk: &Chunk, kind: &'static str, length: u64) -> [(HeaderName, String); 5] {
    [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (CACHE_CONTROL, IMMUTABLE.to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, etag(chunk)),
    ]
}

pub(super) fn partial(response: &mut Response, part: &std::ops::Range<u64>, size: u64) {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    if let Ok(value) = format!("bytes {}-{}/{size}", part.start, part.end - 1).parse() {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
}

pub(super) fn unsatisfiable(size: u64) -> Response {
    let mut response = ApiError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        format!("there are {size} bytes"),
        "ask for a range inside",
    )
    .into_response();
    if let Ok(value) = format!("bytes */{size}").parse() {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}

/// `GET /preview?camera=&t=`
pub(super) async fn preview(State(shared): State<Shared>, Question(at): Question<At>) -> Result<Response, ApiError> {
    let t = at.time()?;
    let chunks = shared.app.index.shown(&at.camera, t, t.saturating_add(1)).await?;
    let chunk = match chunks.last() {
        Some(chunk) => chunk.clone(),
        // A request about now: the newest chunk ended some seconds ago, so none overlaps `t`.
        None => {
            let newest = shared.app.index.newest(&at.camera).await?;
            let is_near = |chunk: &Chunk| chunk.meta.start <= t && t.saturating_sub(chunk.meta.end) < HOUR / 60;
            match newest.filter(is_near) {
                Some(chunk) => chunk,
                None => return Err(nothing(&shared, &at.camera, "nothing is stored of this camera at that time").await),
            }
        }
    };
    let address = format!("/preview/{}/{}.mp4", chunk.generation, encoded(&chunk.name));
    // `no-store`: a chunk that arrives late may be the one of this time afterwards.
    let headers = [(LOCATION, address), (CACHE_CONTROL, "no-store".to_owned())];
    // If the chunk does not begin with its key frame, the time is not known before the chunk is read.
    let time = chunk.meta.key_frame.then(|| [(PICTURE_TIME, rfc3339_ms(chunk.meta.start))]);
    Ok(match time {
        Some(time) => (StatusCode::FOUND, headers, time).into_response(),
        None => (StatusCode::FOUND, headers).into_response(),
    })
}

/// `GET /preview/{generation}/{object}.mp4`
pub(super) async fn picture(
    State(shared): State<Shared>,
    Object { generation, file }: Object,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let name = file
        .strip_suffix(".mp4")
        .ok_or_else(|| ApiError::not_found("there is no such picture"))?;
    let chunk = chunk_of(&shared, generation, name).await?;
    let picture = shared.app.media.picture(&shared.app.index, &chunk).await?;
    let mut response = held(&picture.file, &chunk, range_of(&headers, &etag(&chunk)));
    if let Ok(value) = rfc3339_ms(shown_at(&chunk, &picture)).parse() {
        response.headers_mut().insert(PICTURE_TIME, value);
    }
    Ok(response)
}

/// Returns when a chunk's picture was taken, ns since the Unix epoch.
fn shown_at(chunk: &Chunk, picture: &Picture) -> u64 {
    let begins = chunk
        .meta
        .pts_start
        .and_then(|pts| i64::try_from(pts).ok())
        .unwrap_or(picture.first);
    let after = u64::try_from(picture.pts.saturating_sub(begins)).unwrap_or(0);
    chunk.meta.start.saturating_add(after)
}
