//! Decides about the link: when to connect, what to publish next, when the token is renewed, the last word.
//!
//! PURE: what happened comes in as an [`Event`], what to do goes out as an [`Action`]; time is an argument on any monotonic
//! scale, chance comes from a seed. After every event, and whenever [`LinkState::wake`] has passed, [`LinkState::next`] is
//! called until it has nothing more to do. The rules are in the module above; their tests are here.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::backoff::{Backoff, LIVED};
use super::topics::{OFFLINE, Plan, Route};
use super::{LinkStats, Wanted};

mod event;
mod outbox;

pub(super) use event::{Action, Event, Tell};
use outbox::Outbox;
pub(super) use outbox::{MAX_EVENTS, Publish};

/// A connection that is not there by then never will be. The connection itself gives up earlier.
const CONNECT_WAIT: Duration = Duration::from_secs(25);
/// A broker that does not acknowledge for so long is gone, whatever TCP thinks.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// The broker closes the connection after a DISCONNECT; if not by then, we do.
const GOODBYE_WAIT: Duration = Duration::from_secs(3);
/// How long a new connection must live for an outage to be over; doubled at each that broke.
const PROOF: Duration = Duration::from_secs(3);
/// A clock that was never set is looked at again so often.
const CLOCK_WAIT: Duration = Duration::from_secs(5);
/// Pause between attempts to say the last word.
const LAST_WORD_WAIT: Duration = Duration::from_secs(1);
/// A token is renewed so long before it expires, or a fifth of its life, whichever is less.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Messages that are known again when they are delivered twice, and their bytes: two configs of the largest size.
const MAX_HEARD: usize = 64;
const MAX_HEARD_BYTES: usize = 160 << 10;
/// A connection is not renewed before, however short its token lives.
const LEAST_LIFE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    Needed,
    Asked(Duration),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
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
    outbox: Outbox,
    phase: Phase,
    backoff: Backoff,
    /// Of the first of a row of connections that were renewed without trouble.
    up_since: Option<Duration>,
    renew_at: Option<Duration>,
    /// Since when there is trouble that was told.
    outage: Option<Duration>,
    /// Connections that broke since one last lived.
    flaps: u32,
    told_up: bool,
    told_clock: bool,
    closing: Option<Duration>,
    /// The last messages of this connection, to know them again.
    heard: VecDeque<(String, Bytes)>,
    /// The subscriptions that were refused, as they were told.
    refused: Vec<String>,
    queue: VecDeque<Action>,
    connects: u64,
    failures: u64,
    seed: u64,
}

impl LinkState {
    /// A link that connects at once; `gap` is the shortest time between two states, `seed` feeds the jitter.
    pub(super) fn new(plan: Plan, gap: Duration, seed: u64) -> Self {
        Self {
            outbox: Outbox::new(plan, gap),
            phase: Phase::Down { until: Duration::ZERO },
            backoff: Backoff::default(),
            up_since: None,
            renew_at: None,
            outage: None,
            flaps: 0,
            told_up: false,
            told_clock: false,
            closing: None,
            heard: VecDeque::new(),
            refused: Vec::new(),
            queue: VecDeque::new(),
            connects: 0,
            failures: 0,
            seed: seed | 1,
        }
    }

    /// An earlier link of this client has published: no state before that.
    pub(super) fn not_before(mut self, at: Duration) -> Self {
        self.outbox.not_before(at);
        self
    }

    /// When a state may be published after all that was; `None` where none ever was.
    pub(super) fn free_at(&self, now: Duration) -> Option<Duration> {
        self.outbox.free_at(now)
    }

    /// Counters; tokens are counted where they are signed.
    pub(super) fn stats(&self) -> LinkStats {
        LinkStats {
            connects: self.connects,
            failures: self.failures,
            published: self.outbox.published,
            dropped: self.outbox.dropped,
            tokens: 0,
        }
    }

    /// Whether the listener thinks that there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.told_up
    }

    /// Whether nothing that was wanted waits or is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.outbox.is_settled()
    }

    /// Something happened.
    pub(super) fn on(&mut self, now: Duration, event: Event) {
        if self.phase == Phase::Done {
            return;
        }
        match event {
            Event::Want(wanted) if self.closing.is_none() => {
                let notice = self.outbox.want(wanted);
                self.notice(notice);
            }
            Event::Want(_) => {}
            Event::Telemetry { said, kind, payload } => {
                let notice = self.outbox.telemetry(said, kind, payload);
                self.notice(notice);
            }
            Event::Dropped(count) => self.outbox.dropped = self.outbox.dropped.saturating_add(count),
            Event::Close { last, until } => self.close(now, last, until),
            Event::Connected { renew_at } => self.connected(now, renew_at),
            Event::ClockNotSet(text) => self.clock_not_set(now, text),
            Event::Lost(text) => self.lost(now, text),
            Event::Acknowledged => self.outbox.acknowledged(now),
            Event::Subscribed { refused } => self.subscribed(&refused),
            Event::Message {
                topic,
                payload,
                retained,
                duplicate,
            } => self.message(topic, payload, retained, duplicate),
            Event::SaidGoodbye => self.said_goodbye(now),
        }
    }

    /// What to do now; `None` = nothing before [`Self::wake`] or the next event.
    pub(super) fn next(&mut self, now: Duration) -> Option<Action> {
        loop {
            if let Some(action) = self.queue.pop_front() {
                return Some(action);
            }
            if self.phase != Phase::Done && self.closing.is_some_and(|until| now >= until) {
                self.finish();
                continue;
            }
            match self.phase {
                Phase::Done => return None,
                // The broker holds the last word, or there is none: no connection is needed for it.
                Phase::Down { .. } | Phase::Connecting { .. }
                    if self.closing.is_some() && self.outbox.state_is_acknowledged() =>
                {
                    self.finish();
                }
                Phase::Down { until } if now >= until => {
                    self.phase = Phase::Connecting { since: now };
                    return Some(Action::Connect);
                }
                Phase::Connecting { since } if now >= since.saturating_add(CONNECT_WAIT) => {
                    self.give_up(now, format!("no connection within {} s", CONNECT_WAIT.as_secs()));
                }
                Phase::Leaving { since, .. } if now >= since.saturating_add(GOODBYE_WAIT) => {
                    self.queue.push_back(Action::Abandon);
                    self.said_goodbye(now);
                }
                Phase::Down { .. } | Phase::Connecting { .. } | Phase::Leaving { .. } => return None,
                Phase::Up { since, subscription } => match self.up(now, since, subscription) {
                    Some(action) => return Some(action),
                    None if self.queue.is_empty() => return None,
                    None => {}
                },
            }
        }
    }

    /// When to call [`Self::next`] again if nothing happens before.
    pub(super) fn wake(&self, now: Duration) -> Option<Duration> {
        let own = match self.phase {
            Phase::Done => return None,
            Phase::Down { until } => Some(until),
            Phase::Connecting { since } => Some(since.saturating_add(CONNECT_WAIT)),
            Phase::Leaving { since, .. } => Some(since.saturating_add(GOODBYE_WAIT)),
            Phase::Up { subscription, .. } => {
                let asked = match subscription {
                    Subscription::Asked(at) => Some(at.saturating_add(ACK_WAIT)),
                    Subscription::Needed | Subscription::Done => None,
                };
                let next = match self.outbox.in_flight_since() {
                    Some(flying) => Some(flying.saturating_add(ACK_WAIT)),
                    None => earlier(self.outbox.due_at(now), self.renew_at),
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
            self.tell(Tell::Recovered(back.saturating_sub(outage)));
        }
        let overdue = |at: Duration| now >= at.saturating_add(ACK_WAIT);
        let silent = match subscription {
            Subscription::Asked(at) => overdue(at),
            Subscription::Needed | Subscription::Done => false,
        };
        if silent || self.outbox.in_flight_since().is_some_and(overdue) {
            self.give_up(now, format!("the broker did not acknowledge within {} s", ACK_WAIT.as_secs()));
            return None;
        }
        if self.outbox.in_flight_since().is_some() {
            return None;
        }
        let closing = self.closing.is_some();
        let expires = self.renew_at.is_some_and(|at| now >= at);
        if expires && !closing {
            return Some(self.leave(now, false));
        }
        if let Some(publish) = self.outbox.publish(now) {
            return Some(Action::Publish(publish));
        }
        // After the publishes: a config that is too large breaks the connection as soon as it is subscribed to.
        if subscription == Subscription::Needed && !closing {
            let subscription = Subscription::Asked(now);
            self.phase = Phase::Up { since, subscription };
            return Some(Action::Subscribe(self.outbox.plan().subscriptions.clone()));
        }
        if closing && self.outbox.is_done() {
            return Some(self.leave(now, true));
        }
        // The last word still has to wait for its second, and the token does not last so long.
        expires.then(|| self.leave(now, false))
    }

    fn leave(&mut self, now: Duration, for_good: bool) -> Action {
        self.phase = Phase::Leaving { since: now, for_good };
        Action::Disconnect
    }

    fn connected(&mut self, now: Duration, renew_at: Option<Duration>) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        self.connects = self.connects.saturating_add(1);
        self.up_since.get_or_insert(now);
        self.renew_at = renew_at.map(|at| at.max(now.saturating_add(LEAST_LIFE)));
        self.told_clock = false;
        self.heard.clear();
        let subscription = Subscription::Needed;
        self.phase = Phase::Up {
            since: now,
            subscription,
        };
        self.outbox.connected();
        if !self.told_up {
            self.told_up = true;
            self.tell(Tell::Connected(true));
        }
    }

    fn give_up(&mut self, now: Duration, text: String) {
        self.queue.push_back(Action::Abandon);
        self.lost(now, text);
    }

    fn lost(&mut self, now: Duration, text: String) {
        let was_up = match self.phase {
            Phase::Leaving { .. } => return self.said_goodbye(now),
            Phase::Down { .. } | Phase::Done => return,
            Phase::Connecting { .. } => false,
            Phase::Up { .. } => true,
        };
        self.failures = self.failures.saturating_add(1);
        self.outbox.lost(now);
        self.renew_at = None;
        let lived = self.up_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if lived >= LIVED {
            self.flaps = 0;
        }
        self.flaps = self.flaps.saturating_add(u32::from(was_up));
        self.tell_down();
        if self.closing.is_some() {
            // A broker that never heard of us holds nothing that the last word would put right.
            if !was_up && !self.outbox.ever_told() {
                return self.finish();
            }
            let until = now.saturating_add(LAST_WORD_WAIT);
            self.phase = Phase::Down { until };
            return;
        }
        let jitter = Duration::from_millis(self.chance() % 1000);
        let until = now.saturating_add(self.backoff.failed(lived, jitter));
        self.phase = Phase::Down { until };
        if self.outage.is_none() {
            self.outage = Some(now);
            self.tell(Tell::Trouble(format!(
                "{text}; it is tried again, after pauses of up to a minute"
            )));
        }
    }

    fn clock_not_set(&mut self, now: Duration, text: String) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        self.up_since = None;
        self.tell_down();
        if self.closing.is_some() {
            return self.finish();
        }
        let until = now.saturating_add(CLOCK_WAIT);
        self.phase = Phase::Down { until };
        if !std::mem::replace(&mut self.told_clock, true) {
            self.tell(Tell::Notice(text));
        }
    }

    fn close(&mut self, now: Duration, last: Wanted, until: Duration) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(until);
        let notice = self.outbox.want_last(last);
        self.notice(notice);
        if let Phase::Down { until } = &mut self.phase {
            *until = now;
        }
    }

    fn said_goodbye(&mut self, now: Duration) {
        match self.phase {
            Phase::Leaving { for_good: true, .. } => {
                // The connection is closed already.
                self.phase = Phase::Down { until: now };
                self.finish();
            }
            Phase::Leaving { for_good: false, .. } => self.phase = Phase::Down { until: now },
            _ => {}
        }
    }

    fn finish(&mut self) {
        if matches!(
            self.phase,
            Phase::Connecting { .. } | Phase::Up { .. } | Phase::Leaving { .. }
        ) {
            self.queue.push_back(Action::Abandon);
        }
        self.tell_down();
        self.queue.push_back(Action::Finish(self.outbox.state_is_acknowledged()));
        self.phase = Phase::Done;
    }

    fn subscribed(&mut self, refused: &[String]) {
        if let Phase::Up { subscription, .. } = &mut self.phase {
            *subscription = Subscription::Done;
        }
        // The rules of the broker are the same at its next connection: once is enough.
        if !refused.is_empty() && self.refused != refused {
            self.refused = refused.to_vec();
            let topics = refused.join(", ");
            self.tell(Tell::Notice(format!(
                "the broker refused the subscription to {topics}: nothing will be heard from there; check the broker's access rules"
            )));
        }
    }

    fn message(&mut self, topic: String, payload: Bytes, retained: bool, duplicate: bool) {
        // A broker that delivers the same messages again and again is answered, and not listened to.
        let is_known = |known: &(String, Bytes)| known.0 == topic && known.1 == payload;
        if duplicate && self.heard.iter().any(is_known) {
            return;
        }
        match self.outbox.plan().route(&topic) {
            Route::Availability if payload == OFFLINE => self.outbox.contradict(),
            Route::Availability | Route::Unknown => {}
            Route::Config => self.tell(Tell::Config(payload.clone())),
            Route::Command(tail) => {
                let payload = payload.clone();
                self.tell(Tell::Command { tail, payload, retained });
            }
        }
        let mut size: usize = self.heard.iter().map(|(t, p)| t.len() + p.len()).sum();
        size = size.saturating_add(topic.len()).saturating_add(payload.len());
        while self.heard.len() >= MAX_HEARD || size > MAX_HEARD_BYTES {
            let Some((topic, payload)) = self.heard.pop_front() else {
                break;
            };
            size = size.saturating_sub(topic.len()).saturating_sub(payload.len());
        }
        self.heard.push_back((topic, payload));
    }

    /// When the connection, renewals of its token included, has shown that an outage is over: never while an answer is due, for a
    /// broker that acknowledges nothing is as good as none.
    fn proved_at(&self) -> Option<Duration> {
        let is_asked = matches!(
            self.phase,
            Phase::Up {
                subscription: Subscription::Asked(_),
                ..
            }
        );
        if is_asked || self.outbox.in_flight_since().is_some() {
            return None;
        }
        let proof = PROOF.saturating_mul(1 << self.flaps.saturating_sub(1).min(5));
        self.up_since.map(|since| since.saturating_add(proof.min(LIVED)))
    }

    fn tell_down(&mut self) {
        if std::mem::replace(&mut self.told_up, false) {
            self.tell(Tell::Connected(false));
        }
    }

    fn notice(&mut self, text: Option<String>) {
        self.queue.extend(text.map(|text| Action::Tell(Tell::Notice(text))));
    }

    fn tell(&mut self, tell: Tell) {
        self.queue.push_back(Action::Tell(tell));
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
