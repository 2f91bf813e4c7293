//! The input of a poll: moments, limits, counts. All times in ns.

/// One second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// A moment, on two scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// On a monotonic scale.
    pub mono: u64,
    /// Since the Unix epoch, by the wall clock.
    pub wall: u64,
}

/// The properties that the reporter applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `stall-timeout`.
    pub stall: u64,
    /// `startup-timeout`.
    pub startup: u64,
    /// `state-interval`.
    pub interval: u64,
}

/// Counters since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Buffers.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those without the flag DELTA_UNIT.
    pub key_frames: u64,
    /// Distances between successive key frames, counted.
    pub key_gaps: u64,
    /// Sum of these distances by presentation time.
    pub key_span: u64,
    /// The last of these distances.
    pub last_key_gap: Option<u64>,
    /// When the last buffer arrived.
    pub last_frame: Option<u64>,
    /// When the push under way began.
    pub pushing_since: Option<u64>,
    /// The last push that took a second or more.
    pub long_push: Option<Push>,
    /// What downstream returned last.
    pub flow: Flow,
}

/// A push that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// When it began.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
}

/// What downstream returned for the last push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Accepted, or flushing.
    #[default]
    Ok,
    /// Downstream is at EOS.
    Eos,
    /// Nothing is linked.
    NotLinked,
    /// Downstream does not accept the caps.
    NotNegotiated,
    /// Any other error.
    Error,
}

/// What the caps describe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Media type, e.g. `video/x-h264`.
    pub media: Option<String>,
    /// Pixels.
    pub width: Option<u64>,
    /// Pixels.
    pub height: Option<u64>,
}
