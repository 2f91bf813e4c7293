//! Times of streams that count from different places.

use super::writer::{AUDIO, VIDEO, Writer};
use super::*;

const SECOND: u64 = 90_000;

fn video_seconds(input: &[u8]) -> Vec<f64> {
    let marks = scan(input);
    let times = units(&marks).into_iter().filter(|(_, unit)| unit.track == Track::Video);
    times
        .filter_map(|(_, unit)| unit.pts)
        .map(|ns| (ns / 1_000_000) as f64 / 1000.0)
        .collect()
}

#[test]
fn a_private_stream_with_a_clock_of_its_own_moves_no_picture() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(0x1b, VIDEO, &[]), (0x06, 0x50, &[])]);
    for i in 0..10 {
        w.picture(i * SECOND, i == 0, 300);
        w.pes(0x50, 0xbd, Some((10 + i % 2 * 10) * 3600 * SECOND), &[1, 2, 3]);
        w.pes(0x50, 0xbd, Some(20 * 3600 * SECOND), &[1, 2, 3]);
    }
    assert_eq!(video_seconds(&w.out), (0..10).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn sound_that_counts_from_twenty_hours_on_moves_no_picture_and_keeps_its_own_times() {
    let mut w = Writer::new();
    w.tables();
    for i in 0..10 {
        w.picture(i * SECOND, i == 0, 300);
        w.sound((20 * 3600 + i) * SECOND);
    }
    assert_eq!(video_seconds(&w.out), (0..10).map(f64::from).collect::<Vec<_>>());
    let marks = scan(&w.out);
    let sound: Vec<u64> = units(&marks)
        .into_iter()
        .filter(|(_, unit)| unit.track == Track::Audio)
        .filter_map(|(_, unit)| unit.pts)
        .collect();
    assert!(sound.windows(2).all(|pair| pair[1] - pair[0] == 1_000_000_000), "{sound:?}");
}

#[test]
fn two_wrong_times_in_a_row_carry_the_line_over_no_wrap() {
    let mut w = Writer::new();
    w.tables();
    for (i, hours) in [0, 0, 10, 20, 0, 0].into_iter().enumerate() {
        w.picture((hours * 3600 + i as u64) * SECOND, i == 0, 300);
        w.pes(AUDIO, 0xc0, None, &[1]);
    }
    let times = video_seconds(&w.out);
    assert_eq!((times[1], times[4], times[5]), (1.0, 4.0, 5.0));
}
