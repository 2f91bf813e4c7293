//! A link against a simulated broker in virtual time; checks the rules at every publish.

use std::path::PathBuf;

use super::super::super::{Config, IotCore, Plain, Protocol};
use super::super::*;

pub(super) const GAP: Duration = Duration::from_secs(1);
pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config(protocol: Protocol) -> Config {
    Config {
        host: "broker".into(),
        port: 0,
        tls: true,
        root_certificates: None,
        client_certificate: None,
        client_key: None,
        protocol,
        state_gap: GAP,
        keep_alive: Duration::from_secs(60),
    }
}

pub(super) fn device() -> Topics {
    let device = IotCore {
        project: "p".into(),
        region: "r".into(),
        registry: "g".into(),
        device: "d".into(),
        private_key_file: PathBuf::new(),
        jwt_lifetime: Duration::from_secs(3600),
        audience: None,
        events: true,
    };
    Topics::new(&config(Protocol::IotCore(device))).unwrap()
}

pub(super) fn plain() -> Topics {
    let plain = Plain {
        client_id: "c".into(),
        username: None,
        password_file: None,
        prefix: "p".into(),
        discovery: Some(("ha/config".into(), Bytes::from_static(b"{}"))),
    };
    Topics::new(&config(Protocol::Mqtt(plain))).unwrap()
}

pub(super) fn state(text: &str) -> Wanted {
    Wanted {
        state: Some(Bytes::copy_from_slice(text.as_bytes())),
        status: None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Line {
    Closed,
    Connecting,
    Up,
}

/// The link and a broker 20 ms away.
pub(super) struct Simulation {
    pub(super) link: LinkState,
    pub(super) topics: Topics,
    pub(super) now: Duration,
    pub(super) line: Line,
    pub(super) accepts: bool,
    pub(super) acknowledges: bool,
    pub(super) token: Option<Duration>,
    pub(super) coming: Vec<(Duration, Event)>,
    pub(super) in_flight: Option<Publish>,
    /// When the broker may have seen the last state.
    pub(super) last_state: Option<Duration>,
    /// What the broker holds, and everything it received.
    pub(super) held: std::collections::HashMap<String, Bytes>,
    pub(super) given: Vec<(Duration, String, Bytes)>,
    pub(super) notifications: Vec<(Duration, Notification)>,
    pub(super) attempts: Vec<Duration>,
    pub(super) disconnects: usize,
    /// Whether the owner of the link acts on commands.
    pub(super) commands: bool,
    /// The filters that the current connection is subscribed to.
    pub(super) subscribed: Vec<String>,
    /// The broker's access rules drop publishes, but it acknowledges them.
    pub(super) swallows: bool,
    /// Topics on which the access rules drop publishes.
    pub(super) swallowed: Vec<&'static str>,
    /// The largest payload that the broker accepts; a larger one ends the connection.
    pub(super) largest: Option<usize>,
    /// A filter below which a retained message is too large, and its size.
    pub(super) oversized: Option<(String, usize)>,
    pub(super) finished: Option<bool>,
}

impl Simulation {
    pub(super) fn new(topics: Topics) -> Self {
        Self {
            link: LinkState::new(topics.clone(), GAP, 7),
            topics,
            now: Duration::ZERO,
            line: Line::Closed,
            accepts: true,
            acknowledges: true,
            token: None,
            coming: Vec::new(),
            in_flight: None,
            last_state: None,
            held: std::collections::HashMap::new(),
            given: Vec::new(),
            notifications: Vec::new(),
            attempts: Vec::new(),
            disconnects: 0,
            commands: true,
            subscribed: Vec::new(),
            swallows: false,
            swallowed: Vec::new(),
            largest: None,
            oversized: None,
            finished: None,
        }
    }

    pub(super) fn on(&mut self, event: Event) {
        self.link.handle(self.now, event);
        self.act_until_idle();
    }

    pub(super) fn drop_line(&mut self) {
        if self.line == Line::Up && self.in_flight.as_ref().is_some_and(|p| p.topic == self.topics.state) {
            self.last_state = Some(self.now);
        }
        self.line = Line::Closed;
        self.in_flight = None;
        self.coming.clear();
    }

    /// Breaks the connection, if there is one.
    pub(super) fn break_line(&mut self) {
        if self.line != Line::Closed {
            self.drop_line();
            self.on(Event::Lost("it broke".into()));
        }
    }

    pub(super) fn soon(&mut self, event: Event) {
        self.coming.push((self.now + ms(20), event));
    }

    fn deliver(&mut self, topic: String, payload: Bytes, retained: bool) {
        self.soon(Event::Message {
            topic,
            payload,
            retained,
            duplicate: false,
        });
    }

    pub(super) fn act_until_idle(&mut self) {
        let mut rounds = 0;
        while let Some(action) = self.link.poll(self.now) {
            rounds += 1;
            assert!(rounds < 50, "it spins at {:?}: {action:?}", self.now);
            self.act(action);
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        assert_eq!(self.finished, None, "nothing comes after the end: {action:?}");
        match action {
            Action::Connect => {
                assert_eq!(self.line, Line::Closed);
                self.line = Line::Connecting;
                self.attempts.push(self.now);
                let renew_at = self.token.map(|life| Expiry::new(life, life).planned(self.now));
                let answer = if self.accepts {
                    Event::Connected {
                        renew_at,
                        commands: self.commands,
                    }
                } else {
                    Event::Lost("refused".into())
                };
                self.soon(answer);
            }
            Action::Publish(publish) => {
                assert_eq!(self.line, Line::Up);
                assert_eq!(self.in_flight, None, "two publishes in flight");
                assert!(publish.payload.len() <= self.topics.limit(&publish.topic));
                if publish.topic == self.topics.state {
                    let since = self.last_state.map(|last| self.now - last);
                    assert!(since.is_none_or(|since| since >= GAP), "two states within {since:?}");
                }
                let is_taken = self.largest.is_none_or(|largest| publish.payload.len() <= largest);
                self.in_flight = Some(publish);
                if !is_taken {
                    self.soon(Event::Lost("it closed the connection".into()));
                } else if self.acknowledges {
                    self.soon(Event::Acknowledged);
                }
            }
            Action::Subscribe(topics) => {
                assert_eq!(self.line, Line::Up);
                self.subscribed.extend(topics.iter().cloned());
                self.soon(Event::Subscribed { refused: Vec::new() });
                for topic in &topics {
                    if let Some(payload) = self.held.get(topic).cloned() {
                        self.deliver(topic.clone(), payload, true);
                    }
                }
                if let Some(size) = self
                    .oversized
                    .as_ref()
                    .filter(|(at, _)| topics.contains(at))
                    .map(|(_, size)| *size)
                {
                    self.coming.push((self.now + ms(40), Event::TooLarge(size)));
                }
            }
            Action::Disconnect => {
                assert_eq!(self.line, Line::Up);
                assert_eq!(self.in_flight, None, "a DISCONNECT overtakes an acknowledgement");
                self.disconnects += 1;
                self.soon(Event::Disconnected);
            }
            Action::Abandon => self.drop_line(),
            Action::Notify(notification) => self.notifications.push((self.now, notification)),
            Action::Finish(acknowledged) => self.finished = Some(acknowledged),
        }
    }

    pub(super) fn arrive(&mut self, event: Event) {
        match &event {
            Event::Connected { .. } => {
                self.line = Line::Up;
                self.subscribed.clear();
            }
            Event::Lost(_) | Event::TooLarge(_) => self.drop_line(),
            Event::Disconnected => self.line = Line::Closed,
            Event::Acknowledged => {
                let publish = self.in_flight.take().unwrap();
                if publish.topic == self.topics.state {
                    self.last_state = Some(self.now);
                }
                assert!(self.topics.retain || !publish.retain, "a device retains nothing");
                let swallows = self.swallows || self.swallowed.contains(&publish.topic.as_str());
                if !swallows {
                    self.held.insert(publish.topic.clone(), publish.payload.clone());
                }
                if !swallows && self.subscribed.contains(&publish.topic) {
                    self.deliver(publish.topic.clone(), publish.payload.clone(), false);
                }
                self.given.push((self.now, publish.topic, publish.payload));
            }
            _ => {}
        }
        self.on(event);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.act_until_idle();
        let mut same = 0;
        loop {
            let coming = self.coming.iter().map(|(at, _)| *at).min();
            let next = [coming, self.link.poll_timeout(self.now)].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            same = if next <= self.now { same + 1 } else { 0 };
            assert!(same < 20, "it wakes for nothing at {:?}", self.now);
            self.now = self.now.max(next);
            match self.coming.iter().position(|(at, _)| *at <= self.now) {
                Some(index) => {
                    let (_, event) = self.coming.remove(index);
                    self.arrive(event);
                }
                None => self.act_until_idle(),
            }
        }
        self.now = end;
        self.act_until_idle();
    }

    pub(super) fn close(&mut self, last: Wanted, wait: Duration) {
        let until = self.now + wait;
        self.on(Event::Close { last, until });
        self.run(wait + ms(1));
    }

    pub(super) fn holds(&self, topic: &str) -> Option<&str> {
        self.held.get(topic).map(|payload| std::str::from_utf8(payload).unwrap())
    }

    /// Returns the texts of the notices so far.
    pub(super) fn notices(&self) -> Vec<&str> {
        let mut notices = Vec::new();
        for (_, notification) in &self.notifications {
            if let Notification::Notice(text) = notification {
                notices.push(text.as_str());
            }
        }
        notices
    }

    pub(super) fn troubles(&self) -> usize {
        self.notifications
            .iter()
            .filter(|(_, notification)| matches!(notification, Notification::Trouble(_)))
            .count()
    }

    pub(super) fn recoveries(&self) -> usize {
        self.notifications
            .iter()
            .filter(|(_, notification)| matches!(notification, Notification::Recovered(_)))
            .count()
    }
}
