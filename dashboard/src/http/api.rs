//! The JSON API: cameras, timelines, days, gaps, events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use gcstreamer_schema::name::check_device;
use gcstreamer_schema::time::parse_rfc3339;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Shared;
use super::ask::Question;
use super::error::ApiError;
use crate::index::timeline::{Gap, Range, Timeline};
use crate::index::{HOUR, IndexError, PARTIAL, PARTIAL_HINT};

/// Longest timeline, ns: 31 days, and one hour since a month in which daylight saving time ends is that much longer.
const LONGEST: u64 = (31 * 24 + 1) * HOUR;
/// Most gaps in one answer.
const MAX_GAPS: usize = 200;
/// Most hours of all cameras together that one request for gaps may cover: 130 cameras for a month, at some 40,000 list requests.
const MAX_CAMERA_HOURS: u64 = 100_000;
/// Interval of the events to a viewer.
// The page asks by itself after 25 s without an event (`web/src/news.ts`).
const NEWS_EVERY: Duration = Duration::from_secs(10);

const TIMES: &str = "times are RFC 3339, e.g. 2026-11-22T14:00:00Z";

fn time(name: &str, text: &str) -> Result<u64, ApiError> {
    // An unescaped `+` of a zone offset arrives as a space: that is what it means in a query.
    let text = text.replace(' ', "+");
    parse_rfc3339(&text).ok_or_else(|| ApiError::bad_request(format!("{name} is not a time"), TIMES))
}

pub(super) fn check_camera(id: &str) -> Result<(), ApiError> {
    check_device(id).map_err(|fault| ApiError::bad_request(fault, "/api/cameras lists the ids"))
}

/// `?camera=`
#[derive(Debug, Deserialize)]
pub(super) struct CameraQuery {
    pub(super) camera: String,
}

/// `?camera=&t=`
#[derive(Debug, Deserialize)]
pub(super) struct At {
    pub(super) camera: String,
    t: String,
}

impl At {
    pub(super) fn time(&self) -> Result<u64, ApiError> {
        check_camera(&self.camera)?;
        time("t", &self.t)
    }
}

/// `?camera=&from=&to=`
#[derive(Debug, Deserialize)]
pub(super) struct Span {
    pub(super) camera: String,
    pub(super) from: String,
    pub(super) to: String,
}

impl Span {
    /// Returns both times, ns since the Unix epoch, rounded down to ms.
    ///
    /// # Errors
    /// 400: a time cannot be read, `to` is not after `from`, or they are more than `longest` ns apart.
    pub(super) fn bounds(&self, longest: u64) -> Result<(u64, u64), ApiError> {
        check_camera(&self.camera)?;
        bounds(&self.from, &self.to, longest)
    }
}

fn bounds(from: &str, to: &str, longest: u64) -> Result<(u64, u64), ApiError> {
    // The addresses in answers have ms. Both must mean the same times, or an export would get another id.
    let whole = |time: u64| time - time % 1_000_000;
    let (from, to) = (whole(time("from", from)?), whole(time("to", to)?));
    if to <= from {
        return Err(ApiError::bad_request("to is not after from", TIMES));
    }
    if to - from > longest {
        return Err(ApiError::bad_request(
            format!("that is more than {} at once", length(longest)),
            "ask for less time at once",
        ));
    }
    Ok((from, to))
}

/// Returns a limit in words.
fn length(longest: u64) -> String {
    match longest / HOUR {
        hours @ ..=48 => format!("{hours} h"),
        // The division drops the hour of daylight saving time.
        hours => format!("{} days", hours / 24),
    }
}

pub(super) fn fresh(value: impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

/// `GET /api/cameras`
pub(super) async fn cameras(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let board = shared.app.board().await?;
    count(&shared);
    Ok(fresh(&*board))
}

/// Counts the missing seconds of today in a task of its own: the answer must not wait, since the first count takes many listings.
fn count(shared: &Shared) {
    let app: Arc<_> = shared.app.clone();
    tokio::spawn(async move { app.count_missing().await });
}

/// `GET /api/about`: what the footer shows.
pub(super) async fn about(State(shared): State<Shared>) -> Response {
    let delivery = if shared.app.signer.is_some() { "redirect" } else { "proxy" };
    fresh(
        json!({"delivery": delivery, "bucket": shared.app.index.bucket(), "list_requests": shared.app.index.requests(), "zones": shared.app.zones(), "since": gcstreamer_schema::time::rfc3339_ms(shared.app.since), "version": env!("CARGO_PKG_VERSION")}),
    )
}

/// `GET /api/timeline?camera=&from=&to=`
pub(super) async fn timeline(State(shared): State<Shared>, Question(span): Question<Span>) -> Result<Response, ApiError> {
    let (from, to) = span.bounds(LONGEST)?;
    let timeline = shared.app.timeline(&span.camera, from, to).await?;
    let pending = shared.app.pending(&span.camera, from, to, &timeline);
    Ok(fresh(Recorded { timeline, pending }))
}

/// What is stored, what is missing, and what the camera reports to have recorded but not uploaded.
#[derive(Debug, Serialize)]
struct Recorded {
    #[serde(flatten)]
    timeline: Timeline,
    pending: Vec<Range>,
}

/// `?camera=&month=&tz=`
#[derive(Debug, Deserialize)]
pub(super) struct Month {
    camera: String,
    month: String,
    tz: Option<String>,
}

/// `GET /api/days?camera=&month=2026-11&tz=`
pub(super) async fn days(State(shared): State<Shared>, Question(query): Question<Month>) -> Result<Response, ApiError> {
    check_camera(&query.camera)?;
    let first: Date = format!("{}-01", query.month)
        .parse()
        .map_err(|_| ApiError::bad_request("month is not a month", "write it as 2026-11"))?;
    let zone = query.tz.as_deref().unwrap_or_else(|| shared.app.zone_name(&query.camera));
    let zone = gcstreamer_schema::time::zone(zone).ok_or_else(|| {
        ApiError::bad_request(
            "tz is not a time zone",
            "write it as Europe/Berlin; without it days are the camera's",
        )
    })?;
    Ok(fresh(shared.app.days(&query.camera, first, &zone).await?))
}

/// `?from=&to=`
#[derive(Debug, Deserialize)]
pub(super) struct Between {
    from: String,
    to: String,
}

#[derive(Debug, Serialize)]
struct GapOf {
    camera: String,
    #[serde(flatten)]
    gap: Gap,
}

/// `GET /api/gaps?from=&to=`: the gaps of all cameras, longest first.
pub(super) async fn gaps(State(shared): State<Shared>, Question(query): Question<Between>) -> Result<Response, ApiError> {
    let (from, to) = bounds(&query.from, &query.to, LONGEST)?;
    let cameras = shared.app.index.cameras().await?;
    let hours = (to - from).div_ceil(HOUR);
    let count = u64::try_from(cameras.len()).unwrap_or(u64::MAX);
    if count.saturating_mul(hours) > MAX_CAMERA_HOURS {
        return Err(ApiError::bad_request(
            format!("{count} cameras for {hours} h each are more than {MAX_CAMERA_HOURS} h at once"),
            "ask for less time at once, or for one camera by /api/timeline",
        ));
    }
    let app = &shared.app;
    let found = stream::iter(cameras).map(|camera| async move {
        let gaps = match app.timeline(&camera, from, to).await {
            Ok(timeline) => timeline.gaps,
            // A camera with too many objects must not fail the others; its own page reports it.
            Err(IndexError::TooMany(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok::<_, ApiError>(
            gaps.into_iter()
                .map(move |gap| GapOf {
                    camera: camera.clone(),
                    gap,
                })
                .collect::<Vec<_>>(),
        )
    });
    // Stops at the first failure: with a silent bucket each further camera would take the request timeout.
    let found: Vec<Vec<GapOf>> = found.buffer_unordered(8).try_collect().await?;
    let mut gaps: Vec<GapOf> = found.into_iter().flatten().collect();
    gaps.sort_by(|a, b| {
        (b.gap.to - b.gap.from)
            .cmp(&(a.gap.to - a.gap.from))
            .then_with(|| (&a.camera, a.gap.from).cmp(&(&b.camera, b.gap.from)))
    });
    gaps.truncate(MAX_GAPS);
    Ok(fresh(gaps))
}

/// `GET /api/events`: the cameras, at once and then every ten seconds while the client is connected.
pub(super) async fn events(State(shared): State<Shared>) -> impl IntoResponse {
    let updates = stream::unfold((shared, true), |(mut shared, is_first)| async move {
        if !is_first {
            tokio::select! {
                () = tokio::time::sleep(NEWS_EVERY) => {}
                // An event stream has no end of its own: the shutdown would wait for it until its grace period is over.
                _ = shared.ends.wait_for(|ends| *ends) => return None,
            }
        }
        let trouble = |reported: serde_json::Value| Event::default().event("trouble").json_data(reported);
        let mut events = match shared.app.board().await {
            Ok(board) => vec![Event::default().event("cameras").json_data(&*board)],
            Err(error) => vec![trouble(ApiError::from(error).body())],
        };
        if shared.app.index.is_partial().await {
            events.push(trouble(json!({"error": PARTIAL, "hint": PARTIAL_HINT})));
        }
        count(&shared);
        let events = events.into_iter().map(|event| Ok::<_, Infallible>(event.unwrap_or_default()));
        Some((stream::iter(events), (shared, false)))
    })
    .flatten();
    let updates: std::pin::Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>> = Box::pin(updates);
    (
        [
            (CACHE_CONTROL, "no-store"),
            // Keeps nginx from buffering the events.
            (axum::http::HeaderName::from_static("x-accel-buffering"), "no"),
        ],
        Sse::new(updates).keep_alive(KeepAlive::default()),
    )
}
