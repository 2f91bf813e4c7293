//! Recording that is stopped and started: every byte is in a chunk or in a gap that is told, alike in every container.

use super::tests::{Bucket, LIMITS, S, stamp};
use super::tests_input::{CONTAINERS, Frame, Input};
use super::*;
use crate::container::Container;

/// What is done between two frames.
#[derive(Clone, Copy)]
enum Do {
    Stop,
    Start,
    Come(Frame),
}
use Do::{Come, Start, Stop};

/// A picture every 100 ms, a key frame every second, from and to these ms.
fn pictures(from: u64, to: u64) -> impl Iterator<Item = Do> {
    (from / 100..to / 100).map(|i| {
        Come(if i % 10 == 0 {
            Frame::Key(i * 100)
        } else {
            Frame::Inter(i * 100)
        })
    })
}

/// A gap: its reason, its start in ms since the beginning, its length in ms.
type Gap = (GapReason, u64, u64);

/// Records, checks that no byte is missing, and returns the chunks and the gaps.
fn record(container: Container, steps: impl IntoIterator<Item = Do>) -> (Bucket, Vec<Gap>) {
    let (mut input, mut chunker, mut events) = (Input::new(container), Chunker::new(LIMITS, None), Vec::new());
    chunker.clock.playing(true);
    let mut total = 0;
    for step in steps {
        match step {
            Stop => chunker.record(false, &mut events),
            Start => chunker.record(true, &mut events),
            Come(frame) => {
                input.frame(frame);
                let bytes = input.take();
                total += bytes.len();
                let (Frame::Key(ms) | Frame::Inter(ms) | Frame::Sound(ms)) = frame;
                chunker.push(&bytes, || None, stamp(ms), &mut events).unwrap();
            }
        }
    }
    chunker.finish(&mut events).unwrap();
    let since = |start: u64| (start - stamp(0).wall) / 1_000_000;
    let gaps = events
        .iter()
        .filter_map(|event| match event {
            Event::Gap {
                reason, start, duration, ..
            } => Some((*reason, since(*start), duration / 1_000_000)),
            _ => None,
        })
        .collect();
    let mut bucket = Bucket::default();
    bucket.take(events);
    let reported: u64 = bucket.gaps.iter().map(|gap| gap.1).sum();
    let payload: usize = bucket.payload.values().map(Vec::len).sum();
    // The tables of a transport stream are repeated in the header of each chunk that does not open with them.
    let head = match container {
        Container::MpegTs => 0,
        _ => bucket.init.get(&0).map_or(0, Vec::len),
    };
    assert_eq!(
        head + payload + usize::try_from(reported).unwrap(),
        total,
        "{container:?}: {gaps:?}"
    );
    (bucket, gaps)
}

#[test]
fn recording_that_is_stopped_again_before_a_key_picture_came_is_one_gap_from_the_first_stop_on() {
    for container in CONTAINERS {
        let steps = pictures(0, 5000)
            .chain([Stop])
            .chain(pictures(5000, 7100))
            .chain([Start])
            .chain(pictures(7100, 7900))
            .chain([Stop]);
        let steps: Vec<Do> = steps.collect();
        let (bucket, gaps) = record(container, steps.iter().copied().chain(pictures(7900, 10_000)));
        assert_eq!(bucket.info.len(), 1, "{container:?}");
        let [(GapReason::RecordStopped, start, length)] = gaps[..] else {
            panic!("{container:?}: {gaps:?}")
        };
        assert!(
            start.abs_diff(5000) <= 200 && length.abs_diff(5000) <= 200,
            "{container:?}: {gaps:?}"
        );
        // As above, and started a second time.
        let again = pictures(7900, 20_500).chain([Start]).chain(pictures(20_500, 22_000));
        let (bucket, gaps) = record(container, steps.into_iter().chain(again));
        assert!(
            matches!(gaps[..], [(GapReason::RecordStopped, ..)]),
            "{container:?}: {gaps:?}"
        );
        let second = &bucket.info[&1];
        assert!(
            second.key_frame && second.gap == Some(GapReason::RecordStopped),
            "{container:?}"
        );
        assert_eq!(second.start, stamp(21_000).wall, "{container:?}");
        assert_eq!(gaps[0].1 + gaps[0].2, 21_000, "{container:?}: {gaps:?}");
    }
}

#[test]
fn what_was_joined_within_a_picture_group_is_a_gap_of_its_own_when_recording_stops_before_a_key_picture() {
    for container in CONTAINERS {
        for goes_on in [false, true] {
            let rest: Vec<Do> = if goes_on {
                std::iter::once(Start).chain(pictures(3500, 6000)).collect()
            } else {
                Vec::new()
            };
            let steps = pictures(100, 900).chain([Stop]).chain(pictures(900, 3500)).chain(rest);
            let (bucket, gaps) = record(container, steps);
            let reasons: Vec<GapReason> = gaps.iter().map(|gap| gap.0).collect();
            assert_eq!(reasons, [GapReason::Start, GapReason::RecordStopped], "{container:?}");
            assert!(
                gaps[0].1.abs_diff(100) <= 100 && gaps[0].2.abs_diff(700) <= 200,
                "{container:?}: {gaps:?}"
            );
            assert_eq!(bucket.info.len(), usize::from(goes_on), "{container:?}");
            assert!(bucket.info.values().all(|info| info.key_frame), "{container:?}");
        }
    }
}

#[test]
fn a_head_that_came_while_recording_was_stopped_is_not_reported_as_lost() {
    let second = |second: u64| pictures(second * 1000, second * 1000 + 1000);
    for container in CONTAINERS {
        // Stopped before the first byte and started behind it, or before it; stopped while only the head had come.
        let behind = [Stop]
            .into_iter()
            .chain(second(0))
            .chain([Start])
            .chain(second(1))
            .collect::<Vec<_>>();
        let before = [Stop, Start].into_iter().chain(pictures(300, 2000)).collect();
        let sound = [Come(Frame::Sound(0)), Stop].into_iter();
        let head = sound.chain(second(0)).chain([Start]).chain(second(1)).collect();
        for steps in [behind, before, head] {
            let (bucket, gaps) = record(container, steps);
            assert_eq!(bucket.info[&0].start, stamp(0).wall + S, "{container:?}: {gaps:?}");
            assert!(
                matches!(gaps[..], [(GapReason::RecordStopped, ..)]),
                "{container:?}: {gaps:?}"
            );
        }
    }
}
