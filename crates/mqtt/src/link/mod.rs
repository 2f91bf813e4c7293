//! Decides about the link: when to connect, what to publish next, when the token is renewed, the last word.
//!
//! PURE: what happened comes in as an [`Event`], what to do goes out as an [`Action`]; time is an argument on any monotonic
//! scale, chance comes from a seed. After every event, and whenever [`LinkState::poll_timeout`] has passed, [`LinkState::poll`] is
//! called until it has nothing more to do. The rules are in the module above; their tests are here.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::backoff::{Backoff, LIVED};
use super::topics::{OFFLINE, Route, Topics};
use super::{LinkStats, Wanted};

mod event;
mod publish_queue;

pub(super) use event::{Action, Event, Notification};
use publish_queue::PublishQueue;
pub(super) use publish_queue::{MAX_EVENTS, Publish};

/// A connection that is not there by then never will be. The connection itself gives up earlier.
const CONNECT_WAIT: Duration = Duration::from_secs(25);
/// A broker that does not acknowledge for so long is gone, whatever TCP thinks.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// The broker closes the connection after a DISCONNECT; if not by then, we do.
const DISCONNECT_WAIT: Duration = Duration::from_secs(3);
/// How long a new connection must live for an outage to be over; doubled at each that broke.
const PROOF: Duration = Duration::from_secs(3);
/// A clock that was never set is looked at again so often.
const CLOCK_WAIT: Duration = Duration::from_secs(5);
/// Pause between attempts to say the last word.
const FINAL_STATE_RETRY: Duration = Duration::from_secs(1);
/// A token is renewed so long before it expires, or a fifth of its life, whichever is less.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Messages that are known again when they are delivered twice, and their bytes: two configs of the largest size.
const MAX_RECENT: usize = 64;
const MAX_RECENT_BYTES: usize = 160 << 10;
/// A connection is not renewed before, however short its token lives.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    Needed,
    Asked(Duration),
    Done,
}

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
        subscription: Subscription,
    },
    /// After DISCONNECT: to the end, or to a new token.
    Leaving {
        since: Duration,
        for_good: bool,
    },
    Done,
}

/// When a token that was signed at `minted` is to be renewed.
pub(super) fn renewal(minted: Duration, expires_in: Duration) -> Duration {
    let before = RENEW_BEFORE.min(expires_in / 5);
    minted.saturating_add(expires_in.saturating_sub(before))
}

/// See the module.
#[derive(Debug)]
pub(super) struct LinkState {
    publishes: PublishQueue,
    phase: ConnectionPhase,
    backoff: Backoff,
    /// Of the first of a row of connections that were renewed without trouble.
    up_since: Option<Duration>,
    renew_at: Option<Duration>,
    /// Since when there is trouble that was told.
    outage: Option<Duration>,
    /// Connections that broke since one last lived.
    breaks: u32,
    reported_up: bool,
    reported_clock: bool,
    closing: Option<Duration>,
    /// The last messages of this connection, to know them again.
    recent: VecDeque<(String, Bytes)>,
    /// The subscriptions that were refused, as they were told.
    refused: Vec<String>,
    actions: VecDeque<Action>,
    connects: u64,
    failures: u64,
    seed: u64,
}

impl LinkState {
    /// A link that connects at once; `gap` is the shortest time between two states, `seed` feeds the jitter.
    pub(super) fn new(topics: Topics, gap: Duration, seed: u64) -> Self {
        Self {
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
            seed: seed | 1,
        }
    }

    /// An earlier link of this client has published: no state before that.
    pub(super) fn not_before(mut self, at: Duration) -> Self {
        self.publishes.not_before(at);
        self
    }

    /// When a state may be published after all that was; `None` where none ever was.
    pub(super) fn free_at(&self, now: Duration) -> Option<Duration> {
        self.publishes.free_at(now)
    }

    /// Counters; tokens are counted where they are signed.
    pub(super) fn stats(&self) -> LinkStats {
        LinkStats {
            connects: self.connects,
            failures: self.failures,
            published: self.publishes.published,
            dropped: self.publishes.dropped,
            tokens: 0,
        }
    }

    /// Whether the listener thinks that there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.reported_up
    }

    /// Whether nothing that was wanted waits or is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.publishes.is_settled()
    }

    /// Something happened.
    pub(super) fn handle(&mut self, now: Duration, event: Event) {
        if self.phase == ConnectionPhase::Done {
            return;
        }
        match event {
            Event::Want(wanted) if self.closing.is_none() => {
                let notice = self.publishes.want(wanted);
                self.notice(notice);
            }
            Event::Want(_) => {}
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
            Event::Connected { renew_at } => self.connected(now, renew_at),
            Event::ClockNotSet(text) => self.clock_not_set(now, text),
            Event::Lost(text) => self.lost(now, text),
            Event::Acknowledged => self.publishes.acknowledged(now),
            Event::Subscribed { refused } => self.subscribed(&refused),
            Event::Message {
                topic,
                payload,
                retained,
                duplicate,
            } => self.message(topic, payload, retained, duplicate),
            Event::Disconnected => self.disconnected(now),
        }
    }

    /// What to do now; `None` = nothing before [`Self::poll_timeout`] or the next event.
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
                // The broker holds the last word, or there is none: no connection is needed for it.
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
                ConnectionPhase::Up { since, subscription } => match self.up(now, since, subscription) {
                    Some(action) => return Some(action),
                    None if self.actions.is_empty() => return None,
                    None => {}
                },
            }
        }
    }

    /// When to call [`Self::poll`] again if nothing happens before.
    pub(super) fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let own = match self.phase {
            ConnectionPhase::Done => return None,
            ConnectionPhase::Down { until } => Some(until),
            ConnectionPhase::Connecting { since } => Some(since.saturating_add(CONNECT_WAIT)),
            ConnectionPhase::Leaving { since, .. } => Some(since.saturating_add(DISCONNECT_WAIT)),
            ConnectionPhase::Up { subscription, .. } => {
                let asked = match subscription {
                    Subscription::Asked(at) => Some(at.saturating_add(ACK_WAIT)),
                    Subscription::Needed | Subscription::Done => None,
                };
                let next = match self.publishes.in_flight_since() {
                    Some(flying) => Some(flying.saturating_add(ACK_WAIT)),
                    None => earlier(self.publishes.due_at(now), self.renew_at),
                };
                earlier(earlier(asked, next), self.outage.and_then(|_| self.proved_at()))
            }
        };
        earlier(own, self.closing)
    }

    fn up(&mut self, now: Duration, since: Duration, subscription: Subscription) -> Option<Action> {
        if let Some(outage) = self.outage.filter(|_| self.proved_at().is_some_and(|at| now >= at)) {
            self.outage = None;
            let back = self.up_since.unwrap_or(since);
            self.notify(Notification::Recovered(back.saturating_sub(outage)));
        }
        let overdue = |at: Duration| now >= at.saturating_add(ACK_WAIT);
        let silent = match subscription {
            Subscription::Asked(at) => overdue(at),
            Subscription::Needed | Subscription::Done => false,
        };
        if silent || self.publishes.in_flight_since().is_some_and(overdue) {
            self.give_up(now, format!("the broker did not acknowledge within {} s", ACK_WAIT.as_secs()));
            return None;
        }
        if self.publishes.in_flight_since().is_some() {
            return None;
        }
        let closing = self.closing.is_some();
        let expires = self.renew_at.is_some_and(|at| now >= at);
        if expires && !closing {
            return Some(self.leave(now, false));
        }
        if let Some(publish) = self.publishes.publish(now) {
            return Some(Action::Publish(publish));
        }
        // After the publishes: a config that is too large breaks the connection as soon as it is subscribed to.
        if subscription == Subscription::Needed && !closing {
            let subscription = Subscription::Asked(now);
            self.phase = ConnectionPhase::Up { since, subscription };
            return Some(Action::Subscribe(self.publishes.topics().subscriptions.clone()));
        }
        if closing && self.publishes.is_done() {
            return Some(self.leave(now, true));
        }
        // The last word still has to wait for its second, and the token does not last so long.
        expires.then(|| self.leave(now, false))
    }

    fn leave(&mut self, now: Duration, for_good: bool) -> Action {
        self.phase = ConnectionPhase::Leaving { since: now, for_good };
        Action::Disconnect
    }

    fn connected(&mut self, now: Duration, renew_at: Option<Duration>) {
        if !matches!(self.phase, ConnectionPhase::Connecting { .. }) {
            return;
        }
        self.connects = self.connects.saturating_add(1);
        self.up_since.get_or_insert(now);
        self.renew_at = renew_at.map(|at| at.max(now.saturating_add(MIN_CONNECTION_AGE)));
        self.reported_clock = false;
        self.recent.clear();
        let subscription = Subscription::Needed;
        self.phase = ConnectionPhase::Up {
            since: now,
            subscription,
        };
        self.publishes.connected();
        if !self.reported_up {
            self.reported_up = true;
            self.notify(Notification::Connected(true));
        }
    }

    fn give_up(&mut self, now: Duration, text: String) {
        self.actions.push_back(Action::Abandon);
        self.lost(now, text);
    }

    fn lost(&mut self, now: Duration, text: String) {
        let was_up = match self.phase {
            ConnectionPhase::Leaving { .. } => return self.disconnected(now),
            ConnectionPhase::Down { .. } | ConnectionPhase::Done => return,
            ConnectionPhase::Connecting { .. } => false,
            ConnectionPhase::Up { .. } => true,
        };
        self.failures = self.failures.saturating_add(1);
        self.publishes.lost(now);
        self.renew_at = None;
        let lived = self.up_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if lived >= LIVED {
            self.breaks = 0;
        }
        self.breaks = self.breaks.saturating_add(u32::from(was_up));
        self.notify_down();
        if self.closing.is_some() {
            // A broker that never heard of us holds nothing that the last word would put right.
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
        if self.outage.is_none() {
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
        let notice = self.publishes.want_final(last);
        self.notice(notice);
        if let ConnectionPhase::Down { until } = &mut self.phase {
            *until = now;
        }
    }

    fn disconnected(&mut self, now: Duration) {
        match self.phase {
            ConnectionPhase::Leaving { for_good: true, .. } => {
                // The connection is closed already.
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

    fn subscribed(&mut self, refused: &[String]) {
        if let ConnectionPhase::Up { subscription, .. } = &mut self.phase {
            *subscription = Subscription::Done;
        }
        // The rules of the broker are the same at its next connection: once is enough.
        if !refused.is_empty() && self.refused != refused {
            self.refused = refused.to_vec();
            let topics = refused.join(", ");
            self.notify(Notification::Notice(format!(
                "the broker refused the subscription to {topics}: nothing will be heard from there; check the broker's access rules"
            )));
        }
    }

    fn message(&mut self, topic: String, payload: Bytes, retained: bool, duplicate: bool) {
        // A broker that delivers the same messages again and again is answered, and not listened to.
        let is_known = |known: &(String, Bytes)| known.0 == topic && known.1 == payload;
        if duplicate && self.recent.iter().any(is_known) {
            return;
        }
        match self.publishes.topics().route(&topic) {
            Route::Availability if payload == OFFLINE => self.publishes.reassert_online(),
            Route::Availability | Route::Unknown => {}
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

    /// When the connection, renewals of its token included, has shown that an outage is over: never while an answer is due, for a
    /// broker that acknowledges nothing is as good as none.
    fn proved_at(&self) -> Option<Duration> {
        let is_asked = matches!(
            self.phase,
            ConnectionPhase::Up {
                subscription: Subscription::Asked(_),
                ..
            }
        );
        if is_asked || self.publishes.in_flight_since().is_some() {
            return None;
        }
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

    /// xorshift64*: jitter wants no better.
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
