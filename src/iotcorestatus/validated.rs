//! Checks the settings and converts them for use. Every error in them is reported here, before the first byte.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use gst::glib;

use super::discovery::{Options, discovery};
use super::report::Identity;
use super::settings::{PayloadFormat, Protocol, Settings};
use gcstreamer_mqtt as mqtt;
use gcstreamer_schema::name::check_device;
use gcstreamer_schema::session::session_id;
use gcstreamer_schema::topics::prefix_of;

/// Shortest time between two states: IoT Core's limit, applied to every broker.
const STATE_GAP: Duration = Duration::from_secs(1);

/// What a session is made from.
#[derive(Clone, Debug)]
pub(super) struct ValidatedSettings {
    pub link: mqtt::Config,
    pub identity: Identity,
    pub format: PayloadFormat,
    pub accept_commands: bool,
    /// WARNINGs to post: settings that work but are risky or probably a mistake.
    pub warnings: Vec<String>,
}

fn settings_error(text: String) -> gst::ErrorMessage {
    gst::error_msg!(gst::ResourceError::Settings, ("{text}"))
}

/// Checks the settings. `wall` is ns since the Unix epoch, `seed` makes the session id unique.
///
/// # Errors
/// Returns an error message that names the property and the next step.
pub(super) fn validate(settings: &Settings, wall: u64, seed: u64) -> Result<ValidatedSettings, gst::ErrorMessage> {
    let Some(host) = settings.host.clone() else {
        return Err(settings_error(
            "no host is set. There is no default: Google retired Cloud IoT Core on 2023-08-16, and a device token must not be sent \
             to a server that you did not choose. Set host to your bridge, for ClearBlade host=REGION-mqtt.clearblade.com (e.g. \
             us-central1-mqtt.clearblade.com, for newer registries REGION-g5-mqtt.clearblade.com, or the host that your console shows), or to any MQTT broker with protocol=mqtt host=BROKER"
                .to_owned(),
        ));
    };
    let device = match (&settings.device_id, settings.protocol) {
        (Some(device), _) => device.clone(),
        (None, Protocol::Mqtt) => glib::host_name().to_string(),
        // Not an error yet: `iotcore` names all missing properties at once.
        (None, Protocol::IotCore) => String::new(),
    };
    let identity = Identity {
        device: device.clone(),
        session: session_id(wall, seed),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        gst: gst_version(),
        host: glib::host_name().to_string(),
    };
    let protocol = match settings.protocol {
        Protocol::IotCore => mqtt::Protocol::IotCore(iotcore(settings)?),
        Protocol::Mqtt => mqtt::Protocol::Mqtt(plain(settings, &identity)?),
    };
    let path = |text: &Option<String>| text.as_ref().map(PathBuf::from);
    let is_bare = settings.protocol == Protocol::IotCore && !settings.tls();
    let bare = is_bare
        .then(|| "tls=false with protocol=iotcore: the device's token crosses the network unencrypted; set tls=true".to_owned());
    Ok(ValidatedSettings {
        link: mqtt::Config {
            host,
            port: u16::try_from(settings.port).map_err(|_| settings_error(format!("port {} is over 65535", settings.port)))?,
            tls: settings.tls(),
            root_certificates: path(&settings.root_certificates),
            client_certificate: path(&settings.client_certificate),
            client_key: path(&settings.client_key),
            protocol,
            state_gap: STATE_GAP,
            keep_alive: Duration::from_nanos(settings.keep_alive.ns()),
        },
        identity,
        format: settings.payload_format,
        accept_commands: settings.accept_commands,
        warnings: settings.doubts().into_iter().chain(bare).collect(),
    })
}

fn iotcore(settings: &Settings) -> Result<mqtt::IotCore, gst::ErrorMessage> {
    let mut missing = Vec::new();
    let mut need = |name: &'static str, value: &Option<String>| {
        if value.is_none() {
            missing.push(name);
        }
        value.clone().unwrap_or_default()
    };
    let wanted = mqtt::IotCore {
        project: need("project-id", &settings.project_id),
        region: need("region", &settings.region),
        registry: need("registry-id", &settings.registry_id),
        device: need("device-id", &settings.device_id),
        private_key_file: need("private-key-file", &settings.private_key_file).into(),
        jwt_lifetime: Duration::from_nanos(settings.jwt_lifetime.ns()),
        audience: settings.audience.clone(),
        events: settings.telemetry,
    };
    if missing.is_empty() {
        return Ok(wanted);
    }
    Err(settings_error(format!(
        "protocol=iotcore needs {}: set them to the values of the registry, or use protocol=mqtt for a plain MQTT broker",
        missing.join(", ")
    )))
}

fn plain(settings: &Settings, identity: &Identity) -> Result<mqtt::Plain, gst::ErrorMessage> {
    check_device(&identity.device).map_err(settings_error)?;
    Ok(mqtt::Plain {
        client_id: settings
            .client_id
            .clone()
            .unwrap_or_else(|| format!("gcstreamer-{}", identity.device)),
        username: settings.username.clone(),
        password_file: settings.password_file.as_ref().map(PathBuf::from),
        prefix: topics_of(settings, identity),
        discovery: discovery_of(settings, identity),
    })
}

/// Returns the first part of our topics.
fn topics_of(settings: &Settings, identity: &Identity) -> String {
    let prefix = prefix_of(&settings.topic_prefix, &identity.device);
    prefix.trim_end_matches('/').to_owned()
}

/// Returns topic and payload of the discovery message for Home Assistant, if one is wanted.
pub(super) fn discovery_of(settings: &Settings, identity: &Identity) -> Option<(String, Bytes)> {
    let prefix = settings.home_assistant_prefix.as_deref()?;
    let options = Options {
        interval: settings.state_interval.ns(),
        accept_commands: settings.accept_commands,
        depends_on: settings.home_assistant_availability.as_deref(),
    };
    let (topic, payload) = discovery(prefix, &topics_of(settings, identity), identity, options);
    Some((topic, Bytes::from(payload.to_string())))
}

fn gst_version() -> String {
    let (major, minor, micro, _) = gst::version();
    format!("{major}.{minor}.{micro}")
}
