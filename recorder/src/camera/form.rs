//! Notices when the format of the sound changes. A muxer accepts only one format: another one ends the whole recording with an
//! error.

use std::sync::Mutex;

use gstgcstreamer::base::lock::lock;

/// The fields of the caps that must not change. Other fields, such as tags and profiles, may appear and disappear.
const FIELDS: [&str; 5] = ["mpegversion", "rate", "channels", "codec_data", "stream-format"];

/// The format of the sound in the last caps.
#[derive(Debug, Default)]
pub(super) struct Form(Mutex<Option<gst::Structure>>);

impl Form {
    /// Notes new caps. Returns whether the format differs from the one before.
    pub(super) fn changes(&self, caps: &gst::CapsRef) -> bool {
        let Some(structure) = caps.structure(0) else { return false };
        let mut form = gst::Structure::new_empty(structure.name());
        for field in FIELDS {
            if let Ok(value) = structure.value(field) {
                form.set_value(field, value.clone());
            }
        }
        lock(&self.0).replace(form.clone()).is_some_and(|before| before != form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_rate_is_another_form_and_another_tag_is_none() {
        gst::init().unwrap();
        let form = Form::default();
        let changes = |rate: i32, profile: &str| {
            let caps = gst::Caps::builder("audio/mpeg")
                .field("rate", rate)
                .field("profile", profile)
                .build();
            form.changes(&caps)
        };
        assert!(!changes(44100, "lc"));
        assert!(!changes(44100, "he"));
        assert!(changes(48000, "he"));
        assert!(!changes(48000, "he"));
    }
}
