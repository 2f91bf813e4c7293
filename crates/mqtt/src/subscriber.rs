//! A client that only subscribes: it receives what others publish below fixed filters, and reconnects after each failure.
//!
//! Unlike [`crate::Link`] it publishes nothing and has no will. It stores no messages; after a reconnect the broker sends the
//! retained ones again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::connect_options::{check, read};
use super::dial::FailedAddresses;
use super::rumqtt::{Connection, ConnectionParams, Received};
use super::{Config, ConfigError, Protocol, tls};
use gcstreamer_schema::redact;

/// Largest packet accepted, bytes, and so the memory for one. A larger packet ends the connection, and a retained one ends every
/// connection, so the limit is far above what devices publish.
const MAX_INCOMING: usize = 16 << 20;

/// What a subscriber receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The broker accepted the connection; retained messages follow.
    Connected,
    /// A message that was published now, or that the broker had retained.
    Message {
        /// Its topic.
        topic: String,
        /// What was published.
        payload: Bytes,
        /// Whether the broker had it before we subscribed.
        retained: bool,
    },
    /// The connection broke or could not be made. The next call waits and tries again. The text contains no secret.
    Lost(String),
    /// The broker refused the subscription to these filters.
    Refused(Vec<String>),
}

/// An MQTT client that subscribes to fixed filters, reconnects by itself, and publishes nothing.
pub struct Subscriber {
    config: Arc<Config>,
    client_id: String,
    filters: Vec<String>,
    connection: Option<Connection>,
    opened: Instant,
    backoff: Backoff,
    pause: Duration,
    is_outage: bool,
    failed: FailedAddresses,
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber")
            .field("filters", &self.filters)
            .finish_non_exhaustive()
    }
}

impl Subscriber {
    /// Creates a subscriber of these filters. Reads the files of the settings once to check them; only [`Subscriber::next`]
    /// connects.
    ///
    /// # Errors
    /// Returns what is wrong with the settings, also if the protocol is not plain MQTT.
    pub fn new(config: Config, filters: Vec<String>) -> Result<Self, ConfigError> {
        check(&config)?;
        let Protocol::Mqtt(plain) = &config.protocol else {
            return Err(ConfigError::setting(
                "protocol",
                "a bridge of IoT Core shows a device its own topics alone",
            ));
        };
        Ok(Self {
            client_id: plain.client_id.clone(),
            config: Arc::new(config),
            filters,
            connection: None,
            opened: Instant::now(),
            backoff: Backoff::default(),
            pause: Duration::ZERO,
            is_outage: false,
            failed: FailedAddresses::default(),
        })
    }

    /// Waits for the next event. After [`Incoming::Lost`] it first pauses: 1 s, doubling up to a minute. Must be called inside
    /// tokio. Cancel safe: nothing is lost, but a cancelled pause starts again.
    pub async fn next(&mut self) -> Incoming {
        loop {
            if self.connection.is_none() {
                tokio::time::sleep(self.pause).await;
                if let Err(text) = self.open().await {
                    return self.lost(text);
                }
            }
            let Some(connection) = &mut self.connection else { continue };
            match connection.received().await {
                Received::Connected => {
                    // The session is clean: the broker has forgotten the filters.
                    connection.subscribe(self.filters.clone());
                    self.is_outage = false;
                    return Incoming::Connected;
                }
                Received::Message {
                    topic,
                    payload,
                    retained,
                    ..
                } => {
                    return Incoming::Message {
                        topic,
                        payload,
                        retained,
                    };
                }
                Received::Subscribed(refused) if !refused.is_empty() => return Incoming::Refused(refused),
                Received::Acknowledged | Received::Subscribed(_) => {}
                Received::Lost(text) => return self.lost(text),
                Received::Disconnected => return self.lost("the connection was closed".into()),
                Received::TooLarge(size) => {
                    let limit = MAX_INCOMING >> 20;
                    return self.lost(format!(
                        "a message of {size} bytes below {} exceeds the limit of {limit} MiB; clear it at the broker, where it was retained by an \
                         empty one",
                        self.filters.join(", ")
                    ));
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(), String> {
        let config = Arc::clone(&self.config);
        let options = tokio::task::spawn_blocking(move || read(&config, SystemTime::now()));
        let options = match options.await {
            Ok(options) => options.map_err(|error| redact(&error.to_string()))?,
            Err(error) => return Err(format!("the files of the connection could not be read: {error}")),
        };
        self.opened = Instant::now();
        self.connection = Some(Connection::open(ConnectionParams {
            host: tls::bare_host(&self.config.host).to_owned(),
            port: self.config.port(),
            client_id: self.client_id.clone(),
            login: options.login,
            has_token: false,
            tls: options.tls,
            will: None,
            keep_alive: self.config.keep_alive(),
            has_certificate: self.config.client_certificate.is_some(),
            is_first_failure: !self.is_outage,
            max_incoming: MAX_INCOMING,
            failed: self.failed.clone(),
        }));
        Ok(())
    }

    fn lost(&mut self, text: String) -> Incoming {
        let lived = if self.connection.take().is_some() {
            self.opened.elapsed()
        } else {
            // Not even opened: the pause goes on growing.
            Duration::ZERO
        };
        let jitter = Duration::from_millis(RandomState::new().build_hasher().finish() % 1000);
        self.pause = self.backoff.failed(lived, jitter);
        self.is_outage = true;
        Incoming::Lost(text)
    }
}
