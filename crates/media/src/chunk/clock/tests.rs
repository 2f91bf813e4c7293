use super::*;

const S: u64 = 1_000_000_000;
const NOW: u64 = 1_795_329_912 * S;

fn at(running: u64, wall: u64) -> Stamp {
    Stamp {
        running: Some(signed(running)),
        clock_running: Some(running),
        wall,
        reference: None,
        held: 0,
    }
}

fn live() -> CaptureClock {
    let mut clock = CaptureClock::default();
    clock.playing(true);
    clock.arrived(&at(5 * S, NOW));
    clock
}

#[test]
fn live_buffers_are_dated_by_their_running_time_not_by_their_arrival() {
    let mut clock = live();
    let late = Stamp {
        wall: NOW + 7 * S,
        ..at(6 * S, 0)
    };
    assert_eq!(clock.utc(&late, Some(0)), (NOW + S, ClockKind::System));
}

#[test]
fn a_file_is_dated_by_the_arrival_of_its_first_unit_and_its_own_time() {
    let mut clock = CaptureClock::default();
    clock.playing(false);
    let stamp = Stamp {
        wall: NOW,
        ..Stamp::default()
    };
    clock.arrived(&stamp);
    assert_eq!(clock.utc(&stamp, Some(3600 * S)).0, NOW);
    let next = Stamp { wall: NOW + 1, ..stamp };
    assert_eq!(clock.utc(&next, Some(3610 * S)).0, NOW + 10 * S);
}

#[test]
fn a_file_whose_own_times_are_centuries_ahead_is_dated_by_its_arrival() {
    let stamp = Stamp {
        wall: NOW,
        ..Stamp::default()
    };
    for first in [9_219_772_036_855_000_000, u64::MAX - 20 * S] {
        let mut clock = CaptureClock::default();
        clock.playing(false);
        clock.arrived(&stamp);
        let dates = [first, first + 10 * S, first - S].map(|pts| clock.utc(&stamp, Some(pts)).0);
        assert_eq!(dates, [NOW, NOW + 10 * S, NOW - S]);
    }
}

#[test]
fn media_time_begins_with_the_first_unit_that_has_one() {
    let mut clock = CaptureClock::default();
    clock.playing(false);
    let stamp = Stamp {
        wall: NOW,
        ..Stamp::default()
    };
    assert_eq!(clock.utc(&stamp, None).0, NOW);
    assert_eq!(clock.utc(&stamp, Some(5 * S)).0, NOW);
    assert_eq!(clock.utc(&stamp, Some(15 * S)).0, NOW + 10 * S);
}

#[test]
fn a_small_difference_is_slewed_and_a_large_one_is_a_step() {
    let mut clock = live();
    assert_eq!(clock.compare(&at(15 * S, NOW + 10 * S + S / 2)), None);
    let (utc, _) = clock.utc(&at(15 * S, 0), None);
    assert!(utc > NOW + 10 * S && utc < NOW + 10 * S + S / 2);
    assert_eq!(
        clock.compare(&at(25 * S, NOW + 3620 * S)).map(|ns| ns / 1_000_000_000),
        Some(3599)
    );
    assert_eq!(clock.utc(&at(25 * S, NOW), None).0, NOW + 3620 * S);
}

#[test]
fn the_cameras_clock_wins() {
    let mut clock = live();
    clock.map(6 * S, NOW + 100 * S);
    assert_eq!(clock.utc(&at(8 * S, NOW), None), (NOW + 102 * S, ClockKind::Ntp));
    let with_meta = Stamp {
        reference: Some(NOW + 500 * S),
        ..at(8 * S, NOW)
    };
    assert_eq!(clock.utc(&with_meta, None), (NOW + 500 * S, ClockKind::Ntp));
}

#[test]
fn a_clock_before_2020_is_suspect() {
    let mut clock = CaptureClock::default();
    clock.playing(true);
    clock.arrived(&at(0, 40 * S));
    assert_eq!(clock.utc(&at(0, 40 * S), None), (40 * S, ClockKind::Suspect));
}

#[test]
fn the_running_time_of_a_file_is_no_clock() {
    let mut clock = CaptureClock::default();
    clock.playing(false);
    let of_file = |running: u64, wall| Stamp {
        clock_running: None,
        ..at(running, wall)
    };
    clock.arrived(&of_file(0, NOW));
    assert_eq!(clock.compare(&of_file(3600 * S, NOW + S)), None);
    // The pipeline gets its clock.
    assert_eq!(clock.compare(&at(3600 * S, NOW + S)), None);
}

#[test]
fn running_time_that_begins_again_is_no_step() {
    for live in [true, false] {
        let mut clock = CaptureClock::default();
        clock.playing(live);
        clock.arrived(&at(100 * S, NOW));
        clock.utc(&at(100 * S, NOW), Some(0));
        clock.flushed();
        clock.arrived(&at(0, NOW + 50 * S));
        assert_eq!(clock.compare(&at(S, NOW + 51 * S)), None);
        assert_eq!(clock.utc(&at(S, NOW + 51 * S), Some(900 * S)).0, NOW + 51 * S);
    }
}

#[test]
fn the_running_time_of_the_muxers_input_is_read_from_the_stream() {
    // Running time at the sink, what the clock shows, the input's own, and what counts.
    for (running, clock_running, input, expected) in [
        (0, 5 * S, 5 * S - S / 10, 5 * S - S / 10),
        (0, 100 * S, 95 * S, 95 * S),
        // A bit fast: nothing is captured after it arrived.
        (0, 5 * S, 5 * S + S / 100, 5 * S),
        // Not moved.
        (4 * S, 5 * S, 4 * S, 4 * S),
        (4 * S, 5 * S, 3 * S, 4 * S),
        // Of another origin.
        (4 * S, 5 * S, 7000 * S, 4 * S),
    ] {
        let mut clock = CaptureClock::default();
        clock.playing(true);
        clock.set_muxed(true);
        let stamp = Stamp {
            clock_running: Some(clock_running),
            ..at(running, NOW + clock_running)
        };
        clock.arrived(&stamp);
        clock.transport_time(&stamp, Some(3600 * S + input));
        assert_eq!(
            clock.utc(&stamp, Some(0)).0 - NOW,
            expected,
            "{running} {clock_running} {input}"
        );
    }
}
