//! What waits to be published, in which order, and what is in flight. PURE: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::super::Wanted;
use super::super::topics::{OFFLINE, ONLINE, Plan};

/// Telemetry that waits; what comes on top pushes the oldest out.
pub(crate) const MAX_EVENTS: usize = 16;
/// Older telemetry is not published any more.
const MAX_EVENT_AGE: Duration = Duration::from_secs(60);

/// One message to the broker, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Availability,
    State,
    Status,
    Discovery,
    Telemetry,
}

/// A message of which only the newest matters.
#[derive(Debug, Default)]
struct Slot {
    wanted: Option<Bytes>,
    due: bool,
    not_before: Duration,
    acknowledged: Option<Bytes>,
    /// What was wanted last is larger than the broker takes.
    too_large: bool,
}

impl Slot {
    /// Returns whether the payload is the first of a row that is too large.
    fn want(&mut self, payload: Option<Bytes>, limit: usize) -> bool {
        let Some(payload) = payload else {
            return false;
        };
        if payload.len() > limit {
            // What was wanted before is no longer true: it is not published again.
            (self.wanted, self.due) = (None, false);
            return !std::mem::replace(&mut self.too_large, true);
        }
        (self.wanted, self.due, self.too_large) = (Some(payload), true, false);
        false
    }

    fn is_acknowledged(&self) -> bool {
        !self.too_large && !self.due && (self.wanted.is_none() || self.wanted == self.acknowledged)
    }
}

#[derive(Debug)]
struct InFlight {
    what: What,
    since: Duration,
    payload: Bytes,
    /// Of telemetry.
    kind: &'static str,
    said: Duration,
}

#[derive(Debug)]
struct Telemetry {
    said: Duration,
    kind: &'static str,
    payload: Bytes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    state: bool,
    status: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    plan: Plan,
    gap: Duration,
    state: Slot,
    status: Slot,
    /// What to say of our availability, and not before.
    availability: Option<Bytes>,
    availability_not_before: Duration,
    discovery_due: bool,
    events: VecDeque<Telemetry>,
    in_flight: Option<InFlight>,
    /// What this link has put there since the connection was made.
    told: Told,
    leaving: bool,
    said_offline: bool,
    event_too_large: bool,
    pub(super) published: u64,
    pub(super) dropped: u64,
}

impl Outbox {
    pub(super) fn new(plan: Plan, gap: Duration) -> Self {
        Self {
            plan,
            gap,
            state: Slot::default(),
            status: Slot::default(),
            availability: None,
            availability_not_before: Duration::ZERO,
            discovery_due: false,
            events: VecDeque::new(),
            in_flight: None,
            told: Told::default(),
            leaving: false,
            said_offline: false,
            event_too_large: false,
            published: 0,
            dropped: 0,
        }
    }

    /// No state and no status before that.
    pub(super) fn not_before(&mut self, at: Duration) {
        (self.state.not_before, self.status.not_before) = (at, at);
    }

    /// When a state may be published after what was, and after what is on its way; `None` where nothing was.
    pub(super) fn free_at(&self, now: Duration) -> Option<Duration> {
        if self.flies(What::State) || self.flies(What::Status) {
            return Some(now.saturating_add(self.gap));
        }
        Some(self.state.not_before.max(self.status.not_before)).filter(|at| *at > Duration::ZERO)
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A text for a person is returned where something cannot be published.
    pub(super) fn want(&mut self, wanted: Wanted) -> Option<String> {
        let (state, status) = (
            wanted.state.as_ref().map_or(0, Bytes::len),
            wanted.status.as_ref().map_or(0, Bytes::len),
        );
        let limit = self.plan.limit(&self.plan.state);
        let told = self
            .state
            .want(wanted.state, limit)
            .then(|| too_large("state", &self.plan.state, state, limit));
        let Some(topic) = &self.plan.status else {
            return told;
        };
        let limit = self.plan.limit(topic);
        let told_too = self
            .status
            .want(wanted.status, limit)
            .then(|| too_large("status", topic, status, limit));
        told.or(told_too)
    }

    /// The last word. What the broker has acknowledged, or is about to, is not said twice.
    pub(super) fn want_last(&mut self, last: Wanted) -> Option<String> {
        self.leaving = true;
        self.availability = None;
        self.discovery_due = false;
        let in_flight = |what| self.in_flight.as_ref().filter(|f| f.what == what).map(|f| &f.payload);
        let known = |slot: &Slot, flying: Option<&Bytes>, last: &Option<Bytes>| {
            last.is_some() && !slot.due && (flying == last.as_ref() || flying.is_none() && slot.acknowledged == *last)
        };
        let state = known(&self.state, in_flight(What::State), &last.state);
        let status = known(&self.status, in_flight(What::Status), &last.status);
        self.want(Wanted {
            state: last.state.filter(|_| !state),
            status: last.status.filter(|_| !status),
        })
    }

    /// Whether the broker holds the state that is wanted.
    pub(super) fn state_is_acknowledged(&self) -> bool {
        self.state.is_acknowledged() && !self.flies(What::State)
    }

    /// Whether the broker was ever told a state by this link.
    pub(super) fn ever_told(&self) -> bool {
        self.state.acknowledged.is_some()
    }

    /// Whether all that a clean end wants was said.
    pub(super) fn is_done(&self) -> bool {
        let offline = self.said_offline || self.plan.availability.is_none();
        self.in_flight.is_none() && offline && !self.state.due && !self.status.due && self.events.is_empty()
    }

    /// Whether no state and no status waits or is on its way.
    pub(super) fn is_settled(&self) -> bool {
        !(self.state.due || self.status.due || self.flies(What::State) || self.flies(What::Status))
    }

    fn flies(&self, what: What) -> bool {
        self.in_flight.as_ref().is_some_and(|f| f.what == what)
    }

    pub(super) fn telemetry(&mut self, said: Duration, kind: &'static str, payload: Bytes) -> Option<String> {
        // Telemetry that is off is not dropped: nobody wants it.
        let topic = self.plan.event(kind)?;
        let limit = self.plan.limit(&topic);
        if payload.len() > limit {
            self.dropped = self.dropped.saturating_add(1);
            let told = std::mem::replace(&mut self.event_too_large, true);
            return (!told).then(|| too_large("event", &topic, payload.len(), limit));
        }
        self.events.push_back(Telemetry { said, kind, payload });
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        None
    }

    /// A new connection: all that is wanted is published again.
    pub(super) fn connected(&mut self) {
        self.told = Told::default();
        if self.leaving {
            return;
        }
        self.state.due = self.state.wanted.is_some();
        self.status.due = self.status.wanted.is_some();
        self.discovery_due = self.plan.discovery.is_some();
        self.availability = self.plan.availability.is_some().then_some(ONLINE);
        self.availability_not_before = Duration::ZERO;
    }

    /// Somebody said that we are offline.
    pub(super) fn contradict(&mut self) {
        if !self.leaving {
            self.availability = Some(ONLINE);
        }
    }

    /// The connection is gone, and what was in flight may or may not have arrived.
    pub(super) fn lost(&mut self, now: Duration) {
        let Some(flown) = self.in_flight.take() else {
            return;
        };
        match flown.what {
            What::State => retry(&mut self.state, now, self.gap),
            What::Status => retry(&mut self.status, now, self.gap),
            What::Telemetry => self.events.push_front(Telemetry {
                said: flown.said,
                kind: flown.kind,
                payload: flown.payload,
            }),
            What::Availability | What::Discovery => {}
        }
    }

    pub(super) fn acknowledged(&mut self, now: Duration) {
        let Some(flown) = self.in_flight.take() else {
            return;
        };
        self.published = self.published.saturating_add(1);
        let next = now.saturating_add(self.gap);
        match flown.what {
            What::State => {
                (self.state.acknowledged, self.state.not_before) = (Some(flown.payload), next);
                self.told.state = true;
            }
            What::Status => {
                (self.status.acknowledged, self.status.not_before) = (Some(flown.payload), next);
                self.told.status = true;
            }
            What::Availability => {
                self.availability_not_before = next;
                self.said_offline = flown.payload == OFFLINE;
            }
            What::Discovery | What::Telemetry => {}
        }
    }

    /// Since when a publish waits for its acknowledgement.
    pub(super) fn in_flight_since(&self) -> Option<Duration> {
        self.in_flight.as_ref().map(|f| f.since)
    }

    /// When the next publish is due, at the earliest.
    pub(super) fn due_at(&self, now: Duration) -> Option<Duration> {
        self.first_due(now).map(|(at, _)| at)
    }

    /// The first of what is due; it is in flight from now on.
    pub(super) fn publish(&mut self, now: Duration) -> Option<Publish> {
        while self
            .events
            .front()
            .is_some_and(|e| now.saturating_sub(e.said) > MAX_EVENT_AGE)
        {
            self.events.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        if self.in_flight.is_some() {
            return None;
        }
        let (_, what) = self.first_due(now).filter(|(at, _)| *at <= now)?;
        let mut flying = InFlight {
            what,
            since: now,
            payload: Bytes::new(),
            kind: "",
            said: now,
        };
        let (topic, retain) = match what {
            What::Availability => {
                flying.payload = self.availability.take().unwrap_or(OFFLINE);
                (self.plan.availability.clone()?, true)
            }
            What::State => {
                flying.payload = send(&mut self.state)?;
                (self.plan.state.clone(), self.plan.retain)
            }
            What::Status => {
                flying.payload = send(&mut self.status)?;
                (self.plan.status.clone()?, true)
            }
            What::Discovery => {
                self.discovery_due = false;
                let (topic, payload) = self.plan.discovery.clone()?;
                flying.payload = payload;
                (topic, true)
            }
            What::Telemetry => {
                let event = self.events.pop_front()?;
                (flying.payload, flying.kind, flying.said) = (event.payload, event.kind, event.said);
                (self.plan.event(event.kind)?, false)
            }
        };
        let payload = flying.payload.clone();
        self.in_flight = Some(flying);
        Some(Publish { topic, payload, retain })
    }

    /// In the order of their weight; of two that are due the first goes.
    fn first_due(&self, now: Duration) -> Option<(Duration, What)> {
        let (state, status) = (&self.state, &self.status);
        let rest = !(state.due || status.due || self.events.front().is_some());
        let offline = self.leaving && rest && !self.said_offline && self.plan.availability.is_some();
        // What is retained may be the last of a process that died: nobody shall believe it because we are there.
        let is_told = self.availability.is_some() && self.told.state && (self.told.status || status.wanted.is_none());
        let mine = [
            state.due.then_some((state.not_before, What::State)),
            status.due.then_some((status.not_before, What::Status)),
            is_told.then_some((self.availability_not_before, What::Availability)),
            self.discovery_due.then_some((Duration::ZERO, What::Discovery)),
            self.events.front().map(|_| (Duration::ZERO, What::Telemetry)),
            offline.then_some((Duration::ZERO, What::Availability)),
        ];
        mine.into_iter().flatten().min_by_key(|(at, _)| (*at).max(now))
    }
}

fn send(slot: &mut Slot) -> Option<Bytes> {
    slot.due = false;
    slot.wanted.clone()
}

/// It may have arrived just now: the gap counts from here.
fn retry(slot: &mut Slot, now: Duration, gap: Duration) {
    slot.due = slot.wanted.is_some();
    slot.not_before = now.saturating_add(gap);
}

fn too_large(what: &str, topic: &str, size: usize, limit: usize) -> String {
    format!("a {what} of {size} bytes is not published on {topic}: the broker takes at most {limit} bytes")
}
