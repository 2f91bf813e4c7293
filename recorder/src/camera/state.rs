//! States of a camera, and failures of its attempts.
//!
//! PURE.

pub use gcstreamer_schema::StartReason;
use serde::Serialize;

/// State of a camera, as `/status`, logs and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No result yet since the start.
    Connecting,
    /// Key frames arrive and are recorded.
    Recording,
    /// The connection is open, but no picture arrives.
    Frozen,
    /// No connection, or it ended.
    Unreachable,
    /// The camera refuses the credentials.
    Refused,
    /// Pictures arrive, but none is a key frame.
    NoKeyFrames,
    /// The camera sends nothing that can be recorded.
    Unsupported,
    /// Not recorded: the camera is disabled, the recorder is ending, or bucket or credentials refuse. See the reason.
    Stopped,
}

impl State {
    /// Returns the word in `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Recording => "recording",
            Self::Frozen => "frozen",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::NoKeyFrames => "no-key-frames",
            Self::Unsupported => "unsupported",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the state is a fault of the camera, which lasts until pictures are recorded again.
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::Connecting | Self::Recording | Self::Stopped)
    }
}

/// Why an attempt ended, or never began to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 401 or 403, or a password that cannot be read.
    Refused(String),
    /// 453, 454 or 503: the camera has no free session, or still holds an old one of ours.
    Busy(String),
    /// No connection, no answer, another refusal.
    Unreachable(String),
    /// The camera ended the stream.
    Closed(String),
    /// The connection is open, but no picture arrives.
    Frozen(String),
    /// The camera sends nothing that can be recorded.
    Unsupported(String),
    /// The stream has changed: another pipeline is needed.
    Changed(String),
    /// An element of our own failed.
    Internal(String),
    /// An element of ours refused its settings, such as bucket or credentials: not a fault of the camera.
    Setup(String),
}

impl Failure {
    /// Returns the cause, for people.
    pub fn text(&self) -> &str {
        match self {
            Self::Refused(text)
            | Self::Busy(text)
            | Self::Unreachable(text)
            | Self::Closed(text)
            | Self::Frozen(text)
            | Self::Unsupported(text)
            | Self::Changed(text)
            | Self::Internal(text)
            | Self::Setup(text) => text,
        }
    }

    /// Returns the state that follows; `None`: the state does not change.
    pub(super) const fn state(&self) -> Option<State> {
        match self {
            Self::Refused(_) => Some(State::Refused),
            Self::Busy(_) | Self::Unreachable(_) | Self::Closed(_) | Self::Internal(_) => Some(State::Unreachable),
            Self::Frozen(_) => Some(State::Frozen),
            Self::Unsupported(_) => Some(State::Unsupported),
            Self::Setup(_) => Some(State::Stopped),
            Self::Changed(_) => None,
        }
    }

    /// Returns the start reason of the next recording.
    pub(super) const fn reason(&self) -> StartReason {
        match self {
            Self::Refused(_) => StartReason::CameraRefused,
            Self::Frozen(_) => StartReason::CameraFrozen,
            // Each of these is a change of the camera, or ends with one of its settings or the recorder's.
            Self::Changed(_) | Self::Unsupported(_) | Self::Setup(_) => StartReason::Reconfigured,
            Self::Busy(_) | Self::Unreachable(_) | Self::Closed(_) | Self::Internal(_) => StartReason::CameraUnreachable,
        }
    }
}
