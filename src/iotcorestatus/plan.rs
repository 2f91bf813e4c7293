//! Settings, checked and made usable. Everything that is wrong with them is said here, before the first byte.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use gst::glib;

use super::discovery::discovery;
use super::settings::{PayloadFormat, Protocol, Settings};
use super::status::Identity;
use gcstreamer_mqtt as mqtt;
use gcstreamer_schema::name::check_device;
use gcstreamer_schema::session::session_id;

/// The broker's own limit, and IoT Core's.
const STATE_GAP: Duration = Duration::from_secs(1);

/// What a session needs to know.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub link: mqtt::Config,
    pub identity: Identity,
    pub format: PayloadFormat,
    pub accept_commands: bool,
    /// What the user should know though it works.
    pub warning: Option<String>,
}

fn bad(text: String) -> gst::ErrorMessage {
    gst::error_msg!(gst::ResourceError::Settings, ("{text}"))
}

/// Checks the settings. `wall` in ns since the epoch, `chance` for the session's id.
///
/// # Errors
/// An error message that names the property and the next step.
pub(super) fn plan(settings: &Settings, wall: u64, chance: u8) -> Result<Plan, gst::ErrorMessage> {
    let Some(host) = settings.host.clone() else {
        return Err(bad(
            "no host is set. There is no default: Google retired Cloud IoT Core on 2023-08-16, and a device token must not go to \
             somebody unasked. Name the bridge, for ClearBlade host=REGION-mqtt.clearblade.com (e.g. \
             us-central1-mqtt.clearblade.com), or any MQTT broker with protocol=mqtt host=BROKER"
                .to_owned(),
        ));
    };
    let device = match (&settings.device_id, settings.protocol) {
        (Some(device), _) => device.clone(),
        (None, Protocol::Mqtt) => glib::host_name().to_string(),
        (None, Protocol::IotCore) => String::new(),
    };
    let identity = Identity {
        device: device.clone(),
        session: session_id(wall, chance),
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
    Ok(Plan {
        link: mqtt::Config {
            host,
            port: u16::try_from(settings.port).map_err(|_| bad(format!("port {} is over 65535", settings.port)))?,
            tls: settings.tls(),
            root_certificates: path(&settings.root_certificates),
            client_certificate: path(&settings.client_certificate),
            client_key: path(&settings.client_key),
            protocol,
            state_gap: STATE_GAP,
        },
        identity,
        format: settings.payload_format,
        accept_commands: settings.accept_commands,
        warning: is_bare.then(|| {
            "tls=false with protocol=iotcore: the device's token goes over the network for all to read; use tls=true".to_owned()
        }),
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
        jwt_lifetime: Duration::from_nanos(settings.jwt_lifetime),
        audience: settings.audience.clone(),
        events: settings.telemetry,
    };
    if missing.is_empty() {
        return Ok(wanted);
    }
    Err(bad(format!(
        "protocol=iotcore needs {}: set them as the registry has them, or use protocol=mqtt for a plain MQTT broker",
        missing.join(", ")
    )))
}

fn plain(settings: &Settings, identity: &Identity) -> Result<mqtt::Plain, gst::ErrorMessage> {
    check_device(&identity.device).map_err(bad)?;
    let prefix = settings.topic_prefix.replace("{device}", &identity.device);
    let prefix = prefix.trim_end_matches('/').to_owned();
    let discovery = settings.home_assistant_prefix.as_deref().map(|ours| {
        let (topic, payload) = discovery(ours, &prefix, identity);
        (topic, Bytes::from(payload.to_string()))
    });
    Ok(mqtt::Plain {
        client_id: settings
            .client_id
            .clone()
            .unwrap_or_else(|| format!("gcstreamer-{}", identity.device)),
        username: settings.username.clone(),
        password_file: settings.password_file.as_ref().map(PathBuf::from),
        prefix,
        discovery,
    })
}

fn gst_version() -> String {
    let (major, minor, micro, _) = gst::version();
    format!("{major}.{minor}.{micro}")
}
