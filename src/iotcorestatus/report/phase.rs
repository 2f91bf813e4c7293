//! Which phase the pipeline is in: one function of what is known.

use super::{Limits, Now, Tally};

/// An EOS so near to a WARNING or ERROR of a source is the source's end, not that of the recording.
const SOURCE_LOST_WITHIN: u64 = 2_000_000_000;
/// Buffers that were on their way when an ERROR came pass a moment longer; later ones say that the pipeline goes on.
const ERROR_IS_OVER_AFTER: u64 = 2_000_000_000;

/// What the pipeline does. Only [`Phase::Streaming`] is `connected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing has come yet.
    Starting,
    /// Frames pass now, and every gcssink in the pipeline is fed.
    Streaming,
    /// No frame for `stall-timeout` while PLAYING.
    Stalled,
    /// Our own push has taken `stall-timeout`: it is downstream, not the camera.
    Blocked,
    /// Frames pass, and a gcssink gets none of them.
    NotRecording,
    /// PAUSED after it was PLAYING.
    Paused,
    /// The stream has ended.
    Eos,
    /// The stream has ended, since its source failed.
    SourceLost,
    /// An element has posted an ERROR, or downstream refuses the buffers.
    Error,
    /// The element is not running.
    Stopped,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Starting,
        Self::Streaming,
        Self::Stalled,
        Self::Blocked,
        Self::NotRecording,
        Self::Paused,
        Self::Eos,
        Self::SourceLost,
        Self::Error,
        Self::Stopped,
    ];

    /// As in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Stalled => "stalled",
            Self::Blocked => "blocked",
            Self::NotRecording => "not-recording",
            Self::Paused => "paused",
            Self::Eos => "eos",
            Self::SourceLost => "source-lost",
            Self::Error => "error",
            Self::Stopped => "stopped",
        }
    }

    /// The state of the device: `connected` or `disconnected`.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Streaming => "connected",
            _ => "disconnected",
        }
    }
}

/// Why, in a word; `None` where the phase says it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not one frame, or none any more.
    NoFrame,
    /// A gcssink has had no key unit in this session.
    NoKeyUnit,
    /// A gcssink gets nothing any more.
    NoData,
    /// What is behind us does not take the buffer.
    Downstream,
    /// The source posted a WARNING or an ERROR and ended the stream.
    Source,
    /// An element posted an ERROR.
    Element,
    /// Our push was answered with this flow return.
    Flow(Flow),
    /// Nothing gets through to the storage: the uplink's trouble, not the camera's.
    UploadOffline,
    /// A command has stopped the recording.
    RecordStopped,
}

impl Reason {
    /// As in the status.
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

/// What downstream answered to the last push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Taken, or flushing.
    #[default]
    Ok,
    /// Downstream has seen its end.
    Eos,
    /// Nothing is linked.
    NotLinked,
    /// The caps do not fit.
    NotNegotiated,
    /// Any other error.
    Error,
}

/// How the gcssinks behind us are fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Feed {
    /// There is none.
    #[default]
    Absent,
    /// One of them has had no key unit in this session.
    Never,
    /// One of them gets nothing any more.
    Silent,
    /// All of them are fed.
    Fed,
}

/// What is known beside the tally.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// When the session began.
    pub began: u64,
    /// Since when the pipeline is PLAYING, or on its way there.
    pub playing_since: Option<u64>,
    pub has_played: bool,
    pub stopping: bool,
    pub eos_at: Option<u64>,
    /// The last WARNING or ERROR of a source.
    pub source_trouble_at: Option<u64>,
    /// The first ERROR of any element.
    pub error_at: Option<u64>,
    /// It was a source's.
    pub error_is_source: bool,
    /// Our push failed, and when at the earliest: a source ends with an ERROR of its own then.
    pub flow_failed: Option<(Flow, u64)>,
    /// Frames before this are no sign of life: the stream began anew.
    pub fresh_from: u64,
    /// When the first frame passed.
    pub first_frame_at: Option<u64>,
    /// When a push that had taken long was seen to be over.
    pub push_ended_at: u64,
    pub feed: Feed,
    pub record_stopped: bool,
    pub upload_offline: bool,
}

/// A phase, its reason, and since when, on the scale of [`Now::mono`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub phase: Phase,
    pub reason: Option<Reason>,
    pub since: u64,
}

impl Verdict {
    const fn new(phase: Phase, reason: Option<Reason>, since: u64) -> Self {
        Self { phase, reason, since }
    }
}

impl Facts {
    /// Notes what downstream answers; `looked_at` is when it was looked at before.
    pub(super) fn note_flow(&mut self, tally: &Tally, looked_at: u64) {
        match tally.flow {
            // Downstream takes them again.
            Flow::Ok if self.eos_at.is_none() && self.error_at.is_none() && !self.stopping => self.flow_failed = None,
            Flow::Ok | Flow::Eos => {}
            flow => {
                self.flow_failed.get_or_insert((flow, looked_at));
            }
        }
    }

    /// What ended the stream where it was no source: an ERROR of another element that came first, or that our push had failed
    /// before a source gave up.
    fn cause(&self) -> Option<(Reason, u64)> {
        let element = self
            .error_at
            .filter(|_| !self.error_is_source)
            .map(|at| (Reason::Element, at));
        let flow = self.flow_failed.map(|(flow, at)| (Reason::Flow(flow), at));
        let is_first = |cause: &(Reason, u64)| !self.error_is_source || self.error_at.is_none_or(|error| cause.1 < error);
        element.or(flow.filter(is_first))
    }

    /// The last sign of life of the stream: a frame, or that downstream has taken one after all.
    fn live_at(&self, tally: &Tally) -> Option<u64> {
        tally.last_frame.map(|at| at.max(self.push_ended_at))
    }

    /// What is true now; `held` is what was said before and stays where nothing new is known.
    pub(super) fn decide(&self, tally: &Tally, limits: &Limits, held: Verdict, now: Now) -> Verdict {
        let now = now.mono;
        if let Some(verdict) = self.ended(tally, held, now) {
            return verdict;
        }
        let Some(playing_since) = self.playing_since else {
            let waited = now.saturating_sub(self.began) >= limits.startup;
            return if self.has_played || (waited && limits.startup > 0) {
                Verdict::new(Phase::Paused, None, now)
            } else {
                Verdict::new(Phase::Starting, Some(Reason::NoFrame), self.began)
            };
        };
        // The time before PLAYING does not count: a push may wait for the preroll.
        let pushing_since = tally.pushing_since.map(|since| since.max(playing_since));
        if let Some(since) = pushing_since.filter(|since| now.saturating_sub(*since) >= limits.stall) {
            // A muxer that waits for its other stream takes no more frames either; that nothing is stored says more.
            return if self.feed == Feed::Never {
                Verdict::new(Phase::NotRecording, Some(Reason::NoKeyUnit), since)
            } else {
                Verdict::new(Phase::Blocked, Some(Reason::Downstream), since)
            };
        }
        let (Some(last), Some(live)) = (tally.last_frame, self.live_at(tally)) else {
            return Verdict::new(Phase::Starting, Some(Reason::NoFrame), self.began);
        };
        let fresh_from = self.fresh_from.max(playing_since);
        if live < fresh_from {
            return if now.saturating_sub(fresh_from) >= limits.stall {
                Verdict::new(Phase::Stalled, Some(Reason::NoFrame), last)
            } else if held.phase == Phase::Streaming {
                // It is not known to be so any more.
                Verdict::new(Phase::Paused, None, now)
            } else {
                held
            };
        }
        if now.saturating_sub(live) >= limits.stall {
            return Verdict::new(Phase::Stalled, Some(Reason::NoFrame), live);
        }
        self.fed(limits, now)
    }

    /// Where frames pass: what becomes of them.
    fn fed(&self, limits: &Limits, now: u64) -> Verdict {
        match self.feed {
            // A recording that rests by command could go on at once: the sink gets what it needs.
            Feed::Absent | Feed::Fed if self.record_stopped => Verdict::new(Phase::Streaming, Some(Reason::RecordStopped), now),
            Feed::Absent | Feed::Fed => {
                let reason = self.upload_offline.then_some(Reason::UploadOffline);
                Verdict::new(Phase::Streaming, reason, now)
            }
            Feed::Silent => Verdict::new(Phase::NotRecording, Some(Reason::NoData), now),
            Feed::Never => {
                let first = self.first_frame_at.unwrap_or(now);
                if now.saturating_sub(first) >= limits.startup {
                    Verdict::new(Phase::NotRecording, Some(Reason::NoKeyUnit), first)
                } else {
                    Verdict::new(Phase::Starting, Some(Reason::NoKeyUnit), self.began)
                }
            }
        }
    }

    /// Whether it is over, by whatever.
    fn ended(&self, tally: &Tally, held: Verdict, now: u64) -> Option<Verdict> {
        let goes_on = |at: u64| {
            tally
                .last_frame
                .is_some_and(|last| last >= at.saturating_add(ERROR_IS_OVER_AFTER))
        };
        if let Some((reason, at)) = self.cause().filter(|(_, at)| !goes_on(*at)) {
            return Some(Verdict::new(Phase::Error, Some(reason), at));
        }
        if let (Some(eos), Some(trouble)) = (self.eos_at, self.source_trouble_at)
            && eos.abs_diff(trouble) <= SOURCE_LOST_WITHIN
        {
            return Some(Verdict::new(Phase::SourceLost, Some(Reason::Source), eos));
        }
        if let Some(at) = self.error_at.filter(|at| !goes_on(*at)) {
            return Some(Verdict::new(Phase::Error, Some(Reason::Element), at));
        }
        if let Some(at) = self.eos_at {
            return Some(Verdict::new(Phase::Eos, None, at));
        }
        match tally.flow {
            Flow::Eos => return Some(Verdict::new(Phase::Eos, None, now)),
            flow if flow != Flow::Ok => return Some(Verdict::new(Phase::Error, Some(Reason::Flow(flow)), now)),
            _ => {}
        }
        // What ended it is told until the next start: "stopped" is a stop on purpose.
        let told = matches!(held.phase, Phase::Error | Phase::Eos | Phase::SourceLost);
        self.stopping
            .then(|| if told { held } else { Verdict::new(Phase::Stopped, None, now) })
    }
}
