//! Chooses the elements that record what a camera sends: makes launch lines from codec names.
//!
//! PURE: texts in, texts out; which elements are installed is an argument.
//!
//! - The depayloader passes single NAL units to the parser, which finds the pictures by itself: cameras set the marker bit of RTP
//!   wrongly and put several NAL units with start codes into one. (`torn` clears the marker flag, because the parser would trust
//!   it.)
//! - Parameter sets are repeated before each key frame (`config-interval=-1`), so that chunks play alone in every container.
//! - `h264timestamper` gives pictures the decoding times that the muxers need and RTP does not carry (B-frames).

use crate::config::Container;

/// A video codec that can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Video {
    /// H.264.
    H264,
    /// H.265.
    H265,
}

impl Video {
    /// Returns the codec of an RTP `encoding-name`.
    pub fn of_rtp(encoding: &str) -> Option<Self> {
        match encoding.to_ascii_uppercase().as_str() {
            "H264" => Some(Self::H264),
            "H265" | "HEVC" => Some(Self::H265),
            _ => None,
        }
    }

    /// Returns the codec of a media type.
    pub fn of_media(media: &str) -> Option<Self> {
        match media {
            "video/x-h264" => Some(Self::H264),
            "video/x-h265" => Some(Self::H265),
            _ => None,
        }
    }

    /// Returns the name for people, `/status` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
        }
    }

    const fn short(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
        }
    }

    /// Returns the launch line from what the camera sends to what the muxer takes. `rtp`: the input is RTP packets, otherwise the
    /// elementary stream. `has`: whether an element is installed.
    ///
    /// # Errors
    /// The container cannot hold it.
    pub fn line(self, rtp: bool, container: Container, has: &dyn Fn(&str) -> bool) -> Result<String, String> {
        if container == Container::Flv && self == Self::H265 {
            return Err("the camera sends H.265, which container = \"flv\" cannot hold; use container = \"auto\"".to_owned());
        }
        let codec = self.short();
        let format = match (container, self) {
            (Container::MpegTs, _) => "byte-stream",
            (_, Self::H264) => "avc",
            (_, Self::H265) => "hvc1",
        };
        let depay = match rtp {
            true => format!("rtp{codec}depay ! video/x-{codec},stream-format=byte-stream,alignment=nal ! "),
            false => String::new(),
        };
        // MPEG-TS and Matroska keep frames in decoding order and need no decoding times for it; MP4 and FLV store them.
        let has_decoding_times = matches!(container, Container::Fmp4 | Container::Flv);
        let timestamper = match has_decoding_times && has(&format!("{codec}timestamper")) {
            true => format!(" ! {codec}timestamper name=timestamper"),
            false => String::new(),
        };
        Ok(format!(
            "{depay}{codec}parse name=parser config-interval=-1 ! video/x-{codec},stream-format={format},alignment=au{timestamper} ! {QUEUE}"
        ))
    }
}

/// Stores the data until the right side is built, and while the disk is slow. Limited to 32 MiB.
// Not by time or buffers: the defaults (1 s, 200 buffers) are exceeded while announced sound is waited for (3 s).
const QUEUE: &str = "queue name=queue max-size-buffers=0 max-size-time=0 max-size-bytes=33554432";

/// What can be done with a camera's sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sound {
    /// Record it with this launch line. The text is the label `audio` of metrics.
    Recorded(String, &'static str),
    /// Do not record it. The text says why, and what to do.
    Left(String),
}

/// AAC encoders, the best first.
const ENCODERS: [&str; 3] = ["fdkaacenc", "voaacenc", "avenc_aac"];

/// Decoders of MPEG audio that is not AAC (layers 1 to 3), and of the AAC of MPEG-2.
const MPEG_DECODERS: [&str; 2] = ["mpg123audiodec", "avdec_mp3"];
const AAC_DECODERS: [&str; 3] = ["avdec_aac", "fdkaacdec", "faad"];

/// Returns what to do with the sound of an RTP `encoding-name` or a media type. `version`: the field `mpegversion` of `audio/mpeg`.
pub fn sound(encoding: &str, version: Option<i32>, rtp: bool, container: Container, has: &dyn Fn(&str) -> bool) -> Sound {
    let name = encoding.to_ascii_uppercase();
    let depay = |element: &str| if rtp { format!("{element} ! ") } else { String::new() };
    // If none is installed, take the first: the search for missing elements below then names it.
    let first = |elements: &[&'static str]| elements.iter().find(|element| has(element)).or(elements.first()).copied();
    let aac = match container {
        Container::Fmp4 => "aacparse ! audio/mpeg,mpegversion=4,stream-format=raw",
        // MPEG-2 AAC has the same frames, so accept both versions.
        Container::MpegTs => "aacparse ! audio/mpeg",
        Container::Flv | Container::Matroska => "aacparse ! audio/mpeg,stream-format=raw",
    };
    let recorded = |line: String, label| Sound::Recorded(format!("{line} ! {QUEUE}"), label);
    let decoded = match name.as_str() {
        "MPEG4-GENERIC" => return recorded(format!("{}{aac}", depay("rtpmp4gdepay")), "aac"),
        "MP4A-LATM" => return recorded(format!("{}{aac}", depay("rtpmp4adepay name=latm")), "aac"),
        "MPA" | "AUDIO/MPEG" if rtp || version == Some(1) => {
            let decoder = first(&MPEG_DECODERS).unwrap_or_default();
            format!("{}mpegaudioparse ! {decoder}", depay("rtpmpadepay"))
        }
        "AUDIO/MPEG" if version == Some(2) && container == Container::Fmp4 => {
            format!("aacparse ! {}", first(&AAC_DECODERS).unwrap_or_default())
        }
        "AUDIO/MPEG" => return recorded(aac.to_owned(), "aac"),
        "OPUS" | "X-GST-OPUS-DRAFT-SPITTKA-00" | "AUDIO/X-OPUS" if container != Container::Flv => {
            return recorded(format!("{}opusparse", depay("rtpopusdepay")), "opus");
        }
        "OPUS" | "AUDIO/X-OPUS" => format!("{}opusparse ! opusdec", depay("rtpopusdepay")),
        "PCMA" | "AUDIO/X-ALAW" => format!("{}alawdec", depay("rtppcmadepay")),
        "PCMU" | "AUDIO/X-MULAW" => format!("{}mulawdec", depay("rtppcmudepay")),
        "L16" => format!("{}audioconvert", depay("rtpL16depay")),
        "G726-16" | "G726-24" | "G726-32" | "G726-40" => format!("{}avdec_g726", depay("rtpg726depay")),
        _ => return Sound::Left("the camera's sound is of a kind that cannot be recorded; set the camera to AAC".to_owned()),
    };
    let missing = decoded.split(" ! ").find(|element| !has(element));
    if let Some(missing) = missing {
        return Sound::Left(format!(
            "the camera's sound ({name}) is not recorded: the element {missing} is not installed; set the camera to AAC"
        ));
    }
    match ENCODERS.iter().find(|encoder| has(encoder)) {
        Some(encoder) => recorded(format!("{decoded} ! audioconvert ! audioresample ! {encoder} ! {aac}"), "aac"),
        None => Sound::Left(format!(
            "the camera's sound ({name}) is not recorded: no AAC encoder is installed; install gstreamer1.0-libav, or set the camera to AAC"
        )),
    }
}

/// Returns the muxer and the names of its sink pads for pictures and sound. A fragment of MP4 lasts half a second, which is less
/// than a key frame interval.
pub fn muxer(container: Container) -> (&'static str, &'static str, &'static str) {
    match container {
        Container::Fmp4 => ("mp4mux fragment-duration=500", "video_%u", "audio_%u"),
        Container::MpegTs => ("mpegtsmux", "sink_%d", "sink_%d"),
        Container::Flv => ("flvmux streamable=true", "video", "audio"),
        Container::Matroska => ("matroskamux streamable=true", "video_%u", "audio_%u"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: fn(&str) -> bool = |_| true;
    const NONE: fn(&str) -> bool = |_| false;

    #[test]
    fn every_container_gets_the_stream_format_that_it_takes() {
        let line = |video: Video, container| video.line(true, container, &ALL).unwrap();
        assert!(line(Video::H264, Container::Fmp4).contains("stream-format=avc,alignment=au ! h264timestamper name=timestamper"));
        assert!(line(Video::H265, Container::Fmp4).contains("stream-format=hvc1"));
        assert!(
            line(Video::H265, Container::MpegTs)
                .contains("h265parse name=parser config-interval=-1 ! video/x-h265,stream-format=byte-stream")
        );
        assert!(
            line(Video::H264, Container::Flv).starts_with("rtph264depay ! video/x-h264,stream-format=byte-stream,alignment=nal")
        );
        assert!(Video::H265.line(true, Container::Flv, &ALL).unwrap_err().contains("auto"));
        let plain = Video::H264.line(false, Container::Fmp4, &NONE).unwrap();
        assert!(plain.starts_with("h264parse") && !plain.contains("timestamper"), "{plain}");
    }

    #[test]
    fn sound_that_browsers_play_passes_and_the_rest_becomes_aac() {
        for (encoding, container, passes) in [
            ("MPEG4-GENERIC", Container::Fmp4, true),
            ("OPUS", Container::Fmp4, true),
            ("OPUS", Container::Flv, false),
            ("PCMA", Container::Fmp4, false),
            ("pcmu", Container::Matroska, false),
            ("L16", Container::MpegTs, false),
            ("G726-32", Container::Fmp4, false),
        ] {
            let Sound::Recorded(line, label) = sound(encoding, None, true, container, &ALL) else {
                panic!("{encoding}")
            };
            assert_eq!(line.contains("fdkaacenc"), !passes, "{line}");
            assert!(label == "aac" || label == "opus");
            assert!(line.starts_with("rtp") && line.contains("queue name=queue"), "{line}");
        }
    }

    #[test]
    fn mp2_mp3_and_the_aac_of_mpeg_2_become_what_the_container_takes() {
        let line = |version, container| match sound("audio/mpeg", Some(version), false, container, &ALL) {
            Sound::Recorded(line, "aac") => line,
            other => panic!("{other:?}"),
        };
        assert!(line(1, Container::MpegTs).starts_with("mpegaudioparse ! mpg123audiodec ! audioconvert"));
        assert!(line(2, Container::Fmp4).starts_with("aacparse ! avdec_aac ! audioconvert"));
        for container in [Container::MpegTs, Container::Flv, Container::Matroska] {
            let line = line(2, container);
            assert!(
                line.starts_with("aacparse ! audio/mpeg") && !line.contains("mpegversion"),
                "{line}"
            );
        }
        assert!(line(4, Container::Fmp4).starts_with("aacparse ! audio/mpeg,mpegversion=4,stream-format=raw ! queue"));
        let other_decoder = |name: &str| name != "mpg123audiodec";
        match sound("MPA", None, true, Container::Fmp4, &other_decoder) {
            Sound::Recorded(line, _) => assert!(line.starts_with("rtpmpadepay ! mpegaudioparse ! avdec_mp3"), "{line}"),
            left => panic!("{left:?}"),
        }
        let no_decoder = |name: &str| !MPEG_DECODERS.contains(&name);
        match sound("audio/mpeg", Some(1), false, Container::Fmp4, &no_decoder) {
            Sound::Left(text) => assert!(
                text.contains("mpg123audiodec is not installed; set the camera to AAC"),
                "{text}"
            ),
            recorded => panic!("{recorded:?}"),
        }
    }

    #[test]
    fn sound_that_cannot_be_recorded_says_what_to_do() {
        let no_encoder = |name: &str| !ENCODERS.contains(&name);
        for (encoding, has, expected) in [
            ("PCMA", &no_encoder as &dyn Fn(&str) -> bool, "gstreamer1.0-libav"),
            ("PCMA", &NONE, "rtppcmadepay is not installed"),
            ("VORBIS", &ALL, "set the camera to AAC"),
        ] {
            match sound(encoding, None, true, Container::Fmp4, has) {
                Sound::Left(text) => assert!(text.contains(expected), "{text}"),
                recorded => panic!("{recorded:?}"),
            }
        }
    }
}
