//! Publishes the state of a camera: its report, one log line for each change, and reports to the broker while no recording sends
//! them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Leaves, Runner, spawn};
use crate::camera::absence::Why;
use crate::camera::state::State;
use crate::camera::stats::SinkStats;

impl Runner {
    /// Reports a camera to the broker as absent if no recording reports it, once for each reason.
    pub(super) fn report_absence(&mut self) {
        let condition = self.supervisor.condition();
        let is_absent = condition.state.is_fault() || condition.state == State::Stopped;
        let is_reported = self.open.iter().any(|open| !open.is_gone && open.recording.is_assembled());
        if !is_absent || is_reported || self.supervisor.is_over() || !self.job.storage.has_broker() {
            if !is_absent {
                self.reported_absence = None;
            }
            return;
        }
        let why = Why {
            state: condition.state,
            reason: condition.reason.clone(),
        };
        if self.reported_absence.as_ref() == Some(&why) {
            return;
        }
        self.reported_absence = Some(why.clone());
        let current = self.current().map(|open| Arc::clone(&open.recording));
        let (absence, storage, camera) = (
            Arc::clone(&self.absence),
            Arc::clone(&self.job.storage),
            self.job.camera.clone(),
        );
        let is_over = Arc::clone(&self.is_over);
        // This thread may start late: it asks again whether a recording has taken over, or the runner has ended.
        spawn("absence", move || {
            let is_reported =
                || is_over.load(Ordering::Relaxed) || current.as_ref().is_some_and(|recording| recording.is_assembled());
            absence.begin(&storage, &camera, &why, is_reported);
        });
    }

    /// Puts the report on the board and logs one line for each change.
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
            // The state is the same, but there is a new cause to fix: for example, the port is open now and the path is wrong.
            tracing::warn!(camera = report.id, state = condition.state.name(), "{}", condition.reason);
        }
        report.state = condition.state;
        report.reason.clone_from(&condition.reason);
        // Convert to wall-clock time only once for each state: the two clocks drift apart, and `since` would change with every
        // report.
        if self.since != Some(condition.since) {
            self.since = Some(condition.since);
            let ago = self.began.elapsed().saturating_sub(condition.since);
            report.since = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        }
        report.was_tried |= condition.state != State::Connecting;
        report.gaps = self.supervisor.absences(self.began.elapsed());
        report.reconnects.clone_from(self.supervisor.reconnects());
        // Without pending chunks, the bytes belong to the chunk that is still being recorded: they are no backlog.
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
            // Values of the connection before stay until this one has its own.
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
