//! Publishes the recorder's own availability at the broker of `[mqtt]`: `gcstreamer/recorder/NAME/availability`, retained, with a
//! last will. The state of a camera is up to date only while its recorder is online.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gcstreamer_mqtt::{Link, Listener, Wanted};

use crate::config::{Broker, Config, STATE_GAP};

/// How long publishing the last state may take. It may have to wait for the whole gap after the previous state. If it is cut
/// short, the connection ends without a DISCONNECT and the broker also publishes the will.
const LAST_WORD: Duration = STATE_GAP.saturating_add(Duration::from_secs(2));

/// The link that reports the recorder as online. A thread of its own starts it and returns it, or `None` if it could not be
/// started.
#[derive(Debug)]
pub struct Presence(JoinHandle<Option<Link>>);

/// Logs the outages of the link.
struct Log;

impl Listener for Log {
    fn connected(&self, _: bool) {}

    fn wants_commands(&self) -> bool {
        false
    }

    fn trouble(&self, text: String) {
        tracing::warn!("broker: {text}");
    }

    fn recovered(&self, after: Duration) {
        tracing::info!("broker: connected again after {} s", after.as_secs());
    }

    fn config(&self, _: Bytes) {}

    fn command(&self, _: String, _: Bytes, _: bool) {}

    fn notice(&self, text: String) {
        tracing::warn!("broker: {text}");
    }
}

impl Presence {
    /// Ends `before` and then starts a new link, if `[mqtt]` is configured, in a thread of its own. Must be called inside a tokio
    /// runtime.
    ///
    /// The order matters: a broker keeps only the newest of two clients with the same id, and would publish the will of the older
    /// one.
    ///
    /// # Errors
    /// The settings are wrong, and `before` is unchanged; or no thread can be started.
    pub fn replace(before: &mut Option<Self>, config: &Config, host: &str) -> Result<(), String> {
        let link = match (&config.broker, config.presence_prefix(host)) {
            (Some(Broker::Mqtt(mqtt)), Some(prefix)) => Some(mqtt.link(prefix, None)),
            _ => None,
        };
        // Check before `before` ends, so that wrong settings leave it running.
        if let Some(link) = &link {
            gcstreamer_mqtt::check(link, true).map_err(|error| format!("[mqtt] {error}"))?;
        }
        let runtime = tokio::runtime::Handle::current();
        let old = before.take();
        let is_wanted = link.is_some();
        let change = move || {
            if let Some(old) = old {
                old.end();
            }
            let link = Link::start(link?, &runtime, Arc::new(Log));
            let link = link.inspect_err(|error| tracing::error!("broker: {error}")).ok()?;
            link.want(state("connected"));
            Some(link)
        };
        let thread = std::thread::Builder::new().name("presence".to_owned()).spawn(change);
        let thread = thread.map_err(|error| format!("no thread can be started: {error}"))?;
        *before = is_wanted.then_some(Self(thread));
        Ok(())
    }

    /// Publishes that the recorder goes offline, and closes the link. Blocks for at most three seconds, and longer if the link
    /// before it is still closing. Must not be called inside a tokio runtime.
    pub fn end(self) {
        if let Ok(Some(link)) = self.0.join() {
            link.close(state("disconnected"), Instant::now() + LAST_WORD);
        }
    }
}

fn state(word: &'static str) -> Wanted {
    Wanted {
        state: Some(Bytes::from_static(word.as_bytes())),
        status: None,
    }
}
