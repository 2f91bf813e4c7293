//! Ends a recording, in a thread of its own, so that it delays neither another camera nor this one's next attempt.
//!
//! 1. Send EOS into the tracks, as if the camera had: the muxer outputs what it holds, and `gcssink` closes its chunk.
//! 2. Set the source to NULL, which ends the session at the camera (TEARDOWN) and closes the socket.
//! 3. Send [`PipelineEvent::Gone`]: the camera, and with the EOS in `gcssink` also bucket and device-id, are free for the next attempt.
//! 4. Upload chunks that are only in memory, for as long as the process runs. The next sink takes over those on disk.
//! 5. Set the pipeline to NULL.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::bus;
use super::recording::Recording;
use super::stats;
use super::watch::PipelineEvent;
use gstgcstreamer::base::lock::lock;

/// How long to wait for the right side to be built: a sink that starts may wait this long for its spool (`PATIENCE` of the
/// plugin's `spool/lane`).
const BUILD: Duration = Duration::from_secs(5);
/// How long to wait for the EOS behind the muxer: a muxer outputs what it holds at once or never.
const MUXER: Duration = Duration::from_secs(2);
/// How long the source may take to stop. A TEARDOWN may take 2 s, so a source that needs longer is blocked.
const FREE: Duration = Duration::from_secs(4);
/// How long this sink goes on uploading chunks that are on disk.
const DISK: Duration = Duration::from_secs(4);
/// How often the counters of a sink that only uploads are read.
const POLL: Duration = Duration::from_millis(200);

/// The time at which ended recordings stop uploading; none until it is set.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Deadline {
    /// Sets the deadline to `at`, unless it is already earlier.
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

/// Ends a recording. Blocks until its chunks are uploaded, `deadline` has passed or the recording is given up.
pub fn end(recording: &Arc<Recording>, deadline: &Deadline) {
    // Pictures that arrived while the recording waited for sound must be stored too.
    if recording.watch.frames() > 0 && recording.setup.is_storing {
        recording.assemble();
    }
    // Another thread may be building the right side, and the pictures in the blocked queues exist nowhere else.
    if recording.is_assembled() {
        recording.built.wait(BUILD);
    }
    // Not earlier: once the end has begun, `assemble` builds nothing.
    recording.ending.store(true, Ordering::Relaxed);
    let sink = recording.sink();
    let closed = Arc::clone(&recording.closed);
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
    let into: Vec<gst::Pad> = feeds.iter().map(|(_, into)| into.clone()).collect();
    // In threads of their own: an EOS waits behind a streaming thread that is pushing into the same track, until the source is
    // stopped below.
    let senders: Vec<_> = feeds
        .into_iter()
        .map(|(_, into)| std::thread::spawn(move || into.send_event(gst::event::Eos::new())))
        .collect();
    if sink.is_none() {
        // Nothing was built: open the queues, so that their data is discarded and blocks no thread.
        let mut parts = recording.parts();
        let parts = &mut *parts;
        for branch in [&mut parts.video, &mut parts.sound].into_iter().flatten() {
            branch.open();
        }
    }
    // Another thread may still be setting the pipeline to PLAYING. It would put elements back to READY after this end, which
    // GStreamer reports as CRITICAL for each of them.
    recording.start.wait(FREE);
    // If the EOS has reached the sink, no track is blocked.
    close(&recording.source, &into, FREE, || !closed.wait(Duration::ZERO));
    if let Some(sink) = &sink {
        if !closed.wait(MUXER) {
            // Close the chunk without the data that is still in the muxer.
            let _ = sink.set_state(gst::State::Null);
        }
        leave_broker(recording);
        recording.event_sender.send(PipelineEvent::Gone);
        upload(recording, sink, deadline);
    } else {
        recording.event_sender.send(PipelineEvent::Gone);
    }
    // Blocks until no thread is pushing into a track any more, so the senders can be joined after it.
    let _ = recording.pipeline.set_state(gst::State::Null);
    let _ = recording.source.set_state(gst::State::Null);
    for sender in senders {
        let _ = sender.join();
    }
    bus::drain(recording);
    if let Some(bus) = recording.pipeline.bus() {
        bus.unset_sync_handler();
    }
    recording.event_sender.send(PipelineEvent::Finished);
}

/// Stops a source, which closes its socket.
///
/// Its threads may be blocked in full tracks, for example because the disk hangs. If it takes longer than `patience`, the tracks
/// are flushed so that the threads return: otherwise the camera would see the next connection beside this one.
fn close(source: &gst::Element, into: &[gst::Pad], patience: Duration, is_held_up: impl Fn() -> bool) {
    // Locked, so that no state change of the pipeline starts the source again.
    source.set_locked_state(true);
    let closed = Arc::new(Closed::default());
    let (theirs, on_closed) = (source.clone(), Arc::clone(&closed));
    let closing = std::thread::spawn(move || {
        let _ = theirs.set_state(gst::State::Null);
        on_closed.set();
    });
    if !closed.wait(patience) && is_held_up() {
        for pad in into {
            pad.send_event(gst::event::FlushStart::new());
        }
    }
    let _ = closing.join();
}

/// Disconnects from the broker: the next recording connects with the same client id, while this one may upload for a long time.
fn leave_broker(recording: &Recording) {
    let status = recording.parts().status.clone();
    if let Some(status) = status {
        // Locked: the pipeline is still in PLAYING and must not start this element again.
        status.set_locked_state(true);
        let _ = status.set_state(gst::State::Null);
    }
}

/// Waits until all chunks are stored. Waits for chunks on disk only for [`DISK`], because the next sink takes them over. Chunks
/// that could not be written to disk are only in memory and are waited for as without a spool.
fn upload(recording: &Recording, sink: &gst::Element, deadline: &Deadline) {
    let began = Instant::now();
    let is_on_disk = recording.setup.storage.spool_dir.is_some();
    let is_over = || deadline.is_over() || recording.given_up.load(Ordering::Relaxed);
    // In READY or below a sink has no session, and uploads nothing.
    while !is_over() && sink.current_state() > gst::State::Ready {
        let stats = stats::of(sink);
        let is_left = is_on_disk && stats.bytes_in_memory == 0 && began.elapsed() >= DISK;
        if stats.chunks_pending == 0 || is_left {
            return;
        }
        bus::drain(recording);
        std::thread::sleep(POLL);
    }
}

/// Whether a thread is setting a pipeline to PLAYING.
#[derive(Debug, Default)]
pub(super) struct Start {
    is_running: Mutex<bool>,
    changed: Condvar,
}

impl Start {
    /// Runs `start`, unless `is_over` returns `true`.
    pub(super) fn run(&self, is_over: impl Fn() -> bool, start: impl FnOnce()) {
        {
            let mut is_running = lock(&self.is_running);
            if is_over() {
                return;
            }
            *is_running = true;
        }
        start();
        *lock(&self.is_running) = false;
        self.changed.notify_all();
    }

    /// Waits until no thread does, at most for `timeout`.
    fn wait(&self, timeout: Duration) {
        let is_running = lock(&self.is_running);
        drop(self.changed.wait_timeout_while(is_running, timeout, |is_running| *is_running));
    }
}

/// A flag to wait for: an EOS has reached the sink, or the pipeline is built.
#[derive(Debug, Default)]
pub(super) struct Closed {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Closed {
    /// Sets the flag when an EOS arrives at a pad. A probe sees it before the sink, whose handling may take as long as an outage.
    pub(super) fn watch(self: &Arc<Self>, pad: &gst::Pad) {
        let closed = Arc::clone(self);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && event.type_() == gst::EventType::Eos
            {
                closed.set();
            }
            gst::PadProbeReturn::Ok
        });
    }

    pub(super) fn set(&self) {
        *lock(&self.is) = true;
        self.changed.notify_all();
    }

    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let is = lock(&self.is);
        let waited = self.changed.wait_timeout_while(is, timeout, |is| !*is);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::plan::Video;
    use crate::camera::recording::Setup;
    use crate::camera::sink::Storage;
    use crate::camera::state::StartReason;
    use crate::camera::watch::EventSender;

    /// Registers the plugin once in the process: a second registration frees the factory while other tests use it.
    fn register() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        gst::init().unwrap();
        ONCE.call_once(|| gstgcstreamer::plugin_register_static().unwrap());
    }

    /// Creates a recording with a spool in this folder, without a connection to its camera.
    fn recording_into(folder: &std::path::Path) -> Arc<Recording> {
        recording_of(folder, |_| ()).0
    }

    type EventsOf = tokio::sync::mpsc::UnboundedReceiver<(u64, crate::camera::watch::PipelineEvent)>;

    fn recording_of(folder: &std::path::Path, change: impl FnOnce(&mut crate::config::Camera)) -> (Arc<Recording>, EventsOf) {
        let text = format!(
            "bucket = \"my-bucket\"\nendpoint-uri = \"http://127.0.0.1:1\"\nspool-dir = \"{}\"\nmax-spool-bytes = 1000000000\n[[camera]]\nid = \"cam\"\nurl = \"rtsp://127.0.0.1:1/\"\n",
            folder.display()
        );
        let config = crate::config::parse(&text, &crate::config::Surroundings::default()).unwrap();
        let mut camera = config.cameras[0].clone();
        change(&mut camera);
        let setup = Setup {
            camera,
            password: None,
            storage: Arc::new(Storage::of(&config, "nvr")),
            reason: StartReason::RecorderStarted,
            previous_session: None,
            memory: 10_000_000,
            absence: Arc::default(),
            is_storing: true,
            distrusts_sets: false,
        };
        let (to, news) = tokio::sync::mpsc::unbounded_channel();
        let recording = Recording::begin(setup, EventSender { attempt: 1, to }).unwrap();
        recording.source.set_locked_state(true);
        (recording, news)
    }

    #[test]
    fn a_fault_of_ours_while_a_recording_is_built_is_reported_as_one() {
        register();
        let folder = tempfile::tempdir().unwrap();
        // GLib's bindings panic at a text with a NUL.
        let (recording, mut news) = recording_of(folder.path(), |camera| {
            camera.location = Some("a\0/{session}_{seq}.{ext}".into())
        });
        let pad = gst::Pad::new(gst::PadDirection::Src);
        recording.build_once(Some(&pad), None);
        let reported = std::iter::from_fn(|| news.try_recv().ok()).find_map(|(_, news)| match news {
            crate::camera::watch::PipelineEvent::Failed(failure) => Some(failure.text().to_owned()),
            _ => None,
        });
        assert!(reported.unwrap().contains("a fault of the recorder itself"));
    }

    fn bytes_in(folder: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.path() {
            path if path.is_dir() => bytes_in(&path),
            path => path.metadata().map_or(0, |metadata| metadata.len()),
        });
        sizes.sum()
    }

    #[test]
    fn a_connection_that_ends_while_the_disk_is_slow_to_begin_loses_none_of_its_pictures() {
        register();
        let folder = tempfile::tempdir().unwrap();
        let recording = recording_into(folder.path());
        let line = "videotestsrc num-buffers=40 ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 ! x264enc tune=zerolatency \
                    bitrate=2000 key-int-max=15";
        let camera = gst::parse::bin_from_description(line, true).unwrap();
        recording.pipeline.add(&camera).unwrap();
        recording
            .add_video(&camera.static_pad("src").unwrap(), Video::H264, false)
            .unwrap();
        recording.pipeline.set_state(gst::State::Playing).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while recording.watch.frames() < 40 {
            assert!(Instant::now() < until, "{} pictures", recording.watch.frames());
            std::thread::sleep(POLL);
        }
        let pads = recording.claim().unwrap();
        let building = {
            let recording = Arc::clone(&recording);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(700));
                recording.build_once(pads.0.as_ref(), pads.1.as_ref());
            })
        };
        end(&recording, &Deadline::default());
        building.join().unwrap();
        assert!(bytes_in(folder.path()) > 20_000, "{} bytes", bytes_in(folder.path()));
    }

    #[test]
    fn a_source_is_closed_though_its_track_is_full_and_takes_nothing() {
        gst::init().unwrap();
        let line = "fakesrc name=source num-buffers=-1 ! queue name=full max-size-buffers=1 ! fakesink async=false";
        let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let [source, full] = ["source", "full"].map(|name| pipeline.by_name(name).unwrap());
        let gate = full.static_pad("src").unwrap();
        gate.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok);
        pipeline.set_state(gst::State::Playing).unwrap();
        let into = full.static_pad("sink").unwrap();
        close(&source, &[into], Duration::from_millis(300), || true);
        assert_eq!(source.current_state(), gst::State::Null);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
