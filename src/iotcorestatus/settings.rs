//! The properties of `iotcorestatus`: one table of names, types, defaults, specifications and meanings.

use gst::glib;
use gst::prelude::*;

use super::report::Limits;
use crate::element::properties::{Time, enumerations, settings};
use gcstreamer_schema::topics::DEFAULT_PREFIX;

const SECOND: u64 = 1_000_000_000;

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

enumerations!(Protocol, PayloadFormat);

settings! {
    /// A copy of all settings. Times in ns.
    #[derive(Clone, Debug)]
    pub(super) struct Settings {
        // The broker. `tls` follows from the protocol until a user sets it.
        "protocol": Protocol as protocol = Protocol::IotCore,
            "Protocol", "The strict IoT Core device contract, or plain MQTT with last will and retained state", .mutable_ready();
        "host": Option<String> as host = None,
            "Host", "Name or address of the MQTT bridge or broker (required; ClearBlade: REGION-mqtt.clearblade.com)",
            .mutable_ready();
        "port": u32 as port = 0,
            "Port", "TCP port (0 = 8883 with TLS, 1883 without)", .maximum(65_535).mutable_ready();
        "tls": Option<bool> as tls = None,
            "TLS", "Speak TLS (default: true for protocol=iotcore, false for protocol=mqtt)",
            .default_value(true).mutable_ready();
        "root-certificates": Option<String> as root_certificates = None,
            "Root certificates", "PEM file of the certificate authorities to trust (NULL = the system's)", .mutable_ready();
        "client-certificate": Option<String> as client_certificate = None,
            "Client certificate", "PEM file of our certificate chain (NULL = none)", .mutable_ready();
        "client-key": Option<String> as client_key = None,
            "Client key", "PEM file of the private key of client-certificate (NULL = none)", .mutable_ready();

        // The IoT Core device contract.
        "project-id": Option<String> as project_id = None,
            "Project id", "Project of the registry (required for protocol=iotcore)", .mutable_ready();
        "region": Option<String> as region = None,
            "Region", "Region of the registry, e.g. us-central1 (required for protocol=iotcore)", .mutable_ready();
        "registry-id": Option<String> as registry_id = None,
            "Registry id", "Registry of the device (required for protocol=iotcore)", .mutable_ready();
        "device-id": Option<String> as device_id = None,
            "Device id", "Id of the device (required for protocol=iotcore; protocol=mqtt: NULL = host name)", .mutable_ready();
        "private-key-file": Option<String> as private_key_file = None,
            "Private key file",
            "PEM file of the device's private key, RSA or EC P-256, as PKCS#8, PKCS#1 or SEC1 (required for protocol=iotcore)",
            .mutable_ready();
        "jwt-lifetime": Time as jwt_lifetime = Time::of(3600 * SECOND).at_least(2 * SECOND),
            "JWT lifetime", "Life of a token, ns, 2 s to 24 h; renewed before its end",
            .maximum(86_400 * SECOND).mutable_ready();
        "audience": Option<String> as audience = None,
            "Audience", "Audience of the token (NULL = project-id)", .mutable_ready();
        "telemetry": bool as telemetry = false,
            "Telemetry",
            "protocol=iotcore: publish events on /devices/D/events; a registry without a Pub/Sub topic closes the connection on it",
            .mutable_ready();

        // Plain MQTT.
        "client-id": Option<String> as client_id = None,
            "Client id", "protocol=mqtt: client id, the same at every connection (NULL = gcstreamer- and the device-id)",
            .mutable_ready();
        "username": Option<String> as username = None,
            "User name", "protocol=mqtt: user name (NULL = none)", .mutable_ready();
        "password-file": Option<String> as password_file = None,
            "Password file", "protocol=mqtt: file that holds the password, read at every connection (NULL = none)",
            .mutable_ready();
        "topic-prefix": String as topic_prefix = DEFAULT_PREFIX.to_owned(),
            "Topic prefix", "protocol=mqtt: first part of all topics; {device} is the device-id", .mutable_ready();
        "home-assistant-prefix": Option<String> as home_assistant_prefix = None,
            "Home Assistant prefix",
            "protocol=mqtt: publish a Home Assistant device discovery message below this topic, usually homeassistant (NULL = off)",
            .mutable_ready();
        "home-assistant-availability": Option<String> as home_assistant_availability = None,
            "Home Assistant availability",
            "protocol=mqtt: a second availability topic in the discovery message, of what the camera depends on: both have to be online (NULL = none)",
            .mutable_ready();

        // The state, and when it is published.
        "payload-format": PayloadFormat as payload_format = PayloadFormat::Text,
            "Payload format", "What the state topic holds: connected or disconnected, or the JSON status", .mutable_ready();
        "state-interval": Time as state_interval = Time::of(60 * SECOND).at_least(SECOND),
            "State interval", "The state is published again after this long, ns, at least 1 s (heartbeat)",
            .mutable_playing();
        "stall-timeout": Time as stall_timeout = Time::of(10 * SECOND).at_least(SECOND / 10),
            "Stall timeout", "No frame for this long while PLAYING is a stall, a push that takes this long is blocked, ns, at least 100 ms",
            .mutable_playing();
        "startup-timeout": Time as startup_timeout = Time::of(30 * SECOND).at_least(SECOND / 10),
            "Startup timeout",
            "Before the first frame nothing is published for this long; a gcssink has this long to get its first key unit, ns, at least 100 ms",
            .mutable_playing();
        "shutdown-timeout": Time as shutdown_timeout = Time::of(5 * SECOND),
            "Shutdown timeout", "Going to READY waits this long for the last state to be acknowledged, ns", .mutable_playing();
        "keep-alive": Time as keep_alive = Time::of(60 * SECOND).at_least(SECOND),
            "Keep alive", "Longest time without a packet to the broker, ns, at least 1 s, rounded down to whole seconds",
            .maximum(65_535 * SECOND).mutable_ready();
        "accept-commands": bool as accept_commands = false,
            "Accept commands", "Act on the commands split, record (start, stop) and report; never on retained ones",
            .mutable_ready();

        // What the element reports.
        "state": Option<String>,
            "State", "connected while frames pass and every gcssink behind is fed, else disconnected; notified",
            .default_value("disconnected").read_only();
        "mqtt-connected": bool,
            "MQTT connected", "Whether there is a connection to the broker; notified", .read_only();
        "stats": Option<gst::Structure>,
            "Statistics", "Phase, reason and counters since the session began", .read_only();
    }
}

impl Settings {
    /// Returns whether to use TLS: by default with iotcore only.
    pub(super) fn tls(&self) -> bool {
        self.tls.unwrap_or(self.protocol == Protocol::IotCore)
    }

    /// Returns the settings that the reporter needs.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            stall: self.stall_timeout.ns(),
            startup: self.startup_timeout.ns(),
            interval: self.state_interval.ns(),
        }
    }

    /// Sets the property `name`; ignores names that are no setting.
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        self.assign(name, value);
        if self.topic_prefix.is_empty() {
            // NULL and the empty string restore the default.
            DEFAULT_PREFIX.clone_into(&mut self.topic_prefix);
        }
    }

    /// Reads a property that is a setting.
    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        match name {
            "tls" => Some(self.tls().to_value()),
            _ => self.read(name),
        }
    }
}
