//! Which UTC time a unit was captured at.
//!
//! PURE: the wall clock and the pipeline clock are arguments. The anchor, UTC of running time 0, is taken at the first buffer
//! of each PLAYING and compared with the wall clock at every cut. Live streams: anchor + running time. Streams that are not
//! live, or have no timestamps: arrival of the first unit, on the anchor's clock, + media time. A reference timestamp (RTCP,
//! NTP) of the camera wins.

pub use gcstreamer_schema::ClockKind;

/// Before this the clock of the machine cannot be right: 2020-01-01T00:00:00Z, ns since the epoch.
pub const EARLIEST_PLAUSIBLE: u64 = 1_577_836_800_000_000_000;

/// Differences from here on are a step, below they are slewed: 1 s.
const STEP: u64 = 1_000_000_000;

/// Running times and container times do not run apart by more than this: 2 s.
const UNSTEADY: i64 = 2_000_000_000;

/// Most time between capture and arrival at the start of a live stream; times farther back count from elsewhere: 30 s.
const BACKLOG: i64 = 30_000_000_000;

/// What `mpegtsmux` adds to the running time of its input for the times in the stream (its `TS_MUX_CLOCK_BASE`): 1 h.
const MUX_BASE: i64 = 3_600_000_000_000;

/// After this the times of a transport stream wrap: 2^33 ticks of 90 kHz.
const TRANSPORT_WRAP: i64 = 95_443_717_688_889;

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
    /// A muxer stands in front, in the same pipeline.
    is_muxed: bool,
    /// UTC of running time 0.
    anchor: Option<i64>,
    /// Arrival and container time of the first unit; the arrival is UTC as the anchor has it, so that a step moves both.
    first: Option<(u64, Option<u64>)>,
    /// (running time, UTC) as passed on by an element before the muxer.
    mapping: Option<(u64, u64)>,
    /// Container time and running time of the last unit that was dated live.
    dated: Option<(u64, i64)>,
    /// By how much the muxer in front has moved the running times of a transport stream towards 0; `None` until a unit shows it.
    moved: Option<i64>,
}

impl CaptureClock {
    /// Takes a new anchor at the next buffer: PLAYING has begun. `live` is `upstream_live` of a LATENCY query.
    pub fn playing(&mut self, live: bool) {
        self.live = live;
        self.restart_running_time();
        if live {
            // A pause is no media time.
            self.first = None;
        }
    }

    /// Whether a muxer stands in front, in the same pipeline: what it writes into the stream are running times.
    pub fn set_muxed(&mut self, is_muxed: bool) {
        self.is_muxed = is_muxed;
    }

    /// Takes a new anchor at the next buffer: running time begins again.
    fn restart_running_time(&mut self) {
        self.anchor = None;
        self.dated = None;
        self.moved = None;
    }

    /// The stream was flushed: what follows does not continue it, nor its running time.
    pub fn flushed(&mut self) {
        self.restart_running_time();
        self.first = None;
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
            // What the clock shows now, not the time of the buffer, which was captured earlier, or is that of a file.
            && let Some(now) = stamp.clock_running.map(signed).or(stamp.running.filter(|_| self.live))
        {
            self.anchor = Some(signed(stamp.wall).saturating_sub(now));
        }
    }

    /// When the buffer of `stamp` arrived, as the anchor has it: until the next cut a step of the wall clock is none.
    fn arrival(&self, stamp: &Stamp) -> u64 {
        match (self.anchor, stamp.clock_running) {
            (Some(anchor), Some(now)) => unsigned(anchor.saturating_add(signed(now))),
            _ => stamp.wall,
        }
    }

    /// A unit of a transport stream with the container time `pts` is in the buffer of `stamp`. `mpegtsmux` lets the running times
    /// of its buffers begin at 0 whenever its input begins (`start-time-selection=zero`, the default), and keeps those of its
    /// input in the stream.
    pub fn transport_time(&mut self, stamp: &Stamp, pts: Option<u64>) {
        let (true, true, None) = (self.live, self.is_muxed, self.moved) else {
            return;
        };
        let (Some(running), Some(now), Some(pts)) = (stamp.running, stamp.clock_running.map(signed), pts) else {
            return;
        };
        let input = signed(pts).saturating_sub(MUX_BASE);
        // Up to a second ahead: cameras whose times are a bit fast.
        let lag = now
            .saturating_sub(input)
            .saturating_add(signed(STEP))
            .rem_euclid(TRANSPORT_WRAP)
            - signed(STEP);
        let moved = now.saturating_sub(running).saturating_sub(lag);
        self.moved = Some(if lag <= BACKLOG { moved.max(0) } else { 0 });
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
            _ => self.by_media_time(stamp, pts),
        };
        let kind = if stamp.wall < EARLIEST_PLAUSIBLE {
            ClockKind::Suspect
        } else {
            ClockKind::System
        };
        (utc, kind)
    }

    /// UTC of a unit with the container time `pts`: the arrival of the first, and the media time since.
    fn by_media_time(&mut self, stamp: &Stamp, pts: Option<u64>) -> u64 {
        let now = self.arrival(stamp);
        // A first unit without a time (joined within a picture) is no beginning of the media time.
        if self.first.is_some_and(|(_, first)| first.is_none()) {
            self.first = None;
        }
        let (arrival, first) = *self.first.get_or_insert((now, pts));
        let utc = match (first, pts) {
            (Some(first), Some(pts)) => unsigned(signed(arrival).saturating_add(since(first, pts))),
            _ => now,
        };
        // A live unit cannot be captured after it arrived: no name lies in the future.
        if self.live && utc > now {
            // A single time that is a bit ahead moves no later one.
            if signed(utc - now) > UNSTEADY {
                self.first = Some((now, pts));
            }
            now
        } else {
            utc
        }
    }

    /// Returns the running time of a live buffer, as far as it is plausible. Nothing is captured after it arrived, and running
    /// time goes on as the container's time `pts` does, which is free of jumps; without one of its own, that is all there is.
    fn plausible(&mut self, stamp: &Stamp, pts: Option<u64>) -> Option<i64> {
        // Without a clock of the pipeline nothing shows that a time lies ahead.
        let now = stamp.clock_running.map_or(i64::MAX, signed);
        let expected = self
            .dated
            .zip(pts)
            .map(|((then, dated), pts)| dated.saturating_add(since(then, pts)));
        let Some(running) = stamp.running else {
            return expected.map(|expected| expected.min(now));
        };
        let running = running.saturating_add(self.moved.unwrap_or(0));
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
    /// is a step, which is taken here and returned in ns.
    pub fn compare(&mut self, stamp: &Stamp) -> Option<i64> {
        let (Some(anchor), Some(now)) = (self.anchor, stamp.clock_running) else {
            return None;
        };
        let difference = signed(stamp.wall).saturating_sub(anchor.saturating_add(signed(now)));
        let is_step = difference.unsigned_abs() >= STEP;
        // A quarter at each cut, below 250 ms: `align-to-clock` tolerates that for chunks of 2 s and more.
        let by = if is_step { difference } else { difference / 4 };
        self.anchor = Some(anchor.saturating_add(by));
        if let Some((arrival, _)) = &mut self.first {
            *arrival = unsigned(signed(*arrival).saturating_add(by));
        }
        is_step.then_some(difference)
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
mod tests;
