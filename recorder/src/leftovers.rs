//! Uploads chunks of the spool that no running sink owns: those of cameras that are unreachable or no longer configured. A sink
//! that records nothing adopts them, in a pipeline of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gst::prelude::*;

use crate::camera::report::Board;
use crate::camera::sink::Storage;
use crate::camera::stats;
use crate::camera::watch::Stored;

/// The `device-id` of the sink. No camera can have this id (`gcstreamer_schema::cameras`).
const DEVICE: &str = "recorder";
/// How often the spool is searched, once all chunks of the last search are stored.
const AGAIN: Duration = Duration::from_secs(30);
/// How often the flag `stop` is checked.
const POLL: Duration = Duration::from_millis(200);

/// Uploads leftovers until it is stopped.
#[derive(Debug)]
pub struct Leftovers {
    storage: Arc<Mutex<Arc<Storage>>>,
    stop: Arc<AtomicBool>,
    retries: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Leftovers {
    /// Starts uploading. Returns `None` without a spool.
    pub fn begin(storage: &Arc<Storage>, board: &Arc<Board>) -> Option<Self> {
        storage.spool_dir.as_ref()?;
        let (stop, retries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let storage = Arc::new(Mutex::new(Arc::clone(storage)));
        let (current, stopped, count) = (Arc::clone(&storage), Arc::clone(&stop), Arc::clone(&retries));
        let board = Arc::clone(board);
        let thread = std::thread::Builder::new().name("leftovers".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                take_over(&current, &stopped, &count, &board);
            }
        });
        Some(Self {
            storage,
            stop,
            retries,
            thread: thread.ok(),
        })
    }

    /// Applies changed limits of the same storage. All sinks share them, and the value set last wins: this sink must not restore
    /// an old one.
    pub fn adjust(&self, storage: &Arc<Storage>) {
        *self.storage.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(storage);
    }

    /// Returns the number of repeated uploads.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Stops uploading. Chunks that are not stored stay in the spool. Blocks for a few seconds at most.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs one sink, from its start until all chunks that it found are stored.
fn take_over(current: &Mutex<Arc<Storage>>, stop: &AtomicBool, retries: &AtomicU64, board: &Board) {
    let current = || Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner));
    let mut storage = current();
    let pipeline = gst::Pipeline::new();
    let started = match storage.sink(DEVICE) {
        Ok(sink) => {
            // Never warn of a missing first key unit: this sink gets no data.
            sink.set_property("startup-timeout", 0u64);
            // The end of the recorder waits for this. Chunks that are not stored by then stay in the spool.
            sink.set_property("shutdown-timeout", 1_000_000_000u64);
            pipeline.add(&sink).is_ok().then_some(sink)
        }
        Err(_) => None,
    };
    // PAUSED is enough: the session of a sink, which adopts the spool, begins at READY→PAUSED and needs no data.
    let sink = started.filter(|_| pipeline.set_state(gst::State::Paused).is_ok());
    let mut waited = Duration::ZERO;
    let mut counted = 0;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(POLL);
        waited += POLL;
        report(&pipeline, board);
        let Some(sink) = &sink else {
            // The sink could not start: try again as often as the spool is searched.
            if waited >= AGAIN {
                break;
            }
            continue;
        };
        let newest = current();
        if newest.limits != storage.limits {
            newest.limits.set_on(sink);
            storage = newest;
        }
        let now = stats::of(sink);
        retries.fetch_add(now.retries.saturating_sub(counted), Ordering::Relaxed);
        counted = now.retries;
        if waited >= AGAIN && now.chunks_pending == 0 {
            break;
        }
    }
    let _ = pipeline.set_state(gst::State::Null);
    report(&pipeline, board);
}

/// Logs the messages of the sink, and counts the chunks that it has stored.
fn report(pipeline: &gst::Pipeline, board: &Board) {
    let Some(bus) = pipeline.bus() else { return };
    while let Some(message) = bus.pop() {
        match message.view() {
            gst::MessageView::Element(element) => {
                if let Some(stored) = element.structure().and_then(Stored::of) {
                    board.note_stored(&stored);
                }
            }
            gst::MessageView::Warning(warning) => {
                tracing::warn!("spool: {}", gcstreamer_schema::redact(&warning.error().to_string()));
            }
            gst::MessageView::Error(error) => {
                tracing::warn!("spool: {}", gcstreamer_schema::redact(&error.error().to_string()));
            }
            _ => {}
        }
    }
}
