//! The link between an element and an MQTT broker: keeps one connection up and one wanted state published.
//!
//! The only crate that names `rumqttc`. It does not depend on GStreamer and runs on the caller's tokio runtime.
//! [`Link::want`], [`Link::event`] and [`Link::close`] set what it publishes.
//!
//! - `link` PURE: when to connect, what to publish next, when the token is renewed, how the final state is sent.
//! - `topics` PURE: what the two protocols publish and subscribe to, and their limits.
//! - `backoff` PURE: how long to wait after a failure.
//! - `key` PURE: reads a private key from a PEM text; wraps SEC1 into PKCS#8.
//! - `jwt`: the token of a device. The only file here that names `jsonwebtoken`.
//! - `tls`: our own rustls configuration. `pinned`: trust in a broker's own certificate, and in common names. `version1` PURE: its
//!   certificate of X.509 version 1. `der` PURE: values of a certificate. `connect_options`: everything that is read from files
//!   before a connection.
//! - `error_text` PURE: describes why a connection failed and what to do. `probe`: finds out what listens on a port that is not a
//!   broker's.
//! - `dial`: connects to the first of a broker's addresses that answers.
//! - `rumqtt`: one connection. The only module that names `rumqttc`.
//! - `driver`: the task that carries out what `link` decides. `shared`: what it shares with the callers.
//! - `subscriber`: a client that only listens, for a dashboard.
//! - `publish_interval`: when a client's states were last published, beyond the life of its link.
//!
//! What the link guarantees, whatever the broker does:
//! 1. The link stores the wanted state and status and publishes them after every ConnAck; only a PUBACK counts. A newer one
//!    replaces an older one: they do not queue up.
//! 2. One publish is in flight at a time. State publishes are [`Config::state_gap`] apart, counted from the last
//!    acknowledgement, or from the end of the connection that left one unacknowledged; over all connections, and over all
//!    successive links of this client in the process. `online` is published only after the state of this link: a retained state
//!    may be that of a process that died.
//! 3. `protocol=iotcore`: no will, nothing retained, QoS 1, no topic but the device's own. The token is renewed before it
//!    expires, even if the wall clock was set forward meanwhile: a clean DISCONNECT, then a new connection at once. A renewal is
//!    not a failure and is not reported.
//! 4. Telemetry ([`Link::event`]): at most 16 messages wait; more drop the oldest, which is counted. A message older than 60 s is
//!    dropped, so that an outage is not followed by stale events. QoS 1: one in flight when the connection broke may arrive
//!    twice.
//! 5. After a failure the pause doubles from 1 s to 59 s, plus at most 1 s of jitter; it restarts at 1 s only after a connection
//!    has lasted a minute. An outage is reported once, and so is its end, once the new connection has lasted for 3 s (longer if
//!    connections keep breaking).
//! 6. A packet over the limit ends its subscription, not every later connection. A client always subscribes to its config or its
//!    own topics; to commands only if [`Listener::wants_commands`]. With a plain broker, its own messages must come back from the
//!    broker, and values that others publish on its topics are corrected.
//! 7. `protocol=iotcore`: no state is published in the first 1.1 s after the first ConnAck.
//! 8. No text that is reported contains a token, a key or a password.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

mod backoff;
mod connect_options;
mod der;
mod dial;
mod driver;
mod error_text;
mod jwt;
mod key;
mod link;
mod pinned;
mod probe;
mod publish_interval;
mod rumqtt;
mod shared;
mod subscriber;
mod tls;
mod topics;
mod version1;

pub use jwt::TokenError;
pub use key::KeyError;
pub use subscriber::{Incoming, Subscriber};
pub use tls::TlsError;

use publish_interval::PublishInterval;
use shared::Shared;

/// Longest keep-alive of the bridge of IoT Core.
const BRIDGE_KEEP_ALIVE: Duration = Duration::from_secs(20 * 60);

/// Address of the broker, and our identity there.
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
    /// PEM file of our certificate chain, if the broker requires one.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub client_key: Option<PathBuf>,
    /// The protocol's own settings.
    pub protocol: Protocol,
    /// Shortest time between two state publishes, and between two status publishes. 1 s for IoT Core.
    pub state_gap: Duration,
    /// Longest time without a packet from us, 1 s to 65 535 s, in whole seconds.
    pub keep_alive: Duration,
}

impl Config {
    /// Returns the TCP port, with 0 replaced by the default.
    fn port(&self) -> u16 {
        match (self.port, self.tls) {
            (0, true) => 8883,
            (0, false) => 1883,
            (port, _) => port,
        }
    }

    /// Returns the keep-alive to request. The bridge of IoT Core closes a connection after 20 minutes without a packet, even if a
    /// longer keep-alive was requested.
    fn keep_alive(&self) -> Duration {
        match self.protocol {
            Protocol::IotCore(_) => self.keep_alive.min(BRIDGE_KEEP_ALIVE),
            Protocol::Mqtt(_) => self.keep_alive,
        }
    }

    /// Returns broker and port for texts.
    fn address(&self) -> String {
        format!("{}:{}", tls::bare_host(&self.host), self.port())
    }
}

/// The contract spoken over MQTT 3.1.1.
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
    /// Whether telemetry is published. A registry without a Pub/Sub topic then closes the connection.
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

/// What the broker should hold. `None` keeps the previous value (initially nothing). Every `Some` is published, even if the bytes
/// are equal: a heartbeat repeats them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `/devices/D/state`, or `P/state` (retained).
    pub state: Option<Bytes>,
    /// `P/status` (retained); protocol=iotcore has no such topic and ignores it.
    pub status: Option<Bytes>,
}

/// Receives the reports of a link. Called from a task on the runtime, one call at a time: return at once, and take no lock that
/// is held while calling [`Link`]. A call may still be running when [`Link::close`] returns or a `Link` is dropped.
pub trait Listener: Send + Sync {
    /// Called when the connection comes up or goes down; a planned renewal of the token is neither. When it comes up and the last
    /// status is older than 5 s, that status is published a second later: call [`Link::want`] with a fresh one, which is then
    /// published instead.
    fn connected(&self, up: bool);
    /// Returns whether the owner acts on commands; asked at each ConnAck. If not, their topics are not subscribed to.
    fn wants_commands(&self) -> bool {
        true
    }
    /// Called once when an outage begins. The text names what happened and what to do, and contains no secret.
    fn trouble(&self, text: String);
    /// Called when the reported outage is over. `after` is how long there was no connection.
    fn recovered(&self, after: Duration);
    /// Called for a message on `/devices/D/config`.
    fn config(&self, payload: Bytes);
    /// Called for a message below `/devices/D/commands` or `P/set`; `tail` is the rest of the topic, without a leading slash.
    fn command(&self, tail: String, payload: Bytes, retained: bool);
    /// Called once for a problem that does not stop the link: a key file that others can read, a clock before 2020, a payload
    /// that is too large, a refused subscription. The text contains no secret.
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
    /// Messages that the broker acknowledged.
    pub published: u64,
    /// Telemetry that was dropped: too much, too old or too large.
    pub dropped: u64,
    /// Signed tokens.
    pub tokens: u64,
}

/// Why a link cannot start. The text names the setting and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting that is missing or invalid.
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
    /// Returns the name of the wrong setting as the element's property; `None` if the error concerns more than one.
    #[must_use]
    pub const fn setting_name(&self) -> Option<&'static str> {
        match self {
            Self::Setting { setting, .. } | Self::File { setting, .. } => Some(setting),
            Self::Token(_) => Some("private-key-file"),
            Self::Tls(TlsError::File { setting, .. }) => Some(setting),
            Self::Tls(_) => None,
        }
    }

    fn setting(setting: &'static str, text: impl Into<String>) -> Self {
        Self::Setting {
            setting,
            text: text.into(),
        }
    }
}

/// Checks the settings as [`Link::start`] does, without connecting. If `looks_at_files` is set, also reads and tries every file
/// once.
///
/// # Errors
/// Returns what is wrong with the settings.
pub fn check(config: &Config, looks_at_files: bool) -> Result<(), ConfigError> {
    topics::Topics::new(config)?;
    connect_options::check_tls(config)?;
    if looks_at_files {
        connect_options::check(config)?;
    }
    Ok(())
}

/// A running link. Dropping it ends its task and closes its connection without a DISCONNECT: the broker then publishes the will.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    task: AbortHandle,
    interval: PublishInterval,
    gap: Duration,
    has_events: bool,
    is_over: AtomicBool,
}

impl Link {
    /// Checks the settings, reads and tries every file once, and starts to connect. Blocks for the file reads only.
    ///
    /// # Errors
    /// Returns what is wrong with the settings. An unreachable broker is no error: the listener receives it as trouble. Nor is a
    /// wall clock before 2020: the listener receives a notice, and the link connects once the clock is set.
    pub fn start(config: Config, runtime: &Handle, listener: Arc<dyn Listener>) -> Result<Self, ConfigError> {
        let topics = topics::Topics::new(&config)?;
        let mut notices = connect_options::check(&config)?;
        notices.extend(connect_options::open_password(&config));
        let interval = PublishInterval::of(&topics.client_id, &config.address());
        if interval.register_link() > 0 {
            notices.push(format!(
                "another element of this process is connected to {} as the client {} already, and a broker keeps only the newest of \
                 them: each connection will end the other; give each a device-id (or client-id) of its own",
                config.address(),
                topics.client_id
            ));
        }
        let shared = Arc::new(Shared::default());
        let (gap, has_events) = (config.state_gap, topics.has_events());
        let task = runtime.spawn(driver::run(
            Arc::clone(&shared),
            config,
            topics,
            listener,
            notices,
            interval.clone(),
            SystemTime::now,
        ));
        Ok(Self {
            shared,
            task: task.abort_handle(),
            interval,
            gap,
            has_events,
            is_over: AtomicBool::new(false),
        })
    }

    /// Sets what the broker should hold; published as soon as the gap allows. Replaces what was not published yet.
    pub fn want(&self, wanted: Wanted) {
        self.shared.want(wanted);
    }

    /// Replaces the payload of the discovery message, see [`Plain::discovery`], and publishes it again if it has changed. Does
    /// nothing if the link was started without one.
    pub fn set_discovery(&self, payload: Bytes) {
        self.shared.set_discovery(payload);
    }

    /// Publishes an event once: on `P/event/{kind}`, or on `/devices/D/events` if telemetry is enabled; otherwise does nothing.
    pub fn event(&self, kind: &'static str, payload: Bytes) {
        if self.has_events {
            self.shared.event(kind, payload);
        }
    }

    /// Publishes the final state, disconnects and ends the task, at `until` at the latest. Blocks: call it from a thread outside
    /// tokio. Without a connection it tries to connect at once, and again if the broker still holds an older state. Returns
    /// whether the broker acknowledged the final state, or there was none. A second call returns what the first did.
    pub fn close(&self, last: Wanted, until: Instant) -> bool {
        let acknowledged = self.shared.close(last, until);
        self.end(acknowledged);
        acknowledged
    }

    fn end(&self, acknowledged: bool) {
        self.task.abort();
        if !self.is_over.swap(true, Ordering::Relaxed) {
            if !acknowledged {
                // A state may have been in flight when the task was aborted.
                self.interval.not_before(Instant::now() + self.gap);
            }
            self.interval.deregister_link();
        }
    }

    /// Returns whether there is a connection now. A planned renewal of the token counts as connected.
    pub fn is_connected(&self) -> bool {
        self.shared.report().up
    }

    /// Returns whether the broker has acknowledged everything wanted so far: a new value then replaces nothing unpublished.
    pub fn is_settled(&self) -> bool {
        self.shared.is_settled()
    }

    /// Returns the counters since the start.
    pub fn stats(&self) -> LinkStats {
        self.shared.report().stats
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end(false);
    }
}
