//! Playlists. Decisions are in `crate::hls::playlist`.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::api::{CameraQuery, Span, check_camera};
use super::ask::Question;
use super::error::ApiError;
use super::media::By;
use super::{Shared, Who};
use crate::hls::live::{self as live_playlist, Numbers, Own};
use crate::hls::playlist::{self, Style};
use crate::index::{Chunk, HOUR};
use crate::lock::lock;

/// Longest playlist, ns: 24 h.
const LONGEST: u64 = 24 * HOUR;

/// Maximum number of cameras whose numbers are kept. Above it all are dropped: their playlists are then numbered by the stored
/// chunks alone.
const MAX_NUMBERED: usize = 20_000;

/// The numbers that live playlists have given, by camera.
#[derive(Debug, Default)]
pub(super) struct LiveNumbers(Mutex<HashMap<String, Numbers>>);

impl LiveNumbers {
    /// Gives a live playlist of a camera its numbers: see [`Numbers::give`].
    fn give(&self, camera: &str, session: &str, own: Own, newest: u64) -> (u64, u64) {
        let mut all = lock(&self.0);
        if all.len() >= MAX_NUMBERED {
            all.clear();
        }
        all.entry(camera.to_owned()).or_default().give(session, own, newest)
    }
}

fn answer(text: String) -> Response {
    let headers = [(CONTENT_TYPE, "application/vnd.apple.mpegurl"), (CACHE_CONTROL, "no-store")];
    (headers, text).into_response()
}

/// Returns the error for a time without a recording: `text`, or another text if nothing of the camera was ever stored. The latter
/// happens for cameras that are known only by a list or by MQTT.
pub(super) async fn nothing(shared: &Shared, camera: &str, text: &str) -> ApiError {
    match shared.app.index.newest(camera).await {
        Ok(None) => ApiError::not_found("nothing is stored of this camera yet"),
        Ok(Some(_)) => ApiError::not_found(text),
        Err(error) => error.into(),
    }
}

/// `GET /hls/index.m3u8?camera=&from=&to=`
pub(super) async fn index(
    State(shared): State<Shared>,
    Extension(Who(who)): Extension<Who>,
    Question(span): Question<Span>,
    Question(by): Question<By>,
) -> Result<Response, ApiError> {
    let (from, to) = span.bounds(LONGEST)?;
    let chunks = shared.app.index.shown(&span.camera, from, to).await?;
    if chunks.is_empty() {
        return Err(nothing(&shared, &span.camera, "nothing is stored of this camera in that time").await);
    }
    if let Some(why) = playlist::unplayable(&chunks) {
        return Err(ApiError::unplayable(why));
    }
    tracing::info!(who, camera = span.camera, from = span.from, to = span.to, "playing");
    let made = |chunk: &Chunk| shared.app.media.header_of(chunk);
    let style = Style {
        by_proxy: by.is_proxy(),
        made: &made,
    };
    Ok(answer(playlist::vod(&chunks, to, style)))
}

/// `GET /hls/live.m3u8?camera=`
pub(super) async fn live(
    State(shared): State<Shared>,
    Extension(Who(who)): Extension<Who>,
    Question(query): Question<CameraQuery>,
    Question(by): Question<By>,
) -> Result<Response, ApiError> {
    check_camera(&query.camera)?;
    let now = shared.app.clock.now();
    // An hour back, since the playlist's window may begin before this hour; an hour ahead, since the camera's clock may be ahead.
    let index = &shared.app.index;
    let mut chunks = index
        .span(&query.camera, now.saturating_sub(HOUR), now.saturating_add(HOUR))
        .await?;
    if chunks.is_empty()
        && let Some(newest) = index.newest(&query.camera).await?
        && newest.meta.start > now
    {
        // The clock is more than an hour ahead; the index finds chunks up to `AHEAD`.
        let until = newest.meta.end.saturating_add(HOUR);
        chunks = index
            .span(&query.camera, newest.meta.start.saturating_sub(HOUR), until)
            .await?;
    }
    let made = |chunk: &Chunk| shared.app.media.header_of(chunk);
    let style = Style {
        by_proxy: by.is_proxy(),
        made: &made,
    };
    let give = |session: &str, own, newest| shared.live_numbers.give(&query.camera, session, own, newest);
    match live_playlist::live(&chunks, now, style, give) {
        Some(text) => {
            if shared.views.begins(&who, &query.camera, std::time::Instant::now()) {
                tracing::info!(who, camera = query.camera, "playing live");
            }
            Ok(answer(text))
        }
        None if let Some(why) = playlist::unplayable(&chunks) => Err(ApiError::unplayable(why)),
        None => Err(nothing(&shared, &query.camera, "nothing was stored of this camera in the last hour").await),
    }
}
