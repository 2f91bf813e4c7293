//! A bucket at an endpoint, shared by all sinks of the process. `Retry-After` holds the site that sent it, for every sink that
//! stores there and for no other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::hold::{Drain, Hold};

/// Zero of the clock of all sites.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The known sites, by endpoint and bucket.
type Sites = HashMap<(String, String), Arc<Site>>;
// No `Registry`: a hold has to outlive the sinks that met it. `HashMap::new` is not const.
static SITES: Mutex<Option<Sites>> = Mutex::new(None);

/// A bucket at an endpoint.
#[derive(Debug, Default)]
pub struct Site {
    hold: Mutex<Hold>,
    /// A sink of the process has stored there.
    has_stored: AtomicBool,
}

/// A request was refused because its site is held. Both times are the server's, without the adjustment for a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When the server asked to wait.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
}

impl Site {
    /// Returns the site of that bucket at that endpoint. A site is dropped once it is unused, its hold is over and nothing was
    /// ever stored there.
    pub fn of(endpoint: &str, bucket: &str) -> Arc<Self> {
        let now = ns(Instant::now());
        let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
        let sites = sites.get_or_insert_default();
        // A site that has stored stays known: this keeps a camera recording that reconnects while the bucket refuses.
        sites.retain(|_, site| Arc::strong_count(site) > 1 || site.hold().until > now || site.has_stored());
        let key = (endpoint.to_owned(), bucket.to_owned());
        Arc::clone(sites.entry(key).or_default())
    }

    /// Holds the site for `time`, as its server has just asked. Of several holds the one that ends last applies.
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
    pub fn check(&self, drain: Option<Deadline>) -> Result<(), Held> {
        let hold = self.hold();
        let drain = drain.map(|drain| Drain {
            began: ns(drain.began),
            until: ns(drain.until),
        });
        if hold.ends(drain) <= ns(Instant::now()) {
            return Ok(());
        }
        let at = |ns| EPOCH.checked_add(Duration::from_nanos(ns)).unwrap_or(*EPOCH);
        Err(Held {
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
