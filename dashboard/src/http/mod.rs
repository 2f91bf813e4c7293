//! The server: routes, the checks in front of all of them, and the shutdown.
//!
//! - `api`, `hls`, `media`, `export`, `files`: what is served: JSON, playlists, bytes, exports, the page and its login.
//! - `ask`, `range` PURE, `error`: parameters of requests, the header `Range`, errors as JSON.
//! - `serving`: connections. `views`: who watches which camera live.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use gcstreamer_storage::UrlSigner;
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};

use crate::app::App;
use crate::auth::{Address, Decision, Shown};
use crate::iap::{self, GateError};

mod api;
mod ask;
mod error;
mod export;
mod files;
mod hls;
mod media;
mod range;
mod serving;
mod views;

use error::ApiError;

/// Time that open requests have to finish after the signal.
const GRACE: Duration = Duration::from_secs(5);

/// State that all handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    app: Arc<App>,
    /// True once the server shuts down: event streams end then.
    ends: watch::Receiver<bool>,
    /// The live views.
    views: Arc<views::Views>,
    /// The numbers of live playlists.
    live_numbers: Arc<hls::LiveNumbers>,
}

/// Serves until `ended` is ready, then lets open requests finish, for [`GRACE`] at most.
///
/// # Errors
/// The settings of the MQTT broker are unusable.
pub async fn serve(
    listener: tokio::net::TcpListener,
    app: Arc<App>,
    ended: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (end, ends) = watch::channel(false);
    if let Some(broker) = &app.broker {
        crate::mqtt::listen(broker, app.known.clone(), app.clock.clone(), ends.clone()).map_err(std::io::Error::other)?;
    }
    let is_own = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let patience = match &app.auth {
        crate::settings::Auth::Iap(_) => serving::BEHIND_BALANCER,
        // Beyond loopback a reverse proxy must provide TLS, and that may be such a load balancer.
        crate::settings::Auth::Token(_) if !is_own => serving::BEHIND_BALANCER,
        crate::settings::Auth::None | crate::settings::Auth::Token(_) => serving::PATIENCE,
    };
    let router = router(app, ends.clone());
    let graceful = async move {
        ended.await;
        let _ = end.send(true);
    };
    let mut late = ends.clone();
    let deadline = async move {
        let _ = late.wait_for(|ends| *ends).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = async { tokio::join!(serving::accept(listener, router, patience, ends), graceful); } => {}
        () = deadline => {}
    }
    Ok(())
}

/// Builds the router with all routes.
pub fn router(app: Arc<App>, ends: watch::Receiver<bool>) -> Router {
    let policy = policy(app.signer.as_ref().map(UrlSigner::origin));
    let shared = Shared {
        app,
        ends,
        views: Arc::default(),
        live_numbers: Arc::default(),
    };
    // Media is compressed already, events must not wait for a full block, and the page's files have compressed copies.
    let compressed = SizeAbove::new(1024)
        .and(NotForContentType::new("video/"))
        .and(NotForContentType::new("application/octet-stream"))
        .and(NotForContentType::SSE)
        .and(NotForContentType::new("text/javascript"))
        .and(NotForContentType::new("text/css"))
        .and(NotForContentType::new("text/html"));
    Router::new()
        .route("/api/cameras", get(api::cameras))
        .route("/api/timeline", get(api::timeline))
        .route("/api/days", get(api::days))
        .route("/api/gaps", get(api::gaps))
        .route("/api/events", get(api::events))
        .route("/api/about", get(api::about))
        .route("/hls/index.m3u8", get(hls::index))
        .route("/hls/live.m3u8", get(hls::live))
        .route("/media/{generation}/{*object}", get(media::media))
        .route("/preview", get(media::preview))
        .route("/preview/{generation}/{*object}", get(media::picture))
        .route("/export", get(export::export))
        .route("/export/manifest", get(export::manifest))
        .route("/export/prepare", post(export::prepare))
        .route("/login", post(files::log_in))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(files::file)
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method", "")
        })
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        // The last layer is the outermost: the refusals of `guard` have these headers, too.
        .layer(middleware::from_fn_with_state(policy, secured))
        .with_state(shared)
}

/// The user of a request, for the log.
#[derive(Clone, Debug)]
pub(crate) struct Who(pub(crate) String);

/// Middleware that answers requests that are not allowed, and passes on the others with [`Who`] sent them.
async fn guard(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let decision = decide(&shared, &request);
    match decision {
        Decision::Allow => {
            let who = match shared.app.auth {
                crate::settings::Auth::None => "this machine",
                crate::settings::Auth::Token(_) => "token",
                crate::settings::Auth::Iap(_) => "anybody",
            };
            request.extensions_mut().insert(Who(who.into()));
            next.run(request).await
        }
        Decision::AskIap => match user(&shared, &request).await {
            Ok(user) => {
                request.extensions_mut().insert(Who(user));
                next.run(request).await
            }
            Err(error) => ApiError::from(error).into_response(),
        },
        Decision::LogIn => ApiError::unauthorized().into_response(),
        Decision::ForeignHost => ApiError::foreign_host().into_response(),
        Decision::ForeignSite => ApiError::foreign_site().into_response(),
    }
}

/// Returns the user of a request that came through Identity-Aware Proxy.
fn user(shared: &Shared, request: &Request) -> impl Future<Output = Result<String, GateError>> + Send + use<> {
    let header = request.headers().get(iap::HEADER).and_then(|value| value.to_str().ok());
    let (header, app) = (header.map(str::to_owned), shared.app.clone());
    async move {
        match &app.gate {
            Some(gate) => gate.user(header.as_deref(), app.clock.now()).await,
            None => Err(GateError::Refused(iap::assertion::Refusal::Missing)),
        }
    }
}

fn decide(shared: &Shared, request: &Request) -> Decision {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let shown = Shown {
        host: header(HOST),
        authorization: header(AUTHORIZATION),
        cookie: header(COOKIE),
        site: header(HeaderName::from_static("sec-fetch-site")),
        posts_from: header(ORIGIN).filter(|_| request.method() == Method::POST),
    };
    let path = request.uri().path();
    let address = match path {
        "/healthz" => Address::Health,
        "/login" => Address::Page,
        _ if crate::page::find(path).is_some() => Address::Page,
        _ => Address::Guarded,
    };
    shared.app.auth.decide(shown, address)
}

/// Returns the Content-Security-Policy of the page: it may load its own files, and recordings of the storage host if players are
/// redirected there.
fn policy(storage: Option<&str>) -> HeaderValue {
    let storage = storage.map(|origin| format!(" {origin}")).unwrap_or_default();
    // `blob:`: hls.js plays through a MediaSource, which has such an address.
    let text = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:{storage}; connect-src 'self'{storage}; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    // Never fails: an origin has only characters that a header may have.
    text.parse().unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

const SECURITY: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
];

async fn secured(State(policy): State<HeaderValue>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(HeaderName::from_static("content-security-policy"), policy);
    for (name, value) in SECURITY {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
