//! Which phase the pipeline is in: one function of the known facts. Times in ns on the monotonic scale.

use super::input::{Counts, Flow, Limits};
pub use gcstreamer_schema::status::Phase;

/// An EOS within this time after a WARNING or ERROR of a source means that the source is lost, not that the recording ended.
const SOURCE_LOST_WITHIN: u64 = 2_000_000_000;
/// A buffer that arrives this much later than an ERROR shows that the pipeline continues; earlier ones were already in transit.
const ERROR_IS_OVER_AFTER: u64 = 2_000_000_000;

/// Why the pipeline is in its phase; a self-explanatory phase has no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No frame arrives.
    NoFrame,
    /// A gcssink has had no key unit in this session.
    NoKeyUnit,
    /// A gcssink no longer receives key units.
    NoData,
    /// Downstream does not accept the buffer.
    Downstream,
    /// The source posted a WARNING or an ERROR and ended the stream.
    Source,
    /// An element posted an ERROR.
    Element,
    /// Our push returned this flow.
    Flow(Flow),
    /// Nothing can be uploaded: a problem of the uplink, not of the camera.
    UploadOffline,
    /// A command has stopped the recording.
    RecordStopped,
}

impl Reason {
    /// Returns the name in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFrame => "no-frame",
            Self::NoKeyUnit => "no-key-unit",
            Self::NoData => "no-data",
            Self::Downstream => "downstream",
            Self::Source => "source-failed",
            Self::Element => "element-error",
            Self::Flow(Flow::NotLinked) => "not-linked",
            Self::Flow(Flow::NotNegotiated) => "not-negotiated",
            Self::Flow(_) => "flow-error",
            Self::UploadOffline => "upload-offline",
            Self::RecordStopped => "record-stopped",
        }
    }
}

/// Whether the gcssinks behind the element receive key units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Feed {
    /// There is no gcssink.
    #[default]
    Absent,
    /// One of them has had no key unit in this session.
    Never,
    /// One of them no longer receives key units.
    Silent,
    /// All of them do.
    Fed,
}

/// What is known besides the counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// When the session began, or when it first went to PLAYING.
    pub began: u64,
    /// When the pipeline reached PLAYING or started to change to it; `None` otherwise.
    pub playing_since: Option<u64>,
    pub has_played: bool,
    pub stopping: bool,
    pub eos_at: Option<u64>,
    /// When a source last posted a WARNING or an ERROR.
    pub source_problem_at: Option<u64>,
    /// When an element first posted an ERROR.
    pub error_at: Option<u64>,
    /// That ERROR came from a source.
    pub error_is_source: bool,
    /// How our push failed, and the earliest moment at which that can have happened. A source posts an ERROR of its own
    /// afterwards, which is a consequence.
    pub flow_failed: Option<(Flow, u64)>,
    /// Frames before this moment do not count as a sign of life: the stream has restarted since.
    pub fresh_from: u64,
    /// When the first frame passed since PLAYING.
    pub first_frame_at: Option<u64>,
    /// When the last push of a second or more ended.
    pub push_ended_at: u64,
    pub feed: Feed,
    /// When the first of the sinks without any key unit was first seen.
    pub unfed_since: u64,
    pub record_stopped: bool,
    pub upload_offline: bool,
}

/// A phase, its reason, and its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Classification {
    pub phase: Phase,
    pub reason: Option<Reason>,
    pub since: u64,
}

impl Classification {
    const fn new(phase: Phase, reason: Option<Reason>, since: u64) -> Self {
        Self { phase, reason, since }
    }
}

impl Facts {
    /// Records what downstream returned; `polled_at` is the moment of the previous poll.
    pub(super) fn note_flow(&mut self, counts: &Counts, polled_at: u64) {
        match counts.flow {
            // Downstream accepts buffers again.
            Flow::Ok if self.eos_at.is_none() && self.error_at.is_none() && !self.stopping => self.flow_failed = None,
            Flow::Ok | Flow::Eos => {}
            flow => {
                self.flow_failed.get_or_insert((flow, polled_at));
            }
        }
    }

    /// Returns what ended the stream if it was not a source: an ERROR of another element that came first, or a push that failed
    /// before the source posted its own.
    fn cause(&self) -> Option<(Reason, u64)> {
        let element = self
            .error_at
            .filter(|_| !self.error_is_source)
            .map(|at| (Reason::Element, at));
        let flow = self.flow_failed.map(|(flow, at)| (Reason::Flow(flow), at));
        let is_first = |cause: &(Reason, u64)| !self.error_is_source || self.error_at.is_none_or(|error| cause.1 < error);
        element.or(flow.filter(is_first))
    }

    /// Returns the last sign of life of the stream: a frame, or the acceptance of one downstream after a long push.
    fn live_at(&self, counts: &Counts) -> Option<u64> {
        counts.last_frame.map(|at| at.max(self.push_ended_at))
    }

    /// Classifies the pipeline at `now`. `held` is the previous classification, which is returned if nothing new is known.
    pub(super) fn classify(&self, counts: &Counts, limits: &Limits, held: Classification, now: u64) -> Classification {
        if let Some(ended) = self.ended(counts, held, now) {
            return ended;
        }
        let Some(playing_since) = self.playing_since else {
            let waited = now.saturating_sub(self.began) >= limits.startup;
            return if self.has_played || (waited && limits.startup > 0) {
                Classification::new(Phase::Paused, None, now)
            } else {
                Classification::new(Phase::Starting, Some(Reason::NoFrame), self.began)
            };
        };
        // The time before PLAYING does not count: a push may be waiting for the preroll.
        let pushing_since = counts.pushing_since.map(|since| since.max(playing_since));
        if let Some(since) = pushing_since.filter(|since| now.saturating_sub(*since) >= limits.stall) {
            // A muxer that waits for its other stream blocks as well; the more useful report is that nothing is stored.
            return if self.feed == Feed::Never {
                Classification::new(Phase::NotRecording, Some(Reason::NoKeyUnit), since)
            } else {
                Classification::new(Phase::Blocked, Some(Reason::Downstream), since)
            };
        }
        let (Some(last), Some(live)) = (counts.last_frame, self.live_at(counts)) else {
            return Classification::new(Phase::Starting, Some(Reason::NoFrame), self.began);
        };
        let fresh_from = self.fresh_from.max(playing_since);
        if live < fresh_from {
            return if now.saturating_sub(fresh_from) >= limits.stall {
                Classification::new(Phase::Stalled, Some(Reason::NoFrame), last)
            } else if held.phase == Phase::Streaming {
                // No frame since the restart or since PLAYING: not known to stream.
                Classification::new(Phase::Paused, None, now)
            } else {
                held
            };
        }
        if now.saturating_sub(live) >= limits.stall {
            return Classification::new(Phase::Stalled, Some(Reason::NoFrame), live);
        }
        self.passing(limits, held, now)
    }

    /// Classifies a pipeline in which frames pass, by what its sinks receive.
    fn passing(&self, limits: &Limits, held: Classification, now: u64) -> Classification {
        match self.feed {
            // Stopped by command, but the sink is fed: the recording could resume at once.
            Feed::Absent | Feed::Fed if self.record_stopped => {
                Classification::new(Phase::Streaming, Some(Reason::RecordStopped), now)
            }
            Feed::Absent | Feed::Fed => {
                let reason = self.upload_offline.then_some(Reason::UploadOffline);
                Classification::new(Phase::Streaming, reason, now)
            }
            Feed::Silent => Classification::new(Phase::NotRecording, Some(Reason::NoData), now),
            Feed::Never => {
                let first = self.first_frame_at.unwrap_or(now).max(self.unfed_since);
                // A sink that replaces one without key units does not end `not-recording`.
                if now.saturating_sub(first) >= limits.startup || held.phase == Phase::NotRecording {
                    Classification::new(Phase::NotRecording, Some(Reason::NoKeyUnit), first)
                } else {
                    Classification::new(Phase::Starting, Some(Reason::NoKeyUnit), self.began)
                }
            }
        }
    }

    /// Classifies a stream that has ended; `None` if it continues.
    fn ended(&self, counts: &Counts, held: Classification, now: u64) -> Option<Classification> {
        let goes_on = |at: u64| {
            counts
                .last_frame
                .is_some_and(|last| last >= at.saturating_add(ERROR_IS_OVER_AFTER))
        };
        if let Some((reason, at)) = self.cause().filter(|(_, at)| !goes_on(*at)) {
            return Some(Classification::new(Phase::Error, Some(reason), at));
        }
        // In either order: the EOS and the message reach the reporter by different ways.
        if let (Some(eos), Some(trouble)) = (self.eos_at, self.source_problem_at)
            && eos.abs_diff(trouble) <= SOURCE_LOST_WITHIN
        {
            return Some(Classification::new(Phase::SourceLost, Some(Reason::Source), eos));
        }
        if let Some(at) = self.error_at.filter(|at| !goes_on(*at)) {
            return Some(Classification::new(Phase::Error, Some(Reason::Element), at));
        }
        if let Some(at) = self.eos_at {
            return Some(Classification::new(Phase::Eos, None, at));
        }
        match counts.flow {
            Flow::Eos => return Some(Classification::new(Phase::Eos, None, now)),
            flow if flow != Flow::Ok => return Some(Classification::new(Phase::Error, Some(Reason::Flow(flow)), now)),
            _ => {}
        }
        // The cause of the end stays until the next start: `stopped` means stopped on purpose.
        let is_explained = matches!(held.phase, Phase::Error | Phase::Eos | Phase::SourceLost);
        self.stopping.then(|| {
            if is_explained {
                held
            } else {
                Classification::new(Phase::Stopped, None, now)
            }
        })
    }
}
