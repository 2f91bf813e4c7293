//! The bytes of chunks, and what it means that one is not there.

use std::ops::Range;

use gcstreamer_storage::{Download, WriteError};

use super::days::DAY;
use super::{Chunk, Index, hour_key};
use crate::lock::lock;

impl Index {
    /// Begins to read bytes of a chunk.
    ///
    /// # Errors
    /// [`WriteError`]; with status 404 the chunk does not exist any more, and its hour is listed again when it is asked for next.
    pub async fn download(&self, chunk: &Chunk, range: Range<u64>) -> Result<Download, WriteError> {
        let begun = self.reader.download(&self.bucket, &chunk.name, chunk.generation, range).await;
        begun.inspect_err(|error| self.look_again(chunk, error))
    }

    /// Reads bytes of a chunk, all of `range`, which the caller must bound.
    ///
    /// # Errors
    /// As [`Index::download`].
    pub async fn read(&self, chunk: &Chunk, range: Range<u64>) -> Result<bytes::Bytes, WriteError> {
        let read = self.reader.read(&self.bucket, &chunk.name, chunk.generation, range).await;
        read.inspect_err(|error| self.look_again(chunk, error))
    }

    /// A listing that names what is not there is out of date, however finished its hour is: lifecycle rules and people delete.
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
