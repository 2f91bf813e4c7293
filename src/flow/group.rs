//! Sinks that share two limits. Waits on tokio's clock; its lock is never held across a wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::{Bucket, piece};
use super::outage::Outage;
use super::site::Site;
use gcstreamer_storage::{BoxFuture, Pacer};

/// Default of `max-bytes-per-second`: the 20 MB/s of the original's flow control.
pub const DEFAULT_BYTES: u64 = 20_000_000;
/// Default of `max-requests-per-second`.
pub const DEFAULT_REQUESTS: f64 = 10.0;

/// What the clock of all buckets counts from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
static GROUPS: Mutex<Option<HashMap<String, Weak<Group>>>> = Mutex::new(None);

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
    /// Counts changes of the limits.
    version: u64,
    /// The version that the user was told of.
    told: u64,
    outage: Outage,
}

/// One of the two limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Bytes,
    Requests,
}

impl Group {
    /// The group of that name, made with the defaults where there is none; `""` is always one of its own.
    pub fn join(name: &str) -> Arc<Self> {
        let fresh = || {
            Arc::new(Self {
                state: Mutex::new(State {
                    bytes: Bucket::new(DEFAULT_BYTES as f64),
                    requests: Bucket::new(DEFAULT_REQUESTS),
                    version: 0,
                    told: 0,
                    outage: Outage::default(),
                }),
                changed: Notify::new(),
            })
        };
        if name.is_empty() {
            return fresh();
        }
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = groups.get_or_insert_default();
        groups.retain(|_, group| group.strong_count() > 0);
        if let Some(group) = groups.get(name).and_then(Weak::upgrade) {
            return group;
        }
        let group = fresh();
        groups.insert(name.to_owned(), Arc::downgrade(&group));
        group
    }

    /// Sets the limits that are given, for all members.
    pub fn set(&self, bytes: Option<u64>, requests: Option<f64>) {
        let mut state = self.lock();
        let now = now();
        let before = (state.bytes.rate(), state.requests.rate());
        let after = (bytes.map_or(before.0, |b| b as f64), requests.unwrap_or(before.1));
        if before == after {
            return;
        }
        state.bytes.set_rate(after.0, now);
        state.requests.set_rate(after.1, now);
        state.version += 1;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Bytes and requests a second, and how often they have been changed.
    pub fn limits(&self) -> (u64, f64, u64) {
        let state = self.lock();
        // It was made from a u64 and is not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = state.bytes.rate() as u64;
        (bytes, state.requests.rate(), state.version)
    }

    /// The limits are of this version now. Whether the user is to be told: one of the group does.
    pub fn tell(&self, version: u64) -> bool {
        let mut state = self.lock();
        let is_news = state.told < version;
        state.told = state.told.max(version);
        is_news
    }

    /// The server has asked to be left alone for so long.
    pub fn hold(&self, time: Duration) {
        let until = now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.lock().requests.hold(until);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `amount` may leave; how long that took, ns.
    async fn wait(&self, limit: Limit, amount: f64) -> u64 {
        let began = now();
        let mut at = began;
        loop {
            let (leaves, version) = self.take(limit, amount, at);
            if leaves <= at {
                return at.saturating_sub(began);
            }
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered only where there is something to wait for; a change since the bucket was asked is not missed.
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
                    () = timer => return now().saturating_sub(began),
                    () = changed => {}
                }
            }
            at = now();
        }
    }

    /// When `amount` may leave, and the version of the limits that say so.
    fn take(&self, limit: Limit, amount: f64, now: u64) -> (u64, u64) {
        let mut state = self.lock();
        let version = state.version;
        let bucket = match limit {
            Limit::Bytes => &mut state.bytes,
            Limit::Requests => &mut state.requests,
        };
        (bucket.take(amount, now), version)
    }
}

fn now() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A sink's place in its group.
#[derive(Debug)]
pub struct Member {
    group: Arc<Group>,
    site: Arc<Site>,
    number: u64,
    throttled: AtomicU64,
    /// When it goes, another member goes on with its work.
    has_successor: bool,
    /// One of its uploads at a time stands in the group's line, so that members get equal parts however many each has.
    turns: [tokio::sync::Mutex<()>; 2],
}

impl Member {
    /// A new member, which sends to this site.
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

    /// As long as there are others in the group, one of them goes on with its work when it ends.
    pub fn with_successor(mut self, has_successor: bool) -> Self {
        self.has_successor = has_successor;
        self
    }

    /// The server has asked to be left alone for so long: this group does, and every other one that sends to this site.
    pub fn hold(&self, time: Duration) {
        self.group.hold(time);
        self.site.hold(time);
    }

    /// This sink's uploads fail. Whether the user is to be told: of an outage the first of the group speaks, and once an hour
    /// (ns since the process began) any of them.
    pub fn begins_outage(&self) -> bool {
        self.group.lock().outage.begins(self.number, now())
    }

    /// This sink has stored a chunk. How long an outage was, in ns, that a member which has gone left behind and that is over now.
    pub fn ends_left_outage(&self) -> Option<u64> {
        self.group.lock().outage.works(now())
    }

    /// This sink's uploads work again. Whether the user is to be told: the last of the group speaks.
    pub fn ends_outage(&self) -> bool {
        self.group.lock().outage.ends(self.number)
    }

    /// Whether a member goes on with the work of this one when it ends.
    pub fn has_successor(&self) -> bool {
        self.has_successor && Arc::strong_count(&self.group) > 1
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// How long this sink's uploads have waited for the limits, ns.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Waits until a request may be made.
    pub async fn request(&self) {
        let waited = self.site.wait().await + self.take(Limit::Requests, 1.0).await;
        self.throttled.fetch_add(waited, Ordering::Relaxed);
    }

    /// Waits for this member's turn, and then until `amount` may leave; how long that took, ns.
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

impl Drop for Member {
    fn drop(&mut self) {
        let has_successor = self.has_successor();
        self.group.lock().outage.leaves(self.number, has_successor);
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

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_does_not_end_a_hold_and_an_equal_one_is_no_news() {
        let group = Group::join("");
        group.set(Some(500), None);
        let version = group.limits().2;
        group.set(Some(500), None);
        assert_eq!(group.limits().2, version);
        assert!(group.tell(version) && !group.tell(version));
        group.hold(Duration::from_secs(17));
        group.set(None, Some(5.0));
        let began = Instant::now();
        Member::new(group, Site::of("", "held")).request().await;
        assert!(began.elapsed() >= Duration::from_secs(17));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_paced_and_a_hold_stops_them_all() {
        let member = Member::new(Group::join(""), Site::of("", "one"));
        member.group().set(None, Some(10.0));
        let began = Instant::now();
        for _ in 0..21 {
            member.request().await;
        }
        assert!((1900..=2100).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        member.hold(Duration::from_secs(17));
        let held = Instant::now();
        let (same, other) = (Site::of("", "one"), Site::of("", "another"));
        Member::new(Group::join(""), other).request().await;
        assert!(held.elapsed() < Duration::from_secs(1), "another bucket is not meant");
        Member::new(Group::join(""), same).request().await;
        assert!(held.elapsed() >= Duration::from_secs(17), "the same bucket is, in any group");
        member.request().await;
        assert!(held.elapsed() >= Duration::from_secs(17));
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
