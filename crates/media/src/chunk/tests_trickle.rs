//! A unit that trickles in: what came before it is stored in time, and then what came of it.

use super::clock::Stamp;
use super::tests::{Bucket, LIMITS, NOW, S};
use super::tests_input::{CONTAINERS, Frame, Input};
use super::*;
use crate::container::Container;
use crate::container::mpegts::tests::writer as ts;

fn at(second: u64) -> Stamp {
    Stamp {
        running: None,
        clock_running: Some(second * S),
        wall: NOW + second * S,
        reference: None,
        held: 0,
    }
}

/// Feeds `whole` at once and then a byte of `rest` each second. Returns the objects, and how many bytes were stored after each
/// second.
fn trickle(whole: &[u8], rest: &[u8]) -> (Bucket, Vec<usize>) {
    let (mut bucket, mut stored) = (Bucket::default(), Vec::new());
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(true);
    let mut events = Vec::new();
    if !whole.is_empty() {
        chunker.push(whole, || None, at(0), &mut events).unwrap();
    }
    for (second, byte) in (1u64..).zip(rest) {
        chunker.push(&[*byte], || None, at(second), &mut events).unwrap();
        bucket.take(std::mem::take(&mut events));
        let closed = |(sequence, data): (&u64, &Vec<u8>)| bucket.info.contains_key(sequence).then_some(data.len());
        stored.push(bucket.payload.iter().filter_map(closed).sum());
    }
    chunker.finish(&mut events).unwrap();
    bucket.take(events);
    (bucket, stored)
}

/// A stream of two pictures, and where the last of them begins.
fn stream(container: Container) -> (Vec<u8>, Vec<u8>) {
    let mut input = Input::new(container);
    input.frame(Frame::Key(0));
    input.frame(Frame::Inter(40));
    let whole = input.take();
    input.frame(Frame::Key(80));
    (whole, input.take())
}

#[test]
fn a_picture_that_trickles_in_does_not_hold_back_what_came_before_it() {
    for container in CONTAINERS {
        let (whole, rest) = stream(container);
        let (bucket, stored) = trickle(&whole, &rest);
        let all: Vec<u8> = [whole, rest].concat();
        assert!(bucket.joined() == all, "{container:?}: every byte");
        if stored.len() > 40 {
            assert!(stored[35] > 0, "{container:?}: {stored:?}");
        }
    }
}

#[test]
fn a_first_picture_that_trickles_in_is_stored_in_time() {
    for container in [Container::Flv, Container::Matroska] {
        let mut input = Input::new(container);
        let head = input.take();
        // 100 KiB of one picture, whose slice never comes.
        let sei = [&[0, 1, 0x90, 1, 6, 5][..], &vec![0xff; 102_400]].concat();
        let unit = match container {
            Container::Flv => {
                let mut w = crate::container::flv::test_stream::Writer::default();
                w.tag(9, 0, &[&[0x17, 1, 0, 0, 0][..], &sei].concat());
                w.bytes
            }
            _ => {
                use crate::container::matroska::tests as mkv;
                mkv::cat(&[&mkv::open_cluster(0, &[]).0, &mkv::video(0, &sei)])
            }
        };
        let (bucket, stored) = trickle(&head, &unit[..300]);
        let first = stored.iter().position(|&bytes| bytes > 0);
        assert!(first.is_some_and(|second| second <= 75), "{container:?}: {first:?}");
        assert!(bucket.info.values().all(|info| !info.key_frame), "{container:?}");
        let joined = bucket.joined();
        assert!([&head[..], &unit[..300]].concat() == joined, "{container:?}: every byte");
    }
}

#[test]
fn a_pipeline_that_is_blocked_for_minutes_cuts_nothing() {
    for container in CONTAINERS {
        let (whole, rest) = stream(container);
        let mut chunker = Chunker::new(LIMITS, None);
        chunker.clock.playing(false);
        let (mut events, mut bucket) = (Vec::new(), Bucket::default());
        chunker.push(&whole, || None, at(0), &mut events).unwrap();
        for (i, half) in rest.chunks(rest.len() / 2 + 1).enumerate() {
            chunker.push(half, || None, at(300 * (i as u64 + 1)), &mut events).unwrap();
        }
        chunker.finish(&mut events).unwrap();
        bucket.take(events);
        let gaps = bucket
            .info
            .values()
            .filter(|info| info.gap == Some(GapReason::Stalled))
            .count();
        assert_eq!(gaps, 0, "{container:?}");
        assert!(bucket.info.values().all(|info| info.key_frame), "{container:?}");
    }
}

/// Feeds a transport stream of 64 kbit/s, live, for that many seconds. Returns the objects, and how many bytes no chunk that has
/// ended held after each second.
fn live(w: &mut ts::Writer, seconds: u64, picture: impl Fn(&mut ts::Writer, u64)) -> (Bucket, Vec<usize>) {
    let (mut bucket, mut waiting, mut sent) = (Bucket::default(), Vec::new(), 0);
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(true);
    let mut events = Vec::new();
    for second in 0..seconds {
        picture(w, second);
        chunker.push(&w.out[sent..], || None, at(second), &mut events).unwrap();
        sent = w.out.len();
        bucket.take(std::mem::take(&mut events));
        let closed = |(sequence, data): (&u64, &Vec<u8>)| bucket.info.contains_key(sequence).then_some(data.len());
        let stored: usize = bucket.payload.iter().filter_map(closed).sum();
        waiting.push(sent - stored);
    }
    chunker.finish(&mut events).unwrap();
    bucket.take(events);
    assert!(bucket.joined() == w.out, "every byte");
    (bucket, waiting)
}

#[test]
fn a_slow_transport_stream_without_tables_is_stored_in_time_and_reported_once_by_its_name() {
    let mut w = ts::Writer::new();
    let (bucket, waiting) = live(&mut w, 400, |w, second| {
        w.picture(second * 90_000, true, 8000);
    });
    assert_eq!(bucket.warnings, [Warning::NoProgram]);
    let second = w.out.len() / 400;
    let longest = waiting.iter().max().unwrap() / second;
    assert!(longest <= 62, "{longest} s of it wait");
    assert!(waiting[32] / second < 32, "{} s wait after 32 s", waiting[32] / second);
}

#[test]
fn a_transport_stream_whose_table_names_other_streams_is_stored_in_time() {
    let mut w = ts::Writer::new();
    let (bucket, waiting) = live(&mut w, 200, |w, second| {
        w.pat();
        w.pmt(0, &[(0x1b, 0x300, &[])]);
        w.picture(second * 90_000, true, 8000);
    });
    let second = w.out.len() / 200;
    let longest = waiting.iter().max().unwrap() / second;
    assert!(longest <= 62, "{longest} s of it wait: {:?}", bucket.warnings);
    assert!(waiting[35] / second < 32, "{} s wait after 35 s", waiting[35] / second);
}
