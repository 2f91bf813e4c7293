//! Messages that wait to be published, their order, and the one in flight. PURE: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::super::Wanted;
use super::super::topics::{OFFLINE, ONLINE, Topics};
use super::broker_limit::{BrokerLimit, Verdict};

/// Maximum number of waiting telemetry messages; a further one drops the oldest.
pub(crate) const MAX_EVENTS: usize = 16;
/// A status older than this when a connection is made is not published at once: the queue waits up to [`FRESH_WAIT`] for a fresh
/// one.
const MAX_STATUS_AGE: Duration = Duration::from_secs(5);
const FRESH_WAIT: Duration = Duration::from_secs(1);
/// Maximum number of our own publishes that are remembered until the broker returns them.
const MAX_SENT: usize = 32;
/// Number of foreign values corrected within [`FIGHT_TIME`] after which they are reported.
const FIGHT: usize = 5;
const FIGHT_TIME: Duration = Duration::from_secs(60);
/// Telemetry older than this is dropped, so that an outage is not followed by stale events.
const MAX_EVENT_AGE: Duration = Duration::from_secs(60);

/// One message to the broker, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishKind {
    Availability,
    State,
    Status,
    Discovery,
    Telemetry,
}

impl PublishKind {
    /// Returns its name in messages to the user.
    const fn name(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::State => "state",
            Self::Status => "status",
            Self::Discovery => "discovery message",
            Self::Telemetry => "event",
        }
    }
}

/// A retained value: only the newest is published.
#[derive(Debug, Default)]
struct Slot {
    wanted: Option<Bytes>,
    due: bool,
    not_before: Duration,
    acknowledged: Option<Bytes>,
    /// The last wanted payload exceeds the limit of the broker.
    too_large: bool,
}

impl Slot {
    /// Sets the wanted payload. Returns whether to report that it is too large: only for the first of successive ones.
    fn want(&mut self, payload: Option<Bytes>, limit: usize) -> bool {
        let Some(payload) = payload else {
            return false;
        };
        if payload.len() > limit {
            // The previous payload is outdated, so do not publish that again either.
            (self.wanted, self.due) = (None, false);
            return !std::mem::replace(&mut self.too_large, true);
        }
        (self.wanted, self.due, self.too_large) = (Some(payload), true, false);
        false
    }

    /// Drops the wanted payload if it has more than `limit` bytes.
    fn give_up_beyond(&mut self, limit: usize) {
        if self.wanted.as_ref().is_some_and(|payload| payload.len() > limit) {
            (self.wanted, self.due, self.too_large) = (None, false, true);
        }
    }

    fn is_acknowledged(&self) -> bool {
        !self.too_large && !self.due && (self.wanted.is_none() || self.wanted == self.acknowledged)
    }
}

#[derive(Debug)]
struct InFlight {
    what: PublishKind,
    since: Duration,
    payload: Bytes,
    /// Kind of telemetry; empty for other kinds of publishes.
    kind: &'static str,
    queued_at: Duration,
}

#[derive(Debug)]
struct Telemetry {
    queued_at: Duration,
    kind: &'static str,
    payload: Bytes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Published {
    state: bool,
    status: bool,
}

/// The publishes of one link.
#[derive(Debug)]
pub(super) struct PublishQueue {
    topics: Topics,
    gap: Duration,
    state: Slot,
    status: Slot,
    /// The availability to publish, and the earliest moment for it.
    availability: Option<Bytes>,
    availability_not_before: Duration,
    discovery_due: bool,
    events: VecDeque<Telemetry>,
    in_flight: Option<InFlight>,
    /// What this link has published since the connection was made.
    published_here: Published,
    /// When [`PublishQueue::want`] was last called.
    wanted_at: Duration,
    /// State, status and discovery message are delayed until this moment, unless a fresh status is set before.
    fresh_until: Option<Duration>,
    /// States and statuses published on this connection that the broker has not returned yet.
    sent: VecDeque<(PublishKind, Bytes)>,
    /// The last status that was published, and the last one of earlier connections.
    last_status: Option<Bytes>,
    status_before: Option<Bytes>,
    /// Times of the last corrections of foreign values, and whether they are reported.
    corrected: VecDeque<Duration>,
    is_fight_reported: bool,
    /// `online` is acknowledged or in flight on this connection.
    reported_online: bool,
    leaving: bool,
    has_published_offline: bool,
    event_too_large: bool,
    broker_limit: BrokerLimit,
    pub(super) published: u64,
    pub(super) dropped: u64,
}

impl PublishQueue {
    pub(super) fn new(topics: Topics, gap: Duration) -> Self {
        Self {
            topics,
            gap,
            state: Slot::default(),
            status: Slot::default(),
            availability: None,
            availability_not_before: Duration::ZERO,
            discovery_due: false,
            events: VecDeque::new(),
            in_flight: None,
            published_here: Published::default(),
            wanted_at: Duration::ZERO,
            fresh_until: None,
            sent: VecDeque::new(),
            last_status: None,
            status_before: None,
            corrected: VecDeque::new(),
            is_fight_reported: false,
            reported_online: false,
            leaving: false,
            has_published_offline: false,
            event_too_large: false,
            broker_limit: BrokerLimit::default(),
            published: 0,
            dropped: 0,
        }
    }

    /// Publishes no state and no status before `at`. Never shortens a delay that was set before.
    pub(super) fn not_before(&mut self, at: Duration) {
        self.state.not_before = self.state.not_before.max(at);
        self.status.not_before = self.status.not_before.max(at);
    }

    /// Returns when the next state may be published, as if a publish in flight were acknowledged now; `None` if nothing was
    /// published yet.
    pub(super) fn free_at(&self, now: Duration) -> Option<Duration> {
        if self.is_in_flight(PublishKind::State) || self.is_in_flight(PublishKind::Status) {
            return Some(now.saturating_add(self.gap));
        }
        Some(self.state.not_before.max(self.status.not_before)).filter(|at| *at > Duration::ZERO)
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Sets the wanted payloads. Returns a text to report if one is too large to publish.
    pub(super) fn want(&mut self, now: Duration, wanted: Wanted) -> Option<String> {
        (self.wanted_at, self.fresh_until) = (now, None);
        let (state, status) = (
            wanted.state.as_ref().map_or(0, Bytes::len),
            wanted.status.as_ref().map_or(0, Bytes::len),
        );
        // Only the protocol's limit applies to a state: the broker's limit is a guess, and the state is never given up.
        let limit = self.topics.limit(&self.topics.state);
        let first = self
            .state
            .want(wanted.state, limit)
            .then(|| too_large(PublishKind::State, &self.topics.state, state, limit));
        let Some(topic) = &self.topics.status else {
            return first;
        };
        let limit = self.limit(now, topic);
        // A size over the broker's limit was reported when that limit was found.
        let is_ours = |size: usize| size > self.topics.limit(topic);
        let second = (self.status.want(wanted.status, limit) && is_ours(status))
            .then(|| too_large(PublishKind::Status, topic, status, limit));
        first.or(second)
    }

    /// Returns the largest payload on a topic, bytes.
    fn limit(&self, now: Duration, topic: &str) -> usize {
        self.topics.limit(topic).min(self.broker_limit.at(now))
    }

    /// Replaces the discovery message and publishes it, on this connection and every later one. Does nothing if the link has none
    /// or is ending.
    pub(super) fn set_discovery(&mut self, now: Duration, payload: Bytes) -> Option<String> {
        let (topic, known) = self.topics.discovery.as_mut()?;
        if self.leaving || *known == payload {
            return None;
        }
        let topic = topic.clone();
        let limit = self.topics.limit(&topic);
        if payload.len() > limit {
            return Some(too_large(PublishKind::Discovery, &topic, payload.len(), limit));
        }
        // Stored all the same: a later connection publishes it once the guessed limit has expired.
        self.discovery_due = payload.len() <= self.broker_limit.at(now);
        self.topics.discovery = Some((topic, payload));
        None
    }

    /// Sets the final payloads. Does not publish a payload again that the broker has acknowledged or that is in flight.
    pub(super) fn want_final(&mut self, now: Duration, last: Wanted) -> Option<String> {
        self.leaving = true;
        // `online` must not follow now: `offline` is published last.
        self.availability = None;
        self.discovery_due = false;
        let in_flight = |what| self.in_flight.as_ref().filter(|f| f.what == what).map(|f| &f.payload);
        let known = |slot: &Slot, flying: Option<&Bytes>, last: &Option<Bytes>| {
            last.is_some() && !slot.due && (flying == last.as_ref() || flying.is_none() && slot.acknowledged == *last)
        };
        let state = known(&self.state, in_flight(PublishKind::State), &last.state);
        let status = known(&self.status, in_flight(PublishKind::Status), &last.status);
        let last = Wanted {
            state: last.state.filter(|_| !state),
            status: last.status.filter(|_| !status),
        };
        self.want(now, last)
    }

    /// Returns whether the broker holds the wanted state.
    pub(super) fn state_is_acknowledged(&self) -> bool {
        self.state.is_acknowledged() && !self.is_in_flight(PublishKind::State)
    }

    /// Returns whether the broker has acknowledged any state of this link.
    pub(super) fn has_published_state(&self) -> bool {
        self.state.acknowledged.is_some()
    }

    /// Returns whether everything is published that a clean end requires.
    pub(super) fn is_done(&self) -> bool {
        let offline = self.has_published_offline || self.topics.availability.is_none();
        self.in_flight.is_none() && offline && !self.state.due && !self.status.due && self.events.is_empty()
    }

    /// Returns whether no state and no status waits or is in flight.
    pub(super) fn is_settled(&self) -> bool {
        !(self.state.due || self.status.due || self.is_in_flight(PublishKind::State) || self.is_in_flight(PublishKind::Status))
    }

    fn is_in_flight(&self, what: PublishKind) -> bool {
        self.in_flight.as_ref().is_some_and(|f| f.what == what)
    }

    pub(super) fn telemetry(&mut self, queued_at: Duration, kind: &'static str, payload: Bytes) -> Option<String> {
        // Telemetry that is disabled does not count as dropped.
        let topic = self.topics.event(kind)?;
        let limit = self.limit(queued_at, &topic);
        if payload.len() > limit {
            self.dropped = self.dropped.saturating_add(1);
            // A size over the broker's limit was reported when that limit was found.
            let is_found = payload.len() <= self.topics.limit(&topic);
            let is_reported = is_found || std::mem::replace(&mut self.event_too_large, true);
            return (!is_reported).then(|| too_large(PublishKind::Telemetry, &topic, payload.len(), limit));
        }
        self.events.push_back(Telemetry {
            queued_at,
            kind,
            payload,
        });
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        None
    }

    /// Records a new connection: everything wanted becomes due again. After an outage, a status older than [`MAX_STATUS_AGE`]
    /// waits for [`FRESH_WAIT`], so that the owner of the link can replace it.
    pub(super) fn connected(&mut self, now: Duration, after_outage: bool) {
        self.published_here = Published::default();
        self.sent.clear();
        self.status_before.clone_from(&self.last_status);
        (self.reported_online, self.fresh_until) = (false, None);
        // Only the final payloads are published now, and `lost` has made an unacknowledged one due again.
        if self.leaving {
            return;
        }
        if after_outage && now.saturating_sub(self.wanted_at) >= MAX_STATUS_AGE {
            self.fresh_until = Some(now.saturating_add(FRESH_WAIT));
        }
        self.state.due = self.state.wanted.is_some();
        self.status.due = self.status.wanted.is_some();
        let limit = self.broker_limit.at(now);
        self.discovery_due = self
            .topics
            .discovery
            .as_ref()
            .is_some_and(|(_, payload)| payload.len() <= limit);
        self.availability = self.topics.availability.is_some().then_some(ONLINE);
        self.availability_not_before = Duration::ZERO;
    }

    /// Returns whether a status was published on this connection.
    pub(super) fn has_published_status(&self) -> bool {
        self.published_here.status
    }

    /// Returns whether this payload equals one that was published on this connection and has not come back yet.
    pub(super) fn is_own(&self, kind: PublishKind, payload: &Bytes) -> bool {
        self.sent
            .iter()
            .any(|(sent_kind, sent)| *sent_kind == kind && sent == payload)
    }

    /// Returns whether this message is a status that was published on this connection; `false` if it may be the retained status
    /// of an earlier one.
    pub(super) fn is_own_status(&self, payload: &Bytes, retained: bool) -> bool {
        self.is_own(PublishKind::Status, payload) && !(retained && self.status_before.as_ref() == Some(payload))
    }

    /// Returns whether `online` was published on this connection.
    pub(super) fn has_reported_online(&self) -> bool {
        self.reported_online
    }

    /// Publishes the state or the status again if this message on its topic is not ours. Returns a text to report if another
    /// client keeps publishing there.
    pub(super) fn correct(&mut self, now: Duration, topic: &str, payload: &Bytes) -> Option<String> {
        let what = if topic == self.topics.state {
            PublishKind::State
        } else {
            PublishKind::Status
        };
        if let Some(place) = self.sent.iter().position(|(kind, sent)| *kind == what && sent == payload) {
            // A broker delivers a topic in order (MQTT 3.1.1, 4.6): earlier publishes of this kind will not come back any more.
            let after = self.sent.split_off(place.saturating_add(1));
            self.sent.retain(|(kind, _)| *kind != what);
            self.sent.extend(after);
            return None;
        }
        let slot = if what == PublishKind::State {
            &mut self.state
        } else {
            &mut self.status
        };
        // The current value already, such as the retained copy of an earlier connection: nothing to correct.
        let is_ours = slot.acknowledged.as_ref() == Some(payload) && slot.wanted == slot.acknowledged;
        if self.leaving || slot.wanted.is_none() || is_ours {
            return None;
        }
        slot.due = true;
        self.corrected.push_back(now);
        self.corrected.retain(|at| now.saturating_sub(*at) <= FIGHT_TIME);
        if self.corrected.len() < FIGHT || std::mem::replace(&mut self.is_fight_reported, true) {
            return None;
        }
        Some(format!(
            "another client publishes on {topic}, {FIGHT} times within {} s: each time this device's own value replaces it; give each \
             device a topic-prefix (or device-id) of its own",
            FIGHT_TIME.as_secs()
        ))
    }

    /// Publishes `online` again, unless the link is ending. For when another client has published `offline` on our topic, or
    /// cleared it, and for a second echo.
    pub(super) fn reassert_online(&mut self) {
        if !self.leaving {
            self.availability = Some(ONLINE);
        }
    }

    /// Records the loss of the connection. The message in flight may or may not have arrived, so it is published again. Returns a
    /// text to report if the broker seems to close the connection because of this message.
    pub(super) fn lost(&mut self, now: Duration) -> Option<String> {
        let landed = self.in_flight.take();
        let suspect = landed.as_ref().map(|f| (f.what, f.payload.len(), f.since));
        let verdict = self.broker_limit.lost(now, suspect);
        let is_given_up = matches!(verdict, Verdict::GiveUp { .. });
        let landed = landed?;
        let is_new = matches!(verdict, Verdict::Report | Verdict::GiveUp { is_new: true });
        let report = is_new.then(|| self.text_of_limit(&landed, is_given_up)).flatten();
        match landed.what {
            PublishKind::State => retry(&mut self.state, now, self.gap),
            PublishKind::Status => retry(&mut self.status, now, self.gap),
            PublishKind::Telemetry if is_given_up => self.dropped = self.dropped.saturating_add(1),
            PublishKind::Telemetry => self.events.push_front(Telemetry {
                queued_at: landed.queued_at,
                kind: landed.kind,
                payload: landed.payload,
            }),
            // Both become due again at the next connection, see `connected`.
            PublishKind::Availability | PublishKind::Discovery => {}
        }
        if is_given_up {
            self.status.give_up_beyond(self.broker_limit.at(now));
        }
        report
    }

    /// Returns the topic for this kind of message. `event` is the kind of telemetry, ignored for other messages.
    pub(super) fn topic_of(&self, what: PublishKind, event: &str) -> Option<String> {
        match what {
            PublishKind::Availability => self.topics.availability.clone(),
            PublishKind::State => Some(self.topics.state.clone()),
            PublishKind::Status => self.topics.status.clone(),
            PublishKind::Discovery => self.topics.discovery.as_ref().map(|(topic, _)| topic.clone()),
            PublishKind::Telemetry => self.topics.event(event),
        }
    }

    fn text_of_limit(&self, landed: &InFlight, is_given_up: bool) -> Option<String> {
        let topic = self.topic_of(landed.what, landed.kind);
        let size = landed.payload.len();
        Some(BrokerLimit::text(landed.what.name(), &topic?, size, is_given_up))
    }

    /// Takes the acknowledgement of the message in flight. Returns whether it was `online`.
    pub(super) fn acknowledged(&mut self, now: Duration) -> bool {
        let Some(landed) = self.in_flight.take() else {
            return false;
        };
        let is_online = landed.what == PublishKind::Availability && landed.payload == ONLINE;
        self.published = self.published.saturating_add(1);
        self.broker_limit.acknowledged(landed.what, landed.payload.len());
        let next = now.saturating_add(self.gap);
        match landed.what {
            PublishKind::State => {
                (self.state.acknowledged, self.state.not_before) = (Some(landed.payload), next);
                self.published_here.state = true;
            }
            PublishKind::Status => {
                (self.status.acknowledged, self.status.not_before) = (Some(landed.payload), next);
                self.published_here.status = true;
            }
            PublishKind::Availability => {
                // A row of foreign `offline` messages must not lead to as many answers.
                self.availability_not_before = next;
                self.has_published_offline = landed.payload == OFFLINE;
            }
            PublishKind::Discovery | PublishKind::Telemetry => {}
        }
        is_online
    }

    /// Returns when the publish in flight was sent; `None` if none is in flight.
    pub(super) fn in_flight_since(&self) -> Option<Duration> {
        self.in_flight.as_ref().map(|f| f.since)
    }

    /// Returns when the next publish is due.
    pub(super) fn due_at(&self, now: Duration) -> Option<Duration> {
        self.first_due(now).map(|(at, _)| at)
    }

    /// Takes the first publish that is due; it is then in flight.
    pub(super) fn publish(&mut self, now: Duration) -> Option<Publish> {
        while self
            .events
            .front()
            .is_some_and(|e| now.saturating_sub(e.queued_at) > MAX_EVENT_AGE)
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
            queued_at: now,
        };
        let (topic, retain) = match what {
            PublishKind::Availability => {
                flying.payload = self.availability.take().unwrap_or(OFFLINE);
                (self.topics.availability.clone()?, true)
            }
            PublishKind::State => {
                flying.payload = send(&mut self.state)?;
                (self.topics.state.clone(), self.topics.retain)
            }
            PublishKind::Status => {
                flying.payload = send(&mut self.status)?;
                (self.topics.status.clone()?, true)
            }
            PublishKind::Discovery => {
                self.discovery_due = false;
                let (topic, payload) = self.topics.discovery.clone()?;
                flying.payload = payload;
                (topic, true)
            }
            PublishKind::Telemetry => {
                let event = self.events.pop_front()?;
                (flying.payload, flying.kind, flying.queued_at) = (event.payload, event.kind, event.queued_at);
                (self.topics.event(event.kind)?, false)
            }
        };
        let payload = flying.payload.clone();
        if what == PublishKind::Status {
            self.last_status = Some(payload.clone());
        }
        // Only a plain client subscribes to its own topics, where these come back.
        if matches!(what, PublishKind::State | PublishKind::Status) && self.topics.retain {
            self.sent.push_back((what, payload.clone()));
            while self.sent.len() > MAX_SENT {
                self.sent.pop_front();
            }
        }
        self.reported_online |= what == PublishKind::Availability && payload == ONLINE;
        self.in_flight = Some(flying);
        Some(Publish { topic, payload, retain })
    }

    /// Returns the next publish and when it is due. If several are due, the first in this list has priority.
    fn first_due(&self, now: Duration) -> Option<(Duration, PublishKind)> {
        let (state, status) = (&self.state, &self.status);
        let rest = !(state.due || status.due || self.events.front().is_some());
        // `offline` is published last: it marks the retained values before it as no longer valid.
        let offline = self.leaving && rest && !self.has_published_offline && self.topics.availability.is_some();
        // A retained state may be that of a process that died: `online` would make it look valid.
        let is_reported =
            self.availability.is_some() && self.published_here.state && (self.published_here.status || status.wanted.is_none());
        let fresh = self.fresh_until.unwrap_or_default();
        let mine = [
            state.due.then_some((state.not_before.max(fresh), PublishKind::State)),
            status.due.then_some((status.not_before.max(fresh), PublishKind::Status)),
            is_reported.then_some((self.availability_not_before, PublishKind::Availability)),
            self.discovery_due.then_some((fresh, PublishKind::Discovery)),
            self.events.front().map(|_| (Duration::ZERO, PublishKind::Telemetry)),
            offline.then_some((Duration::ZERO, PublishKind::Availability)),
        ];
        // With `max(now)`, all that are due already are equal, and the first of equal elements wins.
        mine.into_iter().flatten().min_by_key(|(at, _)| (*at).max(now))
    }
}

fn send(slot: &mut Slot) -> Option<Bytes> {
    slot.due = false;
    slot.wanted.clone()
}

/// Makes the payload due again. The lost publish may have arrived just now, so the gap counts from `now`.
fn retry(slot: &mut Slot, now: Duration, gap: Duration) {
    slot.due = slot.wanted.is_some();
    slot.not_before = now.saturating_add(gap);
}

fn too_large(what: PublishKind, topic: &str, size: usize, limit: usize) -> String {
    let what = what.name();
    format!("a {what} of {size} bytes is not published on {topic}: the broker takes at most {limit} bytes")
}
