//! Creates the element that connects to a camera, `rtspsrc` (for the other schemes see `outside`), and chooses among the streams
//! that the camera announces.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use gio::prelude::TlsCertificateExt;
use gst::prelude::*;
use gst_rtsp::gst_sdp::{SDPMediaRef, SDPMessage, SDPMessageRef};

use crate::config::{Audio, Camera, Scheme, Transport};

use super::login::{self, Login};
use super::outside;
use super::plan::{self, Sound, Video};
use super::state::Failure;
use super::watch::{EventSender, PipelineEvent, Watch};
use gstgcstreamer::base::lock::lock;

/// How long a TEARDOWN may take. Without one a camera keeps the session until it times out, and cameras allow few sessions.
// The default of `rtspsrc`, 100 ms, is too short: sessions stay behind at cameras.
const TEARDOWN: Duration = Duration::from_secs(2);
/// The time-out of connecting, and of each answer of RTSP.
const ANSWER: Duration = Duration::from_secs(5);

/// What the camera announced, and which streams were chosen.
#[derive(Debug, Default)]
pub(super) struct Choice {
    inner: Mutex<Chosen>,
    /// Decides which requests may be sent to the camera.
    pub(super) login: std::sync::Arc<Login>,
}

#[derive(Clone, Debug, Default)]
struct Chosen {
    /// Number of the chosen stream of pictures in the SDP. `rtspsrc` asks again when it reconnects (for another transport, after
    /// a redirect) and must get the same answer.
    video: Option<u32>,
    /// As `video`.
    sound_stream: Option<u32>,
    sound: bool,
    /// The pictures are marked `sendonly` too: then this attribute does not tell the loudspeaker's stream from the microphone's.
    is_sendonly: bool,
    /// Why announced sound is not recorded.
    left: Option<String>,
    /// Kinds of streams that cannot be recorded: pictures, and outside RTSP anything else.
    others: Vec<String>,
    /// Outside RTSP: the media type of the container.
    container: Option<String>,
    /// Outside RTSP: when the first stream other than recordable pictures arrived.
    other_since: Option<Instant>,
}

impl Choice {
    fn with<T>(&self, work: impl FnOnce(&mut Chosen) -> T) -> T {
        work(&mut lock(&self.inner))
    }

    /// Whether sound was announced that will be recorded.
    pub(super) fn has_sound(&self) -> bool {
        self.with(|chosen| chosen.sound)
    }

    /// Outside RTSP: notes the container, which no description announces.
    pub(super) fn note_container(&self, kind: &str) {
        self.with(|chosen| {
            chosen.container.get_or_insert_with(|| kind.to_owned());
        });
    }

    /// Outside RTSP: returns the failure for data in which no stream was found.
    pub(super) fn no_streams(&self) -> Failure {
        let container = self.with(|chosen| chosen.container.clone());
        sends(container.as_deref().unwrap_or("no stream"))
    }

    /// Outside RTSP: notes a stream other than sound. `video` is `None` for pictures that cannot be recorded and for anything
    /// else.
    pub(super) fn note_pictures(&self, video: Option<Video>, kind: &str) {
        self.with(|chosen| match video {
            Some(_) => drop(chosen.video.get_or_insert(0)),
            None => {
                chosen.others.push(kind.to_owned());
                chosen.other_since.get_or_insert_with(Instant::now);
            }
        });
    }

    /// Outside RTSP: notes sound. No description announces whether pictures will follow.
    pub(super) fn note_waiting(&self) {
        self.with(|chosen| {
            chosen.other_since.get_or_insert_with(Instant::now);
        });
    }

    /// Whether for at least `time` there have been streams, but no pictures that can be recorded.
    pub(super) fn has_others_alone(&self, time: Duration) -> bool {
        self.with(|chosen| chosen.video.is_none() && chosen.other_since.is_some_and(|since| since.elapsed() >= time))
    }

    /// Notes that a stream of sound has arrived.
    pub(super) fn note_sound(&self) {
        self.with(|chosen| chosen.sound = true);
    }

    /// Returns why no sound is recorded although some was announced.
    pub(super) fn soundless(&self) -> Option<String> {
        self.with(|chosen| chosen.left.clone().filter(|_| !chosen.sound))
    }

    /// Notes whether the pictures are `sendonly`, before any stream is selected: the sound may come before the pictures in the
    /// SDP.
    fn note_description(&self, description: &SDPMessageRef) {
        let is_sendonly = are_pictures_sendonly(description);
        self.with(|chosen| chosen.is_sendonly |= is_sendonly);
    }

    /// Decides whether the stream with this number is set up.
    fn select(&self, camera: &Camera, stream: u32, caps: &gst::CapsRef) -> bool {
        let is_sendonly = caps.structure(0).is_some_and(|s| s.has_field("a-sendonly"));
        let text = |field| {
            caps.structure(0)
                .and_then(|s| s.get::<String>(field).ok())
                .unwrap_or_default()
        };
        let encoding = text("encoding-name");
        match text("media").as_str() {
            "video" if Video::of_rtp(&encoding).is_some() => self.with(|chosen| {
                let is_it = *chosen.video.get_or_insert(stream) == stream;
                chosen.is_sendonly |= is_it && is_sendonly;
                is_it
            }),
            "video" => {
                self.with(|chosen| chosen.others.push(encoding));
                false
            }
            "audio" if camera.audio != Audio::Off => {
                let chosen = self.with(|chosen| chosen.clone());
                if let Some(sound) = chosen.sound_stream {
                    return sound == stream;
                }
                // A `sendonly` stream of sound is the way back to the camera's loudspeaker.
                if is_sendonly && !chosen.is_sendonly {
                    return false;
                }
                let sound = match lacks_configuration(&encoding, &text("config")) {
                    true => Sound::Left(
                        "the camera announces AAC without its configuration, so its sound is not recorded; configure its sound again, or switch it off"
                            .to_owned(),
                    ),
                    false => plan::sound(&encoding, None, true, camera.container, &is_installed),
                };
                self.with(|chosen| match sound {
                    Sound::Recorded(..) => {
                        chosen.sound_stream = Some(stream);
                        chosen.sound = true;
                        true
                    }
                    Sound::Left(why) => {
                        chosen.left.get_or_insert(why);
                        false
                    }
                })
            }
            _ => false,
        }
    }

    /// Returns what is wrong with the announced streams, if anything.
    pub(super) fn fault(&self, camera: &Camera) -> Option<Failure> {
        let chosen = self.with(|chosen| chosen.clone());
        if chosen.video.is_none() {
            let is_picture = |kind: &&String| kind.starts_with("video/") || kind.starts_with("image/");
            let kind = chosen.others.iter().find(is_picture).or(chosen.others.first());
            // The name comes from the camera's description, so it may have any length.
            let kind = kind.filter(|kind| kind.len() < 20);
            return Some(sends(kind.map_or("no pictures", String::as_str)));
        }
        if camera.audio == Audio::Require && !chosen.sound {
            let text = "the camera announces no sound that can be recorded, and audio = \"require\"; switch its microphone on, set it to AAC";
            return Some(Failure::Unsupported(text.to_owned()));
        }
        None
    }
}

fn sends(what: &str) -> Failure {
    Failure::Unsupported(format!(
        "the camera sends {what}; set it to H.264 or H.265, or take the path of another stream into url"
    ))
}

/// Whether the pictures or the whole session are marked `sendonly`.
fn are_pictures_sendonly(description: &SDPMessageRef) -> bool {
    let encoding = |media: &SDPMediaRef, format: &str| {
        let caps = media.caps_from_media(format.parse().ok()?)?;
        caps.structure(0)?.get::<String>("encoding-name").ok()
    };
    let is_known = |media: &SDPMediaRef| {
        let mut encodings = media.formats().filter_map(|format| encoding(media, format));
        encodings.any(|encoding| Video::of_rtp(&encoding).is_some())
    };
    let pictures = description
        .medias()
        .find(|media| media.media() == Some("video") && is_known(media));
    let is_reported = description.attributes().any(|attribute| attribute.key() == "sendonly");
    pictures.is_some_and(|media| is_reported || media.attributes().any(|attribute| attribute.key() == "sendonly"))
}

/// Whether AAC lacks its hexadecimal `config` (RFC 3640 4.1, RFC 6416 7.3) of at least two bytes. The depayloader would then end
/// the whole recording with an error.
fn lacks_configuration(encoding: &str, config: &str) -> bool {
    let is_aac = ["MPEG4-GENERIC", "MP4A-LATM"]
        .iter()
        .any(|name| name.eq_ignore_ascii_case(encoding));
    let is_whole = config.len() >= 4 && config.len().is_multiple_of(2) && config.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_aac && !is_whole
}

/// Whether an element is installed.
pub(super) fn is_installed(name: &str) -> bool {
    gst::ElementFactory::find(name).is_some()
}

/// Makes the source of a camera.
///
/// # Errors
/// Which element is not installed.
pub(super) fn make(
    camera: &Camera,
    password: Option<&str>,
    choice: &std::sync::Arc<Choice>,
    event_sender: &EventSender,
    watch: &std::sync::Arc<Watch>,
) -> Result<gst::Element, Failure> {
    match camera.address.scheme() {
        Scheme::Rtsp | Scheme::Rtsps => rtsp(camera, password, choice, event_sender),
        Scheme::Http | Scheme::Rtmp | Scheme::Srt => outside::make(camera, password, choice, event_sender, watch),
    }
}

pub(super) fn missing(element: &str, package: &str) -> Failure {
    Failure::Unsupported(format!("the element {element} is not installed; install {package}"))
}

fn rtsp(
    camera: &Camera,
    password: Option<&str>,
    choice: &std::sync::Arc<Choice>,
    event_sender: &EventSender,
) -> Result<gst::Element, Failure> {
    let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    // Flags, whose order means nothing: `rtspsrc` tries UDP before TCP.
    let protocols = match camera.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp-mcast+udp",
        Transport::Auto => "tcp+udp-mcast+udp",
    };
    let source = gst::ElementFactory::make("rtspsrc")
        .property("location", camera.address.secret())
        .property_from_str("protocols", protocols)
        // 2 s is the default of `rtspsrc`. TCP neither loses nor reorders packets, so a shorter delay is enough.
        .property("latency", if camera.transport == Transport::Tcp { 500u32 } else { 2000 })
        .property("drop-on-latency", false)
        // By default `rtpbin` accepts a source only after a few packets in sequence. A camera that sends each packet twice never
        // gets there.
        .property("probation", 0u32)
        .property("tcp-timeout", microseconds(ANSWER))
        .property("timeout", microseconds(ANSWER))
        .property("teardown-timeout", u64::try_from(TEARDOWN.as_nanos()).unwrap_or(0))
        // At least one camera answers 401 to requests without it.
        .property("user-agent", concat!("gcstreamer/", env!("CARGO_PKG_VERSION")))
        .property("user-id", camera.username.as_deref())
        .property("user-pw", password)
        .build()
        .map_err(|_| missing("rtspsrc", "gstreamer1.0-plugins-good"))?;
    trust(&source, camera)?;
    begin_with_what_comes(&source, camera.transport);
    let event_sender = event_sender.clone();
    login::watch(&source, &choice.login, move || event_sender.send(PipelineEvent::Answered));
    let described = std::sync::Arc::clone(choice);
    source.connect("on-sdp", false, move |values| {
        let description = values.get(1)?.get::<SDPMessage>().ok()?;
        described.note_description(&description);
        None
    });
    let (choice, camera) = (std::sync::Arc::clone(choice), camera.clone());
    source.connect("select-stream", false, move |values| {
        let stream = values.get(1)?.get::<u32>().ok()?;
        let caps = values.get(2)?.get::<gst::Caps>().ok()?;
        choice.login.note_described();
        Some(choice.select(&camera, stream, &caps).to_value())
    });
    Ok(source)
}

/// Lets the first packet that arrives be the first of the stream. Cameras announce another sequence number (`RTP-Info`, often 0);
/// the jitter buffer would wait for that packet, or drop those with lower numbers.
fn begin_with_what_comes(source: &gst::Element, transport: Transport) {
    // Without an announced number the jitter buffer holds the first packet for its whole latency, unless this many packets arrive
    // in sequence. TCP does not reorder, so one is enough there.
    let in_a_row = if transport == Transport::Tcp { 1u32 } else { 8 };
    source.connect("new-manager", false, move |values| {
        let manager = values.get(1)?.get::<gst::Element>().ok()?;
        if manager.factory().is_none_or(|factory| factory.name() != "rtpbin") {
            return None;
        }
        manager.connect("new-jitterbuffer", false, move |values| {
            let buffer = values.get(1)?.get::<gst::Element>().ok()?;
            if buffer.has_property("faststart-min-packets") {
                buffer.set_property("faststart-min-packets", in_a_row);
            }
            let pad = buffer.static_pad("sink")?;
            without_fields(&pad, &["seqnum-base"]);
            None
        });
        None
    });
}

/// Removes these fields from all caps that arrive at a pad.
pub(super) fn without_fields(pad: &gst::Pad, fields: &'static [&'static str]) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(event) = info.event_mut()
            && let gst::EventView::Caps(caps) = event.view()
        {
            let mut caps = caps.caps_owned();
            for structure in caps.make_mut().iter_mut() {
                structure.remove_fields(fields.iter().copied());
            }
            *event = gst::event::Caps::new(&caps);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Sets which certificates are trusted. With a fingerprint no authority is, so that `accept-certificate` is emitted for each
/// certificate. The name in it is not checked then: cameras make their own certificates without a name or with a wrong one.
fn trust(source: &gst::Element, camera: &Camera) -> Result<(), Failure> {
    if let Some(file) = &camera.ca_file {
        source.set_property("tls-database", authorities(file)?);
    }
    let Some(expected) = camera.tls_fingerprint else {
        return Ok(());
    };
    source.set_property("tls-database", nobody()?);
    source.connect("accept-certificate", false, move |values| {
        let certificate = values.get(2).and_then(|value| value.get::<gio::TlsCertificate>().ok());
        let shown = certificate.and_then(|certificate| certificate.certificate()).and_then(|der| {
            let sum = gst::glib::compute_checksum_for_data(gst::glib::ChecksumType::Sha256, &der)?;
            Some(sum.to_string())
        });
        Some(shown.is_some_and(|shown| expected.is(&shown)).to_value())
    });
    Ok(())
}

/// A certificate whose private key nobody has, so it signs no other. GIO refuses an empty list of authorities.
const NOBODY: &str = include_str!("nobody.pem");

fn nobody() -> Result<gio::TlsFileDatabase, Failure> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let failed = |error: std::io::Error| Failure::Internal(format!("tls-fingerprint cannot be used: {error}"));
    // GIO reads certificates only from a path: a memory file needs no place on the disk.
    let memory = rustix::fs::memfd_create("nobody", rustix::fs::MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(NOBODY.as_bytes()).map_err(failed)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    authorities(std::path::Path::new(&path))
}

pub(super) fn authorities(file: &std::path::Path) -> Result<gio::TlsFileDatabase, Failure> {
    gio::TlsFileDatabase::new(file).map_err(|error| {
        let what = match error.kind::<gio::TlsError>() {
            Some(gio::TlsError::Unavailable) => "TLS is not installed: install glib-networking".to_owned(),
            _ => error.message().to_owned(),
        };
        Failure::Unreachable(format!("certificates cannot be checked: {what}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An SDP with sound before the pictures.
    fn description(session: &str, sound: &str, pictures: &str) -> SDPMessage {
        gst::init().unwrap();
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\n{session}m=audio 0 RTP/AVP 0\r\n{sound}m=video 0 RTP/AVP 96\r\n\
             a=rtpmap:96 H264/90000\r\n{pictures}"
        );
        SDPMessage::parse_buffer(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_description_says_whether_its_pictures_are_for_sending_alone_wherever_they_stand() {
        let line = "a=sendonly\r\n";
        for (session, sound, pictures, expected) in [
            ("", line, line, true),
            (line, "", "", true),
            ("", line, "", false),
            ("", line, "a=recvonly\r\n", false),
            ("", "", "", false),
        ] {
            let description = description(session, sound, pictures);
            assert_eq!(are_pictures_sendonly(&description), expected, "{session}|{sound}|{pictures}");
        }
    }
}
