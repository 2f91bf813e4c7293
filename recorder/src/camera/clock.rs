//! Measures the error of a camera's clock while it is recorded, from its RTCP.
//!
//! A sender report pairs the camera's time with an RTP time stamp, and a packet of pictures shows the current time stamp. (The
//! property `add-reference-timestamp-meta`, which `probe` uses, is not for recordings: it would date them by the camera's clock,
//! right or wrong.)

use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use gst::glib;
use gst::prelude::*;

/// Seconds from 1900, where NTP begins, to 1970, and seconds of an NTP era. The second era begins in 2036.
const NTP_TO_UNIX: f64 = 2_208_988_800.0;
const ERA: f64 = 4_294_967_296.0;
/// RTP clock rate of H.264 and H.265, in Hz (RFC 6184, RFC 7798).
const CLOCK_RATE: f64 = 90_000.0;
/// How long to wait for a packet of pictures.
const PATIENCE: Duration = Duration::from_secs(2);

/// SSRC and RTP time stamp of a packet, and our clock when it arrived.
#[derive(Clone, Copy, Debug)]
struct Packet {
    ssrc: u32,
    timestamp: u32,
    now: SystemTime,
}

/// A sender report: NTP time in units of 2⁻³² s, and the RTP time stamp of the same moment.
#[derive(Clone, Copy, Debug)]
struct Report {
    ntp: u64,
    timestamp: u32,
}

/// Returns the camera's clock minus ours, in s; `None` if no report or no packet has arrived. Blocks for at most [`PATIENCE`].
pub(super) fn error(source: &gst::Element, feed: &gst::Pad) -> Option<f64> {
    let (to, packets) = channel();
    let probe = feed.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data
            && let Some(packet) = packet(buffer)
        {
            let _ = to.send(packet);
            return gst::PadProbeReturn::Remove;
        }
        gst::PadProbeReturn::Ok
    })?;
    let Ok(packet) = packets.recv_timeout(PATIENCE) else {
        feed.remove_probe(probe);
        return None;
    };
    Some(difference(report(source, packet.ssrc)?, packet))
}

fn packet(buffer: &gst::Buffer) -> Option<Packet> {
    let data = buffer.map_readable().ok()?;
    // The fixed header of RTP: RFC 3550, 5.1.
    let word = |at: usize| data.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    Some(Packet {
        timestamp: word(4)?,
        ssrc: word(8)?,
        now: SystemTime::now(),
    })
}

fn report(source: &gst::Element, ssrc: u32) -> Option<Report> {
    let inside = source.downcast_ref::<gst::Bin>()?.children();
    let is_manager = |element: &gst::Element| element.factory().is_some_and(|factory| factory.name() == "rtpbin");
    let manager = inside.into_iter().find(is_manager)?;
    // `rtspsrc` numbers the sessions by the order of the streams in the SDP.
    (0..8u32).find_map(|session| {
        let session = manager.emit_by_name::<Option<glib::Object>>("get-internal-session", &[&session])?;
        let stats = session.property::<gst::Structure>("stats");
        let sources = stats.get::<glib::ValueArray>("source-stats").ok()?;
        sources.iter().find_map(|source| {
            let source = source.get::<gst::Structure>().ok()?;
            let is_it = source.get::<u32>("ssrc") == Ok(ssrc) && source.get::<bool>("have-sr") == Ok(true);
            let (ntp, timestamp) = (source.get("sr-ntptime").ok()?, source.get("sr-rtptime").ok()?);
            is_it.then_some(Report { ntp, timestamp })
        })
    })
}

fn difference(report: Report, packet: Packet) -> f64 {
    let seconds = f64::from(u32::try_from(report.ntp >> 32).unwrap_or(0));
    let fraction = f64::from(u32::try_from(report.ntp & 0xffff_ffff).unwrap_or(0)) / ERA;
    // In the first era, seconds below 2³¹ would be before 1968, so they belong to the second.
    let era = if seconds < ERA / 2.0 { ERA } else { 0.0 };
    // RTP time stamps wrap at 2³², and a picture may be a little older than the report: take the difference as signed.
    let since = f64::from(packet.timestamp.wrapping_sub(report.timestamp).cast_signed()) / CLOCK_RATE;
    let ours = packet
        .now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |now| now.as_secs_f64());
    seconds + fraction + era - NTP_TO_UNIX + since - ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(ntp: u64, timestamps: (u32, u32), unix: u64) -> f64 {
        let report = Report {
            ntp: ntp << 32 | 1 << 31,
            timestamp: timestamps.0,
        };
        let packet = Packet {
            ssrc: 1,
            timestamp: timestamps.1,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(unix),
        };
        difference(report, packet)
    }

    #[test]
    fn the_error_is_that_of_the_moment_also_where_time_stamps_and_ntp_begin_again() {
        let now = 1_795_000_000;
        let right = now + 2_208_988_800;
        assert_eq!(off(right, (0, 0), now), 0.5);
        assert_eq!(off(right, (0, 270_000), now + 3), 0.5, "3 s later");
        assert_eq!(off(right, (u32::MAX - 44_999, 45_000), now + 1), 0.5);
        assert_eq!(off(right, (90_000, 0), now - 1), 0.5, "a picture older than the report");
        assert_eq!(off(2_208_988_800, (0, 0), now), 0.5 - 1_795_000_000.0, "1970");
        assert_eq!(off(0, (0, 0), 2_085_978_496), 0.5, "2036");
    }
}
