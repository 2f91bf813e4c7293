//! The gcssinks behind the element: whether they are fed, and how their uploads go.
//!
//! Several sinks count as one: fed only where all of them are, the worst status, the sum of the backlogs, the oldest chunk.

use std::collections::VecDeque;

use super::Limits;
use super::phase::Feed;
use super::status::Upload;
use crate::structures::UploadStatus;

/// So many times the longest usual pause between two key units is silence: muxers hand on in bursts, cameras space out their
/// key pictures.
const PATIENCE: u64 = 3;
/// Pauses that are remembered: what was usual long ago is not for ever.
const PAUSES: usize = 16;
/// And never more than this, ns.
const MOST_PATIENCE: u64 = 300_000_000_000;

/// What one gcssink says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Its name, unique among the sinks.
    pub name: String,
    /// `key-units`: those that have come.
    pub key_units: u64,
    /// `bytes-received`.
    pub bytes_received: u64,
    /// Bytes in memory and on disk.
    pub bytes_held: u64,
    /// `chunks-pending`.
    pub chunks_pending: u64,
    /// `oldest-pending-ns`.
    pub oldest_pending: u64,
    /// `bytes-dropped`.
    pub bytes_dropped: u64,
    /// `retries`.
    pub retries: u64,
    /// `status`.
    pub status: Option<UploadStatus>,
    /// The last stored object, where the sample knows it.
    pub object: Option<String>,
    /// `session-id`.
    pub session: Option<String>,
}

const fn badness(status: UploadStatus) -> u8 {
    match status {
        UploadStatus::Stopped => 0,
        UploadStatus::Online => 1,
        UploadStatus::Starting => 2,
        UploadStatus::Draining => 3,
        UploadStatus::Degraded => 4,
        UploadStatus::Offline => 5,
    }
}

/// A sink over time.
#[derive(Clone, Debug)]
struct Sink {
    sample: Sample,
    /// When it was first seen.
    since: u64,
    /// When a key unit last came.
    grew_at: Option<u64>,
    /// The last pauses between two of them in which it was fed as usual.
    pauses: VecDeque<u64>,
    /// The last pause, where it was so long that the sink counted as one that gets nothing.
    silence: Option<u64>,
}

impl Sink {
    fn new(now: u64) -> Self {
        Self {
            sample: Sample::default(),
            since: now,
            grew_at: None,
            pauses: VecDeque::new(),
            silence: None,
        }
    }

    /// No key unit for so long is silence.
    fn limit(&self, limits: &Limits) -> u64 {
        let longest = self.pauses.iter().max();
        let limit = longest.map_or(limits.startup, |l| l.saturating_mul(PATIENCE).min(MOST_PATIENCE));
        limit.max(limits.stall)
    }

    /// Key units have come after a pause. An outage is not learned as the sink's habit, or the next one would be noticed late;
    /// a pause that comes twice in a row with one key unit between is no outage but the camera's rhythm.
    fn grew(&mut self, pause: u64, limits: &Limits) {
        let is_silence = pause >= self.limit(limits);
        let again = self.silence.take().is_some_and(|before| before.abs_diff(pause) <= before / 4);
        if is_silence && !again {
            self.silence = Some(pause);
            return;
        }
        if self.pauses.len() >= PAUSES {
            self.pauses.pop_front();
        }
        self.pauses.push_back(pause);
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Sinks {
    sinks: Vec<Sink>,
    /// Since when frames pass: silence before it was not the muxer's.
    pub passing_from: u64,
    /// A sink was fed: one that appears later takes over from another, as the fragments of a splitmuxsink do.
    was_fed: bool,
}

impl Sinks {
    /// What all sinks of the pipeline say now.
    pub(super) fn sample(&mut self, samples: Vec<Sample>, limits: &Limits, now: u64) {
        let mut before = std::mem::take(&mut self.sinks);
        for sample in samples {
            let known = before.iter().position(|s| s.sample.name == sample.name);
            let mut sink = known.map_or_else(|| Sink::new(now), |i| before.swap_remove(i));
            // Less than before: it was started anew.
            if sample.bytes_received < sink.sample.bytes_received || sample.key_units < sink.sample.key_units {
                sink = Sink::new(now);
            }
            if sample.key_units != sink.sample.key_units {
                if let Some(before) = sink.grew_at {
                    sink.grew(now.saturating_sub(before.max(self.passing_from)), limits);
                }
                sink.grew_at = Some(now);
            }
            sink.sample = sample;
            self.sinks.push(sink);
        }
    }

    /// Whether the sinks are fed.
    pub(super) fn feed(&mut self, limits: &Limits, push_ended_at: u64, now: u64) -> Feed {
        let since = self.passing_from.max(push_ended_at);
        let one = |sink: &Sink| {
            if sink.sample.key_units == 0 {
                return match now.saturating_sub(sink.since.max(since)) < limits.stall {
                    _ if !self.was_fed => Feed::Never,
                    true => Feed::Fed,
                    false => Feed::Silent,
                };
            }
            let silent = now.saturating_sub(sink.grew_at.unwrap_or(0).max(since));
            if silent >= sink.limit(limits) {
                Feed::Silent
            } else {
                Feed::Fed
            }
        };
        let feeds: Vec<Feed> = self.running().map(one).collect();
        let worst = [Feed::Never, Feed::Silent, Feed::Fed].into_iter().find(|f| feeds.contains(f));
        self.was_fed |= worst == Some(Feed::Fed);
        worst.unwrap_or(Feed::Absent)
    }

    fn running(&self) -> impl Iterator<Item = &Sink> {
        self.sinks.iter().filter(|s| s.sample.status != Some(UploadStatus::Stopped))
    }

    /// The worst status.
    pub(super) fn status(&self) -> Option<UploadStatus> {
        let all = self.sinks.iter().filter_map(|s| s.sample.status);
        all.max_by_key(|s| badness(*s))
    }

    /// Session of the first sink.
    pub(super) fn session(&self) -> Option<&str> {
        self.sinks.iter().find_map(|s| s.sample.session.as_deref())
    }

    /// How the uploads go; unknown without a sink.
    pub(super) fn upload(&self, last: Option<&(String, u64)>) -> Upload {
        let mut upload = Upload {
            object: last.map(|(object, _)| object.clone()),
            last_done: last.map(|(_, at)| *at),
            ..Upload::default()
        };
        let sum = |pick: fn(&Sample) -> u64| self.sinks.iter().map(|s| pick(&s.sample)).fold(0, u64::saturating_add);
        if self.sinks.is_empty() {
            return upload;
        }
        upload.object = upload
            .object
            .or_else(|| self.sinks.iter().find_map(|s| s.sample.object.clone()));
        upload.backlog_chunks = Some(sum(|s| s.chunks_pending));
        // The open chunk is no backlog, and is not told apart.
        upload.backlog_bytes = Some(sum(|s| if s.chunks_pending > 0 { s.bytes_held } else { 0 }));
        upload.oldest_pending = self.sinks.iter().map(|s| s.sample.oldest_pending).max();
        upload.dropped_bytes = Some(sum(|s| s.bytes_dropped));
        upload.retries = Some(sum(|s| s.retries));
        upload.status = self.status();
        upload
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }
}
