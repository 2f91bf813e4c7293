//! Playlists. Decisions are in `crate::hls::playlist`.

use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::api::{CameraQuery, Span, check_camera};
use super::ask::Question;
use super::error::ApiError;
use super::media::By;
use super::{Shared, Who};
use crate::hls::playlist::{self, Style};
use crate::index::{Chunk, HOUR};

/// Longest playlist, ns: 24 h.
const LONGEST: u64 = 24 * HOUR;

fn answer(text: String) -> Response {
    let headers = [(CONTENT_TYPE, "application/vnd.apple.mpegurl"), (CACHE_CONTROL, "no-store")];
    (headers, text).into_response()
}

/// Why there is nothing to play: `text`, unless nothing of the camera was ever stored. Those that report by MQTT are known before.
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
    // The newest chunk may have begun in the hour before; a camera's clock may be ahead.
    let index = &shared.app.index;
    let mut chunks = index
        .span(&query.camera, now.saturating_sub(HOUR), now.saturating_add(HOUR))
        .await?;
    if chunks.is_empty()
        && let Some(newest) = index.newest(&query.camera).await?
        && newest.meta.start > now
    {
        // Its clock is further ahead, up to what the index looks for.
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
    match playlist::live(&chunks, now, style) {
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
