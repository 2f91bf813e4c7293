//! The results of a probe: as JSON, as text for people, and advice.
//!
//! PURE.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::challenge::Authentication;
use crate::camera::advice::{self, rounded};
use crate::camera::measure::Measured;

/// Everything about one camera.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Its address without parts that could be secret.
    pub camera: String,
    /// The authentication that it requires; `None`: not asked.
    pub authentication: Option<Authentication>,
    /// What was measured.
    pub measured: Measured,
}

impl Findings {
    /// Whether the camera can be recorded with its present settings.
    pub fn is_recordable(&self) -> bool {
        self.measured.failure.is_none() && self.measured.picture.is_some()
    }

    /// Returns what to change, the most important first.
    pub fn advice(&self) -> Vec<String> {
        let measured = &self.measured;
        let mut advice = Vec::new();
        if let Some(failure) = &measured.failure {
            advice.push(failure.text().to_owned());
        }
        match self.authentication {
            Some(Authentication::DigestSha256) => {
                advice.push("the camera wants Digest with SHA-256: set its RTSP authentication to Digest with MD5".to_owned());
            }
            Some(Authentication::Basic) => {
                advice.push("Basic sends the password readable: set the camera's RTSP authentication to Digest".to_owned());
            }
            Some(Authentication::None) => {
                advice.push("everybody in this network can watch: set a password in the camera".to_owned());
            }
            _ => {}
        }
        if self.is_recordable() {
            self.advice_on_pictures(&mut advice);
        }
        advice.extend(measured.soundless.clone());
        advice
    }

    fn advice_on_pictures(&self, into: &mut Vec<String>) {
        let measured = &self.measured;
        match measured.key_interval {
            Some(interval) => into.extend(advice::key_interval(interval)),
            // Two key frames of a camera that needs no advice, at most 4 s apart, fit into this time.
            None if measured.time >= Duration::from_secs(8) => {
                into.push(format!(
                    "fewer than two key frames in {} s: {}",
                    measured.time.as_secs(),
                    advice::KEY_FRAMES
                ));
            }
            None => {}
        }
        if let (Some(real), Some(declared)) = (measured.fps, measured.declared_fps) {
            into.extend(advice::frame_rate(real, declared));
        }
        into.extend(measured.clock_error.and_then(advice::clock));
        if measured.picture.is_some_and(|picture| picture.codec.name() == "H.265") {
            into.push("H.265: not every browser plays it; H.264 plays everywhere".to_owned());
        }
    }

    /// Returns one JSON object; `null` means unknown.
    pub fn json(&self) -> Value {
        let measured = &self.measured;
        json!({
            "camera": self.camera,
            "recordable": self.is_recordable(),
            "reason": measured.failure.as_ref().map(|failure| failure.text()),
            "authentication": self.authentication,
            "codec": measured.picture.map(|picture| picture.codec.name()),
            "width": measured.picture.map(|picture| picture.width),
            "height": measured.picture.map(|picture| picture.height),
            "fps": measured.fps.map(rounded),
            "declared_fps": measured.declared_fps.map(rounded),
            "key_interval_s": measured.key_interval.map(rounded),
            "kbit_s": measured.kbit.map(f64::round),
            "audio": measured.sound,
            "clock_error_s": measured.clock_error.map(rounded),
            "advice": self.advice(),
        })
    }

    /// Returns the text for people.
    pub fn text(&self) -> String {
        let measured = &self.measured;
        let unknown = || "unknown".to_owned();
        let mut lines = vec![("camera", self.camera.clone())];
        if let Some(authentication) = self.authentication {
            lines.push(("authentication", authentication.words().to_owned()));
        }
        if let Some(picture) = measured.picture {
            lines.push((
                "picture",
                format!("{} {}×{}", picture.codec.name(), picture.width, picture.height),
            ));
            let declared = measured
                .declared_fps
                .map(|fps| format!(", declared {}", rounded(fps)))
                .unwrap_or_default();
            lines.push((
                "frame rate",
                measured
                    .fps
                    .map_or_else(unknown, |fps| format!("{}/s{declared}", rounded(fps))),
            ));
            lines.push((
                "key frame every",
                measured
                    .key_interval
                    .map_or_else(unknown, |interval| format!("{} s", rounded(interval))),
            ));
            lines.push((
                "bit rate",
                measured.kbit.map_or_else(unknown, |kbit| format!("{kbit:.0} kbit/s")),
            ));
            lines.push(("sound", measured.sound.unwrap_or("none that is recorded").to_owned()));
            lines.push((
                "clock error",
                measured
                    .clock_error
                    .map_or_else(unknown, |error| format!("{} s", rounded(error))),
            ));
        }
        let mut text = String::new();
        for (name, value) in lines {
            let _ = writeln!(text, "{name:<16} {value}");
        }
        for advice in self.advice() {
            let _ = writeln!(text, "- {advice}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::plan::Video;
    use crate::camera::state::Failure;
    use crate::camera::watch::Picture;

    fn well() -> Findings {
        Findings {
            camera: "rtsp://10.0.3.3".to_owned(),
            authentication: Some(Authentication::DigestMd5),
            measured: Measured {
                picture: Some(Picture {
                    codec: Video::H264,
                    width: 1920,
                    height: 1080,
                }),
                fps: Some(24.98),
                declared_fps: Some(25.0),
                key_interval: Some(2.0),
                kbit: Some(4000.4),
                sound: Some("aac"),
                clock_error: Some(0.3),
                time: Duration::from_secs(10),
                ..Measured::default()
            },
        }
    }

    #[test]
    fn a_camera_that_is_set_well_needs_no_advice() {
        let findings = well();
        assert_eq!(findings.advice(), Vec::<String>::new());
        let json = findings.json();
        assert_eq!(
            (&json["recordable"], &json["authentication"]),
            (&true.into(), &"digest-md5".into())
        );
        assert_eq!((&json["fps"], &json["kbit_s"]), (&24.98.into(), &4000.0.into()));
        assert!(
            findings
                .text()
                .contains("picture          H.264 1920×1080\nframe rate       24.98/s, declared 25\n")
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_what_to_change() {
        let mut findings = well();
        findings.authentication = Some(Authentication::Basic);
        let measured = &mut findings.measured;
        (measured.fps, measured.key_interval, measured.clock_error) = (Some(15.0), Some(25.0), Some(-3600.0));
        measured.soundless = Some("the camera's sound is of a kind that cannot be recorded".to_owned());
        let advice = findings.advice();
        for expected in [
            "Digest",
            "key frame every 25 s",
            "15 pictures a second",
            "3600 s behind",
            "sound",
        ] {
            assert!(
                advice.iter().any(|advice| advice.contains(expected)),
                "{expected}: {advice:?}"
            );
        }
        findings.measured.key_interval = None;
        assert!(
            findings
                .advice()
                .iter()
                .any(|advice| advice.contains("fewer than two key frames in 10 s"))
        );
    }

    #[test]
    fn a_camera_that_cannot_be_recorded_says_why_first() {
        let findings = Findings {
            authentication: Some(Authentication::DigestSha256),
            measured: Measured {
                failure: Some(Failure::Refused("the camera refuses the credentials (401)".to_owned())),
                ..Measured::default()
            },
            ..well()
        };
        let advice = findings.advice();
        assert!(advice[0].contains("401") && advice[1].contains("SHA-256"), "{advice:?}");
        assert!(!findings.is_recordable());
        assert_eq!(findings.json()["reason"], "the camera refuses the credentials (401)");
    }
}
