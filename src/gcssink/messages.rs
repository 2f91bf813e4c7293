//! The texts of element messages, warnings and errors. Each names the object, the number, the limit and the next step. The caller
//! passes all figures; the element is asked only for what GStreamer knows about it.

use std::time::Duration;

use gst::prelude::*;

use super::stream_messages::{fault_text, post_nothing, post_warning};
use crate::element::poster::post_info;
use crate::flow::pending::Pending;
use crate::ingest::Unfinished;
use crate::ingest::message::{Draining, Message};
use crate::upload::chunk::Summary;
use crate::upload::health::Status;
use crate::upload::report::DiskFault;
use gcstreamer_schema::structures::{chunk_uploaded, drain, gap, status as names};
use gcstreamer_schema::time::rfc3339_ms;
use gcstreamer_schema::units::{bytes, chunks, duration, rate, span};

/// The queue of posts of this element.
pub(super) type MessagePoster = crate::element::poster::MessagePoster<gst::Element, Post>;

/// One post.
#[derive(Clone, Debug)]
pub(super) enum Post {
    /// A message of the engine.
    Engine(Message),
    /// ERROR: the stream must be muxed first.
    NeedsMuxer(String),
    /// INFO about the settings, such as how long the memory lasts.
    Info(String),
    /// WARNING about a setting that is probably a mistake.
    Doubt(String),
    /// Send the event `gcssink-health` upstream.
    Health,
}

/// Posts a message of the engine, except its reports.
pub(super) fn post(element: &gst::Element, message: Message) {
    match message {
        // `compose` handles these, because they need figures of the session.
        Message::Report(_) | Message::Started { .. } => {}
        Message::Warning {
            warning,
            max_time,
            max_memory,
        } => post_warning(element, &warning, max_time, max_memory),
        Message::Fault(fault) => gst::element_error!(element, gst::StreamError::Mux, ("{}", fault_text(&fault))),
        Message::Gap {
            reason,
            start,
            duration,
            bytes,
            first_sequence,
        } => {
            post_gap(element, reason.name(), start, duration, bytes, first_sequence, 0);
        }
        Message::NothingToStore { waited, received } => post_nothing(element, waited, received),
        Message::NoFragments {
            waited,
            is_damaged: true,
        } => gst::element_warning!(
            element,
            gst::StreamError::Failed,
            (
                "nothing to store after {} of PLAYING: the head (moov) of the MP4 is missing or damaged; start the source again, so that it sends its head, and check the network in front of the muxer",
                duration(waited)
            )
        ),
        Message::NoFragments { waited, .. } => gst::element_warning!(
            element,
            gst::StreamError::Failed,
            (
                "nothing to store after {} of PLAYING: the MP4 is not fragmented, and its muxer writes the index at the end; use mp4mux fragment-duration=1000 (ms)",
                duration(waited)
            )
        ),
        Message::NoKeyAmong { waited, pictures } => gst::element_warning!(
            element,
            gst::StreamError::Failed,
            (
                "nothing to store after {} of PLAYING: {pictures} pictures came, and none is a key frame by its bytes (H.264: IDR or recovery point, H.265: IRAP); set the key frame interval of the camera, switch intra-refresh off, and check that the stream is not encrypted",
                duration(waited)
            )
        ),
        Message::TooLarge {
            size,
            full_memory: Some(memory),
        } => gst::element_error!(
            element,
            gst::ResourceError::NoSpaceLeft,
            (
                "the location has no placeholder, so all goes into one object, which has reached {}: spool-dir takes no more of it, and max-memory-bytes ({}) is full; make room in spool-dir or raise max-spool-bytes, use a location with {{session}} and {{seq}}, or choose overflow-policy=block to wait for room",
                bytes(size),
                bytes(memory)
            )
        ),
        Message::TooLarge { size, full_memory: None } => gst::element_error!(
            element,
            gst::ResourceError::NoSpaceLeft,
            (
                "the location has no placeholder, so all goes into one object, which has reached {}: half of max-memory-bytes; use a location with {{session}} and {{seq}}, or raise max-memory-bytes",
                bytes(size)
            )
        ),
        Message::Full => gst::element_error!(
            element,
            gst::ResourceError::NoSpaceLeft,
            ("max-memory-bytes are in use by chunks that could be neither uploaded nor spooled, and overflow-policy is error; check the uplink, set spool-dir or make room there, raise max-memory-bytes or choose overflow-policy=drop-oldest")
        ),
        Message::Refused(reason) => gst::element_error!(
            element,
            gst::ResourceError::NotAuthorized,
            ("uploads are refused ({reason}), and max-memory-bytes is exhausted: the recording ends; restore the permission or fix the bucket")
        ),
        Message::NotDrained { lost, timeout } => gst::element_error!(
            element,
            gst::ResourceError::Write,
            (
                "not stored within the drain-timeout of {} and lost: {}; check the uplink, raise drain-timeout, or set spool-dir",
                duration(timeout),
                amount(lost)
            )
        ),
        Message::TooFewBytes { limit, needed } => gst::element_warning!(
            element,
            gst::ResourceError::Settings,
            (
                "max-bytes-per-second is {} and the sinks of this flow-group bring {}: the limit, not the link, lets the backlog grow; raise max-bytes-per-second, or have the cameras send less",
                rate(limit),
                rate(whole(needed))
            )
        ),
        Message::TooFewRequests { limit, needed } => gst::element_warning!(
            element,
            gst::ResourceError::Settings,
            ("max-requests-per-second is {limit} and the chunks of this flow-group take {needed:.1} a second: the limit, not the link, lets the backlog grow; raise max-requests-per-second, or max-size-time for fewer chunks")
        ),
        Message::Draining(step) => post_draining(element, step),
        Message::LimitsChanged {
            bytes: bytes_per_second,
            requests,
            is_new,
        } => {
            element.notify("max-bytes-per-second");
            element.notify("max-requests-per-second");
            if is_new {
                let text = format!(
                    "another sink of this flow-group has set its limits: now {} and {requests} requests/s (0 = none)",
                    rate(bytes_per_second)
                );
                info(element, &text);
            }
        }
    }
}

/// Rounds a rate down. It is not negative, and the cast saturates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

/// Posts the progress of an EOS. PROGRESS is the only kind of message that `gst-launch-1.0` prints without `-m`. A started
/// progress must be completed or cancelled.
fn post_draining(element: &gst::Element, step: Draining) {
    let (kind, text) = match step {
        Draining::Begins(left) => (gst::ProgressType::Start, format!("{} to be stored", amount(left))),
        Draining::GoesOn(left) => (gst::ProgressType::Continue, format!("{} left to be stored", amount(left))),
        Draining::Stored => (gst::ProgressType::Complete, "all chunks are stored".to_owned()),
        Draining::Unfinished(left) => (gst::ProgressType::Canceled, format!("{} are not stored", amount(left))),
    };
    let message = gst::message::Progress::builder(kind, drain::CODE, &text).src(element).build();
    // Fails without a bus, when no application receives messages.
    let _ = element.post_message(message);
}

/// Reports that the recording has begun. `backlog` describes where chunks wait that cannot be stored at once.
pub(super) fn started(element: &gst::Element, object: &str, bucket: &str, endpoint: Option<&str>, backlog: &str) {
    let at = endpoint.map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
    info(
        element,
        &format!("recording into bucket {bucket}{at}, first object {object}; what cannot be stored at once waits {backlog}"),
    );
}

/// Posts an INFO about the settings.
pub(super) fn info(element: &gst::Element, text: &str) {
    post_info(element, gst::ResourceError::Settings, text);
}

/// Posts a WARNING about a setting.
pub(super) fn doubt(element: &gst::Element, text: &str) {
    gst::element_warning!(element, gst::ResourceError::Settings, ("{text}"));
}

/// Posts the ERROR for caps that have to be muxed first.
pub(super) fn needs_muxer(element: &gst::Element, text: &str) {
    gst::element_error!(element, gst::StreamError::WrongType, ("{text}"));
}

/// Reports that a chunk was dropped, or only its end (`chunks` is 0).
pub(super) fn dropped(element: &gst::Element, summary: &Summary, reason: &str, chunks: u64) {
    post_gap(
        element,
        reason,
        summary.start,
        summary.duration,
        summary.size,
        summary.sequence,
        chunks,
    );
}

/// Reports the first chunk that was given up after `timeout` ns. `why` is the error of its attempts or of others; empty if no
/// attempt has ended.
pub(super) fn given_up(element: &gst::Element, summary: &Summary, timeout: u64, why: &str) {
    let why = if why.is_empty() { "no attempt had ended by then" } else { why };
    gst::element_warning!(
        element,
        gst::ResourceError::Write,
        (
            "a chunk of {} recorded at {} was given up after the retry-timeout of {} and is lost: {why}; check the uplink, raise retry-timeout or set it to 0 (for ever). Chunks given up later are reported by gcssink-gap messages alone",
            bytes(summary.size),
            rfc3339_ms(summary.start),
            duration(timeout)
        )
    );
}

/// Posts a WARNING about the uploads.
pub(super) fn warning(element: &gst::Element, text: &str) {
    gst::element_warning!(element, gst::ResourceError::Write, ("{text}"));
}

/// Reports that the spool works again.
pub(super) fn disk_works(element: &gst::Element) {
    post_info(element, gst::ResourceError::Write, "the spool takes chunks again");
}

/// Formats a number of chunks and their total size.
pub(super) fn amount(pending: Pending) -> String {
    format!("{} of {}", chunks(pending.chunks), bytes(pending.bytes))
}

/// Describes what a stop without EOS could not store, for the terminal; `None` if there is nothing to report. `dir` is the
/// property `spool-dir`.
pub(super) fn unfinished(unfinished: &Unfinished, dir: Option<&str>, timeout: Duration) -> Option<String> {
    let (lost, left) = (unfinished.lost, unfinished.left);
    if let Some(dir) = dir {
        return (lost.bytes > 0 || left.chunks > 0).then(|| left_text(left, lost, dir));
    }
    if lost.bytes == 0 {
        return None;
    }
    let (lost, why) = (amount(lost), &unfinished.why);
    Some(if unfinished.is_refused {
        format!("not stored and lost: {lost}, since the uploads are refused: {why}")
    } else {
        let why = if why.is_empty() { "the time was too short" } else { why };
        format!(
            "not stored within the shutdown-timeout of {} and lost: {lost}: {why}; let the pipeline end by EOS (gst-launch-1.0 -e), raise shutdown-timeout, or set spool-dir",
            span(timeout)
        )
    })
}

/// Describes, for the terminal, that all input was dropped.
pub(super) fn nothing_of(received: u64) -> String {
    format!(
        "nothing was stored: {} came before the stop, but no key unit among them; check the key frame interval of the camera",
        bytes(received)
    )
}

/// Reports chunks that stay on disk until the next start. `lost`: chunks that reached neither the bucket nor the disk in time.
pub(super) fn left(element: &gst::Element, left: Pending, lost: Pending, dir: &str) {
    gst::element_warning!(element, gst::ResourceError::Write, ("{}", left_text(left, lost, dir)));
}

fn left_text(left: Pending, lost: Pending, dir: &str) -> String {
    let lost = match lost.bytes {
        0 => String::new(),
        size => format!(
            "; another {} were in memory alone when the timeout ended and are lost, because spool-dir did not take them: make room there, raise max-spool-bytes, drain-timeout or shutdown-timeout",
            bytes(size)
        ),
    };
    format!(
        "not stored yet: {}, which wait in spool-dir {dir}; the next gcssink that starts with this spool-dir stores them{lost}",
        amount(left)
    )
}

/// Reports chunks of earlier sessions found on disk.
pub(super) fn found(element: &gst::Element, pending: Pending) {
    let text = format!(
        "earlier sessions left {} in the spool, which this one stores now",
        amount(pending)
    );
    post_info(element, gst::ResourceError::Write, &text);
}

/// Reports that this machine's clock differs from the server's by `seconds` (ours minus the server's).
pub(super) fn clock_off(element: &gst::Element, seconds: i64) {
    let off = seconds.unsigned_abs().saturating_mul(1_000_000_000);
    gst::element_warning!(
        element,
        gst::ResourceError::Settings,
        (
            "this machine's clock is {} {} the server's; names and start-time follow this machine, customTime is left out: set the clock (NTP)",
            duration(off),
            if seconds > 0 { "ahead of" } else { "behind" }
        )
    );
}

/// Reports that writing to disk fails. Chunks then stay in memory, where `overflow-policy` applies.
pub(super) fn disk(element: &gst::Element, fault: DiskFault, text: &str) {
    let next = "what it does not take is held in memory and then overflow-policy decides; it is tried again automatically";
    match fault {
        DiskFault::Full => gst::element_warning!(
            element,
            gst::ResourceError::NoSpaceLeft,
            ("the spool is full: {text}; {next}")
        ),
        DiskFault::Fails => gst::element_warning!(
            element,
            gst::ResourceError::Write,
            ("the spool cannot be written: {text}; {next}")
        ),
        DiskFault::Hung => gst::element_warning!(
            element,
            gst::ResourceError::Write,
            ("the spool does not answer: {text}; recording goes on in memory and then overflow-policy decides; it is tried again every 10 s: check the disk or the mount")
        ),
    }
}

/// Reports that the server has confirmed a chunk.
pub(super) fn uploaded(
    element: &gst::Element,
    info: &Summary,
    (object, device): (&str, &str),
    generation: i64,
    crc32c: u32,
    latency: u64,
) {
    let structure = gst::Structure::builder(chunk_uploaded::NAME)
        .field(chunk_uploaded::OBJECT, object)
        .field(chunk_uploaded::SESSION_ID, &*info.session)
        .field(chunk_uploaded::GENERATION, generation)
        .field(chunk_uploaded::SIZE, info.size)
        .field(chunk_uploaded::SEQUENCE, info.sequence)
        .field(chunk_uploaded::RUNNING_TIME, info.running.unwrap_or(u64::MAX))
        .field(chunk_uploaded::DURATION, info.duration)
        .field(chunk_uploaded::LATENCY, latency)
        .field(chunk_uploaded::CRC32C, crc32c)
        .field(chunk_uploaded::START_TIME, rfc3339_ms(info.start))
        .field(chunk_uploaded::DEVICE_ID, device)
        .build();
    post_structure(element, structure);
}

fn post_gap(element: &gst::Element, reason: &str, start: u64, length: u64, size: u64, first: u64, number: u64) {
    let structure = gst::Structure::builder(gap::NAME)
        .field(gap::START_TIME, rfc3339_ms(start))
        .field(gap::REASON, reason)
        .field(gap::DURATION, length)
        .field(gap::BYTES, size)
        .field(gap::FIRST_SEQUENCE, first)
        .field(gap::CHUNKS, number)
        .build();
    post_structure(element, structure);
}

fn post_structure(element: &gst::Element, structure: gst::Structure) {
    // Fails without a bus, when no application receives messages.
    let _ = element.post_message(gst::message::Element::builder(structure).src(element).build());
}

/// Formats the number, size and age of the waiting chunks.
pub(super) fn waiting(pending: Pending) -> String {
    match pending.chunks {
        0 => "nothing waits".to_owned(),
        _ => format!("{} wait, the oldest for {}", amount(pending), duration(pending.oldest)),
    }
}

/// Reports a change of the status.
pub(super) fn status(element: &gst::Element, status: Status, reason: &str, pending: Pending) {
    let structure = gst::Structure::builder(names::NAME)
        .field(names::STATUS, status.name())
        .field(names::REASON, reason)
        .field(names::PENDING_BYTES, pending.bytes)
        .field(names::PENDING_CHUNKS, pending.chunks)
        .field(names::OLDEST_PENDING, pending.oldest)
        .build();
    post_structure(element, structure);
}

/// Reports that an outage begins (`first`) or continues. `left` describes how long memory and spool last.
pub(super) fn outage(element: &gst::Element, first: bool, reason: &str, pending: Pending, left: &str) {
    let verb = if first { "uploads fail" } else { "uploads still fail" };
    let waiting = waiting(pending);
    gst::element_warning!(
        element,
        gst::ResourceError::Write,
        ("{verb}: {reason}; {waiting}; {left}; it is tried again automatically")
    );
}

/// Posts the ERROR for a refusal when nothing was ever stored: the user has to act.
pub(super) fn fatal(element: &gst::Element, http_status: Option<u16>, reason: &str) {
    gst::element_error!(element, refusal(http_status), ("{reason}"));
}

/// Posts the WARNING for a refusal that ends nothing yet: the user has to act.
pub(super) fn refused(element: &gst::Element, http_status: Option<u16>, reason: &str, pending: Pending) {
    let waiting = waiting(pending);
    gst::element_warning!(
        element,
        refusal(http_status),
        ("uploads are refused: {reason}; {waiting}; recording goes on, it is tried again every 60 s")
    );
}

/// Reports the end of an outage that lasted `after` ns; `waiting` describes the remaining backlog.
pub(super) fn recovered(element: &gst::Element, after: u64, waiting: &str) {
    let text = format!("uploads work again after {}; {waiting}", duration(after));
    post_info(element, gst::ResourceError::Write, &text);
}

/// Returns the error code of a refusal; `None` means that the credentials were refused.
fn refusal(http_status: Option<u16>) -> gst::ResourceError {
    match http_status {
        Some(404) => gst::ResourceError::NotFound,
        Some(401 | 403) | None => gst::ResourceError::NotAuthorized,
        Some(_) => gst::ResourceError::Settings,
    }
}
