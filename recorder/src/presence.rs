//! The recorder's own availability at the broker of `[mqtt]`: `gcstreamer/recorder/NAME/availability`, retained, with a last will. A
//! camera's state is worth something only while its recorder is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gcstreamer_mqtt::{Link, Listener, Wanted};

use crate::config::{Broker, Config};

/// The last word has this long.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A link that says that the recorder is there.
#[derive(Debug)]
pub struct Presence {
    link: Link,
}

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
    /// Begins to be there, if there is a broker of `[mqtt]`. Call it inside a runtime.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn begin(config: &Config, host: &str) -> Result<Option<Self>, String> {
        let (Some(Broker::Mqtt(mqtt)), Some(prefix)) = (&config.broker, config.presence_prefix(host)) else {
            return Ok(None);
        };
        let link = mqtt.link(prefix, None);
        let link =
            Link::start(link, &tokio::runtime::Handle::current(), Arc::new(Log)).map_err(|error| format!("[mqtt] {error}"))?;
        link.want(state("connected"));
        Ok(Some(Self { link }))
    }

    /// Says that it goes. Blocks for a second at most; not inside a runtime.
    pub fn end(self) {
        self.link.close(state("disconnected"), Instant::now() + LAST_WORD);
    }
}

fn state(word: &'static str) -> Wanted {
    Wanted {
        state: Some(Bytes::from_static(word.as_bytes())),
        status: None,
    }
}
