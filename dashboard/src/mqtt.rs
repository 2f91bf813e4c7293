//! Receives what the cameras report over MQTT, and stores it for the board.
//!
//! Connects to the broker. While the broker does not answer, badges come from the bucket alone; the page works on.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gcstreamer_mqtt::{Config, ConfigError, Incoming, Plain, Protocol, Subscriber};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::index::report::Reports;
use crate::lock::lock;

/// Settings of the connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port; 0 means 8883 with TLS and 1883 without.
    pub port: u16,
    /// User name.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<std::path::PathBuf>,
    /// Whether to speak TLS.
    pub tls: bool,
}

impl Broker {
    fn config(&self) -> Config {
        // Random, since a broker disconnects the first of two clients with one id: two dashboards would do so in turns.
        let own = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Config {
            host: self.host.clone(),
            port: self.port,
            tls: self.tls,
            root_certificates: None,
            client_certificate: None,
            client_key: None,
            protocol: Protocol::Mqtt(Plain {
                client_id: format!("gcstreamer-dashboard-{own:016x}"),
                username: self.username.clone(),
                password_file: self.password_file.clone(),
                prefix: String::new(),
                discovery: None,
            }),
            state_gap: Duration::from_secs(1),
            keep_alive: Duration::from_secs(30),
        }
    }

    /// Checks the settings and reads their files.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.subscriber().map(drop)
    }

    fn subscriber(&self) -> Result<Subscriber, ConfigError> {
        Subscriber::new(self.config(), Reports::filters())
    }
}

/// How long a new connection must last before its return is logged. If it is lost sooner, neither its return nor its loss is
/// logged, so that a broker that drops every connection does not fill the log.
const STEADY: Duration = Duration::from_secs(10);

/// What the cameras reported, shared by the receiving task and the board.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<Reports>>);

impl Known {
    /// Locks and returns the reports received so far.
    pub fn reports(&self) -> MutexGuard<'_, Reports> {
        lock(&self.0)
    }
}

/// Starts a task that receives reports until `ends` is true.
///
/// # Errors
/// [`ConfigError`]: the settings are unusable; no task was started.
pub fn listen(broker: &Broker, known: Known, clock: Arc<dyn Clock>, mut ends: watch::Receiver<bool>) -> Result<(), ConfigError> {
    let mut subscriber = broker.subscriber()?;
    tokio::spawn(async move {
        let mut is_reported = false;
        // When the new connection will have lasted `STEADY`; `None` unless a loss was logged before it.
        let mut steady_at: Option<Instant> = None;
        let listening = async {
            loop {
                let heard = match steady_at {
                    Some(at) => tokio::time::timeout_at(at, subscriber.next()).await,
                    None => Ok(subscriber.next().await),
                };
                let Ok(heard) = heard else {
                    (steady_at, is_reported) = (None, false);
                    tracing::info!("the MQTT broker answers again");
                    continue;
                };
                match heard {
                    Incoming::Connected => {
                        steady_at = is_reported.then(|| Instant::now() + STEADY);
                        // Start empty: the broker sends all retained messages again, but does not report those that were cleared
                        // meanwhile.
                        let mut reports = Reports::default();
                        reports.is_connected = true;
                        *known.reports() = reports;
                    }
                    Incoming::Message {
                        topic,
                        payload,
                        retained,
                    } => known.reports().on_message(&topic, &payload, retained, clock.now()),
                    Incoming::Lost(text) => {
                        steady_at = None;
                        known.reports().is_connected = false;
                        if !std::mem::replace(&mut is_reported, true) {
                            tracing::warn!("badges are from the bucket alone until the broker answers: {text}");
                        }
                    }
                    Incoming::Refused(filters) => {
                        tracing::warn!(
                            "the MQTT broker does not let the dashboard listen to {}; give its user the right to",
                            filters.join(", ")
                        );
                    }
                }
            }
        };
        tokio::select! {
            () = listening => {}
            _ = ends.wait_for(|ends| *ends) => {}
        }
    });
    Ok(())
}
