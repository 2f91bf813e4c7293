//! The source from which an upload reads an object's bytes: a [`Reader`] that waits for the pacer and reports progress
//! to the watchdog.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::body::{Body, Reader};
use super::watchdog::Progress;
use super::{BoxFuture, Pacer};

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
    pacer: Arc<dyn Pacer>,
    progress: Arc<Progress>,
}

impl Source {
    pub(crate) fn new(body: &Body, pacer: Arc<dyn Pacer>, progress: Arc<Progress>) -> Self {
        Self {
            reader: body.reader(),
            pacer,
            progress,
        }
    }
}

impl Source {
    /// Creates a source that begins at `offset`, after a break.
    pub(crate) fn from(body: &Body, offset: u64, pacer: Arc<dyn Pacer>, progress: Arc<Progress>) -> Result<Self, SourceError> {
        let mut source = Self::new(body, pacer, progress);
        if !source.reader.seek(offset) {
            let size = body.len();
            return Err(SourceError::Beyond { offset, size });
        }
        source.progress.restart_at(offset);
        Ok(source)
    }

    /// Returns the next piece when the pacer admits it; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        self.progress.touch();
        let piece = match self.reader.next(self.pacer.piece()).await {
            Ok(Some(piece)) => piece,
            // The HTTP client asks again only after it has taken the last piece.
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
}

/// Returns whether the future is ready at once.
async fn at_once(future: &mut BoxFuture<'_, ()>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
