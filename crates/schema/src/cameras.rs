//! The cameras in a recorder's file, as other programs read them: a dashboard also shows cameras that never uploaded.
//!
//! PURE: the text of the file is an argument. Only what is needed to list cameras is parsed; everything else in the file, unknown
//! keys included, is ignored. The recorder itself parses and checks the whole file.

use serde::Deserialize;

/// Names that no part of an id between slashes may have, because they end a device's MQTT topics.
pub const RESERVED_PARTS: [&str; 6] = ["recorder", "availability", "state", "status", "event", "set"];

/// A camera in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// The device id, the first part of its object names.
    pub id: String,
    /// Its name for people.
    pub name: Option<String>,
    /// Whether it is recorded.
    pub enabled: bool,
    /// IANA name of the time zone in which its days begin and end; `None` for UTC.
    pub time_zone: Option<String>,
}

// `Defaults` is not flattened into this struct: with `serde(flatten)`, an error in a shared key would have no line and column.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    id: String,
    name: Option<String>,
    enabled: Option<bool>,
    time_zone: Option<String>,
}

/// Keys that `[defaults]` may set.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Defaults {
    enabled: Option<bool>,
    time_zone: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    camera: Vec<Entry>,
}

/// Parses the cameras of a recorder's file (TOML), in their order.
///
/// # Errors
/// `LINE:COLUMN: text` of the first error, without the line itself: it may contain a credential.
pub fn from_toml(text: &str) -> Result<Vec<Camera>, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{line}:{column}: {}", error.message())
    })?;
    let defaults = file.defaults;
    let camera = |entry: Entry| Camera {
        id: entry.id,
        name: entry.name,
        enabled: entry.enabled.or(defaults.enabled).unwrap_or(true),
        time_zone: entry.time_zone.or_else(|| defaults.time_zone.clone()),
    };
    Ok(file.camera.into_iter().map(camera).collect())
}

/// Checks a camera's id: it must be valid as a device id and as part of MQTT topics.
///
/// # Errors
/// Describes what is wrong and what to do.
pub fn check_id(id: &str) -> Result<(), String> {
    crate::name::check_device(id)?;
    let fault = if let Some(c) = id.chars().find(|c| matches!(c, '+' | '#')) {
        format!("holds {c}, a wildcard of MQTT topics")
    } else if let Some(part) = id.split('/').find(|part| RESERVED_PARTS.contains(part)) {
        format!("has the part \"{part}\", which ends MQTT topics")
    } else {
        return Ok(());
    };
    Err(format!("id \"{id}\" {fault}; choose another, e.g. store42/cam3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cameras_of_a_file_are_listed_and_the_rest_is_ignored() {
        let text = r#"
            bucket = "b"
            [mqtt]
            host = "h"
            [defaults]
            time-zone = "Europe/Berlin"
            [[camera]]
            id = "store42/cam3"
            name = "Back door"
            url = "rtsp://10.0.3.3/stream"
            [[camera]]
            id = "cam4"
            enabled = false
            time-zone = "America/Lima"
        "#;
        let camera = |id: &str, name: Option<&str>, enabled, zone: &str| Camera {
            id: id.into(),
            name: name.map(str::to_owned),
            enabled,
            time_zone: Some(zone.into()),
        };
        let back_door = camera("store42/cam3", Some("Back door"), true, "Europe/Berlin");
        assert_eq!(
            from_toml(text),
            Ok(vec![back_door, camera("cam4", None, false, "America/Lima")])
        );
        assert!(!from_toml("[defaults]\nenabled = false\n[[camera]]\nid = \"a\"").unwrap()[0].enabled);
        assert_eq!(from_toml("bucket = \"b\""), Ok(Vec::new()));
    }

    #[test]
    fn a_fault_has_its_place_and_shows_no_line_of_the_file() {
        let error = from_toml("[[camera]]\nid = \"a\"\nenabled = \"secret\"\n").unwrap_err();
        assert!(error.starts_with("3:11: "), "{error}");
        let error = from_toml("[[camera]]\nid = \"a\npassword = \"hunter2\"\n").unwrap_err();
        assert!(error.starts_with("2:") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn ids_are_device_ids_and_parts_of_topics() {
        for id in ["cam1", "store42/cam3", "states/cam"] {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for id in ["", "/cam", "a/../b", "a+b", "a/#", "a/state/b", "recorder"] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
