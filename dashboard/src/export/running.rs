//! The exports of a server: limits how many run, remembers plans, and reports the progress of those being made.
//!
//! All connections that ask for one plan are one export, because browsers, players and download managers ask for one file by many
//! ranges. They share a place and one first pass. Plans are cached in bounded memory.
//!
//! `places`: how many run at once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::{ExportError, Plan, Selection};
use crate::index::Index;
use crate::lock::lock;

mod places;

use places::{Place, Places};

/// Most bytes of the headers of cached plans, and most cached plans.
const MAX_KEPT: (usize, usize) = (64 << 20, 16);

/// Time without a question about its progress after which making a plan is cancelled; the page asks every second. A download that
/// takes no bytes for this long loses its place if another export needs it.
const IDLE: Duration = Duration::from_secs(60);

/// An export whose plan is being made.
#[derive(Debug)]
struct Preparing {
    id: String,
    of: usize,
    done: Arc<AtomicUsize>,
    asked: Arc<Mutex<Instant>>,
}

/// The exports of a server: their places, the cached plans, and the plans being made.
#[derive(Debug, Default)]
pub struct Exports {
    places: Arc<Places>,
    plans: Mutex<VecDeque<Arc<Plan>>>,
    preparing: Arc<Mutex<Vec<Preparing>>>,
    flights: Mutex<HashMap<String, Weak<Flight>>>,
    faults: Mutex<VecDeque<(String, ExportError)>>,
}

/// The lock of a plan that is being made. Holds the error of the attempt, for those who wait for it.
type Flight = tokio::sync::Mutex<Option<ExportError>>;

impl Exports {
    /// Returns the right to run the export of that id; all connections with one id share it. If all places are taken, takes that
    /// of a download that has been idle for a minute.
    ///
    /// # Errors
    /// [`ExportError::Busy`]: all places are in use.
    pub fn enter(&self, id: &str) -> Result<Place, ExportError> {
        self.places.enter(id).ok_or(ExportError::Busy)
    }

    /// Returns the plan of that id if it is cached.
    pub fn known(&self, id: &str) -> Option<Arc<Plan>> {
        lock(&self.plans).iter().find(|plan| plan.id == id).cloned()
    }

    /// Returns how far the plan of that id is: the chunks that were read, and of how many. Restarts the time after which it is
    /// cancelled.
    pub fn progress(&self, id: &str) -> Option<(usize, usize)> {
        let preparing = lock(&self.preparing);
        let found = preparing.iter().find(|preparing| preparing.id == id);
        found.inspect(|preparing| *lock(&preparing.asked) = Instant::now());
        found.map(|preparing| (preparing.done.load(Ordering::Relaxed), preparing.of))
    }

    /// Returns why [`Exports::run`] could not make the plan of that id. Removes the error: it is returned once.
    pub fn fault(&self, id: &str) -> Option<ExportError> {
        let mut faults = lock(&self.faults);
        let at = faults.iter().position(|(known, _)| known == id)?;
        // Removed, so that the next request makes another attempt instead of getting an old error.
        faults.remove(at).map(|(_, error)| error)
    }

    /// Lists a plan as being made until the returned guard is dropped.
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

    /// Makes a plan, unless it is cached. If it is being made already, waits for that.
    ///
    /// # Errors
    /// [`ExportError`], also that of an attempt of another caller that this one waited for.
    pub async fn plan(&self, index: &Index, selection: Selection) -> Result<Arc<Plan>, ExportError> {
        self.make(index, selection, None).await
    }

    async fn make(&self, index: &Index, selection: Selection, begun: Option<&Begun>) -> Result<Arc<Plan>, ExportError> {
        self.once(&selection.id.clone(), async {
            let own = begun.is_none().then(|| self.begin(&selection));
            let unseen = AtomicUsize::new(0);
            let done = begun.or(own.as_ref()).map_or(&unseen, |begun| &*begun.done);
            selection.plan(index, done).await
        })
        .await
    }

    /// Returns the plan of that id. Makes it by `making` unless it is cached or another caller makes it.
    async fn once(&self, id: &str, making: impl Future<Output = Result<Plan, ExportError>>) -> Result<Arc<Plan>, ExportError> {
        let flight = self.flight(id);
        let mut fault = flight.lock().await;
        if let Some(plan) = self.known(id) {
            return Ok(plan);
        }
        // Only for those who waited during the attempt: the last of them drops the flight, and a later caller makes a new
        // attempt.
        if let Some(fault) = fault.as_ref() {
            return Err(fault.clone());
        }
        match making.await {
            Ok(plan) => {
                let plan = Arc::new(plan);
                self.keep(plan.clone());
                Ok(plan)
            }
            Err(error) => {
                *fault = Some(error.clone());
                Err(error)
            }
        }
    }

    fn flight(&self, id: &str) -> Arc<Flight> {
        let mut flights = lock(&self.flights);
        flights.retain(|_, flight| flight.strong_count() > 0);
        let known = flights.get(id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let flight = Arc::default();
            flights.insert(id.to_owned(), Arc::downgrade(&flight));
            flight
        })
    }

    /// Makes a plan in the background; [`Exports::known`] or [`Exports::fault`] return the result. Cancels it if
    /// [`Exports::progress`] is not called for a minute.
    pub async fn run(&self, index: &Index, selection: Selection, begun: Begun) {
        let id = selection.id.clone();
        let made = tokio::select! {
            made = self.make(index, selection, Some(&begun)) => made,
            () = begun.is_forgotten() => return,
        };
        if let Err(error) = made {
            let mut faults = lock(&self.faults);
            faults.push_back((id, error));
            // Bounded: a page that was closed never asks for its error.
            if faults.len() > MAX_KEPT.1 {
                faults.pop_front();
            }
        }
    }

    fn keep(&self, plan: Arc<Plan>) {
        let mut plans = lock(&self.plans);
        plans.push_back(plan);
        let mut held: usize = plans.iter().map(|plan| plan.header.len()).sum();
        // The newest stays, however large: `/export` is asked for the plan that `/export/prepare` has just made.
        while plans.len() > 1 && (held > MAX_KEPT.0 || plans.len() > MAX_KEPT.1) {
            held -= plans.pop_front().map_or(0, |plan| plan.header.len());
        }
    }
}

/// Guard of a plan that is being made: it is listed until this is dropped, also if the request is cancelled.
#[derive(Debug)]
pub struct Begun {
    preparing: Arc<Mutex<Vec<Preparing>>>,
    done: Arc<AtomicUsize>,
    asked: Arc<Mutex<Instant>>,
}

impl Begun {
    /// Waits until nobody has asked for the plan for [`IDLE`].
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
    async fn a_first_pass_that_failed_is_the_answer_of_all_who_waited_and_of_nobody_later() {
        let exports = Exports::default();
        let passes = AtomicUsize::new(0);
        let ask = || {
            exports.once("file", async {
                passes.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err(ExportError::Nothing)
            })
        };
        let both = futures_util::future::join_all((0..8).map(|_| ask())).await;
        assert!(both.iter().all(|made| matches!(made, Err(ExportError::Nothing))));
        assert_eq!(passes.load(Ordering::Relaxed), 1);
        // The connection that makes the plan is closed: the next one makes it.
        let (gone, waits) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), ask()), ask());
        assert!(gone.is_err() && waits.is_err());
        assert_eq!(passes.load(Ordering::Relaxed), 3);
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
