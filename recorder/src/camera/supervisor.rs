//! Decides what to do about one camera: events in, actions out, on virtual time.
//!
//! PURE: no pipeline, no clock. `now` is the time since any fixed moment. The shell calls [`Supervisor::poll`] at
//! [`Supervisor::wake_at`] and after every event.
//!
//! - Each attempt to connect has a number. A new one begins only after the shell has reported that the connection of the last one
//!   is closed ([`Event::Gone`]): cameras limit their sessions, and an old session can lock out a new one.
//! - A fault and its `since` last until pictures are recorded again. `connecting` is only the time before the first result.
//! - The watchdog counts pictures, not messages: `rtspsrc` does not report a frozen camera (docs/recorder.md).

use std::collections::BTreeMap;
use std::time::Duration;

use super::pause::{Pauses, Rng};
use super::state::{Failure, StartReason, State};

/// Number of an attempt, from 1.
pub type Attempt = u64;

/// The reason while a camera has had no result yet.
pub const NO_RESULT: &str = "waiting for the first picture";
/// An attempt fails after this time without an answer: some cameras accept connections and never answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An attempt fails if it has no stream after this time, whatever the camera answers.
// A set-up takes about six requests, and each answer may take 5 s (`ANSWER` in `source`).
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);
/// The least time without a key frame before this is a fault. The usual time is that of three chunks.
const LEAST_KEY_WAIT: Duration = Duration::from_secs(30);
/// The least time between two rebuilds because the stream has changed.
pub const REBUILD_APART: Duration = Duration::from_secs(10);

/// The settings of a camera that the supervisor needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Key `stall-timeout`.
    pub stall_timeout: Duration,
    /// The least time to wait for the first picture of an attempt: the jitter buffer delays it, and a second transport may be
    /// tried.
    pub first_picture: Duration,
    /// Key `max-size-time`.
    pub max_size_time: Duration,
}

/// An event that the shell reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The camera has answered one of the requests that set up its stream.
    Answered(Attempt),
    /// The camera has answered: its stream is set up and playing.
    Opened(Attempt),
    /// Pictures have arrived.
    Pictures {
        /// The attempt that received them.
        attempt: Attempt,
        /// Whether the sink has got a key frame among them.
        key: bool,
    },
    /// The sink has got a key frame of a picture that was reported before: a muxer may delay it while it waits for sound.
    KeyFrame(Attempt),
    /// The attempt has failed.
    Failed(Attempt, Failure),
    /// The connection of an attempt is closed.
    Gone(Attempt),
    /// The user has changed the configuration or a credential: try at once.
    Reconfigured(Limits),
    /// Stop recording the camera, for this reason.
    Stop(String),
}

/// An action that the shell carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect and record.
    Begin {
        /// Its number.
        attempt: Attempt,
        /// The property `start-reason`.
        reason: StartReason,
    },
    /// Close the open chunk, then the connection; report [`Event::Gone`].
    End(Attempt),
}

/// The condition of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The state.
    pub state: State,
    /// When the state began.
    pub since: Duration,
    /// The cause, for people.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits until the next attempt may begin.
    Waiting { until: Duration },
    /// No stream yet.
    Connecting {
        /// When the attempt began, or the last answer arrived.
        since: Duration,
        /// The latest time for the stream to be set up.
        until: Duration,
    },
    /// The stream plays.
    Open {
        /// When the last picture arrived, or the stream was set up.
        last: Duration,
        /// When the last key frame arrived, or the stream was set up.
        last_key: Duration,
        /// When the first picture arrived; `None`: none has.
        pictures_since: Option<Duration>,
    },
    /// Its end was ordered.
    Ending,
    /// The camera is not recorded any more; final.
    Stopped,
}

/// The state machine of one camera.
#[derive(Clone, Debug)]
pub struct Supervisor {
    limits: Limits,
    condition: Condition,
    phase: Phase,
    attempt: Attempt,
    pauses: Pauses,
    /// When the next attempt may begin, once the current one has ended.
    next_at: Duration,
    last_rebuild: Option<Duration>,
    /// The start reason of the next recording.
    reason: StartReason,
    stopping: Option<String>,
    /// When recording stopped; `None`: the camera is recorded.
    absent_since: Option<Duration>,
    absences: BTreeMap<StartReason, Duration>,
    reconnects: BTreeMap<StartReason, u64>,
}

impl Supervisor {
    /// Creates the state of a camera whose first attempt begins at `start`. `seed` makes its pauses differ from those of other
    /// cameras.
    pub fn new(limits: Limits, now: Duration, start: Duration, seed: u64) -> Self {
        Self {
            limits,
            condition: Condition {
                state: State::Connecting,
                since: now,
                reason: NO_RESULT.to_owned(),
            },
            phase: Phase::Waiting { until: start },
            attempt: 0,
            pauses: Pauses::new(Rng::new(seed)),
            next_at: start,
            last_rebuild: None,
            reason: StartReason::RecorderStarted,
            stopping: None,
            absent_since: Some(now),
            absences: BTreeMap::new(),
            reconnects: BTreeMap::new(),
        }
    }

    /// Returns the condition of the camera.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Returns the time without recording for each reason, including the current absence.
    pub fn absences(&self, now: Duration) -> BTreeMap<StartReason, Duration> {
        let mut absences = self.absences.clone();
        if let Some(since) = self.absent_since {
            *absences.entry(self.reason).or_default() += now.saturating_sub(since);
        }
        absences
    }

    /// Changes the reason of the absence. The time until `now` counts for the previous reason.
    fn set_reason(&mut self, now: Duration, reason: StartReason) {
        if let Some(since) = self.absent_since.filter(|_| self.reason != reason) {
            *self.absences.entry(self.reason).or_default() += now.saturating_sub(since);
            self.absent_since = Some(now);
        }
        self.reason = reason;
    }

    /// Returns the number of attempts after the first, for each reason.
    pub fn reconnects(&self) -> &BTreeMap<StartReason, u64> {
        &self.reconnects
    }

    /// Whether the camera is stopped for good.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Returns when [`Supervisor::poll`] has something to do; `None`: only after an event.
    pub fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Connecting { since, until } => Some((*since + CONNECT_TIMEOUT).min(*until)),
            Phase::Open {
                last,
                last_key,
                pictures_since,
            } => {
                let frozen = *last + self.patience(pictures_since.is_some());
                let no_key = *last_key + self.key_wait();
                Some(match self.condition.state {
                    State::NoKeyFrames => frozen,
                    // Without a picture since the last key frame, the camera may be frozen, but its key frame interval is not at
                    // fault.
                    _ if *last <= *last_key => frozen,
                    _ => frozen.min(no_key),
                })
            }
            Phase::Ending | Phase::Stopped => None,
        }
    }

    /// Returns how long pictures may be missing. `has_come`: whether any has arrived in this attempt.
    fn patience(&self, has_come: bool) -> Duration {
        match has_come {
            true => self.limits.stall_timeout,
            false => self.limits.stall_timeout.max(self.limits.first_picture),
        }
    }

    fn key_wait(&self) -> Duration {
        (3 * self.limits.max_size_time).max(LEAST_KEY_WAIT)
    }

    /// Returns the actions that are due at `now`.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        match &self.phase {
            Phase::Waiting { until } if now >= *until => vec![self.begin(now)],
            Phase::Connecting { since, .. } if now >= *since + CONNECT_TIMEOUT => {
                let text = format!("the camera does not answer within {} s", CONNECT_TIMEOUT.as_secs());
                self.fail(now, &Failure::Unreachable(text))
            }
            Phase::Connecting { until, .. } if now >= *until => {
                let seconds = SETUP_TIMEOUT.as_secs();
                let text = format!("the camera answers, but its stream is not set up within {seconds} s; restart it");
                self.fail(now, &Failure::Unreachable(text))
            }
            Phase::Open {
                last, pictures_since, ..
            } if now >= *last + self.patience(pictures_since.is_some()) => {
                let patience = self.patience(pictures_since.is_some());
                // The absence began with the last picture: the waiting time of the watchdog is a gap too.
                let last = *last;
                if self.absent_since.is_none() {
                    self.reason = StartReason::CameraFrozen;
                    self.absent_since = Some(last);
                }
                let waited = patience.as_secs_f64();
                let text = format!("no picture for {waited} s although the connection stands");
                self.fail(now, &Failure::Frozen(text))
            }
            Phase::Open { last, last_key, .. } if last > last_key && now >= *last_key + self.key_wait() => {
                let waited = now.saturating_sub(*last_key).as_secs();
                let reason = format!(
                    "no key frame for {waited} s: set the camera's key frame interval to 1 or 2 s and switch off H.264+, H.265+ or \
                     Smart codec"
                );
                if self.condition.state != State::NoKeyFrames {
                    self.set_reason(now, StartReason::NoKeyFrames);
                    self.absent_since.get_or_insert(now);
                }
                self.enter(now, State::NoKeyFrames, reason);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, now: Duration) -> Action {
        self.attempt += 1;
        if self.attempt > 1 {
            *self.reconnects.entry(self.reason).or_default() += 1;
        }
        self.phase = Phase::Connecting {
            since: now,
            until: now + SETUP_TIMEOUT,
        };
        Action::Begin {
            attempt: self.attempt,
            reason: self.reason,
        }
    }

    /// Extends the time-outs by `lost`, a time in which the process was suspended: answers and pictures may have arrived in it
    /// unseen.
    pub fn slept(&mut self, lost: Duration, now: Duration) {
        let later = |at: Duration| (at + lost).min(now);
        match &mut self.phase {
            Phase::Connecting { since, until } => {
                *since = later(*since);
                *until += lost;
            }
            Phase::Open { last, last_key, .. } => (*last, *last_key) = (later(*last), later(*last_key)),
            Phase::Waiting { .. } | Phase::Ending | Phase::Stopped => {}
        }
    }

    /// Handles an event and returns the actions that follow. Events of earlier attempts have no effect.
    pub fn on_event(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Answered(attempt) if attempt == self.attempt => {
                if let Phase::Connecting { since, .. } = &mut self.phase {
                    *since = now;
                }
                Vec::new()
            }
            Event::Opened(attempt) if attempt == self.attempt => {
                // Pictures may arrive before this event; the phase is already `Open` then.
                if matches!(self.phase, Phase::Connecting { .. }) {
                    self.phase = Phase::Open {
                        last: now,
                        last_key: now,
                        pictures_since: None,
                    };
                }
                Vec::new()
            }
            Event::Pictures { attempt, key } if attempt == self.attempt => {
                self.pictures(now, key);
                Vec::new()
            }
            Event::KeyFrame(attempt) if attempt == self.attempt => {
                self.key_frame(now);
                Vec::new()
            }
            Event::Failed(attempt, failure) if attempt == self.attempt => self.fail(now, &failure),
            Event::Gone(attempt) if attempt == self.attempt => {
                self.gone(now);
                Vec::new()
            }
            Event::Reconfigured(limits) => self.reconfigure(now, limits),
            Event::Stop(why) => self.stop(now, why),
            Event::Answered(_)
            | Event::Opened(_)
            | Event::Pictures { .. }
            | Event::KeyFrame(_)
            | Event::Failed(..)
            | Event::Gone(_) => Vec::new(),
        }
    }

    fn pictures(&mut self, now: Duration, key: bool) {
        match &mut self.phase {
            Phase::Open {
                last, pictures_since, ..
            } => {
                *last = now;
                pictures_since.get_or_insert(now);
            }
            Phase::Connecting { .. } => {
                self.phase = Phase::Open {
                    last: now,
                    last_key: now,
                    pictures_since: Some(now),
                };
            }
            Phase::Waiting { .. } | Phase::Ending | Phase::Stopped => return,
        }
        if key {
            self.key_frame(now);
        }
    }

    /// Handles a key frame. Does not change `last`: the muxer may have delayed it, so it does not show that pictures still
    /// arrive.
    fn key_frame(&mut self, now: Duration) {
        let Phase::Open {
            last_key,
            pictures_since,
            ..
        } = &mut self.phase
        else {
            return;
        };
        *last_key = now;
        let since = pictures_since.unwrap_or(now);
        self.pauses.pictures(now.saturating_sub(since));
        if let Some(since) = self.absent_since.take() {
            *self.absences.entry(self.reason).or_default() += now.saturating_sub(since);
        }
        self.enter(now, State::Recording, String::new());
    }

    /// Ends an attempt that has failed. The pause before the next one depends on the failure. Only the first failure of an
    /// attempt counts.
    fn fail(&mut self, now: Duration, failure: &Failure) -> Vec<Action> {
        if !matches!(self.phase, Phase::Connecting { .. } | Phase::Open { .. }) {
            return Vec::new();
        }
        self.next_at = match failure {
            Failure::Refused(_) => now + self.pauses.refused(),
            Failure::Busy(_) => now + self.pauses.busy(),
            Failure::Unsupported(_) | Failure::Setup(_) => now + self.pauses.unsupported(),
            Failure::Changed(_) => {
                // The first rebuild is immediate. A camera whose stream changes all the time must not be reconnected in a tight
                // loop.
                let earliest = self.last_rebuild.map_or(now, |last| last + REBUILD_APART).max(now);
                self.last_rebuild = Some(earliest);
                earliest
            }
            Failure::Unreachable(_) | Failure::Closed(_) | Failure::Frozen(_) | Failure::Internal(_) => now + self.pauses.short(),
        };
        self.absent_since.get_or_insert(now);
        // While a fault lasts, keep its state and reason, unless this failure has a state of its own.
        let is_open = matches!(self.phase, Phase::Open { .. });
        match failure.state() {
            // The camera accepts the connection again but sends nothing: it is still frozen, not unreachable.
            Some(State::Unreachable) if is_open && self.condition.state == State::Frozen => {}
            Some(state) => {
                self.set_reason(now, failure.reason());
                self.enter(now, state, failure.text().to_owned());
            }
            None if !self.condition.state.is_fault() => {
                self.set_reason(now, failure.reason());
                // The state stays, as a changed stream is no fault: only the reason tells that recording has paused.
                self.condition.reason = failure.text().to_owned();
            }
            None => {}
        }
        self.phase = Phase::Ending;
        vec![Action::End(self.attempt)]
    }

    fn gone(&mut self, now: Duration) {
        match (&self.phase, self.stopping.take()) {
            (Phase::Stopped | Phase::Waiting { .. }, _) => {}
            (_, Some(why)) => {
                self.phase = Phase::Stopped;
                self.enter(now, State::Stopped, why);
            }
            (Phase::Ending, None) => self.phase = Phase::Waiting { until: self.next_at },
            // The connection ended without an order.
            (Phase::Connecting { .. } | Phase::Open { .. }, None) => {
                let failure = Failure::Closed("the connection has ended".to_owned());
                drop(self.fail(now, &failure));
                self.phase = Phase::Waiting { until: self.next_at };
            }
        }
    }

    fn reconfigure(&mut self, now: Duration, limits: Limits) -> Vec<Action> {
        self.limits = limits;
        self.pauses.reset();
        self.next_at = now;
        match &mut self.phase {
            Phase::Waiting { until } => {
                *until = now;
                Vec::new()
            }
            Phase::Connecting { .. } | Phase::Open { .. } => {
                // A lasting fault keeps its reason: the gap began with it, not with the new settings.
                if !self.condition.state.is_fault() {
                    self.set_reason(now, StartReason::Reconfigured);
                }
                self.absent_since.get_or_insert(now);
                self.phase = Phase::Ending;
                vec![Action::End(self.attempt)]
            }
            // `next_at` is now: the next attempt begins as soon as this one has ended.
            Phase::Ending | Phase::Stopped => Vec::new(),
        }
    }

    fn stop(&mut self, now: Duration, why: String) -> Vec<Action> {
        match &self.phase {
            Phase::Waiting { .. } => {
                self.phase = Phase::Stopped;
                self.enter(now, State::Stopped, why);
                Vec::new()
            }
            Phase::Connecting { .. } | Phase::Open { .. } => {
                self.phase = Phase::Ending;
                self.stopping = Some(why);
                vec![Action::End(self.attempt)]
            }
            Phase::Ending => {
                self.stopping = Some(why);
                Vec::new()
            }
            Phase::Stopped => Vec::new(),
        }
    }

    /// Sets state and reason. `since` changes only if the state does.
    fn enter(&mut self, now: Duration, state: State, reason: String) {
        if self.condition.state != state {
            self.condition.since = now;
            self.condition.state = state;
        }
        self.condition.reason = reason;
    }
}
