//! Reads the configuration of one camera from the environment, for containers without a file.
//!
//! PURE: the variables are an argument. They are converted to the text of an equivalent file, so that one reader checks both.

use super::{Config, Faulty, Surroundings, parse};

/// A variable and the key of the file that it sets.
type Variable = (&'static str, &'static str);

/// Variables of the top level.
const TOP: [Variable; 4] = [
    ("BUCKET", "bucket"),
    ("ENDPOINT_URI", "endpoint-uri"),
    ("SPOOL_DIR", "spool-dir"),
    ("LISTEN", "listen"),
];
/// Variables of `[mqtt]`. Without the first there is no such table.
const MQTT: [Variable; 2] = [("MQTT_HOST", "host"), ("MQTT_PORT", "port")];
/// Variables of the camera.
const CAMERA: [Variable; 5] = [
    ("DEVICE_ID", "id"),
    ("RTSP_URL", "url"),
    ("CAMERA_USERNAME", "username"),
    ("CAMERA_PASSWORD_FILE", "password-file"),
    ("CONTAINER", "container"),
];

/// Reads a configuration of one camera from variables; `get` returns the value of one.
///
/// # Errors
/// [`Faulty`] with every fault; each names its variable.
pub fn from_environment(get: impl Fn(&str) -> Option<String>, surroundings: &Surroundings) -> Result<Config, Faulty> {
    // Compose files leave a variable out by setting it to the empty text. LISTEN="" is a value: serve nothing.
    let set = |variable: &str| {
        get(variable)
            .filter(|value| !value.is_empty() || variable == "LISTEN")
            .filter(|value| variable != "MQTT_PORT" || !is_of_a_service(value))
    };
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut group = |variables: &[Variable], heading: &str| {
        if !heading.is_empty() {
            lines.push((variables[0].0, heading.to_owned()));
        }
        for (variable, key) in variables {
            if let Some(value) = set(variable) {
                let is_number = *key == "port" && value.parse::<u16>().is_ok();
                let value = if is_number { value } else { quoted(&value) };
                lines.push((variable, format!("{key} = {value}")));
            }
        }
    };
    group(&TOP, "");
    if set(MQTT[0].0).is_some() {
        group(&MQTT, "[mqtt]");
    }
    group(&CAMERA, "[[camera]]");
    let text = lines.iter().map(|(_, line)| format!("{line}\n")).collect::<String>();
    parse(&text, surroundings).map_err(|mut faults| {
        for fault in &mut faults {
            // Name the variable, not the key: there is no file to write a key into.
            let missing = ["bucket", "id", "url"].into_iter().find(|key| {
                fault.text.starts_with(&format!("{key} is missing"))
                    || fault.text.starts_with(&format!("this camera has no {key}"))
            });
            let by_key = |key: &str| {
                TOP.iter()
                    .chain(&CAMERA)
                    .find(|(_, k)| *k == key)
                    .map(|(variable, _)| *variable)
            };
            fault.text = match missing.and_then(by_key) {
                Some(variable) => format!("{variable} is not set"),
                // Each variable became one line of the text, so the line of a fault identifies its variable.
                None => match lines.get(fault.line - 1) {
                    Some((variable, _)) => format!("{variable}: {}", fault.text),
                    None => std::mem::take(&mut fault.text),
                },
            };
            (fault.line, fault.column) = (1, 1);
        }
        Faulty {
            file: "environment".to_owned(),
            faults,
        }
    })
}

/// Whether Kubernetes or `docker --link` has set `MQTT_PORT`, as `tcp://ADDRESS:PORT`, because a service is called `mqtt`.
fn is_of_a_service(value: &str) -> bool {
    ["tcp://", "udp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// Writes a text as a string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
