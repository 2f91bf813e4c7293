//! The task of one camera: carries out what the supervisor decides.
//!
//! This module does not decide when to connect, and it must not block: pipelines are started, built and ended on threads of their
//! own, which send [`PipelineEvent`]. [`figures`] reads the counters of the recordings, [`reporting`] publishes the camera's state,
//! [`settings`] advises on the camera's settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::absence::{Absence, Why};
use super::ending::{self, Deadline};
use super::files::{self, Files, Reader};
use super::recording::{Recording, Setup};
use super::report::{Board, Report};
use super::sink::{Limits, Storage};
use super::state::{Failure, StartReason, State};
use super::stats::{self, SinkStats};
use super::supervisor::{self, Action, Attempt, Event, Supervisor};
use super::watch::{EventSender, PipelineEvent};
use crate::config::{Camera, Password, Scheme, Transport};
use crate::logged::Logged;

mod figures;
mod reporting;
mod settings;

/// How often the counters of a camera are read.
const TICK: Duration = Duration::from_millis(250);
/// A turn of the loop that takes longer than this means that the process or the machine was suspended.
const SLEPT: Duration = Duration::from_secs(1);
/// How long an attempt waits for the files that it needs.
const FILES: Duration = Duration::from_secs(5);
/// The most ended recordings that may still upload: each is a pipeline with threads of its own.
const MOST_ENDED: usize = 16;
/// A recording that takes longer than this to end is abandoned: its thread stays, and is counted as stuck.
const STUCK: Duration = Duration::from_secs(12);

/// Orders to a runner.
#[derive(Clone, Debug)]
pub enum Order {
    /// Connect again at once with these settings.
    Reconfigure(Box<Camera>, Arc<Storage>, u64),
    /// Apply another name for people, other limits and another share of the memory. The recording continues, unless the password
    /// file holds another password than the last attempt used.
    Adjust(Option<String>, Arc<Storage>, u64),
    /// End.
    Stop {
        /// The reason in its report.
        why: String,
        /// What remains of its report.
        leaves: Leaves,
    },
}

/// What remains of a camera that is no longer recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Its report, unchanged: the recorder is ending.
    Report,
    /// A report without gaps and reconnects, like that of a camera that was never enabled, so that alerts end.
    Disabled,
    /// Nothing: it is no longer in the configuration.
    Nothing,
}

/// Everything that a runner needs.
#[derive(Debug)]
pub struct Job {
    /// The camera.
    pub camera: Camera,
    /// Bucket, spool and broker.
    pub storage: Arc<Storage>,
    /// The camera's share of `max-memory-bytes`, in bytes of payload.
    pub memory: u64,
    /// How long to wait before the first attempt.
    pub delay: Duration,
    /// Where its report goes.
    pub board: Arc<Board>,
    /// The number of this run of the camera on the board.
    pub run: u64,
    /// When ended recordings stop uploading.
    pub deadline: Arc<Deadline>,
    /// Dropped when the runner has no connection to the camera and will open no other.
    pub connection: Option<oneshot::Sender<()>>,
}

/// A recording that has not finished, with its counters as last read.
struct Open {
    recording: Arc<Recording>,
    seen: SinkStats,
    /// The limits last set on its sink; `None`: not set by the runner yet. The sink is created with the limits of the attempt's
    /// start, which may have changed since.
    limits: Option<Limits>,
    frames: u64,
    /// Parts of pictures (slices) at the last reading.
    slices: u64,
    bytes: u64,
    keys: u64,
    first_picture: Option<Instant>,
    /// Whether its first chunk has been cut at the camera's own moment, or need not be.
    is_spread: bool,
    /// Its `session-id`, once the session has a key unit.
    session: Option<String>,
    /// When the camera closed the connection, if no stream of pictures had arrived by then.
    closing: Option<Instant>,
    /// When its end was ordered.
    ended: Option<Instant>,
    is_gone: bool,
    settings_watch: settings::SettingsWatch,
}

impl Open {
    /// Notes the session once it has a key unit: nothing is stored before the first one.
    fn note_session(&mut self) {
        if self.session.is_none()
            && let Some(sink) = self.recording.sink()
            && stats::of(&sink).key_units > 0
        {
            self.session = sink.property("session-id");
        }
    }
}

/// The state of one camera's task.
struct Runner {
    job: Job,
    began: Instant,
    supervisor: Supervisor,
    report: Report,
    events: UnboundedSender<(Attempt, PipelineEvent)>,
    /// The running attempt, and those that are ending or still upload.
    open: Vec<Open>,
    previous_session: Option<String>,
    last_sound_rebuild: Option<Instant>,
    files: Reader,
    /// The attempt that waits for its files, its start reason, and when it began to wait.
    reading: Option<(Attempt, StartReason, Instant)>,
    /// [`Files::mark`] of the last attempt's password; 0: it used none, or the file could not be read.
    password_mark: u64,
    /// Whether to ignore the parameter sets of the SDP. They are out of date: an attempt that begins between key frames would
    /// start with the old picture size and fail at the first key frame.
    distrusts_sets: bool,
    reported_soundless: bool,
    logged: Logged,
    advised: settings::Advised,
    /// What remains of the report once the camera is stopped.
    leaves: Leaves,
    absence: Arc<Absence>,
    /// The absence last reported to the broker, while it lasts.
    reported_absence: Option<Why>,
    /// Set when the runner ends: no report of an absence may begin after that.
    is_over: Arc<AtomicBool>,
    /// The `since` of the report on the supervisor's clock.
    since: Option<Duration>,
}

/// Runs a camera until an [`Order::Stop`] has been carried out.
pub async fn run(job: Job, mut orders: UnboundedReceiver<Order>, seed: u64) {
    // Unbounded: streaming threads send here and must never block.
    let (to, mut events) = unbounded_channel();
    let mut runner = Runner::new(job, to, seed);
    let mut tick = tokio::time::interval(TICK);
    // After a suspension one reading of the counters is enough.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut turn = Instant::now();
    while !runner.is_over() {
        let wake = runner.supervisor.wake_at().map(|at| runner.began + at);
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((attempt, events)) = events.recv() => runner.on_pipeline_event(attempt, events),
            Some(order) = orders.recv() => runner.on_order(order),
            () = timer => {}
            _ = tick.tick() => runner.poll(),
        }
        let slept = turn.elapsed();
        if slept > SLEPT {
            // Move the supervisor's time-outs, and count what arrived meanwhile and waits in the sockets: otherwise a camera that
            // never stopped sending would be reported as frozen.
            runner.supervisor.slept(slept, runner.now());
            runner.poll();
        }
        turn = Instant::now();
        let actions = runner.supervisor.poll(runner.now());
        runner.perform(actions);
        if runner.supervisor.is_over() {
            runner.job.connection = None;
        }
        runner.publish();
        runner.report_absence();
    }
    runner.is_over.store(true, Ordering::Relaxed);
    let absence = Arc::clone(&runner.absence);
    let _ = tokio::task::spawn_blocking(move || absence.end()).await;
}

impl Runner {
    fn new(job: Job, events: UnboundedSender<(Attempt, PipelineEvent)>, seed: u64) -> Self {
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
            events,
            open: Vec::new(),
            previous_session: None,
            last_sound_rebuild: None,
            files: Reader::default(),
            reading: None,
            password_mark: 0,
            distrusts_sets: false,
            reported_soundless: false,
            logged: Logged::default(),
            advised: settings::Advised::default(),
            leaves: Leaves::Report,
            absence: Arc::default(),
            reported_absence: None,
            is_over: Arc::default(),
            since: None,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether the camera is stopped and no recording is left, except those that are stuck.
    fn is_over(&self) -> bool {
        self.supervisor.is_over()
            && self
                .open
                .iter()
                .all(|open| open.ended.is_some_and(|at| at.elapsed() > 3 * STUCK))
    }

    fn event(&mut self, event: Event) {
        let actions = self.supervisor.on_event(self.now(), event);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Begin { attempt, reason } => self.begin(attempt, reason),
                Action::End(attempt) => self.end(attempt),
            }
        }
    }

    /// Begins an attempt. If it needs files, they are read first, in another thread.
    fn begin(&mut self, attempt: Attempt, reason: StartReason) {
        let camera = &self.job.camera;
        if camera.password.is_none() && camera.ca_file.is_none() {
            self.password_mark = 0;
            return self.connect(attempt, reason, None);
        }
        self.reading = Some((attempt, reason, Instant::now()));
        self.read_files();
    }

    /// Starts reading the camera's files, unless a reading is in progress.
    fn read_files(&mut self) {
        let to = self.events.clone();
        // Attempts count from 1: files belong to the camera, not to an attempt.
        let done = move |files| drop(to.send((0, PipelineEvent::Files(files))));
        if let Err(error) = self.files.ask(&self.job.camera, done) {
            self.no_files(&format!(
                "no thread can be started: {error}; raise the limit of threads (pids) of this service"
            ));
        }
    }

    /// Handles the files of a camera: continues the attempt that waits for them, or starts one if the password has changed since
    /// the last.
    fn on_files(&mut self, files: Files) {
        if !self.files.over(&files) {
            return;
        }
        let mark = files.mark();
        match (self.reading.take(), files.password.transpose()) {
            (Some((attempt, reason, _)), Ok(password)) => {
                self.password_mark = mark;
                self.connect(attempt, reason, password);
            }
            (Some((attempt, ..)), Err(text)) => {
                self.password_mark = 0;
                self.fail(attempt, files::unusable_password(&text));
            }
            (None, _) if mark != 0 && mark != self.password_mark => {
                self.password_mark = mark;
                self.event(Event::Reconfigured(limits(&self.job.camera)));
            }
            // A camera without a password has its files read only for an attempt. That attempt gave up waiting and failed, and
            // the files answer now.
            (None, Ok(None)) if self.supervisor.condition().state == State::Refused => {
                self.event(Event::Reconfigured(limits(&self.job.camera)));
            }
            (None, _) => {}
        }
    }

    /// Fails an attempt whose files do not answer within [`FILES`]. When they answer later, [`Runner::on_files`] connects at
    /// once.
    fn check_files(&mut self) {
        if self.reading.is_some_and(|(.., since)| since.elapsed() >= FILES) {
            let file = self.files.reads().unwrap_or_default();
            self.no_files(&format!(
                "{file} does not answer within {} s; check the disk or the mount that it is on",
                FILES.as_secs()
            ));
        }
    }

    fn no_files(&mut self, text: &str) {
        if let Some((attempt, ..)) = self.reading.take() {
            self.password_mark = 0;
            self.fail(attempt, Failure::Refused(text.to_owned()));
        }
    }

    fn fail(&self, attempt: Attempt, failure: Failure) {
        let _ = self.events.send((attempt, PipelineEvent::Failed(failure)));
    }

    fn connect(&mut self, attempt: Attempt, reason: StartReason, password: Option<Password>) {
        self.make_room();
        let camera = &self.job.camera;
        tracing::debug!(camera = camera.id, attempt, reason = reason.name(), "connecting");
        let setup = Setup {
            camera: camera.clone(),
            password,
            storage: Arc::clone(&self.job.storage),
            reason,
            previous_session: self.previous_session.clone(),
            memory: self.memory_left(),
            absence: Arc::clone(&self.absence),
            is_storing: true,
            distrusts_sets: self.distrusts_sets,
        };
        let event_sender = EventSender {
            attempt,
            to: self.events.clone(),
        };
        match Recording::begin(setup, event_sender.clone()) {
            Ok(recording) => {
                self.open.push(Open {
                    recording: Arc::clone(&recording),
                    seen: SinkStats::default(),
                    limits: None,
                    frames: 0,
                    slices: 0,
                    bytes: 0,
                    keys: 0,
                    first_picture: None,
                    is_spread: !self.job.storage.is_shared,
                    session: None,
                    closing: None,
                    ended: None,
                    is_gone: false,
                    settings_watch: settings::SettingsWatch::default(),
                });
                spawn("connect", move || recording.play());
            }
            Err(failure) => {
                event_sender.send(PipelineEvent::Failed(failure));
            }
        }
    }

    /// Drops the oldest ended recordings until they use at most three quarters of the camera's share of the memory and are at
    /// most [`MOST_ENDED`]. A camera that reconnects again and again in a long outage so loses its oldest chunks first, as a
    /// single sink does.
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
        if given_up > 0 && self.job.storage.spool_dir.is_none() && self.logged.is_new(text, self.began.elapsed()) {
            tracing::warn!(camera = self.job.camera.id, "{text}");
        }
    }

    /// Returns the camera's share of the memory minus what its recordings hold, at least `LEAST_MEMORY`.
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
            // The recording was never created: the attempt still waits for its files, or failed at once.
            None => {
                self.reading = self.reading.filter(|(reading, ..)| *reading != attempt);
                self.event(Event::Gone(attempt));
            }
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Reconfigure(camera, storage, memory) => {
                let limits = limits(&camera);
                if (&camera.password, &camera.ca_file) != (&self.job.camera.password, &self.job.camera.ca_file) {
                    self.files.forget();
                }
                self.report.name.clone_from(&camera.name);
                self.report.container = camera.container.name();
                (self.job.camera, self.job.storage, self.job.memory) = (*camera, storage, memory);
                self.reported_soundless = false;
                // The new settings may name another camera.
                self.distrusts_sets = false;
                self.advised = settings::Advised::default();
                self.event(Event::Reconfigured(limits));
            }
            Order::Adjust(name, storage, memory) => {
                self.job.camera.name.clone_from(&name);
                self.report.name = name;
                (self.job.storage, self.job.memory) = (storage, memory);
                // A reading may hang in a mount that was repaired before the reload: do not wait for it.
                self.files.forget();
                // Before the first attempt no password has been used that could have changed.
                if self.password_mark != 0 || self.reading.is_some() {
                    self.read_files();
                }
            }
            Order::Stop { why, leaves } => {
                self.leaves = leaves;
                self.event(Event::Stop(why));
            }
        }
    }

    fn on_pipeline_event(&mut self, attempt: Attempt, events: PipelineEvent) {
        let now = self.now();
        let id = &self.job.camera.id;
        match events {
            PipelineEvent::Answered => self.event(Event::Answered(attempt)),
            PipelineEvent::Opened => self.event(Event::Opened(attempt)),
            PipelineEvent::Flows => self.poll(),
            PipelineEvent::Closing => {
                if let Some(open) = self.open.iter_mut().find(|open| open.recording.attempt() == attempt) {
                    open.closing.get_or_insert_with(Instant::now);
                }
            }
            PipelineEvent::Failed(failure) => {
                let is_change = matches!(failure, Failure::Changed(_));
                if is_change && self.logged.is_new(failure.text(), now) {
                    tracing::info!(camera = id, "{}: its recording starts again", failure.text());
                }
                tracing::debug!(camera = id, attempt, reason = failure.text(), "attempt failed");
                self.event(Event::Failed(attempt, failure));
            }
            PipelineEvent::Soundless(why) => {
                if !std::mem::replace(&mut self.reported_soundless, true) {
                    tracing::warn!(camera = id, "{why}");
                }
            }
            PipelineEvent::StaleSets => self.distrusts_sets = true,
            PipelineEvent::Files(files) => self.on_files(files),
            PipelineEvent::Stored(stored) => self.job.board.note_stored(&stored),
            PipelineEvent::Warning(text) if self.logged.is_new(&text, now) => tracing::warn!(camera = id, "{text}"),
            PipelineEvent::Info(text) if self.logged.is_new(&text, now) => tracing::info!(camera = id, "{text}"),
            PipelineEvent::Warning(_) | PipelineEvent::Info(_) => {}
            PipelineEvent::Clock(error) => self.on_clock(error),
            PipelineEvent::Gone => self.gone(attempt),
            PipelineEvent::Finished => {
                self.gone(attempt);
                self.poll();
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
        if open.recording.is_assembled() {
            // The recording reported the camera to the broker until now, so a report of the absence is due again.
            self.reported_absence = None;
        }
        open.note_session();
        if open.session.is_some() {
            self.previous_session.clone_from(&open.session);
        }
        self.event(Event::Gone(attempt));
    }

    fn current(&self) -> Option<&Open> {
        self.open.iter().find(|open| open.ended.is_none())
    }
}

/// Returns how many ended recordings to drop, oldest first, so that the rest holds at most `room` bytes and is at most
/// [`MOST_ENDED`]. `sizes`: bytes in memory of each, oldest first.
fn to_give_up(sizes: &[u64], room: u64) -> usize {
    (0..=sizes.len())
        .find(|n| {
            let rest = &sizes[*n..];
            rest.len() <= MOST_ENDED && rest.iter().sum::<u64>() <= room
        })
        .unwrap_or(sizes.len())
}

fn limits(camera: &Camera) -> supervisor::Limits {
    let first_picture = match (camera.address.scheme(), camera.transport) {
        // Over UDP the jitter buffer alone delays the first picture by 2 s (`latency` in `source`).
        (Scheme::Rtsp | Scheme::Rtsps, Transport::Udp) => Duration::from_secs(4),
        // `rtspsrc` changes from UDP to TCP after 5 s without a packet (its property `timeout`).
        (Scheme::Rtsp | Scheme::Rtsps, Transport::Auto) => Duration::from_secs(9),
        _ => Duration::from_secs(2),
    };
    supervisor::Limits {
        stall_timeout: camera.patience(),
        first_picture,
        max_size_time: camera.max_size_time,
    }
}

/// Runs `work`, which blocks on GStreamer, in a thread of its own. If no thread can be started, this logs an ERROR and the
/// supervisor's time-outs report the camera.
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
}
