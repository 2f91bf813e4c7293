//! Classifies caps: a known container, a stream that must be muxed first, or no information.

use gcstreamer_schema::Container;

/// What to do with a stream of these caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Inspect the bytes; expect this container.
    Take(Option<Container>),
    /// ERROR: the stream must be muxed first.
    NeedsMuxer(String),
}

/// Classifies fixed caps.
pub(super) fn classify(caps: &gst::Caps) -> Verdict {
    let Some(structure) = caps.structure(0) else {
        return Verdict::Take(None);
    };
    let name = structure.name().as_str();
    let container = match name {
        "video/x-flv" => Some(Container::Flv),
        "video/mpegts" => Some(Container::MpegTs),
        "video/quicktime" | "video/mp4" | "audio/mp4" | "audio/x-m4a" | "application/mp4" => Some(Container::Fmp4),
        "video/x-matroska" | "audio/x-matroska" | "video/x-matroska-3d" => Some(Container::Matroska),
        "video/webm" | "audio/webm" => Some(Container::WebM),
        _ => None,
    };
    if container.is_some() {
        return Verdict::Take(container);
    }
    // MPEG program streams are muxed, although their media type is that of an elementary stream.
    let is_program_stream = structure.get::<bool>("systemstream") == Ok(true);
    let media = name.split('/').next().unwrap_or_default();
    let elementary = matches!(media, "video" | "audio" | "image" | "text" | "subpicture") && !is_program_stream;
    // Containers with a media type of pictures or sound: their bytes decide.
    let is_muxed = matches!(
        name,
        "video/x-msvideo"
            | "video/x-ms-asf"
            | "video/ogg"
            | "audio/ogg"
            | "video/x-nut"
            | "video/x-dv"
            | "video/mpeg-sys"
            | "audio/x-wav"
    );
    if (elementary && !is_muxed) || name == "application/x-rtp" {
        let why = if name.ends_with("/x-raw") {
            "it needs an encoder and a muxer in front, e.g. x264enc ! h264parse ! mpegtsmux ! gcssink"
        } else if name == "application/x-rtp" {
            "it needs a depayloader, a parser and a muxer in front, e.g. rtph264depay ! h264parse ! mpegtsmux ! gcssink"
        } else {
            "it needs a muxer in front: mpegtsmux, flvmux streamable=true, matroskamux streamable=true or mp4mux fragment-duration=1000"
        };
        return Verdict::NeedsMuxer(format!(
            "{name} is no muxed stream and cannot be stored in chunks that play; {why}"
        ));
    }
    Verdict::Take(None)
}

/// Returns the stream header from the caps, for a sink that was linked after the muxer had sent it. Empty for a transport stream,
/// which needs none.
pub(super) fn header(caps: &gst::CapsRef, container: Option<Container>) -> Vec<gst::Buffer> {
    let needs_head = !matches!(container, None | Some(Container::MpegTs | Container::Raw));
    let structure = caps.structure(0).filter(|_| needs_head);
    let parts = structure.and_then(|structure| structure.get::<gst::Array>("streamheader").ok());
    let parts = parts.iter().flat_map(|parts| parts.iter());
    parts.filter_map(|part| part.get::<gst::Buffer>().ok()).collect()
}

/// Returns whether a stream that begins with `data` has its header: the signature of FLV, an EBML header, a box that precedes the
/// fragments, or the beginning of `head`, the first buffer of the header in the caps. Data shorter than a signature counts if it
/// is the beginning of one, because a stream with two headers does not play.
pub(super) fn opens(data: &[u8], head: &[u8]) -> bool {
    let is_box = |kind: &[u8]| data.get(4..8) == Some(kind);
    let begins = |signature: &[u8]| !signature.is_empty() && data.iter().zip(signature).all(|(a, b)| a == b);
    begins(b"FLV") || begins(&[0x1a, 0x45, 0xdf, 0xa3]) || is_box(b"ftyp") || is_box(b"moov") || begins(head)
}

/// Returns the caps without their stream header.
pub(super) fn without_header(caps: &gst::Caps) -> gst::Caps {
    let mut caps = caps.copy();
    if let Some(caps) = caps.get_mut() {
        caps.iter_mut().for_each(|s| s.remove_field("streamheader"));
    }
    caps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn muxers_are_known_and_elementary_streams_are_sent_back() {
        gst::init().unwrap();
        let caps = |s: &str| classify(&s.parse::<gst::Caps>().unwrap());
        assert_eq!(caps("video/x-flv"), Verdict::Take(Some(Container::Flv)));
        assert_eq!(
            caps("video/mpegts,systemstream=true,packetsize=188"),
            Verdict::Take(Some(Container::MpegTs))
        );
        assert_eq!(caps("video/quicktime,variant=iso"), Verdict::Take(Some(Container::Fmp4)));
        for bad in [
            "video/x-raw",
            "audio/x-raw",
            "video/x-h264",
            "audio/mpeg,mpegversion=4",
            "video/mpeg,systemstream=false",
            "application/x-rtp",
        ] {
            assert!(
                matches!(caps(bad), Verdict::NeedsMuxer(text) if text.contains("mux")),
                "{bad}"
            );
        }
        assert_eq!(caps("application/octet-stream"), Verdict::Take(None));
        assert_eq!(caps("application/ogg"), Verdict::Take(None));
    }

    #[test]
    fn a_first_buffer_of_a_few_bytes_is_the_head_that_it_begins() {
        let flv = b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x12".as_slice();
        let matroska = &[0x1a, 0x45, 0xdf, 0xa3, 0x9f, 0x42, 0x86];
        let mp4 = b"\0\0\0\x1cftypiso5";
        for head in [flv, matroska, mp4] {
            for len in 1..=head.len() {
                assert!(opens(&head[..len], head), "{len} bytes of {head:x?}");
            }
        }
        // The rest of a stream after its header: a tag, a Cluster, a fragment.
        for rest in [&b"\x09\0\0\x20\0\0"[..], &[0x1f, 0x43, 0xb6, 0x75], b"\0\0\x01\x20moof"] {
            for head in [flv, matroska, mp4, b""] {
                assert!(!opens(rest, head), "{rest:x?}");
            }
        }
    }
}
