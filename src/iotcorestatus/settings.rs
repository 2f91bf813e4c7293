//! The properties of `iotcorestatus`: one table of names, defaults and meanings.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::report::Limits;
use crate::properties::{string, time};

const SECOND: u64 = 1_000_000_000;
/// Default of `topic-prefix`.
const DEFAULT_PREFIX: &str = "gcstreamer/{device}";

/// Property `protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstIotCoreStatusProtocol")]
pub(super) enum Protocol {
    #[default]
    #[enum_value(name = "The strict device contract of IoT Core and ClearBlade", nick = "iotcore")]
    IotCore,
    #[enum_value(name = "Plain MQTT with last will and retained state", nick = "mqtt")]
    Mqtt,
}

/// Property `payload-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstIotCoreStatusPayloadFormat")]
pub(super) enum PayloadFormat {
    #[default]
    #[enum_value(name = "connected or disconnected", nick = "text")]
    Text,
    #[enum_value(name = "The JSON status", nick = "json")]
    Json,
}

/// A copy of all settings. Times in ns.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub protocol: Protocol,
    pub host: Option<String>,
    pub port: u32,
    /// As the user set it; `None`: by the protocol.
    pub tls: Option<bool>,
    pub root_certificates: Option<String>,
    pub client_certificate: Option<String>,
    pub client_key: Option<String>,
    pub project_id: Option<String>,
    pub region: Option<String>,
    pub registry_id: Option<String>,
    pub device_id: Option<String>,
    pub private_key_file: Option<String>,
    pub jwt_lifetime: u64,
    pub audience: Option<String>,
    pub telemetry: bool,
    pub client_id: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<String>,
    pub topic_prefix: String,
    pub home_assistant_prefix: Option<String>,
    pub payload_format: PayloadFormat,
    pub state_interval: u64,
    pub stall_timeout: u64,
    pub startup_timeout: u64,
    pub shutdown_timeout: u64,
    pub accept_commands: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            protocol: Protocol::IotCore,
            host: None,
            port: 0,
            tls: None,
            root_certificates: None,
            client_certificate: None,
            client_key: None,
            project_id: None,
            region: None,
            registry_id: None,
            device_id: None,
            private_key_file: None,
            jwt_lifetime: 3600 * SECOND,
            audience: None,
            telemetry: false,
            client_id: None,
            username: None,
            password_file: None,
            topic_prefix: DEFAULT_PREFIX.to_owned(),
            home_assistant_prefix: None,
            payload_format: PayloadFormat::Text,
            state_interval: 60 * SECOND,
            stall_timeout: 10 * SECOND,
            startup_timeout: 30 * SECOND,
            shutdown_timeout: 5 * SECOND,
            accept_commands: false,
        }
    }
}

impl Settings {
    /// Whether to speak TLS: iotcore does, unless it was told not to.
    pub(super) fn tls(&self) -> bool {
        self.tls.unwrap_or(self.protocol == Protocol::IotCore)
    }

    /// What the reporter needs of them.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            stall: self.stall_timeout,
            startup: self.startup_timeout,
            interval: self.state_interval,
        }
    }

    /// The string setting of that name.
    fn text(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "host" => &mut self.host,
            "root-certificates" => &mut self.root_certificates,
            "client-certificate" => &mut self.client_certificate,
            "client-key" => &mut self.client_key,
            "project-id" => &mut self.project_id,
            "region" => &mut self.region,
            "registry-id" => &mut self.registry_id,
            "device-id" => &mut self.device_id,
            "private-key-file" => &mut self.private_key_file,
            "audience" => &mut self.audience,
            "client-id" => &mut self.client_id,
            "username" => &mut self.username,
            "password-file" => &mut self.password_file,
            "home-assistant-prefix" => &mut self.home_assistant_prefix,
            _ => return None,
        })
    }

    /// The time of that name.
    fn time(&mut self, name: &str) -> Option<&mut u64> {
        Some(match name {
            "jwt-lifetime" => &mut self.jwt_lifetime,
            "state-interval" => &mut self.state_interval,
            "stall-timeout" => &mut self.stall_timeout,
            "startup-timeout" => &mut self.startup_timeout,
            "shutdown-timeout" => &mut self.shutdown_timeout,
            _ => return None,
        })
    }

    /// Sets a property; names that are not there change nothing.
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value, into: &mut T)
        where
            T::Checker: glib::value::ValueTypeChecker<Error = glib::value::ValueTypeMismatchError>,
        {
            if let Ok(v) = value.get::<T>() {
                *into = v;
            }
        }
        if let Some(text) = self.text(name) {
            // An empty string is what a launch line can say for none.
            *text = value.get::<Option<String>>().ok().flatten().filter(|s| !s.is_empty());
            return;
        }
        if let Some(time) = self.time(name) {
            get(value, time);
            return;
        }
        match name {
            "protocol" => get(value, &mut self.protocol),
            "port" => get(value, &mut self.port),
            "tls" => self.tls = value.get().ok(),
            "telemetry" => get(value, &mut self.telemetry),
            "topic-prefix" => {
                let text = value.get::<Option<String>>().ok().flatten();
                self.topic_prefix = text.filter(|s| !s.is_empty()).unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
            }
            "payload-format" => get(value, &mut self.payload_format),
            "accept-commands" => get(value, &mut self.accept_commands),
            _ => {}
        }
    }

    /// Reads a property that is a setting.
    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        // One list of names serves both ways.
        let mut copy = self.clone();
        if let Some(text) = copy.text(name) {
            return Some(text.to_value());
        }
        if let Some(time) = copy.time(name) {
            return Some(time.to_value());
        }
        Some(match name {
            "protocol" => self.protocol.to_value(),
            "port" => self.port.to_value(),
            "tls" => self.tls().to_value(),
            "telemetry" => self.telemetry.to_value(),
            "topic-prefix" => self.topic_prefix.to_value(),
            "payload-format" => self.payload_format.to_value(),
            "accept-commands" => self.accept_commands.to_value(),
            _ => return None,
        })
    }
}

/// The properties' specifications.
pub(super) fn specs() -> &'static [glib::ParamSpec] {
    static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let mut specs = broker_specs();
        specs.extend(iotcore_specs());
        specs.extend(mqtt_specs());
        specs.extend(state_specs());
        specs.extend(read_only_specs());
        specs
    });
    &SPECS
}

fn flag(name: &str, nick: &str, blurb: &str, default: bool) -> glib::ParamSpec {
    glib::ParamSpecBoolean::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(default)
        .mutable_ready()
        .build()
}

fn broker_specs() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecEnum::builder::<Protocol>("protocol")
            .nick("Protocol")
            .blurb("The strict IoT Core device contract, or plain MQTT with last will and retained state")
            .mutable_ready()
            .build(),
        string(
            "host",
            "Host",
            "Name or address of the MQTT bridge or broker (required; ClearBlade: REGION-mqtt.clearblade.com)",
        ),
        glib::ParamSpecUInt::builder("port")
            .nick("Port")
            .blurb("TCP port (0 = 8883 with TLS, 1883 without)")
            .maximum(65_535)
            .mutable_ready()
            .build(),
        flag(
            "tls",
            "TLS",
            "Speak TLS (default: true for protocol=iotcore, false for protocol=mqtt)",
            true,
        ),
        string(
            "root-certificates",
            "Root certificates",
            "PEM file of the certificate authorities to trust (NULL = the system's)",
        ),
        string(
            "client-certificate",
            "Client certificate",
            "PEM file of our certificate chain (NULL = none)",
        ),
        string(
            "client-key",
            "Client key",
            "PEM file of the private key of client-certificate (NULL = none)",
        ),
    ]
}

fn iotcore_specs() -> Vec<glib::ParamSpec> {
    vec![
        string(
            "project-id",
            "Project id",
            "Project of the registry (required for protocol=iotcore)",
        ),
        string(
            "region",
            "Region",
            "Region of the registry, e.g. us-central1 (required for protocol=iotcore)",
        ),
        string(
            "registry-id",
            "Registry id",
            "Registry of the device (required for protocol=iotcore)",
        ),
        string(
            "device-id",
            "Device id",
            "Id of the device (required for protocol=iotcore; protocol=mqtt: NULL = host name)",
        ),
        string(
            "private-key-file",
            "Private key file",
            "PEM file of the device's private key, RSA or EC P-256, as PKCS#8, PKCS#1 or SEC1 (required for protocol=iotcore)",
        ),
        glib::ParamSpecUInt64::builder("jwt-lifetime")
            .nick("JWT lifetime")
            .blurb("Life of a token, ns, 2 s to 24 h; renewed before its end")
            .minimum(2 * SECOND)
            .maximum(86_400 * SECOND)
            .default_value(3600 * SECOND)
            .mutable_ready()
            .build(),
        string("audience", "Audience", "Audience of the token (NULL = project-id)"),
        flag(
            "telemetry",
            "Telemetry",
            "protocol=iotcore: publish events on /devices/D/events; a registry without a Pub/Sub topic closes the connection on it",
            false,
        ),
    ]
}

fn mqtt_specs() -> Vec<glib::ParamSpec> {
    vec![
        string(
            "client-id",
            "Client id",
            "protocol=mqtt: client id, the same at every connection (NULL = gcstreamer- and the device-id)",
        ),
        string("username", "User name", "protocol=mqtt: user name (NULL = none)"),
        string(
            "password-file",
            "Password file",
            "protocol=mqtt: file that holds the password, read at every connection (NULL = none)",
        ),
        glib::ParamSpecString::builder("topic-prefix")
            .nick("Topic prefix")
            .blurb("protocol=mqtt: first part of all topics; {device} is the device-id")
            .default_value(DEFAULT_PREFIX)
            .mutable_ready()
            .build(),
        string(
            "home-assistant-prefix",
            "Home Assistant prefix",
            "protocol=mqtt: publish a Home Assistant device discovery message below this topic, usually homeassistant (NULL = off)",
        ),
    ]
}

fn state_specs() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    vec![
        glib::ParamSpecEnum::builder::<PayloadFormat>("payload-format")
            .nick("Payload format")
            .blurb("What the state topic holds: connected or disconnected, or the JSON status")
            .mutable_ready()
            .build(),
        time(
            "state-interval",
            "State interval",
            "The state is published again after this long, ns (heartbeat)",
            SECOND,
            defaults.state_interval,
        ),
        time(
            "stall-timeout",
            "Stall timeout",
            "No frame for this long while PLAYING is a stall, a push that takes this long is blocked, ns",
            SECOND / 10,
            defaults.stall_timeout,
        ),
        time(
            "startup-timeout",
            "Startup timeout",
            "Before the first frame nothing is published for this long; a gcssink has this long to get its first key unit, ns",
            SECOND / 10,
            defaults.startup_timeout,
        ),
        time(
            "shutdown-timeout",
            "Shutdown timeout",
            "Going to READY waits this long for the last state to be acknowledged, ns",
            0,
            defaults.shutdown_timeout,
        ),
        flag(
            "accept-commands",
            "Accept commands",
            "Act on the commands split, record (start, stop) and report; never on retained ones",
            false,
        ),
    ]
}

fn read_only_specs() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("state")
            .nick("State")
            .blurb("connected while frames pass and every gcssink behind is fed, else disconnected; notified")
            .default_value("disconnected")
            .read_only()
            .build(),
        glib::ParamSpecBoolean::builder("mqtt-connected")
            .nick("MQTT connected")
            .blurb("Whether there is a connection to the broker; notified")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Phase, reason and counters since the session began")
            .read_only()
            .build(),
    ]
}
