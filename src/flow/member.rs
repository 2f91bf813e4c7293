//! One sink as a member of its group, and the way of its attempts through the limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::bucket::piece;
use super::bucket_endpoint::{BucketEndpoint, Deadline, RetryAfter};
use super::group::{Group, now};
use super::pending::Pending;
use super::shortage::{Figures, Limit, Observation, Shortage};
use gcstreamer_storage::{BoxFuture, Pacer};

/// One sink as a member of its group.
#[derive(Debug)]
pub struct Member {
    group: Arc<Group>,
    endpoint: Arc<BucketEndpoint>,
    number: u64,
    throttled: AtomicU64,
    /// Whether another member continues the work of this one when it leaves.
    has_successor: bool,
    /// Only one upload of a member queues at the group's limit at a time, for bytes and for requests: members get equal shares,
    /// whatever their number of uploads.
    turns: [tokio::sync::Mutex<()>; 2],
}

impl Member {
    /// Creates a member whose own chunks go to this bucket at this endpoint.
    pub fn new(group: Arc<Group>, endpoint: Arc<BucketEndpoint>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            group,
            endpoint,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            throttled: AtomicU64::new(0),
            has_successor: false,
            turns: Default::default(),
        }
    }

    /// Sets whether another member of the group, if there is one, continues the work of this one when it leaves.
    pub fn with_successor(mut self, has_successor: bool) -> Self {
        self.has_successor = has_successor;
        self
    }

    /// Records that this sink's uploads fail. Returns whether it must report that: the first member of an outage does, and then
    /// one of them every hour.
    pub fn begins_outage(&self) -> bool {
        self.group.lock().outage.begins(self.number, now())
    }

    /// Records that this sink has stored a chunk. Returns the length in ns of an outage that ends with it although the members
    /// that failed have left; the caller must report its end.
    pub fn ends_left_outage(&self) -> Option<u64> {
        self.group.lock().outage.works(now())
    }

    /// Records that this sink's uploads work again. Returns whether it must report that: the last failing member does.
    pub fn ends_outage(&self) -> bool {
        self.group.lock().outage.ends(self.number)
    }

    /// Returns whether another member continues the work of this one when it leaves.
    pub fn has_successor(&self) -> bool {
        self.has_successor && Arc::strong_count(&self.group) > 1
    }

    /// Returns what waits in all members; `own` waits in this one now.
    pub fn waiting_in_group(&self, own: Pending) -> Pending {
        let mut state = self.group.lock();
        // What `watch` has recorded may be a second old.
        state.waiting.insert(self.number, own);
        state.waiting.values().fold(Pending::default(), |all, one| Pending {
            bytes: all.bytes.saturating_add(one.bytes),
            chunks: all.chunks.saturating_add(one.chunks),
            oldest: all.oldest.max(one.oldest),
        })
    }

    /// Records what this sink has done so far, and what waits in it; call it once a second. Returns a limit of the group that this
    /// sink must report as too low, and whether a limit is too low now.
    pub fn watch(&self, figures: Figures, pending: Pending) -> (Option<Shortage>, bool) {
        let mut state = self.group.lock();
        state.waiting.insert(self.number, pending);
        let now = now();
        let observation = Observation {
            waits: [state.bytes.is_busy(now), state.requests.is_busy(now)],
            requests: state.made,
            limits: [state.bytes.rate(), state.requests.rate()],
        };
        let reported = state.watch.note(self.number, figures, observation, now);
        (reported, state.watch.short().is_some())
    }

    /// Returns the group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The bucket and endpoint of its own chunks.
    pub fn endpoint(&self) -> &BucketEndpoint {
        &self.endpoint
    }

    /// Returns how long this sink's uploads have waited for the limits, ns.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Waits until the limit of requests allows one more.
    pub(super) async fn request(&self) {
        let waited = self.take(Limit::Requests, 1.0).await;
        self.throttled.fetch_add(waited, Ordering::Relaxed);
    }

    /// Waits for this member's turn, and then until `amount` may leave. Returns the time waited, ns.
    async fn take(&self, limit: Limit, amount: f64) -> u64 {
        let [bytes, requests] = &self.turns;
        let turn = match limit {
            Limit::Bytes => bytes,
            Limit::Requests => requests,
        };
        // The usual case queues for nothing and reads no clock.
        let Ok(_turn) = turn.try_lock() else {
            let began = now();
            let _turn = turn.lock().await;
            self.group.wait(limit, amount).await;
            // The wait for the turn counts too: it is the limit that makes it long.
            return now().saturating_sub(began);
        };
        self.group.wait(limit, amount).await
    }
}

/// The path of one attempt: through the limits of its member's group to one bucket.
#[derive(Clone, Debug)]
pub struct Route {
    pub(super) member: Arc<Member>,
    endpoint: Arc<BucketEndpoint>,
    drain: Option<Deadline>,
}

impl Route {
    /// Creates the route to the bucket of the member's own chunks. `drain`: set while the sink drains.
    pub fn own(member: &Arc<Member>, drain: Option<Deadline>) -> Self {
        Self {
            member: Arc::clone(member),
            endpoint: Arc::clone(&member.endpoint),
            drain,
        }
    }

    /// Returns the same route to another bucket or endpoint, to which chunks of earlier sessions may belong.
    #[must_use]
    pub fn to(&self, endpoint: &str, bucket: &str) -> Self {
        Self {
            endpoint: BucketEndpoint::of(endpoint, bucket),
            ..self.clone()
        }
    }

    /// Waits until the limit of requests allows one more.
    ///
    /// # Errors
    /// The bucket is held. The attempt must end, so that it does not occupy an upload slot that a chunk for another bucket could use.
    pub async fn request(&self) -> Result<(), RetryAfter> {
        // Before the wait, so that no request is charged that is not made. After it, because the wait may have been long.
        self.endpoint.check(self.drain)?;
        self.member.request().await;
        self.endpoint.check(self.drain)
    }

    /// Holds the bucket for `time`, for every sink: its server has just asked for that.
    pub fn hold(&self, time: Duration) {
        self.endpoint.hold_for(time);
    }

    /// Returns the limit of bytes.
    pub fn pacer(&self) -> Arc<dyn Pacer> {
        Arc::<Member>::clone(&self.member)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Counts the members, of which this is still one.
        let has_successor = self.has_successor();
        let mut state = self.group.lock();
        state.outage.leaves(self.number, has_successor);
        state.watch.leaves(self.number);
        state.waiting.remove(&self.number);
    }
}

impl Pacer for Member {
    fn admit(&self, bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let waited = self.take(Limit::Bytes, bytes as f64).await;
            self.throttled.fetch_add(waited, Ordering::Relaxed);
        })
    }

    fn piece(&self) -> usize {
        piece(self.group.lock().bytes.rate())
    }
}
