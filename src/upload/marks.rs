//! Names under which a chunk was sent whole: the proof that an object which may not be read is the chunk's own.
//!
//! A name counts from the moment its last byte has left, and no longer once the server has said that nothing was stored by that
//! request, or that what was stored is damaged. In memory the names are shared by whatever holds the chunk; [`SpooledChunk`] keeps them
//! on disk as well, as far as the disk takes them. Decisions are in [`super::attempt`].

use std::sync::{Arc, Mutex};

use tokio::task::{JoinHandle, spawn_blocking};

use super::chunk::{SentNames, SpooledChunk};
use crate::base::lock::lock;
use gcstreamer_storage::{BoxFuture, Pacer};

/// The marks of one chunk, wherever they are kept.
#[derive(Clone, Debug)]
pub struct Marks {
    names: Arc<SentNames>,
    disk: Option<Arc<dyn SpooledChunk>>,
}

impl Marks {
    /// `disk`: where they are kept as well.
    pub fn new(names: Arc<SentNames>, disk: Option<Arc<dyn SpooledChunk>>) -> Self {
        Self { names, disk }
    }

    fn disk(&self) -> Option<Arc<dyn SpooledChunk>> {
        // A part that was completed meanwhile takes no marks any more.
        self.names.moved().or_else(|| self.disk.clone())
    }

    /// Whether the chunk was sent whole under this name before.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.has(name)
    }

    /// A first request is about to be made. Durable when this returns, where the disk takes it.
    pub(super) async fn attempted(&self) {
        self.on_disk(|spooled| spooled.mark_attempted()).await;
    }

    /// The request under this name has stored nothing.
    pub(super) async fn not_stored(&self, name: &str) {
        self.refund(name, false).await;
    }

    /// What stands under this name is damaged.
    pub(super) async fn damaged(&self, name: &str) {
        self.refund(name, true).await;
    }

    /// How many objects of this chunk were damaged, as far as this process knows.
    pub(super) fn damaged_objects(&self) -> usize {
        self.names.damaged_objects()
    }

    async fn refund(&self, name: &str, for_good: bool) {
        // Memory first: that is what the next request asks, and a disk may not answer.
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

/// Watches one request: the pacer that sets the mark when the last byte leaves.
pub(super) struct Sending {
    flow: Arc<dyn Pacer>,
    marks: Marks,
    name: String,
    writing: Mutex<Option<JoinHandle<()>>>,
}

impl Sending {
    /// A request under this name.
    pub(super) fn new(flow: Arc<dyn Pacer>, marks: &Marks, name: &str) -> Arc<Self> {
        Arc::new(Self {
            flow,
            marks: marks.clone(),
            name: name.to_owned(),
            writing: Mutex::new(None),
        })
    }

    /// Waits until the mark is written, so that what is written next comes after it.
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
            // On another thread: this is called from within the request, which must not wait for a disk.
            *lock(&self.writing) = Some(spawn_blocking(move || spooled.mark_sent(&name)));
        }
    }
}
