//! Guarantees that apply to every stream, for any bytes and any slices.

use proptest::prelude::*;

use super::super::super::{Mark, Scanner};
use super::super::MpegTs;
use super::writer::{AV, VIDEO, Writer, idr};
use super::{scan_in, units};

/// One thing that a writer does.
#[derive(Clone, Debug)]
enum Act {
    Tables,
    Pmt(usize),
    Picture(bool, usize),
    Sound,
    OtherSps,
    Null,
    Clock,
    Lose,
    Sdt,
    Noise(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Tables),
        1 => (1usize..3).prop_map(Act::Pmt),
        5 => (any::<bool>(), 0usize..700).prop_map(|(key, size)| Act::Picture(key, size)),
        4 => Just(Act::Sound),
        1 => Just(Act::OtherSps),
        1 => Just(Act::Null),
        1 => Just(Act::Clock),
        1 => Just(Act::Lose),
        1 => Just(Act::Sdt),
        1 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(Act::Noise),
    ]
}

fn written(stride: usize, acts: &[Act]) -> Vec<u8> {
    let mut w = Writer::with_stride(stride);
    for (time, act) in (0u64..).step_by(3000).zip(acts) {
        match act {
            Act::Tables => drop(w.tables()),
            Act::Pmt(streams) => drop(w.pmt(0, &AV[..*streams])),
            Act::Picture(key, size) => drop(w.picture(time, *key, *size)),
            Act::Sound => drop(w.sound(time)),
            Act::OtherSps => drop(w.pes(VIDEO, 0xe0, Some(time), &idr(0x1f, 100))),
            Act::Null => w.null(),
            Act::Clock => w.clock_only(VIDEO),
            Act::Lose => w.lose(VIDEO, 1),
            Act::Sdt => w.sdt(),
            Act::Noise(bytes) => w.out.extend_from_slice(bytes),
        }
    }
    w.out
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let acts = proptest::collection::vec(act(), 1..40);
    (prop_oneof![3 => Just(188usize), 1 => Just(192), 1 => Just(204)], acts).prop_map(|(stride, acts)| written(stride, &acts))
}

/// Scans in slices cut at those places; the marks and what was settled before the end.
fn scan_cut(stream: &[u8], cuts: &[usize]) -> (Vec<Mark>, u64) {
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();
    let (mut scanner, mut marks, mut from) = (MpegTs::new(), Vec::new(), 0);
    for to in cuts {
        scanner.push(&stream[from..to], &mut marks).unwrap();
        from = to;
    }
    let settled = scanner.settled();
    scanner.finish(&mut marks);
    (marks, settled)
}

#[test]
fn a_last_packet_without_its_sync_byte_is_passed_over_however_it_came() {
    let mut w = Writer::with_stride(192);
    w.tables();
    for i in 0..6 {
        w.picture(i * 3000, i == 0, 300);
    }
    let whole = w.out.len() / 192 * 192;
    let mut stream = w.out;
    stream.truncate(whole);
    stream.extend_from_slice(&[9; 192]);
    assert_eq!(scan_cut(&stream, &[whole + 104]), scan_cut(&stream, &[]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn marks_do_not_depend_on_how_the_bytes_are_sliced(
        stream in streams(),
        cuts in proptest::collection::vec(any::<usize>(), 0..60),
    ) {
        prop_assert_eq!(scan_cut(&stream, &cuts), scan_cut(&stream, &[]));
        prop_assert_eq!(scan_in(&stream, 1).unwrap(), scan_cut(&stream, &[]).0);
    }

    #[test]
    fn the_first_unit_stands_at_0_without_a_header(stream in streams()) {
        let marks = scan_in(&stream, 700).unwrap();
        if !stream.is_empty() {
            let (at, first) = units(&marks)[0];
            prop_assert_eq!((at, first.init.clone().unwrap().len()), (0, 0));
            prop_assert!(marks[0].at == 0 && matches!(&marks[0].kind, super::MarkKind::Unit(_)));
        }
    }

    #[test]
    fn flipped_bytes_keep_marks_in_order(
        mut stream in streams(),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..40),
        slice in 1usize..2000,
    ) {
        let len = stream.len().max(1);
        flips.iter().for_each(|(at, value)| if let Some(b) = stream.get_mut(at % len) { *b = *value });
        // The checks are in `scan_in`; a fault is a legal result.
        let _ = scan_in(&stream, slice);
    }

    #[test]
    fn packets_of_random_bytes_keep_marks_in_order(
        packets in proptest::collection::vec((0u8..0x44, any::<u8>(), proptest::collection::vec(any::<u8>(), 185)), 0..60),
        slice in 1usize..2000,
    ) {
        let mut w = Writer::new();
        w.tables();
        for (pid, start, rest) in packets {
            // Mostly the PIDs that mean something.
            let high = start & 0x40;
            w.raw(&[&[0x47, high, pid], &rest[..]].concat());
        }
        let _ = scan_in(&w.out, slice);
    }

    #[test]
    fn random_bytes_keep_marks_in_order(bytes in proptest::collection::vec(any::<u8>(), 0..5000), slice in 1usize..2000) {
        let _ = scan_in(&bytes, slice);
    }
}
