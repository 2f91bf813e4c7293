//! The supervisor on virtual time: single stories, and random ones against its invariants.

use std::time::Duration;

use proptest::prelude::*;

use super::pause::{FIRST_REFUSED, LONGEST_REFUSED, LONGEST_SHORT, SESSION_TIMEOUT};
use super::state::{Failure, StartReason, State};
use super::supervisor::{Action, Attempt, Event, Limits, REBUILD_APART, Supervisor};

const S: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    stall_timeout: Duration::from_secs(10),
    first_picture: Duration::from_secs(2),
    max_size_time: Duration::from_secs(10),
};

/// A camera and its clock.
struct Story {
    supervisor: Supervisor,
    now: Duration,
    /// The attempt that runs or is ending.
    open: Option<Attempt>,
    begun: Vec<(Duration, StartReason)>,
}

impl Story {
    fn new() -> Self {
        Self {
            supervisor: Supervisor::new(LIMITS, Duration::ZERO, Duration::ZERO, 7),
            now: Duration::ZERO,
            open: None,
            begun: Vec::new(),
        }
    }

    fn take(&mut self, actions: Vec<Action>) -> bool {
        let mut ended = false;
        for action in actions {
            match action {
                Action::Begin { attempt, reason } => {
                    assert_eq!(self.open, None, "two connections at {:?}", self.now);
                    self.open = Some(attempt);
                    self.begun.push((self.now, reason));
                }
                Action::End(attempt) => {
                    assert_eq!(self.open, Some(attempt));
                    ended = true;
                }
            }
        }
        ended
    }

    fn event(&mut self, event: Event) -> bool {
        let actions = self.supervisor.on_event(self.now, event);
        self.take(actions)
    }

    /// Lets time pass and polls whenever something is due. Returns whether an end was ordered.
    fn pass(&mut self, time: Duration) -> bool {
        let until = self.now + time;
        let mut ended = false;
        while let Some(at) = self.supervisor.wake_at().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            let before = self.supervisor.wake_at();
            let actions = self.supervisor.poll(self.now);
            ended |= self.take(actions);
            assert!(
                self.supervisor.wake_at() != before || ended,
                "poll at wake_at must make progress"
            );
        }
        self.now = until;
        ended
    }

    fn attempt(&self) -> Attempt {
        self.open.expect("an attempt runs")
    }

    fn gone(&mut self) {
        let attempt = self.open.take().expect("an attempt runs");
        self.event(Event::Gone(attempt));
    }

    fn fail(&mut self, failure: Failure) {
        assert!(self.event(Event::Failed(self.attempt(), failure)));
        self.gone();
    }

    /// Waits for the next attempt. Returns how long it took.
    fn next(&mut self) -> Duration {
        let from = self.now;
        while self.open.is_none() {
            let at = self.supervisor.wake_at().expect("it will try again");
            self.pass(at.saturating_sub(self.now));
        }
        self.now - from
    }

    fn record(&mut self, time: Duration) {
        let attempt = self.attempt();
        self.event(Event::Opened(attempt));
        let until = self.now + time;
        while self.now < until {
            self.event(Event::Pictures { attempt, key: true });
            assert!(!self.pass(S / 2));
        }
    }

    fn state(&self) -> State {
        self.supervisor.condition().state
    }
}

fn unreachable() -> Failure {
    Failure::Unreachable("connection refused".to_owned())
}

#[test]
fn a_key_frame_that_a_muxer_held_back_does_not_hide_that_the_camera_is_frozen() {
    let mut story = Story::new();
    story.pass(Duration::ZERO);
    let attempt = story.attempt();
    story.event(Event::Opened(attempt));
    story.event(Event::Pictures { attempt, key: true });
    // After three seconds the recording continues without sound, and the pictures that waited for it reach the sink.
    story.pass(3 * S);
    story.event(Event::KeyFrame(attempt));
    assert!(!story.pass(6 * S) && story.pass(S), "reported 10 s after the last picture");
    assert_eq!(story.supervisor.condition().state, State::Frozen);
    // Events that arrive during the end do not set the state to `recording`.
    story.event(Event::KeyFrame(attempt));
    assert_eq!(story.supervisor.condition().state, State::Frozen);
}

#[test]
fn a_camera_that_answers_slowly_is_waited_for_and_one_that_does_not_is_reported_after_ten_seconds() {
    let mut story = Story::new();
    story.pass(Duration::ZERO);
    let attempt = story.attempt();
    for _ in 0..6 {
        assert!(!story.pass(S * 4), "an answer came");
        story.event(Event::Answered(attempt));
    }
    story.record(S);
    assert_eq!(story.state(), State::Recording);
    story.fail(Failure::Closed(String::new()));
    // It answers once and never again.
    story.next();
    let attempt = story.attempt();
    story.pass(S);
    story.event(Event::Answered(attempt));
    assert!(!story.pass(S * 9) && story.pass(S));
    assert_eq!(
        story.supervisor.condition().reason,
        "the camera does not answer within 10 s",
        "{:?}",
        story.now
    );
    story.gone();
    // It answers every request, but its stream is never set up.
    story.next();
    let (attempt, mut ended, from) = (story.attempt(), false, story.now);
    while !ended {
        assert!(story.now - from <= 60 * S);
        ended = story.pass(S * 2);
        story.event(Event::Answered(attempt));
    }
    assert_eq!(story.now - from, 60 * S);
    let reason = &story.supervisor.condition().reason;
    assert!(reason.contains("not set up within 60 s"), "{reason}");
}

#[test]
fn a_camera_that_works_is_recorded_from_its_first_key_frame() {
    let mut story = Story::new();
    assert_eq!(story.state(), State::Connecting);
    story.next();
    let attempt = story.attempt();
    story.event(Event::Opened(attempt));
    story.event(Event::Pictures { attempt, key: false });
    assert_eq!(
        story.state(),
        State::Connecting,
        "joined within a group of pictures: nothing is stored yet"
    );
    story.record(60 * S);
    assert_eq!(story.state(), State::Recording);
    assert_eq!(story.begun, [(Duration::ZERO, StartReason::RecorderStarted)]);
}

#[test]
fn the_first_picture_is_waited_for_as_long_as_the_transport_takes_whatever_the_stall_timeout() {
    let mut story = Story::new();
    story.event(Event::Reconfigured(Limits {
        stall_timeout: S / 2,
        first_picture: 9 * S,
        ..LIMITS
    }));
    story.next();
    let attempt = story.attempt();
    story.event(Event::Opened(attempt));
    assert!(!story.pass(8 * S));
    story.event(Event::Pictures { attempt, key: true });
    assert_eq!(story.state(), State::Recording);
    assert!(story.pass(S / 2), "from then on it is the stall timeout");
    assert_eq!(story.state(), State::Frozen);
}

#[test]
fn a_camera_with_a_picture_a_minute_lacks_no_key_frame_between_them() {
    let mut story = Story::new();
    story.event(Event::Reconfigured(Limits {
        stall_timeout: 300 * S,
        ..LIMITS
    }));
    story.next();
    let attempt = story.attempt();
    story.event(Event::Opened(attempt));
    for _ in 0..5 {
        story.event(Event::Pictures { attempt, key: true });
        assert!(!story.pass(60 * S));
        assert_eq!(story.state(), State::Recording);
    }
    // Pictures without a key frame do change the state.
    for _ in 0..4 {
        story.event(Event::Pictures { attempt, key: false });
        story.pass(10 * S);
    }
    assert_eq!(story.state(), State::NoKeyFrames);
}

#[test]
fn a_frozen_camera_that_connects_and_closes_is_still_frozen() {
    let mut story = Story::new();
    story.next();
    story.record(30 * S);
    assert!(story.pass(10 * S));
    let since = story.supervisor.condition().since;
    story.gone();
    story.next();
    let attempt = story.attempt();
    story.event(Event::Opened(attempt));
    story.event(Event::Failed(
        attempt,
        Failure::Closed("the camera has ended the stream".into()),
    ));
    assert_eq!((story.state(), story.supervisor.condition().since), (State::Frozen, since));
    story.gone();
    story.next();
    let attempt = story.attempt();
    story.event(Event::Failed(attempt, Failure::Unreachable("no route".into())));
    assert_eq!(story.state(), State::Unreachable);
}

#[test]
fn a_frozen_camera_is_found_within_the_stall_timeout_and_stays_frozen_while_it_is_tried_again() {
    let mut story = Story::new();
    story.next();
    story.record(30 * S);
    assert!(!story.pass(9 * S));
    assert_eq!(story.state(), State::Recording);
    assert!(story.pass(S));
    let since = story.supervisor.condition().since;
    story.gone();
    assert!(story.next() <= 6 * S / 5);
    // It answers and sends nothing.
    let attempt = story.attempt();
    story.event(Event::Opened(attempt));
    assert_eq!((story.state(), story.supervisor.condition().since), (State::Frozen, since));
    assert!(story.pass(10 * S));
    story.gone();
    assert_eq!((story.state(), story.supervisor.condition().since), (State::Frozen, since));
    // Now it does not even answer.
    story.next();
    assert!(story.pass(10 * S));
    assert_eq!(story.state(), State::Unreachable);
    story.gone();
    story.next();
    story.record(S);
    assert_eq!(story.state(), State::Recording);
    assert_eq!(story.begun.last().unwrap().1, StartReason::CameraUnreachable);
    assert!(story.supervisor.condition().since > since);
}

#[test]
fn a_process_that_was_stopped_for_a_while_calls_no_camera_frozen_and_a_frozen_one_a_little_later() {
    let mut story = Story::new();
    story.next();
    story.event(Event::Opened(1));
    story.record(Duration::from_secs(60));
    // The process is suspended for a minute. The pictures of that time are counted a moment later, or never.
    let lost = Duration::from_secs(60);
    story.now += lost;
    story.supervisor.slept(lost, story.now);
    let actions = story.supervisor.poll(story.now);
    assert!(actions.is_empty() && story.state() == State::Recording, "{actions:?}");
    story.pass(Duration::from_secs(11));
    assert_eq!(story.state(), State::Frozen);
}

#[test]
fn a_camera_that_reboots_is_back_within_the_pause() {
    let mut story = Story::new();
    story.next();
    story.record(30 * S);
    story.fail(Failure::Closed("the camera ended the stream".to_owned()));
    assert_eq!(story.state(), State::Unreachable);
    let mut waited = Vec::new();
    for _ in 0..8 {
        waited.push(story.next());
        story.fail(unreachable());
    }
    assert!(
        waited[0] <= 6 * S / 5 && waited.iter().all(|pause| *pause <= LONGEST_SHORT),
        "{waited:?}"
    );
    assert!(waited[7] >= 4 * S, "{waited:?}");
    story.next();
    story.record(20 * S);
    assert_eq!(story.begun.last().unwrap().1, StartReason::CameraUnreachable);
    story.fail(Failure::Closed(String::new()));
    assert!(story.next() <= 6 * S / 5, "it was well in between");
}

#[test]
fn refused_credentials_are_tried_once_a_pause_and_at_once_when_they_change() {
    let mut story = Story::new();
    story.next();
    let mut waited = Vec::new();
    for _ in 0..7 {
        story.fail(Failure::Refused("401 Unauthorized".to_owned()));
        assert_eq!(
            (story.state(), story.supervisor.condition().since),
            (State::Refused, Duration::ZERO)
        );
        waited.push(story.next());
    }
    assert!(
        waited.iter().all(|pause| (FIRST_REFUSED..=LONGEST_REFUSED).contains(pause)),
        "{waited:?}"
    );
    assert_eq!(waited[6], LONGEST_REFUSED);
    story.fail(Failure::Refused("401 Unauthorized".to_owned()));
    story.pass(S);
    story.event(Event::Reconfigured(LIMITS));
    assert_eq!(story.next(), Duration::ZERO);
    assert_eq!(story.begun.last().unwrap().1, StartReason::CameraRefused);
    story.fail(Failure::Refused("401 Unauthorized".to_owned()));
    assert!(story.next() <= FIRST_REFUSED * 6 / 5, "another password begins anew");
}

#[test]
fn a_camera_without_a_free_session_is_left_alone_until_it_forgets_the_old_one() {
    let mut story = Story::new();
    story.next();
    story.fail(Failure::Busy("453 Not Enough Bandwidth".to_owned()));
    assert_eq!(story.state(), State::Unreachable);
    assert!(story.next() >= SESSION_TIMEOUT);
}

#[test]
fn a_bucket_that_refuses_is_no_fault_of_the_camera_and_is_tried_again_after_a_while() {
    let mut story = Story::new();
    story.next();
    story.record(30 * S);
    story.fail(Failure::Setup("the bucket refuses (403)".to_owned()));
    assert_eq!(story.state(), State::Stopped);
    assert!(!story.supervisor.is_over() && !story.state().is_fault());
    assert!(story.next() >= 40 * S);
    assert_eq!(story.begun.last().unwrap().1, StartReason::Reconfigured);
}

#[test]
fn pictures_without_key_frames_are_reported_after_three_chunks_and_are_no_reason_to_reconnect() {
    let mut story = Story::new();
    story.next();
    story.record(5 * S);
    let attempt = story.attempt();
    for second in 0..45 {
        story.event(Event::Pictures { attempt, key: false });
        assert!(!story.pass(S));
        let expected = if second < 29 { State::Recording } else { State::NoKeyFrames };
        assert_eq!(story.state(), expected, "after {second} s");
    }
    assert!(story.supervisor.condition().reason.contains("H.264+"));
    story.event(Event::Pictures { attempt, key: true });
    assert_eq!(story.state(), State::Recording);
    assert_eq!(story.begun.len(), 1);
    let absences = story.supervisor.absences(story.now);
    assert!(absences[&StartReason::NoKeyFrames] > 10 * S, "{absences:?}");
}

#[test]
fn another_stream_is_rebuilt_at_once_and_at_most_once_in_ten_seconds() {
    let mut story = Story::new();
    story.next();
    story.record(20 * S);
    let changed = || Failure::Changed("640×360 became 1280×720".to_owned());
    story.fail(changed());
    assert_eq!(story.state(), State::Recording, "no fault of the camera");
    assert_eq!(story.next(), Duration::ZERO);
    assert_eq!(story.begun.last().unwrap().1, StartReason::Reconfigured);
    story.record(S);
    story.fail(changed());
    let waited = story.next();
    assert!(waited >= REBUILD_APART - S - S && waited <= REBUILD_APART, "{waited:?}");
    let rebuilds: Vec<Duration> = story.begun[1..].iter().map(|(at, _)| *at).collect();
    assert!(rebuilds[1] - rebuilds[0] >= REBUILD_APART);
}

#[test]
fn a_stop_ends_what_runs_and_nothing_begins_any_more() {
    let mut story = Story::new();
    story.next();
    story.record(5 * S);
    assert!(story.event(Event::Stop("asked to".to_owned())));
    assert!(!story.supervisor.is_over(), "its connection is still open");
    story.gone();
    assert!(story.supervisor.is_over());
    assert_eq!((story.state(), story.supervisor.wake_at()), (State::Stopped, None));
    // During a pause, and while the last attempt is ending.
    let mut waiting = Story::new();
    waiting.event(Event::Stop("disabled".to_owned()));
    assert!(waiting.supervisor.is_over());
    let mut ending = Story::new();
    ending.next();
    assert!(ending.event(Event::Failed(1, unreachable())));
    ending.event(Event::Stop("asked to".to_owned()));
    ending.gone();
    assert!(ending.supervisor.is_over());
}

#[test]
fn a_process_start_is_waited_for_and_absences_have_their_reason() {
    let mut story = Story::new();
    story.supervisor = Supervisor::new(LIMITS, Duration::ZERO, 3 * S, 1);
    assert_eq!(story.next(), 3 * S);
    story.record(10 * S);
    story.fail(Failure::Closed(String::new()));
    let from = story.now;
    story.next();
    story.record(S);
    let absences = story.supervisor.absences(story.now);
    assert_eq!(absences[&StartReason::RecorderStarted], 3 * S);
    assert_eq!(absences[&StartReason::CameraUnreachable], story.begun[1].0 - from);
    assert_eq!(story.supervisor.reconnects()[&StartReason::CameraUnreachable], 1);
}

#[test]
fn the_gap_total_of_a_reason_never_falls_and_begins_at_the_last_picture() {
    let mut story = Story::new();
    story.next();
    story.record(20 * S);
    let before: Duration = story.supervisor.absences(story.now).values().sum();
    // The last picture came half a second ago.
    let last = story.now - S / 2;
    assert!(story.pass(10 * S));
    let frozen = story.supervisor.absences(story.now)[&StartReason::CameraFrozen];
    assert_eq!(frozen, story.now - last, "the stall itself is missing");
    story.gone();
    story.next();
    story.fail(Failure::Refused(String::new()));
    let frozen = story.supervisor.absences(story.now)[&StartReason::CameraFrozen];
    story.next();
    let absences = story.supervisor.absences(story.now);
    assert_eq!(
        absences[&StartReason::CameraFrozen],
        frozen,
        "what has passed counts for another reason"
    );
    assert_eq!(absences.values().sum::<Duration>() - before, story.now - last);
    story.record(S);
    let after: Duration = story.supervisor.absences(story.now).values().sum();
    assert_eq!(after, absences.values().sum::<Duration>());
}

/// A random event.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Answered,
    Opened,
    Pictures(bool),
    Fail(u8),
    Gone,
    Stale,
    Reconfigured,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..20_000).prop_map(Step::Pass),
        1 => (0u64..1_000_000).prop_map(Step::Pass),
        2 => Just(Step::Answered),
        3 => Just(Step::Opened),
        4 => any::<bool>().prop_map(Step::Pictures),
        4 => (0u8..8).prop_map(Step::Fail),
        5 => Just(Step::Gone),
        1 => Just(Step::Stale),
        1 => Just(Step::Reconfigured),
    ]
}

fn failure(kind: u8) -> Failure {
    let text = || "because".to_owned();
    match kind {
        0 => Failure::Refused(text()),
        1 => Failure::Busy(text()),
        2 => Failure::Unreachable(text()),
        3 => Failure::Closed(text()),
        4 => Failure::Frozen(text()),
        5 => Failure::Unsupported(text()),
        6 => Failure::Changed(text()),
        _ => Failure::Internal(text()),
    }
}

proptest! {
    /// Invariants under random events: never two connections, always a next attempt, no burst of attempts at a camera that
    /// refuses, and a fault lasts until pictures arrive.
    #[test]
    fn whatever_happens_the_camera_is_tried_again_and_never_twice_at_once(
        seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..200)
    ) {
        let mut story = Story::new();
        story.supervisor = Supervisor::new(LIMITS, Duration::ZERO, Duration::ZERO, seed);
        let mut ending = false;
        let mut not_before = Duration::ZERO;
        let mut totals = story.supervisor.absences(story.now);
        for step in steps {
            let before = story.supervisor.condition().clone();
            let begun = story.begun.len();
            let mut had_pictures = false;
            match step {
                Step::Pass(ms) => ending |= story.pass(Duration::from_millis(ms)),
                Step::Answered => if let Some(attempt) = story.open { ending |= story.event(Event::Answered(attempt)); },
                Step::Opened => if let Some(attempt) = story.open { ending |= story.event(Event::Opened(attempt)); },
                Step::Pictures(key) => if let Some(attempt) = story.open {
                    ending |= story.event(Event::Pictures { attempt, key });
                    had_pictures = key;
                },
                Step::Fail(kind) => if let Some(attempt) = story.open {
                    let ended = story.event(Event::Failed(attempt, failure(kind)));
                    ending |= ended;
                    if ended && kind == 0 { not_before = story.now + FIRST_REFUSED; }
                    if ended && kind == 1 { not_before = story.now + SESSION_TIMEOUT; }
                },
                Step::Gone => if story.open.is_some() { story.gone(); ending = false; },
                Step::Stale => { story.event(Event::Gone(0)); story.event(Event::Failed(0, unreachable())); },
                Step::Reconfigured => { ending |= story.event(Event::Reconfigured(LIMITS)); not_before = Duration::ZERO; },
            }
            let after = story.supervisor.condition().clone();
            if story.begun.len() > begun {
                prop_assert!(story.begun.last().unwrap().0 >= not_before, "tried too early");
            }
            if before.state.is_fault() && !had_pictures {
                prop_assert!(after.state.is_fault(), "{before:?} became {after:?} without pictures");
                if after.state == before.state { prop_assert_eq!(after.since, before.since); }
            }
            if before.state != State::Connecting { prop_assert_ne!(after.state, State::Connecting); }
            // There is always a next step: a time to wake, or the end of a connection.
            match story.supervisor.wake_at() {
                Some(at) => prop_assert!(at <= story.now + LONGEST_REFUSED),
                None => prop_assert!(ending && story.open.is_some()),
            }
            let by_reason = story.supervisor.absences(story.now);
            for (reason, total) in &totals {
                let now = by_reason.get(reason).copied().unwrap_or_default();
                prop_assert!(now >= *total, "{reason:?} fell from {total:?} to {now:?}");
            }
            let absences: Duration = by_reason.values().sum();
            totals = by_reason;
            prop_assert!(absences <= story.now, "{absences:?} of {:?}", story.now);
        }
    }
}
