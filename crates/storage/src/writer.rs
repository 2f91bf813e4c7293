//! The [`ObjectWriter`] of Cloud Storage.
//!
//! Objects below 16 MiB are sent as one multipart request (`single_shot`): one round trip and no server state. Larger ones use a
//! resumable session, which may break **once** and continues where the server's bytes end. A second break ends the attempt, and
//! the next one starts over (the crate keeps no session). An endpoint with a port never gets a session, see
//! `Endpoint::can_resume`; the path to a private or emulated server is short anyway.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use google_cloud_gax::backoff_policy::BackoffPolicy;
use google_cloud_gax::error::Error as CrateError;
use google_cloud_gax::retry_policy::RetryPolicy;
use google_cloud_gax::retry_result::RetryResult;
use google_cloud_gax::retry_state::RetryState;
use google_cloud_gax::retry_throttler::RetryThrottler;
use google_cloud_storage::model::Object;

use super::client_pool::{Client, SharedClient, USER_AGENT};
use super::error::{Action, Class, Situation, Target, WriteError};
use super::object_api::Description;
use super::source::Source;
use super::watchdog::{Progress, watch};
use super::{BoxFuture, ClientPool, Credentials, DEFAULT_REQUEST_TIMEOUT, Endpoint, ObjectRequest, ObjectWriter, Pacer, Stored};
use gcstreamer_schema::limits::{check_bucket, check_metadata, check_object_name};
use gcstreamer_schema::redact;

/// Uploads of at least this size are resumable; so a broken connection costs at most this many bytes.
const RESUMABLE_FROM: u64 = 16 << 20;
/// Wait before a broken session is resumed.
const RESUME_AFTER: Duration = Duration::from_secs(1);

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

    /// Uses resumable sessions for at least this size, or never. Does not work with servers that build the session's address from
    /// the `Host` header and listen on a port of their own.
    #[must_use]
    pub fn with_resumable_from(mut self, size: Option<u64>) -> Self {
        self.resumable_from = size;
        self
    }

    async fn attempt(&self, request: &ObjectRequest, source: Source, progress: &Arc<Progress>) -> Result<Stored, WriteError> {
        let target = Target {
            action: Action::Store,
            bucket: &request.bucket,
            name: &request.name,
        };
        let client = self.client.get(target).await?;
        let resumable = self.resumable_from.is_some_and(|size| request.size >= size);
        let said = if resumable {
            upload(&client, request, source, progress).await.map_err(|error| {
                let situation = Situation {
                    in_session: progress.any_taken(),
                    metadata_server: client.metadata_server,
                };
                target.crate_error(&error, situation)
            })
        } else {
            client.store(request, source, target).await
        };
        let result = said.and_then(|said| verified(request, target, &said));
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
            let source = Source::new(&request.body, pacer, progress.clone());
            match watch(&progress, self.request_timeout, self.attempt(request, source, &progress)).await {
                Ok(result) => result,
                Err(stalled) => Err(target.stalled(stalled, request.size)),
            }
        })
    }

    fn stat<'a>(&'a self, bucket: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>> {
        let target = Target {
            action: Action::Look,
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

/// Stores the object as a resumable session: the only upload call of the client crate.
async fn upload(
    client: &Client,
    request: &ObjectRequest,
    source: Source,
    progress: &Arc<Progress>,
) -> Result<Description, CrateError> {
    let bucket = format!("projects/_/buckets/{}", request.bucket);
    let mut call = client
        .storage
        .write_object(bucket, &request.name, source)
        .set_if_generation_match(0)
        .with_known_crc32c(request.crc32c)
        .set_content_type(&request.content_type)
        .set_metadata(&request.metadata)
        .with_resumable_upload_threshold(0usize)
        .with_retry_policy(Resume {
            progress: progress.clone(),
        })
        .with_backoff_policy(Pause)
        .with_retry_throttler(Unthrottled)
        .with_user_agent(USER_AGENT);
    if let Some(value) = &request.cache_control {
        call = call.set_cache_control(value);
    }
    if let Some(value) = &request.storage_class {
        call = call.set_storage_class(value);
    }
    if let Some(value) = &request.kms_key {
        call = call.set_kms_key(value);
    }
    if let Some(time) = request.custom_time {
        // The crate's own time type, which its interface does not export.
        let mut custom_time = Object::new().custom_time;
        custom_time = time.try_into().ok().or(custom_time);
        if let Some(time) = custom_time {
            call = call.set_custom_time(time);
        }
    }
    call.send_unbuffered().await.map(described)
}

fn described(object: Object) -> Description {
    let created = object.create_time.as_ref().and_then(|time| {
        let since = Duration::new(u64::try_from(time.seconds()).ok()?, u32::try_from(time.nanos()).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since).filter(|_| !since.is_zero())
    });
    Description {
        generation: Some(object.generation),
        size: u64::try_from(object.size).ok(),
        crc32c: object.checksums.as_ref().and_then(|checksums| checksums.crc32c),
        created,
        name: object.name,
        bucket: object.bucket,
    }
}

/// Checks that the server has what was sent.
fn verified(request: &ObjectRequest, target: Target<'_>, object: &Description) -> Result<Stored, WriteError> {
    let generation = object.generation.unwrap_or_default();
    if generation <= 0 {
        let what = "the answer names no generation, so it is not Cloud Storage's; a login page or a proxy stands between";
        return Err(target.fail(Class::Transient, what));
    }
    let bucket = object.bucket.rsplit('/').next().unwrap_or_default();
    let is_other = |said: &str, wanted: &str| !said.is_empty() && said != wanted;
    if is_other(&object.name, &request.name) || is_other(bucket, &request.bucket) {
        // Nothing is deleted: the answer does not prove what is stored under our name.
        let what = format!(
            "the answer is about gs://{bucket}/{}, another object; a proxy or a cache stands between",
            redact(&object.name)
        );
        return Err(target.fail(Class::Transient, &what));
    }
    let size = object.size.unwrap_or_default();
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

/// One attempt. If it breaks after bytes have left, it may be resumed once.
#[derive(Clone, Debug)]
struct Resume {
    progress: Arc<Progress>,
}

impl RetryPolicy for Resume {
    fn on_error(&self, state: &RetryState, error: CrateError) -> RetryResult {
        let broke = match error.http_status_code() {
            // Includes a reset connection and a truncated answer.
            None => error.is_io() || error.is_timeout() || error.is_connect() || error.is_deserialization(),
            // A request to wait is handled by the scheduler, not here.
            Some(503) => error
                .http_headers()
                .is_none_or(|headers| !headers.contains_key("retry-after")),
            Some(status) => matches!(status, 408 | 500 | 502 | 504),
        };
        let under_way = self.progress.any_taken();
        if broke && under_way && state.attempt_count < 2 {
            return RetryResult::Continue(error);
        }
        RetryResult::Permanent(error)
    }
}

#[derive(Clone, Copy, Debug)]
struct Pause;

impl BackoffPolicy for Pause {
    fn on_failure(&self, _state: &RetryState) -> Duration {
        RESUME_AFTER
    }
}

/// The crate's own throttle never forgets an outage, and would delay the only resume.
#[derive(Clone, Copy, Debug)]
struct Unthrottled;

impl RetryThrottler for Unthrottled {
    fn throttle_retry_attempt(&self) -> bool {
        false
    }

    fn on_retry_failure(&mut self, _flow: &RetryResult) {}

    fn on_success(&mut self) {}
}
