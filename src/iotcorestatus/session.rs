//! What exists from READY→PAUSED to PAUSED→READY: the reporter, the link to the broker, and the timer that polls.
//!
//! Locks: the reporter's lock is held for one poll and while passing its output to the link, which briefly takes its own lock and
//! calls nothing outside. Reports of the link arrive on its task and reach the next poll through the inbox. Nothing is posted and
//! no other element is read while a lock is held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;

use super::bus_watch::{self, Watched};
use super::command_queue::CommandQueue;
use super::counters::{Counters, mono, now};
use super::debug::CAT;
use super::downstream::{self, Relation, SinkList};
use super::inbox::Inbox;
use super::link_listener::LinkListener;
use super::link_start::LinkStart;
use super::messages::{MessagePoster, Post};
use super::report::{Event, Identity, Limits, Output, Phase, Reporter, SinkSample, Status, Telemetry};
use super::settings::PayloadFormat;
use super::validated::ValidatedSettings;
use crate::base::lock::lock;
use crate::element::shutdown::Stop;
use gcstreamer_mqtt::{Config, ConfigError, Link, LinkStats, Wanted};
use gcstreamer_schema::redact;

/// Shortest time between two polls of the timer, so that a busy pad does not wake it more often.
const MIN_POLL_GAP: Duration = Duration::from_millis(20);
/// The session walks the pads for gcssinks at every n-th poll.
const WALK_EVERY: u32 = 5;
/// How long READY→PAUSED waits for the files of the link, ten times what a slow disk takes.
const FILES_WAIT: Duration = Duration::from_secs(5);
/// Time for the final status while connected, even after the deadline.
const FINAL_STATUS: Duration = Duration::from_millis(300);
/// Maximum time to wait for the ERROR that stopped the pipeline, from the stop of the first element.
const CAUSE_WAIT: Duration = Duration::from_millis(50);
/// Interval between two checks for that ERROR.
const CAUSE_CHECK: Duration = Duration::from_millis(5);

/// Maximum number of events that wait for a link; the oldest are dropped.
const MAX_TELEMETRY: usize = 64;

/// What to publish once the link has started; its files may take any length of time to read.
#[derive(Debug, Default)]
struct Waiting {
    telemetry: VecDeque<Telemetry>,
    /// The discovery message, if it has changed.
    discovery: Option<Bytes>,
}

/// One run of the element.
pub(super) struct Session {
    element: glib::WeakRef<gst::Element>,
    identity: Identity,
    format: PayloadFormat,
    counters: Arc<Counters>,
    reporter: Mutex<Reporter>,
    sinks: Arc<SinkList>,
    inbox: Arc<Inbox>,
    poster: Arc<MessagePoster>,
    /// Set once: by [`Session::start`], or later if reading its files takes longer than [`FILES_WAIT`].
    link: OnceLock<Link>,
    /// The start of the link, while it waits for another one that reads the same files.
    link_start: Mutex<Option<tokio::task::AbortHandle>>,
    waiting: Mutex<Waiting>,
    bus_watch: Mutex<Watched>,
    timer: Mutex<Option<tokio::task::AbortHandle>>,
    /// Polls of the timer so far.
    polls: AtomicU32,
    /// The element was taken out of PLAYING while the pipeline plays: by a bin around it, or by itself.
    is_held: AtomicBool,
}

impl Session {
    /// Starts the link, the bus watch and the timer. `src` is the element's source pad.
    ///
    /// # Errors
    /// Returns a SETTINGS error if the link cannot work with these settings.
    pub(super) fn start(
        element: &gst::Element,
        src: &gst::Pad,
        settings: ValidatedSettings,
        limits: Limits,
        counters: &Arc<Counters>,
        poster: &Arc<MessagePoster>,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Arc<Self>, gst::ErrorMessage> {
        counters.reset();
        let session = Arc::new(Self {
            element: element.downgrade(),
            identity: settings.identity.clone(),
            format: settings.format,
            counters: Arc::clone(counters),
            reporter: Mutex::new(Reporter::new(limits, settings.identity, now())),
            sinks: Arc::new(SinkList::new(src)),
            inbox: Arc::new(Inbox::new(Arc::clone(counters))),
            poster: Arc::clone(poster),
            link: OnceLock::new(),
            link_start: Mutex::default(),
            waiting: Mutex::default(),
            bus_watch: Mutex::default(),
            timer: Mutex::default(),
            polls: AtomicU32::new(0),
            is_held: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&session);
        let on_outcome = move |events| {
            if let Some(session) = weak.upgrade() {
                session.handle(events);
            }
        };
        let listener = Arc::new(LinkListener {
            element: element.downgrade(),
            poster: Arc::clone(poster),
            inbox: Arc::clone(&session.inbox),
            commands: Arc::new(CommandQueue::new(element, src, Arc::clone(&session.sinks), on_outcome)),
            accept_commands: settings.accept_commands,
        });
        session.start_link(settings.link, listener, runtime)?;
        settings
            .warnings
            .into_iter()
            .for_each(|text| poster.post(Post::Warning(text)));
        session.watch_bus(element);
        // Look for sinks before the first frame: a sink first seen after it would count as one that appeared in mid-stream.
        session.sinks.refresh();
        session.handle([Event::Sinks(session.samples())]);
        let timer = runtime.spawn(poll_repeatedly(Arc::downgrade(&session), Arc::clone(counters)));
        *lock(&session.timer) = Some(timer.abort_handle());
        Ok(session)
    }

    /// Starts the link, which reads its files first. If that takes longer than [`FILES_WAIT`], posts a WARNING and returns; the
    /// link then starts in the background as soon as they are read.
    ///
    /// # Errors
    /// Returns a SETTINGS error if the link cannot work with these settings.
    fn start_link(
        self: &Arc<Self>,
        config: Config,
        listener: Arc<LinkListener>,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<(), gst::ErrorMessage> {
        let (sender, receiver) = mpsc::channel();
        let (asks, weak) = (Arc::downgrade(self), Arc::downgrade(self));
        let start = LinkStart {
            config,
            listener,
            is_wanted: move || asks.strong_count() > 0,
            done: move |started: Result<Link, ConfigError>| {
                // The session has ended: the link is dropped.
                let Some(session) = weak.upgrade() else { return };
                let started = started.map(|link| session.take_link(link));
                // `start_link` has returned after `FILES_WAIT`: a late error can only be a WARNING.
                if let Err(mpsc::SendError(Err(late))) = sender.send(started) {
                    session.poster.post(Post::Warning(late.to_string()));
                }
            },
        };
        let waiting = start
            .begin(runtime.handle())
            .map_err(|e| gst::error_msg!(gst::ResourceError::Failed, ("the network threads cannot be started: {e}")))?;
        *lock(&self.link_start) = waiting;
        match receiver.recv_timeout(FILES_WAIT) {
            Ok(started) => started.map_err(|e| gst::error_msg!(gst::ResourceError::Settings, ("{e}"))),
            Err(_) => {
                self.poster.post(Post::Warning(
                    "the files of the MQTT settings do not answer; check the disk or the mount that they are on. The pipeline continues, and the link starts as soon as they can be read"
                        .to_owned(),
                ));
                Ok(())
            }
        }
    }

    /// Stores the link. Outputs before this moment had no link to go to, so the reporter publishes everything again.
    fn take_link(&self, link: Link) {
        let mut reporter = lock(&self.reporter);
        // Cannot fail: a session starts one link.
        let _ = self.link.set(link);
        reporter.forget_published();
        drop(reporter);
        if let (Some(payload), Some(link)) = (lock(&self.waiting).discovery.take(), self.link.get()) {
            link.set_discovery(payload);
        }
        self.counters.wake.notify_one();
    }

    /// Follows the bus of the current top-level element, which changes if a camera's bin is added to a pipeline after it has
    /// played.
    fn watch_bus(self: &Arc<Self>, element: &gst::Element) {
        let bus = downstream::top_of(element).bus();
        let (weak, ours) = (Arc::downgrade(self), element.downgrade());
        let on_message = move |message: &gst::Message| {
            if let (Some(session), Some(ours)) = (weak.upgrade(), ours.upgrade()) {
                session.on_message(message, &ours);
            }
        };
        // Dropped without the lock: the bus takes locks of its own, which a thread that posts may hold while our handler runs.
        let before = lock(&self.bus_watch).follow(bus, on_message);
        drop(before);
    }

    /// Passes events to the reporter, polls it and publishes its output. Returns when to poll next, at the latest.
    pub(super) fn handle(&self, events: impl IntoIterator<Item = Event>) -> u64 {
        let mut reporter = lock(&self.reporter);
        reporter.set_link_settled(self.link.get().is_none_or(Link::is_settled));
        events.into_iter().for_each(|event| reporter.handle(event, now()));
        // Armed before the counters are read, so that a buffer arriving in between wakes the timer.
        self.counters.arm(true);
        let output = reporter.poll(&self.counters.snapshot(), now());
        if output.phase_changed {
            let reason = reporter.reason().map_or("", |r| r.name());
            gst::info!(CAT, "{} is {} {reason}", self.identity.device, reporter.phase().name());
        }
        // While the camera streams, a buffer is nothing new and must not wake the timer.
        self.counters.arm(reporter.phase() != Phase::Streaming);
        let next = output.next_poll;
        // Under the reporter's lock, so that outputs reach the link in the order of the polls.
        self.publish(output);
        next
    }

    fn publish(&self, output: Output) {
        if output.state_changed {
            self.poster.post(Post::Notify("state"));
        }
        let mut waiting = lock(&self.waiting);
        waiting.telemetry.extend(output.telemetry);
        let Some(link) = self.link.get() else {
            let too_many = waiting.telemetry.len().saturating_sub(MAX_TELEMETRY);
            waiting.telemetry.drain(..too_many);
            return;
        };
        for telemetry in waiting.telemetry.drain(..) {
            link.event(telemetry.kind, Bytes::from(telemetry.body.to_string()));
        }
        if let Some(status) = output.publish {
            link.want(self.wanted(&status, output.with_state));
        }
    }

    /// Returns the payloads of a status. Unless `with_state` is set, the bare state is omitted in text format, and the broker
    /// keeps its value.
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

    /// Reads the sinks. Takes locks of other elements: call it without a lock held.
    fn samples(&self) -> Vec<SinkSample> {
        let patience = lock(&self.reporter).stall_timeout();
        self.sinks.samples(mono(), patience)
    }

    /// Sets whether the element leaves PLAYING while the pipeline plays.
    pub(super) fn set_held(&self, is_held: bool) {
        self.is_held.store(is_held, Relaxed);
    }

    /// Returns whether the element should be playing. The target state of the pipeline decides, so that the time in which it
    /// waits for other elements counts. Two exceptions: a bin that was paused inside the pipeline stays paused until it is set
    /// to PLAYING itself (`is_held`). While a pipeline waits in PAUSED for a sink that was added, the element plays on.
    fn is_playing(&self, element: &gst::Element) -> bool {
        let plays_on = element.current_state() == gst::State::Playing && element.pending_state() == gst::State::VoidPending;
        let is_playing = plays_on || downstream::target_state(element) == gst::State::Playing;
        is_playing && !self.is_held.load(Relaxed)
    }

    /// Executes one poll of the timer. Returns when to poll next, at the latest.
    fn poll(self: &Arc<Self>, element: &gst::Element) -> u64 {
        self.watch_bus(element);
        let polls = self.polls.fetch_add(1, Relaxed);
        if polls.is_multiple_of(WALK_EVERY) || self.sinks.is_empty() {
            self.sinks.refresh();
        }
        let sinks = self.samples();
        let mut events = vec![Event::Playing(self.is_playing(element)), Event::Sinks(sinks)];
        events.append(&mut self.inbox.take());
        self.handle(events)
    }

    /// Handles the upstream event `gcssink-health`.
    pub(super) fn on_health(&self, seqnum: gst::Seqnum, structure: &gst::StructureRef) {
        if self.sinks.on_health(seqnum, structure) {
            self.counters.wake.notify_one();
        }
    }

    /// Handles a message on the bus, in the thread that posts it.
    fn on_message(&self, message: &gst::MessageRef, ours: &gst::Element) {
        let Some(mut event) = bus_watch::event_of(message) else {
            return;
        };
        gst::debug!(CAT, "on the bus: {}", redact(&format!("{event:?}")));
        let Some(src) = message.src() else { return };
        let is_relevant = match &mut event {
            // Our own WARNINGs are about the broker, not about the stream.
            Event::Problem(problem) if !problem.is_error && src == ours.upcast_ref::<gst::Object>() => false,
            // Another camera of the pipeline may have its own iotcorestatus.
            Event::Problem(problem) => match downstream::relation(ours, src) {
                Relation::Ours => true,
                Relation::Elsewhere => {
                    problem.is_elsewhere = true;
                    true
                }
                Relation::AnothersCamera => false,
            },
            // If downstream pulls, no EOS event passes, and a demuxer may never ask for more than the file holds.
            Event::Eos => ours.static_pad("src").is_some_and(|src| src.mode() == gst::PadMode::Pull),
            _ => self.sinks.contains(src),
        };
        if is_relevant {
            self.handle([event]);
        }
    }

    /// Applies changed properties.
    pub(super) fn set_limits(&self, limits: Limits) {
        lock(&self.reporter).set_limits(limits);
        self.counters.wake.notify_one();
    }

    /// Returns the identity of the device as published in the status.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Publishes the discovery message for Home Assistant again if `payload` has changed.
    pub(super) fn set_discovery(&self, payload: Bytes) {
        // Locked before the link is looked up, so that `take_link` finds the payload if the link is set in between.
        let mut waiting = lock(&self.waiting);
        match self.link.get() {
            Some(link) => link.set_discovery(payload),
            None => waiting.discovery = Some(payload),
        }
    }

    /// Returns phase and reason as of the last poll, and the number of stalls.
    pub(super) fn phase(&self) -> (Phase, Option<&'static str>, u64) {
        let reporter = lock(&self.reporter);
        (reporter.phase(), reporter.reason().map(|r| r.name()), reporter.stalls().count)
    }

    /// Returns whether there is a connection to the broker. `false` before the link has started.
    pub(super) fn is_connected(&self) -> bool {
        self.link.get().is_some_and(Link::is_connected)
    }

    /// Returns the counters of the link.
    pub(super) fn link_stats(&self) -> LinkStats {
        self.link.get().map(Link::stats).unwrap_or_default()
    }

    /// Publishes the final status and closes the link. Blocks at most until the end of the grace period that all elements
    /// stopping together share.
    pub(super) fn stop(&self, stop: &Stop, timeout: Duration) {
        if let Some(timer) = lock(&self.timer).take() {
            timer.abort();
        }
        if let Some(start) = lock(&self.link_start).take() {
            start.abort();
        }
        self.handle([Event::Stopping, Event::Sinks(self.samples())]);
        self.wait_for_cause(stop.until(CAUSE_WAIT));
        // Taken out first and dropped without the lock, as in `watch_bus`.
        let watched = lock(&self.bus_watch).end();
        drop(watched);
        let Some(link) = self.link.get() else { return };
        let last = lock(&self.reporter).final_status(&self.counters.snapshot(), now());
        let last = last.map_or_else(Wanted::default, |(status, with_state)| self.wanted(&status, with_state));
        // While connected this takes only a moment, which is granted even if another element has used up the deadline.
        let moment = if link.is_connected() { FINAL_STATUS } else { Duration::ZERO };
        link.close(last, stop.quick_moment(timeout, moment));
    }

    /// Waits briefly for the ERROR that stopped the pipeline. An application may stop it inside its own handler of the ERROR, in
    /// the posting thread and before our handler runs (gst-launch does); otherwise the final status would report a stop on
    /// purpose.
    fn wait_for_cause(&self, until: Instant) {
        while self.is_connected() && self.phase().0 == Phase::Stopped && Instant::now() < until {
            std::thread::sleep(CAUSE_CHECK);
        }
    }
}

/// Polls when something has happened and when the reporter asks for it. Ends with the session.
async fn poll_repeatedly(session: Weak<Session>, counters: Arc<Counters>) {
    let mut wait = 0;
    loop {
        tokio::select! {
            () = counters.wake.notified() => {}
            () = tokio::time::sleep(Duration::from_nanos(wait)) => {}
        }
        let Some(strong) = session.upgrade() else { return };
        let Some(element) = strong.element.upgrade() else { return };
        wait = strong.poll(&element).saturating_sub(mono());
        // Before the sleep: the timer must keep neither the session nor the element alive.
        drop((strong, element));
        tokio::time::sleep(MIN_POLL_GAP).await;
    }
}
