//! Tests of the module above, in virtual time.

use super::*;
use crate::flow::bucket_endpoint::{BucketEndpoint, Deadline};
use crate::flow::member::{Member, Route};
use crate::flow::shortage::Figures;
use gcstreamer_storage::Pacer;

#[tokio::test(start_paused = true)]
async fn members_of_a_group_share_the_rate_and_get_equal_parts() {
    let group = Group::join("");
    group.set(Some(1_000_000), Some(0.0));
    let run = |members: usize| {
        let group = Arc::clone(&group);
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..members {
                let member = Member::new(Arc::clone(&group), BucketEndpoint::of("", "b"));
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
    let members = [8, 1].map(|uploads| {
        (
            uploads,
            Arc::new(Member::new(Arc::clone(&group), BucketEndpoint::of("", "fair"))),
        )
    });
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
fn a_sink_that_starts_again_does_not_bring_back_what_was_set_before() {
    let group = Group::join("");
    let (first, second) = (UserLimit::now(5), UserLimit::now(7));
    group.apply(Some(second), None);
    group.apply(Some(first), Some(UserLimit::now(3.0)));
    assert_eq!((group.limits().0, group.limits().1), (7, 3.0));
    group.apply(Some(UserLimit::now(6)), None);
    assert_eq!(group.limits().0, 6);
}

#[test]
fn an_equal_rate_is_no_news_and_another_is_reported_once() {
    let group = Group::join("");
    group.set(Some(500), None);
    let version = group.limits().2;
    group.set(Some(500), None);
    assert_eq!(group.limits().2, version);
    assert!(group.claim_report(version) && !group.claim_report(version));
}

#[tokio::test(start_paused = true)]
async fn requests_are_paced() {
    let member = Member::new(Group::join(""), BucketEndpoint::of("", "paced"));
    member.group().set(None, Some(10.0));
    let began = Instant::now();
    for _ in 0..21 {
        member.request().await;
    }
    assert!((1900..=2100).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

/// Creates a sink of the group that stores in this bucket at this endpoint.
fn sink(group: &Arc<Group>, endpoint: &str, bucket: &str) -> Route {
    Route::own(
        &Arc::new(Member::new(Arc::clone(group), BucketEndpoint::of(endpoint, bucket))),
        None,
    )
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
    let member = Arc::new(Member::new(Group::join(""), BucketEndpoint::of("", "two")));
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
    let member = Arc::new(Member::new(Group::join(""), BucketEndpoint::of("", "broken")));
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

#[test]
fn what_waits_in_an_outage_is_that_of_all_sinks_of_the_group_that_are_there() {
    let group = Group::join("");
    let members: Vec<_> = (0..4)
        .map(|_| Member::new(Arc::clone(&group), BucketEndpoint::of("", "sum")))
        .collect();
    let pending = |chunks| Pending {
        bytes: 1000 * chunks,
        chunks,
        oldest: chunks,
    };
    for (member, chunks) in members.iter().zip([3, 5, 7, 1]) {
        member.watch(Figures::default(), pending(chunks));
    }
    let sum = |member: &Member| {
        let all = member.waiting_in_group(pending(2));
        (all.chunks, all.bytes, all.oldest)
    };
    assert_eq!(sum(&members[3]), (17, 17_000, 7), "its own are those of now");
    let last = members.into_iter().next_back().unwrap();
    assert_eq!(sum(&last), (2, 2000, 2), "the others have left");
}
