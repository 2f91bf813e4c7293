//! The places of exports: they limit how many run at once. An idle place is taken away when another export needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::IDLE;
use crate::export::PARALLEL;
use crate::lock::lock;

/// How often an export whose place was taken away looks for another one.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The state of a place, shared by all connections of its export.
#[derive(Debug, Default)]
struct Occupancy {
    /// `None`: the place was taken away.
    permit: Option<OwnedSemaphorePermit>,
    /// Number of parts of the work in progress.
    working: usize,
    /// When the last part of the work ended, or the place was given.
    idle_since: Option<Instant>,
}

impl Occupancy {
    /// Returns since when the place is idle, if that is at least [`IDLE`].
    fn idle(&self) -> Option<Instant> {
        let since = self.permit.as_ref().and(self.idle_since).filter(|_| self.working == 0);
        since.filter(|since| since.elapsed() >= IDLE)
    }
}

/// The places by the id of the plan.
type ById = HashMap<String, Weak<Mutex<Occupancy>>>;

/// The places of a server.
#[derive(Debug)]
pub(super) struct Places {
    permits: Arc<Semaphore>,
    all: Mutex<ById>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(PARALLEL)),
            all: Mutex::default(),
        }
    }
}

impl Places {
    /// Returns the place of the export of that id, a new one if it has none. `None`: all places are in use.
    pub(super) fn enter(self: &Arc<Self>, id: &str) -> Option<Place> {
        let place = |held| Place {
            places: self.clone(),
            held,
        };
        let mut all = lock(&self.all);
        all.retain(|_, place| place.strong_count() > 0);
        let known = all.get(id).and_then(Weak::upgrade);
        if let Some(held) = known.as_ref().filter(|held| lock(held).permit.is_some()) {
            return Some(place(held.clone()));
        }
        let permit = self.take(&all)?;
        let held = known.unwrap_or_default();
        {
            let mut held = lock(&held);
            held.permit = Some(permit);
            held.idle_since = Some(Instant::now());
        }
        all.insert(id.to_owned(), Arc::downgrade(&held));
        Some(place(held))
    }

    /// Takes a free place, or the one that has been idle for longest.
    fn take(&self, all: &ById) -> Option<OwnedSemaphorePermit> {
        let free = self.permits.clone().try_acquire_owned().ok();
        free.or_else(|| Self::longest_idle(all))
    }

    /// Takes away the place that has been idle for longest, if that is at least [`IDLE`].
    fn longest_idle(all: &ById) -> Option<OwnedSemaphorePermit> {
        let all: Vec<_> = all.values().filter_map(Weak::upgrade).collect();
        let since = all.iter().filter_map(|held| Some((lock(held).idle()?, held)));
        let (_, held) = since.min_by_key(|(since, _)| *since)?;
        let mut held = lock(held);
        // Checked again under the lock: work may have begun in between.
        held.idle()?;
        held.permit.take()
    }
}

/// The right to run one export. The place becomes free when all connections that share it have dropped theirs.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    held: Arc<Mutex<Occupancy>>,
}

/// Guard of a part of the work, which ends when this is dropped, also if the request is cancelled.
struct Working<'a>(&'a Mutex<Occupancy>);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut held = lock(self.0);
        held.working = held.working.saturating_sub(1);
        held.idle_since = Some(Instant::now());
    }
}

impl Place {
    /// Begins a part of the work. The place cannot be taken away until the guard is dropped. `None`: the place was taken away,
    /// and no other one is available.
    fn begin(&self) -> Option<Working<'_>> {
        let begin = |permit: Option<OwnedSemaphorePermit>| {
            let mut held = lock(&self.held);
            // Another connection of this export may have got a place meanwhile: then `permit` is free again.
            held.permit = held.permit.take().or(permit);
            held.permit.as_ref()?;
            held.working += 1;
            Some(Working(&self.held))
        };
        begin(None).or_else(|| {
            // Called without a lock on `held`: `take` locks every place, this one too.
            let permit = self.places.take(&lock(&self.places.all))?;
            begin(Some(permit))
        })
    }

    /// Runs a part of the work. If the place was taken away, first waits for another one.
    pub async fn work<T>(&self, work: impl Future<Output = T>) -> T {
        let _working = loop {
            match self.begin() {
                Some(working) => break working,
                None => tokio::time::sleep(CHECK_EVERY).await,
            }
        };
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_download_that_stands_still_gives_its_place_to_another_and_goes_on_when_one_is_free() {
        let server = Arc::new(Places::default());
        let mut places: Vec<Place> = (0..PARALLEL).map(|id| server.enter(&id.to_string()).unwrap()).collect();
        tokio::time::advance(IDLE / 2).await;
        for place in places.iter().skip(1) {
            place.work(async {}).await;
        }
        tokio::time::advance(IDLE / 2 - Duration::from_secs(1)).await;
        assert!(server.enter("another").is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        let other = server.enter("another").unwrap();
        assert!(server.enter("one more").is_none(), "the others have worked since");
        // The first export continues: it waits until a place is free.
        let began = Instant::now();
        let robbed = places.remove(0);
        tokio::join!(robbed.work(async {}), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(other);
        });
        assert!(began.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_keeps_the_place_however_long_it_takes() {
        let server = Arc::new(Places::default());
        let places: Vec<Place> = (0..PARALLEL).map(|id| server.enter(&id.to_string()).unwrap()).collect();
        let all = futures_util::future::join_all(places.iter().map(|place| place.work(tokio::time::sleep(IDLE * 10))));
        tokio::select! {
            biased;
            _ = all => panic!("it ends later"),
            () = tokio::time::sleep(IDLE * 5) => assert!(server.enter("another").is_none()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_for_one_file_share_a_place_and_one_of_them_at_work_keeps_it() {
        let server = Arc::new(Places::default());
        let others: Vec<Place> = (1..PARALLEL).map(|id| server.enter(&id.to_string()).unwrap()).collect();
        let all = futures_util::future::join_all(others.iter().map(|place| place.work(tokio::time::sleep(IDLE * 10))));
        let shared: Vec<Place> = (0..20).map(|_| server.enter("file").unwrap()).collect();
        let last = async {
            tokio::join!(shared[0].work(async {}), shared[1].work(tokio::time::sleep(IDLE * 2)));
            assert!(server.enter("another").is_none(), "one has just ended");
            // Cancelled work no longer counts.
            let given_up = tokio::time::timeout(Duration::from_secs(1), shared[2].work(std::future::pending::<()>()));
            assert!(given_up.await.is_err());
            tokio::time::sleep(IDLE).await;
            let other = server.enter("another").unwrap();
            assert!(server.enter("file").is_none(), "it was taken away from all");
            drop(other);
            drop(server.enter("file").unwrap());
            shared[3].work(async {}).await;
        };
        tokio::select! {
            biased;
            _ = all => panic!("it ends later"),
            () = last => {}
        }
    }
}
