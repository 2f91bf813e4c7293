//! The bytes of chunks, remuxed for players or as one picture.
//!
//! Remuxed chunks are cached in bounded memory: a player asks for the header and then for the media of each, and several viewers
//! ask for the same ones. Remuxing is limited in number and size, because the whole chunk is in memory meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use gcstreamer_media::container::samples::{self, SamplesError};
use gcstreamer_storage::WriteError;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::hls::remux::{Picture, RemuxError, Remuxed, picture, remux};
use crate::index::{Chunk, Index};
use crate::lock::lock;

/// Largest chunk that is remuxed, bytes.
const MAX_CHUNK: u64 = 128 << 20;
/// Most bytes at the beginning of a chunk that are read for a picture.
const MAX_PREVIEW: u64 = 16 << 20;
/// Bytes that are read first for a picture if the metadata do not say where it ends.
const PREVIEW: u64 = 1 << 20;
/// Most chunks that are remuxed at once.
const PARALLEL: usize = 3;
/// Most bytes of remuxed chunks and of pictures in memory.
const MAX_KEPT: usize = 96 << 20;

/// Why there are no bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MediaError {
    /// The bucket cannot be read.
    #[error(transparent)]
    Bucket(#[from] WriteError),
    /// The chunk cannot be remuxed.
    #[error(transparent)]
    Remux(#[from] RemuxError),
    /// The chunk, or the part of it with the picture, is too large.
    #[error("the chunk has {0} bytes; chunks up to 128 MiB are played, and key frames up to 16 MiB shown")]
    TooLarge(u64),
    /// The task that remuxed the chunk panicked.
    #[error("the chunk could not be remuxed")]
    Ended,
}

/// Most header checksums in memory: those of some days of chunks.
const MAX_HEADERS: usize = 20_000;

/// A cached result of one generation of an object.
#[derive(Clone, Debug)]
enum Cached {
    Remuxed(Arc<Remuxed>),
    Picture(Picture),
}

impl Cached {
    fn len(&self) -> usize {
        match self {
            Self::Remuxed(remuxed) => remuxed.init.len() + remuxed.segment.len(),
            Self::Picture(picture) => picture.file.len(),
        }
    }
}

type Key = (Arc<str>, i64, bool);

/// Reads chunks of the bucket and remuxes them. Caches the results in memory, up to a limit.
#[derive(Debug)]
pub struct Media {
    cached: Mutex<VecDeque<(Key, Cached)>>,
    parallel: Semaphore,
    slots: crate::index::cache::Cache,
    /// Checksums of the headers that were made, by generation and name.
    headers: Mutex<BTreeMap<(i64, Arc<str>), u64>>,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            cached: Mutex::default(),
            parallel: Semaphore::new(PARALLEL),
            slots: crate::index::cache::Cache::new(None),
            headers: Mutex::default(),
        }
    }
}

impl Media {
    /// Returns a chunk as header and fragment.
    ///
    /// # Errors
    /// [`MediaError`].
    pub async fn remuxed(&self, index: &Index, chunk: &Chunk) -> Result<Arc<Remuxed>, MediaError> {
        let key = (chunk.name.clone(), chunk.generation, false);
        // Locked before the semaphore: viewers who wait for the same chunk must not hold the permits meanwhile.
        let slot = self.slots.slot(&format!("{}\0{}", chunk.generation, chunk.name));
        let _turn = slot.lock().await;
        if let Some(Cached::Remuxed(remuxed)) = self.get(&key) {
            return Ok(remuxed);
        }
        if chunk.size > MAX_CHUNK {
            return Err(MediaError::TooLarge(chunk.size));
        }
        // The semaphore is never closed, so this always gets a permit.
        let _permit = self.parallel.acquire().await;
        let bytes = index.read(chunk, 0..chunk.size).await?;
        let (container, pts_start, duration) = (chunk.meta.container, chunk.meta.pts_start, chunk.meta.duration);
        let write = move || -> Result<Remuxed, RemuxError> { remux(&samples::read(container, &bytes, pts_start)?, duration) };
        let remuxed = Arc::new(tokio::task::spawn_blocking(write).await.map_err(|_| MediaError::Ended)??);
        self.remember_header(chunk, &remuxed.init);
        self.keep(key, Cached::Remuxed(remuxed.clone()));
        Ok(remuxed)
    }

    /// Returns a checksum of the header that was made for a chunk. `None`: none was made, or it was forgotten.
    pub fn header_of(&self, chunk: &Chunk) -> Option<u64> {
        lock(&self.headers).get(&(chunk.generation, chunk.name.clone())).copied()
    }

    fn remember_header(&self, chunk: &Chunk, init: &[u8]) {
        let digest = Sha256::digest(init);
        let number = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        let mut headers = lock(&self.headers);
        headers.insert((chunk.generation, chunk.name.clone()), number);
        // Generations ascend with time, so the first key is that of the oldest recording.
        while headers.len() > MAX_HEADERS {
            headers.pop_first();
        }
    }

    /// Returns the first key frame of a chunk as an MP4 of one sample.
    ///
    /// # Errors
    /// [`MediaError`].
    pub async fn picture(&self, index: &Index, chunk: &Chunk) -> Result<Picture, MediaError> {
        let key = (chunk.name.clone(), chunk.generation, true);
        if let Some(Cached::Picture(picture)) = self.get(&key) {
            return Ok(picture);
        }
        let known = chunk.meta.preview_bytes.filter(|end| *end > 0).map(|end| end.min(chunk.size));
        if let Some(end) = known.filter(|end| *end > MAX_PREVIEW) {
            return Err(MediaError::TooLarge(end));
        }
        let (near, far) = (chunk.size.min(PREVIEW), chunk.size.min(MAX_PREVIEW));
        let picture = match picture_within(index, chunk, known.unwrap_or(near)).await {
            // Without `preview-bytes` it is unknown how far away the first key frame is: read more once.
            Err(MediaError::Remux(RemuxError::NoKeyPicture | RemuxError::Samples(SamplesError::Empty)))
                if known.is_none() && near < far =>
            {
                picture_within(index, chunk, far).await?
            }
            found => found?,
        };
        self.keep(key, Cached::Picture(picture.clone()));
        Ok(picture)
    }

    fn cached(&self) -> MutexGuard<'_, VecDeque<(Key, Cached)>> {
        lock(&self.cached)
    }

    fn get(&self, key: &Key) -> Option<Cached> {
        let mut cached = self.cached();
        let at = cached.iter().position(|(known, _)| known == key)?;
        // Moved to the back, so the least recently used entry is at the front.
        let entry = cached.remove(at)?;
        let found = entry.1.clone();
        cached.push_back(entry);
        Some(found)
    }

    fn keep(&self, key: Key, value: Cached) {
        let mut cached = self.cached();
        cached.retain(|(known, _)| *known != key);
        cached.push_back((key, value));
        let mut sum: usize = cached.iter().map(|(_, value)| value.len()).sum();
        // The newest stays, even if it alone is over the limit: a player asks for the header and the media one after the other.
        while sum > MAX_KEPT && cached.len() > 1 {
            sum -= cached.pop_front().map_or(0, |(_, value)| value.len());
        }
    }
}

/// Reads the first `end` bytes of a chunk and returns the first key frame in them.
async fn picture_within(index: &Index, chunk: &Chunk, end: u64) -> Result<Picture, MediaError> {
    let bytes = index.read(chunk, 0..end).await?;
    let (container, pts_start) = (chunk.meta.container, chunk.meta.pts_start);
    let write = move || -> Result<Picture, RemuxError> { picture(&samples::read(container, &bytes, pts_start)?) };
    Ok(tokio::task::spawn_blocking(write).await.map_err(|_| MediaError::Ended)??)
}
