//! Upload health: the `status` property and the warnings derived from it.
//!
//! PURE: time is an argument in ns on the scheduler's scale. One WARNING opens an outage, another one follows every hour, and one
//! INFO ends it when every chunk that failed in it has been stored, so that one chunk that always fails is one outage. A refusal
//! that only the user can resolve is an ERROR while nothing has been stored in this session; a recording that has worked before
//! continues with a WARNING.

pub use gcstreamer_schema::structures::UploadStatus as Status;
use gcstreamer_storage::Class;

const SECOND: u64 = 1_000_000_000;
/// Shortest time between two changes of the status, ns.
const MIN_STATUS: u64 = SECOND;
/// Time without a success, while attempts fail, after which the status is `offline`, ns.
const OFFLINE_AFTER: u64 = 30 * SECOND;
const REMIND_AFTER: u64 = 3600 * SECOND;
/// An outage ends when nothing has failed for this long, even if a chunk that failed is not stored yet. Longer than the 60 s
/// after which a refused chunk is tried again.
const QUIET: u64 = 90 * SECOND;
/// An outage that begins this soon after another is reported only if it lasts.
const FLAPPING: u64 = 60 * SECOND;
const LASTING: u64 = 5 * SECOND;

/// Something to report. Times in ns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    /// The status has changed: the new one and the last failure.
    Status(Status, String),
    /// An outage begins (`first`) or continues.
    Outage {
        /// Whether this is the first report of the outage.
        first: bool,
        /// The error of the last attempt.
        reason: String,
    },
    /// The outage is over.
    Recovered {
        /// Its length, ns.
        after: u64,
        /// Uploads were refused during it, and this sink has reported that itself.
        refused: bool,
    },
    /// Uploads are refused and nothing has been stored yet: an ERROR, for the user to act on.
    Fatal {
        /// 401, 403, 404, 400 …; `None` for credentials.
        http_status: Option<u16>,
        /// The server's error text.
        reason: String,
    },
    /// Uploads are refused although they worked before: a WARNING, and the uploads are tried again.
    Refused {
        /// 401, 403, 404, 400 …; `None` for credentials.
        http_status: Option<u16>,
        /// The server's error text.
        reason: String,
    },
}

/// Derives the status and the reports from the results of attempts.
#[derive(Debug)]
pub struct Health {
    /// Age of the oldest chunk from which the status is degraded, ns.
    patience: u64,
    status: Status,
    changed_at: Option<u64>,
    reason: String,
    confirmed: bool,
    /// A refusal is never fatal, even if nothing was stored in this session.
    outlasts_refusals: bool,
    last_failed: bool,
    refused: bool,
    last_success: Option<u64>,
    first_failure: Option<u64>,
    last_failure: u64,
    outage: Option<SinkOutage>,
    /// When the last outage ended, reported or not.
    outage_ended: Option<u64>,
    ending: Option<Status>,
    /// The disk accepts nothing.
    disk_in_trouble: bool,
    /// A limit of the flow group is too low for what the sinks receive.
    is_limited: bool,
}

/// Lasts from the first failure until every chunk that failed has been stored, or nothing has failed for [`QUIET`].
#[derive(Clone, Copy, Debug)]
struct SinkOutage {
    since: u64,
    /// When it was last reported; `None` if it was not.
    reported_at: Option<u64>,
    /// The refusal was reported.
    refusal_reported: bool,
    /// The first success after the last failure.
    works_since: Option<u64>,
}

impl Health {
    /// Creates the health of a new session. `max_time` is the property `max-size-time`.
    pub fn new(max_time: u64) -> Self {
        Self {
            patience: max_time.max(10 * SECOND).saturating_mul(3),
            status: Status::Starting,
            changed_at: None,
            reason: String::new(),
            confirmed: false,
            outlasts_refusals: false,
            last_failed: false,
            refused: false,
            last_success: None,
            first_failure: None,
            last_failure: 0,
            outage: None,
            outage_ended: None,
            ending: None,
            disk_in_trouble: false,
            is_limited: false,
        }
    }

    /// Makes a refusal a WARNING instead of an ERROR, even if nothing was stored before.
    pub fn outlast_refusals(&mut self) {
        self.outlasts_refusals = true;
    }

    /// Whether recording continues while uploads are refused and there is room.
    pub fn goes_on_refused(&self) -> bool {
        self.confirmed || self.outlasts_refusals
    }

    /// Sets whether a limit of the flow group makes the backlog grow.
    pub fn set_limited(&mut self, is_limited: bool) {
        self.is_limited = is_limited;
    }

    /// Sets whether the disk refuses what it is given.
    pub fn set_disk_in_trouble(&mut self, is_in_trouble: bool) {
        self.disk_in_trouble = is_in_trouble;
    }

    /// The status now.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.last_failed
    }

    /// Records that a chunk was stored. `still_failing`: the last attempt at some other chunk failed.
    pub fn stored(&mut self, still_failing: bool, now: u64, words: &mut Vec<HealthEvent>) {
        self.confirmed = true;
        self.last_failed = false;
        self.refused = false;
        self.first_failure = None;
        self.last_success = Some(now);
        self.reason.clear();
        let Some(outage) = &mut self.outage else { return };
        // The length of the outage ends with the first success, even if the outage is known to be over only later.
        let works_since = *outage.works_since.get_or_insert(now);
        if still_failing && now.saturating_sub(self.last_failure) < QUIET {
            return;
        }
        if outage.reported_at.is_some() {
            words.push(HealthEvent::Recovered {
                after: works_since.saturating_sub(outage.since),
                refused: outage.refusal_reported,
            });
        }
        self.outage = None;
        self.outage_ended = Some(now);
    }

    /// Records a failed attempt.
    pub fn failed(&mut self, class: Class, http_status: Option<u16>, reason: &str, now: u64, words: &mut Vec<HealthEvent>) {
        self.last_failed = true;
        self.last_failure = now;
        self.first_failure.get_or_insert(now);
        reason.clone_into(&mut self.reason);
        let needs_user = matches!(class, Class::Auth | Class::Permanent);
        let reason = reason.to_owned();
        // The ERROR ends the recording, so no outage begins that could end.
        if needs_user && !self.goes_on_refused() {
            if !self.refused {
                words.push(HealthEvent::Fatal { http_status, reason });
            }
            self.refused = true;
            return;
        }
        // Not cleared by failures of another kind: only a success ends a refusal.
        self.refused |= needs_user;
        let outage = self.outage.get_or_insert(SinkOutage {
            since: now,
            reported_at: None,
            refusal_reported: false,
            works_since: None,
        });
        // The outage continues: the success before this failure did not end it.
        outage.works_since = None;
        // Report an outage soon after another only if it lasts: otherwise a link that loses one attempt in five would be reported
        // at each failure.
        let flaps = self
            .outage_ended
            .is_some_and(|end| outage.since.saturating_sub(end) < FLAPPING);
        let lasts = !flaps || now.saturating_sub(outage.since) >= LASTING;
        // A refusal is reported even within a reported outage, because the user has to act.
        if needs_user && !outage.refusal_reported {
            outage.refusal_reported = true;
            outage.reported_at = Some(now);
            words.push(HealthEvent::Refused { http_status, reason });
        } else if outage.reported_at.map_or(lasts, |at| now.saturating_sub(at) >= REMIND_AFTER) {
            let first = outage.reported_at.is_none();
            outage.reported_at = Some(now);
            words.push(HealthEvent::Outage { first, reason });
        }
    }

    /// Whether something was stored within the last `time` ns.
    pub fn has_stored_within(&self, now: u64, time: u64) -> bool {
        self.last_success.is_some_and(|at| now.saturating_sub(at) < time)
    }

    /// Whether uploads are refused until the user acts.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether a refusal was an ERROR, which ends the recording.
    pub fn has_ended_recording(&self) -> bool {
        self.refused && !self.goes_on_refused()
    }

    /// Returns the error text of the last failure.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Leaves the ending status: data arrives again after an EOS.
    pub fn resume(&mut self) {
        self.ending = None;
    }

    /// Sets the status of the drain; it overrides all others until [`Self::resume`].
    pub fn ending(&mut self, status: Status) {
        self.ending = Some(status);
    }

    /// Updates the status. `pending` chunks wait, the oldest for `oldest` ns. Returns when to call this again.
    pub fn poll(&mut self, pending: usize, oldest: Option<u64>, now: u64, words: &mut Vec<HealthEvent>) -> Option<u64> {
        let (wanted, recheck) = self.wanted(pending, oldest, now);
        if wanted == self.status {
            return recheck;
        }
        let free_at = self.changed_at.map_or(0, |t| t + MIN_STATUS);
        // `Stopped` is not delayed: nobody polls after it.
        if now < free_at && wanted != Status::Stopped {
            return Some(recheck.map_or(free_at, |r| r.min(free_at)));
        }
        self.status = wanted;
        self.changed_at = Some(now);
        words.push(HealthEvent::Status(wanted, self.reason.clone()));
        recheck
    }

    fn wanted(&self, pending: usize, oldest: Option<u64>, now: u64) -> (Status, Option<u64>) {
        if let Some(ending) = self.ending {
            return (ending, None);
        }
        // Count from the last success or from the first failure, whichever is later: idle time before the first failure is no
        // outage.
        let since = self.last_success.max(self.first_failure);
        let offline_at = since.map(|t| t + OFFLINE_AFTER);
        if self.refused || (pending > 0 && self.last_failed && offline_at.is_some_and(|t| now >= t)) {
            return (Status::Offline, None);
        }
        let late_at = oldest.map(|age| now.saturating_add(self.patience.saturating_sub(age)));
        if self.last_failed {
            return (Status::Degraded, offline_at.filter(|_| pending > 0));
        }
        let is_held_up = self.disk_in_trouble || (self.is_limited && pending > 0);
        if is_held_up || oldest.is_some_and(|age| age >= self.patience) {
            return (Status::Degraded, None);
        }
        let status = if self.confirmed { Status::Online } else { Status::Starting };
        (status, late_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND;

    fn statuses(words: &[HealthEvent]) -> Vec<Status> {
        words
            .iter()
            .filter_map(|w| if let HealthEvent::Status(s, _) = w { Some(*s) } else { None })
            .collect()
    }

    #[test]
    fn a_session_that_outlasts_refusals_is_no_error_and_the_user_learns_of_it() {
        let (mut health, mut words) = (Health::new(10 * S), Vec::new());
        health.outlast_refusals();
        health.failed(Class::Permanent, Some(403), "no", S, &mut words);
        health.poll(1, Some(0), S, &mut words);
        assert!(
            matches!(
                words[..],
                [HealthEvent::Refused { .. }, HealthEvent::Status(Status::Offline, _)]
            ),
            "{words:?}"
        );
    }

    #[test]
    fn an_outage_is_reported_once_reminded_hourly_and_closed_once() {
        let mut h = Health::new(10 * S);
        let mut words = Vec::new();
        h.stored(false, 0, &mut words);
        h.poll(0, None, 0, &mut words);
        for t in 1..=7300 {
            h.failed(Class::Transient, None, "connection refused", t * S, &mut words);
            h.poll(3, Some(t * S), t * S, &mut words);
        }
        h.stored(false, 7301 * S, &mut words);
        h.poll(0, None, 7301 * S, &mut words);
        let outages = words.iter().filter(|w| matches!(w, HealthEvent::Outage { .. })).count();
        assert_eq!(outages, 3, "{words:?}");
        assert_eq!(
            words
                .iter()
                .filter(|w| matches!(w, HealthEvent::Recovered { after, .. } if *after == 7300 * S))
                .count(),
            1
        );
        assert_eq!(
            statuses(&words),
            [Status::Online, Status::Degraded, Status::Offline, Status::Online]
        );
    }

    #[test]
    fn a_refusal_is_an_error_only_while_nothing_was_stored() {
        let mut h = Health::new(10 * S);
        let mut words = Vec::new();
        h.failed(Class::Permanent, Some(404), "no such bucket", 0, &mut words);
        h.failed(Class::Permanent, Some(404), "no such bucket", 1, &mut words);
        assert!(matches!(
            words[..],
            [HealthEvent::Fatal {
                http_status: Some(404),
                ..
            }]
        ));
        let mut h = Health::new(10 * S);
        let mut words = Vec::new();
        h.stored(false, 0, &mut words);
        h.failed(Class::Permanent, Some(403), "denied", S, &mut words);
        h.failed(Class::Permanent, Some(403), "denied", 61 * S, &mut words);
        h.poll(1, Some(S), 61 * S, &mut words);
        assert!(
            matches!(
                words[..],
                [HealthEvent::Refused { .. }, HealthEvent::Status(Status::Offline, _)]
            ),
            "{words:?}"
        );
    }

    #[test]
    fn one_chunk_that_always_fails_is_one_outage() {
        let mut h = Health::new(10 * S);
        let mut words = Vec::new();
        h.stored(false, 0, &mut words);
        for t in 1..600 {
            match t % 20 {
                0 => h.failed(Class::Transient, None, "reset", t * S, &mut words),
                _ => h.stored(t >= 20, t * S, &mut words),
            }
        }
        assert!(matches!(words[..], [HealthEvent::Outage { first: true, .. }]), "{words:?}");
        h.stored(false, 600 * S, &mut words);
        assert!(
            matches!(words[..], [_, HealthEvent::Recovered { .. }]),
            "it has been stored at last: {words:?}"
        );
    }

    #[test]
    fn a_link_that_loses_one_attempt_in_five_is_reported_once() {
        let mut h = Health::new(10 * S);
        let mut words = Vec::new();
        for t in 1..600 {
            match t % 5 {
                0 => h.failed(Class::Transient, None, "reset", t * S, &mut words),
                _ => h.stored(false, t * S, &mut words),
            }
        }
        assert!(
            matches!(
                words[..],
                [HealthEvent::Outage { first: true, .. }, HealthEvent::Recovered { .. }]
            ),
            "{words:?}"
        );
        for t in 600..620 {
            h.failed(Class::Transient, None, "refused", t * S, &mut words);
        }
        h.stored(false, 620 * S, &mut words);
        assert!(
            matches!(words[2..], [HealthEvent::Outage { first: true, .. }, HealthEvent::Recovered { after, .. }] if after == 20 * S),
            "one that lasts is told all the same: {words:?}"
        );
    }

    #[test]
    fn the_status_changes_at_most_once_a_second() {
        let mut h = Health::new(10 * S);
        let mut words = Vec::new();
        for i in 0..100u64 {
            let now = i * S / 10;
            if i % 2 == 0 {
                h.stored(false, now, &mut words)
            } else {
                h.failed(Class::Transient, None, "x", now, &mut words)
            }
            h.poll(1, Some(0), now, &mut words);
        }
        assert!(statuses(&words).len() <= 11, "{}", statuses(&words).len());
    }

    #[test]
    fn a_link_that_is_too_slow_is_degraded_though_nothing_fails() {
        let mut h = Health::new(10 * S);
        let mut words = Vec::new();
        h.stored(false, 0, &mut words);
        h.poll(5, Some(29 * S), S, &mut words);
        assert_eq!(h.status(), Status::Online);
        assert_eq!(h.poll(5, Some(29 * S), 2 * S, &mut words), Some(3 * S));
        h.poll(5, Some(30 * S), 3 * S, &mut words);
        assert_eq!(h.status(), Status::Degraded);
    }
}
