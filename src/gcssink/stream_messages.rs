//! The texts about the input: warnings of the chunker, streams that cannot be cut, and missing input.

use gst::prelude::*;

use super::upstream;
use gcstreamer_media::chunk::Warning;
use gcstreamer_media::container::Fault;
use gcstreamer_schema::units::{bytes, duration};

/// Posts a warning of the chunker, with the limits that were in force.
pub(super) fn post_warning(element: &gst::Element, warning: &Warning, max_time: u64, max_memory: u64) {
    match *warning {
        Warning::NoKeyUnit {
            waited, enclosed: true, ..
        } => gst::element_warning!(
            element,
            gst::StreamError::Mux,
            (
                "no key unit for {}, max-size-time is {}: key frames come within fragments or Clusters, which cannot be cut, and not at their start: chunks do not play from their start; have the muxer begin one at each key frame (ffmpeg -movflags frag_keyframe), or mux it again (mp4mux fragment-duration=1000, matroskamux streamable=true)",
                duration(waited),
                duration(max_time)
            )
        ),
        Warning::NoKeyUnit { waited, interval, .. } => {
            let measured = interval.map_or_else(String::new, |i| format!(" (they came at most {} apart before)", duration(i)));
            gst::element_warning!(
                element,
                gst::StreamError::Format,
                (
                    "no key unit for {}{measured}, max-size-time is {}: chunks without a key frame do not play from their start; set the key frame interval of the camera or encoder (GOP, I-frame interval, key-int-max) to at most {}, and switch intra-refresh off",
                    duration(waited),
                    duration(max_time),
                    duration(max_time)
                )
            );
        }
        Warning::AudioOnly { waited } => gst::element_warning!(
            element,
            gst::StreamError::Format,
            (
                "sound without pictures for {}, although the stream announces pictures: the sound is stored alone, cut after max-size-time ({}); check the camera's video and the muxer's video pad",
                duration(waited),
                duration(max_time)
            )
        ),
        Warning::NoParameterSets => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("key frames come without SPS and PPS in the stream: chunks after the first cannot be decoded alone; put h264parse config-interval=-1 (H.265: h265parse config-interval=-1) before the muxer, and video/x-h264,alignment=au before that parser where it has them already")
        ),
        Warning::NoSequenceHeader => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("groups of pictures come without a sequence header: chunks after the first cannot be decoded alone; have the encoder repeat it (mpeg2enc sequence-header-every-gop=true)")
        ),
        Warning::NoObjectLayer => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("key frames come without the configuration of MPEG-4 video (VOL): chunks that begin with one cannot be decoded alone; put mpeg4videoparse config-interval=1 before the muxer")
        ),
        Warning::LongFragment(length) => gst::element_warning!(
            element,
            gst::StreamError::Format,
            (
                "a fragment of {} cannot be cut within, max-size-time is {}: chunks are as long as the fragments; set fragment-duration of the muxer (mp4mux: in ms) to at most that",
                duration(length),
                duration(max_time)
            )
        ),
        Warning::Rewritten(at) => gst::element_warning!(
            element,
            gst::StreamError::Mux,
            ("the muxer goes back to byte {at} to write over what it has sent, as it may in a file beside this sink: what it sends now is stored as if it came after; set streamable=true on the muxer (mp4mux: fragment-duration with fragment-mode=dash-or-mss)")
        ),
        Warning::Unaligned => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("the PES packets of the transport stream are not aligned with pictures: the end of the last picture of a chunk is in the next one, so that picture is damaged; mux it again with aligned packets (tsdemux ! h264parse ! mpegtsmux)")
        ),
        Warning::OpenGop => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("the stream has open GOPs: the first pictures of a chunk depend on the previous chunk and are lost when it is played alone; switch open GOP off at the encoder (x264enc option-string=open-gop=0)")
        ),
        Warning::EarlyCut { bytes: size, at_key } => {
            let (share, how) = if at_key {
                ("a quarter", "at a key unit")
            } else {
                ("half", "without a key unit")
            };
            gst::element_warning!(
                element,
                gst::ResourceError::Settings,
                (
                    "a chunk has reached {}, {share} of max-memory-bytes ({}), and is cut early, {how}; raise max-memory-bytes or lower max-size-time (now {})",
                    bytes(size),
                    bytes(max_memory),
                    duration(max_time)
                )
            );
        }
        Warning::ConfigCuts(cuts) => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("the decoder configuration has changed {cuts} times within 10 s, and every change begins a chunk: each costs a request and 4 KiB of max-memory-bytes; look for two senders in one stream, or have the encoder keep its configuration (SPS, sequence header, PMT)")
        ),
        Warning::Damage(at) => gst::element_warning!(
            element,
            gst::StreamError::Demux,
            ("the stream is damaged at byte {at}: the bytes are stored as they are, and the next chunk begins at the next key unit; check the network or the source in front of the muxer")
        ),
        Warning::Programs(n) => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("the transport stream has {n} programs: it is stored as it comes, in chunks that need not play alone; select one program (tsdemux ! mpegtsmux)")
        ),
        Warning::NoProgram => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("the transport stream has no PAT and PMT: it is stored as it comes, in chunks that need not play alone; send them again from the muxer at least every second (mpegtsmux: pat-interval, pmt-interval)")
        ),
        Warning::UnknownContainer => gst::element_warning!(
            element,
            gst::StreamError::TypeNotFound,
            ("no known container (FLV, MPEG-TS, fragmented MP4, Matroska, WebM) found in the first 64 KiB: the stream is stored as it comes, as .bin, in chunks that need not play alone")
        ),
    }
}

/// Returns why the stream cannot be cut, and what to do.
pub(super) fn fault_text(fault: &Fault) -> String {
    let next = match fault {
        Fault::Unfragmented => {
            "use mp4mux fragment-duration=1000 (ms) with fragment-mode=dash-or-mss, its default, or another muxer: nothing was stored"
        }
        Fault::NoHead => {
            "start the source again, so that it sends its head, and check the network in front of the muxer: nothing was stored"
        }
        Fault::BaseDataOffset => {
            "make fragments with default_base_moof (ffmpeg -movflags frag_keyframe+empty_moov+default_base_moof), or use mp4mux fragment-duration=1000"
        }
        Fault::Programs(_) => "select one program (tsdemux ! mpegtsmux)",
        Fault::TracksLast => "send it from a muxer that writes its head first (matroskamux streamable=true): nothing was stored",
        Fault::HeaderTooLarge(_) => "check that the stream matches its container format",
    };
    format!("{fault}; {next}")
}

/// Posts that no usable data arrived within `waited` ns, and the reason if the upstream elements show it.
pub(super) fn post_nothing(element: &gst::Element, waited: u64, came: u64) {
    let cause = match element.sink_pads().first().and_then(upstream::unfed_pads) {
        _ if came > 0 => format!(
            "{} came, but no key unit among them: check the key frame interval of the camera",
            bytes(came)
        ),
        Some((muxer, pads)) if !pads.is_empty() => format!(
            "nothing comes out of {muxer}: its pad {} has never got data, so it waits; a camera without the stream the line expects (sound, most often) looks like this: leave that branch out",
            pads.join(", ")
        ),
        Some((muxer, _)) => format!("nothing comes out of {muxer}: check the source in front of it"),
        None => "nothing has come: check the source".to_owned(),
    };
    gst::element_warning!(
        element,
        gst::StreamError::Failed,
        ("nothing to store after {} of PLAYING: {cause}", duration(waited))
    );
}
