//! The reporter: what is known of the pipeline in, its phase and what to publish out.
//!
//! PURE: time is an argument, in ns. The shell calls [`Reporter::tell`] with what happened and [`Reporter::look`] afterwards,
//! with what has passed so far; `look` says what to publish, and when to look again at the latest.
//!
//! - `input` — what may happen
//! - `phase` — the rules of the phases
//! - `sinks` — the gcssinks behind us, several as one
//! - `video` — rates and stalls

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::upload::health::Status as UploadStatus;
use gcstreamer_schema::redact;
use gcstreamer_schema::time::rfc3339_ms;

mod input;
mod phase;
mod sinks;
#[cfg(test)]
mod tests;
mod video;

pub use input::{Chunk, Event, Gap, Input, Problem};
pub use phase::{Feed, Flow, Phase, Reason};
pub use sinks::{Sample, status_of};
pub use video::{Format, Stalls};

use super::status::{Answer, Config, Identity, Status, Video};
use phase::{Facts, Verdict};
use sinks::Sinks;
use video::Window;

const SECOND: u64 = 1_000_000_000;
/// How often to look while frames pass and a gcssink has not had its first key unit yet.
const SOON: u64 = SECOND / 10;
/// That it was stopped is not told before: longer than the session waits at the end for what stopped it.
const STOP_HELD: u64 = SECOND / 10;
/// Answers to commands that wait, at most; of more the oldest is lost.
const MOST_ANSWERS: usize = 64;

/// A moment, on two scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// ns on a scale that only grows.
    pub mono: u64,
    /// ns since the Unix epoch, by the wall clock.
    pub wall: u64,
}

/// The properties that count here, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `stall-timeout`.
    pub stall: u64,
    /// `startup-timeout`.
    pub startup: u64,
    /// `state-interval`.
    pub interval: u64,
}

/// What has passed since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Buffers.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those without the flag DELTA_UNIT.
    pub key_frames: u64,
    /// Distances from one of them to the next.
    pub key_gaps: u64,
    /// Their sum by presentation time, ns.
    pub key_span: u64,
    /// The last of them, ns.
    pub last_key_gap: Option<u64>,
    /// When the last one came.
    pub last_frame: Option<u64>,
    /// Since when our push of one is under way.
    pub pushing_since: Option<u64>,
    /// What downstream answered last.
    pub flow: Flow,
}

/// What a look has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// Publish this now.
    pub publish: Option<Status>,
    /// And the bare state with it: it has changed, or its heartbeat is due.
    pub with_state: bool,
    /// And these.
    pub events: Vec<Event>,
    /// The phase is another one.
    pub changed: bool,
    /// Look again then, or before.
    pub next: u64,
}

/// What a subscriber would see change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    phase: Phase,
    reason: Option<Reason>,
    upload: Option<UploadStatus>,
}

/// See the module.
#[derive(Debug)]
pub struct Reporter {
    limits: Limits,
    identity: Identity,
    facts: Facts,
    sinks: Sinks,
    window: Window,
    stalls: Stalls,
    format: Format,
    gaps: u64,
    began: Now,
    current: Verdict,
    /// `since` on the wall clock.
    since: u64,
    told: Option<Told>,
    /// When the state was last published.
    told_at: u64,
    must_tell: bool,
    seq: u64,
    last_chunk: Option<(String, u64)>,
    has_news: bool,
    config: Option<Config>,
    /// The answer to the last command that was told, and those that wait for a status of their own.
    answer: Option<Answer>,
    answers: VecDeque<Answer>,
    /// What is published now is not in the way of something that waits to be.
    link_free: bool,
    problem: Option<Problem>,
    /// When the last look was.
    looked_at: u64,
    /// The push that was under way at the last look.
    pushing: Option<u64>,
    events: Vec<Event>,
}

impl Reporter {
    /// At the begin of a session.
    #[must_use]
    pub fn new(limits: Limits, identity: Identity, now: Now) -> Self {
        Self {
            limits,
            identity,
            facts: Facts {
                began: now.mono,
                ..Facts::default()
            },
            sinks: Sinks::default(),
            window: Window::default(),
            stalls: Stalls::default(),
            format: Format::default(),
            gaps: 0,
            began: now,
            current: Verdict {
                phase: Phase::Starting,
                reason: Some(Reason::NoFrame),
                since: now.mono,
            },
            since: now.wall,
            told: None,
            told_at: now.mono,
            must_tell: false,
            seq: 0,
            last_chunk: None,
            has_news: false,
            config: None,
            answer: None,
            answers: VecDeque::new(),
            link_free: true,
            problem: None,
            looked_at: now.mono,
            pushing: None,
            events: Vec::new(),
        }
    }

    /// The user has changed a property.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether all that was published has gone out: only then the next answer is told.
    pub fn set_link_free(&mut self, free: bool) {
        self.link_free = free;
    }

    /// The phase at the last look.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.current.phase
    }

    /// The reason at the last look.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.current.reason
    }

    /// Stalls so far.
    #[must_use]
    pub fn stalls(&self) -> Stalls {
        self.stalls
    }

    /// Takes in what has happened. A [`Reporter::look`] must follow.
    pub fn tell(&mut self, input: Input, now: Now) {
        match input {
            Input::Playing(true) if self.facts.playing_since.is_none() => {
                if !self.facts.has_played {
                    // The time before the first PLAYING does not count for `startup-timeout`.
                    self.facts.began = now.mono;
                }
                self.facts.playing_since = Some(now.mono);
                self.facts.has_played = true;
                self.facts.first_frame_at = None;
            }
            Input::Playing(true) => {}
            Input::Resumed => self.facts.stopping = false,
            Input::Playing(false) => self.facts.playing_since = None,
            Input::Eos => self.facts.eos_at = Some(now.mono),
            Input::Restart => {
                if self.facts.eos_at.take().is_some() {
                    self.facts.fresh_from = now.mono;
                }
            }
            Input::GapEvent => self.gaps += 1,
            Input::Problem(problem) => self.problem(problem, now),
            Input::Format(format) => self.format = format,
            Input::Sinks(samples) => self.sinks.sample(samples, &self.limits, now.mono),
            Input::Chunk(chunk) => self.chunk(chunk, now),
            Input::Gap(gap) => {
                let body = json!({
                    "start": gap.start_time, "reason": gap.reason, "duration_ms": gap.duration / 1_000_000,
                    "bytes": gap.bytes, "first_sequence": gap.first_sequence, "chunks": gap.chunks,
                });
                self.event("gap", body, now);
            }
            Input::Config(sha256) => {
                self.config = Some(Config { sha256, ok: true });
                self.must_tell = true;
            }
            Input::Answer(mut answer) => {
                answer.msg = answer.msg.map(|m| redact(&m));
                if self.answers.len() >= MOST_ANSWERS {
                    self.answers.pop_front();
                }
                self.answers.push_back(answer);
            }
            Input::Record(on) => self.facts.record_stopped = !on,
            Input::Stopping => self.facts.stopping = true,
        }
    }

    /// Says what is true now, and what to publish of it.
    pub fn look(&mut self, tally: &Tally, now: Now) -> Look {
        self.watch(tally, now);
        let verdict = self.facts.decide(tally, &self.limits, self.current, now);
        let changed = verdict.phase != self.current.phase;
        if changed {
            self.change(verdict, now);
        }
        self.current.reason = verdict.reason;
        if !matches!(self.current.phase, Phase::Streaming | Phase::NotRecording) {
            self.sinks.passing_from = now.mono;
        }
        let with_state = self.is_state_due(now);
        let publish = self.is_due(now).then(|| {
            // The link publishes the newest status: one that waits there must not be pushed out with its answer.
            if self.link_free
                && let Some(answer) = self.answers.pop_front()
            {
                self.answer = Some(answer);
            }
            self.status(tally, now)
        });
        if publish.is_some() {
            self.told = Some(self.telling());
            self.must_tell = false;
            if with_state {
                self.told_at = now.mono;
            }
        }
        Look {
            with_state: with_state && publish.is_some(),
            publish,
            events: std::mem::take(&mut self.events),
            changed,
            next: self.next(tally, now.mono),
        }
    }

    /// The last word: the status as it is, and whether the bare state goes with it; `None` where all of it was told. Told once, it
    /// stays the same.
    pub fn last_word(&mut self, tally: &Tally, now: Now) -> Option<(Status, bool)> {
        let telling = Some(self.telling());
        if self.told == telling && !self.has_news {
            return None;
        }
        let with_state = self.is_state_due(now);
        self.told = telling;
        Some((self.status(tally, now), with_state))
    }

    fn telling(&self) -> Told {
        Told {
            phase: self.current.phase,
            reason: self.current.reason,
            upload: self.sinks.status(),
        }
    }

    /// What the passing frames and the sinks say.
    fn watch(&mut self, tally: &Tally, now: Now) {
        if tally.frames > 0 {
            self.facts.first_frame_at.get_or_insert(now.mono);
        }
        self.window.note(tally, now.mono);
        // While downstream held us up the source had no way to show that it lives.
        if self.pushing != tally.pushing_since
            && let Some(began) = std::mem::replace(&mut self.pushing, tally.pushing_since)
            && now.mono.saturating_sub(began) >= SECOND
        {
            self.facts.push_ended_at = now.mono;
        }
        self.facts.note_flow(tally, self.looked_at);
        self.looked_at = now.mono;
        let limits = self.limits;
        self.facts.feed = self.sinks.feed(&limits, self.facts.push_ended_at, now.mono);
        self.facts.upload_offline = self.sinks.status() == Some(UploadStatus::Offline);
    }

    fn change(&mut self, verdict: Verdict, now: Now) {
        self.since = now.wall.saturating_sub(now.mono.saturating_sub(verdict.since));
        if verdict.phase == Phase::Stalled {
            self.stalls.begin(verdict.since);
            let body = json!({"stalled": true, "since": rfc3339_ms(self.since), "duration_ms": null});
            self.event("stall", body, now);
        } else if let Some(length) = self.stalls.end(now.mono) {
            let began = rfc3339_ms(now.wall.saturating_sub(length));
            let body = json!({"stalled": false, "since": began, "duration_ms": length / 1_000_000});
            self.event("stall", body, now);
        }
        if verdict.phase == Phase::Streaming {
            self.problem = None;
            self.facts.error_at = None;
            self.facts.flow_failed = None;
            self.facts.source_trouble_at = None;
        }
        self.current = verdict;
    }

    fn problem(&mut self, problem: Problem, now: Now) {
        let problem = Problem {
            // Elements may be named after the address that they play.
            src: redact(&problem.src),
            msg: redact(&problem.msg),
            ..problem
        };
        if problem.is_source {
            self.facts.source_trouble_at = Some(now.mono);
        }
        if problem.is_error {
            let body = json!({
                "src": problem.src, "domain": problem.domain, "code": problem.code, "msg": problem.msg,
            });
            self.event("error", body, now);
        }
        // The first ERROR is the cause, what follows are its consequences.
        let is_first = problem.is_error && self.facts.error_at.is_none();
        if is_first {
            self.facts.error_at = Some(now.mono);
            self.facts.error_is_source = problem.is_source;
        }
        if is_first || (problem.is_source && !self.problem.as_ref().is_some_and(|p| p.is_error)) {
            self.problem = Some(problem);
        }
    }

    fn chunk(&mut self, chunk: Chunk, now: Now) {
        let body = json!({
            "object": chunk.object, "session": chunk.session, "sequence": chunk.sequence, "start": chunk.start_time,
            "duration_ms": chunk.duration / 1_000_000, "size": chunk.size, "latency_ms": chunk.latency / 1_000_000,
        });
        self.event("chunk", body, now);
        self.last_chunk = Some((chunk.object, now.wall));
        self.has_news = true;
    }

    /// `v`, `ts` and `device` go with every event.
    fn event(&mut self, kind: &'static str, mut body: Value, now: Now) {
        if let Some(map) = body.as_object_mut() {
            map.insert("v".to_owned(), json!(1));
            map.insert("ts".to_owned(), json!(rfc3339_ms(now.wall)));
            map.insert("device".to_owned(), json!(self.identity.device));
        }
        self.events.push(Event { kind, body });
    }

    fn is_due(&self, now: Now) -> bool {
        if now.mono < self.held_until() {
            return false;
        }
        let Some(told) = &self.told else {
            // Nothing before the first frame that counts, or `startup-timeout`.
            return self.current.phase != Phase::Starting || now.mono >= self.startup_at();
        };
        let answers = self.link_free && !self.answers.is_empty();
        self.must_tell || answers || *told != self.telling() || self.is_state_due(now)
    }

    /// That it was stopped is kept for a moment: the ERROR that stopped it may be heard of only then, and the state after this one
    /// would have to wait for a second.
    fn held_until(&self) -> u64 {
        let is_stopped = self.current.phase == Phase::Stopped;
        if is_stopped {
            self.current.since.saturating_add(STOP_HELD)
        } else {
            0
        }
    }

    fn is_state_due(&self, now: Now) -> bool {
        let is_same = |told: &Told| told.phase.state() == self.current.phase.state();
        !self.told.as_ref().is_some_and(is_same) || now.mono.saturating_sub(self.told_at) >= self.limits.interval
    }

    fn startup_at(&self) -> u64 {
        self.facts.began.saturating_add(self.limits.startup)
    }

    fn next(&self, tally: &Tally, now: u64) -> u64 {
        let later = [
            tally
                .last_frame
                .map(|t| t.max(self.facts.push_ended_at).saturating_add(self.limits.stall)),
            tally.pushing_since.map(|t| t.saturating_add(self.limits.stall)),
            self.facts.first_frame_at.map(|t| t.saturating_add(self.limits.startup)),
            self.facts.playing_since.map(|t| t.saturating_add(self.limits.stall)),
            Some(self.startup_at()),
            Some(self.held_until()),
            self.told.as_ref().map(|_| self.told_at.saturating_add(self.limits.interval)),
            Some(now.saturating_add(SECOND)),
            (self.current.reason == Some(Reason::NoKeyUnit) || !self.answers.is_empty()).then(|| now.saturating_add(SOON)),
        ];
        let soonest = later.into_iter().flatten().filter(|t| *t > now).min();
        soonest.unwrap_or(now.saturating_add(SECOND))
    }

    fn status(&mut self, tally: &Tally, now: Now) -> Status {
        self.seq += 1;
        self.has_news = false;
        let rates = self.window.rates(tally, now.mono);
        let is_streaming = self.current.phase == Phase::Streaming;
        Status {
            phase: self.current.phase,
            reason: self.current.reason,
            since: self.since,
            ts: now.wall,
            seq: self.seq,
            session: self.sinks.session().unwrap_or(&self.identity.session).to_owned(),
            identity: self.identity.clone(),
            interval: self.limits.interval,
            recording: (!self.sinks.is_empty()).then_some(is_streaming && !self.facts.record_stopped),
            video: Video {
                format: self.format.clone(),
                frames: tally.frames,
                bytes: tally.bytes,
                key_frames: tally.key_frames,
                gaps: self.gaps,
                fps: rates.frames,
                kbps: rates.kbit,
                key_interval: rates.key_interval,
                last_frame_age: tally.last_frame.map(|at| now.mono.saturating_sub(at)),
            },
            stalls: self.stalls,
            stalled_for: self.stalls.since.map(|at| now.mono.saturating_sub(at)),
            upload: self.sinks.upload(self.last_chunk.as_ref()),
            config: self.config.clone(),
            command: self.answer.clone(),
            // A source's WARNING is one where it has ended the stream.
            error: (self.problem.clone()).filter(|p| p.is_error || self.current.phase == Phase::SourceLost),
            uptime: now.mono.saturating_sub(self.began.mono),
        }
    }
}
