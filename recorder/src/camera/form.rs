//! Whether sound keeps its form. A muxer takes sound of one form alone: with another one it ends the whole recording.

use std::sync::Mutex;

use gstgcstreamer::base::lock::lock;

/// What has to stay as it is. Further fields of caps, such as tags and profiles, come and go.
const FIELDS: [&str; 5] = ["mpegversion", "rate", "channels", "codec_data", "stream-format"];

/// The form in which sound came first.
#[derive(Debug, Default)]
pub(super) struct Form(Mutex<Option<gst::Structure>>);

impl Form {
    /// Sound comes with these caps from now on. Whether that is another form than before.
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
