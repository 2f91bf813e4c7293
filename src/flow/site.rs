//! A bucket at an endpoint, as all sinks of the process see it: `Retry-After` of one of them holds for all, whatever group they
//! are in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// What the clock of all sites counts from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
/// By endpoint and bucket.
type Sites = HashMap<(String, String), Weak<Site>>;
static SITES: Mutex<Option<Sites>> = Mutex::new(None);

/// See the module.
#[derive(Debug, Default)]
pub struct Site {
    /// Nothing is asked of it before, ns since the process began.
    held_until: AtomicU64,
}

impl Site {
    /// The site of that bucket at that endpoint.
    pub fn of(endpoint: &str, bucket: &str) -> Arc<Self> {
        let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
        let sites = sites.get_or_insert_default();
        sites.retain(|_, site| site.strong_count() > 0);
        let key = (endpoint.to_owned(), bucket.to_owned());
        if let Some(site) = sites.get(&key).and_then(Weak::upgrade) {
            return site;
        }
        let site = Arc::new(Self::default());
        sites.insert(key, Arc::downgrade(&site));
        site
    }

    /// It has asked to be left alone for so long.
    pub fn hold(&self, time: Duration) {
        let until = now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.held_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Waits until it may be asked; how long that took, ns.
    pub async fn wait(&self) -> u64 {
        let began = now();
        loop {
            // It may have been asked for more while we waited.
            let until = self.held_until.load(Ordering::Relaxed);
            if until <= now() {
                return now().saturating_sub(began);
            }
            match EPOCH.checked_add(Duration::from_nanos(until)) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }
}

fn now() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
