//! The recorder's own availability at the broker of `[mqtt]`: `gcstreamer/recorder/NAME/availability`, retained, with a last will. A
//! camera's state is worth something only while its recorder is there.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gcstreamer_mqtt::{Link, Listener, Wanted};

use crate::config::{Broker, Config, STATE_GAP};

/// The last word has this long. It may have to wait for the whole gap since the state before it: one that is cut short ends the
/// connection without a DISCONNECT, and the broker publishes the will besides.
const LAST_WORD: Duration = STATE_GAP.saturating_add(Duration::from_secs(2));

/// A link that says that the recorder is there, begun in a thread of its own. The thread ends with the link, if it could be begun.
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
    /// Begins to be there, if there is a broker of `[mqtt]`, once the one `before` has gone: a broker keeps only the newest of two
    /// clients of one name, and would publish the will of the other. Nothing happens to `before` if the settings are wrong. Call it inside a runtime.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn replace(before: &mut Option<Self>, config: &Config, host: &str) -> Result<(), String> {
        let link = match (&config.broker, config.presence_prefix(host)) {
            (Some(Broker::Mqtt(mqtt)), Some(prefix)) => Some(mqtt.link(prefix, None)),
            _ => None,
        };
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

    /// Says that it goes. Blocks for three seconds at most, or as long as one before it takes to go; not inside a runtime.
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
