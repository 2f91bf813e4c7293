//! Extracts the parameters of requests. Rejects invalid ones with a JSON error, as all other errors have; axum's own are plain
//! text.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The query of an address, the part behind the `?`.
#[derive(Debug)]
pub(super) struct Question<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Question<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(refused(&rejection.body_text())),
        }
    }
}

/// Returns an error that names the parameter. Takes the name from serde's message, which has it between backticks.
fn refused(fault: &str) -> ApiError {
    let name = fault.split('`').nth(1).unwrap_or_default();
    let (text, hint) = match () {
        () if fault.contains("missing field") => (format!("{name} is missing"), format!("add {name} behind the ?")),
        () if fault.contains("duplicate field") => (format!("{name} is there more than once"), format!("ask for one {name}")),
        () => (
            "the query (behind the ?) cannot be read".to_owned(),
            "write it as name=value&name=value".to_owned(),
        ),
    };
    ApiError::bad_request(text, &hint)
}

/// Generation and name of an object in a path.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) generation: i64,
    /// Object name with its extension.
    pub(super) file: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Object {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path((generation, file))) => Ok(Self { generation, file }),
            Err(_) => Err(ApiError::not_found("there is no such recording")),
        }
    }
}
