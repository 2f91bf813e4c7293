//! Errors as JSON: `{error, hint}`.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use gcstreamer_storage::{Class, WriteError};
use serde_json::json;

use crate::export::ExportError;
use crate::iap::GateError;
use crate::index::IndexError;
use crate::media::MediaError;

/// An error answer.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
    hint: String,
    retry_after: Option<u64>,
    /// Whether a token would help. The answer then has `WWW-Authenticate`, and the page asks for the token.
    takes_token: bool,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: &str) -> Self {
        Self {
            status,
            error: error.into(),
            hint: hint.to_owned(),
            retry_after: None,
            takes_token: false,
        }
    }

    pub(super) fn bad_request(error: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            error,
            "open / for the cameras and what was recorded of them",
        )
    }

    /// 415: something is stored, but cannot be played, for this reason.
    pub(super) fn unplayable(why: String) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            why,
            "download it as recorded (format=native), and play it elsewhere",
        )
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "this dashboard asks for a token",
            "open / and log in, or send Authorization: Bearer TOKEN",
        )
        .takes_token()
    }

    /// Marks the error as one that a token would solve.
    pub(super) fn takes_token(mut self) -> Self {
        self.takes_token = true;
        self
    }

    pub(super) fn foreign_host() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "without authentication the dashboard answers to localhost, 127.0.0.1 and [::1] alone",
            "open it by one of these names, or start it with --auth token:FILE",
        )
    }

    /// Returns `{error, hint}`, as answers and events have it.
    pub(super) fn body(&self) -> serde_json::Value {
        json!({"error": self.error, "hint": self.hint})
    }

    pub(super) fn foreign_site() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "a page of another site asked for this, by what the browser says of it (Sec-Fetch-Site, Origin)",
            "open the dashboard itself, by the address that its page is loaded from",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.takes_token {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<GateError> for ApiError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Refused(refusal) => Self::new(
                StatusCode::UNAUTHORIZED,
                refusal.to_string(),
                "open the address that Identity-Aware Proxy serves, and reload the page",
            ),
            GateError::NoKeys(_) => Self::new(
                StatusCode::BAD_GATEWAY,
                error.to_string(),
                "check that the dashboard reaches www.gstatic.com",
            ),
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let hint = match (error.class, error.http_status) {
            (Class::Throttled, _) => "Cloud Storage asks for fewer requests; try again later",
            (_, Some(403)) => "give the dashboard's account roles/storage.objectViewer on the bucket",
            (_, Some(401)) | (Class::Auth, _) => "check --credentials-file, or GOOGLE_APPLICATION_CREDENTIALS",
            (_, Some(404)) => "the bucket or the recording does not exist (any more); check --bucket and --endpoint-uri",
            (Class::Transient, _) => "the bucket does not answer as it should; try again, and check the network",
            _ => "check --bucket, --endpoint-uri and --credentials-file",
        };
        let status = if error.class == Class::Throttled {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::BAD_GATEWAY
        };
        // At least 1: with 0 the client would ask again at once.
        let retry_after = (error.class == Class::Throttled).then(|| error.retry_after.map_or(5, |wait| wait.as_secs().max(1)));
        tracing::warn!("the bucket cannot be read: {}", error.message);
        Self {
            status,
            error: error.message,
            hint: hint.to_owned(),
            retry_after,
            takes_token: false,
        }
    }
}

impl From<IndexError> for ApiError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Bucket(error) => error.into(),
            IndexError::TooMany(_) => Self::bad_request(error.to_string(), "ask for less time at once"),
        }
    }
}

impl From<ExportError> for ApiError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Index(error) => error.into(),
            ExportError::Bucket(error) => MediaError::Bucket(error).into(),
            ExportError::Nothing => Self::not_found(error.to_string()),
            ExportError::Unplayable(why) => Self::unplayable(why),
            ExportError::Busy => Self {
                retry_after: Some(30),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    error.to_string(),
                    "try again when one of them has ended",
                )
            },
            ExportError::Join(_) | ExportError::TooLarge(..) => {
                Self::bad_request(error.to_string(), "choose another range or format")
            }
            ExportError::Remux(..) => Self::bad_request(error.to_string(), "export it with format=native"),
            ExportError::Changed(_) => Self::new(StatusCode::BAD_GATEWAY, error.to_string(), "export it again"),
        }
    }
}

impl From<MediaError> for ApiError {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::Bucket(error) if error.http_status == Some(404) => {
                Self::not_found("this recording does not exist any more")
            }
            MediaError::Bucket(error) => error.into(),
            // 415, not 5xx: the chunk itself is at fault, so asking again is pointless, and a player goes on with the next one.
            MediaError::Remux(_) | MediaError::TooLarge(_) => {
                tracing::warn!("a chunk cannot be played: {error}");
                Self::unplayable(error.to_string())
            }
            MediaError::Ended => {
                tracing::warn!("a chunk cannot be played: {error}");
                Self::new(
                    StatusCode::BAD_GATEWAY,
                    error.to_string(),
                    "the recording itself can be read with gcloud storage cp",
                )
            }
        }
    }
}
