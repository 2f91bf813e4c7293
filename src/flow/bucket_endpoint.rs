//! A bucket at an endpoint, shared by all sinks of the process. `Retry-After` holds the one that sent it, for every sink that
//! stores there and for no other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::hold::{Drain, Hold};

/// Zero of the clock of all of them.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Those that are known, by endpoint and bucket.
type Endpoints = HashMap<(String, String), Arc<BucketEndpoint>>;
// No `Registry`: a hold has to outlive the sinks that met it. `HashMap::new` is not const.
static ENDPOINTS: Mutex<Option<Endpoints>> = Mutex::new(None);

/// A bucket at an endpoint.
#[derive(Debug, Default)]
pub struct BucketEndpoint {
    hold: Mutex<Hold>,
    /// A sink of the process has stored there.
    has_stored: AtomicBool,
}

/// A request was refused because its bucket is held. Both times are the server's, without the adjustment for a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// When the server asked to wait.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
}

impl BucketEndpoint {
    /// Returns the shared state of that bucket at that endpoint. It is dropped once it is unused, its hold is over and nothing was
    /// ever stored there.
    pub fn of(endpoint: &str, bucket: &str) -> Arc<Self> {
        let now = ns(Instant::now());
        let mut endpoints = ENDPOINTS.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = endpoints.get_or_insert_default();
        // A bucket that has stored stays known: this keeps a camera recording that reconnects while the bucket refuses.
        endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1 || endpoint.hold().until > now || endpoint.has_stored());
        let key = (endpoint.to_owned(), bucket.to_owned());
        Arc::clone(endpoints.entry(key).or_default())
    }

    /// Holds the bucket for `time`, as its server has just asked. Of several holds the one that ends last applies.
    pub fn hold_for(&self, time: Duration) {
        let hold = Hold::new(ns(Instant::now()), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let mut current = self.lock();
        if hold.until >= current.until {
            *current = hold;
        }
    }

    /// A sink has stored there.
    pub fn note_stored(&self) {
        self.has_stored.store(true, Ordering::Relaxed);
    }

    /// Whether any sink of the process has stored there.
    pub fn has_stored(&self) -> bool {
        self.has_stored.load(Ordering::Relaxed)
    }

    /// Checks that a request may be made now.
    ///
    /// # Errors
    /// The hold that forbids it.
    pub fn check(&self, drain: Option<Deadline>) -> Result<(), RetryAfter> {
        let hold = self.hold();
        let drain = drain.map(|drain| Drain {
            began: ns(drain.began),
            until: ns(drain.until),
        });
        if hold.ends(drain) <= ns(Instant::now()) {
            return Ok(());
        }
        let at = |ns| EPOCH.checked_add(Duration::from_nanos(ns)).unwrap_or(*EPOCH);
        Err(RetryAfter {
            since: at(hold.since),
            until: at(hold.until),
        })
    }

    fn hold(&self) -> Hold {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a sink's drain began, and its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When the drain began.
    pub began: Instant,
    /// The deadline.
    pub until: Instant,
}

fn ns(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*EPOCH).as_nanos()).unwrap_or(u64::MAX)
}
