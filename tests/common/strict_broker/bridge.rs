//! The bridge itself: what each packet, each moment and each wish of the test changes. It queues what is to be written and
//! never waits; [`super::Shared::act`] runs it under the lock and flushes the connections it touched.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::packet::{self, Connect, Login, Packet, Publish};
use super::record::{Connection, End, Published, Seen};
use super::rules::{self, Kind, Rules};
use super::wire::Wire;
use delivery::{Redelivery, Sent};

#[path = "delivery.rs"]
mod delivery;

/// After DISCONNECT a device is listened to for this duration, to catch what it must not send any more.
const LINGER: Duration = Duration::from_millis(200);

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waiting for CONNECT.
    New,
    /// CONNECT came, and the test wants no answer.
    Stalled,
    Up,
    /// DISCONNECT came.
    Over,
}

/// A connection whose socket is open.
struct Live {
    wire: Arc<Wire>,
    stage: Stage,
    /// Of the last packet, or of the accept.
    heard: Instant,
    ids: u16,
    /// What the device has to acknowledge.
    in_flight: HashMap<u16, Sent>,
    /// What we have to acknowledge, and do not yet.
    held: Vec<Held>,
}

struct Held {
    id: u16,
    kind: Kind,
    /// Place in the record.
    place: usize,
}

pub struct Bridge {
    pub rules: Rules,
    pub seen: Seen,
    pub dirty: Vec<Arc<Wire>>,
    pub refusals: VecDeque<u8>,
    pub connacks_to_stall: u32,
    pub handshakes_to_stall: u32,
    pub disconnect_at_expiry: bool,
    pub over: bool,
    live: BTreeMap<usize, Live>,
    last_state: Option<Instant>,
    config: Option<Bytes>,
    redelivery: Option<Redelivery>,
    hold_acks: bool,
}

impl Bridge {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            seen: Seen::default(),
            dirty: Vec::new(),
            refusals: VecDeque::new(),
            connacks_to_stall: 0,
            handshakes_to_stall: 0,
            disconnect_at_expiry: true,
            over: false,
            live: BTreeMap::new(),
            last_state: None,
            config: None,
            redelivery: None,
            hold_acks: false,
        }
    }

    /// The bridge's clock, since 1970, in milliseconds.
    fn wall_ms(&self) -> i64 {
        let machine = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(machine.as_millis()).unwrap() + self.rules.clock_offset * 1000
    }

    /// The number of the new connection.
    pub fn open(&mut self, wire: Arc<Wire>, now: Instant) -> usize {
        let number = self.seen.connections.len();
        self.seen.connections.push(Connection::new(now));
        if self.handshakes_to_stall > 0 {
            self.handshakes_to_stall -= 1;
            wire.fall_silent();
        }
        let live = Live {
            wire,
            stage: Stage::New,
            heard: now,
            ids: 0,
            in_flight: HashMap::new(),
            held: Vec::new(),
        };
        self.live.insert(number, live);
        number
    }

    pub fn is_open(&self, number: usize) -> bool {
        self.live.contains_key(&number)
    }

    /// Whether DISCONNECT has come.
    pub fn is_over(&self, number: usize) -> bool {
        self.live.get(&number).is_some_and(|l| l.stage == Stage::Over)
    }

    /// Closes a connection. What was said first about its end stays, unless it was a violation that ended it.
    pub fn end(&mut self, number: usize, end: End, now: Instant) {
        let Some(live) = self.live.remove(&number) else {
            return;
        };
        let connection = &mut self.seen.connections[number];
        connection.closed.get_or_insert(now);
        if connection.end.is_none() || matches!(end, End::Violation(_)) {
            connection.end = Some(end);
        }
        live.wire.close();
        self.dirty.push(live.wire);
    }

    pub fn violation(&mut self, number: usize, text: String, now: Instant) {
        if self.live.contains_key(&number) {
            self.seen.violations.push(text.clone());
            self.end(number, End::Violation(text), now);
        }
    }

    pub fn receive(&mut self, number: usize, packet: Packet, now: Instant) {
        let Some(live) = self.live.get_mut(&number) else {
            return;
        };
        live.heard = now;
        let stage = live.stage;
        let outcome = match (stage, packet) {
            (Stage::Stalled, _) => Ok(()),
            (Stage::New, Packet::Connect(connect)) => {
                self.connect(number, connect, now);
                Ok(())
            }
            (Stage::New, _) => Err("the first packet is not CONNECT".to_owned()),
            (Stage::Over, _) => Err("a packet came after DISCONNECT".to_owned()),
            (Stage::Up, packet) => self.receive_up(number, packet, now),
        };
        if let Err(text) = outcome {
            self.violation(number, text, now);
        }
    }

    fn receive_up(&mut self, number: usize, packet: Packet, now: Instant) -> Result<(), String> {
        match packet {
            Packet::Connect(_) => return Err("a second CONNECT came on one connection".to_owned()),
            Packet::ExactlyOnce(name) => return Err(format!("a {name} came; the bridge knows no QoS 2")),
            Packet::Publish(publish) => self.publish(number, publish, now)?,
            Packet::PubAck(id) => self.acknowledged(number, id, now)?,
            Packet::Subscribe { id, filters } => self.subscribe(number, id, filters, now)?,
            Packet::Unsubscribe { id, filters } => {
                self.seen.connections[number]
                    .subscriptions
                    .retain(|(filter, _)| !filters.contains(filter));
                self.say(number, &packet::unsuback(id));
            }
            Packet::PingReq => {
                self.seen.connections[number].pings += 1;
                self.say(number, &packet::pingresp());
            }
            Packet::Disconnect => self.disconnect(number, now),
        }
        Ok(())
    }

    fn say(&mut self, number: usize, packet: &[u8]) {
        if let Some(live) = self.live.get(&number) {
            live.wire.queue(packet);
            self.dirty.push(live.wire.clone());
        }
    }

    fn connect(&mut self, number: usize, connect: Connect, now: Instant) {
        let login = match connect {
            Connect::V311(login) => login,
            Connect::Foreign { name, level } => {
                self.say(number, &packet::connack(1));
                let text = format!("the CONNECT is of {name:?} level {level}, not of \"MQTT\" level 4, which is MQTT 3.1.1");
                return self.violation(number, text, now);
            }
        };
        let wall = self.wall_ms().div_euclid(1000);
        let verdict = rules::judge_login(&self.rules, &login, &self.rules.public_key_pem, wall);
        let connection = &mut self.seen.connections[number];
        connection.token = verdict.token;
        connection.client_id = Some(login.client_id.clone());
        connection.user = login.user.clone();
        connection.keep_alive = login.keep_alive;
        if let Some(first) = verdict.wrong.first() {
            self.seen.violations.extend(verdict.wrong.iter().cloned());
            if let Some(code) = verdict.code {
                self.say(number, &packet::connack(code));
            }
            self.end(number, End::Violation(first.clone()), now);
        } else if let Some(code) = self.refusals.pop_front() {
            self.say(number, &packet::connack(code));
            self.end(number, End::Refused(code), now);
        } else {
            self.let_in(number, &login, now);
        }
    }

    fn let_in(&mut self, number: usize, login: &Login, now: Instant) {
        let stage = if self.connacks_to_stall > 0 {
            self.connacks_to_stall -= 1;
            Stage::Stalled
        } else {
            Stage::Up
        };
        if let Some(live) = self.live.get_mut(&number) {
            live.stage = stage;
        }
        if stage == Stage::Stalled {
            return;
        }
        let same = |n: &usize| *n != number && self.seen.connections[*n].client_id.as_ref() == Some(&login.client_id);
        let others: Vec<usize> = self.up().into_iter().filter(same).collect();
        others.into_iter().for_each(|n| self.end(n, End::Evicted, now));
        self.seen.connections[number].accepted = Some(now);
        self.say(number, &packet::connack(0));
    }

    fn up(&self) -> Vec<usize> {
        let up = self.live.iter().filter(|(_, l)| l.stage == Stage::Up);
        up.map(|(number, _)| *number).collect()
    }

    fn publish(&mut self, number: usize, publish: Publish, now: Instant) -> Result<(), String> {
        let kind = rules::judge_publish(&self.rules, &publish, self.last_state, now)?;
        let live = self.live.get_mut(&number).unwrap();
        if publish.qos == 1 && live.held.iter().any(|h| h.id == publish.id) {
            return Err(format!(
                "packet identifier {} is used again before it was acknowledged",
                publish.id
            ));
        }
        let record = match kind {
            Kind::State => &mut self.seen.states,
            Kind::Event => &mut self.seen.events,
        };
        record.push(Published {
            at: now,
            connection: number,
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            acknowledged: None,
        });
        let held = Held {
            id: publish.id,
            kind,
            place: record.len() - 1,
        };
        if kind == Kind::State {
            self.last_state = Some(now);
        }
        if publish.qos == 1 {
            live.held.push(held);
        }
        if !self.hold_acks {
            self.acknowledge_all(now);
        }
        Ok(())
    }

    /// The clock is read before the PUBACK goes out, so that the device's own count starts no earlier than ours.
    fn acknowledge_all(&mut self, now: Instant) {
        for live in self.live.values_mut().filter(|l| l.stage == Stage::Up && !l.held.is_empty()) {
            for held in live.held.drain(..) {
                let record = match held.kind {
                    Kind::State => &mut self.seen.states,
                    Kind::Event => &mut self.seen.events,
                };
                record[held.place].acknowledged = Some(now);
                if held.kind == Kind::State {
                    self.last_state = Some(now);
                }
                live.wire.queue(&packet::puback(held.id));
            }
            self.dirty.push(live.wire.clone());
        }
    }

    pub fn hold_acks(&mut self, hold: bool, now: Instant) {
        self.hold_acks = hold;
        if !hold {
            self.acknowledge_all(now);
        }
    }

    fn disconnect(&mut self, number: usize, now: Instant) {
        let connection = &mut self.seen.connections[number];
        connection.clean_disconnect = true;
        connection.closed = Some(now);
        connection.end = Some(End::Disconnected);
        let live = self.live.get_mut(&number).unwrap();
        live.stage = Stage::Over;
        live.wire.finish();
        self.dirty.push(live.wire.clone());
    }

    /// Bytes as they are, to who is connected.
    pub fn send_raw(&mut self, bytes: &[u8]) -> usize {
        let up = self.up();
        up.iter().for_each(|n| self.say(*n, bytes));
        up.len()
    }

    /// Open connections fall silent, and their sockets stay.
    pub fn half_open(&mut self) -> usize {
        let up = self.up();
        up.iter().filter_map(|n| self.live.get(n)).for_each(|l| l.wire.fall_silent());
        up.len()
    }

    pub fn drop_all(&mut self, now: Instant) -> usize {
        let all: Vec<usize> = self.live.keys().copied().collect();
        all.iter().for_each(|n| self.end(*n, End::Dropped, now));
        all.len()
    }

    /// Ends what has had its time; says when to look again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        let all: Vec<usize> = self.live.keys().copied().collect();
        let mut next = None;
        for number in all {
            let Some((at, end)) = self.deadline(number, now) else {
                continue;
            };
            if at > now {
                next = Some(next.map_or(at, |n: Instant| n.min(at)));
            } else if let End::Violation(text) = end {
                self.violation(number, text, now);
            } else {
                self.end(number, end, now);
            }
        }
        next
    }

    fn deadline(&self, number: usize, now: Instant) -> Option<(Instant, End)> {
        let (live, connection) = (self.live.get(&number)?, self.seen.connections.get(number)?);
        if live.wire.is_silent() {
            return None;
        }
        match live.stage {
            Stage::Stalled => None,
            Stage::New => Some((live.heard + self.rules.connect_timeout, End::NoConnect)),
            Stage::Over => Some((connection.closed? + LINGER, End::Disconnected)),
            Stage::Up => {
                let allowed = Duration::from_secs(connection.keep_alive.into()) * 3 / 2;
                let text = format!(
                    "no packet came for {} ms, which is 1.5 times the keep-alive of {} s",
                    allowed.as_millis(),
                    connection.keep_alive
                );
                let silence = (live.heard + allowed, End::Violation(text));
                match self.expiry(connection, now).filter(|at| *at < silence.0) {
                    Some(at) => Some((at, End::TokenExpired)),
                    None => Some(silence),
                }
            }
        }
    }

    fn expiry(&self, connection: &Connection, now: Instant) -> Option<Instant> {
        let token = connection.token.as_ref().filter(|_| self.disconnect_at_expiry)?;
        let grace = i64::try_from(self.rules.expiry_grace.as_millis()).ok()?;
        let left = token.exp.checked_mul(1000)? + grace - self.wall_ms();
        now.checked_add(Duration::from_millis(u64::try_from(left.max(0)).ok()?))
    }
}
