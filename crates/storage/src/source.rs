//! The source from which the client crate reads an object's bytes: a [`Reader`] that waits for the pacer and reports progress
//! to the watchdog.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use google_cloud_storage::streaming_source::{Seek, SizeHint, StreamingSource};

use super::body::{Body, Reader};
use super::watchdog::Progress;
use super::{BoxFuture, Pacer};

/// How often reading may start from an offset: once, and once more after a resumable upload broke. The crate itself never stops
/// if a server keeps answering 308 without storing anything.
const MAX_READS: u32 = 2;

/// Reading failed, or the server reports an impossible offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    /// The server answered 308 more often than the upload broke.
    #[error("the server keeps asking for bytes that it was sent")]
    KeepsNothing,
    /// The server wants to continue beyond the end.
    #[error("the server claims to have {offset} bytes of an object of {size}")]
    Beyond { offset: u64, size: u64 },
    /// The bytes cannot be read from their backing.
    #[error("the bytes to store cannot be read: {0}")]
    Disk(String),
}

pub(crate) struct Source {
    reader: Reader,
    len: u64,
    pacer: Arc<dyn Pacer>,
    progress: Arc<Progress>,
    reads: u32,
}

impl Source {
    pub(crate) fn new(body: &Body, pacer: Arc<dyn Pacer>, progress: Arc<Progress>) -> Self {
        Self {
            reader: body.reader(),
            len: body.len(),
            pacer,
            progress,
            reads: 0,
        }
    }
}

impl StreamingSource for Source {
    type Error = SourceError;

    async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        self.progress.touch();
        let piece = match self.reader.next(self.pacer.piece()).await {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                self.progress.all_taken();
                self.pacer.sent_whole();
                return None;
            }
            Err(error) => return Some(Err(SourceError::Disk(error.to_string()))),
        };
        let mut admission = self.pacer.admit(piece.len());
        // Most pieces need not wait; an admission without a wait needs no accounting.
        if !at_once(&mut admission).await {
            let _pause = self.progress.paced();
            admission.await;
        }
        self.progress.taken(piece.len() as u64);
        Some(Ok(piece))
    }

    async fn size_hint(&self) -> Result<SizeHint, SourceError> {
        Ok(SizeHint::with_exact(self.len))
    }
}

/// Returns whether the future is ready at once.
async fn at_once(future: &mut BoxFuture<'_, ()>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

impl Seek for Source {
    type Error = SourceError;

    async fn seek(&mut self, offset: u64) -> Result<(), SourceError> {
        if self.reads >= MAX_READS {
            return Err(SourceError::KeepsNothing);
        }
        self.reads = self.reads.saturating_add(1);
        if !self.reader.seek(offset) {
            return Err(SourceError::Beyond { offset, size: self.len });
        }
        self.progress.restart_at(offset);
        Ok(())
    }
}
