//! The rules of the scheduler, on virtual time.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::flow::hold::Hold;
use crate::spool::DestinationId;

const S: u64 = 1_000_000_000;
const REFUSED: Outcome = Outcome::Failed {
    class: Class::Permanent,
    retry_after: None,
};
const BROKEN: Outcome = Outcome::Failed {
    class: Class::Transient,
    retry_after: None,
};

/// The scheduler only compares tickets.
fn t(n: u64) -> Ticket {
    Ticket::own(n)
}

fn d(n: u64) -> DestinationId {
    DestinationId::of(&n)
}

fn with(n: u64) -> Scheduler {
    let mut s = Scheduler::new(4, 7);
    (0..n).for_each(|i| s.queue(t(i), None, 0));
    s
}

#[test]
fn the_newest_goes_first_then_the_backlog_from_its_oldest() {
    let mut s = with(6);
    let order: Vec<Ticket> = std::iter::from_fn(|| s.next(0)).collect();
    assert_eq!(order, [5, 0, 1, 2].map(t));
    s.queue(t(6), None, 0);
    s.done(t(5), Outcome::Stored, 0);
    assert_eq!(s.next(0), Some(t(6)));
}

#[test]
fn an_outage_is_probed_by_one_attempt_at_a_time_at_most_thirty_seconds_apart() {
    let mut s = with(6);
    let mut now = 0;
    while let Some(i) = s.next(now) {
        s.done(i, BROKEN, now);
    }
    for _ in 0..40 {
        let wake = s.wake_at(now).unwrap();
        assert!(wake - now <= 30 * S, "{}", wake - now);
        now = wake;
        let i = s.next(now).unwrap();
        assert_eq!(s.next(now), None);
        s.done(i, BROKEN, now);
    }
    now = s.wake_at(now).unwrap();
    let i = s.next(now).unwrap();
    s.done(i, Outcome::Stored, now);
    assert!(s.next(now).is_some(), "after a success the backlog follows at once");
}

#[test]
fn one_at_a_time_it_is_the_same_order() {
    let mut s = Scheduler::new(1, 7);
    (0..5).for_each(|i| s.queue(t(i), None, 0));
    let mut order = Vec::new();
    while let Some(i) = s.next(0) {
        order.push(i);
        s.done(i, Outcome::Stored, 0);
        if i == t(1) {
            s.queue(t(5), None, 0);
            assert_eq!(last(&s, |_| true), Some(t(3)));
        }
    }
    assert_eq!(order, [4, 0, 1, 5, 2, 3].map(t));
}

#[test]
fn the_chunk_to_put_away_is_the_one_that_would_be_sent_last() {
    let s = with(4);
    assert_eq!(last(&s, |_| true), Some(t(2)));
    assert_eq!(last(&s, |i| i != t(2)), Some(t(1)));
    assert_eq!(last(&s, |i| i == t(3)), Some(t(3)));
    assert_eq!(last(&s, |_| false), None);
}

#[test]
fn retry_after_is_obeyed() {
    let mut s = with(2);
    let i = s.next(0).unwrap();
    s.done(
        i,
        Outcome::Failed {
            class: Class::Throttled,
            retry_after: Some(17 * S),
        },
        0,
    );
    assert_eq!(s.next(17 * S - 1), None);
    assert!(s.next(17 * S).is_some());
}

fn busy(seconds: u64) -> Outcome {
    Outcome::Failed {
        class: Class::Throttled,
        retry_after: Some(seconds * S),
    }
}

#[test]
fn retry_after_is_five_minutes_at_most_and_a_drain_keeps_half_of_its_time() {
    let mut s = with(1);
    assert_eq!(s.next(0), Some(t(0)));
    s.done(t(0), busy(86_400), 0);
    assert_eq!(s.wake_at(0), Some(300 * S));
    s.set_draining(Some(Drain {
        began: 100 * S,
        until: 130 * S,
    }));
    assert_eq!(s.next(100 * S), Some(t(0)));
    s.held(t(0), Hold::new(0, 86_400 * S));
    s.set_draining(Some(Drain {
        began: 114 * S,
        until: 130 * S,
    }));
    assert_eq!(s.wake_at(114 * S), Some(115 * S), "the same deadline, the same pause");
    assert_eq!(s.next(115 * S), Some(t(0)));
    s.done(t(0), busy(2), 115 * S);
    assert_eq!(s.wake_at(115 * S), Some(117 * S), "a wish that fits is granted");
    assert_eq!(s.next(117 * S), Some(t(0)));
    s.done(t(0), busy(3600), 117 * S);
    assert_eq!(s.wake_at(117 * S), Some(123 * S + S / 2));
    assert_eq!(s.next(124 * S), Some(t(0)));
    s.done(t(0), busy(3600), 131 * S);
    assert_eq!(s.wake_at(131 * S), Some(431 * S), "the drain is over");
}

#[test]
fn after_the_deadline_of_a_drain_pauses_are_long_again() {
    let mut s = with(1);
    s.set_draining(Some(Drain { began: 0, until: 30 * S }));
    assert_eq!(s.next(0), Some(t(0)));
    s.done(t(0), REFUSED, 0);
    assert_eq!(s.wake_at(0), Some(5 * S));
    assert_eq!(s.next(29 * S), Some(t(0)));
    s.done(t(0), REFUSED, 31 * S);
    assert_eq!(s.wake_at(31 * S), Some(91 * S));
}

#[test]
fn a_destination_that_is_held_gives_its_place_to_the_others_and_that_is_no_failure() {
    let mut s = Scheduler::new(1, 7);
    (0..2).for_each(|i| s.queue(t(i), Some(Elsewhere::Served(d(i))), 0));
    (10..12).for_each(|i| s.queue(t(i), None, 0));
    assert_eq!(s.next(0), Some(t(11)));
    s.held(t(11), Hold::new(0, 60 * S));
    assert!(!s.is_failing());
    assert_eq!(s.next(0), Some(t(0)));
    s.held(t(0), Hold::new(0, 90 * S));
    assert_eq!(s.next(0), Some(t(1)));
    s.done(t(1), Outcome::Stored, 0);
    assert_eq!((s.next(0), s.wake_at(0)), (None, Some(60 * S)));
    assert_eq!(s.next(60 * S), Some(t(11)));
    s.done(t(11), Outcome::Stored, 60 * S);
    assert_eq!(s.next(60 * S), Some(t(10)));
    s.done(t(10), Outcome::Stored, 60 * S);
    assert_eq!((s.next(60 * S), s.wake_at(60 * S)), (None, Some(90 * S)));
}

#[test]
fn own_chunks_that_fail_break_off_nothing_that_goes_elsewhere_unless_the_sink_drains() {
    for outcome in [BROKEN, REFUSED] {
        let mut s = Scheduler::new(1, 7);
        s.queue(t(0), Some(Elsewhere::Served(d(9))), 0);
        s.queue(t(10), None, 0);
        assert_eq!(s.next(0), Some(t(10)));
        s.done(t(10), outcome, 0);
        assert_eq!(s.next(0), Some(t(0)), "in the pause");
        s.queue(t(11), None, S);
        assert_eq!(
            (s.preempt(120 * S), s.wake_at(120 * S)),
            (None, None),
            "it goes on to its end"
        );
        s.set_draining(Some(Drain {
            began: 120 * S,
            until: 150 * S,
        }));
        assert_eq!((s.wake_at(120 * S), s.preempt(120 * S)), (Some(120 * S), Some(t(0))));
        assert_eq!(s.next(120 * S), Some(t(11)));
    }
}

#[test]
fn of_other_destinations_one_that_works_goes_before_one_in_trouble() {
    let mut s = Scheduler::new(4, 7);
    s.queue(t(0), Some(Elsewhere::Served(d(1))), 0);
    (1..20).for_each(|i| s.queue(t(i), Some(Elsewhere::Served(d(2))), 0));
    assert_eq!(s.next(0), Some(t(0)));
    s.done(t(0), BROKEN, 0);
    for _ in 1..20 {
        let ticket = s.next(60 * S).unwrap();
        assert_ne!(ticket, t(0));
        s.done(ticket, Outcome::Stored, 60 * S);
    }
    assert_eq!(s.next(60 * S), Some(t(0)));
}

#[test]
fn a_refused_chunk_waits_a_minute_and_holds_up_no_other() {
    let mut s = with(2);
    assert_eq!(s.next(0), Some(t(1)));
    s.done(t(1), REFUSED, 0);
    assert_eq!(s.next(0), Some(t(0)));
    s.done(t(0), Outcome::Stored, 0);
    assert_eq!(s.next(60 * S - 1), None);
    assert_eq!(s.wake_at(0), Some(60 * S));
    assert_eq!(s.next(60 * S), Some(t(1)));
}

#[test]
fn concurrency_is_halved_by_trouble_and_grows_by_one_a_round() {
    let mut s = with(50);
    let batch = |s: &mut Scheduler, now| std::iter::from_fn(|| s.next(now)).collect::<Vec<Ticket>>();
    let first = batch(&mut s, 0);
    assert_eq!(first.len(), 4);
    s.done(first[0], BROKEN, 0);
    first[1..].iter().for_each(|&i| s.done(i, Outcome::Stored, 0));
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let now = 60 * S;
        let b = batch(&mut s, now);
        sizes.push(b.len());
        b.iter().for_each(|&i| s.done(i, Outcome::Stored, now));
    }
    assert_eq!(sizes, [3, 4, 4]);
}

#[test]
fn a_chunk_that_always_fails_holds_up_no_other() {
    let mut s = Scheduler::new(1, 7);
    s.queue(t(0), None, 0);
    let (mut now, mut stored, mut failed) = (0, 0, 0);
    // A chunk every second for five minutes, and one that breaks each connection.
    for second in 1..=300 {
        now = now.max(second * S);
        s.queue(t(second), None, now);
        while let Some(ticket) = s.next(now) {
            let outcome = if ticket == t(0) { BROKEN } else { Outcome::Stored };
            failed += usize::from(ticket == t(0));
            stored += usize::from(ticket != t(0));
            now += S / 10;
            s.done(ticket, outcome, now);
        }
    }
    assert!(stored >= 295, "{stored} of 300");
    assert!((8..60).contains(&failed), "it is tried again all the same: {failed} times");
    assert!(s.is_failing());
    s.remove(t(0));
    assert!(!s.is_failing());
}

#[test]
fn what_was_left_for_another_destination_takes_one_place_and_gives_way() {
    let mut s = Scheduler::new(2, 7);
    (0..3).for_each(|i| s.queue(t(i), Some(Elsewhere::Served(d(9))), 0));
    assert_eq!(s.next(0), Some(t(2)), "nothing else is there");
    assert_eq!(s.next(0), None, "one at a time");
    (10..13).for_each(|i| s.queue(t(i), None, 0));
    assert_eq!((s.next(0), s.next(0)), (Some(t(12)), None));
    assert_eq!(s.preempt(0), None, "there is a place for this sink's own");
    s.done(t(2), BROKEN, 0);
    assert_eq!(s.next(0), Some(t(10)), "that destination's trouble is not ours");
    assert!(!s.is_failing());
    let mut s = Scheduler::new(1, 7);
    s.queue(t(0), Some(Elsewhere::Served(d(9))), 0);
    assert_eq!(s.next(0), Some(t(0)));
    s.queue(t(10), None, 0);
    assert_eq!(s.next(0), None);
    assert_eq!(s.preempt(0), Some(t(0)));
    assert_eq!(s.next(0), Some(t(10)));
    s.done(t(0), BROKEN, 0);
    s.done(t(10), Outcome::Stored, 0);
    assert_eq!(s.next(0), Some(t(0)), "what was broken off is old news");
}

#[test]
fn while_everything_is_refused_one_is_tried_a_minute_and_each_new_one_once() {
    let mut s = with(200);
    let mut attempts = Vec::new();
    for minute in 0..10u64 {
        for second in (0..60).step_by(10) {
            let now = (minute * 60 + second) * S;
            s.queue(t(1000 + minute * 60 + second), None, now);
            while let Some(ticket) = s.next(now) {
                s.done(ticket, REFUSED, now);
                attempts.push(now);
            }
        }
    }
    // Each chunk once, and then one a minute.
    assert_eq!(attempts.len(), 200 + 60 + 9, "{attempts:?}");
    let now = 700 * S;
    let probe = s.next(now).unwrap();
    assert_eq!(s.next(now), None);
    s.done(probe, Outcome::Stored, now);
    assert_eq!(
        std::iter::from_fn(|| s.next(now)).count(),
        4,
        "after a success the backlog follows at once"
    );
}

#[test]
fn where_all_is_being_sent_the_upload_that_began_first_is_never_broken_off() {
    let mut s = with(3);
    assert_eq!(s.to_drop(), Some(t(0)));
    assert_eq!((s.next(0), s.next(0)), (Some(t(2)), Some(t(0))));
    assert_eq!(s.to_drop(), Some(t(1)), "it waits");
    assert_eq!(s.next(0), Some(t(1)));
    assert_eq!(s.to_drop(), Some(t(0)), "2 began first");
    s.remove(t(0));
    s.reduce_concurrency();
    s.remove(t(1));
    assert_eq!(s.to_drop(), Some(t(2)), "there is no other");
    (3..6).for_each(|i| s.queue(t(i), None, 0));
    assert_eq!(s.next(0), None, "one at a time until there is room");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_chunk_is_sent_until_stored_and_never_twice_at_once(steps in prop::collection::vec((0u8..8, 0u64..40), 1..200)) {
        let mut s = Scheduler::new(3, 99);
        let (mut now, mut next_seq, mut flying, mut open) = (0u64, 0u64, Vec::new(), BTreeSet::new());
        for (what, dt) in steps {
            now += dt * S / 4;
            match what {
                0..=2 => { s.queue(t(next_seq), None, now); open.insert(t(next_seq)); next_seq += 1; }
                3..=4 => while let Some(i) = s.next(now) {
                    prop_assert!(open.contains(&i) && !flying.contains(&i));
                    flying.push(i);
                    prop_assert!(flying.len() <= 3);
                },
                _ => if let Some(i) = flying.pop() {
                    let outcome = [Outcome::Stored, BROKEN, REFUSED][usize::from(what) - 5];
                    if outcome == Outcome::Stored { open.remove(&i); }
                    s.done(i, outcome, now);
                },
            }
            prop_assert_eq!(s.pending(), open.len());
        }
        // Whatever happened before, a working server gets every chunk.
        for i in flying.drain(..) { s.done(i, BROKEN, now); }
        let mut guard = 0;
        while s.pending() > 0 {
            guard += 1;
            prop_assert!(guard < 10_000);
            match s.next(now) {
                Some(i) => s.done(i, Outcome::Stored, now),
                None => now = s.wake_at(now).unwrap().max(now + 1),
            }
        }
    }
}

fn parked() -> LinkKey {
    Some(Elsewhere::Parked(d(9)))
}

#[test]
fn what_is_parked_is_tried_once_an_hour_and_after_a_success_the_next_one_at_once() {
    let mut s = Scheduler::new(4, 7);
    (0..3).for_each(|i| s.queue(t(i), parked(), 0));
    let mut now = 0;
    let mut tried = Vec::new();
    while now < 5 * PARKED_PAUSE {
        while let Some(ticket) = s.next(now) {
            assert_eq!(s.next(now), None, "one at a time");
            tried.push((now / PARKED_PAUSE, ticket));
            // A `Retry-After` of such a server changes nothing.
            let outcome = Outcome::Failed {
                class: [Class::Permanent, Class::Throttled, Class::Local][tried.len() % 3],
                retry_after: Some(90 * PARKED_PAUSE),
            };
            s.done(ticket, outcome, now + S);
        }
        now = s.wake_at(now).unwrap();
    }
    assert_eq!(
        tried,
        [(0, t(0)), (1, t(1)), (2, t(2)), (3, t(0)), (4, t(1))],
        "each has its turn"
    );
    assert_eq!(s.next(now), Some(t(2)));
    s.done(t(2), Outcome::Stored, now);
    assert_eq!(s.next(now), Some(t(0)), "somebody listens there");
    s.done(t(0), Outcome::Stored, now);
    assert_eq!(s.next(now), Some(t(1)));
    s.done(t(1), Outcome::Stored, now);
    assert_eq!((s.parked(), s.wake_at(now)), (0, None));
}

#[test]
fn what_is_parked_is_neither_pending_nor_old_nor_ever_given_up_and_an_end_does_not_hurry_it() {
    let mut s = Scheduler::new(4, 7);
    s.queue(t(0), parked(), 0);
    assert_eq!(s.next(0), Some(t(0)));
    s.done(t(0), BROKEN, 0);
    assert_eq!((s.pending(), s.parked(), s.is_failing()), (0, 1, false));
    assert_eq!((s.oldest_age(99 * S), s.expired(S, 99 * S)), (None, None));
    s.set_draining(Some(Drain {
        began: 90 * S,
        until: 120 * S,
    }));
    assert_eq!(s.next(99 * S), None);
    assert_eq!(s.wake_at(99 * S), Some(PARKED_PAUSE));
    s.queue(t(10), None, 99 * S);
    assert_eq!(
        (s.pending(), s.oldest_age(100 * S), s.expired(S, 100 * S)),
        (1, Some(S), Some(t(10)))
    );
    s.remove(t(0));
    assert_eq!((s.pending(), s.parked()), (1, 0));
}

#[test]
fn what_is_parked_gives_its_place_to_any_other_and_is_then_not_tried_again_at_once() {
    for link_key in [None, Some(Elsewhere::Served(d(3)))] {
        let mut s = Scheduler::new(1, 7);
        s.queue(t(0), parked(), 0);
        assert_eq!(s.next(0), Some(t(0)));
        assert_eq!((s.preempt(0), s.wake_at(0)), (None, None), "nobody wants it");
        s.queue(t(10), link_key, 0);
        assert_eq!(s.next(0), None);
        assert_eq!(s.preempt(0), Some(t(0)), "{link_key:?}");
        assert_eq!(s.next(0), Some(t(10)));
        s.done(t(10), Outcome::Stored, S);
        assert_eq!((s.next(S), s.wake_at(S)), (None, Some(PARKED_PAUSE)));
    }
    let mut s = Scheduler::new(2, 7);
    s.queue(t(0), parked(), 0);
    assert_eq!(s.next(0), Some(t(0)));
    s.queue(t(10), None, 0);
    s.queue(t(11), None, 0);
    assert_eq!((s.next(0), s.next(0)), (Some(t(11)), None));
    assert_eq!(s.preempt(0), Some(t(0)), "it takes no place of those that this sink may have");
    assert_eq!(s.next(0), Some(t(10)));
    assert_eq!(s.wake_at(0), None);
}

#[test]
fn a_destination_that_hangs_keeps_no_other_from_being_stored() {
    let mut s = Scheduler::new(4, 7);
    s.queue(t(0), parked(), 0);
    s.queue(t(1), Some(Elsewhere::Parked(d(8))), 0);
    s.queue(t(2), Some(Elsewhere::Served(d(3))), 0);
    s.queue(t(10), None, 0);
    assert_eq!(
        (s.next(0), s.next(0), s.next(0), s.next(0)),
        (Some(t(10)), Some(t(2)), Some(t(0)), None)
    );
    s.done(t(10), Outcome::Stored, 0);
    s.done(t(2), Outcome::Stored, 0);
    assert_eq!(s.pending(), 0);
    s.done(t(0), BROKEN, 60 * S);
    assert_eq!(s.next(60 * S), Some(t(1)));
}

/// Returns the chunk that would be sent last of all.
fn last(s: &Scheduler, wanted: impl Fn(Ticket) -> bool) -> Option<Ticket> {
    s.sent_last(&s.chunks.keys().copied().collect(), wanted)
}

#[test]
fn a_chunk_that_is_one_of_a_hundred_thousand_is_found_as_that_of_a_thousand() {
    let mut s = with(100_000);
    let ages = (0..1_000_000u64).map(|i| s.oldest_age(i).is_some() && s.wake_at(i).is_some());
    // Two million queries that iterate over every chunk would take minutes.
    assert_eq!(ages.filter(|&known| known).count(), 1_000_000);
}

/// Chunks for all kinds of destinations, and arbitrary events.
fn anything_goes(steps: Vec<(u8, u64, u64)>) {
    let mut s = Scheduler::new(3, 99);
    let link_keys = [
        None,
        None,
        Some(Elsewhere::Served(d(1))),
        Some(Elsewhere::Served(d(2))),
        Some(Elsewhere::Parked(d(3))),
        Some(Elsewhere::Parked(d(4))),
    ];
    let (mut now, mut next, mut flying) = (0u64, 0u64, Vec::new());
    for (what, which, dt) in steps {
        now += dt * S / 4;
        match what {
            0..=3 => {
                let link_key = link_keys[usize::try_from(which).unwrap() % link_keys.len()];
                s.queue(t(next), link_key, now);
                next += 1;
            }
            4 => s.set_max_uploads(usize::try_from(which % 4).unwrap()),
            5 => s.set_draining((which % 2 == 0).then_some(Drain {
                began: now,
                until: now + 30 * S,
            })),
            6 => drop(s.remove(t(which % next.max(1)))),
            _ => {
                if !flying.is_empty() {
                    let ticket = flying.swap_remove(usize::try_from(which).unwrap() % flying.len());
                    match what {
                        7 | 8 => s.done(ticket, Outcome::Stored, now),
                        9 => s.done(ticket, BROKEN, now),
                        10 => s.done(ticket, REFUSED, now),
                        11 => s.done(ticket, busy(which), now),
                        _ => s.held(ticket, Hold::new(now, which * S)),
                    }
                }
            }
        }
        flying.retain(|&ticket| s.is_in_flight(ticket));
        loop {
            let broken_off = s.preempt(now);
            flying.retain(|&other| Some(other) != broken_off);
            let sent: Vec<Ticket> = std::iter::from_fn(|| s.next(now)).collect();
            if broken_off.is_none() && sent.is_empty() {
                break;
            }
            flying.extend(sent);
        }
        let wake = s.wake_at(now);
        assert!(
            wake.is_none_or(|at| at > now),
            "it would ask again at once, for ever: {wake:?} at {now}"
        );
        let oldest = s
            .chunks
            .values()
            .filter(|w| !is_parked(w.link_key))
            .map(|w| now - w.queued_at)
            .max();
        assert_eq!(s.oldest_age(now), oldest);
        assert_eq!(s.in_flight(), flying.len());
        assert_eq!(s.flying.len(), flying.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn where_nothing_can_be_sent_nothing_is_asked_again_at_once(steps in prop::collection::vec((0u8..13, 0u64..40, 0u64..40), 1..80)) {
        anything_goes(steps);
    }
}
