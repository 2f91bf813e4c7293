//! A pipeline with an iotcorestatus, whose camera can be frozen.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

pub const SECOND: u64 = 1_000_000_000;

/// GStreamer with our elements.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstgcstreamer::plugin_register_static().unwrap();
    });
}

/// A camera that sends 25 raw pictures a second.
pub const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,width=16,height=16,framerate=25/1";
pub const NOWHERE: &str = "fakesink async=false";

/// All elements that stop in a process share one deadline: tests that share a process must not stop side by side.
static ALONE: Mutex<()> = Mutex::new(());

/// The pipeline and its freezing camera.
pub struct StatusLine {
    pub pipeline: gst::Pipeline,
    pub status: gst::Element,
    frozen: Arc<AtomicBool>,
    /// Values of `state`, each when it was notified.
    states: Arc<(Mutex<Vec<String>>, Condvar)>,
    _alone: MutexGuard<'static, ()>,
}

impl StatusLine {
    /// `camera ! iotcorestatus ! sink`.
    pub fn new(properties: &str, sink: &str) -> Self {
        Self::with_camera(CAMERA, properties, sink)
    }

    pub fn with_camera(camera: &str, properties: &str, sink: &str) -> Self {
        init();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{camera} ! iotcorestatus name=status {properties} ! {sink}");
        let pipeline = gst::parse::launch(&line)
            .unwrap_or_else(|e| panic!("{line}: {e}"))
            .downcast::<gst::Pipeline>()
            .unwrap();
        let status = pipeline.by_name("status").unwrap();
        let frozen = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&frozen);
        status
            .static_pad("sink")
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                if seen.load(Ordering::SeqCst) {
                    gst::PadProbeReturn::Handled
                } else {
                    gst::PadProbeReturn::Ok
                }
            });
        let states = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let into = Arc::clone(&states);
        status.connect_notify(Some("state"), move |status, _| {
            into.0.lock().unwrap().push(status.property::<String>("state"));
            into.1.notify_all();
        });
        Self {
            pipeline,
            status,
            frozen,
            states,
            _alone: alone,
        }
    }

    pub fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
    }

    /// The camera freezes, or comes back.
    pub fn freeze(&self, on: bool) {
        self.frozen.store(on, Ordering::SeqCst);
    }

    /// Stops; how long that took.
    pub fn stop(&self) -> Duration {
        let began = Instant::now();
        self.pipeline.set_state(gst::State::Null).unwrap();
        began.elapsed()
    }

    /// Waits until the property `state` is this.
    pub fn wait_state(&self, state: &str, time: Duration) {
        let seen = self.states.0.lock().unwrap();
        let is_it = |_: &mut Vec<String>| self.status.property::<String>("state") != state;
        let (seen, timeout) = self.states.1.wait_timeout_while(seen, time, is_it).unwrap();
        assert!(!timeout.timed_out(), "the state is not {state}: {seen:?}; {}", self.stats());
    }

    pub fn stats(&self) -> gst::Structure {
        self.status.property::<gst::Structure>("stats")
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.stats().get(name).unwrap()
    }

    pub fn phase(&self) -> String {
        self.stats().get("phase").unwrap()
    }

    /// What is on the bus: kind and text of errors, warnings, infos; `eos`.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let bus = self.pipeline.bus().unwrap();
        let word = |message: gst::Message| match message.view() {
            gst::MessageView::Error(e) => Some(("error", e.error().to_string())),
            gst::MessageView::Warning(w) => Some(("warning", w.error().to_string())),
            gst::MessageView::Info(i) => Some(("info", i.error().to_string())),
            gst::MessageView::Eos(_) => Some(("eos", String::new())),
            _ => None,
        };
        std::iter::from_fn(|| bus.pop()).filter_map(word).collect()
    }

    /// Waits for a message of this kind on the bus; its text.
    pub fn wait_word(&self, kind: &str, time: Duration) -> String {
        let until = Instant::now() + time;
        let mut all = Vec::new();
        while Instant::now() < until {
            all.extend(self.words());
            if let Some((_, text)) = all.iter().find(|(k, _)| *k == kind) {
                return text.clone();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no {kind} within {time:?}: {all:?}");
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
