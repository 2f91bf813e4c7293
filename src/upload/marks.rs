//! Names under which a chunk was sent whole. They prove that an object which cannot be read is the chunk's own.
//!
//! A name counts from the moment its last byte was sent, until the server answers that this request stored nothing or that the
//! stored object is damaged. In memory the names are shared by all owners of the chunk; [`SpooledChunk`] records them on disk
//! too, as far as the disk accepts them. [`super::attempt`] decides by them.

use std::sync::{Arc, Mutex};

use tokio::task::{JoinHandle, spawn_blocking};

use super::chunk::{SentNames, SpooledChunk};
use crate::base::lock::lock;
use gcstreamer_storage::{BoxFuture, Pacer};

/// The marks of one chunk, in memory and on disk.
#[derive(Clone, Debug)]
pub struct Marks {
    names: Arc<SentNames>,
    disk: Option<Arc<dyn SpooledChunk>>,
}

impl Marks {
    /// Creates the marks; `disk` is where they are recorded too.
    pub fn new(names: Arc<SentNames>, disk: Option<Arc<dyn SpooledChunk>>) -> Self {
        Self { names, disk }
    }

    fn disk(&self) -> Option<Arc<dyn SpooledChunk>> {
        // A part that was completed meanwhile accepts no marks any more.
        self.names.moved().or_else(|| self.disk.clone())
    }

    /// Whether the chunk was sent whole under this name before.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.has(name)
    }

    /// Records that a request is about to be made; durable on return if the disk accepts it.
    pub(super) async fn attempted(&self) {
        self.on_disk(|spooled| spooled.mark_attempted()).await;
    }

    /// Removes the mark: the request under this name stored nothing.
    pub(super) async fn not_stored(&self, name: &str) {
        self.refund(name, false).await;
    }

    /// Removes the mark for good: the object under this name is damaged.
    pub(super) async fn damaged(&self, name: &str) {
        self.refund(name, true).await;
    }

    /// Returns how many objects of this chunk were damaged, as far as this process knows.
    pub(super) fn damaged_objects(&self) -> usize {
        self.names.damaged_objects()
    }

    async fn refund(&self, name: &str, for_good: bool) {
        // Memory first: the next request reads it, and the disk may not answer.
        self.names.remove(name, for_good);
        let name = name.to_owned();
        self.on_disk(move |spooled| spooled.unmark_sent(&name)).await;
    }

    async fn on_disk(&self, work: impl FnOnce(&dyn SpooledChunk) + Send + 'static) {
        if let Some(spooled) = self.disk() {
            let _ = spawn_blocking(move || work(&*spooled)).await;
        }
    }
}

/// The pacer of one request: sets the mark when the last byte was sent.
pub(super) struct Sending {
    flow: Arc<dyn Pacer>,
    marks: Marks,
    name: String,
    writing: Mutex<Option<JoinHandle<()>>>,
}

impl Sending {
    /// Creates the pacer of a request under this name.
    pub(super) fn new(flow: Arc<dyn Pacer>, marks: &Marks, name: &str) -> Arc<Self> {
        Arc::new(Self {
            flow,
            marks: marks.clone(),
            name: name.to_owned(),
            writing: Mutex::new(None),
        })
    }

    /// Waits until the mark is written, so that later writes follow it.
    pub(super) async fn settled(&self) {
        let writing = lock(&self.writing).take();
        if let Some(writing) = writing {
            let _ = writing.await;
        }
    }
}

impl Pacer for Sending {
    fn admit(&self, bytes: usize) -> BoxFuture<'_, ()> {
        self.flow.admit(bytes)
    }

    fn piece(&self) -> usize {
        self.flow.piece()
    }

    fn sent_whole(&self) {
        if self.marks.names.insert(&self.name)
            && let Some(spooled) = self.marks.disk()
        {
            let name = self.name.clone();
            // On another thread: the request calls this and must not wait for a disk.
            *lock(&self.writing) = Some(spawn_blocking(move || spooled.mark_sent(&name)));
        }
    }
}
