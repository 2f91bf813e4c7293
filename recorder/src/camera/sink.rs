//! Creates our own elements of a recording, `gcssink` and `iotcorestatus`, from the configuration.

use std::path::PathBuf;
use std::time::Duration;

use gcstreamer_schema::topics::Topic;
use gst::glib;
use gst::prelude::*;

use super::recording::Setup;
use crate::config::{Broker, Camera, Config};

/// The one flow group of all cameras.
const FLOW_GROUP: &str = "recorder";
/// The drain timeout of sinks, in ns: `ending` decides how long an ended attempt keeps its chunks, not the sink.
const FOR_EVER: u64 = 365 * 86_400 * 1_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// Limits that sinks apply while they run. The default of `max-requests-per-second` depends on all cameras of the process, so it
/// changes whenever a camera is added or removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    max_spool_bytes: u64,
    max_bytes_per_second: u64,
    max_requests_per_second: f64,
}

impl Limits {
    /// Sets the limits on a sink, running or not. `max-spool-bytes` has no effect without `spool-dir`.
    pub fn set_on(&self, sink: &gst::Element) {
        sink.set_property("max-spool-bytes", self.max_spool_bytes);
        sink.set_property("max-bytes-per-second", self.max_bytes_per_second);
        sink.set_property("max-requests-per-second", self.max_requests_per_second);
    }
}

/// Where recordings are stored and reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    bucket: String,
    endpoint_uri: Option<String>,
    credentials_file: Option<PathBuf>,
    /// Property `spool-dir`.
    pub spool_dir: Option<PathBuf>,
    /// The settings that may change while cameras record.
    pub limits: Limits,
    /// Whether other processes record cameras of the same file.
    pub is_shared: bool,
    broker: Option<Broker>,
    /// Topic of the recorder's own availability.
    pub availability: Option<String>,
}

impl Storage {
    /// Collects the settings that all cameras share. `host`: the name of this machine.
    pub fn of(config: &Config, host: &str) -> Self {
        Self {
            bucket: config.bucket.clone(),
            endpoint_uri: config.endpoint_uri.clone(),
            credentials_file: config.credentials_file.clone(),
            spool_dir: config.spool_dir.clone(),
            limits: Limits {
                max_spool_bytes: config.max_spool_bytes,
                max_bytes_per_second: config.max_bytes_per_second,
                max_requests_per_second: config.requests_per_second(host),
            },
            is_shared: config.shard.is_some(),
            broker: config.broker.clone(),
            availability: config.presence_prefix(host).map(|prefix| Topic::Availability.below(&prefix)),
        }
    }

    /// Whether recordings for one can continue for the other. Ignores the limits, which running sinks apply, and `[shard]`, which
    /// affects only later recordings.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let (limits, is_shared) = (self.limits, self.is_shared);
        *self
            == Self {
                limits,
                is_shared,
                ..other.clone()
            }
    }

    /// Makes a sink for a device.
    ///
    /// # Errors
    /// The plugin is not registered.
    pub fn sink(&self, device: &str) -> Result<gst::Element, glib::BoolError> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let sink = gst::ElementFactory::make("gcssink")
            .property("bucket", &self.bucket)
            .property("device-id", device)
            .property("endpoint-uri", &self.endpoint_uri)
            .property("credentials-file", path(&self.credentials_file))
            .property("flow-group", FLOW_GROUP)
            .property("drain-timeout", FOR_EVER)
            // A recording adds its sink to a playing pipeline, which `async` would take back to PAUSED until the sink has its
            // first buffer.
            .property("async", false)
            // Not `auto`, which blocks if the source does not report itself as live: a camera goes on sending either way.
            .property_from_str("overflow-policy", "drop-oldest")
            .build()?;
        if let Some(folder) = path(&self.spool_dir) {
            sink.set_property("spool-dir", folder);
        }
        self.limits.set_on(&sink);
        Ok(sink)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes the sink of a recording.
pub(super) fn make(setup: &Setup) -> Result<gst::Element, glib::BoolError> {
    let camera = &setup.camera;
    let sink = setup.storage.sink(&camera.id)?;
    sink.set_property("max-size-time", nanoseconds(camera.max_size_time));
    sink.set_property("max-memory-bytes", setup.memory);
    sink.set_property("start-reason", setup.reason.name());
    sink.set_property("previous-session", &setup.previous_session);
    if let Some(location) = &camera.location {
        sink.set_property("location", location);
    }
    if !camera.metadata.is_empty() {
        let mut metadata = gst::Structure::builder("metadata");
        for (key, value) in &camera.metadata {
            metadata = metadata.field(key.as_str(), value);
        }
        sink.set_property("metadata", metadata.build());
    }
    Ok(sink)
}

impl Storage {
    /// Whether there is a broker to report to.
    pub(super) fn has_broker(&self) -> bool {
        self.broker.is_some()
    }

    /// Makes the element that reports a camera's state to the broker, if there is one.
    ///
    /// # Errors
    /// The plugin is not registered.
    pub(super) fn status(&self, camera: &Camera) -> Result<Option<gst::Element>, glib::BoolError> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let path = |path: &PathBuf| path.display().to_string();
        let status = gst::ElementFactory::make("iotcorestatus")
            .property("device-id", &camera.id)
            .property("stall-timeout", nanoseconds(camera.patience()))
            // The next attempt waits until this element has stopped.
            .property("shutdown-timeout", SECOND)
            .build()?;
        match broker {
            Broker::Mqtt(mqtt) => {
                status.set_property_from_str("protocol", "mqtt");
                status.set_property("host", &mqtt.host);
                status.set_property("port", u32::from(mqtt.port));
                status.set_property("tls", mqtt.tls);
                status.set_property("root-certificates", mqtt.root_certificates.as_ref().map(path));
                status.set_property("username", &mqtt.username);
                status.set_property("password-file", mqtt.password_file.as_ref().map(path));
                status.set_property("home-assistant-prefix", &mqtt.home_assistant_prefix);
                status.set_property("home-assistant-availability", &self.availability);
                if let Some(prefix) = &mqtt.topic_prefix {
                    status.set_property("topic-prefix", prefix);
                }
            }
            Broker::IotCore(bridge) => {
                status.set_property_from_str("protocol", "iotcore");
                status.set_property("host", &bridge.host);
                status.set_property("port", u32::from(bridge.port));
                status.set_property("project-id", &bridge.project_id);
                status.set_property("region", &bridge.region);
                status.set_property("registry-id", &bridge.registry_id);
                status.set_property("private-key-file", camera.private_key_file.as_ref().map(path));
            }
        }
        Ok(Some(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};

    fn storage(head: &str, cameras: usize) -> Storage {
        let cameras = (0..cameras).map(|n| format!("[[camera]]\nid = \"cam{n}\"\nurl = \"rtsp://10.0.3.{n}/stream\"\n"));
        let text = format!("{head}\n{}", cameras.collect::<String>());
        Storage::of(&parse(&text, &Surroundings::default()).unwrap(), "recorder-0")
    }

    #[test]
    fn what_a_sink_takes_over_while_it_records_moves_no_recording_and_another_place_does() {
        let before = storage("bucket = \"bucket\"", 50);
        for (what, head, cameras) in [
            ("the 51st camera needs more requests", "bucket = \"bucket\"", 51),
            (
                "limits",
                "bucket = \"bucket\"\nmax-bytes-per-second = 1000000\nmax-requests-per-second = 3.0",
                50,
            ),
            ("pods", "bucket = \"bucket\"\n[shard]\npods = 1", 50),
        ] {
            let after = storage(head, cameras);
            assert!(after != before && after.is_same_place(&before), "{what}");
        }
        for head in [
            "bucket = \"other\"",
            "bucket = \"bucket\"\nendpoint-uri = \"http://127.0.0.1:1\"",
            "bucket = \"bucket\"\nspool-dir = \"/var\"",
        ] {
            assert!(!storage(head, 50).is_same_place(&before), "{head}");
        }
    }
}
