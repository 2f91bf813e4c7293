//! The task of one link that carries out what its [`LinkState`] decides. Runs on the runtime it is spawned on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::link::{Action, Event, LinkState, Publish, Tell, renewal};
use super::pace::Pace;
use super::prepare::{Prepared, is_clock, prepare};
use super::rumqtt::{Connection, Options, Received};
use super::shared::Shared;
use super::topics::{OFFLINE, Plan};
use super::{Config, ConfigError, Listener, Protocol, tls};
use gcstreamer_schema::redact;

/// States of a device are at most one a second, whatever is configured.
const DEVICE_GAP: Duration = Duration::from_secs(1);

/// Where the connection is.
enum Line {
    Closed,
    /// Files are read and the token is signed.
    Preparing(JoinHandle<Result<Prepared, ConfigError>>),
    Open(Connection),
}

/// What ended the wait.
enum Woken {
    ByCaller,
    ByTimer,
    Prepared(Box<Result<Prepared, String>>),
    ClockNotSet(String),
    Received(Received),
}

struct Driver {
    shared: Arc<Shared>,
    config: Arc<Config>,
    plan: Plan,
    listener: Arc<dyn Listener>,
    link: LinkState,
    pace: Pace,
    line: Line,
    start: Instant,
    renew_at: Option<Duration>,
    tokens: u64,
}

/// Runs until the last word is said, or the task is aborted.
pub(super) async fn run(
    shared: Arc<Shared>,
    config: Config,
    plan: Plan,
    listener: Arc<dyn Listener>,
    notices: Vec<String>,
    pace: Pace,
) {
    // However the task ends: a thread that waits for it hears of it.
    let _end = End(Arc::clone(&shared));
    for notice in notices {
        listener.notice(notice);
    }
    let gap = match config.protocol {
        Protocol::IotCore(_) => config.state_gap.max(DEVICE_GAP),
        Protocol::Mqtt(_) => config.state_gap,
    };
    let start = Instant::now();
    let free_at = pace
        .free_at()
        .map_or(Duration::ZERO, |at| Instant::from_std(at).saturating_duration_since(start));
    let link = LinkState::new(plan.clone(), gap, RandomState::new().build_hasher().finish()).not_before(free_at);
    let config = Arc::new(config);
    let mut driver = Driver {
        shared,
        config,
        plan,
        listener,
        link,
        pace,
        line: Line::Closed,
        start,
        renew_at: None,
        tokens: 0,
    };
    while driver.step().await {}
}

impl Driver {
    /// One round: what was said, what to do, then wait. `false` = the end.
    async fn step(&mut self) -> bool {
        self.take_inbox();
        while let Some(action) = self.link.next(self.now()) {
            self.tell_report();
            self.tell_pace();
            if let Action::Finish(acknowledged) = action {
                self.shared.finish(acknowledged);
                return false;
            }
            self.act(action);
        }
        self.tell_report();
        self.tell_pace();
        let wake = self.link.wake(self.now());
        let timer = async {
            match wake.and_then(|at| self.start.checked_add(at)) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            () = self.shared.woken() => Woken::ByCaller,
            woken = on_line(&mut self.line) => woken,
            () = timer => Woken::ByTimer,
        };
        self.woken(woken);
        true
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A moment of the callers' clock on ours.
    fn at(&self, moment: std::time::Instant) -> Duration {
        Instant::from_std(moment).saturating_duration_since(self.start)
    }

    fn take_inbox(&mut self) {
        let inbox = self.shared.take();
        let now = self.now();
        if inbox.wanted.state.is_some() || inbox.wanted.status.is_some() {
            self.link.on(now, Event::Want(inbox.wanted));
        }
        if inbox.dropped > 0 {
            self.link.on(now, Event::Dropped(inbox.dropped));
        }
        for (said, kind, payload) in inbox.events {
            let said = self.at(said);
            self.link.on(now, Event::Telemetry { said, kind, payload });
        }
        if let Some((last, until)) = inbox.close {
            let until = self.at(until);
            self.link.on(now, Event::Close { last, until });
        }
    }

    fn tell_report(&self) {
        let mut stats = self.link.stats();
        stats.tokens = self.tokens;
        self.shared.told(self.link.is_up(), self.link.is_settled(), stats);
    }

    /// The next link of this client must know it.
    fn tell_pace(&self) {
        if let Some(at) = self.link.free_at(self.now()).and_then(|at| self.start.checked_add(at)) {
            self.pace.not_before(at.into_std());
        }
    }

    fn act(&mut self, action: Action) {
        let done = match (action, &self.line) {
            (Action::Connect, _) => {
                let config = Arc::clone(&self.config);
                let reading = tokio::task::spawn_blocking(move || prepare(&config, SystemTime::now()));
                self.line = Line::Preparing(reading);
                Ok(())
            }
            (Action::Publish(publish), Line::Open(connection)) => connection.publish(publish),
            (Action::Subscribe(topics), Line::Open(connection)) => connection.subscribe(topics),
            (Action::Disconnect, Line::Open(connection)) => connection.disconnect(),
            (Action::Abandon, _) => {
                self.line = Line::Closed;
                Ok(())
            }
            (Action::Tell(tell), _) => {
                self.tell(tell);
                Ok(())
            }
            (Action::Publish(_) | Action::Subscribe(_) | Action::Disconnect, _) => Err("there is no connection".to_owned()),
            (Action::Finish(_), _) => Ok(()),
        };
        if let Err(text) = done {
            self.line = Line::Closed;
            self.link.on(self.now(), Event::Lost(text));
        }
    }

    fn tell(&self, tell: Tell) {
        match tell {
            Tell::Connected(up) => self.listener.connected(up),
            Tell::Trouble(text) => self.listener.trouble(text),
            Tell::Recovered(after) => self.listener.recovered(after),
            Tell::Notice(text) => self.listener.notice(text),
            Tell::Config(payload) => self.listener.config(payload),
            Tell::Command { tail, payload, retained } => self.listener.command(tail, payload, retained),
        }
    }

    fn woken(&mut self, woken: Woken) {
        let now = self.now();
        let event = match woken {
            Woken::ByCaller | Woken::ByTimer => return,
            Woken::Prepared(prepared) => match *prepared {
                Ok(prepared) => return self.open(now, prepared),
                Err(text) => self.closed(Event::Lost(text)),
            },
            Woken::ClockNotSet(text) => self.closed(Event::ClockNotSet(text)),
            Woken::Received(Received::Connected) => Event::Connected { renew_at: self.renew_at },
            Woken::Received(Received::Acknowledged) => Event::Acknowledged,
            Woken::Received(Received::Subscribed(refused)) => Event::Subscribed { refused },
            Woken::Received(Received::Message {
                topic,
                payload,
                retained,
                duplicate,
            }) => Event::Message {
                topic,
                payload,
                retained,
                duplicate,
            },
            Woken::Received(Received::SaidGoodbye) => self.closed(Event::SaidGoodbye),
            Woken::Received(Received::Lost(text)) => self.closed(Event::Lost(text)),
        };
        self.link.on(now, event);
    }

    fn closed(&mut self, event: Event) -> Event {
        self.line = Line::Closed;
        event
    }

    fn open(&mut self, now: Duration, prepared: Prepared) {
        self.tokens = self.tokens.saturating_add(u64::from(prepared.expires_in.is_some()));
        self.renew_at = prepared.expires_in.map(|expires_in| renewal(now, expires_in));
        self.line = Line::Open(Connection::open(Options {
            host: tls::bare_host(&self.config.host).to_owned(),
            port: self.config.port(),
            client_id: self.plan.client_id.clone(),
            login: prepared.login,
            has_token: prepared.expires_in.is_some(),
            tls: prepared.tls,
            will: self.plan.availability.clone().map(|topic| Publish {
                topic,
                payload: OFFLINE,
                retain: true,
            }),
            subscriptions: self.plan.subscriptions.clone(),
        }));
    }
}

/// What the line says next. Cancel safe.
async fn on_line(line: &mut Line) -> Woken {
    match line {
        Line::Closed => std::future::pending().await,
        Line::Preparing(reading) => match reading.await {
            Ok(Err(error)) if is_clock(&error) => Woken::ClockNotSet(error.to_string()),
            Ok(Err(error)) => Woken::Prepared(Box::new(Err(redact(&error.to_string())))),
            Ok(Ok(prepared)) => Woken::Prepared(Box::new(Ok(prepared))),
            Err(error) => Woken::Prepared(Box::new(Err(format!(
                "the files of the connection could not be read: {error}"
            )))),
        },
        Line::Open(connection) => Woken::Received(connection.received().await),
    }
}

/// Tells that the task has ended, by whatever way.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.finish(false);
    }
}
