//! The link between an element and an MQTT broker: keeps one connection up and one wanted state published.
//!
//! The only place that names `rumqttc` and `jsonwebtoken`. It knows nothing of GStreamer; it runs on the tokio runtime that it
//! is given and is told what to publish by [`Link::want`], [`Link::event`] and [`Link::close`].
//!
//! - `link` PURE: when to connect, what to publish next, when the token is renewed, the last word.
//! - `topics` PURE: what the two protocols publish and subscribe to, and their limits.
//! - `backoff` PURE: how long to wait after a failure.
//! - `key` PURE: a private key out of a PEM text; SEC1 wrapped into PKCS#8.
//! - `jwt`: the token of a device. The only file that names `jsonwebtoken`.
//! - `tls`: our own rustls configuration. `prepare`: everything that is read from files before a connection.
//! - `rumqtt`: one connection. The only file that names `rumqttc`.
//! - `driver`: the task that carries out what `link` decides.
//! - `pace`: when a client's states were last published, beyond the life of its link.
//!
//! What the link keeps, whatever the broker does:
//! 1. The wanted state and status are kept here and published after every ConnAck; only a PUBACK counts. What is newer
//!    replaces what is older: nothing queues up.
//! 2. One publish is in flight at a time. State publishes are [`Config::state_gap`] apart, counted from the last
//!    acknowledgement, or from the end of the connection that left one unacknowledged; over all connections, and over all
//!    links of this client in the process, one after the other. `online` is said only when the state of this link is there: a
//!    retained one may be that of a process that died.
//! 3. `protocol=iotcore`: no will, nothing retained, QoS 1, no topic but the device's own. The token is renewed before it
//!    expires by a clean DISCONNECT and a new connection: no failure, no pause, nothing told.
//! 4. Telemetry ([`Link::event`]): at most 16 wait, the oldest is dropped and counted; one that is older than 60 s is dropped,
//!    so an outage is not followed by old news. QoS 1: one that was in flight when the connection broke may arrive twice.
//! 5. After a failure the pause doubles from 1 s to 60 s, plus at most 1 s of chance; it begins anew only after connections
//!    have lived a minute. An outage is told once, and its end once, when the new connection has proved itself
//!    (3 s; longer for one that keeps breaking).
//! 6. No text that leaves here holds a token, a key or a password.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

mod backoff;
mod driver;
mod jwt;
mod key;
mod link;
mod pace;
mod prepare;
mod rumqtt;
mod shared;
mod tls;
mod topics;

pub use jwt::TokenError;
pub use key::KeyError;
pub use tls::TlsError;

use pace::Pace;
use shared::Shared;

/// Where the broker is, and who we are there.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name or address of the broker, without scheme and port.
    pub host: String,
    /// TCP port; 0 = 8883 with TLS, 1883 without.
    pub port: u16,
    /// Whether to speak TLS.
    pub tls: bool,
    /// PEM file of the certificate authorities to trust; `None` = the system's.
    pub root_certificates: Option<PathBuf>,
    /// PEM file of our certificate chain, where the broker wants one.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub client_key: Option<PathBuf>,
    /// The protocol's own settings.
    pub protocol: Protocol,
    /// Shortest time between two state publishes, and between two status publishes. 1 s for IoT Core.
    pub state_gap: Duration,
}

impl Config {
    /// The port that is meant.
    fn port(&self) -> u16 {
        match (self.port, self.tls) {
            (0, true) => 8883,
            (0, false) => 1883,
            (port, _) => port,
        }
    }

    /// Broker and port, as texts name them.
    fn place(&self) -> String {
        format!("{}:{}", tls::bare_host(&self.host), self.port())
    }
}

/// What is spoken over MQTT 3.1.1.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// The device contract of IoT Core and of ClearBlade.
    IotCore(IotCore),
    /// Any broker: last will, retained availability, state and status.
    Mqtt(Plain),
}

/// A device of an IoT Core registry.
#[derive(Clone, Debug)]
pub struct IotCore {
    /// Project id.
    pub project: String,
    /// Region of the registry.
    pub region: String,
    /// Registry id.
    pub registry: String,
    /// Device id.
    pub device: String,
    /// PEM file of the device's private key: RSA of at least 2048 bits or EC P-256, unencrypted.
    pub private_key_file: PathBuf,
    /// Life of a token, 2 s to 24 h.
    pub jwt_lifetime: Duration,
    /// `aud` of the token; `None` = the project id.
    pub audience: Option<String>,
    /// Whether telemetry is published. A registry without a Pub/Sub topic closes the connection on it.
    pub events: bool,
}

/// A client of a plain broker.
#[derive(Clone, Debug)]
pub struct Plain {
    /// Client id, the same at every connection.
    pub client_id: String,
    /// User name.
    pub username: Option<String>,
    /// File that holds the password; read at every connection, one trailing newline is cut off.
    pub password_file: Option<PathBuf>,
    /// First part of all topics, without a trailing slash.
    pub prefix: String,
    /// Topic and payload of a discovery message, published retained after every connection.
    pub discovery: Option<(String, Bytes)>,
}

/// What the broker should hold. `None` leaves what was wanted before (at first: nothing). Every `Some` is published, equal
/// bytes too: that is how a heartbeat looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `/devices/D/state`, or `P/state` (retained).
    pub state: Option<Bytes>,
    /// `P/status` (retained); protocol=iotcore has no place for it and ignores it.
    pub status: Option<Bytes>,
}

/// Who hears of the link. Called from a task on the runtime, one call at a time: return at once, take no lock that is held
/// while calling [`Link`]. A call may still be running when [`Link::close`] returns or a `Link` is dropped.
pub trait Listener: Send + Sync {
    /// The connection came up or went down. A planned renewal of the token is neither.
    fn connected(&self, up: bool);
    /// Once an outage: what happened and what to do. Holds no secret.
    fn trouble(&self, text: String);
    /// The outage that was told is over; how long there was no connection.
    fn recovered(&self, after: Duration);
    /// A message on `/devices/D/config`.
    fn config(&self, payload: Bytes);
    /// A message below `/devices/D/commands` or `P/set`; `tail` is the topic behind that, without a slash in front.
    fn command(&self, tail: String, payload: Bytes, retained: bool);
    /// Something that a person should see once and that does not stop the link: a key file that others can read, a clock
    /// before 2020, a payload that is too large, a subscription that was refused. Holds no secret.
    fn notice(&self, text: String) {
        let _ = text;
    }
}

/// Counters since [`Link::start`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Connections that the broker accepted, renewals of the token among them.
    pub connects: u64,
    /// Connections that could not be made or that broke.
    pub failures: u64,
    /// Publishes that the broker acknowledged.
    pub published: u64,
    /// Telemetry that was dropped: too much, too old, too large.
    pub dropped: u64,
    /// Tokens that were signed.
    pub tokens: u64,
}

/// Why a link cannot start. The text names the setting and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting that is missing or that cannot be.
    #[error("{setting}: {text}")]
    Setting {
        /// Name of the setting as the element's property.
        setting: &'static str,
        /// What is wrong and what to do.
        text: String,
    },
    /// The private key cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file that cannot be read.
    #[error("{setting}: {path} cannot be read: {source}")]
    File {
        /// Name of the setting as the element's property.
        setting: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl ConfigError {
    fn setting(setting: &'static str, text: impl Into<String>) -> Self {
        Self::Setting {
            setting,
            text: text.into(),
        }
    }
}

/// A running link. Dropping it ends its task and its connection without a word: the broker then publishes the will.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    task: AbortHandle,
    pace: Pace,
    gap: Duration,
    has_events: bool,
    is_over: AtomicBool,
}

impl Link {
    /// Checks the settings, reads and tries every file once, and starts to connect. Blocks for the file reads only.
    ///
    /// # Errors
    /// Where the settings cannot work. A broker that is away is no error: the listener hears of it. A wall clock before 2020
    /// is none either: the listener gets a notice, and the link connects when the clock is right.
    pub fn start(config: Config, runtime: &Handle, listener: Arc<dyn Listener>) -> Result<Self, ConfigError> {
        let plan = topics::Plan::new(&config)?;
        let mut notices = prepare::check(&config)?;
        let pace = Pace::of(&plan.client_id, &config.place());
        if pace.enter() > 0 {
            notices.push(format!(
                "another element of this process is connected to {} as the client {} already, and a broker keeps only the newest of \
                 them: they will throw each other out; give each a device-id (or client-id) of its own",
                config.place(),
                plan.client_id
            ));
        }
        let shared = Arc::new(Shared::default());
        let (gap, has_events) = (config.state_gap, plan.has_events());
        let task = runtime.spawn(driver::run(
            Arc::clone(&shared),
            config,
            plan,
            listener,
            notices,
            pace.clone(),
        ));
        Ok(Self {
            shared,
            task: task.abort_handle(),
            pace,
            gap,
            has_events,
            is_over: AtomicBool::new(false),
        })
    }

    /// Wants this to be what the broker holds; published as soon as the gap allows. What was not yet published is replaced.
    pub fn want(&self, wanted: Wanted) {
        self.shared.want(wanted);
    }

    /// Publishes an event once: on `P/event/{kind}`, or on `/devices/D/events` where telemetry is opted in (else nobody wants it).
    pub fn event(&self, kind: &'static str, payload: Bytes) {
        if self.has_events {
            self.shared.event(kind, payload);
        }
    }

    /// Publishes the last word, says goodbye and ends the task; at the latest at `until`. Blocks: call it from a thread outside
    /// tokio. Without a connection one attempt is made at once, and more where the broker still holds something older.
    /// `true` = the broker acknowledged the last state (or there was none). A second call returns what the first did.
    pub fn close(&self, last: Wanted, until: Instant) -> bool {
        let acknowledged = self.shared.close(last, until);
        self.end(acknowledged);
        acknowledged
    }

    fn end(&self, acknowledged: bool) {
        self.task.abort();
        if !self.is_over.swap(true, Ordering::Relaxed) {
            if !acknowledged {
                // A state may just have been on its way.
                self.pace.not_before(Instant::now() + self.gap);
            }
            self.pace.leave();
        }
    }

    /// Whether there is a connection now. A planned renewal of the token does not count as a gap.
    pub fn is_connected(&self) -> bool {
        self.shared.report().up
    }

    /// Whether the broker has acknowledged all that was wanted until now: what is wanted next pushes nothing out.
    pub fn is_settled(&self) -> bool {
        self.shared.is_settled()
    }

    /// Counters since the start.
    pub fn stats(&self) -> LinkStats {
        self.shared.report().stats
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end(false);
    }
}
