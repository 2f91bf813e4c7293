//! The exports of a server: how many may run, which plans are known, and how far those are that are being made.
//!
//! Plans are kept in bounded memory: a player or a browser asks for one file by many ranges.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{ExportError, PARALLEL, Plan, Selection};
use crate::index::Index;
use crate::lock::lock;

/// Most bytes of headers of plans that are kept, and most plans.
const MAX_KEPT: (usize, usize) = (64 << 20, 16);

/// A plan that nobody asks for any more is given up after this: the page asks every second. So is the place of a download that has
/// taken nothing for so long, once another one needs it.
const IDLE: Duration = Duration::from_secs(60);
/// How often a place is looked for that was taken away.
const LOOK: Duration = Duration::from_secs(1);

/// An export whose plan is being made.
#[derive(Debug)]
struct Preparing {
    id: String,
    of: usize,
    done: Arc<AtomicUsize>,
    asked: Arc<Mutex<Instant>>,
}

/// What a place is to its holder and to those who may take it away.
#[derive(Debug)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    /// When work ended last; `None`: it is under way.
    idle_since: Option<Instant>,
}

/// The places of a server.
#[derive(Debug)]
struct Places {
    permits: Arc<Semaphore>,
    all: Mutex<Vec<Weak<Mutex<Held>>>>,
}

impl Places {
    /// A free place, or that of a download that has stood still for long.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        let free = self.permits.clone().try_acquire_owned().ok();
        free.or_else(|| self.longest_idle())
    }

    /// Takes away the place that has been idle for longest, if that is long enough.
    fn longest_idle(&self) -> Option<OwnedSemaphorePermit> {
        let all: Vec<_> = lock(&self.all).iter().filter_map(Weak::upgrade).collect();
        let idle = |held: &Held| {
            held.permit
                .as_ref()
                .and(held.idle_since)
                .filter(|since| since.elapsed() >= IDLE)
        };
        let since = all.iter().filter_map(|held| Some((idle(&lock(held))?, held)));
        let (_, held) = since.min_by_key(|(since, _)| *since)?;
        let mut held = lock(held);
        // It may have gone on meanwhile.
        idle(&held)?;
        held.permit.take()
    }
}

/// The right to run one export; it ends when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    held: Arc<Mutex<Held>>,
}

impl Place {
    /// Whether there is a place for this work; it cannot be taken away from now on.
    fn is_here(&self) -> bool {
        let begin = |permit: Option<OwnedSemaphorePermit>| {
            let mut held = lock(&self.held);
            held.permit = held.permit.take().or(permit);
            if held.permit.is_some() {
                held.idle_since = None;
            }
            held.permit.is_some()
        };
        // Looking for one locks every place, this one too.
        begin(None) || self.places.take().is_some_and(|permit| begin(Some(permit)))
    }

    /// Does a part of the work. If the place was taken away meanwhile it waits for another one.
    pub async fn work<T>(&self, work: impl Future<Output = T>) -> T {
        while !self.is_here() {
            tokio::time::sleep(LOOK).await;
        }
        let result = work.await;
        lock(&self.held).idle_since = Some(Instant::now());
        result
    }
}

/// The exports of a server: how many run, and the plans that were made.
#[derive(Debug)]
pub struct Exports {
    places: Arc<Places>,
    plans: Mutex<VecDeque<Arc<Plan>>>,
    preparing: Arc<Mutex<Vec<Preparing>>>,
    faults: Mutex<VecDeque<(String, ExportError)>>,
}

impl Default for Exports {
    fn default() -> Self {
        Self {
            places: Arc::new(Places {
                permits: Arc::new(Semaphore::new(PARALLEL)),
                all: Mutex::default(),
            }),
            plans: Mutex::default(),
            preparing: Arc::default(),
            faults: Mutex::default(),
        }
    }
}

impl Exports {
    /// The right to run one export. If all places are taken, that of a download that has stood still for long.
    ///
    /// # Errors
    /// [`ExportError::Busy`].
    pub fn enter(&self) -> Result<Place, ExportError> {
        let held = Arc::new(Mutex::new(Held {
            permit: Some(self.places.take().ok_or(ExportError::Busy)?),
            idle_since: Some(Instant::now()),
        }));
        let mut all = lock(&self.places.all);
        all.retain(|place| place.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        Ok(Place {
            places: self.places.clone(),
            held,
        })
    }

    /// The plan of that id, if it was made and is still known.
    pub fn known(&self, id: &str) -> Option<Arc<Plan>> {
        lock(&self.plans).iter().find(|plan| plan.id == id).cloned()
    }

    /// How far the plan of that id is: chunks that were read, and of how many. Somebody waits for it.
    pub fn progress(&self, id: &str) -> Option<(usize, usize)> {
        let preparing = lock(&self.preparing);
        let found = preparing.iter().find(|preparing| preparing.id == id);
        found.inspect(|preparing| *lock(&preparing.asked) = Instant::now());
        found.map(|preparing| (preparing.done.load(Ordering::Relaxed), preparing.of))
    }

    /// Why the last plan of that id could not be made by [`Exports::run`]; said once.
    pub fn fault(&self, id: &str) -> Option<ExportError> {
        let mut faults = lock(&self.faults);
        let at = faults.iter().position(|(known, _)| known == id)?;
        faults.remove(at).map(|(_, error)| error)
    }

    /// Lists a plan as being made, until the answer is dropped.
    pub fn begin(&self, selection: &Selection) -> Begun {
        let done = Arc::new(AtomicUsize::new(0));
        let asked = Arc::new(Mutex::new(Instant::now()));
        lock(&self.preparing).push(Preparing {
            id: selection.id.clone(),
            of: selection.count(),
            done: done.clone(),
            asked: asked.clone(),
        });
        Begun {
            preparing: self.preparing.clone(),
            done,
            asked,
        }
    }

    /// Makes a plan, unless it is known.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn plan(&self, index: &Index, selection: Selection) -> Result<Arc<Plan>, ExportError> {
        if let Some(plan) = self.known(&selection.id) {
            return Ok(plan);
        }
        let begun = self.begin(&selection);
        let plan = Arc::new(selection.plan(index, &begun.done).await?);
        self.keep(plan.clone());
        Ok(plan)
    }

    /// Makes a plan that somebody asks for later; a fault waits for them. It is given up if nobody asks how far it is.
    pub async fn run(&self, index: &Index, selection: Selection, begun: Begun) {
        let id = selection.id.clone();
        let made = tokio::select! {
            made = selection.plan(index, &begun.done) => made,
            () = begun.is_forgotten() => return,
        };
        match made {
            Ok(plan) => self.keep(Arc::new(plan)),
            Err(error) => {
                let mut faults = lock(&self.faults);
                faults.push_back((id, error));
                if faults.len() > MAX_KEPT.1 {
                    faults.pop_front();
                }
            }
        }
    }

    fn keep(&self, plan: Arc<Plan>) {
        let mut plans = lock(&self.plans);
        plans.push_back(plan);
        let mut held: usize = plans.iter().map(|plan| plan.header.len()).sum();
        while plans.len() > 1 && (held > MAX_KEPT.0 || plans.len() > MAX_KEPT.1) {
            held -= plans.pop_front().map_or(0, |plan| plan.header.len());
        }
    }
}

/// A plan that is being made; it is listed until this is dropped, also where the request is given up.
#[derive(Debug)]
pub struct Begun {
    preparing: Arc<Mutex<Vec<Preparing>>>,
    done: Arc<AtomicUsize>,
    asked: Arc<Mutex<Instant>>,
}

impl Begun {
    /// Returns once nobody has asked for it for long.
    async fn is_forgotten(&self) {
        loop {
            let until = *lock(&self.asked) + IDLE;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        lock(&self.preparing).retain(|preparing| !Arc::ptr_eq(&preparing.done, &self.done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_download_that_stands_still_gives_its_place_to_another_and_goes_on_when_one_is_free() {
        let exports = Exports::default();
        let mut places: Vec<Place> = (0..PARALLEL).map(|_| exports.enter().unwrap()).collect();
        tokio::time::advance(IDLE / 2).await;
        for place in places.iter().skip(1) {
            place.work(async {}).await;
        }
        tokio::time::advance(IDLE / 2 - Duration::from_secs(1)).await;
        assert!(matches!(exports.enter(), Err(ExportError::Busy)));
        tokio::time::advance(Duration::from_secs(1)).await;
        let other = exports.enter().unwrap();
        assert!(
            matches!(exports.enter(), Err(ExportError::Busy)),
            "the others have worked since"
        );
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
        let exports = Exports::default();
        let places: Vec<Place> = (0..PARALLEL).map(|_| exports.enter().unwrap()).collect();
        let all = futures_util::future::join_all(places.iter().map(|place| place.work(tokio::time::sleep(IDLE * 10))));
        tokio::select! {
            biased;
            _ = all => panic!("it ends later"),
            () = tokio::time::sleep(IDLE * 5) => assert!(matches!(exports.enter(), Err(ExportError::Busy))),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_nobody_asks_for_is_forgotten_and_one_that_is_asked_for_is_not() {
        let asked = Arc::new(Mutex::new(Instant::now()));
        let begun = Begun {
            preparing: Arc::default(),
            done: Arc::default(),
            asked: asked.clone(),
        };
        let began = Instant::now();
        let page = async {
            for _ in 0..300 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                *lock(&asked) = Instant::now();
            }
        };
        tokio::join!(begun.is_forgotten(), page);
        assert_eq!(began.elapsed().as_secs(), 300 + IDLE.as_secs());
    }
}
