//! The task of one camera: asks the supervisor what to do, and has it done in threads of its own.
//!
//! Nothing here decides when to connect, and nothing blocks: pipelines begin, are built and end on other threads, and send news.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::absence::{Absence, Why};
use super::bus;
use super::ending::{self, Deadline};
use super::recording::{Recording, Setup};
use super::report::{Board, Report};
use super::sink::Storage;
use super::state::{Failure, StartReason, State};
use super::stats::{self, SinkStats, grow};
use super::supervisor::{Action, Attempt, Event, Limits, Supervisor};
use super::watch::{News, Teller};
use crate::config::Camera;

/// How often the figures of a camera are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Announced sound is waited for after the first picture.
const SOUND_WAIT: Duration = Duration::from_secs(3);
/// Sound that comes later is taken in once it has lasted.
const SOUND_LASTS: Duration = Duration::from_secs(10);
/// Recorded sound that does not come is given up, or the muxer would wait for it.
const SOUND_LOST: Duration = Duration::from_secs(3);
/// One rebuild for late sound.
const SOUND_APART: Duration = Duration::from_secs(3600);
/// Each ended recording that still uploads is a pipeline with threads.
const MOST_ENDED: usize = 16;
/// An end that takes longer than this is given up: the thread stays, and is counted.
const STUCK: Duration = Duration::from_secs(12);

/// What a runner is told.
#[derive(Clone, Debug)]
pub enum Order {
    /// Other settings, or another password: try at once.
    Reconfigure(Box<Camera>, Arc<Storage>, u64),
    /// Another name for people, another share of the memory: the recording goes on.
    Rename(Option<String>, u64),
    /// End.
    Stop {
        /// Why.
        why: String,
        /// The camera is no longer in the configuration: its report goes, too.
        forget: bool,
    },
}

/// What a runner is made from.
#[derive(Debug)]
pub struct Job {
    /// The camera.
    pub camera: Camera,
    /// Where to.
    pub storage: Arc<Storage>,
    /// Payload in memory, bytes.
    pub memory: u64,
    /// The first attempt begins after this long.
    pub delay: Duration,
    /// Where its report goes.
    pub board: Arc<Board>,
    /// When ended recordings stop uploading.
    pub deadline: Arc<Deadline>,
}

/// A recording that has not ended, and its figures at the last look.
struct Open {
    recording: Arc<Recording>,
    seen: SinkStats,
    frames: u64,
    bytes: u64,
    keys: u64,
    first_picture: Option<Instant>,
    /// Its `session-id`, once there is something in it.
    session: Option<String>,
    /// When its end was ordered.
    ended: Option<Instant>,
    is_gone: bool,
}

impl Open {
    /// Its session counts once it has a key unit: before that nothing is stored.
    fn note_session(&mut self) {
        if self.session.is_none()
            && let Some(sink) = self.recording.sink()
            && stats::of(&sink).key_units > 0
        {
            self.session = sink.property("session-id");
        }
    }
}

/// See the module.
struct Runner {
    job: Job,
    began: Instant,
    supervisor: Supervisor,
    report: Report,
    news: UnboundedSender<(Attempt, News)>,
    /// The attempt that runs, and those that end or still upload.
    open: Vec<Open>,
    previous_session: Option<String>,
    last_sound_rebuild: Option<Instant>,
    password_mark: u64,
    told_soundless: bool,
    told: Told,
    is_forgotten: bool,
    absence: Arc<Absence>,
    /// What the broker was told of an absence that lasts.
    told_absence: Option<Why>,
    /// No absence begins any more.
    is_over: Arc<AtomicBool>,
    /// The `since` of the report, on the supervisor's clock.
    since: Option<Duration>,
}

/// Runs a camera until it is told to stop and has stopped.
pub async fn run(job: Job, mut orders: UnboundedReceiver<Order>, seed: u64) {
    let (to, mut news) = unbounded_channel();
    let mut runner = Runner::new(job, to, seed);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !runner.is_over() {
        let wake = runner.supervisor.wake_at().map(|at| runner.began + at);
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((attempt, news)) = news.recv() => runner.on_news(attempt, news),
            Some(order) = orders.recv() => runner.on_order(order),
            () = timer => {}
            _ = tick.tick() => runner.look(),
        }
        let actions = runner.supervisor.poll(runner.now());
        runner.carry_out(actions);
        runner.publish();
        runner.report_absence();
    }
    runner.is_over.store(true, Ordering::Relaxed);
    let absence = Arc::clone(&runner.absence);
    let _ = tokio::task::spawn_blocking(move || absence.end()).await;
}

impl Runner {
    fn new(job: Job, news: UnboundedSender<(Attempt, News)>, seed: u64) -> Self {
        let supervisor = Supervisor::new(limits(&job.camera), Duration::ZERO, job.delay, seed);
        let condition = supervisor.condition().clone();
        let camera = &job.camera;
        let report = Report::new(
            &camera.id,
            camera.name.as_deref(),
            camera.container.name(),
            condition.state,
            &condition.reason,
        );
        Self {
            job,
            began: Instant::now(),
            supervisor,
            report,
            news,
            open: Vec::new(),
            previous_session: None,
            last_sound_rebuild: None,
            password_mark: 0,
            told_soundless: false,
            told: Told::default(),
            is_forgotten: false,
            absence: Arc::default(),
            told_absence: None,
            is_over: Arc::default(),
            since: None,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// It has stopped, and no recording of it is left but such as do not end.
    fn is_over(&self) -> bool {
        self.supervisor.is_over()
            && self
                .open
                .iter()
                .all(|open| open.ended.is_some_and(|at| at.elapsed() > 3 * STUCK))
    }

    fn event(&mut self, event: Event) {
        let actions = self.supervisor.on_event(self.now(), event);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Begin { attempt, reason } => self.begin(attempt, reason),
                Action::End(attempt) => self.end(attempt),
            }
        }
    }

    fn begin(&mut self, attempt: Attempt, reason: StartReason) {
        self.make_room();
        let camera = &self.job.camera;
        self.password_mark = camera.password.as_ref().map_or(0, crate::config::Secret::mark);
        tracing::debug!(camera = camera.id, attempt, reason = reason.name(), "connecting");
        let setup = Setup {
            camera: camera.clone(),
            storage: Arc::clone(&self.job.storage),
            reason,
            previous_session: self.previous_session.clone(),
            memory: self.memory_left(),
            absence: Arc::clone(&self.absence),
            is_storing: true,
        };
        let teller = Teller {
            attempt,
            to: self.news.clone(),
        };
        match Recording::begin(setup, teller.clone()) {
            Ok(recording) => {
                self.open.push(Open {
                    recording: Arc::clone(&recording),
                    seen: SinkStats::default(),
                    frames: 0,
                    bytes: 0,
                    keys: 0,
                    first_picture: None,
                    session: None,
                    ended: None,
                    is_gone: false,
                });
                spawn("connect", move || recording.play());
            }
            Err(failure) => {
                teller.tell(News::Failed(failure));
            }
        }
    }

    /// Ended recordings may hold three quarters of the camera's share, and are not many: of a camera that reconnects all through a long
    /// outage the oldest chunks give way, as those of a single sink do.
    fn make_room(&mut self) {
        let ended: Vec<(u64, Arc<Recording>)> = self
            .open
            .iter()
            .filter(|open| open.is_gone && !open.recording.given_up.load(Ordering::Relaxed))
            .map(|open| (open.seen.bytes_in_memory, Arc::clone(&open.recording)))
            .collect();
        let sizes: Vec<u64> = ended.iter().map(|(bytes, _)| *bytes).collect();
        let given_up = to_give_up(&sizes, self.job.memory / 4 * 3);
        for (_, recording) in ended.iter().take(given_up) {
            recording.given_up.store(true, Ordering::Relaxed);
        }
        let text = "chunks of earlier connections wait, and the memory is full: the oldest are dropped; set spool-dir";
        if given_up > 0 && self.job.storage.spool_dir.is_none() && self.told.is_new(text, Instant::now()) {
            tracing::warn!(camera = self.job.camera.id, "{text}");
        }
    }

    /// The camera's share of the memory without what ended recordings still hold.
    fn memory_left(&self) -> u64 {
        let held: u64 = self.open.iter().map(|open| open.seen.bytes_in_memory).sum();
        self.job.memory.saturating_sub(held).max(crate::config::LEAST_MEMORY)
    }

    fn end(&mut self, attempt: Attempt) {
        match self.open.iter_mut().find(|open| open.recording.attempt() == attempt) {
            Some(open) => {
                open.ended = Some(Instant::now());
                let (recording, deadline) = (Arc::clone(&open.recording), Arc::clone(&self.job.deadline));
                spawn("end", move || ending::end(&recording, &deadline));
            }
            // It was never made.
            None => self.event(Event::Gone(attempt)),
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Reconfigure(camera, storage, memory) => {
                let limits = limits(&camera);
                self.report.name.clone_from(&camera.name);
                self.report.container = camera.container.name();
                (self.job.camera, self.job.storage, self.job.memory) = (*camera, storage, memory);
                self.told_soundless = false;
                self.event(Event::Reconfigured(limits));
            }
            Order::Rename(name, memory) => {
                self.job.camera.name.clone_from(&name);
                self.report.name = name;
                self.job.memory = memory;
            }
            Order::Stop { why, forget } => {
                self.is_forgotten = forget;
                self.event(Event::Stop(why));
            }
        }
    }

    fn on_news(&mut self, attempt: Attempt, news: News) {
        let id = &self.job.camera.id;
        match news {
            News::Opened => self.event(Event::Opened(attempt)),
            News::Flows => self.look(),
            News::Failed(failure) => {
                tracing::debug!(camera = id, attempt, reason = failure.text(), "attempt failed");
                self.event(Event::Failed(attempt, failure));
            }
            News::Soundless(why) => {
                if !std::mem::replace(&mut self.told_soundless, true) {
                    tracing::warn!(camera = id, "{why}");
                }
            }
            News::Stored { until } => {
                let until = SystemTime::UNIX_EPOCH.checked_add(until);
                self.report.last_stored = self.report.last_stored.max(until);
            }
            News::Warning(text) if self.told.is_new(&text, Instant::now()) => tracing::warn!(camera = id, "{text}"),
            News::Info(text) if self.told.is_new(&text, Instant::now()) => tracing::info!(camera = id, "{text}"),
            News::Warning(_) | News::Info(_) => {}
            News::Gone => self.gone(attempt),
            News::Finished => {
                self.gone(attempt);
                self.look();
                self.open.retain(|open| open.recording.attempt() != attempt);
            }
        }
    }

    fn gone(&mut self, attempt: Attempt) {
        let open = self.open.iter_mut().find(|open| open.recording.attempt() == attempt);
        let Some(open) = open.filter(|open| !open.is_gone) else {
            return;
        };
        open.is_gone = true;
        open.note_session();
        if open.session.is_some() {
            self.previous_session.clone_from(&open.session);
        }
        self.event(Event::Gone(attempt));
    }

    /// Looks at the figures of all recordings.
    fn look(&mut self) {
        for open in &mut self.open {
            bus::drain(&open.recording);
            if let Some(sink) = open.recording.sink() {
                let now = stats::of(&sink);
                grow(&mut self.report.stored_bytes, open.seen.bytes_uploaded, now.bytes_uploaded);
                grow(&mut self.report.retries, open.seen.retries, now.retries);
                open.seen = now;
                open.note_session();
            }
            let bytes = open.recording.watch.bytes();
            grow(&mut self.report.received_bytes, open.bytes, bytes);
            open.bytes = bytes;
        }
        self.give_up_stuck();
        self.look_at_pictures();
        self.look_at_sound();
        self.look_at_password();
        if let Some(open) = self.current()
            && let Some(sink) = open.recording.sink()
        {
            let (others, own) = (self.memory_left(), open.seen.bytes_in_memory);
            sink.set_property("max-memory-bytes", others.saturating_add(own).min(self.job.memory));
        }
    }

    fn current(&self) -> Option<&Open> {
        self.open.iter().find(|open| open.ended.is_none())
    }

    fn give_up_stuck(&mut self) {
        let is_stuck = |open: &&mut Open| !open.is_gone && open.ended.is_some_and(|at| at.elapsed() > STUCK);
        let stuck: Vec<Attempt> = self
            .open
            .iter_mut()
            .filter(is_stuck)
            .map(|open| open.recording.attempt())
            .collect();
        for attempt in stuck {
            self.report.stuck += 1;
            tracing::warn!(
                camera = self.job.camera.id,
                "a pipeline did not end within {} s and is left behind; restart the recorder if this repeats",
                STUCK.as_secs()
            );
            self.gone(attempt);
        }
    }

    fn look_at_pictures(&mut self) {
        let Some(open) = self.open.iter_mut().find(|open| open.ended.is_none()) else {
            return;
        };
        let (attempt, frames, keys) = (open.recording.attempt(), open.recording.watch.frames(), open.seen.key_units);
        if frames == open.frames && keys == open.keys {
            return;
        }
        let key = keys > open.keys;
        (open.frames, open.keys) = (frames, keys);
        let first = *open.first_picture.get_or_insert_with(Instant::now);
        let recording = Arc::clone(&open.recording);
        if !recording.is_assembled() && (!recording.waits_for_sound() || first.elapsed() >= SOUND_WAIT) {
            spawn("build", move || recording.assemble());
        }
        self.event(Event::Pictures { attempt, key });
    }

    fn look_at_sound(&mut self) {
        let Some(recording) = self.current().map(|open| Arc::clone(&open.recording)) else {
            return;
        };
        if recording.has_lost_sound(SOUND_LOST) {
            tracing::warn!(
                camera = self.job.camera.id,
                "the camera's sound has stopped; the recording goes on without it"
            );
            spawn("sound", move || recording.close_sound());
            return;
        }
        let has_late_sound = recording.is_assembled()
            && recording.sound_label().is_none()
            && recording
                .watch
                .sound_ages()
                .is_some_and(|(first, last)| first >= SOUND_LASTS && last < SOUND_LOST);
        if has_late_sound && self.last_sound_rebuild.is_none_or(|at| at.elapsed() >= SOUND_APART) {
            self.last_sound_rebuild = Some(Instant::now());
            let failure = Failure::Changed("the camera sends sound now".to_owned());
            self.event(Event::Failed(recording.attempt(), failure));
        }
    }

    /// Another password is tried at once.
    fn look_at_password(&mut self) {
        let is_refused = self.supervisor.condition().state == State::Refused;
        let Some(password) = self
            .job
            .camera
            .password
            .as_ref()
            .filter(|_| is_refused && self.current().is_none())
        else {
            return;
        };
        let mark = password.mark();
        if mark != 0 && mark != self.password_mark {
            self.password_mark = mark;
            self.event(Event::Reconfigured(limits(&self.job.camera)));
        }
    }

    /// A camera that no recording reports to the broker is reported as absent, once for each reason.
    fn report_absence(&mut self) {
        let condition = self.supervisor.condition();
        let is_absent = condition.state.is_fault() || condition.state == State::Stopped;
        let is_reported = self.open.iter().any(|open| !open.is_gone && open.recording.is_assembled());
        if !is_absent || is_reported || self.supervisor.is_over() || !self.job.storage.has_broker() {
            if !is_absent {
                self.told_absence = None;
            }
            return;
        }
        let why = Why {
            state: condition.state,
            reason: condition.reason.clone(),
        };
        if self.told_absence.as_ref() == Some(&why) {
            return;
        }
        self.told_absence = Some(why.clone());
        let current = self.current().map(|open| Arc::clone(&open.recording));
        let (absence, storage, camera) = (
            Arc::clone(&self.absence),
            Arc::clone(&self.job.storage),
            self.job.camera.clone(),
        );
        let is_over = Arc::clone(&self.is_over);
        spawn("absence", move || {
            let is_reported =
                || is_over.load(Ordering::Relaxed) || current.as_ref().is_some_and(|recording| recording.is_assembled());
            absence.begin(&storage, &camera, &why, is_reported);
        });
    }

    /// Writes the report, and one line for each change.
    fn publish(&mut self) {
        let condition = self.supervisor.condition();
        let report = &mut self.report;
        if condition.state != report.state {
            let (camera, from, to) = (report.id.as_str(), report.state.name(), condition.state.name());
            let is_wrong = condition.state.is_fault() || (condition.state == State::Stopped && !self.supervisor.is_over());
            match is_wrong {
                true => tracing::warn!(camera, from, to, "{}: {}", to, condition.reason),
                false if condition.reason.is_empty() => tracing::info!(camera, from, to, "{}", to),
                false => tracing::info!(camera, from, to, "{}: {}", to, condition.reason),
            }
        }
        report.state = condition.state;
        report.reason.clone_from(&condition.reason);
        // Once for each state: the wall clock and this one drift apart.
        if self.since != Some(condition.since) {
            self.since = Some(condition.since);
            let ago = self.began.elapsed().saturating_sub(condition.since);
            report.since = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        }
        report.was_tried |= condition.state != State::Connecting;
        report.gaps = self.supervisor.absences(self.began.elapsed());
        report.reconnects.clone_from(self.supervisor.reconnects());
        let backlog = |stats: &SinkStats| stats.bytes_in_memory.max(stats.bytes_in_spool);
        report.backlog_bytes = self.open.iter().map(|open| backlog(&open.seen)).sum();
        let oldest = self.open.iter().map(|open| open.seen.oldest_pending).max().unwrap_or(0);
        report.oldest_pending = Duration::from_nanos(oldest);
        if let Some(open) = self.open.iter().find(|open| open.ended.is_none()) {
            let (watch, pace) = (&open.recording.watch, open.recording.watch.pace());
            if let Some(picture) = watch.picture() {
                report.codec = Some(picture.codec.name());
                report.size = Some((picture.width, picture.height));
                report.audio = open.recording.sound_label();
            }
            report.fps = pace.fps.or(report.fps);
            report.key_interval = pace
                .key_interval
                .map(|ns| Duration::from_nanos(ns).as_secs_f64())
                .or(report.key_interval);
            report.last_frame = watch.last_frame().or(report.last_frame);
        }
        match self.is_forgotten {
            true => self.job.board.remove(&self.report.id),
            false => self.job.board.put(self.report.clone()),
        }
    }
}

/// How many ended recordings, the oldest first, have to go: the rest holds at most `room` bytes, and is no more than [`MOST_ENDED`].
fn to_give_up(sizes: &[u64], room: u64) -> usize {
    (0..=sizes.len())
        .find(|n| {
            let rest = &sizes[*n..];
            rest.len() <= MOST_ENDED && rest.iter().sum::<u64>() <= room
        })
        .unwrap_or(sizes.len())
}

/// Messages of the sinks that were logged: each attempt has a sink of its own, which says the same again.
#[derive(Default)]
struct Told(BTreeMap<String, Instant>);

impl Told {
    const AGAIN: Duration = Duration::from_secs(3600);
    const MOST: usize = 100;

    /// Whether this was not logged lately; figures in it do not make it another.
    fn is_new(&mut self, text: &str, now: Instant) -> bool {
        let words: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        self.0.retain(|_, at| now.saturating_duration_since(*at) < Self::AGAIN);
        if self.0.contains_key(&words) {
            return false;
        }
        if self.0.len() < Self::MOST {
            self.0.insert(words, now);
        }
        true
    }
}

fn limits(camera: &Camera) -> Limits {
    Limits {
        stall_timeout: camera.stall_timeout,
        max_size_time: camera.max_size_time,
    }
}

/// A thread for something that blocks on GStreamer. Without threads nothing can be done about it: the supervisor's deadlines report
/// the camera.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::error!("no thread can be started: {error}; raise the limit of threads (pids) of this service");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_ended_recordings_give_way_when_they_hold_too_much_or_are_too_many() {
        assert_eq!(to_give_up(&[], 10), 0);
        assert_eq!(to_give_up(&[4, 3, 3], 10), 0);
        assert_eq!(to_give_up(&[4, 3, 4], 10), 1);
        assert_eq!(to_give_up(&[4, 3, 40], 10), 3);
        assert_eq!(to_give_up(&[0; MOST_ENDED + 5], 10), 5);
    }

    #[test]
    fn what_a_sink_of_every_attempt_says_is_logged_once_an_hour() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(told.is_new("nothing to store after 30.0 s", now));
        assert!(!told.is_new("nothing to store after 31.5 s", now + Duration::from_secs(60)));
        assert!(told.is_new("another", now));
        assert!(told.is_new("nothing to store after 30.0 s", now + Duration::from_secs(3601)));
    }
}
