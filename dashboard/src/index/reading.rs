//! Reads the bytes of chunks, and drops listings of chunks that have been deleted.

use std::ops::Range;

use gcstreamer_storage::{Download, WriteError};

use super::days::DAY;
use super::{Chunk, Index, hour_key};
use crate::lock::lock;

impl Index {
    /// Starts to read bytes of a chunk.
    ///
    /// # Errors
    /// [`WriteError`]. Status 404: the chunk has been deleted, and the next question about its hour lists it again.
    pub async fn download(&self, chunk: &Chunk, range: Range<u64>) -> Result<Download, WriteError> {
        let begun = self.reader.download(&self.bucket, &chunk.name, chunk.generation, range).await;
        begun.inspect_err(|error| self.look_again(chunk, error))
    }

    /// Reads all of `range` of a chunk into memory. The caller must bound the range.
    ///
    /// # Errors
    /// As [`Index::download`].
    pub async fn read(&self, chunk: &Chunk, range: Range<u64>) -> Result<bytes::Bytes, WriteError> {
        let read = self.reader.read(&self.bucket, &chunk.name, chunk.generation, range).await;
        read.inspect_err(|error| self.look_again(chunk, error))
    }

    /// Drops everything cached of the hour of a chunk if the error is 404: lifecycle rules and people delete chunks of finished
    /// hours, too.
    fn look_again(&self, chunk: &Chunk, error: &WriteError) {
        if error.http_status != Some(404) {
            return;
        }
        let parts = self.template.read(&chunk.name);
        if let Some((camera, start)) = parts.and_then(|parts| parts.device.zip(parts.start)) {
            let prefix = self.template.hour_prefix(&camera, start);
            let key = hour_key(&camera, &prefix);
            self.cache.forget(&key);
            lock(&self.runs).remove(&key);
            lock(&self.newest).remove(&camera);
            lock(&self.days).remove(&(camera, start - start % DAY));
        }
    }
}
