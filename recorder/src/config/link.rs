//! Creates the settings of links to the broker.
//!
//! PURE.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use gcstreamer_mqtt::{Config as LinkConfig, IotCore as Device, Plain, Protocol};
use gcstreamer_schema::topics::prefix_of;

use super::{IotCore, Mqtt};

/// Shortest time between two states of a link.
// The device contract of IoT Core allows one a second.
pub(crate) const STATE_GAP: Duration = Duration::from_secs(1);
/// Keep-alive interval of MQTT. A broker notices a power cut after one and a half intervals (MQTT 3.1.1, 3.1.2.10).
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Default of `topic-prefix`.
const TOPIC_PREFIX: &str = "gcstreamer/{device}";
/// Lifetime of a token: the default of `iotcorestatus`.
const JWT_LIFETIME: Duration = Duration::from_secs(3600);

/// Returns the settings that all links of a recorder share, without TLS.
fn link(host: &str, port: u16, protocol: Protocol) -> LinkConfig {
    LinkConfig {
        host: host.to_owned(),
        port,
        tls: false,
        root_certificates: None,
        client_certificate: None,
        client_key: None,
        protocol,
        state_gap: STATE_GAP,
        keep_alive: KEEP_ALIVE,
    }
}

impl Mqtt {
    /// Returns the settings of a link with these topics. `discovery`: topic and payload for Home Assistant.
    pub(crate) fn link(&self, prefix: String, discovery: Option<(String, Bytes)>) -> LinkConfig {
        let protocol = Protocol::Mqtt(Plain {
            // With an underscore: the client ids of cameras begin with "gcstreamer-" by default, so none can equal this one.
            client_id: prefix.replace('/', "_"),
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            prefix,
            discovery,
        });
        LinkConfig {
            tls: self.tls,
            root_certificates: self.root_certificates.clone(),
            ..link(&self.host, self.port, protocol)
        }
    }

    /// Returns the settings of a link of an example camera, to check them.
    pub(super) fn link_of_a_camera(&self) -> LinkConfig {
        let prefix = prefix_of(self.topic_prefix.as_deref().unwrap_or(TOPIC_PREFIX), "camera");
        let topic = |prefix: &String| format!("{}/device/gcstreamer_camera/config", prefix.trim_end_matches('/'));
        let discovery = self
            .home_assistant_prefix
            .as_ref()
            .map(topic)
            .map(|topic| (topic, Bytes::new()));
        self.link(prefix.trim_end_matches('/').to_owned(), discovery)
    }
}

impl IotCore {
    /// Returns the settings of a camera's link, to check them. Without TLS, whose certificates come from the system.
    pub(super) fn link_of_a_camera(&self, id: &str, key: &Path) -> LinkConfig {
        let protocol = Protocol::IotCore(Device {
            project: self.project_id.clone(),
            region: self.region.clone(),
            registry: self.registry_id.clone(),
            device: id.to_owned(),
            private_key_file: key.to_owned(),
            jwt_lifetime: JWT_LIFETIME,
            audience: None,
            events: false,
        });
        link(&self.host, self.port, protocol)
    }
}

#[cfg(test)]
mod tests {
    use gcstreamer_schema::cameras::check_id;
    use proptest::prelude::*;

    use super::super::{Surroundings, parse};
    use super::*;

    /// Returns the client id of the recorder with this name.
    fn client_id(name: &str) -> String {
        let text = format!(
            "bucket = \"bucket\"\n[mqtt]\nhost = \"h\"\nname = \"{name}\"\n[[camera]]\nid = \"cam1\"\nurl = \"rtsp://h/s\""
        );
        let config = parse(&text, &Surroundings::default()).unwrap();
        let prefix = config.presence_prefix("host").unwrap();
        let Some(super::super::Broker::Mqtt(mqtt)) = &config.broker else {
            panic!("{text}")
        };
        match mqtt.link(prefix, None).protocol {
            Protocol::Mqtt(plain) => plain.client_id,
            Protocol::IotCore(_) => panic!("{text}"),
        }
    }

    #[test]
    fn two_recorders_have_two_client_ids() {
        assert_eq!(client_id("shop"), "gcstreamer_recorder_shop");
        assert_ne!(client_id("a_b"), client_id("a-b"));
    }

    proptest! {
        #[test]
        fn no_camera_has_the_client_id_of_a_recorder(name in "[a-z0-9_.-]{1,20}", id in "(recorder[-_/.]?)?[a-z0-9_./-]{0,20}") {
            for id in [id, format!("recorder-{name}"), format!("_recorder_{name}")] {
                // As `iotcorestatus` builds it.
                prop_assert!(check_id(&id).is_err() || client_id(&name) != format!("gcstreamer-{id}"), "{}", id);
            }
        }
    }
}
