//! Which UTC time a unit was captured at.
//!
//! PURE: the wall clock and the pipeline clock are arguments. Live streams: anchor + running time, the anchor taken at the
//! first buffer of each PLAYING and compared with the wall clock at every cut. Streams that are not live, or have no
//! timestamps: arrival of the first unit + media time. A reference timestamp (RTCP, NTP) of the camera wins.

pub use gcstreamer_schema::ClockKind;

/// Before this the clock of the machine cannot be right: 2020-01-01T00:00:00Z, ns since the epoch.
pub const EARLIEST_PLAUSIBLE: u64 = 1_577_836_800_000_000_000;

/// Differences from here on are a step, below they are slewed: 1 s.
const STEP: u64 = 1_000_000_000;

/// Running times and container times do not run apart by more than this: 2 s.
const UNSTEADY: i64 = 2_000_000_000;

/// Most time between capture and arrival at the start of a live stream; times farther back count from elsewhere: 30 s.
const BACKLOG: i64 = 30_000_000_000;

/// What is known of a buffer when it arrives; all in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Running time of the buffer; below 0 where decoding has to begin before the first picture is shown.
    pub running: Option<i64>,
    /// Running time that the pipeline clock shows now.
    pub clock_running: Option<u64>,
    /// Wall clock now, since the Unix epoch.
    pub wall: u64,
    /// UTC of the buffer by the camera's own clock, since the Unix epoch.
    pub reference: Option<u64>,
    /// For how long the recording has kept the stream waiting so far, for want of room. Whoever reads a file or a pipe stands
    /// still meanwhile.
    pub held: u64,
}

impl Stamp {
    /// Returns how long this buffer arrived before `later`, in ns, without what the stream was kept waiting in between: by the
    /// pipeline clock if both have it, since the wall clock may be stepped.
    pub fn arrived_before(&self, later: &Self) -> u64 {
        let between = match (self.clock_running, later.clock_running) {
            (Some(a), Some(b)) if b >= a => b - a,
            _ => later.wall.saturating_sub(self.wall),
        };
        between.saturating_sub(later.held.saturating_sub(self.held))
    }
}

/// When buffers arrived, in ns since the first, whatever their own times are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    now: u64,
    last: Option<Stamp>,
}

impl Arrival {
    /// Returns when the buffer of `stamp` arrived. Buffers come in order.
    pub fn at(&mut self, stamp: &Stamp) -> u64 {
        let waited = self.last.map_or(0, |last| last.arrived_before(stamp));
        self.now = self.now.saturating_add(waited);
        self.last = Some(*stamp);
        self.now
    }
}

/// Maps units to UTC.
#[derive(Clone, Copy, Debug, Default)]
pub struct CaptureClock {
    live: bool,
    /// UTC of running time 0.
    anchor: Option<i64>,
    /// Arrival and container time of the first unit.
    first: Option<(u64, Option<u64>)>,
    /// (running time, UTC) as passed on by an element before the muxer.
    mapping: Option<(u64, u64)>,
    /// Container time and running time of the last unit that was dated live.
    dated: Option<(u64, i64)>,
}

impl CaptureClock {
    /// Takes a new anchor at the next buffer: PLAYING has begun. `live` is `upstream_live` of a LATENCY query.
    pub fn playing(&mut self, live: bool) {
        self.live = live;
        self.anchor = None;
        self.dated = None;
    }

    /// Returns whether the pipeline is live.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Forgets the media time line: what follows does not continue it.
    pub fn restart_media_time(&mut self) {
        self.first = None;
        self.dated = None;
    }

    /// The camera's clock showed `utc` at running time `running`.
    pub fn map(&mut self, running: u64, utc: u64) {
        self.mapping = Some((running, utc));
    }

    /// A buffer has arrived.
    #[inline]
    pub fn arrived(&mut self, stamp: &Stamp) {
        if self.anchor.is_none()
            // What the clock shows now, not the time of the buffer, which was captured earlier.
            && let Some(now) = stamp.clock_running.map(signed).or(stamp.running)
        {
            self.anchor = Some(signed(stamp.wall).saturating_sub(now));
        }
    }

    /// UTC of a unit in the buffer of `stamp` with the container time `pts`, and whose clock that is.
    pub fn utc(&mut self, stamp: &Stamp, pts: Option<u64>) -> (u64, ClockKind) {
        if let Some(reference) = stamp.reference {
            return (reference, ClockKind::Ntp);
        }
        let running = if self.live {
            self.plausible(stamp, pts)
        } else {
            stamp.running
        };
        if let (Some((mapped, utc)), Some(running)) = (self.mapping, running) {
            return (
                unsigned(signed(utc).saturating_add(running).saturating_sub(signed(mapped))),
                ClockKind::Ntp,
            );
        }
        let utc = match (self.live, self.anchor, running) {
            (true, Some(anchor), Some(running)) => unsigned(anchor.saturating_add(running)),
            _ => {
                // A first unit without a time (joined within a picture) is no beginning of the media time.
                if self.first.is_some_and(|(_, first)| first.is_none()) {
                    self.first = None;
                }
                let (arrival, first) = *self.first.get_or_insert((stamp.wall, pts));
                let utc = match (first, pts) {
                    (Some(first), Some(pts)) => unsigned(signed(arrival).saturating_add(since(first, pts))),
                    _ => stamp.wall,
                };
                // A live unit cannot be captured after it arrived: no name lies in the future.
                if self.live && utc > stamp.wall {
                    // A single time that is a bit ahead moves no later one.
                    if signed(utc - stamp.wall) > UNSTEADY {
                        self.first = Some((stamp.wall, pts));
                    }
                    stamp.wall
                } else {
                    utc
                }
            }
        };
        let kind = if stamp.wall < EARLIEST_PLAUSIBLE {
            ClockKind::Suspect
        } else {
            ClockKind::System
        };
        (utc, kind)
    }

    /// Returns the running time of a live buffer, as far as it is plausible. Nothing is captured after it arrived, and running
    /// time goes on as the container's time `pts` does, which is free of jumps.
    fn plausible(&mut self, stamp: &Stamp, pts: Option<u64>) -> Option<i64> {
        let running = stamp.running?;
        // Without a clock of the pipeline nothing shows that a time lies ahead.
        let now = stamp.clock_running.map_or(i64::MAX, signed);
        let expected = self
            .dated
            .zip(pts)
            .map(|((then, dated), pts)| dated.saturating_add(since(then, pts)));
        let plausible = match expected {
            _ if running > now => expected.unwrap_or(now),
            Some(expected) if running.saturating_add(UNSTEADY) < expected => expected,
            None if stamp.clock_running.is_some() && running.saturating_add(BACKLOG) < now => now,
            _ => running,
        };
        if let Some(pts) = pts {
            // A single time that is a bit ahead moves no later one.
            let is_steady = plausible.saturating_sub(now) <= UNSTEADY;
            self.dated = Some((pts, if is_steady { plausible } else { now }));
        }
        Some(plausible.min(now))
    }

    /// As [`CaptureClock::utc`] of a unit without a container time, and changes nothing.
    pub fn peek(&self, stamp: &Stamp) -> (u64, ClockKind) {
        let mut clock = *self;
        clock.utc(stamp, None)
    }

    /// Whether [`CaptureClock::utc`] of this stamp is a guess that a later unit can mend: muxers leave the time off the first
    /// buffers where decoding begins before the segment does (B-frames).
    pub fn is_provisional(&self, stamp: &Stamp) -> bool {
        stamp.reference.is_none() && stamp.running.is_none() && (self.live || self.mapping.is_some())
    }

    /// Compares the clocks at a cut. Less than a second of difference is taken up bit by bit, so that names never jump; more
    /// is a step, which is taken here and returned in ms.
    pub fn compare(&mut self, stamp: &Stamp) -> Option<i64> {
        let (true, Some(anchor), Some(now)) = (self.live, self.anchor, stamp.clock_running) else {
            return None;
        };
        let difference = signed(stamp.wall).saturating_sub(anchor.saturating_add(signed(now)));
        if difference.unsigned_abs() < STEP {
            // A quarter at each cut, below 250 ms: `align-to-clock` tolerates that for chunks of 2 s and more.
            self.anchor = Some(anchor.saturating_add(difference / 4));
            None
        } else {
            self.anchor = Some(anchor.saturating_add(difference));
            Some(difference / 1_000_000)
        }
    }
}

#[inline]
fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// Returns the time from `first` to `pts`. The difference is taken first: a stream's own times may lie near the greatest that an `i64`
/// holds, where a sum with the time of day would saturate.
#[inline]
fn since(first: u64, pts: u64) -> i64 {
    if pts >= first {
        signed(pts - first)
    } else {
        -signed(first - pts)
    }
}

#[inline]
fn unsigned(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0)
}

#[cfg(test)]
mod tests {
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
        assert_eq!(clock.compare(&at(25 * S, NOW + 3620 * S)).map(|ms| ms / 1000), Some(3599));
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
}
