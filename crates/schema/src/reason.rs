//! Values of the metadata keys `gap-reason` and `clock`, and of the property `start-reason`. PURE.

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
    /// that arrived whole leaves the chunk continuous.
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

    /// Returns the reason with this [`GapReason::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// The clock of a chunk's start: the value of the metadata key `clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// The machine's clock.
    System,
    /// The camera's clock, by reference timestamps.
    Ntp,
    /// The machine's clock was wrong; the time was computed once the clock was right.
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

    /// Returns the kind with this [`ClockKind::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Maximum length of the property `start-reason`, in characters.
pub const MAX_START_REASON: usize = 32;

/// Why a recorder starts a recording: the property `start-reason` of gcssink, and so the `gap-reason` of sequence 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StartReason {
    /// The recorder was started.
    RecorderStarted,
    /// The camera had frozen.
    CameraFrozen,
    /// The camera was unreachable, or had ended the connection.
    CameraUnreachable,
    /// The camera had refused the credentials.
    CameraRefused,
    /// The camera had sent no key frames.
    NoKeyFrames,
    /// The camera's stream or its configuration has changed.
    Reconfigured,
}

impl StartReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::RecorderStarted,
        Self::CameraFrozen,
        Self::CameraUnreachable,
        Self::CameraRefused,
        Self::NoKeyFrames,
        Self::Reconfigured,
    ];

    /// Returns the value of the property.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecorderStarted => "recorder-started",
            Self::CameraFrozen => "camera-frozen",
            Self::CameraUnreachable => "camera-unreachable",
            Self::CameraRefused => "camera-refused",
            Self::NoKeyFrames => "no-key-frames",
            Self::Reconfigured => "reconfigured",
        }
    }

    /// Returns the reason with this [`StartReason::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Checks the property `start-reason`: it becomes metadata, and the label of a metric.
///
/// # Errors
/// Describes the expected form.
pub fn check_start_reason(reason: &str) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if reason.is_empty() || reason.len() > MAX_START_REASON || !reason.chars().all(is_word) {
        return Err(format!(
            "start-reason must be 1 to {MAX_START_REASON} lower-case letters, digits and hyphens, e.g. camera-frozen"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_reason_is_a_value_of_the_property_and_no_reason_within_a_session() {
        for reason in StartReason::ALL {
            assert_eq!(check_start_reason(reason.name()), Ok(()));
            assert_eq!(StartReason::from_name(reason.name()), Some(reason));
            assert_eq!(GapReason::from_name(reason.name()), None);
        }
        for reason in ["", "Camera frozen", "camera_frozen", "é", "x".repeat(33).as_str()] {
            assert!(check_start_reason(reason).unwrap_err().contains("camera-frozen"), "{reason}");
        }
    }
}
