//! What exists from READY→PAUSED to PAUSED→READY: the reporter, the link, and the timer that looks.
//!
//! Locks: the reporter's is held for a look and for handing its outcome to the link, which takes a lock of its own for a moment
//! and calls nobody. What the link says comes from its task and goes through `mail` and the timer. Nothing is posted and no
//! other element is asked while a lock is held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::IotCoreStatus;
use super::commands::{Action, Command, understand};
use super::downstream;
use super::imp::CAT;
use super::outbox::{Outbox, Post};
use super::plan::Plan;
use super::report::{Input, Limits, Look, Phase, Reporter, Sample};
use super::settings::PayloadFormat;
use super::status::{Answer, Status, sha256_hex};
use super::tally::{Counters, mono, now};
use super::watch::{self, Watch};
use crate::deadline::Stop;
use crate::sync::lock;
use gcstreamer_mqtt::{Link, LinkStats, Listener, Wanted};
use gcstreamer_schema::redact;

/// Looks are at least so far apart, ns: a busy pad wakes the timer no more often.
const LOOK_GAP: Duration = Duration::from_millis(20);
/// Every so many looks the pads are walked again for gcssinks.
const WALK_EVERY: u32 = 5;
/// Mail and commands that wait, at most.
const MOST: usize = 64;
/// The last word has so long where there is a connection, though the deadline has passed.
const LAST_WORD: Duration = Duration::from_millis(300);
/// An ERROR that stopped the pipeline is heard of within this time from when its first element was stopped.
const CAUSE_GAP: Duration = Duration::from_millis(50);
/// Seqnums of health events that are remembered: a muxer sends one copy for each of its pads.
const SEQNUMS: usize = 16;

/// See the module.
pub(super) struct Session {
    element: glib::WeakRef<IotCoreStatus>,
    counters: Arc<Counters>,
    reporter: Mutex<Reporter>,
    link: OnceLock<Link>,
    device: String,
    format: PayloadFormat,
    accept_commands: bool,
    outbox: Arc<Outbox>,
    watch: Mutex<Option<Watch>>,
    timer: Mutex<Option<tokio::task::AbortHandle>>,
    /// What the link has said, for the next look.
    mail: Mutex<Vec<Input>>,
    sinks: Mutex<Vec<gst::glib::WeakRef<gst::Element>>>,
    looks: AtomicU32,
    health: Mutex<Health>,
    commands: Mutex<Commands>,
}

/// What came upstream by events.
#[derive(Debug, Default)]
struct Health {
    seqnums: VecDeque<gst::Seqnum>,
    last: Option<Sample>,
}

/// Commands on their way downstream.
#[derive(Debug, Default)]
struct Commands {
    queue: VecDeque<(Action, Answer)>,
    busy: bool,
}

impl Session {
    /// Connects and begins to look.
    ///
    /// # Errors
    /// Where the settings cannot work.
    pub(super) fn start(
        element: &IotCoreStatus,
        plan: Plan,
        limits: Limits,
        counters: &Arc<Counters>,
        outbox: &Arc<Outbox>,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Arc<Self>, gst::ErrorMessage> {
        counters.reset();
        let session = Arc::new(Self {
            element: element.downgrade(),
            counters: Arc::clone(counters),
            device: plan.identity.device.clone(),
            reporter: Mutex::new(Reporter::new(limits, plan.identity, now())),
            link: OnceLock::new(),
            format: plan.format,
            accept_commands: plan.accept_commands,
            outbox: Arc::clone(outbox),
            watch: Mutex::new(None),
            timer: Mutex::new(None),
            mail: Mutex::new(Vec::new()),
            sinks: Mutex::new(Vec::new()),
            looks: AtomicU32::new(0),
            health: Mutex::new(Health::default()),
            commands: Mutex::new(Commands::default()),
        });
        let ears = Arc::new(Ears(Arc::downgrade(&session)));
        let link =
            Link::start(plan.link, runtime.handle(), ears).map_err(|e| gst::error_msg!(gst::ResourceError::Settings, ("{e}")))?;
        // Nobody else sets it.
        let _ = session.link.set(link);
        if let Some(text) = plan.warning {
            outbox.post(Post::Warning(text));
        }
        let weak = Arc::downgrade(&session);
        let ours = element.downgrade();
        *lock(&session.watch) = Watch::new(element.upcast_ref(), move |message| {
            if let Some(session) = weak.upgrade() {
                session.hear(message, &ours);
            }
        });
        let timer = runtime.spawn(look_again(Arc::downgrade(&session), Arc::clone(counters)));
        *lock(&session.timer) = Some(timer.abort_handle());
        Ok(session)
    }

    /// Something has happened.
    pub(super) fn tell(&self, inputs: impl IntoIterator<Item = Input>) -> u64 {
        let mut reporter = lock(&self.reporter);
        reporter.set_link_free(self.link.get().is_none_or(Link::is_settled));
        inputs.into_iter().for_each(|input| reporter.tell(input, now()));
        // Before the tally is read: a buffer that comes in between is not missed.
        self.counters.arm(true);
        let look = reporter.look(&self.counters.tally(), now());
        if look.changed {
            let reason = reporter.reason().map_or("", |r| r.name());
            gst::info!(CAT, "{} is {} {reason}", self.device, reporter.phase().name());
        }
        self.counters.arm(reporter.phase() != Phase::Streaming);
        let next = look.next;
        self.hand_on(look);
        next
    }

    /// To the link, in the order of the looks: the reporter is locked.
    fn hand_on(&self, look: Look) {
        if look.changed {
            self.outbox.post(Post::Notify("state"));
        }
        let Some(link) = self.link.get() else { return };
        for event in look.events {
            link.event(event.kind, Bytes::from(event.body.to_string()));
        }
        if let Some(status) = look.publish {
            link.want(self.wanted(&status, look.with_state));
        }
    }

    /// As text the state is left as it is where nothing is new of it.
    fn wanted(&self, status: &Status, with_state: bool) -> Wanted {
        let json = Bytes::from(status.to_json().to_string());
        let state = match self.format {
            PayloadFormat::Text => with_state.then(|| Bytes::from_static(status.state().as_bytes())),
            PayloadFormat::Json => Some(json.clone()),
        };
        Wanted {
            state,
            status: Some(json),
        }
    }

    /// A look of the timer; when to look next.
    fn look(&self, element: &IotCoreStatus) -> u64 {
        let plays = downstream::goal_of(element.upcast_ref()) == gst::State::Playing;
        let looks = self.looks.fetch_add(1, Relaxed);
        if looks.is_multiple_of(WALK_EVERY) || lock(&self.sinks).is_empty() {
            self.find_sinks(element);
        }
        let mut inputs = vec![Input::Playing(plays), Input::Sinks(self.samples())];
        inputs.append(&mut lock(&self.mail));
        self.tell(inputs)
    }

    fn find_sinks(&self, element: &IotCoreStatus) {
        let found = downstream::sinks(element.imp().src());
        *lock(&self.sinks) = found.iter().map(ObjectExt::downgrade).collect();
    }

    /// The sinks behind us, asked; where the walk finds none, what one has told by its event.
    fn samples(&self) -> Vec<Sample> {
        let sinks: Vec<gst::Element> = lock(&self.sinks).iter().filter_map(glib::WeakRef::upgrade).collect();
        if sinks.is_empty() {
            return lock(&self.health).last.clone().into_iter().collect();
        }
        sinks.iter().map(downstream::sample).collect()
    }

    /// The upstream event `gcssink-health`.
    pub(super) fn health(&self, seqnum: gst::Seqnum, structure: &gst::StructureRef) {
        let mut health = lock(&self.health);
        if health.seqnums.contains(&seqnum) {
            return;
        }
        if health.seqnums.len() >= SEQNUMS {
            health.seqnums.pop_front();
        }
        health.seqnums.push_back(seqnum);
        health.last = Some(downstream::of_structure(structure));
        drop(health);
        self.counters.wake.notify_one();
    }

    /// A message on the bus, in the thread that posts it.
    fn hear(&self, message: &gst::MessageRef, ours: &glib::WeakRef<IotCoreStatus>) {
        let Some(input) = watch::understand(message) else { return };
        gst::debug!(CAT, "heard {}", redact(&format!("{input:?}")));
        let (Some(src), Some(element)) = (message.src(), ours.upgrade()) else {
            return;
        };
        let is_own = src == element.upcast_ref::<gst::Object>();
        match input {
            Input::Problem(ref problem) if is_own && !problem.is_error => {}
            Input::Problem(_) => {
                self.tell([input]);
            }
            // Where downstream pulls no EOS event passes, and a demuxer may never ask for more than there is.
            Input::Eos if element.imp().src().mode() == gst::PadMode::Pull => {
                self.tell([input]);
            }
            Input::Eos => {}
            input if self.is_behind(src, &element) => {
                self.tell([input]);
            }
            _ => {}
        }
    }

    /// Whether this is a gcssink that our buffers reach.
    fn is_behind(&self, src: &gst::Object, element: &IotCoreStatus) -> bool {
        let knows = || {
            let sinks = lock(&self.sinks);
            sinks
                .iter()
                .any(|s| s.upgrade().is_some_and(|s| s.upcast_ref::<gst::Object>() == src))
        };
        knows() || {
            self.find_sinks(element);
            knows()
        }
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        lock(&self.reporter).set_limits(limits);
        self.counters.wake.notify_one();
    }

    /// Phase and reason as of the last look, and how often it stalled.
    pub(super) fn phase(&self) -> (Phase, Option<&'static str>, u64) {
        let reporter = lock(&self.reporter);
        (reporter.phase(), reporter.reason().map(|r| r.name()), reporter.stalls().count)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.get().is_some_and(Link::is_connected)
    }

    pub(super) fn link_stats(&self) -> LinkStats {
        self.link.get().map(Link::stats).unwrap_or_default()
    }

    /// The last word; blocks, at most until the end of the grace that all elements have which stop together.
    pub(super) fn stop(&self, stop: &Stop, timeout: Duration) {
        if let Some(timer) = lock(&self.timer).take() {
            timer.abort();
        }
        self.tell([Input::Stopping, Input::Sinks(self.samples())]);
        self.wait_for_the_cause(stop.until(CAUSE_GAP));
        // Taken out first: the handler must not be disconnected with the lock held.
        let watch = lock(&self.watch).take();
        drop(watch);
        let Some(link) = self.link.get() else { return };
        let last = lock(&self.reporter).last_word(&self.counters.tally(), now());
        let last = last.map_or_else(Wanted::default, |(status, with_state)| self.wanted(&status, with_state));
        // Where there is a connection it takes a moment, though another element has used the deadline up.
        let moment = if link.is_connected() { LAST_WORD } else { Duration::ZERO };
        link.close(last, stop.quick_moment(timeout, moment));
    }

    /// An application may stop the pipeline from within its handler of an ERROR, in the thread that posts it and before we
    /// hear of it (gst-launch does): without a moment's patience the last word would be that it was stopped on purpose.
    fn wait_for_the_cause(&self, until: Instant) {
        while self.is_connected() && self.phase().0 == Phase::Stopped && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    // Commands.

    fn command(self: &Arc<Self>, tail: String, payload: Bytes, retained: bool) {
        if retained {
            return;
        }
        if self.accept_commands {
            let Command { action, answer } = understand(&tail, &payload);
            match action {
                Ok(Action::Report) => self.mail(Input::Answer(Answer { ok: true, ..answer })),
                Ok(action) => self.carry(action, answer),
                Err(_) => self.mail(Input::Answer(answer)),
            }
        }
        self.outbox.post(Post::Command(tail, payload));
    }

    /// Brings a command to the gcssinks, from a thread of GStreamer's: downstream may hold an event up.
    fn carry(self: &Arc<Self>, action: Action, answer: Answer) {
        let Some(element) = self.element.upgrade() else { return };
        let mut commands = lock(&self.commands);
        if commands.queue.len() >= MOST {
            drop(commands);
            let msg = Some("too many commands wait for the pipeline to take them".to_owned());
            return self.mail(Input::Answer(Answer { msg, ..answer }));
        }
        commands.queue.push_back((action, answer));
        if std::mem::replace(&mut commands.busy, true) {
            return;
        }
        drop(commands);
        let session = Arc::clone(self);
        element.call_async(move |element| session.carry_all(element));
    }

    fn carry_all(&self, element: &IotCoreStatus) {
        loop {
            let next = {
                let mut commands = lock(&self.commands);
                let next = commands.queue.pop_front();
                commands.busy = next.is_some();
                next
            };
            let Some((action, answer)) = next else { return };
            let outcome = self.send(element, action, &answer);
            let mut inputs = Vec::new();
            if outcome.is_ok() && matches!(action, Action::RecordStart | Action::RecordStop) {
                inputs.push(Input::Record(action == Action::RecordStart));
            }
            inputs.push(Input::Answer(Answer {
                ok: outcome.is_ok(),
                msg: outcome.err().map(str::to_owned),
                ..answer
            }));
            self.tell(inputs);
        }
    }

    fn send(&self, element: &IotCoreStatus, action: Action, answer: &Answer) -> Result<(), &'static str> {
        self.find_sinks(element);
        if self.samples().is_empty() {
            return Err("there is no gcssink behind iotcorestatus in this pipeline");
        }
        let structure = gst::Structure::builder("gcssink-command")
            .field("command", action.name())
            .field("id", answer.id.as_deref().unwrap_or_default())
            .build();
        // Whether to record stays true for sinks that come later, as those of the fragments of a splitmuxsink.
        let event = match action {
            Action::RecordStart | Action::RecordStop => gst::event::CustomDownstreamSticky::new(structure),
            Action::Split | Action::Report => gst::event::CustomDownstream::new(structure),
        };
        let is_taken = element.imp().src().push_event(event);
        is_taken
            .then_some(())
            .ok_or("the pipeline does not take it now: it is stopping, flushing or at its end")
    }

    /// From the link's task, for the next look.
    fn mail(&self, input: Input) {
        let mut mail = lock(&self.mail);
        if mail.len() < MOST {
            mail.push(input);
        }
        drop(mail);
        self.counters.wake.notify_one();
    }
}

/// Looks when there is news, and when the reporter wants to.
async fn look_again(session: Weak<Session>, counters: Arc<Counters>) {
    let mut next = 0;
    loop {
        tokio::select! {
            () = counters.wake.notified() => {}
            () = tokio::time::sleep(Duration::from_nanos(next)) => {}
        }
        let Some(strong) = session.upgrade() else { return };
        let Some(element) = strong.element.upgrade() else { return };
        next = strong.look(&element).saturating_sub(mono());
        drop((strong, element));
        tokio::time::sleep(LOOK_GAP).await;
    }
}

/// Who hears of the link.
struct Ears(Weak<Session>);

impl Ears {
    fn with(&self, act: impl FnOnce(&Arc<Session>)) {
        if let Some(session) = self.0.upgrade() {
            act(&session);
        }
    }
}

impl Listener for Ears {
    fn connected(&self, _up: bool) {
        self.with(|s| s.outbox.post(Post::Notify("mqtt-connected")));
    }

    fn trouble(&self, text: String) {
        self.with(|s| s.outbox.post(Post::Warning(text)));
    }

    fn recovered(&self, after: Duration) {
        let text = format!("the MQTT broker is there again after {:.1} s", after.as_secs_f64());
        self.with(|s| s.outbox.post(Post::Info(text)));
    }

    fn config(&self, payload: Bytes) {
        self.with(|s| {
            s.mail(Input::Config(sha256_hex(&payload)));
            s.outbox.post(Post::Config(payload));
        });
    }

    fn command(&self, tail: String, payload: Bytes, retained: bool) {
        self.with(|s| s.command(tail, payload, retained));
    }

    fn notice(&self, text: String) {
        self.with(|s| s.outbox.post(Post::Warning(text)));
    }
}
