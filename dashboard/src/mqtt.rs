//! Listens to what the cameras report over MQTT, and keeps it for the board.
//!
//! May reach the broker. A broker that does not answer costs the badges that need it, never the page.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gcstreamer_mqtt::{Config, ConfigError, Heard, Plain, Protocol, Subscriber};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::index::report::Reports;
use crate::lock::lock;

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// 0: 8883 with TLS, 1883 without.
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
        // Two dashboards with one client id would throw each other out.
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
    /// What is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.subscriber().map(drop)
    }

    fn subscriber(&self) -> Result<Subscriber, ConfigError> {
        Subscriber::new(self.config(), Reports::filters())
    }
}

/// A connection that lasts this long is one: with a shorter one nothing is reported again, neither that it is there nor that it is lost.
const STEADY: Duration = Duration::from_secs(10);

/// What was heard, shared by the task that listens and the board.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<Reports>>);

impl Known {
    /// What was heard so far.
    pub fn reports(&self) -> MutexGuard<'_, Reports> {
        lock(&self.0)
    }
}

/// Listens until `ends` is true.
///
/// # Errors
/// [`ConfigError`]: the settings cannot be used; nothing was started.
pub fn listen(broker: &Broker, known: Known, clock: Arc<dyn Clock>, mut ends: watch::Receiver<bool>) -> Result<(), ConfigError> {
    let mut subscriber = broker.subscriber()?;
    tokio::spawn(async move {
        let mut is_told = false;
        // When the connection has lasted, while a loss of it is reported.
        let mut steady_at: Option<Instant> = None;
        let listening = async {
            loop {
                let heard = match steady_at {
                    Some(at) => tokio::time::timeout_at(at, subscriber.next()).await,
                    None => Ok(subscriber.next().await),
                };
                let Ok(heard) = heard else {
                    (steady_at, is_told) = (None, false);
                    tracing::info!("the MQTT broker answers again");
                    continue;
                };
                match heard {
                    Heard::Connected => {
                        steady_at = is_told.then(|| Instant::now() + STEADY);
                        // What is retained comes again; what was cleared meanwhile does not.
                        let mut reports = Reports::default();
                        reports.is_connected = true;
                        *known.reports() = reports;
                    }
                    Heard::Message {
                        topic,
                        payload,
                        retained,
                    } => known.reports().hear(&topic, &payload, retained, clock.now()),
                    Heard::Lost(text) => {
                        steady_at = None;
                        known.reports().is_connected = false;
                        if !std::mem::replace(&mut is_told, true) {
                            tracing::warn!("badges are from the bucket alone until the broker answers: {text}");
                        }
                    }
                    Heard::Refused(filters) => {
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
