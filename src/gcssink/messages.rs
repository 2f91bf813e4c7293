//! What the element says: element messages, warnings, errors. The texts name the thing, the number, the limit and the next
//! step. Runs in a thread of GStreamer's pool, no lock is held.

use std::time::Duration;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::GcsSink;
use super::upstream;
use crate::outbox::post_info;
use crate::upload::chunk::Summary;
use crate::upload::health::Word;
use crate::upload::report::{Pending, Report};
use gcstreamer_media::chunk::{GapReason, Warning};
use gcstreamer_media::container::Fault;
use gcstreamer_schema::time::rfc3339_ms;

/// Where it waits to be posted.
pub(super) type Outbox = crate::outbox::Outbox<GcsSink, Post>;

/// Something to post.
#[derive(Clone, Debug)]
pub(super) enum Post {
    /// From the uploads.
    Report(Report),
    /// From the chunker.
    Warning(Warning),
    /// The stream cannot be cut.
    Fault(Fault),
    /// Bytes that were not stored.
    Gap {
        reason: GapReason,
        start: u64,
        duration: u64,
        bytes: u64,
        first_sequence: u64,
    },
    /// PLAYING for so long without one key unit.
    NothingToStore(u64),
    /// One object grew over the memory.
    TooLarge(u64),
    /// The stream has to be muxed first.
    NeedsMuxer(String),
    /// The memory is full and the policy says error.
    Full,
    /// The memory is full and uploads are refused.
    Refused(String),
    /// EOS, and so many chunks were not stored.
    NotDrained { chunks: u64, bytes: u64, timeout: u64 },
    /// How long the memory lasts.
    Info(String),
    /// Another sink of the flow group was told other limits.
    FlowChanged { bytes: u64, requests: f64, is_news: bool },
    /// Tell upstream how it goes.
    Health,
}

/// Posts it.
pub(super) fn post(element: &GcsSink, post: Post) {
    match post {
        Post::Report(report) => post_report(element, report),
        Post::Warning(warning) => post_warning(element, &warning),
        Post::Fault(fault) => post_fault(element, fault),
        Post::Gap {
            reason,
            start,
            duration,
            bytes,
            first_sequence,
        } => {
            post_gap(element, reason.name(), start, duration, bytes, first_sequence, 0);
        }
        Post::NothingToStore(waited) => post_nothing(element, waited),
        Post::TooLarge(bytes) => gst::element_error!(
            element,
            gst::ResourceError::NoSpaceLeft,
            ("the location has no placeholder, so all goes into one object, which has reached {bytes} bytes: half of max-memory-bytes; use a location with {{session}} and {{seq}}, or raise max-memory-bytes")
        ),
        Post::NeedsMuxer(text) => gst::element_error!(element, gst::StreamError::WrongType, ("{text}")),
        Post::Full => gst::element_error!(
            element,
            gst::ResourceError::NoSpaceLeft,
            ("max-memory-bytes are in use by chunks that could be neither uploaded nor spooled, and overflow-policy is error; check the uplink, set spool-dir or make room there, raise max-memory-bytes or choose overflow-policy=drop-oldest")
        ),
        Post::Refused(reason) => gst::element_error!(
            element,
            gst::ResourceError::NotAuthorized,
            ("uploads are refused ({reason}), and max-memory-bytes are full now: the recording ends; give the permission back or mend the bucket")
        ),
        Post::NotDrained { chunks, bytes, timeout } => gst::element_error!(
            element,
            gst::ResourceError::Write,
            (
                "{chunks} chunks of {bytes} bytes were not stored within the drain-timeout of {} and are lost; check the uplink or raise drain-timeout",
                seconds(timeout)
            )
        ),
        Post::Info(text) => post_info(element, gst::ResourceError::Settings, &text),
        Post::FlowChanged {
            bytes,
            requests,
            is_news,
        } => {
            element.notify("max-bytes-per-second");
            element.notify("max-requests-per-second");
            if is_news {
                let text = format!(
                    "another sink of this flow-group has set its limits: now {bytes} bytes/s and {requests} requests/s (0 = none)"
                );
                post_info(element, gst::ResourceError::Settings, &text);
            }
        }
        Post::Health => {
            if let Some(structure) = element.imp().health() {
                let pads = element.sink_pads();
                pads.iter().for_each(|pad| {
                    pad.push_event(gst::event::CustomUpstream::new(structure.clone()));
                });
            }
        }
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", Duration::from_nanos(ns).as_secs_f64())
}

fn post_report(element: &GcsSink, report: Report) {
    match report {
        Report::Uploaded {
            summary,
            object,
            generation,
            crc32c,
            latency,
        } => {
            element.imp().uploaded(&object);
            post_uploaded(element, &summary, &object, generation, crc32c, latency);
            if let Some(after) = element.imp().ends_left_outage() {
                post_recovered(element, after, "what waits in the spool is being stored");
            }
        }
        Report::Dropped { summary, reason } => {
            gst::warning!(
                super::imp::CAT,
                obj = element,
                "chunk {} of {} bytes is dropped: {reason}",
                summary.sequence,
                summary.size
            );
            post_gap(
                element,
                reason,
                summary.start,
                summary.duration,
                summary.size,
                summary.sequence,
                1,
            );
        }
        Report::Word(word, pending) => post_word(element, word, pending),
        Report::Warning(text) => gst::element_warning!(element, gst::ResourceError::Write, ("{text}")),
        Report::Disk { full, text } => post_disk(element, full, &text),
        Report::DiskWorks => post_info(element, gst::ResourceError::Write, "the spool takes chunks again"),
        Report::Left(left) => gst::element_warning!(
            element,
            gst::ResourceError::Write,
            (
                "{} chunks of {} bytes are not stored yet and wait in spool-dir {}; the next gcssink that starts with this spool-dir stores them",
                left.chunks,
                left.bytes,
                element.imp().spool_dir().unwrap_or_default()
            )
        ),
        Report::Recovered(pending) => {
            let text = format!(
                "{} chunks of {} bytes that earlier sessions left in the spool are being stored",
                pending.chunks, pending.bytes
            );
            post_info(element, gst::ResourceError::Write, &text);
        }
        Report::ClockOff(seconds) => gst::element_warning!(
            element,
            gst::ResourceError::Settings,
            (
                "this machine's clock is {} s {} the server's; names and start-time follow this machine, customTime is left out: set the clock (NTP)",
                seconds.unsigned_abs(),
                if seconds > 0 { "ahead of" } else { "behind" }
            )
        ),
    }
    element.imp().health_changed();
}

/// What the disk does not take stays in memory, and there `overflow-policy` counts.
fn post_disk(element: &GcsSink, full: bool, text: &str) {
    let next = "what it does not take is held in memory and then overflow-policy decides; it is tried again by itself";
    if full {
        gst::element_warning!(
            element,
            gst::ResourceError::NoSpaceLeft,
            ("the spool is full: {text}; {next}")
        );
    } else {
        gst::element_warning!(
            element,
            gst::ResourceError::Write,
            ("the spool cannot be written: {text}; {next}")
        );
    }
}

fn post_uploaded(element: &GcsSink, info: &Summary, object: &str, generation: i64, crc32c: u32, latency: u64) {
    let structure = gst::Structure::builder("gcssink-chunk-uploaded")
        .field("object", object)
        .field("session-id", &*info.session)
        .field("generation", generation)
        .field("size", info.size)
        .field("sequence", info.sequence)
        .field("running-time", info.running.unwrap_or(u64::MAX))
        .field("duration", info.duration)
        .field("latency", latency)
        .field("crc32c", crc32c)
        .field("start-time", rfc3339_ms(info.start))
        .build();
    post_structure(element, structure);
}

fn post_gap(element: &GcsSink, reason: &str, start: u64, duration: u64, bytes: u64, first: u64, chunks: u64) {
    let structure = gst::Structure::builder("gcssink-gap")
        .field("start-time", rfc3339_ms(start))
        .field("reason", reason)
        .field("duration", duration)
        .field("bytes", bytes)
        .field("first-sequence", first)
        .field("chunks", chunks)
        .build();
    post_structure(element, structure);
}

fn post_structure(element: &GcsSink, structure: gst::Structure) {
    // Fails where there is no bus: nobody listens.
    let _ = element.post_message(gst::message::Element::builder(structure).src(element).build());
}

fn post_word(element: &GcsSink, word: Word, pending: Pending) {
    let waiting = format!(
        "{} chunks of {} bytes wait, the oldest for {}",
        pending.chunks,
        pending.bytes,
        seconds(pending.oldest)
    );
    match word {
        Word::Status(status, reason) => {
            element.imp().status_changed();
            let structure = gst::Structure::builder("gcssink-status")
                .field("status", status.name())
                .field("reason", reason)
                .field("pending-bytes", pending.bytes)
                .field("pending-chunks", pending.chunks)
                .field("oldest-pending-ns", pending.oldest)
                .build();
            post_structure(element, structure);
        }
        Word::Outage { .. } if !element.imp().begins_outage() => {}
        // A refusal is each sink's own, so its end is too.
        Word::Recovered { refused, .. } if !element.imp().ends_outage() && !refused => {}
        Word::Outage { first, reason } => {
            let verb = if first { "uploads fail" } else { "uploads still fail" };
            let left = element.imp().memory_left();
            gst::element_warning!(
                element,
                gst::ResourceError::Write,
                ("{verb}: {reason}; {waiting}; {left}; it is tried again by itself")
            );
        }
        Word::Recovered { after, .. } => post_recovered(element, after, &waiting),
        Word::Fatal { http_status, reason } => {
            element.imp().refused();
            gst::element_error!(element, refusal(http_status), ("{reason}"));
        }
        Word::Refused { http_status, reason } => gst::element_warning!(
            element,
            refusal(http_status),
            ("uploads are refused since they last worked: {reason}; {waiting}; recording goes on, it is tried again every 60 s")
        ),
    }
}

/// The end of an outage of so many ns, and what is left of it.
fn post_recovered(element: &GcsSink, after: u64, waiting: &str) {
    let text = format!("uploads work again after {}; {waiting}", seconds(after));
    post_info(element, gst::ResourceError::Write, &text);
}

/// Whose refusal it is: `None` = of the credentials.
fn refusal(http_status: Option<u16>) -> gst::ResourceError {
    match http_status {
        Some(404) => gst::ResourceError::NotFound,
        Some(401 | 403) | None => gst::ResourceError::NotAuthorized,
        Some(_) => gst::ResourceError::Settings,
    }
}

fn post_warning(element: &GcsSink, warning: &Warning) {
    let max_time = element.imp().max_size_time();
    match *warning {
        Warning::NoKeyUnit { waited, interval } => {
            let measured = interval.map_or_else(String::new, |i| format!(" (they came at most {} apart before)", seconds(i)));
            gst::element_warning!(
                element,
                gst::StreamError::Format,
                (
                    "no key unit for {}{measured}, max-size-time is {}: chunks without a key frame do not play from their start; set the key frame interval of the camera or encoder (GOP, I-frame interval, key-int-max) to at most {}, and switch intra-refresh off",
                    seconds(waited),
                    seconds(max_time),
                    seconds(max_time)
                )
            );
        }
        Warning::NoParameterSets => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("key frames come without SPS and PPS in the stream: chunks after the first cannot be decoded alone; put h264parse config-interval=-1 (H.265: h265parse config-interval=-1) before the muxer, and video/x-h264,alignment=au before that parser where it has them already")
        ),
        Warning::LongFragment(length) => gst::element_warning!(
            element,
            gst::StreamError::Format,
            (
                "a fragment of {} cannot be cut within, max-size-time is {}: chunks are as long as the fragments; set fragment-duration of the muxer (mp4mux: in ms) to at most that",
                seconds(length),
                seconds(max_time)
            )
        ),
        Warning::Rewritten(at) => gst::element_warning!(
            element,
            gst::StreamError::Mux,
            ("the muxer goes back to byte {at} to write over what it has sent, as it may in a file beside this sink: what it sends now is stored as if it came after; set streamable=true on the muxer (mp4mux: fragment-duration with fragment-mode=dash-or-mss)")
        ),
        Warning::OpenGop => gst::element_warning!(
            element,
            gst::StreamError::Format,
            ("the stream has open GOPs: the first pictures of a chunk lean on the chunk before and are lost when it is played alone; switch open GOP off at the encoder (x264enc option-string=open-gop=0)")
        ),
        Warning::EarlyCut { bytes, at_key } => {
            let (share, how) = if at_key {
                ("a quarter", "at a key unit")
            } else {
                ("half", "without a key unit")
            };
            gst::element_warning!(
                element,
                gst::ResourceError::Settings,
                (
                    "a chunk has reached {bytes} bytes, {share} of max-memory-bytes ({}), and is cut early, {how}; raise max-memory-bytes or lower max-size-time (now {})",
                    element.imp().max_memory(),
                    seconds(max_time)
                )
            );
        }
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
        Warning::UnknownContainer => gst::element_warning!(
            element,
            gst::StreamError::TypeNotFound,
            ("the first 64 KiB are of no container that is known (FLV, MPEG-TS, fragmented MP4, Matroska, WebM): the stream is stored as it comes, as .bin, in chunks that need not play alone")
        ),
    }
}

fn post_fault(element: &GcsSink, fault: Fault) {
    let next = match fault {
        Fault::Unfragmented => {
            "use mp4mux fragment-duration=1000 (ms) with fragment-mode=dash-or-mss, its default, or another muxer: nothing was stored"
        }
        Fault::BaseDataOffset => {
            "make fragments with default_base_moof (ffmpeg -movflags frag_keyframe+empty_moov+default_base_moof), or use mp4mux fragment-duration=1000"
        }
        Fault::Programs(_) => "select one program (tsdemux ! mpegtsmux)",
        Fault::HeaderTooLarge(_) => "check that the stream is what its container says",
    };
    gst::element_error!(element, gst::StreamError::Mux, ("{fault}; {next}"));
}

fn post_nothing(element: &GcsSink, waited: u64) {
    let came = element.imp().bytes_received();
    let cause = match element.sink_pads().first().and_then(upstream::unfed_pads) {
        _ if came > 0 => format!("{came} bytes came, but no key unit among them: check the key frame interval of the camera"),
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
        ("nothing to store after {} of PLAYING: {cause}", seconds(waited))
    );
}
