//! The exports of a server: how many may run, which plans are known, and how far those are that are being made.
//!
//! Plans are kept in bounded memory: a player or a browser asks for one file by many ranges.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ExportError, PARALLEL, Plan, Selection};
use crate::index::Index;
use crate::lock::lock;

/// Most bytes of headers of plans that are kept, and most plans.
const MAX_KEPT: (usize, usize) = (64 << 20, 16);

/// An export whose plan is being made.
#[derive(Debug)]
struct Preparing {
    id: String,
    of: usize,
    done: Arc<AtomicUsize>,
}

/// The exports of a server: how many run, and the plans that were made.
#[derive(Debug)]
pub struct Exports {
    permits: Arc<Semaphore>,
    plans: Mutex<VecDeque<Arc<Plan>>>,
    preparing: Arc<Mutex<Vec<Preparing>>>,
    faults: Mutex<VecDeque<(String, ExportError)>>,
}

impl Default for Exports {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(PARALLEL)),
            plans: Mutex::default(),
            preparing: Arc::default(),
            faults: Mutex::default(),
        }
    }
}

impl Exports {
    /// The right to run one export; it ends when this is dropped.
    ///
    /// # Errors
    /// [`ExportError::Busy`].
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ExportError> {
        self.permits.clone().try_acquire_owned().map_err(|_| ExportError::Busy)
    }

    /// The plan of that id, if it was made and is still known.
    pub fn known(&self, id: &str) -> Option<Arc<Plan>> {
        lock(&self.plans).iter().find(|plan| plan.id == id).cloned()
    }

    /// How far the plan of that id is: chunks that were read, and of how many.
    pub fn progress(&self, id: &str) -> Option<(usize, usize)> {
        let preparing = lock(&self.preparing);
        let found = preparing.iter().find(|preparing| preparing.id == id);
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
        lock(&self.preparing).push(Preparing {
            id: selection.id.clone(),
            of: selection.count(),
            done: done.clone(),
        });
        Begun {
            preparing: self.preparing.clone(),
            done,
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

    /// Makes a plan that somebody asks for later; a fault waits for them.
    pub async fn run(&self, index: &Index, selection: Selection, begun: Begun) {
        let id = selection.id.clone();
        match selection.plan(index, &begun.done).await {
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
}

impl Drop for Begun {
    fn drop(&mut self) {
        lock(&self.preparing).retain(|preparing| !Arc::ptr_eq(&preparing.done, &self.done));
    }
}
