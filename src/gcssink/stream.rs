//! The streaming thread: from a buffer to the engine.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use gst::prelude::*;
use gst_base::prelude::*;

use super::caps;
use super::debug::CAT;
use super::session::Session;
use super::upstream;
use crate::base::lock::lock;
use crate::base::wall;
use crate::ingest::message::{Refusal, Wait};
use gcstreamer_media::chunk::byte_queue::TAKE_OVER;
use gcstreamer_media::chunk::clock::Stamp;
use gcstreamer_schema::units::bytes;

/// Seconds between the epochs of NTP (1900) and Unix (1970), RFC 5905.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// How the streaming thread waits. The base class holds its preroll lock during `render` and EOS. A pause or a stop needs that
/// lock, so a wait must release it through `wait_preroll`.
pub(super) struct Preroll<'a>(pub(super) &'a gst_base::BaseSink);

impl Wait for Preroll<'_> {
    type Flow = gst::FlowError;

    fn wait_preroll(&self) -> Result<(), gst::FlowError> {
        self.0.wait_preroll().map(|_| ())
    }
}

fn refused(refusal: Refusal<gst::FlowError>) -> gst::FlowError {
    match refusal {
        Refusal::Flow(flow) => flow,
        Refusal::Failed => gst::FlowError::Error,
    }
}

/// Returns the running time of a buffer, ns.
fn running(sink: &gst_base::BaseSink, buffer: &gst::BufferRef, is_muxed: bool) -> Option<i64> {
    let pts = buffer.pts().or(buffer.dts())?;
    let segment = sink.segment();
    let Some(segment) = segment.downcast_ref::<gst::ClockTime>() else {
        // mp4mux has a segment in bytes, and its buffers have the running times of its input. From other elements, the timestamps
        // of such a stream have no known meaning.
        let is_counted_in_bytes = is_muxed && segment.format() == gst::Format::Bytes;
        return i64::try_from(pts.nseconds()).ok().filter(|_| is_counted_in_bytes);
    };
    match segment.to_running_time_full(pts)?.nseconds() {
        gst::Signed::Positive(ns) => i64::try_from(ns).ok(),
        gst::Signed::Negative(ns) => i64::try_from(ns).ok().map(|ns| -ns),
    }
}

fn stamp(sink: &gst_base::BaseSink, buffer: &gst::BufferRef, session: &Session) -> Stamp {
    let running = running(sink, buffer, session.is_muxed.load(Ordering::Relaxed));
    let reference = buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
        let time = meta.timestamp().nseconds();
        match meta.reference().structure(0)?.name().as_str() {
            "timestamp/x-ntp" => time.checked_sub(NTP_TO_UNIX * 1_000_000_000),
            "timestamp/x-unix" => Some(time),
            _ => None,
        }
    });
    Stamp {
        running,
        clock_running: sink.current_running_time().map(gst::ClockTime::nseconds),
        wall: wall::now(),
        reference,
        held: session.engine.held(),
    }
}

/// Takes the stream header from the caps if the stream does not begin with one: this sink was linked after the muxer had sent it.
fn take_head(sink: &gst_base::BaseSink, session: &Session, first: &gst::BufferRef) -> Result<(), gst::FlowError> {
    let head = std::mem::take(&mut *lock(&session.head));
    let opens = |data: &[u8]| {
        let of_caps = head.first().and_then(|part| part.map_readable().ok());
        caps::opens(data, of_caps.as_ref().map_or(&[][..], |part| part.as_slice()))
    };
    if first.map_readable().is_ok_and(|data| opens(&data)) {
        return Ok(());
    }
    gst::info!(
        CAT,
        obj = sink,
        "the stream has no head: that of its caps is taken, {} buffers",
        head.len()
    );
    for part in head {
        take(sink, session, &part, || Some(part.clone()))?;
    }
    Ok(())
}

/// Takes a buffer. Returns whether a key unit from upstream is wanted.
///
/// # Errors
/// The value that `render` must return.
pub(super) fn take(
    sink: &gst_base::BaseSink,
    session: &Session,
    buffer: &gst::BufferRef,
    owned: impl Fn() -> Option<gst::Buffer>,
) -> Result<bool, gst::FlowError> {
    let engine = &session.engine;
    if engine.is_failed() {
        return Err(gst::FlowError::Error);
    }
    // An empty buffer does not show what the stream begins with.
    if buffer.size() > 0 && session.has_head.swap(false, Ordering::Relaxed) {
        take_head(sink, session, buffer)?;
    }
    if session.new_playing.swap(false, Ordering::Relaxed) {
        let pads = sink.sink_pads();
        // Asked with the first buffer and not at the state change: before data has arrived, the latency query answers "not live".
        let is_live = pads.first().is_some_and(upstream::is_live);
        engine.set_live(is_live);
        let is_muxed = pads.first().is_some_and(upstream::is_muxed);
        session.is_muxed.store(is_muxed, Ordering::Relaxed);
        engine.with(|ingest| {
            // The running time of a fragment of splitmuxsink is not that of the pipeline, so it cannot date a live stream.
            ingest.chunker.clock.playing(is_live && !session.in_splitmuxsink);
            ingest.chunker.clock.set_muxed(is_muxed);
        });
    }
    let stamp = stamp(sink, buffer, session);
    let size = buffer.size();
    gst::log!(
        CAT,
        obj = sink,
        "a buffer of {size} bytes, pts {}, dts {}, {:?}",
        buffer.pts().display(),
        buffer.dts().display(),
        buffer.flags()
    );
    let preroll = Preroll(sink);
    engine.reserve(size as u64, &preroll).map_err(refused)?;
    let map = buffer.map_readable().map_err(|_| {
        engine.give_back(size as u64);
        gst::element_error!(
            sink,
            gst::ResourceError::Read,
            ("a buffer of {} cannot be mapped for reading", bytes(size as u64))
        );
        gst::FlowError::Error
    })?;
    // A large buffer is taken over without a copy, unless that would keep a block of memory much larger than its content.
    let take_over = || {
        let is_tight = size >= TAKE_OVER && buffer.maxsize() <= size + size / 64;
        let mapped = is_tight.then(&owned).flatten()?.into_mapped_buffer_readable().ok()?;
        Some(Bytes::from_owner(mapped))
    };
    let is_discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
    engine
        .push(map.as_slice(), take_over, stamp, is_discont, &preroll)
        .map_err(refused)
}
