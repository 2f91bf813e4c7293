//! The streaming thread: from a buffer to the recorder, with room made for it before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;

use super::ending::End;
use super::imp::GcsSink;
use super::messages::Post;
use super::session::Session;
use super::settings::OverflowPolicy;
use super::upstream;
use crate::sync::lock;
use crate::upload::uploads::{NoRoom, Overflow};
use crate::wall;
use gcstreamer_media::chunk::byte_queue::TAKE_OVER;
use gcstreamer_media::chunk::clock::Stamp;

/// Seconds between the epochs of NTP (1900) and Unix (1970), RFC 5905.
const NTP_TO_UNIX: u64 = 2_208_988_800;

impl GcsSink {
    fn stamp(&self, buffer: &gst::BufferRef) -> Stamp {
        let obj = self.obj();
        let running = buffer.pts().or(buffer.dts()).and_then(|pts| {
            let segment = obj.segment();
            let running = segment.downcast_ref::<gst::ClockTime>()?.to_running_time_full(pts)?;
            match running.nseconds() {
                gst::Signed::Positive(ns) => i64::try_from(ns).ok(),
                gst::Signed::Negative(ns) => i64::try_from(ns).ok().map(|ns| -ns),
            }
        });
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
            clock_running: obj.current_running_time().map(gst::ClockTime::nseconds),
            wall: wall::now(),
            reference,
        }
    }

    pub(super) fn take(
        &self,
        session: &Session,
        buffer: &gst::BufferRef,
        owned: impl Fn() -> Option<gst::Buffer>,
    ) -> Result<(), gst::FlowError> {
        if session.failed.load(Ordering::Relaxed) {
            return Err(gst::FlowError::Error);
        }
        if session.new_playing.swap(false, Ordering::Relaxed) {
            let live = upstream::is_live(&self.sink_pad());
            session.live.store(live, Ordering::Relaxed);
            session.recorder().chunker.clock.playing(live && !session.in_splitmuxsink);
        }
        let stamp = self.stamp(buffer);
        let size = buffer.size();
        self.make_room(session, size as u64)?;
        let map = buffer.map_readable().map_err(|_| {
            session.uploads.release(size as u64);
            gst::element_imp_error!(
                self,
                gst::ResourceError::Read,
                ("a buffer of {size} bytes cannot be mapped for reading")
            );
            gst::FlowError::Error
        })?;
        // A block of memory much larger than what is in it is not worth holding.
        let take_over = || {
            let is_tight = size >= TAKE_OVER && buffer.maxsize() <= size + size / 64;
            let mapped = is_tight.then(&owned).flatten()?.into_mapped_buffer_readable().ok()?;
            Some(Bytes::from_owner(mapped))
        };
        let (outcome, wants_key_unit, too_large) = {
            let mut recorder = loop {
                let recorder = session.recorder();
                if !recorder.stopped {
                    break recorder;
                }
                // Another sink of the pipeline has left PAUSED, and our last chunk is closed: what comes now waits with the base
                // class, as in PAUSED, until the flush that is near.
                drop(recorder);
                self.obj()
                    .wait_preroll()
                    .inspect_err(|_| session.uploads.take_back(size as u64))?;
            };
            if buffer.flags().contains(gst::BufferFlags::DISCONT) {
                recorder.chunker.discont();
            }
            let outcome = recorder.push(map.as_slice(), take_over, stamp);
            session.key_units.store(recorder.chunker.key_units(), Ordering::Relaxed);
            (outcome, std::mem::take(&mut recorder.wants_key_unit), recorder.too_large)
        };
        if let Err(fault) = outcome {
            return Err(session.end_with(Post::Fault(fault)));
        }
        if let Some(bytes) = too_large {
            return Err(session.end_with(Post::TooLarge(bytes)));
        }
        if wants_key_unit && lock(&self.settings).send_keyframe_requests {
            let count = session.key_requests.fetch_add(1, Ordering::Relaxed);
            upstream::request_key_unit(&self.sink_pad(), u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Charges the memory; waits, drops or fails by the policy, and goes on with the same buffer after a pause.
    fn make_room(&self, session: &Session, bytes: u64) -> Result<(), gst::FlowError> {
        loop {
            let overflow = match lock(&self.settings).overflow_policy {
                OverflowPolicy::Auto if session.live.load(Ordering::Relaxed) => Overflow::DropOldest,
                OverflowPolicy::Auto | OverflowPolicy::Block => Overflow::Block,
                OverflowPolicy::DropOldest => Overflow::DropOldest,
                OverflowPolicy::Error => Overflow::Error,
            };
            match session.uploads.charge(bytes, overflow) {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    session.recorder().move_open_to_disk();
                    return Ok(());
                }
                Err(NoRoom::MoveOpen) => session.recorder().move_open_to_disk(),
                Err(NoRoom::Full) => return Err(session.end_with(Post::Full)),
                Err(NoRoom::Refused) => return Err(session.end_with(Post::Refused(session.uploads.last_reason()))),
                Err(NoRoom::CutOpen) => {
                    let before = session.uploads.snapshot().pending.chunks;
                    session.recorder().make_room();
                    if session.uploads.snapshot().pending.chunks <= before {
                        session.uploads.drop_sent();
                    }
                }
                Err(NoRoom::Again) => {}
                Err(NoRoom::Nothing) => {
                    session.recorder().make_room();
                    if session.uploads.snapshot().pending.chunks == 0 {
                        session.uploads.charge_anyway(bytes);
                        return Ok(());
                    }
                }
                Err(NoRoom::Interrupted) if session.failed.load(Ordering::Relaxed) => return Err(gst::FlowError::Error),
                Err(NoRoom::Interrupted) => {
                    self.obj().wait_preroll()?;
                }
            }
        }
    }

    pub(super) fn drain(&self, session: &Session) -> End {
        let timeout = Duration::from_nanos(lock(&self.settings).drain_timeout);
        // splitmuxsink begins the next fragment when this EOS has passed.
        let until_spooled = session.spool.is_some() && session.in_splitmuxsink;
        session.drain(&self.obj(), timeout, until_spooled)
    }
}
