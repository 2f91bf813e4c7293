//! How a camera fares, said to all who ask: its report, a line of the log for each change, and the broker while no recording does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Leaves, Runner, spawn};
use crate::camera::absence::Why;
use crate::camera::state::State;
use crate::camera::stats::SinkStats;

impl Runner {
    /// A camera that no recording reports to the broker is reported as absent, once for each reason.
    pub(super) fn report_absence(&mut self) {
        let condition = self.supervisor.condition();
        let is_absent = condition.state.is_fault() || condition.state == State::Stopped;
        let is_reported = self.open.iter().any(|open| !open.is_gone && open.recording.is_assembled());
        if !is_absent || is_reported || self.supervisor.is_over() || !self.job.storage.has_broker() {
            if !is_absent {
                self.told_absence = None;
            }
            return;
        }
        let why = Why {
            state: condition.state,
            reason: condition.reason.clone(),
        };
        if self.told_absence.as_ref() == Some(&why) {
            return;
        }
        self.told_absence = Some(why.clone());
        let current = self.current().map(|open| Arc::clone(&open.recording));
        let (absence, storage, camera) = (
            Arc::clone(&self.absence),
            Arc::clone(&self.job.storage),
            self.job.camera.clone(),
        );
        let is_over = Arc::clone(&self.is_over);
        spawn("absence", move || {
            let is_reported =
                || is_over.load(Ordering::Relaxed) || current.as_ref().is_some_and(|recording| recording.is_assembled());
            absence.begin(&storage, &camera, &why, is_reported);
        });
    }

    /// Writes the report, and one line for each change.
    pub(super) fn publish(&mut self) {
        let condition = self.supervisor.condition();
        let report = &mut self.report;
        let is_new = condition.reason != report.reason && self.logged.is_new(&condition.reason, self.began.elapsed());
        if condition.state != report.state {
            let (camera, from, to) = (report.id.as_str(), report.state.name(), condition.state.name());
            let is_wrong = condition.state.is_fault() || (condition.state == State::Stopped && !self.supervisor.is_over());
            match is_wrong {
                true => tracing::warn!(camera, from, to, "{}: {}", to, condition.reason),
                false if condition.reason.is_empty() => tracing::info!(camera, from, to, "{}", to),
                false => tracing::info!(camera, from, to, "{}: {}", to, condition.reason),
            }
        } else if condition.state.is_fault() && is_new {
            // The next thing to look at: the port is open now, and the path is wrong.
            tracing::warn!(camera = report.id, state = condition.state.name(), "{}", condition.reason);
        }
        report.state = condition.state;
        report.reason.clone_from(&condition.reason);
        // Once for each state: the wall clock and this one drift apart.
        if self.since != Some(condition.since) {
            self.since = Some(condition.since);
            let ago = self.began.elapsed().saturating_sub(condition.since);
            report.since = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        }
        report.was_tried |= condition.state != State::Connecting;
        report.gaps = self.supervisor.absences(self.began.elapsed());
        report.reconnects.clone_from(self.supervisor.reconnects());
        // What is there while no chunk waits is the one that is being recorded.
        let backlog = |stats: &SinkStats| match stats.chunks_pending {
            0 => 0,
            _ => stats.bytes_in_memory.saturating_add(stats.bytes_in_spool),
        };
        report.backlog_bytes = self.open.iter().map(|open| backlog(&open.seen)).sum();
        let oldest = self.open.iter().map(|open| open.seen.oldest_pending).max().unwrap_or(0);
        report.oldest_pending = Duration::from_nanos(oldest);
        let has_spool = self.job.storage.spool_dir.is_some() && condition.state == State::Recording;
        let current = self.open.iter().find(|open| open.ended.is_none());
        report.spool_left = current
            .filter(|_| has_spool)
            .map(|open| Duration::from_secs(open.seen.spool_seconds_left));
        if let Some(open) = current {
            let (watch, pace) = (&open.recording.watch, open.recording.watch.pace());
            if let Some(picture) = watch.picture() {
                report.codec = Some(picture.codec.name());
                report.size = Some((picture.width, picture.height));
                report.audio = open.recording.sound_label();
            }
            report.fps = pace.fps.or(report.fps);
            report.key_interval = pace
                .key_interval
                .map(|ns| Duration::from_nanos(ns).as_secs_f64())
                .or(report.key_interval);
            report.last_frame = watch.last_frame().or(report.last_frame);
        }
        match self.leaves {
            Leaves::Nothing => self.job.board.remove_of(self.job.run, &self.report.id),
            Leaves::Disabled => {
                let report = &mut self.report;
                (report.gaps, report.reconnects) = Default::default();
                self.job.board.put_of(self.job.run, self.report.clone());
            }
            Leaves::Report => self.job.board.put_of(self.job.run, self.report.clone()),
        }
    }
}
