//! An observer of chunks receives their steps in the order in which they happened, from any threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use super::life::{LifeEvent, Observer, Step};
use super::queue::UploadQueue;
use super::tests::{chunk, limits};

/// Delays the first step until another thread has published the next one.
struct Slow {
    is_first: AtomicBool,
    began: Barrier,
    goes_on: Barrier,
    steps: Mutex<Vec<Step>>,
}

impl Observer for Slow {
    fn observe(&self, event: &LifeEvent) {
        if self.is_first.swap(false, Ordering::SeqCst) {
            self.began.wait();
            self.goes_on.wait();
        }
        self.steps.lock().unwrap().push(event.step.clone());
    }
}

#[test]
fn a_slow_observer_receives_the_steps_of_two_threads_in_their_order() {
    let slow = Arc::new(Slow {
        is_first: AtomicBool::new(true),
        began: Barrier::new(2),
        goes_on: Barrier::new(2),
        steps: Mutex::default(),
    });
    let uploads = UploadQueue::new(limits(1000, 1), 1, Box::new(|| {})).with_observer(Arc::<Slow>::clone(&slow));
    std::thread::scope(|scope| {
        // The streaming thread.
        scope.spawn(|| {
            uploads.queue(chunk(0, 10));
            uploads.publish();
        });
        slow.began.wait();
        // The upload driver neither waits for the observer nor overtakes it.
        uploads.due();
        uploads.publish();
        assert!(slow.steps.lock().unwrap().is_empty());
        slow.goes_on.wait();
    });
    assert_eq!(*slow.steps.lock().unwrap(), [Step::Queued, Step::Attempt(1)]);
}
