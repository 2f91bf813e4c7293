//! Lists objects and reads ranges of them, over the JSON API.
//!
//! As with the writer, **one call is one attempt**, it ends after `request-timeout` without progress, and no text contains a
//! secret. A read is pinned to a generation: its bytes are of that version of the object, or the read fails.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/objects/get>

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gcstreamer_schema::limits::{check_bucket, check_object_name};
use reqwest::header::RANGE;
use reqwest::{Method, Response};

use super::client_pool::{Client, SharedClient};
use super::error::{Action, Class, Situation, Target, WriteError};
use super::error_text::{Reason, error_text, reason_of};
use super::listing::{ListQuery, Page};
use super::object_api::{encoded, read};
use super::{ClientPool, Credentials, DEFAULT_REQUEST_TIMEOUT, Endpoint};

/// Maximum length of a listing page in bytes. Fits 1000 objects with 8 KiB of metadata and names of 1 KiB each.
const MAX_PAGE: usize = 16 << 20;
/// Maximum length of an error body in bytes.
const MAX_REASON: usize = 64 << 10;

/// Lists and reads the objects of Cloud Storage. Needs `storage.objects.list` and `storage.objects.get`.
#[derive(Clone, Debug)]
pub struct GcsReader {
    client: Arc<SharedClient>,
    request_timeout: Duration,
}

/// The bytes of a range, in the order of their arrival.
#[derive(Debug)]
pub struct Download {
    response: Response,
    left: u64,
    request_timeout: Duration,
    bucket: String,
    name: String,
}

impl GcsReader {
    /// Creates a reader of this endpoint. No file is read and no server contacted before the first attempt, which must be made
    /// inside tokio.
    #[must_use]
    pub fn new(pool: &ClientPool, endpoint: Endpoint, credentials: Credentials) -> Self {
        Self {
            client: pool.client(endpoint, credentials),
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
        }
    }

    /// Sets the time without progress after which an attempt ends.
    #[must_use]
    pub fn with_request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }

    /// Lists one page of objects.
    ///
    /// # Errors
    /// [`WriteError`] with its class; 403 names the missing permission.
    pub async fn list(&self, bucket: &str, query: &ListQuery) -> Result<Page, WriteError> {
        let target = Target {
            action: Action::List,
            bucket,
            name: &query.prefix,
        };
        check_bucket(bucket).map_err(|fault| target.fail(Class::Local, &fault.to_string()))?;
        let call = async {
            let client = self.client.get(target).await?;
            let result = list(&client, target, query).await;
            self.after(&client, result).await
        };
        self.limited(target, call).await
    }

    /// Begins to read the bytes `range` of this generation of an object.
    ///
    /// # Errors
    /// [`WriteError`] with its class. Status 404: this generation no longer exists; 416: it is shorter than the range.
    pub async fn download(&self, bucket: &str, name: &str, generation: i64, range: Range<u64>) -> Result<Download, WriteError> {
        let target = Target {
            action: Action::Read,
            bucket,
            name,
        };
        check_bucket(bucket).map_err(|fault| target.fail(Class::Local, &fault.to_string()))?;
        check_object_name(name).map_err(|fault| target.fail(Class::Local, &fault.to_string()))?;
        if range.is_empty() {
            return Err(target.fail(Class::Local, "an empty range cannot be asked for"));
        }
        let call = async {
            let client = self.client.get(target).await?;
            let result = open(&client, target, generation, &range).await;
            self.after(&client, result).await
        };
        Ok(Download {
            response: self.limited(target, call).await?,
            left: range.end - range.start,
            request_timeout: self.request_timeout,
            bucket: bucket.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Reads all bytes of `range` of this generation of an object. The caller must bound the range.
    ///
    /// # Errors
    /// As [`GcsReader::download`], and if the object ends before the range does.
    pub async fn read(&self, bucket: &str, name: &str, generation: i64, range: Range<u64>) -> Result<Bytes, WriteError> {
        let wanted = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut download = self.download(bucket, name, generation, range).await?;
        // A server may announce any length; only received bytes count.
        let mut body = Vec::with_capacity(wanted.min(1 << 20));
        while let Some(piece) = download.next().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body.into())
    }

    /// Discards a client whose credentials were refused.
    async fn after<T>(&self, client: &Client, result: Result<T, WriteError>) -> Result<T, WriteError> {
        if result.as_ref().is_err_and(|error| error.class == Class::Auth) {
            self.client.discard(client).await;
        }
        result
    }

    async fn limited<T>(&self, target: Target<'_>, call: impl Future<Output = Result<T, WriteError>>) -> Result<T, WriteError> {
        match tokio::time::timeout(self.request_timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(no_answer(target, self.request_timeout)),
        }
    }
}

impl Download {
    /// Returns the next bytes; `None` after the last.
    ///
    /// # Errors
    /// The connection broke, made no progress, or ended before the range did.
    pub async fn next(&mut self) -> Result<Option<Bytes>, WriteError> {
        if self.left == 0 {
            return Ok(None);
        }
        let target = Target {
            action: Action::Read,
            bucket: &self.bucket,
            name: &self.name,
        };
        match tokio::time::timeout(self.request_timeout, self.response.chunk()).await {
            Err(_) => Err(no_answer(target, self.request_timeout)),
            Ok(Err(error)) => Err(target.broken(&error)),
            Ok(Ok(None)) => {
                let what = format!("the answer ended {} bytes before the range that was asked for", self.left);
                Err(target.fail(Class::Transient, &what))
            }
            Ok(Ok(Some(mut piece))) => {
                // A server that ignores the range sends more than was requested.
                piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= piece.len() as u64;
                Ok(Some(piece))
            }
        }
    }
}

fn no_answer(target: Target<'_>, limit: Duration) -> WriteError {
    target.fail(Class::Transient, &format!("no answer within {} s", limit.as_secs_f64()))
}

async fn list(client: &Client, target: Target<'_>, query: &ListQuery) -> Result<Page, WriteError> {
    let url = format!("{}{}", client.origin, query.path(target.bucket));
    let response = send(client, target, url, None).await?;
    let (body, is_whole) = read(response, MAX_PAGE).await.map_err(|error| target.broken(&error))?;
    let what = "the answer is no listing; a login page or a proxy stands between";
    let page = if is_whole { query.page(&body) } else { None };
    page.ok_or_else(|| target.fail(Class::Transient, what))
}

async fn open(client: &Client, target: Target<'_>, generation: i64, range: &Range<u64>) -> Result<Response, WriteError> {
    let url = format!(
        "{}/storage/v1/b/{}/o/{}?alt=media&generation={generation}",
        client.origin,
        encoded(target.bucket),
        encoded(target.name)
    );
    // An HTTP range includes its last byte (RFC 9110, 14.1.2).
    let bytes = format!("bytes={}-{}", range.start, range.end - 1);
    let response = send(client, target, url, Some(&bytes)).await?;
    // A server that ignores the range sends the whole object; that is correct only for a range that begins at 0.
    if response.status().as_u16() != 206 && range.start > 0 {
        return Err(target.fail(Class::Transient, "the server ignores the range that was asked for"));
    }
    let stated = response
        .headers()
        .get("x-goog-generation")
        .and_then(|value| value.to_str().ok());
    if stated.is_some_and(|stated| stated != generation.to_string()) {
        return Err(target.fail(
            Class::Transient,
            "the answer is of another generation; a cache stands between",
        ));
    }
    // Emulators omit the generation. A login page sends neither a generation nor a range.
    if stated.is_none() && response.status().as_u16() != 206 {
        let what = "the answer names no generation and is no range; a login page or a proxy stands between";
        return Err(target.fail(Class::Transient, what));
    }
    Ok(response)
}

async fn send(client: &Client, target: Target<'_>, url: String, range: Option<&str>) -> Result<Response, WriteError> {
    let situation = Situation {
        in_session: false,
        metadata_server: client.metadata_server,
    };
    let mut request = client.http.request(Method::GET, url);
    if let Some(range) = range {
        request = request.header(RANGE, range);
    }
    let request = client.authorized(request, target, situation).await?;
    let response = request.send().await.map_err(|error| target.broken(&error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let why = match read(response, MAX_REASON).await {
        Ok((body, true)) => reason_of(&body),
        Ok((_, false)) => Reason::of_text("the explanation is longer than 64 KiB"),
        Err(error) => Reason::of_text(error_text(&error)),
    };
    Err(target.refused(status, &headers, &why, situation))
}
