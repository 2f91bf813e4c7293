//! The state machine of the link: when to connect, what to publish next, when to renew the token, how to end.
//!
//! PURE: it takes [`Event`]s and returns [`Action`]s; time is an argument on any monotonic scale, jitter comes from a seed. After
//! every event, and whenever [`LinkState::poll_timeout`] has passed, call [`LinkState::poll`] until it returns `None`. The
//! documentation of the crate has the rules; their tests are here.
//!
//! `event`: its input and output. `publish_queue`: what waits to be published. `subscriptions`, `echo`, `broker_limit`: the
//! topics of a connection, whether our messages come back, and how large they may be.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::backoff::{Backoff, LIVED};
use super::topics::{ONLINE, Route, Topics};
use super::{LinkStats, Wanted};

mod broker_limit;
mod echo;
mod event;
mod publish_queue;
mod subscriptions;

use echo::Echo;
pub(super) use event::{Action, Event, Notification};
pub(super) use publish_queue::{MAX_EVENTS, Publish};
use publish_queue::{PublishKind, PublishQueue};
use subscriptions::Subscriptions;

/// Longest wait for a connection. The MQTT client itself gives up earlier.
const CONNECT_WAIT: Duration = Duration::from_secs(25);
/// A broker that does not acknowledge within this time counts as lost, whatever TCP reports.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long the broker may take to close the connection after a DISCONNECT; then we close it.
const DISCONNECT_WAIT: Duration = Duration::from_secs(3);
/// How long a new connection must last before the outage counts as over. Doubled for each connection that broke, up to [`LIVED`].
const PROOF: Duration = Duration::from_secs(3);
/// Interval between two checks of a wall clock that was never set.
const CLOCK_WAIT: Duration = Duration::from_secs(5);
/// Pause between attempts to publish the final state.
const FINAL_STATE_RETRY: Duration = Duration::from_secs(1);
/// A token is renewed this long before it expires, or a fifth of its lifetime before if that is less.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Number of messages remembered to recognize duplicates, and their total bytes: two configs of the largest size.
const MAX_RECENT: usize = 64;
const MAX_RECENT_BYTES: usize = 160 << 10;
/// Minimum connection age before a token refresh, however short the token's lifetime.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(500);
/// A device publishes no state for this long after its first ConnAck: a restarted process does not know when the previous one
/// published, and the bridge accepts at most one state a second.
const FIRST_STATE_WAIT: Duration = Duration::from_millis(1100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    Down {
        until: Duration,
    },
    Connecting {
        since: Duration,
    },
    Up {
        since: Duration,
    },
    /// DISCONNECT was sent: to end the link (`for_good`), or to reconnect with a new token.
    Leaving {
        since: Duration,
        for_good: bool,
    },
    Done,
}

/// When a token expires, and so when it is renewed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// `exp`, since the Unix epoch.
    at: Duration,
    /// Remaining lifetime when it was signed.
    lifetime: Duration,
}

impl Expiry {
    /// Returns the expiry of a token that is signed now and expires at `at`, in `lifetime`.
    pub(super) fn new(at: Duration, lifetime: Duration) -> Self {
        Self { at, lifetime }
    }

    /// Returns when to renew a token that was signed at `signed`.
    pub(super) fn planned(self, signed: Duration) -> Duration {
        self.renewal(signed, self.lifetime)
    }

    /// Returns when to renew the token, if the wall clock shows `wall` at `now`.
    pub(super) fn by_clock(self, now: Duration, wall: Duration) -> Duration {
        self.renewal(now, self.at.saturating_sub(wall))
    }

    fn renewal(self, now: Duration, left: Duration) -> Duration {
        let before = RENEW_BEFORE.min(self.lifetime / 5);
        now.saturating_add(left.saturating_sub(before))
    }
}

/// One link, from its start to its end.
#[derive(Debug)]
pub(super) struct LinkState {
    publishes: PublishQueue,
    subscriptions: Subscriptions,
    echo: Echo,
    phase: ConnectionPhase,
    backoff: Backoff,
    /// When the connection was made; renewals of the token do not change it.
    up_since: Option<Duration>,
    renew_at: Option<Duration>,
    /// When the reported outage began.
    outage: Option<Duration>,
    /// Connections that broke since the last one that lasted for [`LIVED`].
    breaks: u32,
    reported_up: bool,
    reported_clock: bool,
    closing: Option<Duration>,
    /// The last messages of this connection, to recognize duplicates.
    recent: VecDeque<(String, Bytes)>,
    /// The refused subscriptions as reported last.
    refused: Vec<String>,
    actions: VecDeque<Action>,
    connects: u64,
    failures: u64,
    seed: u64,
}

impl LinkState {
    /// Creates a link that connects at once. `gap` is the shortest time between two states, `seed` feeds the jitter.
    pub(super) fn new(topics: Topics, gap: Duration, seed: u64) -> Self {
        Self {
            subscriptions: Subscriptions::new(&topics),
            echo: Echo::default(),
            publishes: PublishQueue::new(topics, gap),
            phase: ConnectionPhase::Down { until: Duration::ZERO },
            backoff: Backoff::default(),
            up_since: None,
            renew_at: None,
            outage: None,
            breaks: 0,
            reported_up: false,
            reported_clock: false,
            closing: None,
            recent: VecDeque::new(),
            refused: Vec::new(),
            actions: VecDeque::new(),
            connects: 0,
            failures: 0,
            // xorshift never leaves 0.
            seed: seed | 1,
        }
    }

    /// Publishes no state before `at`: an earlier link of this client has published one.
    pub(super) fn not_before(mut self, at: Duration) -> Self {
        self.publishes.not_before(at);
        self
    }

    /// Returns when the next state may be published; `None` if none was published yet.
    pub(super) fn free_at(&self, now: Duration) -> Option<Duration> {
        self.publishes.free_at(now)
    }

    /// Returns the counters. `tokens` is 0: the driver signs the tokens and counts them.
    pub(super) fn stats(&self) -> LinkStats {
        LinkStats {
            connects: self.connects,
            failures: self.failures,
            published: self.publishes.published,
            dropped: self.publishes.dropped,
            tokens: 0,
        }
    }

    /// Returns whether a connection was last reported to the listener.
    pub(super) fn is_up(&self) -> bool {
        self.reported_up
    }

    /// Returns whether an outage was reported to the listener and has not ended.
    pub(super) fn is_outage_reported(&self) -> bool {
        self.outage.is_some()
    }

    /// Returns whether no wanted payload waits or is in flight.
    pub(super) fn is_settled(&self) -> bool {
        self.publishes.is_settled()
    }

    /// Takes one event. Call [`Self::poll`] afterwards.
    pub(super) fn handle(&mut self, now: Duration, event: Event) {
        if self.phase == ConnectionPhase::Done {
            return;
        }
        match event {
            Event::Want(wanted) if self.closing.is_none() => {
                let notice = self.publishes.want(now, wanted);
                self.notice(notice);
            }
            Event::Want(_) => {}
            Event::Discovery(payload) => {
                let notice = self.publishes.set_discovery(now, payload);
                self.notice(notice);
            }
            Event::Telemetry {
                queued_at,
                kind,
                payload,
            } => {
                let notice = self.publishes.telemetry(queued_at, kind, payload);
                self.notice(notice);
            }
            Event::Dropped(count) => self.publishes.dropped = self.publishes.dropped.saturating_add(count),
            Event::Close { last, until } => self.close(now, last, until),
            Event::Connected { renew_at, commands } => self.connected(now, renew_at, commands),
            Event::RenewBy(at) => self.renew_by(at),
            Event::ClockNotSet(text) => self.clock_not_set(now, text),
            Event::Lost(text) => self.lost(now, Some(text)),
            Event::TooLarge(size) => self.too_large(now, size),
            Event::Acknowledged => {
                if self.publishes.acknowledged(now) {
                    self.echo.on_published(now, self.publishes.has_published_status());
                }
            }
            Event::Subscribed { refused } => self.subscribed(now, &refused),
            Event::Message {
                topic,
                payload,
                retained,
                duplicate,
            } => self.message(now, topic, payload, retained, duplicate),
            Event::Disconnected => self.disconnected(now),
        }
    }

    /// Returns the next action; `None` if there is none before [`Self::poll_timeout`] or the next event.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if self.phase != ConnectionPhase::Done && self.closing.is_some_and(|until| now >= until) {
                self.finish();
                continue;
            }
            match self.phase {
                ConnectionPhase::Done => return None,
                // The broker holds the final state, or there is none: no connection is needed.
                ConnectionPhase::Down { .. } | ConnectionPhase::Connecting { .. }
                    if self.closing.is_some() && self.publishes.state_is_acknowledged() =>
                {
                    self.finish();
                }
                ConnectionPhase::Down { until } if now >= until => {
                    self.phase = ConnectionPhase::Connecting { since: now };
                    return Some(Action::Connect);
                }
                ConnectionPhase::Connecting { since } if now >= since.saturating_add(CONNECT_WAIT) => {
                    self.give_up(now, format!("no connection within {} s", CONNECT_WAIT.as_secs()));
                }
                ConnectionPhase::Leaving { since, .. } if now >= since.saturating_add(DISCONNECT_WAIT) => {
                    self.actions.push_back(Action::Abandon);
                    self.disconnected(now);
                }
                ConnectionPhase::Down { .. } | ConnectionPhase::Connecting { .. } | ConnectionPhase::Leaving { .. } => {
                    return None;
                }
                ConnectionPhase::Up { since } => match self.up(now, since) {
                    Some(action) => return Some(action),
                    None if self.actions.is_empty() => return None,
                    None => {}
                },
            }
        }
    }

    /// Returns when to call [`Self::poll`] again if no event arrives before.
    pub(super) fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let own = match self.phase {
            ConnectionPhase::Done => return None,
            ConnectionPhase::Down { until } => Some(until),
            ConnectionPhase::Connecting { since } => Some(since.saturating_add(CONNECT_WAIT)),
            ConnectionPhase::Leaving { since, .. } => Some(since.saturating_add(DISCONNECT_WAIT)),
            ConnectionPhase::Up { .. } => {
                let asked = self.subscriptions.asked_since().map(|at| at.saturating_add(ACK_WAIT));
                let next = match self.publishes.in_flight_since() {
                    Some(flying) => Some(flying.saturating_add(ACK_WAIT)),
                    None => {
                        let subscribe = self.subscriptions.due_at().filter(|_| self.closing.is_none());
                        earlier(earlier(self.publishes.due_at(now), self.renew_at), subscribe)
                    }
                };
                let echo = self.echo.due_at().filter(|_| self.closing.is_none());
                earlier(
                    earlier(earlier(asked, next), echo),
                    self.outage.and_then(|_| self.proved_at()),
                )
            }
        };
        earlier(own, self.closing)
    }

    fn up(&mut self, now: Duration, since: Duration) -> Option<Action> {
        if let Some(outage) = self.outage.filter(|_| self.proved_at().is_some_and(|at| now >= at)) {
            self.outage = None;
            let back = self.up_since.unwrap_or(since);
            self.notify(Notification::Recovered(back.saturating_sub(outage)));
        }
        let overdue = |at: Duration| now >= at.saturating_add(ACK_WAIT);
        let silent = self.subscriptions.asked_since().is_some_and(overdue);
        if silent || self.publishes.in_flight_since().is_some_and(overdue) {
            self.give_up(now, format!("the broker did not acknowledge within {} s", ACK_WAIT.as_secs()));
            return None;
        }
        if self.closing.is_none() {
            let text = self.echo.silence(now, |own| self.publishes.topic_of(own, ""));
            if self.echo.repeats(now) {
                self.publishes.reassert_online();
            }
            self.notice(text);
        }
        if self.publishes.in_flight_since().is_some() {
            return None;
        }
        // From here on no publish is in flight. A DISCONNECT before its PUBACK would leave open whether the broker has it.
        let closing = self.closing.is_some();
        let expires = self.renew_at.is_some_and(|at| now >= at);
        if expires && !closing {
            return Some(self.leave(now, false));
        }
        if let Some(publish) = self.publishes.publish(now) {
            return Some(Action::Publish(publish));
        }
        // After the publishes: a config that is too large breaks the connection as soon as its topic is subscribed to.
        if !closing {
            if let Some(filters) = self.subscriptions.ask(now) {
                return Some(Action::Subscribe(filters));
            }
            let text = self.subscriptions.search_is_over(now);
            self.notice(text);
        }
        if closing && self.publishes.is_done() {
            return Some(self.leave(now, true));
        }
        // The final state must still wait for the gap, but the token expires first: renew it.
        expires.then(|| self.leave(now, false))
    }

    fn leave(&mut self, now: Duration, for_good: bool) -> Action {
        self.phase = ConnectionPhase::Leaving { since: now, for_good };
        Action::Disconnect
    }

    fn connected(&mut self, now: Duration, renew_at: Option<Duration>, commands: bool) {
        if !matches!(self.phase, ConnectionPhase::Connecting { .. }) {
            return;
        }
        self.connects = self.connects.saturating_add(1);
        self.up_since.get_or_insert(now);
        self.renew_at = renew_at.map(|at| at.max(now.saturating_add(MIN_CONNECTION_AGE)));
        self.reported_clock = false;
        self.recent.clear();
        self.phase = ConnectionPhase::Up { since: now };
        self.subscriptions.connected(commands);
        self.echo.connected();
        if self.connects == 1 && self.publishes.topics().is_device() {
            self.publishes.not_before(now.saturating_add(FIRST_STATE_WAIT));
        }
        self.publishes.connected(now, !self.reported_up);
        if !self.reported_up {
            self.reported_up = true;
            self.notify(Notification::Connected(true));
        }
    }

    /// Renews the token at `at` if that is sooner than planned. Ignores a later `at`: if the wall clock was set back, either of
    /// its readings may be the wrong one.
    fn renew_by(&mut self, at: Duration) {
        if let (ConnectionPhase::Up { since }, Some(planned)) = (self.phase, self.renew_at) {
            self.renew_at = Some(planned.min(at.max(since.saturating_add(MIN_CONNECTION_AGE))));
        }
    }

    fn give_up(&mut self, now: Duration, text: String) {
        self.actions.push_back(Action::Abandon);
        self.lost(now, Some(text));
    }

    /// Reconnects without a report: an oversized packet is reported once its filter is known.
    fn too_large(&mut self, now: Duration, size: usize) {
        let text = self.subscriptions.too_large(size);
        self.lost(now, None);
        self.notice(text);
    }

    /// Handles the loss of the connection. `text` is reported if an outage begins; `None` means that the loss is not an outage.
    fn lost(&mut self, now: Duration, text: Option<String>) {
        let was_up = match self.phase {
            ConnectionPhase::Leaving { .. } => return self.disconnected(now),
            ConnectionPhase::Down { .. } | ConnectionPhase::Done => return,
            ConnectionPhase::Connecting { .. } => false,
            ConnectionPhase::Up { .. } => true,
        };
        self.failures = self.failures.saturating_add(1);
        let given_up = self.publishes.lost(now);
        self.notice(given_up);
        self.renew_at = None;
        let lived = self.up_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if lived >= LIVED {
            self.breaks = 0;
        }
        self.breaks = self.breaks.saturating_add(u32::from(was_up));
        self.notify_down();
        if self.closing.is_some() {
            // The broker holds no state of ours that the final state would have to correct: do not try again.
            if !was_up && !self.publishes.has_published_state() {
                return self.finish();
            }
            let until = now.saturating_add(FINAL_STATE_RETRY);
            self.phase = ConnectionPhase::Down { until };
            return;
        }
        let jitter = Duration::from_millis(self.chance() % 1000);
        let until = now.saturating_add(self.backoff.failed(lived, jitter));
        self.phase = ConnectionPhase::Down { until };
        if let Some(text) = text.filter(|_| self.outage.is_none()) {
            self.outage = Some(now);
            self.notify(Notification::Trouble(format!(
                "{text}; it is tried again, after pauses of up to a minute"
            )));
        }
    }

    fn clock_not_set(&mut self, now: Duration, text: String) {
        if !matches!(self.phase, ConnectionPhase::Connecting { .. }) {
            return;
        }
        self.up_since = None;
        self.notify_down();
        if self.closing.is_some() {
            // Without a token there is no connection for the final state.
            return self.finish();
        }
        let until = now.saturating_add(CLOCK_WAIT);
        self.phase = ConnectionPhase::Down { until };
        if !std::mem::replace(&mut self.reported_clock, true) {
            self.notify(Notification::Notice(text));
        }
    }

    fn close(&mut self, now: Duration, last: Wanted, until: Duration) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(until);
        let notice = self.publishes.want_final(now, last);
        self.notice(notice);
        // Connect at once: the back-off must not use up the time for the final state.
        if let ConnectionPhase::Down { until } = &mut self.phase {
            *until = now;
        }
    }

    fn disconnected(&mut self, now: Duration) {
        match self.phase {
            ConnectionPhase::Leaving { for_good: true, .. } => {
                // The connection is closed already: in `Down`, `finish` does not emit `Abandon`.
                self.phase = ConnectionPhase::Down { until: now };
                self.finish();
            }
            ConnectionPhase::Leaving { for_good: false, .. } => self.phase = ConnectionPhase::Down { until: now },
            _ => {}
        }
    }

    fn finish(&mut self) {
        if matches!(
            self.phase,
            ConnectionPhase::Connecting { .. } | ConnectionPhase::Up { .. } | ConnectionPhase::Leaving { .. }
        ) {
            self.actions.push_back(Action::Abandon);
        }
        self.notify_down();
        self.actions.push_back(Action::Finish(self.publishes.state_is_acknowledged()));
        self.phase = ConnectionPhase::Done;
    }

    fn subscribed(&mut self, now: Duration, refused: &[String]) {
        let granted = self.subscriptions.acknowledged(now);
        for topic in granted.iter().filter(|topic| !refused.contains(topic)) {
            let own = match self.publishes.topics().route(topic) {
                Route::Availability => PublishKind::Availability,
                Route::State => PublishKind::State,
                Route::Status => PublishKind::Status,
                Route::Config | Route::Command(_) | Route::Unknown => continue,
            };
            self.echo.granted(now, own);
        }
        // The same access rules refuse the next connection as well: report an unchanged list only once.
        if !refused.is_empty() && self.refused != refused {
            self.refused = refused.to_vec();
            let topics = refused.join(", ");
            self.notify(Notification::Notice(format!(
                "the broker refused the subscription to {topics}: no message arrives from there; check the broker's access rules"
            )));
        }
    }

    fn message(&mut self, now: Duration, topic: String, payload: Bytes, retained: bool, duplicate: bool) {
        // The MQTT client has acknowledged the duplicate. Do not report it a second time.
        let is_known = |known: &(String, Bytes)| known.0 == topic && known.1 == payload;
        if duplicate && self.recent.iter().any(is_known) {
            return;
        }
        match self.publishes.topics().route(&topic) {
            // A retained `online` may be from an earlier connection. If this connection has published a status, it proves
            // something only together with that status.
            Route::Availability if payload == ONLINE && retained && self.publishes.has_published_status() => self.echo.kept(),
            Route::Availability if payload == ONLINE => {
                if self.publishes.has_reported_online() {
                    self.echo.on_echo(PublishKind::Availability);
                }
            }
            // `offline`, or an empty retained message, which clears ours.
            Route::Availability => self.publishes.reassert_online(),
            route @ (Route::State | Route::Status) => {
                let own = if route == Route::State {
                    PublishKind::State
                } else {
                    PublishKind::Status
                };
                if self.publishes.is_own(own, &payload) {
                    self.echo.on_echo(own);
                }
                if own == PublishKind::Status && self.publishes.is_own_status(&payload, retained) {
                    self.echo.fresh();
                }
                let notice = self.publishes.correct(now, &topic, &payload);
                self.notice(notice);
            }
            Route::Unknown => {}
            Route::Config => self.notify(Notification::Config(payload.clone())),
            Route::Command(tail) => {
                let payload = payload.clone();
                self.notify(Notification::Command { tail, payload, retained });
            }
        }
        let mut size: usize = self.recent.iter().map(|(t, p)| t.len() + p.len()).sum();
        size = size.saturating_add(topic.len()).saturating_add(payload.len());
        while self.recent.len() >= MAX_RECENT || size > MAX_RECENT_BYTES {
            let Some((topic, payload)) = self.recent.pop_front() else {
                break;
            };
            size = size.saturating_sub(topic.len()).saturating_sub(payload.len());
        }
        self.recent.push_back((topic, payload));
    }

    /// Returns when the connection has lasted long enough to end the outage. Renewals of the token do not restart this time.
    /// `None` while an acknowledgement is outstanding: a connection on which nothing is acknowledged does not end an outage.
    fn proved_at(&self) -> Option<Duration> {
        if self.subscriptions.asked_since().is_some() || self.publishes.in_flight_since().is_some() {
            return None;
        }
        // 2^5 times `PROOF` exceeds `LIVED`, the limit below.
        let proof = PROOF.saturating_mul(1 << self.breaks.saturating_sub(1).min(5));
        self.up_since.map(|since| since.saturating_add(proof.min(LIVED)))
    }

    fn notify_down(&mut self) {
        if std::mem::replace(&mut self.reported_up, false) {
            self.notify(Notification::Connected(false));
        }
    }

    fn notice(&mut self, text: Option<String>) {
        self.actions
            .extend(text.map(|text| Action::Notify(Notification::Notice(text))));
    }

    fn notify(&mut self, notification: Notification) {
        self.actions.push_back(Action::Notify(notification));
    }

    /// Returns a pseudo-random number. xorshift64* is good enough for jitter.
    fn chance(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
