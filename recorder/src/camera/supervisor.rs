//! What is done about one camera: events in, actions out, on virtual time.
//!
//! PURE: no pipeline, no clock. `now` is the time since any fixed moment; the shell calls [`Supervisor::poll`] at
//! [`Supervisor::wake_at`] and after every event.
//!
//! - Each attempt to connect has a number. A new one begins only when the shell has reported that the connection of the last one is
//!   closed ([`Event::Gone`]): cameras count sessions, and a second one can shut the first out.
//! - A fault and its `since` stay until pictures pass again. `connecting` is only the time before the first result.
//! - The watchdog counts pictures, not messages: `rtspsrc` reports no frozen camera (docs/recorder.md).

use std::collections::BTreeMap;
use std::time::Duration;

use super::pause::{Pauses, Rng};
use super::state::{Failure, StartReason, State};

/// Number of an attempt, from 1.
pub type Attempt = u64;

/// Reason of a camera that has had no result yet.
pub const NO_RESULT: &str = "waiting for the first picture";
/// An attempt without an answer for this long has failed: the camera accepts connections and does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// However many answers come, an attempt that has no stream after this long has failed. A camera is asked six times or so, and each answer
/// has five seconds.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);
/// No key frame for three chunks, and at least this long.
const LEAST_KEY_WAIT: Duration = Duration::from_secs(30);
/// Rebuilds for another stream are at least this far apart.
pub const REBUILD_APART: Duration = Duration::from_secs(10);

/// Settings of a camera that the supervisor decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Key `stall-timeout`.
    pub stall_timeout: Duration,
    /// The first picture of an attempt is waited for at least this long: the jitter buffer holds it back, and another transport may be tried.
    pub first_picture: Duration,
    /// Key `max-size-time`.
    pub max_size_time: Duration,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The camera has answered one of the requests that it takes to set up its stream.
    Answered(Attempt),
    /// The camera has answered: its stream is set up and playing.
    Opened(Attempt),
    /// Pictures have come; `key`: a key frame among them.
    Pictures {
        /// Of which attempt.
        attempt: Attempt,
        /// A key frame was among them.
        key: bool,
    },
    /// The sink has got a key frame that came earlier: a muxer may hold it back until sound is given up.
    KeyFrame(Attempt),
    /// The attempt has failed.
    Failed(Attempt, Failure),
    /// The connection of an attempt is closed.
    Gone(Attempt),
    /// The user has changed the configuration or a credential: try at once.
    Reconfigured(Limits),
    /// It is not to be recorded any more; why.
    Stop(String),
}

/// What is to be done.
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

/// How the camera is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The state.
    pub state: State,
    /// Since when.
    pub since: Duration,
    /// Why, for people.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The next attempt begins then.
    Waiting { until: Duration },
    /// No stream yet.
    Connecting {
        /// The beginning, or the last answer.
        since: Duration,
        /// The stream has to be there by then.
        until: Duration,
    },
    /// The stream plays.
    Open {
        /// The last picture, or the answer.
        last: Duration,
        /// The last key frame, or the answer.
        last_key: Duration,
        /// Since when pictures have come without a break.
        pictures_since: Option<Duration>,
    },
    /// Its end was ordered.
    Ending,
    /// Over for good.
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
    /// When the next attempt may begin after the one that ends.
    next_at: Duration,
    last_rebuild: Option<Duration>,
    /// Reason of the recording that comes next.
    reason: StartReason,
    stopping: Option<String>,
    /// Since when nothing is recorded.
    absent_since: Option<Duration>,
    absences: BTreeMap<StartReason, Duration>,
    reconnects: BTreeMap<StartReason, u64>,
}

impl Supervisor {
    /// A camera whose first attempt begins at `start`. `seed` spreads its pauses apart from those of other cameras.
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

    /// Returns how the camera is.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Returns the time without recording by reason, the present absence included.
    pub fn absences(&self, now: Duration) -> BTreeMap<StartReason, Duration> {
        let mut absences = self.absences.clone();
        if let Some(since) = self.absent_since {
            *absences.entry(self.reason).or_default() += now.saturating_sub(since);
        }
        absences
    }

    /// From now on this is why nothing is recorded; what has passed counts for the reason before.
    fn set_reason(&mut self, now: Duration, reason: StartReason) {
        if let Some(since) = self.absent_since.filter(|_| self.reason != reason) {
            *self.absences.entry(self.reason).or_default() += now.saturating_sub(since);
            self.absent_since = Some(now);
        }
        self.reason = reason;
    }

    /// Returns how often it was connected again, by reason.
    pub fn reconnects(&self) -> &BTreeMap<StartReason, u64> {
        &self.reconnects
    }

    /// Whether nothing is to come any more.
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
                    // Without a picture since it is no fault of theirs.
                    _ if *last <= *last_key => frozen,
                    _ => frozen.min(no_key),
                })
            }
            Phase::Ending | Phase::Stopped => None,
        }
    }

    /// How long pictures may stay away; `has_come`: there were some.
    fn patience(&self, has_come: bool) -> Duration {
        match has_come {
            true => self.limits.stall_timeout,
            false => self.limits.stall_timeout.max(self.limits.first_picture),
        }
    }

    fn key_wait(&self) -> Duration {
        (3 * self.limits.max_size_time).max(LEAST_KEY_WAIT)
    }

    /// Does what is due at `now`.
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
                // What the watchdog has waited for is missing too.
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

    /// The process was not scheduled for a while: whatever was waited for may have come in that time.
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

    /// Takes an event; those of attempts that are over change nothing.
    pub fn on_event(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Answered(attempt) if attempt == self.attempt => {
                if let Phase::Connecting { since, .. } = &mut self.phase {
                    *since = now;
                }
                Vec::new()
            }
            Event::Opened(attempt) if attempt == self.attempt => {
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

    /// Says nothing of whether pictures still come.
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

    /// An attempt has failed: it is ended, and the pause before the next one depends on why.
    fn fail(&mut self, now: Duration, failure: &Failure) -> Vec<Action> {
        if !matches!(self.phase, Phase::Connecting { .. } | Phase::Open { .. }) {
            return Vec::new();
        }
        self.next_at = match failure {
            Failure::Refused(_) => now + self.pauses.refused(),
            Failure::Busy(_) => now + self.pauses.busy(),
            Failure::Unsupported(_) | Failure::Setup(_) => now + self.pauses.unsupported(),
            Failure::Changed(_) => {
                let earliest = self.last_rebuild.map_or(now, |last| last + REBUILD_APART).max(now);
                self.last_rebuild = Some(earliest);
                earliest
            }
            Failure::Unreachable(_) | Failure::Closed(_) | Failure::Frozen(_) | Failure::Internal(_) => now + self.pauses.short(),
        };
        self.absent_since.get_or_insert(now);
        // A fault that lasts has given its reason already, unless this one has a state of its own.
        let is_open = matches!(self.phase, Phase::Open { .. });
        match failure.state() {
            // It connects, and is still as frozen as before.
            Some(State::Unreachable) if is_open && self.condition.state == State::Frozen => {}
            Some(state) => {
                self.set_reason(now, failure.reason());
                self.enter(now, state, failure.text().to_owned());
            }
            None if !self.condition.state.is_fault() => {
                self.set_reason(now, failure.reason());
                // It is recorded no more for the moment, which no state says.
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
            // It went by itself.
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
                if !self.condition.state.is_fault() {
                    self.set_reason(now, StartReason::Reconfigured);
                }
                self.absent_since.get_or_insert(now);
                self.phase = Phase::Ending;
                vec![Action::End(self.attempt)]
            }
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

    /// Another state begins now; the same one keeps its `since`.
    fn enter(&mut self, now: Duration, state: State, reason: String) {
        if self.condition.state != state {
            self.condition.since = now;
            self.condition.state = state;
        }
        self.condition.reason = reason;
    }
}
