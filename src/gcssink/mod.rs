//! `gcssink`: stores a muxed stream in Cloud Storage as objects that each play alone.
//!
//! The GStreamer shell around [`crate::ingest`] and [`crate::upload`]: it copies settings, passes buffers, events and state
//! changes to the engine, and translates the engine's messages into GStreamer's.
//!
//! - `imp` — virtual methods, properties, signals
//! - `settings` — the properties
//! - `validate` — settings checked and converted, or an error with the next step
//! - `session` — the engine and its GStreamer side, while the element runs
//! - `stream` — passes buffers to the engine
//! - `siblings` — the sinks of a pipeline drain concurrently
//! - `compose`, `messages`, `stream_messages`, `stats`, `reported_once` — what is posted and with which figures; the texts; the figures;
//!   what was reported already
//! - `debug` — the debug category; logs the life of each chunk
//! - `blocks` — reused memory
//! - `caps`, `upstream` — inspect the caps and the upstream elements

use gst::glib;
use gst::prelude::*;

mod blocks;
mod caps;
mod compose;
mod debug;
mod imp;
mod messages;
mod reported_once;
mod session;
mod settings;
mod siblings;
mod stats;
mod stream;
mod stream_messages;
mod upstream;
mod validate;

pub use session::outlast_refusals;

glib::wrapper! {
    /// SECTION:element-gcssink
    ///
    /// Stores a muxed stream in a Google Cloud Storage bucket as a sequence of objects, called chunks. Each chunk plays alone: it
    /// begins with the header of its container and with a key unit, and every frame in it decodes.
    ///
    /// The sink takes FLV, MPEG-TS, fragmented MP4, Matroska and WebM, from a muxer, a file, a pipe or a socket. It looks at the
    /// bytes, not at flags of buffers. A new chunk begins at the first key unit after `max-size-time` (10 s) or
    /// `max-size-bytes`. Closed chunks are uploaded in the background, the newest first, and are retried until the server has
    /// confirmed them.
    ///
    /// ## Example launch lines
    ///
    /// Record a test picture in chunks of two seconds:
    ///
    /// ```sh
    /// gst-launch-1.0 -e videotestsrc num-buffers=150 ! video/x-raw,format=I420 ! x264enc tune=zerolatency key-int-max=30 \
    ///   ! h264parse ! flvmux streamable=true \
    ///   ! gcssink bucket=MY-BUCKET device-id=cam1 max-size-time=2000000000
    /// ```
    ///
    /// Record MPEG-TS, and keep chunks on disk until they are stored, so that they survive a crash or a power cut:
    ///
    /// ```sh
    /// gst-launch-1.0 -e videotestsrc num-buffers=150 ! video/x-raw,format=I420 ! x264enc tune=zerolatency key-int-max=30 \
    ///   ! h264parse config-interval=-1 ! mpegtsmux \
    ///   ! gcssink bucket=MY-BUCKET device-id=cam1 spool-dir=/var/lib/gcstreamer
    /// ```
    ///
    /// Record a camera:
    ///
    /// ```sh
    /// # needs a camera
    /// gst-launch-1.0 -e rtspsrc location=rtsp://CAMERA/stream latency=200 ! rtph264depay ! h264parse \
    ///   ! flvmux streamable=true ! gcssink bucket=MY-BUCKET device-id=cam1
    /// ```
    ///
    /// ## Limits
    ///
    /// - Elementary streams, raw video and MP4 that is not fragmented are refused. The ERROR names the muxer to use.
    /// - A chunk begins at a key unit, so it can be no shorter than the camera's key interval.
    /// - MPEG-TS from `h264parse` needs `config-interval=-1`: otherwise only the first chunk has SPS and PPS.
    /// - At most `max-memory-bytes` (64 MiB) of payload are held in memory. Without `spool-dir` an outage is survived only for as
    ///   long as this memory lasts.
    /// - Uploads keep below 20 MB/s and 10 requests a second. All sinks of the process with the same `flow-group` share these
    ///   limits.
    /// - Two running sinks of a process may not have the same `bucket` and `device-id`.
    ///
    /// ## Manners
    ///
    /// - A slow or unreachable server is never an ERROR. It is one WARNING, the property `status`, and chunks that wait. Missing
    ///   rights and wrong credentials are an ERROR as long as nothing was stored in this session.
    /// - When memory and spool are full, a live pipeline loses its oldest chunk and another pipeline waits (`overflow-policy`).
    ///   Every loss is posted as an element message `gcssink-gap`.
    /// - EOS waits up to `drain-timeout` (30 s) until all chunks are stored. Going from PAUSED to READY without EOS waits up to
    ///   `shutdown-timeout` (5 s).
    /// - Objects are never overwritten, and a retry never makes a second one. The only permission needed is
    ///   `storage.objects.create`.
    /// - Messages are posted from a thread of GStreamer's, not from the upload threads: a slow handler stops no upload.
    /// - SIGTERM ends `gst-launch-1.0` at once, without a state change. Stop it by SIGINT and `-e`.
    pub struct GcsSink(ObjectSubclass<imp::GcsSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

/// Registers the element.
///
/// # Errors
/// Returns the error of GStreamer's registry.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "gcssink", gst::Rank::NONE, GcsSink::static_type())
}
