//! Exports: `/export`, its manifest, and the progress of its preparation.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, Method};
use axum::response::{IntoResponse, Response};
use clap::ValueEnum as _;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::api::{Span, fresh};
use super::ask::Question;
use super::error::ApiError;
use super::media::{partial, unsatisfiable};
use super::range::{Wanted, range_of, wanted};
use super::{Shared, Who};
use crate::export::manifest::Manifest;
use crate::export::{Format, LONGEST, Plan, Request, Selection};
use crate::hls::playlist::encoded;

/// `?camera=&from=&to=&format=`
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    camera: String,
    from: String,
    to: String,
    format: Option<String>,
    /// Id of the plan, in requests for a manifest.
    id: Option<String>,
}

impl Asked {
    fn request(&self) -> Result<Request, ApiError> {
        let span = Span {
            camera: self.camera.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
        };
        let (from, to) = span.bounds(LONGEST)?;
        let format = Format::from_str(self.format.as_deref().unwrap_or("mp4"), false);
        Ok(Request {
            camera: span.camera,
            from,
            to,
            format: format.map_err(|_| ApiError::bad_request("format is mp4 or native", "leave it out for mp4"))?,
        })
    }
}

fn address(path: &str, request: &Request, id: Option<&str>) -> String {
    let time = gcstreamer_schema::time::rfc3339_ms;
    let id = id.map(|id| format!("&id={id}")).unwrap_or_default();
    let (camera, from, to) = (encoded(&request.camera), time(request.from), time(request.to));
    format!(
        "{path}?camera={camera}&from={from}&to={to}&format={}{id}",
        request.format.name()
    )
}

/// `GET /export?camera=&from=&to=&format=`
pub(super) async fn export(
    State(shared): State<Shared>,
    Extension(Who(who)): Extension<Who>,
    method: Method,
    Question(asked): Question<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let exports = &shared.app.exports;
    let selection = Selection::of(&shared.app.index, asked.request()?).await?;
    let place = exports.enter(&selection.id)?;
    let plan = place.work(exports.plan(&shared.app.index, selection)).await?;
    let etag = format!("\"{}\"", plan.id);
    let part = match wanted(range_of(&headers, &etag), plan.size) {
        Wanted::Unsatisfiable => return Ok(unsatisfiable(plan.size)),
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
    };
    let bytes = part.clone().unwrap_or(0..plan.size);
    let length = bytes.end - bytes.start;
    // The plan has been made for HEAD, too: the size is known from nothing else.
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let request = &plan.request;
        tracing::info!(
            who,
            camera = request.camera,
            from = asked.from,
            to = asked.to,
            format = request.format.name(),
            bytes = length,
            "exporting"
        );
        let reading = plan.bytes(bytes);
        let app = shared.app.clone();
        Body::from_stream(stream::try_unfold(
            (reading, app, place),
            |(mut reading, app, place)| async move {
                let piece = place.work(reading.next(&app.index)).await;
                let piece = piece.inspect_err(|error| tracing::warn!("an export broke off: {error}"))?;
                Ok::<_, crate::export::ExportError>(piece.map(|piece| (piece, (reading, app, place))))
            },
        ))
    };
    let described = [
        (CONTENT_TYPE, plan.content_type.to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        // A chunk that arrives late changes the bytes of the range; the `ETag` shows that.
        (CACHE_CONTROL, "private, no-cache".to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, etag),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", plan.file_name())),
        (
            HeaderName::from_static("export-manifest"),
            address("/export/manifest", &plan.request, Some(&plan.id)),
        ),
    ];
    let mut response = (described, body).into_response();
    if let Some(part) = part {
        partial(&mut response, &part, plan.size);
    }
    Ok(response)
}

/// Lists the chunks of a request for a manifest.
///
/// # Errors
/// 404 if the request names a plan and the chunks are no longer those of that plan.
async fn selection_of(shared: &Shared, asked: &Asked) -> Result<Selection, ApiError> {
    let selection = Selection::of(&shared.app.index, asked.request()?).await?;
    if asked.id.as_deref().is_some_and(|id| id != selection.id) {
        return Err(ApiError::not_found(
            "what is stored of this range has changed since that export; export it again",
        ));
    }
    Ok(selection)
}

/// Produces the whole file of a plan and discards it, to get its checksums.
async fn sum_up(shared: &Shared, plan: Arc<Plan>) -> Result<Arc<Manifest>, ApiError> {
    let mut reading = plan.bytes(0..plan.size);
    while reading.next(&shared.app.index).await?.is_some() {}
    plan.manifest().ok_or_else(|| ApiError::not_found("there is no such export"))
}

/// `GET /export/manifest?camera=&from=&to=&format=&id=`: the manifest. If the file has not been sent whole yet, it is produced
/// once to get its checksums.
pub(super) async fn manifest(State(shared): State<Shared>, Question(asked): Question<Asked>) -> Result<Response, ApiError> {
    let exports = &shared.app.exports;
    let known = asked.id.as_deref().and_then(|id| exports.known(id));
    let manifest = match known {
        Some(plan) => match plan.manifest() {
            Some(manifest) => manifest,
            None => exports.enter(&plan.id)?.work(sum_up(&shared, plan.clone())).await?,
        },
        None => {
            let selection = selection_of(&shared, &asked).await?;
            let place = exports.enter(&selection.id)?;
            let summing = async { sum_up(&shared, exports.plan(&shared.app.index, selection).await?).await };
            place.work(summing).await?
        }
    };
    let name = asked.request()?.file_name("manifest.json");
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, manifest.to_json()).into_response())
}

/// `POST /export/prepare?camera=&from=&to=&format=`: starts the first pass, or returns its progress. The page polls it.
pub(super) async fn prepare(State(shared): State<Shared>, Question(asked): Question<Asked>) -> Result<Response, ApiError> {
    let request = asked.request()?;
    let app = shared.app.clone();
    let selection = Selection::of(&app.index, request.clone()).await?;
    let (id, of) = (selection.id.clone(), selection.count());
    if let Some(plan) = app.exports.known(&id) {
        let file = address("/export", &request, None);
        let manifest = address("/export/manifest", &request, Some(&id));
        return Ok(fresh(
            json!({"done": of, "of": of, "file": file, "manifest": manifest, "bytes": plan.size, "name": plan.file_name()}),
        ));
    }
    if let Some((done, of)) = app.exports.progress(&id) {
        return Ok(fresh(json!({"done": done, "of": of})));
    }
    if let Some(fault) = app.exports.fault(&id) {
        return Err(fault.into());
    }
    let place = app.exports.enter(&id)?;
    let begun = app.exports.begin(&selection);
    tokio::spawn(async move { place.work(app.exports.run(&app.index, selection, begun)).await });
    Ok(fresh(json!({"done": 0, "of": of})))
}
