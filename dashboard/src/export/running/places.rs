//! The places of exports that run at once. One that nothing was done at for long is taken away where another export needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::IDLE;
use crate::export::PARALLEL;
use crate::lock::lock;

/// How often a place is looked for that was taken away.
const LOOK: Duration = Duration::from_secs(1);

/// What a place is to its holders and to those who may take it away.
#[derive(Debug, Default)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    /// Parts of the work that are under way.
    working: usize,
    /// When work ended last; `None`: none did yet.
    idle_since: Option<Instant>,
}

impl Held {
    /// Since when nothing was done, if that is long enough to take the place away.
    fn idle(&self) -> Option<Instant> {
        let since = self.permit.as_ref().and(self.idle_since).filter(|_| self.working == 0);
        since.filter(|since| since.elapsed() >= IDLE)
    }
}

/// The places by the id of the plan.
type ById = HashMap<String, Weak<Mutex<Held>>>;

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
    /// A place for the export of that id, shared with all who have one. `None`: all are taken.
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

    /// A free place, or that of a download that has stood still for long.
    fn take(&self, all: &ById) -> Option<OwnedSemaphorePermit> {
        let free = self.permits.clone().try_acquire_owned().ok();
        free.or_else(|| Self::longest_idle(all))
    }

    /// Takes away the place that has been idle for longest, if that is long enough.
    fn longest_idle(all: &ById) -> Option<OwnedSemaphorePermit> {
        let all: Vec<_> = all.values().filter_map(Weak::upgrade).collect();
        let since = all.iter().filter_map(|held| Some((lock(held).idle()?, held)));
        let (_, held) = since.min_by_key(|(since, _)| *since)?;
        let mut held = lock(held);
        // It may have gone on meanwhile.
        held.idle()?;
        held.permit.take()
    }
}

/// The right to run one export; it ends when all who share it are dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    held: Arc<Mutex<Held>>,
}

/// A part of the work; it ends when this is dropped, also where the request is given up.
struct Working<'a>(&'a Mutex<Held>);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut held = lock(self.0);
        held.working = held.working.saturating_sub(1);
        held.idle_since = Some(Instant::now());
    }
}

impl Place {
    /// Begins a part of the work, during which the place cannot be taken away. `None`: there is no place.
    fn begin(&self) -> Option<Working<'_>> {
        let begin = |permit: Option<OwnedSemaphorePermit>| {
            let mut held = lock(&self.held);
            held.permit = held.permit.take().or(permit);
            held.permit.as_ref()?;
            held.working += 1;
            Some(Working(&self.held))
        };
        begin(None).or_else(|| {
            // Looking for one locks every place, this one too.
            let permit = self.places.take(&lock(&self.places.all))?;
            begin(Some(permit))
        })
    }

    /// Does a part of the work. If the place was taken away meanwhile it waits for another one.
    pub async fn work<T>(&self, work: impl Future<Output = T>) -> T {
        let _working = loop {
            match self.begin() {
                Some(working) => break working,
                None => tokio::time::sleep(LOOK).await,
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
        // The first goes on: it waits for a place, and finds one.
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
            // Work that was given up counts no more.
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
