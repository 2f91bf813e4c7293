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

/// Returns topic and payload. `prefix` is Home Assistant's (`homeassistant`), `topics` is the first part of our topics.
#[must_use]
pub fn discovery(prefix: &str, topics: &str, identity: &Identity) -> (String, Value) {
    let object = format!("gcstreamer_{}", object_id(&identity.device));
    let topic = format!("{}/device/{object}/config", prefix.trim_end_matches('/'));
    let entity = |id: &str, mut body: Value| {
        if let Some(map) = body.as_object_mut() {
            map.insert("unique_id".to_owned(), json!(format!("{object}_{id}")));
        }
        (id.to_owned(), body)
    };
    let phases: Vec<&str> = Phase::ALL.iter().map(|p| p.name()).collect();
    let problems: Vec<String> = PROBLEMS.iter().map(|p| format!("'{}'", p.name())).collect();
    let components: serde_json::Map<String, Value> = [
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
            "problem",
            json!({
                "p": "binary_sensor", "name": "Problem", "device_class": "problem",
                "value_template": format!("{{{{ 'ON' if value_json.phase in [{}] else 'OFF' }}}}", problems.join(", ")),
            }),
        ),
    ]
    .into_iter()
    .collect();
    let payload = json!({
        "dev": {"ids": [object], "name": identity.device, "mf": "GCStreamer", "mdl": "iotcorestatus", "sw": identity.version},
        "o": {"name": env!("CARGO_PKG_NAME"), "sw": identity.version, "url": env!("CARGO_PKG_REPOSITORY")},
        "availability": [{"topic": format!("{topics}/availability")}],
        "state_topic": format!("{topics}/status"),
        "qos": 1,
        "cmps": components,
    });
    (topic, payload)
}

/// Returns an id that Home Assistant accepts: letters, digits, `_` and `-`. If other characters were replaced, eight digits of the
/// SHA-256 of the original follow, so that `store42/cam3` and `store42_cam3` stay two devices.
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

    #[test]
    fn every_entity_has_a_platform_an_id_of_its_own_and_reads_the_status() {
        let identity = Identity {
            device: "store 42/cäm".to_owned(),
            version: "0.1.0".to_owned(),
            ..Identity::default()
        };
        let (topic, payload) = discovery("homeassistant/", "gcstreamer/store 42/cäm", &identity);
        let object = topic.strip_prefix("homeassistant/device/gcstreamer_store_42_c_m_").unwrap();
        assert!(object.len() == 8 + "/config".len() && object.ends_with("/config"), "{topic}");
        assert_ne!(object_id("store42/cam3"), object_id("store42_cam3"));
        assert_ne!(object_id("a b"), object_id("a.b"));
        assert_eq!(object_id("store42_cam-3"), "store42_cam-3");
        assert_eq!(payload["availability"][0]["topic"], "gcstreamer/store 42/cäm/availability");
        assert_eq!(payload["state_topic"], "gcstreamer/store 42/cäm/status");
        assert!(payload["o"]["name"].is_string() && payload["dev"]["ids"][0].is_string());
        let components = payload["cmps"].as_object().unwrap();
        assert_eq!(components.len(), 4);
        let mut ids: Vec<&str> = components.values().map(|c| c["unique_id"].as_str().unwrap()).collect();
        assert!(
            components
                .values()
                .all(|c| ["sensor", "binary_sensor"].contains(&c["p"].as_str().unwrap()))
        );
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4);
        assert_eq!(
            components["problem"]["value_template"],
            "{{ 'ON' if value_json.phase in ['stalled', 'blocked', 'not-recording', 'source-lost', 'error'] else 'OFF' }}"
        );
    }
}
