//! The sinks of a `flow-group` share two limits. Waits use tokio's clock; the lock is never held across a wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::{Bucket, piece};
use super::outage::Outage;
use super::shortage::{Figures, Limit, Look, Shortage, Watch};
use super::site::{Deadline, Held, Site};
use crate::base::registry::Registry;
use gcstreamer_storage::{BoxFuture, Pacer};

/// Default of `max-bytes-per-second`: the 20 MB/s of the original's flow control.
pub const DEFAULT_BYTES: u64 = 20_000_000;
/// Default of `max-requests-per-second`.
pub const DEFAULT_REQUESTS: f64 = 10.0;

/// Zero of the time scale of all buckets.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
static GROUPS: Registry<String, Group> = Registry::new();

/// The limits of a `flow-group`.
#[derive(Debug)]
pub struct Group {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    bytes: Bucket,
    requests: Bucket,
    /// `UserLimit::order` of the values in force, for bytes and for requests; 0 = the default.
    order: [u64; 2],
    /// Number of changes of the limits.
    version: u64,
    /// The latest version that was reported to the user.
    reported: u64,
    outage: Outage,
    /// Requests made so far.
    made: u64,
    watch: Watch,
}

impl State {
    fn bucket(&mut self, limit: Limit) -> &mut Bucket {
        match limit {
            Limit::Bytes => &mut self.bytes,
            Limit::Requests => &mut self.requests,
        }
    }
}

/// A limit that a user set. Of several, the one set last applies, whichever sink starts last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UserLimit<T> {
    /// Units per second; 0 = no limit.
    pub value: T,
    order: u64,
}

impl<T> UserLimit<T> {
    /// Creates a value that is set now.
    pub fn now(value: T) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            value,
            order: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Group {
    /// Returns the group of that name, created with the defaults if absent. `""` always creates a group of its own.
    pub fn join(name: &str) -> Arc<Self> {
        let fresh = || {
            Arc::new(Self {
                state: Mutex::new(State {
                    bytes: Bucket::new(DEFAULT_BYTES as f64),
                    requests: Bucket::new(DEFAULT_REQUESTS),
                    order: [0; 2],
                    version: 0,
                    reported: 0,
                    outage: Outage::default(),
                    made: 0,
                    watch: Watch::default(),
                }),
                changed: Notify::new(),
            })
        };
        if name.is_empty() {
            return fresh();
        }
        GROUPS.get_or(name.to_owned(), fresh)
    }

    /// Sets the given limits for all members, as a user who sets them now.
    pub fn set(&self, bytes: Option<u64>, requests: Option<f64>) {
        self.apply(bytes.map(UserLimit::now), requests.map(UserLimit::now));
    }

    /// Sets the given limits for all members. A value that was set before the one in force is ignored.
    pub fn apply(&self, bytes: Option<UserLimit<u64>>, requests: Option<UserLimit<f64>>) {
        let mut state = self.lock();
        let bytes = newer(bytes, &mut state.order[0]);
        let requests = newer(requests, &mut state.order[1]);
        let now = now();
        let before = (state.bytes.rate(), state.requests.rate());
        let after = (bytes.map_or(before.0, |b| b as f64), requests.unwrap_or(before.1));
        if before == after {
            return;
        }
        state.bytes.set_rate(after.0, now);
        state.requests.set_rate(after.1, now);
        state.version += 1;
        state.watch.forget();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns bytes per second, requests per second, and the version: how often they have changed.
    pub fn limits(&self) -> (u64, f64, u64) {
        let state = self.lock();
        // It was made from a u64 and is not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = state.bytes.rate() as u64;
        (bytes, state.requests.rate(), state.version)
    }

    /// Returns whether the caller must report that the limits have this version: the first member that asks does.
    pub fn tell(&self, version: u64) -> bool {
        let mut state = self.lock();
        let is_news = state.reported < version;
        state.reported = state.reported.max(version);
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `amount` may leave. Returns the time waited, ns.
    async fn wait(&self, limit: Limit, amount: f64) -> u64 {
        let began = now();
        let mut at = began;
        loop {
            let (leaves, version) = self.take(limit, amount, at);
            let mut charge = Charge {
                group: self,
                limit,
                amount,
                version,
                is_waiting: true,
            };
            if leaves <= at {
                charge.leaves();
                return at.saturating_sub(began);
            }
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Register first, then compare versions: a change after `take` is not missed.
            changed.as_mut().enable();
            if self.lock().version == version {
                let until = EPOCH.checked_add(Duration::from_nanos(leaves));
                let timer = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = timer => {
                        charge.leaves();
                        return now().saturating_sub(began);
                    }
                    () = changed => {}
                }
            }
            at = now();
        }
    }

    /// Returns when `amount` may leave, and the version of the limits that this follows from.
    fn take(&self, limit: Limit, amount: f64, now: u64) -> (u64, u64) {
        let mut state = self.lock();
        let version = state.version;
        (state.bucket(limit).take(amount, now), version)
    }
}

/// A charge while it waits for its limit. Dropped while waiting, it is refunded: the attempt has used nothing.
struct Charge<'a> {
    group: &'a Group,
    limit: Limit,
    amount: f64,
    version: u64,
    is_waiting: bool,
}

impl Charge<'_> {
    fn leaves(&mut self) {
        self.is_waiting = false;
        if self.limit == Limit::Requests {
            self.group.lock().made += 1;
        }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        // A change of the limits has discarded all charges.
        if self.is_waiting && state.version == self.version {
            state.bucket(self.limit).refund(self.amount, now());
        }
    }
}

/// Returns the value if it was set after the one in force.
fn newer<T>(limit: Option<UserLimit<T>>, in_force: &mut u64) -> Option<T> {
    let limit = limit.filter(|limit| limit.order > *in_force)?;
    *in_force = limit.order;
    Some(limit.value)
}

fn now() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// One sink as a member of its group.
#[derive(Debug)]
pub struct Member {
    group: Arc<Group>,
    site: Arc<Site>,
    number: u64,
    throttled: AtomicU64,
    /// Whether another member continues the work of this one when it leaves.
    has_successor: bool,
    /// Only one upload of a member queues at the group's limit at a time, for bytes and for requests: members get equal shares,
    /// whatever their number of uploads.
    turns: [tokio::sync::Mutex<()>; 2],
}

impl Member {
    /// Creates a member whose own chunks go to this site.
    pub fn new(group: Arc<Group>, site: Arc<Site>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            group,
            site,
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

    /// Records what this sink has done so far; call it once a second. Returns a limit of the group that this sink must report as
    /// too low, and whether a limit is too low now.
    pub fn watch(&self, figures: Figures) -> (Option<Shortage>, bool) {
        let mut state = self.group.lock();
        let now = now();
        let look = Look {
            waits: [state.bytes.is_busy(now), state.requests.is_busy(now)],
            requests: state.made,
        };
        let told = state.watch.note(self.number, figures, look, now);
        (told, state.watch.short().is_some())
    }

    /// Returns the group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Returns how long this sink's uploads have waited for the limits, ns.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Waits until the limit of requests allows one more.
    async fn request(&self) {
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
        let Ok(_turn) = turn.try_lock() else {
            let began = now();
            let _turn = turn.lock().await;
            self.group.wait(limit, amount).await;
            return now().saturating_sub(began);
        };
        self.group.wait(limit, amount).await
    }
}

/// The path of one attempt: through the limits of its member's group to one site.
#[derive(Clone, Debug)]
pub struct Route {
    member: Arc<Member>,
    site: Arc<Site>,
    drain: Option<Deadline>,
}

impl Route {
    /// Creates the route to the site of the member's own chunks. `drain`: set while the sink drains.
    pub fn own(member: &Arc<Member>, drain: Option<Deadline>) -> Self {
        Self {
            member: Arc::clone(member),
            site: Arc::clone(&member.site),
            drain,
        }
    }

    /// Returns the same route to another site: chunks of earlier sessions may belong to another endpoint or bucket.
    #[must_use]
    pub fn to(&self, endpoint: &str, bucket: &str) -> Self {
        Self {
            site: Site::of(endpoint, bucket),
            ..self.clone()
        }
    }

    /// Waits until the limit of requests allows one more.
    ///
    /// # Errors
    /// The site is held. The attempt must end, so that it does not occupy an upload slot that a chunk for another site could use.
    pub async fn request(&self) -> Result<(), Held> {
        // Before the wait, so that no request is charged that is not made. After it, because the wait may have been long.
        self.site.check(self.drain)?;
        self.member.request().await;
        self.site.check(self.drain)
    }

    /// Holds the site for `time`, for every sink: its server has just asked for that.
    pub fn hold(&self, time: Duration) {
        self.site.hold_for(time);
    }

    /// Returns the limit of bytes.
    pub fn pacer(&self) -> Arc<dyn Pacer> {
        Arc::<Member>::clone(&self.member)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let has_successor = self.has_successor();
        let mut state = self.group.lock();
        state.outage.leaves(self.number, has_successor);
        state.watch.leaves(self.number);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn members_of_a_group_share_the_rate_and_get_equal_parts() {
        let group = Group::join("");
        group.set(Some(1_000_000), Some(0.0));
        let run = |members: usize| {
            let group = Arc::clone(&group);
            async move {
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..members {
                    let member = Member::new(Arc::clone(&group), Site::of("", "b"));
                    tasks.spawn(async move {
                        let began = Instant::now();
                        let mut sent = 0;
                        while began.elapsed() < Duration::from_secs(10) {
                            member.admit(member.piece()).await;
                            sent += member.piece();
                        }
                        (sent, member.throttled())
                    });
                }
                tasks.join_all().await
            }
        };
        let sent = run(4).await;
        let total: usize = sent.iter().map(|s| s.0).sum();
        assert!((9_700_000..=10_500_000).contains(&total), "{sent:?}");
        assert!(sent.iter().all(|s| (2_300_000..2_800_000).contains(&s.0)), "{sent:?}");
        assert!(sent.iter().all(|s| s.1 > 5_000_000_000), "the time is counted: {sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_with_eight_uploads_gets_no_more_than_one_with_a_single_upload() {
        let group = Group::join("");
        group.set(Some(1_000_000), Some(0.0));
        let mut tasks = tokio::task::JoinSet::new();
        let members = [8, 1].map(|uploads| (uploads, Arc::new(Member::new(Arc::clone(&group), Site::of("", "fair")))));
        for (uploads, member) in members {
            for _ in 0..uploads {
                let member = Arc::clone(&member);
                tasks.spawn(async move {
                    let (began, mut sent) = (Instant::now(), 0);
                    while began.elapsed() < Duration::from_secs(10) {
                        member.admit(member.piece()).await;
                        sent += member.piece();
                    }
                    (uploads, sent)
                });
            }
        }
        let sent = tasks.join_all().await;
        let of = |uploads: usize| sent.iter().filter(|s| s.0 == uploads).map(|s| s.1).sum::<usize>();
        assert!(of(1) >= 4_700_000, "{} and {}", of(8), of(1));
        assert!(of(8) >= 4_700_000, "{} and {}", of(8), of(1));
    }

    #[test]
    fn a_sink_that_starts_anew_does_not_bring_back_what_was_set_before() {
        let group = Group::join("");
        let (first, second) = (UserLimit::now(5), UserLimit::now(7));
        group.apply(Some(second), None);
        group.apply(Some(first), Some(UserLimit::now(3.0)));
        assert_eq!((group.limits().0, group.limits().1), (7, 3.0));
        group.apply(Some(UserLimit::now(6)), None);
        assert_eq!(group.limits().0, 6);
    }

    #[test]
    fn an_equal_rate_is_no_news_and_another_is_told_once() {
        let group = Group::join("");
        group.set(Some(500), None);
        let version = group.limits().2;
        group.set(Some(500), None);
        assert_eq!(group.limits().2, version);
        assert!(group.tell(version) && !group.tell(version));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_paced() {
        let member = Member::new(Group::join(""), Site::of("", "paced"));
        member.group().set(None, Some(10.0));
        let began = Instant::now();
        for _ in 0..21 {
            member.request().await;
        }
        assert!((1900..=2100).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }

    /// Creates a sink of the group that stores in this bucket at this endpoint.
    fn sink(group: &Arc<Group>, endpoint: &str, bucket: &str) -> Route {
        Route::own(&Arc::new(Member::new(Arc::clone(group), Site::of(endpoint, bucket))), None)
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_holds_the_bucket_and_endpoint_that_sent_it_in_every_group_and_nothing_else() {
        let group = Group::join("");
        let a = sink(&group, "https://x", "a");
        a.hold(Duration::from_secs(3600));
        for (endpoint, bucket) in [("https://x", "b"), ("https://y", "a")] {
            assert_eq!(sink(&group, endpoint, bucket).request().await, Ok(()), "{endpoint} {bucket}");
            let recovered = a.to(endpoint, bucket);
            assert_eq!(
                recovered.request().await,
                Ok(()),
                "of an earlier session: {endpoint} {bucket}"
            );
        }
        let held = a.request().await.unwrap_err();
        assert_eq!(held.until - held.since, Duration::from_secs(300), "five minutes are the most");
        group.set(None, Some(5.0));
        let same = [sink(&group, "https://x", "a"), sink(&Group::join(""), "https://x", "a")];
        for other in &same {
            assert_eq!(other.request().await, Err(held));
        }
        assert_eq!(a.to("https://y", "b").to("https://x", "a").request().await, Err(held));
        tokio::time::sleep_until(held.until).await;
        for other in same.iter().chain([&a]) {
            assert_eq!(other.request().await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_of_an_earlier_sessions_bucket_outlives_the_attempt_and_holds_none_of_ours() {
        let group = Group::join("");
        let own = sink(&group, "https://x", "new");
        own.to("https://x", "old").hold(Duration::from_secs(60));
        assert_eq!(own.request().await, Ok(()));
        assert!(own.to("https://x", "old").request().await.is_err());
        assert!(sink(&group, "https://x", "old").request().await.is_err());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(own.to("https://x", "old").request().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_for_its_turn_is_not_made_when_the_site_is_held_meanwhile() {
        let route = sink(&Group::join(""), "", "queue");
        route.member.group().set(None, Some(1.0));
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let route = route.clone();
                tokio::spawn(async move { route.request().await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        route.hold(Duration::from_secs(60));
        let mut made = 0;
        for task in waiting {
            made += usize::from(task.await.unwrap().is_ok());
        }
        assert!((1..=3).contains(&made), "{made}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_drains_waits_for_half_of_its_time_and_the_others_for_all_of_the_hold() {
        let route = sink(&Group::join(""), "", "drained");
        route.hold(Duration::from_secs(3600));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        let until = began + Duration::from_secs(30);
        let draining = Route::own(&route.member, Some(Deadline { began, until }));
        assert!(draining.request().await.is_err());
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(draining.request().await, Ok(()));
        assert!(route.request().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_a_new_rate_at_once() {
        let member = Arc::new(Member::new(Group::join(""), Site::of("", "two")));
        member.group().set(Some(10), None);
        member.admit(1000).await;
        let waiting = Arc::clone(&member);
        let task = tokio::spawn(async move { waiting.admit(1000).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        member.group().set(Some(1_000_000), None);
        let changed = Instant::now();
        task.await.unwrap();
        assert!(changed.elapsed() < Duration::from_millis(50), "{:?}", changed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_broken_off_while_it_waits_uses_up_nothing() {
        let member = Arc::new(Member::new(Group::join(""), Site::of("", "broken")));
        member.group().set(None, Some(1.0));
        member.request().await;
        member.request().await;
        let began = Instant::now();
        for _ in 0..20 {
            let waiting = Arc::clone(&member);
            let task = tokio::spawn(async move { waiting.request().await });
            tokio::time::sleep(Duration::from_millis(10)).await;
            task.abort();
            let _ = task.await;
        }
        member.request().await;
        assert!(began.elapsed() <= Duration::from_millis(1300), "{:?}", began.elapsed());
    }

    #[test]
    fn a_name_is_one_group_and_no_name_is_nobody_elses() {
        let (a, b) = (Group::join("lobby"), Group::join("lobby"));
        a.set(Some(5), None);
        assert_eq!(b.limits().0, 5);
        assert_eq!(Group::join("").limits().0, DEFAULT_BYTES);
        drop((a, b));
        assert_eq!(
            Group::join("lobby").limits().0,
            DEFAULT_BYTES,
            "a group ends with its last member"
        );
    }
}
