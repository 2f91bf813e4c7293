//! Reads a public file over HTTPS: no credentials, no redirects. One call is one attempt.

use std::time::Duration;

use reqwest::Client;

use super::error_text::error_text;
use super::http_client::http_client;
use super::object_api::read;

/// Timeout of the whole attempt.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a public file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicError {
    /// The connection failed.
    #[error("{0}")]
    Broken(String),
    /// The server refused.
    #[error("the server answered {0}")]
    Status(u16),
    /// It is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// It took too long.
    #[error("no answer within {} s", LIMIT.as_secs())]
    NoAnswer,
}

/// Returns the content of `url`, at most `limit` bytes. Must run inside tokio.
///
/// # Errors
/// [`PublicError`].
pub async fn read_public(url: &str, limit: usize) -> Result<Vec<u8>, PublicError> {
    let broken = |error: reqwest::Error| PublicError::Broken(error_text(&error));
    let client = http_client().map_err(broken)?;
    tokio::time::timeout(LIMIT, get(&client, url, limit))
        .await
        .map_err(|_| PublicError::NoAnswer)?
}

async fn get(client: &Client, url: &str, limit: usize) -> Result<Vec<u8>, PublicError> {
    let broken = |error: reqwest::Error| PublicError::Broken(error_text(&error));
    let response = client.get(url).send().await.map_err(broken)?;
    if !response.status().is_success() {
        return Err(PublicError::Status(response.status().as_u16()));
    }
    let (body, is_whole) = read(response, limit).await.map_err(broken)?;
    if is_whole {
        Ok(body)
    } else {
        Err(PublicError::TooLong(limit))
    }
}
