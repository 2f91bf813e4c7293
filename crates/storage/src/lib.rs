//! Objects of Cloud Storage: one attempt to store one, to look at one, to delete one.
//!
//! The only place that names `google-cloud-storage`, `google-cloud-auth` and `reqwest`. It knows nothing of GStreamer, of
//! chunks or of disks, and it decides nothing about time: **one call is one attempt**. When to try again, how many at
//! once and at which rate is the scheduler's business; it is told enough to decide (see [`WriteError`]).
//!
//! What every attempt keeps:
//! 1. `ifGenerationMatch=0` and a CRC32C known beforehand: an attempt can neither overwrite nor store damaged bytes unseen.
//! 2. It ends. An attempt that makes no progress for `request-timeout` is dropped, and its connection with it.
//! 3. Success means that the server named a generation, and the size and checksum of exactly the bytes that were given.
//! 4. No text that leaves here holds a token, a key, a signature or a password.
//! 5. The payload is never copied, except that pieces below 64 KiB are joined.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

mod body;
mod causes;
mod client_pool;
mod credentials;
mod endpoint;
mod error;
mod object_api;
mod source;
mod watchdog;
mod writer;

pub use body::{Backing, Body, MAX_PIECE, MIN_PIECE, READ_AHEAD, Reader};
pub use client_pool::ClientPool;
pub use credentials::{Credentials, CredentialsFileError};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Class, WriteError};
pub use writer::GcsWriter;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The object to store and all that is said of it.
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

/// What the server says of a stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Generation number: names this version of the object for ever.
    pub generation: i64,
    /// Size in bytes.
    pub size: u64,
    /// CRC32C, where the server tells it.
    pub crc32c: Option<u32>,
    /// The server's clock when the object was made.
    pub created: Option<SystemTime>,
}

/// Slows an upload down: asked before every piece leaves.
///
/// The time spent in [`Pacer::admit`] counts as progress: an attempt is never given up because it was told to wait.
pub trait Pacer: Send + Sync {
    /// Waits until `bytes` may leave.
    fn admit(&self, bytes: usize) -> BoxFuture<'_, ()>;
    /// The largest piece wanted now; kept between 4 KiB and [`MAX_PIECE`].
    fn piece(&self) -> usize;
}

/// A [`Pacer`] that lets everything through.
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

/// Where objects go: Cloud Storage ([`GcsWriter`]), or what a test puts there.
pub trait ObjectWriter: Send + Sync {
    /// Makes one attempt to store an object that must not exist yet. Dropping the future gives the attempt up.
    fn write<'a>(&'a self, request: &'a ObjectRequest, pacer: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>>;

    /// Looks at an object (`storage.objects.get`): what stands under a name that was answered with a conflict?
    fn stat<'a>(&'a self, bucket: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>>;

    /// Deletes one generation of an object (`storage.objects.delete`). That it is gone already is success.
    fn delete<'a>(&'a self, bucket: &'a str, name: &'a str, generation: i64) -> BoxFuture<'a, Result<(), WriteError>>;
}

/// The default of the property `request-timeout`.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
