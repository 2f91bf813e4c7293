//! State of the gcssinks behind the element: whether they receive key units, and their upload health.
//!
//! Several sinks count as one: fed if all of them are, the worst status, the sum of the backlogs, the oldest chunk.

use std::collections::VecDeque;

use super::event::SinkSample;
use super::input::{Limits, Push};
use super::phase::Feed;
use super::status::Upload;
use gcstreamer_schema::structures::UploadStatus;

/// A sink is silent after this many times its longest usual pause between two key units: muxers forward in bursts, and cameras
/// differ in their key frame interval.
const PATIENCE: u64 = 3;
/// Number of pauses remembered, so that an old long one expires.
const MAX_PAUSES: usize = 16;
/// Longest time without a key unit before a sink is silent, ns.
const MAX_PATIENCE: u64 = 300_000_000_000;

/// Ranks the statuses of several sinks: the highest is reported.
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
    sample: SinkSample,
    /// When it was first seen.
    since: u64,
    /// When the last key unit arrived.
    grew_at: Option<u64>,
    /// The last pauses between two key units that did not count as silence.
    pauses: VecDeque<u64>,
    /// The last pause, if it was long enough to count as silence.
    silence: Option<u64>,
    /// The longest push since the last key unit: nothing could reach the sink meanwhile.
    push: Option<Push>,
}

impl Sink {
    fn new(now: u64) -> Self {
        Self {
            sample: SinkSample::default(),
            since: now,
            grew_at: None,
            pauses: VecDeque::new(),
            silence: None,
            push: None,
        }
    }

    /// Returns when the sink started to wait for its next key unit.
    fn waits_since(&self) -> u64 {
        self.grew_at.unwrap_or(self.since)
    }

    /// Returns how long the sink has had no key unit since `passing_from`, ns. The longest push is subtracted, because nothing
    /// could reach the sink meanwhile. Only the longest: if downstream waits for a clock, every push takes time, and with all
    /// of them subtracted the sinks of a slow camera would never be silent.
    fn silent_for(&self, passing_from: u64, now: u64) -> u64 {
        let from = self.waits_since().max(passing_from);
        let blocked = self.push.map_or(0, |push| push.ended.saturating_sub(push.began.max(from)));
        now.saturating_sub(from).saturating_sub(blocked)
    }

    /// Returns how long the sink may have no key unit before it is silent, ns.
    fn limit(&self, limits: &Limits) -> u64 {
        let longest = self.pauses.iter().max();
        let limit = longest.map_or(limits.startup, |l| l.saturating_mul(PATIENCE).min(MAX_PATIENCE));
        limit.max(limits.stall)
    }

    /// Records a key unit that arrived after a pause. The pause of an outage does not raise the limit, or the next outage would
    /// be noticed late. But if a nearly equal pause follows at once, it is the camera's key frame interval and not an outage.
    fn grew(&mut self, pause: u64, limits: &Limits) {
        let is_silence = pause >= self.limit(limits);
        let again = self.silence.take().is_some_and(|before| before.abs_diff(pause) <= before / 4);
        if is_silence && !again {
            self.silence = Some(pause);
            return;
        }
        if self.pauses.len() >= MAX_PAUSES {
            self.pauses.pop_front();
        }
        self.pauses.push_back(pause);
    }
}

/// All gcssinks of the pipeline.
#[derive(Clone, Debug, Default)]
pub(super) struct Sinks {
    sinks: Vec<Sink>,
    /// When frames started to pass: the muxer is not responsible for silence before that.
    pub passing_from: u64,
    /// A sink was fed before, or frames passed without one: a sink that appears later is a replacement, like the fragments of a
    /// splitmuxsink.
    pub has_begun: bool,
    /// When a sink was last seen running.
    ran_at: Option<u64>,
    /// The last status that reports upload health.
    settled: Option<UploadStatus>,
}

impl Sinks {
    /// Takes the samples of all sinks of the pipeline.
    pub(super) fn update(&mut self, samples: Vec<SinkSample>, limits: &Limits, now: u64) {
        let mut before = std::mem::take(&mut self.sinks);
        for sample in samples {
            let known = before.iter().position(|s| s.sample.name == sample.name);
            let mut sink = known.map_or_else(|| Sink::new(now), |i| before.swap_remove(i));
            // A counter went back: the sink was restarted.
            if sample.bytes_received < sink.sample.bytes_received || sample.key_units < sink.sample.key_units {
                sink = Sink::new(now);
            }
            if sample.key_units != sink.sample.key_units {
                if let Some(before) = sink.grew_at {
                    sink.grew(now.saturating_sub(before.max(self.passing_from)), limits);
                }
                sink.grew_at = Some(now);
                sink.push = None;
            }
            sink.sample = sample;
            self.sinks.push(sink);
        }
        let has_status =
            |status: &UploadStatus| matches!(status, UploadStatus::Online | UploadStatus::Degraded | UploadStatus::Offline);
        let settled = self.statuses().filter(has_status).max_by_key(|s| badness(*s));
        self.settled = settled.or(self.settled);
    }

    fn statuses(&self) -> impl Iterator<Item = UploadStatus> {
        self.sinks.iter().filter_map(|s| s.sample.status)
    }

    /// Records the last push that took a second or more.
    pub(super) fn note_push(&mut self, push: Push) {
        let length = |push: Push| push.ended.saturating_sub(push.began);
        for sink in &mut self.sinks {
            if push.ended > sink.waits_since() && sink.push.is_none_or(|known| length(push) > length(known)) {
                sink.push = Some(push);
            }
        }
    }

    /// Returns when the first of the sinks without any key unit was first seen; 0 if every sink has had one.
    pub(super) fn unfed_since(&self) -> u64 {
        let unfed = self.sinks.iter().filter(|s| s.sample.key_units == 0);
        unfed.map(|s| s.since).min().unwrap_or(0)
    }

    /// Returns whether the sinks are fed. `now` is when the last frame arrived: without frames no sink can show that it is fed.
    pub(super) fn feed(&mut self, limits: &Limits, now: u64) -> Feed {
        let one = |sink: &Sink| {
            let silent = sink.silent_for(self.passing_from, now);
            if sink.sample.key_units == 0 && !self.has_begun {
                Feed::Never
            } else if silent >= sink.limit(limits) {
                Feed::Silent
            } else {
                Feed::Fed
            }
        };
        let feeds: Vec<Feed> = self.running().map(one).collect();
        if feeds.is_empty() && !self.sinks.is_empty() {
            return self.between_sinks(limits, now);
        }
        self.ran_at = Some(now);
        let worst = [Feed::Never, Feed::Silent, Feed::Fed].into_iter().find(|f| feeds.contains(f));
        self.has_begun |= worst == Some(Feed::Fed);
        worst.unwrap_or(Feed::Absent)
    }

    /// Returns whether the sinks are fed while none of them runs: before the first fragment of a splitmuxsink, or between two.
    fn between_sinks(&self, limits: &Limits, now: u64) -> Feed {
        match self.ran_at {
            Some(at) if self.has_begun && now.saturating_sub(at) < limits.stall => Feed::Fed,
            _ if self.has_begun => Feed::Silent,
            _ => Feed::Never,
        }
    }

    fn running(&self) -> impl Iterator<Item = &Sink> {
        self.sinks.iter().filter(|s| s.sample.status != Some(UploadStatus::Stopped))
    }

    /// Returns the worst status; `None` if no sink has reported one. A sink that replaces another, as for each fragment of a
    /// splitmuxsink, inherits the previous status until it has one of its own. A sink that ends while others continue, as with
    /// `async-finalize` of splitmuxsink, does not count: the recording does not end.
    pub(super) fn status(&self) -> Option<UploadStatus> {
        let ends = |status: &UploadStatus| matches!(status, UploadStatus::Draining | UploadStatus::Stopped);
        let going_on = self.statuses().filter(|status| !ends(status)).max_by_key(|s| badness(*s));
        let worst = going_on.or_else(|| self.statuses().max_by_key(|s| badness(*s)));
        match (worst, self.settled) {
            (Some(UploadStatus::Starting), Some(settled)) if self.has_begun => Some(settled),
            (worst, _) => worst,
        }
    }

    /// Returns the session of the first sink that has one.
    pub(super) fn session(&self) -> Option<&str> {
        self.sinks.iter().find_map(|s| s.sample.session.as_deref())
    }

    /// Returns the upload health; unknown without a sink. `last` is the last stored object and when it was confirmed.
    pub(super) fn upload(&self, last: Option<&(String, u64)>) -> Upload {
        let mut upload = Upload {
            object: last.map(|(object, _)| object.clone()),
            last_done: last.map(|(_, at)| *at),
            ..Upload::default()
        };
        let sum = |pick: fn(&SinkSample) -> u64| self.sinks.iter().map(|s| pick(&s.sample)).fold(0, u64::saturating_add);
        if self.sinks.is_empty() {
            return upload;
        }
        upload.object = upload
            .object
            .or_else(|| self.sinks.iter().find_map(|s| s.sample.object.clone()));
        upload.backlog_chunks = Some(sum(|s| s.chunks_pending));
        // The bytes of the open chunk are not backlog, but the figures include them. They are left out if no closed chunk waits.
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

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn sample(name: &str, status: &str, key_units: u64) -> SinkSample {
        SinkSample {
            name: name.to_owned(),
            status: UploadStatus::from_name(status),
            key_units,
            bytes_received: key_units,
            ..SinkSample::default()
        }
    }

    #[test]
    fn a_fragment_that_is_finished_beside_the_next_one_does_not_end_the_uploads() {
        let limits = Limits {
            stall: 10 * S,
            startup: 30 * S,
            interval: 60 * S,
        };
        let mut sinks = Sinks::default();
        sinks.update(vec![sample("a", "online", 1)], &limits, S);
        sinks.feed(&limits, S);
        for (status, ended) in [("starting", "draining"), ("online", "draining"), ("online", "stopped")] {
            sinks.update(vec![sample("a", ended, 1), sample("b", status, 1)], &limits, 2 * S);
            assert_eq!(sinks.status(), Some(UploadStatus::Online), "{status}, {ended}");
        }
        sinks.update(vec![sample("a", "draining", 1), sample("b", "degraded", 1)], &limits, 3 * S);
        assert_eq!(sinks.status(), Some(UploadStatus::Degraded));
        sinks.update(vec![sample("a", "stopped", 1), sample("b", "draining", 1)], &limits, 4 * S);
        assert_eq!(sinks.status(), Some(UploadStatus::Draining), "the end");
    }
}
