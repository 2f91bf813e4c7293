//! The topics that the two protocols publish and subscribe to, and their limits. PURE.

use bytes::Bytes;
use gcstreamer_schema::topics::{self, DeviceTopic, Topic};

use super::{Config, ConfigError, IotCore, Plain, Protocol};

/// Largest packet in either direction, bytes. A config of IoT Core may have 64 KiB; with the 10 KiB that `rumqttc` accepts by
/// default, a larger retained packet would end every connection.
pub(super) const MAX_PACKET: usize = 80 << 10;
/// Largest state of a device that IoT Core accepts, bytes.
const MAX_DEVICE_STATE: usize = 64 << 10;
// 1 byte and at most 4 of remaining length, 2 of topic length, 2 of packet id (MQTT 3.1.1, 2.2.3 and 3.3.2).
/// Upper bound for fixed header, length of the topic and packet id, bytes.
const PACKET_OVERHEAD: usize = 16;
/// Longest string in MQTT, bytes.
const MAX_STRING: usize = 65_535;
const DAY: u64 = 24 * 60 * 60;

pub(super) const ONLINE: Bytes = Bytes::from_static(topics::ONLINE.as_bytes());
pub(super) const OFFLINE: Bytes = Bytes::from_static(topics::OFFLINE.as_bytes());

/// The meaning of a message from the broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Config,
    Command(String),
    /// A message on our own topic of this kind.
    Availability,
    State,
    Status,
    Unknown,
}

/// The topics of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topics {
    pub(super) client_id: String,
    /// Also the topic of the will.
    pub(super) availability: Option<String>,
    pub(super) state: String,
    pub(super) status: Option<String>,
    pub(super) discovery: Option<(String, Bytes)>,
    /// Filters that every connection subscribes to.
    pub(super) subscriptions: Vec<String>,
    /// Subscribed to only if the owner acts on commands.
    pub(super) command_filter: String,
    /// Whether the broker retains states.
    pub(super) retain: bool,
    event: EventTopic,
    config: Option<String>,
    /// Without a slash at the end.
    commands: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EventTopic {
    Off,
    One(String),
    Below(String),
}

impl Topics {
    /// Checks the host, ids and prefixes, and builds the topics.
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        check_host(&config.host)?;
        match &config.protocol {
            Protocol::IotCore(device) => Self::device(device),
            Protocol::Mqtt(plain) => Self::plain(plain),
        }
    }

    fn device(device: &IotCore) -> Result<Self, ConfigError> {
        for (setting, value) in [
            ("project-id", &device.project),
            ("region", &device.region),
            ("registry-id", &device.registry),
            ("device-id", &device.device),
        ] {
            check_id(setting, value)?;
        }
        if device.device.contains('+') {
            return Err(ConfigError::setting(
                "device-id",
                format!(
                    "\"{}\" is invalid: a + is a wildcard in MQTT's topics; the registry's numeric id of the device does as well",
                    shown(&device.device)
                ),
            ));
        }
        let lifetime = device.jwt_lifetime.as_secs();
        if !(2..=DAY).contains(&lifetime) || device.jwt_lifetime.as_secs() == DAY && device.jwt_lifetime.subsec_nanos() > 0 {
            return Err(ConfigError::setting(
                "jwt-lifetime",
                format!("{lifetime} s: a token lives at least 2 s and at most 24 h ({DAY} s); 3600 s is usual"),
            ));
        }
        let topic = |topic: DeviceTopic| topic.of(&device.device);
        Ok(Self {
            client_id: format!(
                "projects/{}/locations/{}/registries/{}/devices/{}",
                device.project, device.region, device.registry, device.device
            ),
            availability: None,
            state: topic(DeviceTopic::State),
            status: None,
            discovery: None,
            subscriptions: vec![DeviceTopic::Config.filter(&device.device)],
            command_filter: DeviceTopic::Commands.filter(&device.device),
            retain: false,
            event: if device.events {
                EventTopic::One(topic(DeviceTopic::Events))
            } else {
                EventTopic::Off
            },
            config: Some(topic(DeviceTopic::Config)),
            commands: Some(topic(DeviceTopic::Commands)),
        })
    }

    fn plain(plain: &Plain) -> Result<Self, ConfigError> {
        if plain.client_id.is_empty() || plain.client_id.len() > MAX_STRING || plain.client_id.contains(char::is_control) {
            return Err(ConfigError::setting(
                "client-id",
                "it is empty, too long or holds control characters; set it to a name that no other client of the broker has",
            ));
        }
        check_topic("topic-prefix", &plain.prefix)?;
        if let Some((topic, payload)) = &plain.discovery {
            check_topic("home-assistant-prefix", topic)?;
            let limit = MAX_PACKET.saturating_sub(topic.len()).saturating_sub(PACKET_OVERHEAD);
            if payload.len() > limit {
                return Err(ConfigError::setting(
                    "home-assistant-prefix",
                    format!(
                        "the discovery message has {} bytes; at most {limit} can be published",
                        payload.len()
                    ),
                ));
            }
        }
        let prefix = &plain.prefix;
        let availability = Topic::Availability.below(prefix);
        let (state, status) = (Topic::State.below(prefix), Topic::Status.below(prefix));
        Ok(Self {
            client_id: plain.client_id.clone(),
            // Availability first: `likely` of the subscriptions gives it up last.
            subscriptions: vec![availability.clone(), state.clone(), status.clone()],
            command_filter: Topic::Set("#".to_owned()).below(prefix),
            availability: Some(availability),
            state,
            status: Some(status),
            discovery: plain.discovery.clone(),
            retain: true,
            event: EventTopic::Below(format!("{prefix}/event")),
            config: None,
            commands: Some(format!("{prefix}/set")),
        })
    }

    /// Returns whether these are the topics of the strict device contract.
    pub(super) fn is_device(&self) -> bool {
        self.config.is_some()
    }

    /// Returns whether telemetry is enabled.
    pub(super) fn has_events(&self) -> bool {
        self.event != EventTopic::Off
    }

    /// Returns the topic for telemetry of this kind; `None` if telemetry is disabled.
    pub(super) fn event(&self, kind: &str) -> Option<String> {
        match &self.event {
            EventTopic::Off => None,
            EventTopic::One(topic) => Some(topic.clone()),
            EventTopic::Below(topic) => Some(format!("{topic}/{kind}")),
        }
    }

    /// Returns the largest payload on a topic, bytes.
    pub(super) fn limit(&self, topic: &str) -> usize {
        let packet = MAX_PACKET.saturating_sub(topic.len()).saturating_sub(PACKET_OVERHEAD);
        if self.retain { packet } else { packet.min(MAX_DEVICE_STATE) }
    }

    /// Returns the meaning of a message on this topic.
    pub(super) fn route(&self, topic: &str) -> Route {
        if self.availability.as_deref() == Some(topic) {
            return Route::Availability;
        }
        if self.config.as_deref() == Some(topic) {
            return Route::Config;
        }
        if self.retain && self.state == topic {
            return Route::State;
        }
        if self.status.as_deref() == Some(topic) {
            return Route::Status;
        }
        let below = self.commands.as_deref().and_then(|root| topic.strip_prefix(root));
        match below {
            Some("") => Route::Command(String::new()),
            Some(tail) => tail
                .strip_prefix('/')
                .map_or(Route::Unknown, |tail| Route::Command(tail.to_owned())),
            None => Route::Unknown,
        }
    }
}

fn check_host(host: &str) -> Result<(), ConfigError> {
    let wrong = if host.is_empty() {
        Some("no broker is named")
    } else if host.contains("://") {
        Some("it holds a scheme")
    } else if host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#')) {
        Some("it holds characters that no host name has")
    } else if host.matches(':').count() == 1 {
        // An IPv6 address has more than one colon.
        Some("it holds a port")
    } else {
        None
    };
    wrong.map_or(Ok(()), |what| {
        Err(ConfigError::setting(
            "host",
            format!("{what}; set only the broker's name or address, the port with `port`, TLS with `tls`"),
        ))
    })
}

fn check_id(setting: &'static str, id: &str) -> Result<(), ConfigError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '%' | '+' | ':');
    // Ids may contain `+`, but alone between slashes it is a wildcard.
    if id.is_empty() || id.len() > 255 || id == "+" || !id.chars().all(fine) {
        return Err(ConfigError::setting(
            setting,
            format!(
                "\"{}\" is invalid: 1 to 255 letters, digits and -._~%+: are allowed",
                shown(id)
            ),
        ));
    }
    Ok(())
}

fn check_topic(setting: &'static str, topic: &str) -> Result<(), ConfigError> {
    let wrong = topic.is_empty()
        || topic.len() > 1024
        // Topics with a leading `$` belong to the broker (MQTT 3.1.1, 4.7.2).
        || topic.starts_with(['/', '$'])
        || topic.ends_with('/')
        || topic.contains(|c: char| c.is_control() || matches!(c, '+' | '#'));
    if wrong {
        return Err(ConfigError::setting(
            setting,
            format!(
                "\"{}\" is invalid: 1 to 1024 bytes without + # and control characters, no slash at either end, no $ in front",
                shown(topic)
            ),
        ));
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn device() -> IotCore {
        IotCore {
            project: "p".into(),
            region: "us-central1".into(),
            registry: "r".into(),
            device: "cam1".into(),
            private_key_file: "key.pem".into(),
            jwt_lifetime: Duration::from_secs(3600),
            audience: None,
            events: false,
        }
    }

    #[test]
    fn a_device_uses_its_own_topics_and_no_other() {
        let topics = Topics::device(&device()).unwrap();
        assert_eq!(topics.client_id, "projects/p/locations/us-central1/registries/r/devices/cam1");
        assert_eq!(topics.state, "/devices/cam1/state");
        assert_eq!(topics.subscriptions, ["/devices/cam1/config"]);
        assert_eq!(topics.command_filter, "/devices/cam1/commands/#");
        assert!(topics.availability.is_none() && topics.status.is_none() && topics.discovery.is_none() && !topics.retain);
        assert_eq!(
            topics.event("chunk"),
            None,
            "telemetry without a topic closes the connection: opt-in only"
        );
        assert!(!topics.has_events());
        assert_eq!(topics.limit(&topics.state), 64 << 10);
        let topics = Topics::device(&IotCore {
            events: true,
            ..device()
        })
        .unwrap();
        assert_eq!(topics.event("chunk").as_deref(), Some("/devices/cam1/events"));
        assert_eq!(topics.route("/devices/cam1/commands/split"), Route::Command("split".into()));
        assert_eq!(topics.route("/devices/cam1/commands"), Route::Command(String::new()));
        assert_eq!(topics.route("/devices/cam1/commandsplit"), Route::Unknown);
        assert_eq!(topics.route("/devices/cam1/config"), Route::Config);
        assert_eq!(topics.route("/devices/cam2/config"), Route::Unknown);
    }

    #[test]
    fn ids_and_lifetimes_that_the_registry_would_refuse_are_named() {
        for (device, setting) in [
            (
                IotCore {
                    project: String::new(),
                    ..device()
                },
                "project-id",
            ),
            (
                IotCore {
                    device: "a/b".into(),
                    ..device()
                },
                "device-id",
            ),
            (
                IotCore {
                    device: "cam+1".into(),
                    ..device()
                },
                "device-id",
            ),
            (
                IotCore {
                    device: "cam#1".into(),
                    ..device()
                },
                "device-id",
            ),
            (
                IotCore {
                    registry: "#".into(),
                    ..device()
                },
                "registry-id",
            ),
            (
                IotCore {
                    jwt_lifetime: Duration::from_secs(86_401),
                    ..device()
                },
                "jwt-lifetime",
            ),
            (
                IotCore {
                    jwt_lifetime: Duration::from_secs(1),
                    ..device()
                },
                "jwt-lifetime",
            ),
        ] {
            let error = Topics::device(&device).unwrap_err().to_string();
            assert!(error.starts_with(setting), "{error}");
        }
    }

    #[test]
    fn a_host_is_a_name_and_nothing_else() {
        for host in ["", "mqtt://broker", "broker:1883", "user:pw@broker", "a b", "broker/"] {
            let error = check_host(host).unwrap_err().to_string();
            assert!(error.starts_with("host") && !error.contains("pw"), "{error}");
        }
        for host in ["broker", "10.0.0.1", "::1", "us-central1-mqtt.clearblade.com"] {
            check_host(host).unwrap();
        }
    }

    #[test]
    fn a_plain_client_hears_its_own_commands_and_no_prefix_holds_a_wildcard() {
        let plain = Plain {
            client_id: "c".into(),
            username: None,
            password_file: None,
            prefix: "gcstreamer/cam1".into(),
            discovery: None,
        };
        let topics = Topics::plain(&plain).unwrap();
        assert_eq!(
            topics.subscriptions,
            [
                "gcstreamer/cam1/availability",
                "gcstreamer/cam1/state",
                "gcstreamer/cam1/status"
            ]
        );
        assert_eq!(topics.command_filter, "gcstreamer/cam1/set/#");
        assert_eq!(topics.route("gcstreamer/cam1/set/split"), Route::Command("split".into()));
        assert_eq!(topics.event("gap").as_deref(), Some("gcstreamer/cam1/event/gap"));
        for prefix in ["", "a/#", "+/a", "/a", "a/", "$SYS/a", "a\nb"] {
            assert!(
                Topics::plain(&Plain {
                    prefix: prefix.into(),
                    ..plain.clone()
                })
                .is_err(),
                "{prefix:?}"
            );
        }
    }
}
