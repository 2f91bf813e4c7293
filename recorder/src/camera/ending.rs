//! The end of a recording, in a thread of its own: nothing of it holds up another camera, or this one's next attempt.
//!
//! 1. EOS goes into the tracks, as if the camera had sent it: the muxer gives out what it holds, and `gcssink` closes its chunk.
//! 2. The source goes to NULL, which ends the session at the camera (TEARDOWN) and closes the socket.
//! 3. [`News::Gone`]: the camera is free, and with the EOS in `gcssink` bucket and device-id are free too.
//! 4. Chunks that wait in memory are uploaded for as long as the process runs; those on disk are the next sink's.
//! 5. NULL.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::bus;
use super::recording::Recording;
use super::stats;
use super::watch::News;
use gstgcstreamer::base::lock::lock;

/// A muxer gives out what it holds at once, or never.
const MUXER: Duration = Duration::from_secs(2);
/// What is on disk is uploaded by this sink for this long.
const DISK: Duration = Duration::from_secs(4);
/// How often the figures of a sink that only uploads are looked at.
const POLL: Duration = Duration::from_millis(200);

/// When recordings that have ended stop uploading.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Deadline {
    /// Ends them at `at`; an earlier one stays.
    pub fn set(&self, at: Instant) {
        let mut current = lock(&self.at);
        *current = Some(current.map_or(at, |before| before.min(at)));
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        let at = *lock(&self.at);
        at.is_some_and(|at| Instant::now() >= at)
    }
}

/// Ends a recording. Blocks for as long as its chunks are uploaded, until `deadline`.
pub fn end(recording: &Arc<Recording>, deadline: &Deadline) {
    recording.ending.store(true, Ordering::Relaxed);
    let sink = recording.sink();
    let closed = Arc::new(Closed::default());
    if let Some(pad) = sink.as_ref().and_then(|sink| sink.static_pad("sink")) {
        let on_eos = Arc::clone(&closed);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && event.type_() == gst::EventType::Eos
            {
                on_eos.set();
            }
            gst::PadProbeReturn::Ok
        });
        // A camera that ended the stream has done it already.
        if pad.pad_flags().contains(gst::PadFlags::EOS) {
            closed.set();
        }
    }
    let feeds: Vec<(gst::Pad, gst::Pad)> = {
        let parts = recording.parts();
        let branches = [&parts.video, &parts.sound].into_iter().flatten();
        branches
            .filter_map(|branch| Some((branch.feed.clone(), branch.bin.static_pad("sink")?)))
            .collect()
    };
    for (feed, into) in &feeds {
        let _ = feed.unlink(into);
    }
    // A thread that is pushing into a track holds it up; the source's end frees that thread.
    let senders: Vec<_> = feeds
        .into_iter()
        .map(|(_, into)| std::thread::spawn(move || into.send_event(gst::event::Eos::new())))
        .collect();
    if sink.is_none() {
        // Nothing was built: what waits in the blocked queues goes nowhere, and holds nothing up.
        let mut parts = recording.parts();
        let parts = &mut *parts;
        for branch in [&mut parts.video, &mut parts.sound].into_iter().flatten() {
            branch.open();
        }
    }
    recording.source.set_locked_state(true);
    let _ = recording.source.set_state(gst::State::Null);
    if let Some(sink) = &sink {
        if !closed.wait(MUXER) {
            // The chunk is closed without what the muxer holds.
            let _ = sink.set_state(gst::State::Null);
        }
        recording.teller.tell(News::Gone);
        upload(recording, sink, deadline);
    } else {
        recording.teller.tell(News::Gone);
    }
    let _ = recording.pipeline.set_state(gst::State::Null);
    for sender in senders {
        let _ = sender.join();
    }
    bus::drain(recording);
    if let Some(bus) = recording.pipeline.bus() {
        bus.unset_sync_handler();
    }
    recording.teller.tell(News::Finished);
}

/// Waits until all chunks are stored. What is on disk is given a moment: the next sink takes it over.
fn upload(recording: &Recording, sink: &gst::Element, deadline: &Deadline) {
    let began = Instant::now();
    let is_on_disk = recording.setup.storage.spool_dir.is_some();
    let is_over = || deadline.is_over() || recording.given_up.load(Ordering::Relaxed);
    while !is_over() && sink.current_state() > gst::State::Ready && stats::of(sink).chunks_pending > 0 {
        if is_on_disk && began.elapsed() >= DISK {
            return;
        }
        bus::drain(recording);
        std::thread::sleep(POLL);
    }
}

/// Whether the sink has had its EOS.
#[derive(Default)]
struct Closed {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Closed {
    fn set(&self) {
        *lock(&self.is) = true;
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Duration) -> bool {
        let is = lock(&self.is);
        let waited = self.changed.wait_timeout_while(is, timeout, |is| !*is);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
