//! The sinks of a `flow-group` share two limits. Waits use tokio's clock; the lock is never held across a wait.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::outage::Outage;
use super::pending::Pending;
use super::shortage::{Limit, Watch};
use crate::base::registry::Registry;

/// Default of `max-bytes-per-second`: the 20 MB/s of the original's flow control.
pub const DEFAULT_BYTES: u64 = 20_000_000;
/// Default of `max-requests-per-second`.
pub const DEFAULT_REQUESTS: f64 = 10.0;

/// Zero of the time scale of all buckets.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
static GROUPS: Registry<String, Group> = Registry::new();

/// The limits of a `flow-group`.
#[derive(Debug)]
pub struct Group {
    state: Mutex<GroupState>,
    changed: Notify,
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) bytes: Bucket,
    pub(super) requests: Bucket,
    /// `UserLimit::order` of the values in force, for bytes and for requests; 0 = the default.
    order: [u64; 2],
    /// Number of changes of the limits.
    version: u64,
    /// The latest version that was reported to the user.
    reported: u64,
    pub(super) outage: Outage,
    /// Requests made so far.
    pub(super) made: u64,
    pub(super) watch: Watch,
    /// What waits in each member.
    pub(super) waiting: BTreeMap<u64, Pending>,
}

impl GroupState {
    fn bucket(&mut self, limit: Limit) -> &mut Bucket {
        match limit {
            Limit::Bytes => &mut self.bytes,
            Limit::Requests => &mut self.requests,
        }
    }
}

/// A limit that a user set. Of several, the one set last applies, whichever sink starts last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UserLimit<T> {
    /// Units per second; 0 = no limit.
    pub value: T,
    order: u64,
}

impl<T> UserLimit<T> {
    /// Creates a value that is set now.
    pub fn now(value: T) -> Self {
        // 0 stands for the default, which any value of a user replaces.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            value,
            order: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Group {
    /// Returns the group of that name, created with the defaults if absent. `""` always creates a group of its own.
    pub fn join(name: &str) -> Arc<Self> {
        let fresh = || {
            Arc::new(Self {
                state: Mutex::new(GroupState {
                    bytes: Bucket::new(DEFAULT_BYTES as f64),
                    requests: Bucket::new(DEFAULT_REQUESTS),
                    order: [0; 2],
                    version: 0,
                    reported: 0,
                    outage: Outage::default(),
                    made: 0,
                    watch: Watch::default(),
                    waiting: BTreeMap::new(),
                }),
                changed: Notify::new(),
            })
        };
        if name.is_empty() {
            return fresh();
        }
        GROUPS.get_or(name.to_owned(), fresh)
    }

    /// Sets the given limits for all members, as a user who sets them now.
    pub fn set(&self, bytes: Option<u64>, requests: Option<f64>) {
        self.apply(bytes.map(UserLimit::now), requests.map(UserLimit::now));
    }

    /// Sets the given limits for all members. A value that was set before the one in force is ignored.
    pub fn apply(&self, bytes: Option<UserLimit<u64>>, requests: Option<UserLimit<f64>>) {
        let mut state = self.lock();
        let bytes = newer(bytes, &mut state.order[0]);
        let requests = newer(requests, &mut state.order[1]);
        let now = now();
        let before = (state.bytes.rate(), state.requests.rate());
        let after = (bytes.map_or(before.0, |b| b as f64), requests.unwrap_or(before.1));
        // A sink that starts with equal limits must not discard what all others have been charged.
        if before == after {
            return;
        }
        state.bytes.set_rate(after.0, now);
        state.requests.set_rate(after.1, now);
        state.version += 1;
        state.watch.forget();
        drop(state);
        // Every charge that waits begins again, at the new rate.
        self.changed.notify_waiters();
    }

    /// Returns bytes per second, requests per second, and the version: how often they have changed.
    pub fn limits(&self) -> (u64, f64, u64) {
        let state = self.lock();
        // The rate was converted from a u64 and is not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = state.bytes.rate() as u64;
        (bytes, state.requests.rate(), state.version)
    }

    /// Returns whether the caller must report that the limits have this version: the first member that asks does.
    pub fn claim_report(&self, version: u64) -> bool {
        let mut state = self.lock();
        let is_new = state.reported < version;
        state.reported = state.reported.max(version);
        is_new
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `amount` may leave. Returns the time waited, ns.
    pub(super) async fn wait(&self, limit: Limit, amount: f64) -> u64 {
        let began = now();
        let mut at = began;
        loop {
            let (leaves, version) = self.take(limit, amount, at);
            // A guard, because an aborted attempt runs only its drops, no code after the wait.
            let mut charge = Charge {
                group: self,
                limit,
                amount,
                version,
                is_waiting: true,
            };
            if leaves <= at {
                charge.leaves();
                return at.saturating_sub(began);
            }
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Register first, then compare versions: a change after `take` is not missed.
            changed.as_mut().enable();
            if self.lock().version == version {
                let until = EPOCH.checked_add(Duration::from_nanos(leaves));
                let timer = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        // Beyond the range of the clock: only another limit ends this wait.
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = timer => {
                        charge.leaves();
                        return now().saturating_sub(began);
                    }
                    () = changed => {}
                }
            }
            at = now();
        }
    }

    /// Returns when `amount` may leave, and the version of the limits that this follows from.
    fn take(&self, limit: Limit, amount: f64, now: u64) -> (u64, u64) {
        let mut state = self.lock();
        let version = state.version;
        (state.bucket(limit).take(amount, now), version)
    }
}

/// A charge while it waits for its limit. Dropped while waiting, it is refunded: the attempt has used nothing.
struct Charge<'a> {
    group: &'a Group,
    limit: Limit,
    amount: f64,
    version: u64,
    is_waiting: bool,
}

impl Charge<'_> {
    fn leaves(&mut self) {
        self.is_waiting = false;
        if self.limit == Limit::Requests {
            self.group.lock().made += 1;
        }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        // A change of the limits has discarded all charges.
        if self.is_waiting && state.version == self.version {
            state.bucket(self.limit).refund(self.amount, now());
        }
    }
}

/// Returns the value if it was set after the one in force.
fn newer<T>(limit: Option<UserLimit<T>>, in_force: &mut u64) -> Option<T> {
    let limit = limit.filter(|limit| limit.order > *in_force)?;
    *in_force = limit.order;
    Some(limit.value)
}

/// The present on the time scale of all buckets, ns.
pub(super) fn now() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
