//! Checks made once a second: whether the stream has stopped, whether anything arrived, whether limits changed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::engine::Engine;
use super::message::Message;
use super::stream::Ingest;
use crate::base::lock::lock;
use crate::flow::shortage::{Figures, Limit, Shortage};
use gcstreamer_media::chunk::Warning;
use gcstreamer_media::container::Fault;

impl Engine {
    /// Calls `each` once a second until it returns `false` or the session ends. `each` must call [`Engine::tick`].
    pub fn every_second(self: &Arc<Self>, each: impl FnMut(&Self) -> bool + Send + 'static) {
        let ticker = self.runtime().spawn(every_second(Arc::downgrade(self), each));
        lock(&self.tasks).ticker = Some(ticker.abort_handle());
    }

    /// Closes the open chunk if no data arrived for a while, and reports that nothing usable arrives. `is_playing`: the pipeline
    /// is PLAYING or on its way there.
    pub fn tick(&self, is_playing: bool) {
        let now = self.queue.now();
        if !is_playing {
            self.playing.since.store(0, Ordering::Relaxed);
        } else if self.playing.since.load(Ordering::Relaxed) == 0 {
            self.playing.since.store(now + 1, Ordering::Relaxed);
        }
        self.poll_flow();
        self.watch_limits();
        let config = self.config();
        let has_begun = self.with(|ingest| {
            ingest.close_if_idle(config.limits.idle(), self.held.until());
            ingest.report_start();
            ingest.chunker.has_begun() || ingest.chunker.is_stopped()
        });
        let since = self.playing.since.load(Ordering::Relaxed);
        let waited = self.queue.now().saturating_sub(since.saturating_sub(1));
        let is_late = since > 0 && config.startup_timeout > 0 && waited >= config.startup_timeout;
        if is_late && !has_begun {
            self.report_nothing(waited);
        }
    }

    /// Reports, once, that nothing usable arrived.
    pub(super) fn report_nothing(&self, waited: u64) {
        if !self.reported.nothing_to_store.swap(true, Ordering::Relaxed) {
            // No key unit can be found in such a stream, so advice about their interval would be wrong.
            if self.with(Ingest::report_no_program) {
                return;
            }
            let received = self.queue.snapshot().stats.bytes_received;
            let (pictures, missing, enclosed) = self.with(|ingest| {
                let chunker = &ingest.chunker;
                (chunker.pictures(), chunker.missing_head(), chunker.encloses_keys())
            });
            let config = self.config();
            self.poster.post(if enclosed {
                Message::Warning {
                    warning: Warning::NoKeyUnit {
                        waited,
                        interval: None,
                        enclosed,
                    },
                    max_time: config.limits.max_time,
                    max_memory: config.uploads.max_memory,
                }
            } else if let Some(fault) = missing {
                Message::NoFragments {
                    waited,
                    is_damaged: fault == Fault::NoHead,
                }
            } else if pictures > 0 {
                Message::NoKeyAmong { waited, pictures }
            } else {
                Message::NothingToStore { waited, received }
            });
        }
    }

    /// Checks whether another member of the group has changed the limits.
    fn poll_flow(&self) {
        let (bytes, requests, version) = self.flow.group().limits();
        if self.reported.flow_version.swap(version, Ordering::Relaxed) != version {
            let is_new = self.flow.group().claim_report(version);
            self.poster.post(Message::LimitsChanged { bytes, requests, is_new });
        }
    }

    /// Publishes this sink's figures for the spool and the flow group. Reports that a limit of the group is too low, if it is
    /// this sink's turn to report.
    fn watch_limits(&self) {
        let snapshot = self.queue.snapshot();
        if let Some(spool) = &self.spool {
            // Received bytes that are not stored do not fill the spool.
            let is_recording = !self.is_failed() && self.with(|ingest| !ingest.eos && !ingest.chunker.is_stopped());
            spool.set_input(if is_recording { snapshot.input } else { 0 });
        }
        let figures = Figures {
            created: snapshot.stats.created,
            stored: snapshot.stats.uploaded,
            received: snapshot.stats.bytes_received,
            is_failing: self.queue.is_failing(),
        };
        let (reported, is_limited) = self.flow.watch(figures, snapshot.pending);
        self.queue.set_limited(is_limited);
        if let Some(Shortage { limit, needed }) = reported {
            let (bytes, requests, _) = self.flow.group().limits();
            self.poster.post(match limit {
                Limit::Bytes => Message::TooFewBytes { limit: bytes, needed },
                Limit::Requests => Message::TooFewRequests { limit: requests, needed },
            });
        }
    }

    /// Returns whether bytes have arrived since the last call.
    pub fn has_grown(&self) -> bool {
        let received = self.queue.snapshot().stats.bytes_received;
        self.reported.received.swap(received, Ordering::Relaxed) != received
    }
}

async fn every_second(engine: Weak<Engine>, mut each: impl FnMut(&Engine) -> bool) {
    let mut timer = tokio::time::interval(Duration::from_secs(1));
    // Every check is about the present, so missed ones are not repeated.
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        let goes_on = engine.upgrade().is_some_and(|engine| each(&engine));
        if !goes_on {
            return;
        }
    }
}
