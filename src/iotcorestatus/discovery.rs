//! The device discovery message of Home Assistant's MQTT integration: one retained message that describes a device and its
//! entities, on `PREFIX/device/OBJECT/config`. Every entity reads the JSON status.
//!
//! PURE: no GStreamer, no I/O, no clock.

use serde_json::{Value, json};

use super::report::{Identity, Phase, sha256_hex};

/// Phases that need attention: the entity `problem` is on.
const PROBLEMS: [Phase; 5] = [
    Phase::Stalled,
    Phase::Blocked,
    Phase::NotRecording,
    Phase::SourceLost,
    Phase::Error,
];

/// Options that decide which entities exist.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// Property `state-interval`, ns: longest time between two statuses.
    pub interval: u64,
    /// Property `accept-commands`: whether the recording can be switched. If not, its switch and button are removed.
    pub accept_commands: bool,
    /// Property `home-assistant-availability`: the availability topic of what the device depends on.
    pub depends_on: Option<&'o str>,
}

/// Returns topic and payload. `prefix` is Home Assistant's (`homeassistant`), `topics` is the first part of our topics.
#[must_use]
pub fn discovery(prefix: &str, topics: &str, identity: &Identity, options: Options<'_>) -> (String, Value) {
    let object = format!("gcstreamer_{}", object_id(&identity.device));
    let topic = format!("{}/device/{object}/config", prefix.trim_end_matches('/'));
    // The same rule as for the bare state: a value is unknown after three intervals without a status.
    let expire_after = options.interval.saturating_mul(3).div_ceil(1_000_000_000).max(1);
    let entity = |id: &str, mut body: Value| {
        if let Some(map) = body.as_object_mut() {
            map.insert("unique_id".to_owned(), json!(format!("{object}_{id}")));
            // Home Assistant ignores `qos` at device level.
            map.insert("qos".to_owned(), json!(1));
            if map.get("p").is_some_and(|p| p == "sensor" || p == "binary_sensor") {
                map.insert("expire_after".to_owned(), json!(expire_after));
            }
        }
        (id.to_owned(), body)
    };
    let phases: Vec<&str> = Phase::ALL.iter().map(|p| p.name()).collect();
    let problems: Vec<String> = PROBLEMS.iter().map(|p| format!("'{}'", p.name())).collect();
    let mut components: serde_json::Map<String, Value> = [
        entity(
            "connected",
            json!({
                "p": "binary_sensor", "name": "Connected", "device_class": "connectivity",
                "value_template": "{{ value_json.state }}", "payload_on": "connected", "payload_off": "disconnected",
            }),
        ),
        entity(
            "phase",
            json!({
                "p": "sensor", "name": "State", "device_class": "enum", "options": phases,
                "value_template": "{{ value_json.phase }}", "icon": "mdi:cctv",
            }),
        ),
        entity(
            "backlog",
            json!({
                "p": "sensor", "name": "Upload backlog", "device_class": "data_size", "unit_of_measurement": "B",
                "state_class": "measurement", "entity_category": "diagnostic",
                "value_template": "{{ value_json.upload.backlog_bytes }}",
            }),
        ),
        entity(
            "fps",
            json!({
                "p": "sensor", "name": "Frame rate", "unit_of_measurement": "fps", "state_class": "measurement",
                "suggested_display_precision": 1, "entity_category": "diagnostic", "icon": "mdi:filmstrip",
                "value_template": "{{ value_json.video.fps }}",
            }),
        ),
        entity(
            "problem",
            json!({
                "p": "binary_sensor", "name": "Problem", "device_class": "problem",
                "value_template": format!("{{{{ 'ON' if value_json.phase in [{}] else 'OFF' }}}}", problems.join(", ")),
            }),
        ),
    ]
    .into_iter()
    .collect();
    components.extend(controls(topics).map(|(id, body)| {
        if options.accept_commands {
            entity(id, body)
        } else {
            // An entry with only its platform removes the component in Home Assistant. If it were left out, a component of an
            // earlier message would stay, although the element no longer subscribes to its topic.
            (id.to_owned(), json!({"p": body["p"]}))
        }
    }));
    let own = format!("{topics}/availability");
    let availability: Vec<Value> = [Some(own.as_str()), options.depends_on]
        .into_iter()
        .flatten()
        .map(|topic| json!({"topic": topic}))
        .collect();
    let payload = json!({
        "dev": {"ids": [object], "name": identity.device, "mf": "GCStreamer", "mdl": "iotcorestatus", "sw": identity.version},
        "o": {"name": env!("CARGO_PKG_NAME"), "sw": identity.version, "url": env!("CARGO_PKG_REPOSITORY")},
        "availability": availability,
        "availability_mode": "all",
        "state_topic": format!("{topics}/status"),
        "cmps": components,
    });
    (topic, payload)
}

/// Returns the entities for commands: the recording switch and the button that cuts.
fn controls(topics: &str) -> [(&'static str, Value); 2] {
    [
        (
            "record",
            json!({
                "p": "switch", "name": "Record", "icon": "mdi:record-rec",
                "command_topic": format!("{topics}/set/record"), "payload_on": "start", "payload_off": "stop",
                // Known only while frames pass; Home Assistant shows "None" as unknown.
                "value_template": "{{ 'off' if value_json.reason == 'record-stopped' else 'on' if value_json.phase == 'streaming' else 'None' }}",
                "state_on": "on", "state_off": "off",
            }),
        ),
        (
            "split",
            json!({
                "p": "button", "name": "Split", "icon": "mdi:content-cut",
                "command_topic": format!("{topics}/set/split"), "payload_press": "split",
            }),
        ),
    ]
}

/// Returns an id that Home Assistant accepts: letters, digits, `_` and `-`. If other characters were replaced, eight digits of
/// the SHA-256 of the original follow, so that `store42/cam3` and `store42_cam3` remain two devices.
fn object_id(device: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let id: String = device.chars().map(plain).collect();
    if id == device {
        return id;
    }
    format!("{id}_{:.8}", sha256_hex(device.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(accept_commands: bool) -> Options<'static> {
        Options {
            interval: 60_000_000_000,
            accept_commands,
            depends_on: None,
        }
    }

    #[test]
    fn what_can_be_operated_is_there_only_where_commands_are_accepted() {
        let identity = Identity {
            device: "cam1".to_owned(),
            ..Identity::default()
        };
        let (_, without) = discovery("homeassistant", "g/cam1", &identity, options(false));
        assert_eq!(
            without["cmps"]["record"],
            json!({"p": "switch"}),
            "the platform alone removes it"
        );
        assert_eq!(without["cmps"]["split"], json!({"p": "button"}));
        assert_eq!(without["cmps"]["fps"]["value_template"], "{{ value_json.video.fps }}");
        let (_, with) = discovery("homeassistant", "g/cam1", &identity, options(true));
        let (record, split) = (&with["cmps"]["record"], &with["cmps"]["split"]);
        assert_eq!((&record["p"], &split["p"]), (&json!("switch"), &json!("button")));
        assert_eq!(
            (&record["payload_on"], &record["payload_off"]),
            (&json!("start"), &json!("stop"))
        );
        assert_eq!(record["command_topic"], "g/cam1/set/record");
        assert_eq!(split["command_topic"], "g/cam1/set/split");
        let shown = record["value_template"].as_str().unwrap();
        assert!(
            !shown.contains("recording"),
            "a camera that is lost is not switched off: {shown}"
        );
        assert!(record.get("retain").is_none(), "a retained command is never acted on");
    }

    #[test]
    fn a_value_that_is_not_renewed_becomes_unavailable() {
        let identity = Identity::default();
        for (interval, seconds) in [(60_000_000_000, 180), (1_000_000_000, 3), (1_500_000_000, 5)] {
            let options = Options {
                interval,
                accept_commands: true,
                depends_on: None,
            };
            let (_, payload) = discovery("homeassistant", "g/cam1", &identity, options);
            assert!(payload.get("qos").is_none());
            for (id, component) in payload["cmps"].as_object().unwrap() {
                let is_sensor = ["sensor", "binary_sensor"].contains(&component["p"].as_str().unwrap());
                let expires = is_sensor.then(|| json!(seconds));
                assert_eq!(component.get("expire_after"), expires.as_ref(), "{id}");
                assert_eq!(component["qos"], 1, "{id}");
            }
        }
    }

    #[test]
    fn every_entity_has_a_platform_an_id_of_its_own_and_reads_the_status() {
        let identity = Identity {
            device: "store 42/cäm".to_owned(),
            version: "0.1.0".to_owned(),
            ..Identity::default()
        };
        let (topic, payload) = discovery("homeassistant/", "gcstreamer/store 42/cäm", &identity, options(true));
        let object = topic.strip_prefix("homeassistant/device/gcstreamer_store_42_c_m_").unwrap();
        assert!(object.len() == 8 + "/config".len() && object.ends_with("/config"), "{topic}");
        assert_ne!(object_id("store42/cam3"), object_id("store42_cam3"));
        assert_ne!(object_id("a b"), object_id("a.b"));
        assert_eq!(object_id("store42_cam-3"), "store42_cam-3");
        assert_eq!(payload["availability"][0]["topic"], "gcstreamer/store 42/cäm/availability");
        let both = Options {
            depends_on: Some("gcstreamer/recorder/shop/availability"),
            ..options(true)
        };
        let (_, of_recorder) = discovery("homeassistant/", "gcstreamer/store 42/cäm", &identity, both);
        assert_eq!(payload["availability"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            of_recorder["availability"][1]["topic"],
            "gcstreamer/recorder/shop/availability"
        );
        assert_eq!(of_recorder["availability_mode"], "all");
        assert_eq!(payload["state_topic"], "gcstreamer/store 42/cäm/status");
        assert!(payload["o"]["name"].is_string() && payload["dev"]["ids"][0].is_string());
        let components = payload["cmps"].as_object().unwrap();
        assert_eq!(components.len(), 7);
        let mut ids: Vec<&str> = components.values().map(|c| c["unique_id"].as_str().unwrap()).collect();
        assert!(
            components
                .values()
                .all(|c| ["sensor", "binary_sensor", "switch", "button"].contains(&c["p"].as_str().unwrap()))
        );
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 7);
        assert_eq!(
            components["problem"]["value_template"],
            "{{ 'ON' if value_json.phase in ['stalled', 'blocked', 'not-recording', 'source-lost', 'error'] else 'OFF' }}"
        );
    }
}
