//! A simulated pipeline; a test for each row of the contract's tables, and invariants.

use serde_json::Value;

use super::*;
use gcstreamer_schema::structures::UploadStatus;

mod phases;
mod properties;
mod publishing;
mod uploads;

const S: u64 = 1_000_000_000;
/// 2026-11-22T06:45:12Z.
const WALL: u64 = 1_795_329_912 * S;

fn at(seconds: f64) -> Now {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let mono = (seconds * 1e9).round() as u64;
    Now { mono, wall: WALL + mono }
}

/// A simulated pipeline: 10 frames a second while `frames` is on; the reporter is polled when it asks for it.
struct SimulatedPipeline {
    reporter: Reporter,
    counts: Counts,
    frames: bool,
    /// The gcssink, if there is one, and whether it receives the frames.
    sink: Option<(SinkSample, bool)>,
    /// Whether the sink's input has key units.
    keys: bool,
    now: f64,
    published: Vec<(f64, Status)>,
    telemetry: Vec<Telemetry>,
    /// When `notify::state` fires.
    notified: Vec<f64>,
}

impl SimulatedPipeline {
    fn new() -> Self {
        let limits = Limits {
            stall: 10 * S,
            startup: 30 * S,
            interval: 60 * S,
        };
        let identity = Identity {
            device: "cam1".to_owned(),
            session: "d209ufrfpg".to_owned(),
            ..Identity::default()
        };
        Self {
            reporter: Reporter::new(limits, identity, at(0.0)),
            counts: Counts::default(),
            frames: false,
            sink: None,
            keys: true,
            now: 0.0,
            published: Vec::new(),
            telemetry: Vec::new(),
            notified: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) {
        self.reporter.handle(event, at(self.now));
        self.poll();
    }

    fn poll(&mut self) {
        let output = self.reporter.poll(&self.counts, at(self.now));
        assert!(
            output.next_poll > at(self.now).mono,
            "a poll that asks for the next one at once never ends"
        );
        self.published.extend(output.publish.map(|s| (self.now, s)));
        self.telemetry.extend(output.telemetry);
        if output.state_changed {
            self.notified.push((self.now * 10.0).round() / 10.0);
        }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + seconds;
        while self.now < end - 1e-6 {
            self.now += 0.1;
            if self.frames && self.counts.pushing_since.is_none() {
                self.counts.frames += 1;
                self.counts.bytes += 1000;
                if self.counts.frames % 10 == 1 {
                    self.counts.key_frames += 1;
                    if self.counts.key_frames > 1 {
                        self.counts.key_gaps += 1;
                        self.counts.key_span += 1_000_000_000;
                        self.counts.last_key_gap = Some(1_000_000_000);
                    }
                }
                self.counts.last_frame = Some(at(self.now).mono);
            }
            if let Some((sample, fed)) = &mut self.sink {
                if *fed && self.frames && self.counts.pushing_since.is_none() {
                    sample.bytes_received += 1000;
                    sample.key_units += u64::from(self.keys);
                }
                self.reporter.handle(Event::Sinks(vec![sample.clone()]), at(self.now));
            }
            self.poll();
        }
    }

    /// Downstream takes the buffer: the push under way ends.
    fn end_push(&mut self) {
        let ended = at(self.now).mono;
        if let Some(began) = self.counts.pushing_since.take().filter(|began| ended - began >= S) {
            self.counts.long_push = Some(Push { began, ended });
        }
    }

    fn playing() -> Self {
        let mut pipeline = Self::new();
        pipeline.handle(Event::Playing(true));
        pipeline
    }

    fn streaming() -> Self {
        let mut pipeline = Self::playing();
        pipeline.frames = true;
        pipeline.run(1.0);
        pipeline
    }

    fn with_sink(mut self, fed: bool) -> Self {
        let sample = SinkSample {
            name: "gcssink0".to_owned(),
            status: UploadStatus::from_name("online"),
            ..SinkSample::default()
        };
        self.sink = Some((sample, fed));
        self
    }

    fn is(&self, phase: Phase) -> &Self {
        assert_eq!(self.reporter.phase(), phase, "at {} s: {:?}", self.now, self.states());
        self
    }

    /// Returns what a subscriber of the state topic sees: time, state, phase.
    fn states(&self) -> Vec<(f64, &'static str, &'static str)> {
        let rows = self.published.iter();
        rows.map(|(t, s)| ((t * 10.0).round() / 10.0, s.state(), s.phase.name()))
            .collect()
    }

    fn last(&self) -> Value {
        self.published.last().unwrap().1.to_json()
    }
}

fn trouble(is_source: bool, is_error: bool) -> Event {
    Event::Problem(Problem {
        src: "rtspsrc0".to_owned(),
        domain: "gst-resource-error-quark".to_owned(),
        code: 9,
        msg: "Could not read from rtsp://admin:hunter2@10.0.0.7/stream".to_owned(),
        is_source,
        is_error,
        is_elsewhere: false,
    })
}
