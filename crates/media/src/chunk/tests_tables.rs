//! Tables of a transport stream that change or come late: every chunk still begins where decoding can.

use super::tests::{Bucket, LIMITS, NOW, S, run};
use super::*;
use crate::container::Container;
use crate::container::mpegts::tests::writer::{AUDIO, AV, Es, VIDEO, Writer, idr, p_slice, pes, pmt_section};

const SECOND: u64 = 90_000;

/// A key frame every 2 s, 25 pictures a second and sound, with `tables` in front of each key frame. `change` is called at one
/// picture in the middle of a group.
fn recording(w: &mut Writer, from: u64, seconds: u64, tables: impl Fn(&mut Writer, bool), change_at: Option<u64>) {
    for n in from * 25..(from + seconds) * 25 {
        let is_changed = change_at.is_some_and(|at| n >= at);
        if n % 50 == 0 || change_at == Some(n) {
            tables(w, is_changed);
        }
        w.picture(n * 3_600, n % 50 == 0, 400);
        if n % 5 == 0 {
            w.sound(n * 3_600);
        }
    }
}

fn is_key_everywhere(bucket: &Bucket) -> bool {
    bucket.info.values().all(|info| info.key_frame)
}

#[test]
fn a_pmt_that_leaves_the_video_as_it_is_begins_no_chunk_in_the_middle_of_a_group_of_pictures() {
    const ENGLISH: &[Es] = &[(0x1b, VIDEO, &[]), (0x0f, AUDIO, &[0x0a, 4, b'e', b'n', b'g', 0])];
    const SPLICES: &[Es] = &[
        (0x1b, VIDEO, &[]),
        (0x0f, AUDIO, &[]),
        (0x86, 0x43, &[5, 4, b'C', b'U', b'E', b'I']),
    ];
    let maps: [(&str, u16, &[Es]); 4] = [
        ("without sound", 0x20, &[(0x1b, VIDEO, &[])]),
        ("with a language", 0x20, ENGLISH),
        ("with SCTE-35", 0x20, SPLICES),
        ("on another PID", 0x30, AV),
    ];
    for (what, pid, streams) in maps {
        let mut w = Writer::new();
        let tables = |w: &mut Writer, is_changed: bool| {
            if is_changed {
                w.pat_of(&[(1, pid)]);
                w.section(pid, &pmt_section(1, streams));
            } else {
                w.tables();
            }
        };
        // In the fifth second: before the first cut is due.
        recording(&mut w, 0, 30, tables, Some(4 * 25 + 13));
        let bucket = run(LIMITS, &[&w.out]);
        assert!(bucket.joined() == w.out, "{what}: every byte");
        assert!(is_key_everywhere(&bucket), "{what}: {:?}", bucket.info);
        assert!(bucket.info.values().all(|info| info.preview_bytes.is_some()), "{what}");
        let starts: Vec<u64> = bucket.info.values().map(|info| info.pts_start.unwrap() / S).collect();
        assert_eq!(
            starts,
            [0, 6, 16, 26],
            "{what}: a chunk with the new tables at the next key unit"
        );
    }
}

#[test]
fn tables_that_come_after_3_mib_make_the_rest_of_the_recording_playable() {
    let mut w = Writer::new();
    for n in 0..3_000 {
        w.picture(n * 360, n % 50 == 0, 900);
    }
    assert!(w.at() > 3 << 20);
    let late = w.at();
    recording(
        &mut w,
        14,
        120,
        |w, _| {
            w.tables();
        },
        None,
    );
    let bucket = run(LIMITS, &[&w.out]);
    assert!(bucket.joined() == w.out, "every byte");
    assert_eq!(bucket.warnings, [Warning::NoProgram]);
    let mut at = 0;
    let mut playable = 0;
    for (sequence, payload) in &bucket.payload {
        let info = &bucket.info[sequence];
        assert_eq!(info.container, Container::MpegTs);
        if at >= late {
            assert!(info.key_frame && info.duration <= 10 * S, "{info:?}");
            playable += 1;
        }
        at += payload.len() as u64;
    }
    assert_eq!(playable, 12);
}

#[test]
fn chunks_of_a_transport_stream_without_tables_claim_no_key_frame() {
    let mut w = Writer::new();
    for n in 0..6_000 {
        w.picture(n * 360, n % 50 == 0, 900);
    }
    for limits in [
        LIMITS,
        Limits {
            max_bytes: 1 << 20,
            ..LIMITS
        },
    ] {
        let bucket = run(limits, &[&w.out]);
        assert!(bucket.joined() == w.out, "every byte");
        assert!(bucket.info.values().all(|info| !info.key_frame), "{:?}", bucket.info);
        assert!(
            bucket.info.values().all(|info| info.preview_bytes.is_none()),
            "{:?}",
            bucket.info
        );
    }
}

/// Scrambles what has been written since `from`.
fn scramble(w: &mut Writer, from: u64) {
    for packet in w.out[usize::try_from(from).unwrap()..].chunks_mut(188) {
        packet[3] |= 0x80;
        let payload = if packet[3] & 0x20 == 0 {
            4
        } else {
            5 + usize::from(packet[4])
        };
        packet[payload..].iter_mut().for_each(|byte| *byte ^= 0xa5);
    }
}

#[test]
fn scrambled_pictures_beside_clear_sound_are_cut_and_dated_by_the_sound() {
    let two_seconds = Limits {
        max_time: 2 * S,
        ..LIMITS
    };
    // Scrambled from these pictures on, up to these, of 25 a second.
    for (from, to) in [(0, 225), (0, 110), (110, 225)] {
        let mut w = Writer::new();
        for n in 0..225u64 {
            if n % 25 == 0 {
                w.tables();
            }
            let begin = w.at();
            let flags = if n % 25 == 0 { 0x40 } else { 0 };
            let data = if n % 25 == 0 { idr(0x28, 10) } else { p_slice(100) };
            let whole = pes(0xe0, Some(SECOND + n * 3_600), &data);
            w.packet(VIDEO, true, flags, &whole[..100]);
            w.packet(VIDEO, false, 0, &whole[100..]);
            if (from..to).contains(&n) {
                scramble(&mut w, begin);
            }
            w.sound(SECOND + n * 3_600);
        }
        let bucket = run(two_seconds, &[&w.out]);
        let what = format!("{from} to {to}: {:#?}", bucket.info);
        let mut end = NOW;
        for info in bucket.info.values() {
            assert!(info.key_frame && info.pts_start.is_some(), "{what}");
            assert!(info.duration <= 2_200_000_000, "{what}");
            assert!(info.start.abs_diff(end) <= 100_000_000, "{what}");
            end = info.start + info.duration;
        }
        assert!(end.abs_diff(NOW + 9 * S) <= 100_000_000, "{what}");
    }
}
