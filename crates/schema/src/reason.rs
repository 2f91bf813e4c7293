//! Why bytes may be missing before a chunk, and whose clock its start is from: values of the metadata. PURE.

/// The value of the metadata key `gap-reason`, and of the message `gcssink-gap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The session's first chunk: nothing is known of what was before it.
    Start,
    /// The pipeline said that data is missing (DISCONT, a flush).
    Discont,
    /// Bytes that do not follow the container's grammar.
    Damage,
    /// Nothing came for a while, or the pipeline was paused, and the chunk before was closed.
    Stalled,
    /// Recording had been stopped.
    RecordStopped,
    /// The chunk before was cut before a key unit came, to keep within the memory.
    EarlyCut,
    /// Another decoder configuration that bytes are missing before. Not used: where all bytes came the chunk is continuous.
    Config,
}

impl GapReason {
    /// As in the metadata.
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

/// The value of the metadata key `clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// The machine's clock.
    System,
    /// The camera's clock, by reference timestamps.
    Ntp,
    /// The machine's clock could not be right then; the time was reckoned back from when it was.
    Corrected,
    /// The machine's clock cannot be right.
    Suspect,
}

impl ClockKind {
    /// As in the metadata.
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
