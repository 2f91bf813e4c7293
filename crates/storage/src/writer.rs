//! The [`ObjectWriter`] of Cloud Storage.
//!
//! Objects below 16 MiB are sent as one multipart request (`single_shot`): one round trip and no server state. Larger ones use a
//! resumable session (`resumable`): after a break it continues where the server's bytes end, while the server gains bytes. The
//! next attempt starts over, because no session is kept. An endpoint with a port never gets a session, see
//! `Endpoint::can_resume`; the path to a private or emulated server is short anyway.

use std::sync::Arc;
use std::time::Duration;

use super::body_source::Source;
use super::client_pool::{Client, SharedClient};
use super::error::{Action, Class, Target, WriteError};
use super::object_api::Description;
use super::watchdog::{Progress, watch};
use super::{BoxFuture, ClientPool, Credentials, DEFAULT_REQUEST_TIMEOUT, Endpoint, ObjectRequest, ObjectWriter, Pacer, Stored};
use gcstreamer_schema::limits::{check_bucket, check_metadata, check_object_name};
use gcstreamer_schema::redact;

/// Uploads of at least this size are resumable, so a broken connection costs at most this many bytes.
const RESUMABLE_FROM: u64 = 16 << 20;

/// Stores objects in Cloud Storage.
#[derive(Clone, Debug)]
pub struct GcsWriter {
    client: Arc<SharedClient>,
    request_timeout: Duration,
    resumable_from: Option<u64>,
}

impl GcsWriter {
    /// Creates a writer to this endpoint. No file is read and no server contacted before the first attempt, which must be made
    /// inside tokio.
    #[must_use]
    pub fn new(pool: &ClientPool, endpoint: Endpoint, credentials: Credentials) -> Self {
        let resumable_from = endpoint.can_resume().then_some(RESUMABLE_FROM);
        Self {
            client: pool.client(endpoint, credentials),
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            resumable_from,
        }
    }

    /// Sets the time without progress after which an attempt ends; zero: no limit.
    #[must_use]
    pub fn with_request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }

    /// Uses resumable sessions for at least this size, or never.
    #[must_use]
    pub fn with_resumable_from(mut self, size: Option<u64>) -> Self {
        self.resumable_from = size;
        self
    }

    async fn attempt(
        &self,
        request: &ObjectRequest,
        pacer: Arc<dyn Pacer>,
        progress: &Arc<Progress>,
    ) -> Result<Stored, WriteError> {
        let target = Target {
            action: Action::Store,
            bucket: &request.bucket,
            name: &request.name,
        };
        let client = self.client.get(target).await?;
        let resumable = self.resumable_from.is_some_and(|size| request.size >= size);
        let stated = if resumable {
            match client.begin(request, target).await {
                Ok(session) => session.store(&pacer, progress).await,
                Err(error) => Err(error),
            }
        } else {
            let source = Source::new(&request.body, pacer, progress.clone());
            client.store(request, source, target).await
        };
        let result = stated.and_then(|stated| verified(request, target, &stated));
        let result = match result {
            Ok(stored) => Ok(stored),
            Err(error) => Err(blamed(request, target, error).await),
        };
        self.after(&client, result).await
    }

    /// Discards a client whose credentials were refused.
    async fn after<T>(&self, client: &Client, result: Result<T, WriteError>) -> Result<T, WriteError> {
        if result.as_ref().is_err_and(|error| error.class == Class::Auth) {
            self.client.discard(client).await;
        }
        result
    }

    /// Applies the time limit to a request without a body.
    async fn limited<T>(&self, target: Target<'_>, call: impl Future<Output = Result<T, WriteError>>) -> Result<T, WriteError> {
        match watch(&Progress::new(), self.request_timeout, call).await {
            Ok(result) => result,
            Err(stalled) => Err(target.stalled(stalled, 0)),
        }
    }
}

impl ObjectWriter for GcsWriter {
    fn write<'a>(&'a self, request: &'a ObjectRequest, pacer: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(async move {
            let target = Target {
                action: Action::Store,
                bucket: &request.bucket,
                name: &request.name,
            };
            check(request, target)?;
            let progress = Arc::new(Progress::new());
            match watch(&progress, self.request_timeout, self.attempt(request, pacer, &progress)).await {
                Ok(result) => result,
                Err(stalled) => Err(target.stalled(stalled, request.size)),
            }
        })
    }

    fn stat<'a>(&'a self, bucket: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>> {
        let target = Target {
            action: Action::GetMetadata,
            bucket,
            name,
        };
        Box::pin(self.limited(target, async move {
            check_names(target)?;
            let client = self.client.get(target).await?;
            self.after(&client, client.stat(target).await).await
        }))
    }

    fn delete<'a>(&'a self, bucket: &'a str, name: &'a str, generation: i64) -> BoxFuture<'a, Result<(), WriteError>> {
        let target = Target {
            action: Action::Delete,
            bucket,
            name,
        };
        Box::pin(self.limited(target, async move {
            check_names(target)?;
            let client = self.client.get(target).await?;
            self.after(&client, client.delete(target, generation).await).await
        }))
    }
}

fn check_names(target: Target<'_>) -> Result<(), WriteError> {
    let checked = check_bucket(target.bucket).and_then(|()| check_object_name(target.name));
    checked.map_err(|error| target.fail(Class::Local, &error.to_string()))
}

fn check(request: &ObjectRequest, target: Target<'_>) -> Result<(), WriteError> {
    check_names(target)?;
    check_metadata(&request.metadata).map_err(|error| target.fail(Class::Local, &error.to_string()))?;
    if request.body.len() != request.size {
        let what = format!("{} bytes are there of the {} announced", request.body.len(), request.size);
        return Err(target.fail(Class::Local, &what));
    }
    Ok(())
}

/// Checks that the server has what was sent.
fn verified(request: &ObjectRequest, target: Target<'_>, object: &Description) -> Result<Stored, WriteError> {
    let generation = object.generation.unwrap_or_default();
    if generation <= 0 {
        let what = "the answer names no generation, so it is not Cloud Storage's; a login page or a proxy stands between";
        return Err(target.fail(Class::Transient, what));
    }
    let bucket = object.bucket.rsplit('/').next().unwrap_or_default();
    let is_other = |stated: &str, wanted: &str| !stated.is_empty() && stated != wanted;
    if is_other(&object.name, &request.name) || is_other(bucket, &request.bucket) {
        // No `bad_generation`, so nothing is deleted: the answer does not prove what is stored under our name.
        let what = format!(
            "the answer is about gs://{bucket}/{}, another object; a proxy or a cache stands between",
            redact(&object.name)
        );
        return Err(target.fail(Class::Transient, &what));
    }
    let Some(size) = object.size else {
        // No `bad_generation`, so nothing is deleted: the stored object may be complete.
        let what = "the answer names no size, so it proves nothing; the object may be stored";
        return Err(target.fail(Class::Transient, what));
    };
    if size != request.size {
        return Err(target.bad_object(generation, &format!("{size} bytes instead of {}", request.size)));
    }
    let crc32c = object.crc32c;
    if let Some(crc) = crc32c.filter(|crc| *crc != request.crc32c) {
        return Err(target.bad_object(generation, &format!("CRC32C {crc:08x} instead of {:08x}", request.crc32c)));
    }
    if crc32c.is_none() && (object.name.is_empty() || bucket.is_empty()) {
        let what = "the answer has neither a checksum nor a name, so it proves nothing; the object may be stored";
        return Err(target.fail(Class::Transient, what));
    }
    Ok(Stored {
        generation,
        size,
        crc32c,
        created: object.created,
    })
}

/// Finds out whether a checksum mismatch arose in transit or in this machine before sending.
async fn blamed(request: &ObjectRequest, target: Target<'_>, error: WriteError) -> WriteError {
    let about_checksum = error.bad_generation.is_some() || (error.http_status == Some(400) && error.class == Class::Transient);
    if !about_checksum {
        return error;
    }
    let body = request.body.clone();
    let crc32c = tokio::task::spawn_blocking(move || body.crc32c()).await;
    if matches!(crc32c, Ok(Ok(crc32c)) if crc32c == request.crc32c) {
        return error;
    }
    let what = "the bytes are no longer what they were when they arrived: memory or disk of this machine is failing";
    WriteError {
        bad_generation: error.bad_generation,
        http_status: error.http_status,
        ..target.fail(Class::Local, what)
    }
}
