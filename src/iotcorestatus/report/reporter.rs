//! The state machine: takes events and counts, returns the phase and what to publish.

use serde_json::{Value, json};

use super::answers::Answers;
use super::event::{Answer, Chunk, Event, Gap, Problem, Telemetry};
use super::input::{Counts, Format, Limits, Now, SECOND};
use super::phase::{Classification, Facts, Phase, Reason};
use super::publication::{Publication, Visible};
use super::sinks::Sinks;
use super::status::{Config, Identity, Status, Video};
use super::video::{RateWindow, Stalls};
use gcstreamer_schema::redact;
use gcstreamer_schema::structures::UploadStatus;
use gcstreamer_schema::time::rfc3339_ms;

/// How often to poll while frames pass and a gcssink has not had its first key unit yet, or an answer waits.
const SOON: u64 = SECOND / 10;
/// How long the phase `stopped` is delayed: longer than the session waits at the end for the ERROR that caused the stop.
const STOPPED_HELD: u64 = SECOND / 10;

/// A stop this soon after an ERROR elsewhere in the pipeline was caused by it.
const STOPS_WITHIN: u64 = 2 * SECOND;

/// What one poll returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// The status to publish now.
    pub publish: Option<Status>,
    /// Whether the bare state goes with it: it has changed, or its heartbeat is due.
    pub with_state: bool,
    /// Telemetry to publish now.
    pub telemetry: Vec<Telemetry>,
    /// Whether the phase has changed.
    pub phase_changed: bool,
    /// Whether the value of the property `state` has changed: several phases are `disconnected`.
    pub state_changed: bool,
    /// When to poll again at the latest.
    pub next_poll: u64,
}

/// State of the stream at the last poll.
#[derive(Debug, Default)]
struct Stream {
    format: Format,
    /// GAP events so far.
    gaps: u64,
    rates: RateWindow,
    polled_at: u64,
}

/// The phase and its details.
#[derive(Debug)]
struct Current {
    phase: Classification,
    /// When the phase began, on the monotonic scale.
    since: u64,
    stalls: Stalls,
    /// The problem that explains the phase.
    problem: Option<Problem>,
}

/// Further contents of the next status, besides phase, stream and uploads.
#[derive(Debug, Default)]
struct Latest {
    /// Object name, and when it was confirmed, on the monotonic scale.
    chunk: Option<(String, u64)>,
    config: Option<Config>,
}

/// Converts moments of the monotonic scale to wall-clock time. A step of the wall clock by a second or more also corrects earlier
/// moments, because the old reading was wrong. Slewing does not, so that a `since` remains the same text.
#[derive(Clone, Copy, Debug)]
struct Dates {
    at: Now,
}

impl Dates {
    fn follow(&mut self, now: Now) {
        if self.wall(now.mono).abs_diff(now.wall) >= SECOND {
            self.at = now;
        }
    }

    fn wall(self, mono: u64) -> u64 {
        let later = self.at.wall.saturating_add(mono.saturating_sub(self.at.mono));
        later.saturating_sub(self.at.mono.saturating_sub(mono))
    }
}

/// Reports one session of the element.
#[derive(Debug)]
pub struct Reporter {
    dates: Dates,
    limits: Limits,
    identity: Identity,
    began: Now,
    facts: Facts,
    sinks: Sinks,
    stream: Stream,
    current: Current,
    latest: Latest,
    /// The last ERROR elsewhere in the pipeline, and when it was posted. It concerns this stream only if it stops the pipeline.
    elsewhere: Option<(Problem, u64)>,
    publication: Publication,
    pub(super) answers: Answers,
    telemetry: Vec<Telemetry>,
}

impl Reporter {
    /// Creates a reporter at the beginning of a session.
    #[must_use]
    pub fn new(limits: Limits, identity: Identity, now: Now) -> Self {
        Self {
            dates: Dates { at: now },
            limits,
            identity,
            began: now,
            facts: Facts {
                began: now.mono,
                ..Facts::default()
            },
            sinks: Sinks::default(),
            stream: Stream {
                polled_at: now.mono,
                ..Stream::default()
            },
            current: Current {
                phase: Classification {
                    phase: Phase::Starting,
                    reason: Some(Reason::NoFrame),
                    since: now.mono,
                },
                since: now.mono,
                stalls: Stalls::default(),
                problem: None,
            },
            latest: Latest::default(),
            elsewhere: None,
            publication: Publication::new(now.mono),
            answers: Answers::default(),
            telemetry: Vec::new(),
        }
    }

    /// Applies changed properties from the next poll on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Sets whether the link has published everything: only then is the next answer published.
    pub fn set_link_settled(&mut self, settled: bool) {
        self.answers.set_link_settled(settled);
    }

    /// Makes the next poll publish everything, as at the beginning: no link existed for what was published so far.
    pub fn forget_published(&mut self) {
        self.publication.forget();
    }

    /// Returns `stall-timeout`.
    #[must_use]
    pub fn stall_timeout(&self) -> u64 {
        self.limits.stall
    }

    /// Returns the phase at the last poll.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.current.phase.phase
    }

    /// Returns the reason at the last poll.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.current.phase.reason
    }

    /// Returns the stalls so far.
    #[must_use]
    pub fn stalls(&self) -> Stalls {
        self.current.stalls
    }

    /// Handles one event. A [`Reporter::poll`] must follow.
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Playing(true) => self.playing(now.mono),
            Event::Playing(false) => self.facts.playing_since = None,
            Event::Resumed => self.facts.stopping = false,
            Event::Eos => self.facts.eos_at = Some(now.mono),
            Event::Restart => {
                if self.facts.eos_at.take().is_some() {
                    self.facts.fresh_from = now.mono;
                }
            }
            Event::GapEvent => self.stream.gaps += 1,
            Event::Problem(problem) => self.problem(problem, now),
            Event::Format(format) => self.stream.format = format,
            Event::Sinks(samples) => self.sinks.update(samples, &self.limits, now.mono),
            Event::Chunk(chunk) => self.chunk(chunk, now),
            Event::Gap(gap) => self.gap(&gap, now),
            Event::Connected => self.publication.refresh(now.mono),
            Event::Config(sha256) => {
                self.latest.config = Some(Config { sha256, ok: true });
                self.publication.force();
            }
            Event::Answer(answer) => self.answers.push(Answer {
                msg: answer.msg.map(|m| redact(&m)),
                ..answer
            }),
            Event::Record(on) => self.facts.record_stopped = !on,
            Event::Stopping => {
                self.facts.stopping = true;
                self.explain_stop(now);
            }
        }
    }

    fn playing(&mut self, now: u64) {
        if self.facts.playing_since.is_some() {
            return;
        }
        if !self.facts.has_played {
            // `startup-timeout` does not count the time before the first PLAYING.
            self.facts.began = now;
        }
        self.facts.playing_since = Some(now);
        self.facts.has_played = true;
        self.facts.first_frame_at = None;
    }

    /// Classifies the pipeline now and returns what to publish.
    pub fn poll(&mut self, counts: &Counts, now: Now) -> Output {
        self.dates.follow(now);
        self.observe(counts, now.mono);
        let new = self.facts.classify(counts, &self.limits, self.current.phase, now.mono);
        let phase_changed = new.phase != self.phase();
        let state_changed = new.phase.state() != self.phase().state();
        if phase_changed {
            self.change_phase(new, now);
        }
        self.current.phase.reason = new.reason;
        if !matches!(self.phase(), Phase::Streaming | Phase::NotRecording) {
            self.sinks.passing_from = now.mono;
        }
        if self.phase() == Phase::Streaming && self.sinks.is_empty() {
            self.sinks.has_begun = true;
        }
        let visible = self.visible();
        let is_state_due = self.publication.is_state_due(visible.phase, self.limits.interval, now.mono);
        let with_state = is_state_due || self.answers.asks_for_state();
        let publish = self.is_due(visible, now.mono).then(|| {
            self.answers.advance();
            self.status(counts, now)
        });
        if publish.is_some() {
            self.publication.published(visible, with_state, now.mono);
        }
        Output {
            with_state: with_state && publish.is_some(),
            publish,
            telemetry: std::mem::take(&mut self.telemetry),
            phase_changed,
            state_changed,
            next_poll: self.next_poll(counts, now.mono),
        }
    }

    /// Returns the final status and whether the bare state goes with it; `None` if all of it was published. A second call
    /// returns `None`.
    pub fn final_status(&mut self, counts: &Counts, now: Now) -> Option<(Status, bool)> {
        let visible = self.visible();
        if self.publication.is_complete(visible) {
            return None;
        }
        let with_state = self.publication.is_state_due(visible.phase, self.limits.interval, now.mono);
        self.publication.published_final(visible);
        self.dates.follow(now);
        Some((self.status(counts, now), with_state))
    }

    fn visible(&self) -> Visible {
        Visible {
            phase: self.phase(),
            reason: self.reason(),
            upload: self.sinks.status(),
        }
    }

    /// Derives facts from the counts and the sinks.
    fn observe(&mut self, counts: &Counts, now: u64) {
        if counts.frames > 0 {
            self.facts.first_frame_at.get_or_insert(now);
        }
        self.stream.rates.note(counts, now);
        // While downstream blocked the push, the source could not show that it is alive: the stall timer starts at the end of the
        // push.
        if let Some(push) = counts.long_push {
            self.facts.push_ended_at = push.ended.min(now);
            self.sinks.note_push(push);
        }
        self.facts.note_flow(counts, self.stream.polled_at);
        self.stream.polled_at = now;
        let last_frame = counts.last_frame.map_or(now, |at| at.min(now));
        self.facts.feed = self.sinks.feed(&self.limits, last_frame);
        self.facts.unfed_since = self.sinks.unfed_since();
        self.facts.upload_offline = self.sinks.status() == Some(UploadStatus::Offline);
    }

    fn change_phase(&mut self, new: Classification, now: Now) {
        self.current.since = new.since.min(now.mono);
        if new.phase == Phase::Stalled {
            self.current.stalls.begin(new.since);
            let body = json!({"stalled": true, "since": rfc3339_ms(self.dates.wall(self.current.since)), "duration_ms": null});
            self.telemetry("stall", body, now);
        } else if let Some(length) = self.current.stalls.end(now.mono) {
            let began = rfc3339_ms(self.dates.wall(now.mono.saturating_sub(length)));
            let body = json!({"stalled": false, "since": began, "duration_ms": length / 1_000_000});
            self.telemetry("stall", body, now);
        }
        if new.phase == Phase::Streaming {
            self.current.problem = None;
            self.facts.error_at = None;
            self.facts.flow_failed = None;
            self.facts.source_problem_at = None;
        }
        self.current.phase = new;
    }

    /// Treats an ERROR elsewhere in the pipeline as the cause of the stop if it was posted shortly before.
    fn explain_stop(&mut self, now: Now) {
        if let Some((problem, at)) = self.elsewhere.take()
            && now.mono.saturating_sub(at) <= STOPS_WITHIN
        {
            let is_elsewhere = false;
            self.problem(Problem { is_elsewhere, ..problem }, now);
        }
    }

    fn problem(&mut self, problem: Problem, now: Now) {
        if problem.is_elsewhere {
            // The first is the cause; those that follow immediately are its consequences.
            let is_known = self
                .elsewhere
                .as_ref()
                .is_some_and(|(_, at)| now.mono.saturating_sub(*at) <= STOPS_WITHIN);
            if problem.is_error && !is_known {
                self.elsewhere = Some((
                    Problem {
                        // A source elsewhere is not the source of this stream.
                        is_source: false,
                        ..problem
                    },
                    now.mono,
                ));
            }
            if self.facts.stopping {
                self.explain_stop(now);
            }
            return;
        }
        let problem = Problem {
            // An element may be named after the address that it plays.
            src: redact(&problem.src),
            msg: redact(&problem.msg),
            ..problem
        };
        if problem.is_source {
            self.facts.source_problem_at = Some(now.mono);
        }
        if problem.is_error {
            let body = json!({
                "src": problem.src, "domain": problem.domain, "code": problem.code, "msg": problem.msg,
            });
            self.telemetry("error", body, now);
        }
        // The first ERROR is the cause; later ones are its consequences.
        let is_first = problem.is_error && self.facts.error_at.is_none();
        if is_first {
            self.facts.error_at = Some(now.mono);
            self.facts.error_is_source = problem.is_source;
        }
        // A WARNING never replaces an ERROR.
        if is_first || (problem.is_source && !self.current.problem.as_ref().is_some_and(|p| p.is_error)) {
            self.current.problem = Some(problem);
        }
    }

    fn chunk(&mut self, chunk: Chunk, now: Now) {
        let body = json!({
            "object": chunk.object, "session": chunk.session, "sequence": chunk.sequence, "start": chunk.start_time,
            "duration_ms": chunk.duration / 1_000_000, "size": chunk.size, "latency_ms": chunk.latency / 1_000_000,
        });
        self.telemetry("chunk", body, now);
        self.latest.chunk = Some((chunk.object, now.mono));
        self.publication.note_chunk();
    }

    fn gap(&mut self, gap: &Gap, now: Now) {
        let body = json!({
            "start": gap.start_time, "reason": gap.reason, "duration_ms": gap.duration / 1_000_000,
            "bytes": gap.bytes, "first_sequence": gap.first_sequence, "chunks": gap.chunks,
        });
        self.telemetry("gap", body, now);
    }

    /// Queues telemetry; adds `v`, `ts` and `device` to its body.
    fn telemetry(&mut self, kind: &'static str, mut body: Value, now: Now) {
        if let Some(map) = body.as_object_mut() {
            map.insert("v".to_owned(), json!(1));
            map.insert("ts".to_owned(), json!(rfc3339_ms(now.wall)));
            map.insert("device".to_owned(), json!(self.identity.device));
        }
        self.telemetry.push(Telemetry { kind, body });
    }

    fn is_due(&self, visible: Visible, now: u64) -> bool {
        if now < self.held_until() {
            return false;
        }
        if self.publication.is_first() {
            // The first status waits for the first frame that counts, or for `startup-timeout`.
            return visible.phase != Phase::Starting || now >= self.startup_at();
        }
        self.answers.is_due() || self.publication.is_due(visible, self.limits.interval, now)
    }

    /// Returns until when publishing is delayed. The phase `stopped` is delayed by [`STOPPED_HELD`]: the ERROR that stopped the
    /// pipeline may arrive only then, and a corrected state could follow only a second later.
    fn held_until(&self) -> u64 {
        if self.phase() == Phase::Stopped {
            self.current.phase.since.saturating_add(STOPPED_HELD)
        } else {
            0
        }
    }

    fn startup_at(&self) -> u64 {
        self.facts.began.saturating_add(self.limits.startup)
    }

    /// Returns the earliest moment after `now` at which a phase could change or something is due; a second later at most.
    fn next_poll(&self, counts: &Counts, now: u64) -> u64 {
        let Limits {
            stall,
            startup,
            interval,
        } = self.limits;
        let is_soon = self.reason() == Some(Reason::NoKeyUnit) || self.answers.waiting() > 0;
        let moments = [
            counts
                .last_frame
                .map(|t| t.max(self.facts.push_ended_at).saturating_add(stall)),
            counts.pushing_since.map(|t| t.saturating_add(stall)),
            self.facts.first_frame_at.map(|t| t.saturating_add(startup)),
            self.facts.playing_since.map(|t| t.saturating_add(stall)),
            Some(self.startup_at()),
            Some(self.held_until()),
            self.publication.heartbeat_at(interval),
            Some(now.saturating_add(SECOND)),
            is_soon.then(|| now.saturating_add(SOON)),
        ];
        // Moments that have passed are left out: with one of them the timer would poll as often as it can.
        let earliest = moments.into_iter().flatten().filter(|t| *t > now).min();
        earliest.unwrap_or(now.saturating_add(SECOND))
    }

    fn status(&mut self, counts: &Counts, now: Now) -> Status {
        let is_streaming = self.phase() == Phase::Streaming;
        let stalls = self.current.stalls;
        let dated = |(object, at): &(String, u64)| (object.clone(), self.dates.wall(*at));
        let chunk = self.latest.chunk.as_ref().map(dated);
        Status {
            phase: self.phase(),
            reason: self.reason(),
            since: self.dates.wall(self.current.since),
            ts: now.wall,
            seq: self.publication.next_seq(),
            session: self.sinks.session().unwrap_or(&self.identity.session).to_owned(),
            identity: self.identity.clone(),
            interval: self.limits.interval,
            recording: (!self.sinks.is_empty()).then_some(is_streaming && !self.facts.record_stopped),
            video: self.video(counts, now.mono),
            stalls,
            stalled_for: stalls.since.map(|at| now.mono.saturating_sub(at)),
            upload: self.sinks.upload(chunk.as_ref()),
            config: self.latest.config.clone(),
            command: self.answers.current().cloned(),
            // A WARNING of a source counts as the error only if the source has ended the stream.
            error: (self.current.problem.clone()).filter(|p| p.is_error || self.phase() == Phase::SourceLost),
            uptime: now.mono.saturating_sub(self.began.mono),
        }
    }

    fn video(&self, counts: &Counts, now: u64) -> Video {
        let rates = self.stream.rates.rates(counts, now);
        Video {
            format: self.stream.format.clone(),
            frames: counts.frames,
            bytes: counts.bytes,
            key_frames: counts.key_frames,
            gaps: self.stream.gaps,
            fps: rates.frames,
            kbps: rates.kbit,
            key_interval: rates.key_interval,
            last_frame_age: counts.last_frame.map(|at| now.saturating_sub(at)),
        }
    }
}
