//! The task of one link: executes the actions of its [`LinkState`].

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::connect_options::{ConnectOptions, is_clock, read};
use super::dial::FailedAddresses;
use super::link::{Action, Event, Expiry, LinkState, Notification, Publish};
use super::publish_interval::PublishInterval;
use super::rumqtt::{Connection, ConnectionParams, Received};
use super::shared::Shared;
use super::topics::{MAX_PACKET, OFFLINE, Topics};
use super::{Config, ConfigError, Listener, Protocol, tls};
use gcstreamer_schema::redact;

// IoT Core accepts one state a second, counted from the last acknowledgement.
/// Shortest time between two states of a device, whatever the configuration.
const DEVICE_GAP: Duration = Duration::from_secs(1);
/// Longest interval between two readings of the wall clock while a token is in use: no event tells the driver that it was set.
const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// Stage of the connection.
enum ConnectionStage {
    Closed,
    /// Files are read and the token is signed.
    ReadingFiles(Reading),
    Open(Connection),
}

/// The reading of a connection's files, and the signing of its token.
struct Reading(JoinHandle<Result<Result<ConnectOptions, ConfigError>, JoinError>>);

impl Reading {
    /// Starts reading once no other reading holds `turn`. If a disk hangs, the thread of an abandoned attempt stays blocked in
    /// the read. Later attempts therefore wait without a thread: otherwise they would use up the blocking threads, which all
    /// disk work of the process shares.
    fn begin(config: Arc<Config>, wall: fn() -> SystemTime, turn: Arc<Mutex<()>>) -> Self {
        Self(tokio::spawn(async move {
            let turn = turn.lock_owned().await;
            let read = move || {
                // Held to the end of the read, which goes on if this task is aborted.
                let _turn = turn;
                read(&config, wall())
            };
            tokio::task::spawn_blocking(read).await
        }))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What ended the wait.
enum WakeReason {
    ByCaller,
    ByTimer,
    ConnectOptions(Box<Result<ConnectOptions, String>>),
    ClockNotSet(String),
    Received(Received),
}

struct Driver {
    shared: Arc<Shared>,
    config: Arc<Config>,
    topics: Topics,
    listener: Arc<dyn Listener>,
    link: LinkState,
    interval: PublishInterval,
    stage: ConnectionStage,
    start: Instant,
    wall: fn() -> SystemTime,
    /// Locked while the files of the connection are read.
    turn: Arc<Mutex<()>>,
    /// The expiry of this connection's token, and the renewal time planned when it was signed.
    token: Option<(Expiry, Duration)>,
    tokens: u64,
    failed: FailedAddresses,
}

/// Runs until the final state is published, or the task is aborted. `wall` is the wall clock.
pub(super) async fn run(
    shared: Arc<Shared>,
    config: Config,
    topics: Topics,
    listener: Arc<dyn Listener>,
    notices: Vec<String>,
    interval: PublishInterval,
    wall: fn() -> SystemTime,
) {
    // Wakes the thread that waits for the end, however the task ends.
    let _end = FinishOnDrop(Arc::clone(&shared));
    for notice in notices {
        listener.notice(notice);
    }
    let gap = match config.protocol {
        Protocol::IotCore(_) => config.state_gap.max(DEVICE_GAP),
        Protocol::Mqtt(_) => config.state_gap,
    };
    let start = Instant::now();
    let free_at = interval
        .free_at()
        .map_or(Duration::ZERO, |at| Instant::from_std(at).saturating_duration_since(start));
    let link = LinkState::new(topics.clone(), gap, RandomState::new().build_hasher().finish()).not_before(free_at);
    let config = Arc::new(config);
    let mut driver = Driver {
        shared,
        config,
        topics,
        listener,
        link,
        interval,
        stage: ConnectionStage::Closed,
        start,
        wall,
        turn: Arc::default(),
        token: None,
        tokens: 0,
        failed: FailedAddresses::default(),
    };
    while driver.step().await {}
}

impl Driver {
    /// Executes one round: processes the inbox, executes actions, then waits. Returns `false` at the end.
    async fn step(&mut self) -> bool {
        self.process_inbox();
        self.check_clock();
        while let Some(action) = self.link.poll(self.now()) {
            self.update_report();
            self.record_interval();
            if let Action::Finish(acknowledged) = action {
                self.shared.finish(acknowledged);
                return false;
            }
            self.execute(action);
        }
        self.update_report();
        self.record_interval();
        let clock_check = self.token.map(|_| self.now().saturating_add(CLOCK_CHECK));
        let wake = [self.link.poll_timeout(self.now()), clock_check].into_iter().flatten().min();
        let timer = async {
            match wake.and_then(|at| self.start.checked_add(at)) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let reason = tokio::select! {
            () = self.shared.wait_for_input() => WakeReason::ByCaller,
            reason = next_event(&mut self.stage) => reason,
            () = timer => WakeReason::ByTimer,
        };
        self.on_wake(reason);
        true
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Renews the token earlier if the wall clock was set forward since it was signed: the old clock was behind, so `exp` is
    /// closer than planned.
    fn check_clock(&mut self) {
        if let Some((expiry, _)) = self.token {
            let now = self.now();
            let wall = (self.wall)().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.link.handle(now, Event::RenewBy(expiry.by_clock(now, wall)));
        }
    }

    /// Converts a moment to the time scale of the link.
    fn at(&self, moment: std::time::Instant) -> Duration {
        Instant::from_std(moment).saturating_duration_since(self.start)
    }

    fn process_inbox(&mut self) {
        let inbox = self.shared.take();
        let now = self.now();
        if let Some(payload) = inbox.discovery {
            self.link.handle(now, Event::Discovery(payload));
        }
        if inbox.wanted.state.is_some() || inbox.wanted.status.is_some() {
            self.link.handle(now, Event::Want(inbox.wanted));
        }
        if inbox.dropped > 0 {
            self.link.handle(now, Event::Dropped(inbox.dropped));
        }
        for (queued_at, kind, payload) in inbox.events {
            let queued_at = self.at(queued_at);
            self.link.handle(
                now,
                Event::Telemetry {
                    queued_at,
                    kind,
                    payload,
                },
            );
        }
        if let Some((last, until)) = inbox.close {
            let until = self.at(until);
            self.link.handle(now, Event::Close { last, until });
        }
    }

    fn update_report(&self) {
        let mut stats = self.link.stats();
        stats.tokens = self.tokens;
        self.shared.update(self.link.is_up(), self.link.is_settled(), stats);
    }

    /// Records when the next state may be published, for the next link of this client.
    fn record_interval(&self) {
        if let Some(at) = self.link.free_at(self.now()).and_then(|at| self.start.checked_add(at)) {
            self.interval.not_before(at.into_std());
        }
    }

    fn execute(&mut self, action: Action) {
        match (action, &self.stage) {
            (Action::Connect, _) => {
                self.token = None;
                let reading = Reading::begin(Arc::clone(&self.config), self.wall, Arc::clone(&self.turn));
                self.stage = ConnectionStage::ReadingFiles(reading);
            }
            (Action::Publish(publish), ConnectionStage::Open(connection)) => connection.publish(publish),
            (Action::Subscribe(topics), ConnectionStage::Open(connection)) => connection.subscribe(topics),
            (Action::Disconnect, ConnectionStage::Open(connection)) => connection.disconnect(),
            (Action::Abandon, _) => self.stage = ConnectionStage::Closed,
            (Action::Notify(notification), _) => self.notify(notification),
            (Action::Publish(_) | Action::Subscribe(_) | Action::Disconnect, _) => {
                self.stage = ConnectionStage::Closed;
                self.link.handle(self.now(), Event::Lost("there is no connection".to_owned()));
            }
            (Action::Finish(_), _) => {}
        }
    }

    fn notify(&self, notification: Notification) {
        match notification {
            Notification::Connected(up) => self.listener.connected(up),
            Notification::Trouble(text) => self.listener.trouble(text),
            Notification::Recovered(after) => self.listener.recovered(after),
            Notification::Notice(text) => self.listener.notice(text),
            Notification::Config(payload) => self.listener.config(payload),
            Notification::Command { tail, payload, retained } => self.listener.command(tail, payload, retained),
        }
    }

    fn on_wake(&mut self, reason: WakeReason) {
        let now = self.now();
        let event = match reason {
            WakeReason::ByCaller | WakeReason::ByTimer => return,
            WakeReason::ConnectOptions(prepared) => match *prepared {
                Ok(prepared) => return self.open(now, prepared),
                Err(text) => self.closed(Event::Lost(text)),
            },
            WakeReason::ClockNotSet(text) => self.closed(Event::ClockNotSet(text)),
            WakeReason::Received(Received::Connected) => Event::Connected {
                renew_at: self.token.map(|(_, planned)| planned),
                commands: self.listener.wants_commands(),
            },
            WakeReason::Received(Received::Acknowledged) => Event::Acknowledged,
            WakeReason::Received(Received::Subscribed(refused)) => Event::Subscribed { refused },
            WakeReason::Received(Received::Message {
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
            WakeReason::Received(Received::Disconnected) => self.closed(Event::Disconnected),
            WakeReason::Received(Received::Lost(text)) => self.closed(Event::Lost(text)),
            WakeReason::Received(Received::TooLarge(size)) => self.closed(Event::TooLarge(size)),
        };
        self.link.handle(now, event);
    }

    fn closed(&mut self, event: Event) -> Event {
        self.stage = ConnectionStage::Closed;
        event
    }

    fn open(&mut self, now: Duration, prepared: ConnectOptions) {
        self.tokens = self.tokens.saturating_add(u64::from(prepared.expiry.is_some()));
        let has_token = prepared.expiry.is_some();
        self.token = prepared.expiry.map(|expiry| (expiry, expiry.planned(now)));
        self.stage = ConnectionStage::Open(Connection::open(ConnectionParams {
            host: tls::bare_host(&self.config.host).to_owned(),
            port: self.config.port(),
            client_id: self.topics.client_id.clone(),
            login: prepared.login,
            has_token,
            tls: prepared.tls,
            will: self.topics.availability.clone().map(|topic| Publish {
                topic,
                payload: OFFLINE,
                retain: true,
            }),
            keep_alive: self.config.keep_alive(),
            has_certificate: self.config.client_certificate.is_some(),
            is_first_failure: !self.link.is_outage_reported(),
            max_incoming: MAX_PACKET,
            failed: self.failed.clone(),
        }));
    }
}

/// Waits for the next event of the connection. Cancel safe.
async fn next_event(stage: &mut ConnectionStage) -> WakeReason {
    match stage {
        ConnectionStage::Closed => std::future::pending().await,
        ConnectionStage::ReadingFiles(reading) => match (&mut reading.0).await.flatten() {
            Ok(Err(error)) if is_clock(&error) => WakeReason::ClockNotSet(error.to_string()),
            Ok(Err(error)) => WakeReason::ConnectOptions(Box::new(Err(redact(&error.to_string())))),
            Ok(Ok(prepared)) => WakeReason::ConnectOptions(Box::new(Ok(prepared))),
            Err(error) => WakeReason::ConnectOptions(Box::new(Err(format!(
                "the files of the connection could not be read: {error}"
            )))),
        },
        ConnectionStage::Open(connection) => WakeReason::Received(connection.received().await),
    }
}

/// Marks the link as finished when the task ends, even by a panic or an abort.
struct FinishOnDrop(Arc<Shared>);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        self.0.finish(false);
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
