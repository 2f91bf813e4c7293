//! Cloud Storage objects: one attempt to store, describe or delete an object ([`GcsWriter`]), to list objects or to read a range
//! of one ([`GcsReader`]). [`read_public`] reads a public file.
//!
//! The only crate that names `google-cloud-storage`, `google-cloud-auth` and `reqwest`. It knows no GStreamer, chunks or disks,
//! and makes no timing decisions: **one call is one attempt**. The scheduler of the plugin decides when to retry, how many
//! attempts run at once and at which rate; [`WriteError`] has the information for that.
//!
//! Every attempt to store guarantees:
//! 1. `ifGenerationMatch=0` and a CRC32C known beforehand: an attempt can neither overwrite an object nor store damaged bytes
//!    unnoticed.
//! 2. It ends: an attempt without progress for `request-timeout` is dropped together with its connection.
//! 3. Success means that the server named a generation and exactly the size and checksum of the bytes given.
//! 4. No returned text contains a token, a key, a signature or a password.
//! 5. The payload is not copied, except to join pieces below 64 KiB.
//!
//! - `writer`: one attempt to store an object, as `single_shot` (one request) or `resumable` (a session). `object_api`:
//!   describes and deletes one. `reader`: lists and reads, with the pages of `listing`. `public`: a public file. `signed`:
//!   signed URLs.
//! - `body`: the bytes of an object, in memory or in a file. `body_source`: hands them to the HTTP client.
//! - `endpoint`, `error`, `error_text`: where credentials may go; what an answer means; texts without secrets.
//! - `credentials`: how requests are authorised. `metadata_server`, `token_wait`, `own_tasks`: its tokens, how long they are
//!   waited for, and the end of the tasks that fetch them.
//! - `client_pool`, `http_client`: connections and tokens that many sinks share. `watchdog`: ends an attempt without
//!   progress.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

mod body;
mod body_source;
mod client_pool;
mod credentials;
mod endpoint;
mod error;
mod error_text;
mod http_client;
mod listing;
mod metadata_server;
mod object_api;
mod own_tasks;
mod public;
mod reader;
mod resumable;
mod signed;
mod single_shot;
mod token_wait;
mod watchdog;
mod writer;

pub use body::{Backing, Body, MAX_PIECE, MIN_PIECE, READ_AHEAD, Reader};
pub use client_pool::ClientPool;
pub use credentials::{Credentials, CredentialsFileError};
pub use endpoint::{Endpoint, EndpointError, is_google_host};
pub use error::{Class, WriteError};
pub use listing::{Fields, ListQuery, Listed, Page};
pub use public::{PublicError, read_public};
pub use reader::{Download, GcsReader};
pub use signed::{SignError, UrlSigner};
pub use writer::GcsWriter;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An object to store, with its metadata.
#[derive(Clone, Debug)]
pub struct ObjectRequest {
    /// Bucket name, without `gs://`.
    pub bucket: String,
    /// Object name.
    pub name: String,
    /// `contentType`.
    pub content_type: String,
    /// `cacheControl`; the bucket's default when `None`.
    pub cache_control: Option<String>,
    /// `storageClass`; the bucket's default when `None`.
    pub storage_class: Option<String>,
    /// Cloud KMS key, `projects/P/locations/L/keyRings/R/cryptoKeys/K`; the bucket's default when `None`.
    pub kms_key: Option<String>,
    /// Custom metadata.
    pub metadata: BTreeMap<String, String>,
    /// `customTime`.
    pub custom_time: Option<SystemTime>,
    /// CRC32C (Castagnoli) of the whole body.
    pub crc32c: u32,
    /// Length of the body in bytes.
    pub size: u64,
    /// The bytes.
    pub body: Body,
}

/// A stored object as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Generation number; identifies this version of the object.
    pub generation: i64,
    /// Size in bytes.
    pub size: u64,
    /// CRC32C, if the server reports it.
    pub crc32c: Option<u32>,
    /// Creation time by the server's clock.
    pub created: Option<SystemTime>,
}

/// Limits the rate of an upload: called before each piece leaves.
///
/// Time spent in [`Pacer::admit`] counts as progress: it never ends an attempt.
pub trait Pacer: Send + Sync {
    /// Waits until `bytes` may leave.
    fn admit(&self, bytes: usize) -> BoxFuture<'_, ()>;
    /// Returns the largest piece wanted now; clamped to 4 KiB … [`MAX_PIECE`].
    fn piece(&self) -> usize;
    /// Called when the connection has taken the last byte of the body: from now on the object may be stored, whatever the answer.
    /// Not called if the server answers earlier. Must not block.
    fn sent_whole(&self) {}
}

/// A [`Pacer`] without a limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unpaced;

impl Pacer for Unpaced {
    fn admit(&self, _bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn piece(&self) -> usize {
        MAX_PIECE
    }
}

/// Destination of objects: Cloud Storage ([`GcsWriter`]), or a test's replacement.
pub trait ObjectWriter: Send + Sync {
    /// Makes one attempt to store an object that must not exist yet. Dropping the future cancels the attempt.
    fn write<'a>(&'a self, request: &'a ObjectRequest, pacer: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>>;

    /// Describes an object (`storage.objects.get`), to find the cause of a conflict.
    fn stat<'a>(&'a self, bucket: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>>;

    /// Deletes one generation of an object (`storage.objects.delete`). Succeeds if it no longer exists.
    fn delete<'a>(&'a self, bucket: &'a str, name: &'a str, generation: i64) -> BoxFuture<'a, Result<(), WriteError>>;
}

/// Default of the property `request-timeout`.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
