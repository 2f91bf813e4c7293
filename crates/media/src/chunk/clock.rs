//! Computes the UTC time at which a unit was captured.
//!
//! PURE: the wall clock and the pipeline clock are arguments. The anchor, UTC of running time 0, is taken at the first buffer
//! of each PLAYING and compared with the wall clock at every cut. Live streams: anchor + running time. Streams that are not
//! live, or have no timestamps: arrival of the first unit, on the anchor's clock, + media time. A reference timestamp (RTCP,
//! NTP) of the camera takes precedence.

pub use gcstreamer_schema::ClockKind;

/// A wall clock before this is wrong: 2020-01-01T00:00:00Z, ns since the epoch.
pub const EARLIEST_PLAUSIBLE: u64 = 1_577_836_800_000_000_000;

/// A difference of this or more is a step; a smaller one is slewed: 1 s.
const STEP: u64 = 1_000_000_000;

/// Running times and container times diverge by no more than this: 2 s.
const UNSTEADY: i64 = 2_000_000_000;

/// Most time between capture and arrival at the start of a live stream: 30 s. A running time farther back has another origin.
const BACKLOG: i64 = 30_000_000_000;

/// What `mpegtsmux` adds to the running time of its input for the times in the stream (its `TS_MUX_CLOCK_BASE`): 1 h.
const MUX_BASE: i64 = 3_600_000_000_000;

/// Period after which the times of a transport stream wrap, ns: 2^33 ticks of 90 kHz.
const TRANSPORT_WRAP: i64 = 95_443_717_688_889;

/// What is known of a buffer when it arrives; all in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Running time of the buffer; negative if decoding has to begin before the first picture is shown.
    pub running: Option<i64>,
    /// Running time on the pipeline clock when the buffer arrived.
    pub clock_running: Option<u64>,
    /// Wall clock when the buffer arrived, since the Unix epoch.
    pub wall: u64,
    /// UTC of the buffer by the camera's own clock, since the Unix epoch.
    pub reference: Option<u64>,
    /// Total time so far for which the recording has made the stream wait because memory was full. The source of a file or a
    /// pipe does not advance meanwhile.
    pub held: u64,
}

impl Stamp {
    /// Returns how long this buffer arrived before `later`, in ns, minus the time for which the recording made the stream wait
    /// in between. Uses the pipeline clock if both stamps have it, since the wall clock may be stepped.
    pub fn arrived_before(&self, later: &Self) -> u64 {
        let between = match (self.clock_running, later.clock_running) {
            (Some(a), Some(b)) if b >= a => b - a,
            _ => later.wall.saturating_sub(self.wall),
        };
        between.saturating_sub(later.held.saturating_sub(self.held))
    }
}

/// Arrival times of buffers, in ns since the first, independent of the buffers' own times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    now: u64,
    last: Option<Stamp>,
}

impl Arrival {
    /// Returns when the buffer of `stamp` arrived. Call in the order of arrival.
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
    /// A muxer of the same pipeline produces the stream.
    is_muxed: bool,
    /// UTC of running time 0.
    anchor: Option<i64>,
    /// Arrival and container time of the first unit. The arrival is UTC by the anchor, so that a step of the clock moves both.
    first: Option<(u64, Option<u64>)>,
    /// (running time, UTC) reported by an element before the muxer.
    mapping: Option<(u64, u64)>,
    /// Container time and running time of the last unit that was dated live.
    dated: Option<(u64, i64)>,
    /// By how much the muxer of the pipeline has moved the running times of a transport stream towards 0, ns; `None` until a unit
    /// shows it.
    moved: Option<i64>,
}

impl CaptureClock {
    /// Begins PLAYING: the next buffer gives a new anchor. `live` is `upstream_live` of a LATENCY query.
    pub fn playing(&mut self, live: bool) {
        self.live = live;
        self.restart_running_time();
        if live {
            // The media time of a live stream does not include the pause.
            self.first = None;
        }
    }

    /// Sets whether a muxer of the same pipeline produces the stream. The times that it writes into the stream are running times.
    pub fn set_muxed(&mut self, is_muxed: bool) {
        self.is_muxed = is_muxed;
    }

    /// Handles a restart of running time: the next buffer gives a new anchor.
    fn restart_running_time(&mut self) {
        self.anchor = None;
        self.dated = None;
        self.moved = None;
    }

    /// Handles a flush: what follows continues neither the media time nor the running time.
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

    /// Sets the mapping of running time to UTC: the camera's clock showed `utc` at running time `running`. Both in ns.
    pub fn map(&mut self, running: u64, utc: u64) {
        self.mapping = Some((running, utc));
    }

    /// Takes the anchor from a buffer that has arrived, if there is none.
    #[inline]
    pub fn arrived(&mut self, stamp: &Stamp) {
        if self.anchor.is_none()
            // What the clock shows now, not the time of the buffer: that is earlier, its capture, or comes from a file.
            && let Some(now) = stamp.clock_running.map(signed).or(stamp.running.filter(|_| self.live))
        {
            self.anchor = Some(signed(stamp.wall).saturating_sub(now));
        }
    }

    /// Returns when the buffer of `stamp` arrived, UTC in ns by the anchor if there is one. A step of the wall clock has no
    /// effect until [`CaptureClock::compare`] at the next cut.
    fn arrival(&self, stamp: &Stamp) -> u64 {
        match (self.anchor, stamp.clock_running) {
            (Some(anchor), Some(now)) => unsigned(anchor.saturating_add(signed(now))),
            _ => stamp.wall,
        }
    }

    /// Learns from a unit of a transport stream by how much the muxer has moved running times. The unit has the container time
    /// `pts` and is in the buffer of `stamp`. `mpegtsmux` starts the running times of its buffers at 0 whenever its input starts
    /// (`start-time-selection=zero`, the default), but writes those of its input into the stream.
    pub fn transport_time(&mut self, stamp: &Stamp, pts: Option<u64>) {
        let (true, true, None) = (self.live, self.is_muxed, self.moved) else {
            return;
        };
        let (Some(running), Some(now), Some(pts)) = (stamp.running, stamp.clock_running.map(signed), pts) else {
            return;
        };
        let input = signed(pts).saturating_sub(MUX_BASE);
        // Modulo the wrap, since `pts` has wrapped if the pipeline has run for more than 26.5 h. From -1 s on, not from 0: the
        // times of some cameras are slightly ahead.
        let lag = now
            .saturating_sub(input)
            .saturating_add(signed(STEP))
            .rem_euclid(TRANSPORT_WRAP)
            - signed(STEP);
        let moved = now.saturating_sub(running).saturating_sub(lag);
        // A longer lag: the times in the stream are not running times of this pipeline, so the muxer has moved nothing.
        self.moved = Some(if lag <= BACKLOG { moved.max(0) } else { 0 });
    }

    /// Returns the UTC in ns of a unit in the buffer of `stamp` with the container time `pts`, and whose clock it is from.
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

    /// Returns the UTC of a unit with the container time `pts`: the arrival of the first unit plus the media time since.
    fn by_media_time(&mut self, stamp: &Stamp, pts: Option<u64>) -> u64 {
        let now = self.arrival(stamp);
        // A first unit without a time (the recording started within a picture) cannot start the media time.
        if self.first.is_some_and(|(_, first)| first.is_none()) {
            self.first = None;
        }
        let (arrival, first) = *self.first.get_or_insert((now, pts));
        let utc = match (first, pts) {
            (Some(first), Some(pts)) => unsigned(signed(arrival).saturating_add(since(first, pts))),
            _ => now,
        };
        // A live unit cannot be captured after it arrived: otherwise names would be in the future.
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

    /// Returns the plausible running time of a live buffer. Nothing is captured after it arrived, and running time advances with
    /// the container time `pts`, which is free of jumps. A buffer without a running time gets the one that `pts` implies.
    fn plausible(&mut self, stamp: &Stamp, pts: Option<u64>) -> Option<i64> {
        // Without the pipeline clock nothing shows that a time lies ahead.
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

    /// Returns [`CaptureClock::utc`] of a unit without a container time, and changes nothing.
    pub fn peek(&self, stamp: &Stamp) -> (u64, ClockKind) {
        let mut clock = *self;
        clock.utc(stamp, None)
    }

    /// Returns whether [`CaptureClock::utc`] of this stamp is a guess that a later unit can correct. Muxers omit the time of the
    /// first buffers if decoding begins before the segment (B-frames).
    pub fn is_provisional(&self, stamp: &Stamp) -> bool {
        stamp.reference.is_none() && stamp.running.is_none() && (self.live || self.mapping.is_some())
    }

    /// Compares the wall clock with the anchor at a cut. A difference below 1 s is slewed, so that names never jump; a larger one
    /// is a step, which is applied at once and returned in ns.
    pub fn compare(&mut self, stamp: &Stamp) -> Option<i64> {
        let (Some(anchor), Some(now)) = (self.anchor, stamp.clock_running) else {
            return None;
        };
        let difference = signed(stamp.wall).saturating_sub(anchor.saturating_add(signed(now)));
        let is_step = difference.unsigned_abs() >= STEP;
        // A quarter at each cut, below 250 ms: `align-to-clock` tolerates that for chunks of 2 s and more.
        let by = if is_step { difference } else { difference / 4 };
        self.anchor = Some(anchor.saturating_add(by));
        // A stream that is not live is dated by this arrival.
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

/// Returns the time from `first` to `pts`. The difference is computed first: a stream's own times may be close to `i64::MAX`,
/// where a sum with the time of day would saturate.
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
