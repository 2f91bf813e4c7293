//! Values of the metadata keys `gap-reason` and `clock`. PURE.

/// Why bytes may be missing before a chunk: the value of the metadata key `gap-reason` and of `reason` in `gcssink-gap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// First chunk of the session: what came before it is unknown.
    Start,
    /// The pipeline signalled missing data (DISCONT, a flush).
    Discont,
    /// Bytes that do not follow the container's grammar.
    Damage,
    /// The previous chunk was closed because no data came, or the pipeline was paused.
    Stalled,
    /// Recording had been stopped.
    RecordStopped,
    /// The previous chunk was cut before a key unit to stay within the memory limit.
    EarlyCut,
    /// Bytes of a header are missing before it: another header replaced them, or they were rejected. A new decoder configuration
    /// that came whole leaves the chunk continuous.
    Config,
}

impl GapReason {
    /// Returns the value in the metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Discont => "discont",
            Self::Damage => "damage",
            Self::Stalled => "stalled",
            Self::RecordStopped => "record-stopped",
            Self::EarlyCut => "early-cut",
            Self::Config => "config",
        }
    }

    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Discont,
        Self::Damage,
        Self::Stalled,
        Self::RecordStopped,
        Self::EarlyCut,
        Self::Config,
    ];

    /// Returns the reason of that [`GapReason::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Whose clock a chunk's start is from: the value of the metadata key `clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// The machine's clock.
    System,
    /// The camera's clock, by reference timestamps.
    Ntp,
    /// The machine's clock was wrong; the time was computed back from when it was right.
    Corrected,
    /// The machine's clock is known to be wrong.
    Suspect,
}

impl ClockKind {
    /// Returns the value in the metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Ntp => "ntp",
            Self::Corrected => "corrected",
            Self::Suspect => "suspect",
        }
    }

    /// Every kind.
    pub const ALL: [Self; 4] = [Self::System, Self::Ntp, Self::Corrected, Self::Suspect];

    /// Returns the kind of that [`ClockKind::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
