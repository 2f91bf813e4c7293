//! Formats and parses the MQTT topics of a device.
//!
//! PURE. `protocol=mqtt`: all topics start with a prefix, `P/availability`, `P/state`, `P/status`, `P/event/KIND`,
//! `P/set/COMMAND`. `protocol=iotcore`: the topics of the IoT Core device contract, `/devices/D/…`.

/// Prefix of a device unless `topic-prefix` is set; `{device}` stands for the id.
pub const DEFAULT_PREFIX: &str = "gcstreamer/{device}";
/// Payload of `availability` while the element is connected.
pub const ONLINE: &str = "online";
/// Payload of `availability` otherwise, and of the will.
pub const OFFLINE: &str = "offline";

/// The meaning of a topic below a device's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// [`ONLINE`] or [`OFFLINE`], retained.
    Availability,
    /// `connected`, `disconnected` or the JSON status; retained, valid only while the availability is online.
    State,
    /// The JSON status, retained.
    Status,
    /// Telemetry of this kind: `chunk`, `gap`, `error`, `stall`.
    Event(String),
    /// A command for the device: `split`, `record`, `report`.
    Set(String),
}

impl Topic {
    /// Returns the topic below the prefix of a device.
    pub fn below(&self, prefix: &str) -> String {
        match self {
            Self::Availability => format!("{prefix}/availability"),
            Self::State => format!("{prefix}/state"),
            Self::Status => format!("{prefix}/status"),
            Self::Event(kind) => format!("{prefix}/event/{kind}"),
            Self::Set(command) => format!("{prefix}/set/{command}"),
        }
    }

    /// Splits a topic into the prefix of its device and its meaning. Returns `None` if it is not the topic of a device.
    ///
    /// Ids may contain slashes, so the end of the topic decides. For that reason no part of an id may be one of these words.
    pub fn read(topic: &str) -> Option<(&str, Self)> {
        let (rest, last) = topic.rsplit_once('/')?;
        let found = match last {
            "availability" => (rest, Self::Availability),
            "state" => (rest, Self::State),
            "status" => (rest, Self::Status),
            _ => match rest.rsplit_once('/')? {
                (prefix, "event") => (prefix, Self::Event(last.to_owned())),
                (prefix, "set") => (prefix, Self::Set(last.to_owned())),
                _ => return None,
            },
        };
        (!found.0.is_empty() && !last.is_empty()).then_some(found)
    }
}

/// Returns the prefix of a device: `pattern` with the id in place of `{device}`.
pub fn prefix_of(pattern: &str, device: &str) -> String {
    pattern.replace("{device}", device)
}

/// Returns the id of the device with this prefix, the inverse of [`prefix_of`]. Returns `None` if the prefix does not follow the
/// pattern, or the pattern has no placeholder for the device.
pub fn device_of<'a>(pattern: &str, prefix: &'a str) -> Option<&'a str> {
    let (before, after) = pattern.split_once("{device}")?;
    let device = prefix.strip_prefix(before)?.strip_suffix(after)?;
    (!device.is_empty()).then_some(device)
}

/// Topics of a device of IoT Core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceTopic {
    /// State of the device, published.
    State,
    /// Telemetry, published.
    Events,
    /// Configuration, subscribed.
    Config,
    /// Commands, subscribed with [`DeviceTopic::filter`].
    Commands,
}

impl DeviceTopic {
    /// Returns the topic of this device.
    pub fn of(self, device: &str) -> String {
        let last = match self {
            Self::State => "state",
            Self::Events => "events",
            Self::Config => "config",
            Self::Commands => "commands",
        };
        format!("/devices/{device}/{last}")
    }

    /// Returns the filter to subscribe to: the topic itself; for commands, with the topics below it.
    pub fn filter(self, device: &str) -> String {
        let topic = self.of(device);
        if self == Self::Commands { format!("{topic}/#") } else { topic }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_topic_is_split_where_the_device_ends() {
        for (topic, read) in [
            (
                "gcstreamer/store42/cam3/state",
                Some(("gcstreamer/store42/cam3", Topic::State)),
            ),
            (
                "gcstreamer/cam/event/gap",
                Some(("gcstreamer/cam", Topic::Event("gap".into()))),
            ),
            (
                "gcstreamer/cam/set/split",
                Some(("gcstreamer/cam", Topic::Set("split".into()))),
            ),
            ("gcstreamer/cam/event", None),
            ("state", None),
            ("/state", None),
            ("gcstreamer/cam/other", None),
            ("", None),
        ] {
            assert_eq!(Topic::read(topic), read, "{topic}");
        }
    }

    #[test]
    fn a_device_uses_the_topics_of_the_contract() {
        assert_eq!(DeviceTopic::State.of("cam1"), "/devices/cam1/state");
        assert_eq!(DeviceTopic::Config.filter("cam1"), "/devices/cam1/config");
        assert_eq!(DeviceTopic::Commands.filter("cam1"), "/devices/cam1/commands/#");
    }

    proptest! {
        #[test]
        fn a_topic_is_read_back(
            device in "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,2}",
            kind in "[a-rt-z][a-z]{0,6}",
            pattern in proptest::sample::select(&[DEFAULT_PREFIX, "site/{device}/video", "{device}"][..]),
        ) {
            let prefix = prefix_of(pattern, &device);
            prop_assert_eq!(device_of(pattern, &prefix), Some(device.as_str()));
            for topic in [Topic::Availability, Topic::State, Topic::Status, Topic::Event(kind.clone()), Topic::Set(kind)] {
                // `…/set/availability` would be a command of that name, which does not exist.
                let text = topic.below(&prefix);
                prop_assert_eq!(Topic::read(&text), Some((prefix.as_str(), topic)));
            }
        }
    }
}
