//! Corrects time stamps of pictures: several pictures with the same time ([`separate`]), and times that a timestamper has moved
//! ([`align`]).
//!
//! `h264timestamper` and `h265timestamper` move all time stamps to 1000 hours, so that decoding times can be earlier than the
//! first picture. They should move the segment with them, but in GStreamer 1.22.0 they do not: the running times of pictures and
//! sound are then 1000 hours apart, and a muxer that interleaves waits for ever (seen with `mpegtsmux`). [`align`] moves the
//! times back. It changes nothing if the segment was moved.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use gst::prelude::*;
use gstgcstreamer::base::lock::lock;

use super::watch::{EventSender, PipelineEvent};

/// A difference of running times from this on, in ns, is a shift and not a rounding error.
const APART: u64 = 1_000_000_000;

#[derive(Default)]
struct Alignment {
    before: Option<gst::FormattedSegment<gst::ClockTime>>,
    after: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// Running time of the first picture in front of the timestamper, in ns.
    first: Option<u64>,
    /// What to subtract from every time stamp, in ns.
    excess: Option<u64>,
}

fn running(segment: Option<&gst::FormattedSegment<gst::ClockTime>>, buffer: &gst::BufferRef) -> Option<u64> {
    Some(segment?.to_running_time(buffer.pts()?)?.nseconds())
}

/// Returns how far the running time of one picture was moved, in ns; 0 if it was not.
fn excess(before: u64, after: u64) -> u64 {
    match after.saturating_sub(before) {
        moved if moved >= APART => moved,
        _ => 0,
    }
}

fn segment_of(event: &gst::EventRef) -> Option<gst::FormattedSegment<gst::ClockTime>> {
    match event.view() {
        gst::EventView::Segment(segment) => segment.segment().downcast_ref::<gst::ClockTime>().cloned(),
        _ => None,
    }
}

/// Corrects the time stamps behind a timestamper. Call it before the first buffer.
pub(super) fn align(timestamper: &gst::Element) {
    let (Some(front), Some(back)) = (timestamper.static_pad("sink"), timestamper.static_pad("src")) else {
        return;
    };
    let state: Arc<Mutex<Alignment>> = Arc::default();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    let shared = Arc::clone(&state);
    front.add_probe(kinds, move |_, info| {
        let mut state = lock(&shared);
        match &info.data {
            Some(gst::PadProbeData::Event(event)) => state.before = segment_of(event).or(state.before.take()),
            Some(gst::PadProbeData::Buffer(buffer)) if state.first.is_none() => {
                state.first = running(state.before.as_ref(), buffer);
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    back.add_probe(kinds, move |_, info| {
        let mut state = lock(&state);
        match &mut info.data {
            Some(gst::PadProbeData::Event(event)) => state.after = segment_of(event).or(state.after.take()),
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if state.excess.is_none()
                    && let (Some(before), Some(after)) = (state.first, running(state.after.as_ref(), buffer))
                {
                    state.excess = Some(excess(before, after));
                }
                if let Some(excess) = state.excess.filter(|excess| *excess > 0) {
                    let excess = gst::ClockTime::from_nseconds(excess);
                    let buffer = buffer.make_mut();
                    let (pts, dts) = (buffer.pts(), buffer.dts());
                    buffer.set_pts(pts.map(|time| time.saturating_sub(excess)));
                    // Saturates at 0: the first pictures of a stream with B-frames would be decoded before time 0.
                    buffer.set_dts(dts.map(|time| time.saturating_sub(excess)));
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Gives pictures in a row that have the same time times of their own, 1 ms apart. The jitter buffer gives one time to pictures
/// that a camera collects and sends in a burst, and players show only the last of them. If time stamps freeze for longer than
/// [`Separation::PATIENCE`], pictures get their arrival times.
pub(super) fn separate(pad: &gst::Pad, event_sender: &EventSender) {
    let (state, event_sender, began) = (Mutex::new(Separation::default()), event_sender.clone(), Instant::now());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let time = buffer.pts().map(gst::ClockTime::nseconds);
            let now = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let (own, has_stopped) = {
                let mut state = lock(&state);
                let stood_still = state.stands_still;
                (state.next(time, now), state.stands_still && !stood_still)
            };
            if has_stopped {
                event_sender.send(PipelineEvent::Warning(STANDS_STILL.to_owned()));
            }
            if own != time {
                buffer.make_mut().set_pts(own.map(gst::ClockTime::from_nseconds));
            }
        }
        gst::PadProbeReturn::Ok
    });
}

const STANDS_STILL: &str = "the time stamps of the camera's pictures stand still, so they are dated by their arrival; restart the camera, or renew its firmware";

/// State of [`separate`]. Times are in ns.
#[derive(Debug, Default)]
struct Separation {
    /// The time of the last picture, and the time that it was given.
    last: Option<(u64, u64)>,
    /// Of the first picture with the current time: when it arrived, and the time that it was given.
    first: Option<(u64, u64)>,
    /// Whether pictures have had the same time for longer than [`Self::PATIENCE`].
    stands_still: bool,
}

impl Separation {
    // FLV and Matroska count milliseconds: closer pictures would get the same time again.
    const STEP: u64 = 1_000_000;
    /// A burst of collected pictures arrives within this time.
    const PATIENCE: u64 = 1_000_000_000;

    /// Returns the time for a picture that arrives at `now`. `time` is `None` if the picture has the time of the one before it:
    /// the parser omits it then.
    fn next(&mut self, time: Option<u64>, now: u64) -> Option<u64> {
        let is_one = |(before, own): &(u64, u64)| {
            // After a freeze, the camera's times continue below those that were given meanwhile: correct them until they
            // overtake.
            time.is_none_or(|time| time < own + Self::STEP && (self.stands_still || time >= *before))
        };
        let own = match self.last.filter(is_one) {
            Some((_, own)) => {
                let (came, first) = *self.first.get_or_insert((now, own));
                let passed = now.saturating_sub(came);
                self.stands_still |= passed > Self::PATIENCE;
                let arrival = if self.stands_still { first + passed } else { 0 };
                arrival.max(own + Self::STEP)
            }
            None => {
                let time = time?;
                (self.first, self.stands_still) = (Some((now, time)), false);
                time
            }
        };
        self.last = Some((time.unwrap_or(own), own));
        Some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_one_time_get_times_of_their_own_and_others_keep_theirs() {
        let mut separation = Separation::default();
        let ms = |ms: u64| ms * 1_000_000;
        let times = [0, 715, 715, 715, 774, 740, 867].map(|time| separation.next(Some(ms(time) + time % 2), ms(time)).unwrap());
        assert_eq!(
            times,
            [0, 715_000_001, 716_000_001, 717_000_001, ms(774), ms(740), 867_000_001]
        );
    }

    #[test]
    fn pictures_whose_times_stand_still_get_those_of_their_arrival() {
        let ms = |ms: u64| ms * 1_000_000;
        // Three kinds of freeze: the same time, no time (the parser omits a repeated one), and a clock in a wrong unit, which
        // creeps.
        let stopped = |_: u64| Some(ms(70));
        let nameless = |at: u64| (at == 0).then_some(ms(70));
        let creeps = |at: u64| Some(ms(70) + at * 1000);
        for time in [&stopped as &dyn Fn(u64) -> Option<u64>, &nameless, &creeps] {
            let mut separation = Separation::default();
            let owns: Vec<u64> = (0..50)
                .map(|n| separation.next(time(n * 100), ms(n * 100)).unwrap())
                .collect();
            assert!(owns.is_sorted_by(|a, b| a < b), "{owns:?}");
            assert_eq!(owns.last(), Some(&ms(70 + 4900)));
            assert!(separation.stands_still);
            // The times continue below those that were given, then jump above them.
            assert_eq!(separation.next(Some(ms(200)), ms(5000)), Some(ms(5070)));
            assert_eq!(separation.next(Some(ms(100)), ms(5100)), Some(ms(5170)));
            assert_eq!(separation.next(Some(ms(9000)), ms(5200)), Some(ms(9000)));
            assert!(!separation.stands_still);
        }
        // A burst, however many pictures are in it.
        let mut separation = Separation::default();
        let owns: Vec<u64> = (0..60).map(|n| separation.next(Some(ms(70)), ms(n)).unwrap()).collect();
        assert_eq!(owns.last(), Some(&ms(70 + 59)));
        assert_eq!(separation.next(Some(ms(4070)), ms(4000)), Some(ms(4070)));
        assert!(!separation.stands_still);
    }

    #[test]
    fn pictures_keep_their_running_times_behind_a_timestamper_whatever_it_does_to_the_segment() {
        gst::init().unwrap();
        assert_eq!(excess(83_000_000, 3_600_000_000_000_000), 3_599_999_917_000_000);
        assert_eq!(
            (excess(83_000_000, 83_000_000), excess(83_000_000, 90_000_000), excess(5, 0)),
            (0, 0, 0)
        );
        let line = "videotestsrc num-buffers=30 ! video/x-raw,framerate=15/1,width=64,height=64 ! x264enc bframes=2 b-adapt=false rc-lookahead=0 \
                    ! h264parse ! video/x-h264,stream-format=avc,alignment=au ! h264timestamper name=timestamper \
                    ! fakesink name=out signal-handoffs=true sync=false";
        let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let timestamper = pipeline.by_name("timestamper").unwrap();
        // Live time stamps, as of a camera: without those of the encoder.
        timestamper
            .static_pad("sink")
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER, |_, info| {
                if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
                    let buffer = buffer.make_mut();
                    let time = buffer.pts().map(|pts| pts - gst::ClockTime::from_seconds(3_600_000));
                    buffer.set_pts(time);
                    buffer.set_dts(gst::ClockTime::NONE);
                }
                gst::PadProbeReturn::Ok
            });
        timestamper
            .static_pad("sink")
            .unwrap()
            .add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
                if let Some(gst::PadProbeData::Event(event)) = &mut info.data
                    && event.type_() == gst::EventType::Segment
                {
                    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                    *event = gst::event::Segment::new(&segment);
                }
                gst::PadProbeReturn::Ok
            });
        align(&timestamper);
        let times: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let into = Arc::clone(&times);
        pipeline.by_name("out").unwrap().connect("handoff", false, move |values| {
            let buffer = values[1].get::<gst::Buffer>().unwrap();
            let pad = values[2].get::<gst::Pad>().unwrap();
            let event = pad.sticky_event::<gst::event::Segment>(0).unwrap();
            let segment = event.segment().downcast_ref::<gst::ClockTime>().unwrap().clone();
            let pts = running(Some(&segment), &buffer).unwrap();
            into.lock()
                .unwrap()
                .push((pts, buffer.dts().map_or(0, gst::ClockTime::nseconds)));
            None
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &[gst::MessageType::Eos])
            .unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        let times = times.lock().unwrap().clone();
        assert_eq!(times.len(), 30);
        assert!(times.iter().all(|(pts, _)| *pts < 3_000_000_000), "{times:?}");
        assert!(times.is_sorted_by_key(|(_, dts)| *dts), "{times:?}");
        let shown: std::collections::BTreeSet<u64> = times.iter().map(|(pts, _)| pts / 60_000_000).collect();
        assert!(shown.len() > 25, "{times:?}");
    }
}
