//! The link against a broker that is played, in virtual time.

use proptest::prelude::*;

use super::*;

mod play;

use play::{GAP, Line, Play, device, ms, plain, state};

#[test]
fn a_plain_client_says_state_and_status_then_online_and_discovery_at_every_connection() {
    let mut play = Play::new(plain());
    play.on(Event::Want(Wanted {
        state: Some("connected".into()),
        status: Some("{}".into()),
    }));
    for _ in 0..2 {
        play.given.clear();
        play.run(Duration::from_secs(10));
        let topics: Vec<_> = play.given.iter().map(|(_, topic, _)| topic.as_str()).collect();
        assert_eq!(topics, ["p/state", "p/status", "p/availability", "ha/config"]);
        assert_eq!(play.holds("p/availability"), Some("online"));
        play.break_line();
    }
}

#[test]
fn what_a_dead_process_left_there_is_not_made_valid_by_online() {
    let mut play = Play::new(plain());
    play.run(Duration::from_secs(5));
    let offline = Event::Message {
        topic: "p/availability".into(),
        payload: OFFLINE,
        retained: true,
        duplicate: false,
    };
    play.on(offline.clone());
    play.run(Duration::from_secs(5));
    assert_eq!(play.holds("p/availability"), None, "nothing is known of this session yet");
    play.on(Event::Want(Wanted {
        state: Some("connected".into()),
        status: Some("{}".into()),
    }));
    play.run(ms(200));
    assert_eq!(play.holds("p/availability"), Some("online"));
    // Own, yet older than the outage: it is replaced before it counts again.
    play.break_line();
    play.on(Event::Want(state("disconnected")));
    play.given.clear();
    play.run(Duration::from_secs(10));
    let first: Vec<_> = play
        .given
        .iter()
        .map(|(_, topic, payload)| (topic.as_str(), payload.clone()))
        .collect();
    assert_eq!(first[0], ("p/state", "disconnected".into()));
    play.on(offline);
    play.run(Duration::from_secs(2));
    assert_eq!(
        play.given.last().map(|(_, _, payload)| payload.clone()),
        Some("online".into())
    );
}

#[test]
fn the_second_between_states_holds_over_links_of_the_same_client() {
    let mut play = Play::new(device());
    play.on(Event::Want(state("disconnected")));
    play.run(ms(500));
    let before = play.link.free_at(play.now).unwrap();
    assert_eq!(before, play.given[0].0 + GAP);
    // The next link has a time of its own: it begins now.
    let left = before - play.now;
    let mut next = Play::new(device());
    next.link = LinkState::new(device(), GAP, 7).not_before(left);
    next.on(Event::Want(state("connected")));
    next.run(Duration::from_secs(3));
    assert!(next.given[0].0 >= left, "{:?} < {left:?}", next.given[0].0);
    assert_eq!(next.holds("/devices/d/state"), Some("connected"));
}

#[test]
fn a_state_on_its_way_counts_for_the_next_link_too() {
    let mut play = Play::new(device());
    assert_eq!(play.link.free_at(play.now), None);
    play.acknowledges = false;
    play.on(Event::Want(state("connected")));
    play.run(ms(500));
    assert_eq!(play.link.free_at(play.now), Some(play.now + GAP));
}

#[test]
fn a_late_foreign_offline_is_answered_and_a_row_of_them_does_not_make_a_storm() {
    let mut play = Play::new(plain());
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(2));
    play.given.clear();
    for _ in 0..50 {
        play.on(Event::Message {
            topic: "p/availability".into(),
            payload: OFFLINE,
            retained: false,
            duplicate: false,
        });
        play.run(ms(100));
    }
    let answers = play.given.iter().filter(|(_, _, payload)| payload == "online").count();
    assert!((4..=6).contains(&answers), "{answers}");
}

#[test]
fn twenty_broker_restarts_make_no_storm_and_one_story() {
    let mut play = Play::new(device());
    play.on(Event::Want(state("connected")));
    for _ in 0..20 {
        play.run(Duration::from_secs(2));
        play.break_line();
    }
    play.run(Duration::from_secs(200));
    assert!(play.attempts.len() <= 21, "{:?}", play.attempts);
    assert_eq!(play.holds("/devices/d/state"), Some("connected"));
    assert!(play.troubles() <= 3, "{:?}", play.told);
    assert_eq!(play.recoveries(), play.troubles());
}

#[test]
fn a_broker_that_is_away_for_an_hour_is_told_once_and_tried_once_a_minute() {
    let mut play = Play::new(device());
    play.accepts = false;
    play.run(Duration::from_secs(3600));
    assert_eq!(play.troubles(), 1);
    assert!((55..75).contains(&play.attempts.len()), "{}", play.attempts.len());
    play.accepts = true;
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(70));
    assert_eq!((play.troubles(), play.recoveries()), (1, 1));
    assert_eq!(play.holds("/devices/d/state"), Some("connected"));
}

#[test]
fn a_token_is_renewed_at_once_without_a_word_and_without_losing_a_state() {
    let mut play = Play::new(device());
    play.token = Some(Duration::from_secs(2));
    for n in 0..60 {
        play.on(Event::Want(state(&n.to_string())));
        play.run(Duration::from_secs(1));
    }
    play.run(Duration::from_secs(1));
    assert_eq!(play.holds("/devices/d/state"), Some("59"));
    assert!(play.attempts.len() >= 30 && play.goodbyes >= 30);
    assert_eq!(play.link.stats().failures, 0);
    let told: Vec<_> = play.told.iter().map(|(_, tell)| tell.clone()).collect();
    assert_eq!(told, [Tell::Connected(true)]);
    let waits: Vec<_> = play.attempts.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(waits.iter().all(|wait| *wait < ms(1700)), "{waits:?}");
}

#[test]
fn a_token_of_an_hour_is_renewed_a_minute_before_its_end() {
    let mut play = Play::new(device());
    play.token = Some(Duration::from_secs(3600));
    play.run(Duration::from_secs(3539));
    assert_eq!(play.attempts.len(), 1);
    play.run(Duration::from_secs(2));
    assert_eq!(play.attempts.len(), 2);
}

#[test]
fn a_renewal_that_finds_no_broker_is_a_failure_as_any_other() {
    let mut play = Play::new(device());
    play.token = Some(Duration::from_secs(100));
    play.run(Duration::from_secs(70));
    play.accepts = false;
    play.run(Duration::from_secs(20));
    assert_eq!(play.troubles(), 1);
    assert!(!play.link.is_up());
}

#[test]
fn a_broker_that_never_acknowledges_is_left_after_half_a_minute() {
    let mut play = Play::new(device());
    play.acknowledges = false;
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(29));
    assert_eq!(play.troubles(), 0);
    play.run(Duration::from_secs(2));
    assert_eq!(play.troubles(), 1);
    play.acknowledges = true;
    play.run(Duration::from_secs(10));
    assert_eq!(play.holds("/devices/d/state"), Some("connected"));
}

#[test]
fn a_broker_that_accepts_and_never_acknowledges_is_one_outage_until_it_does() {
    let mut play = Play::new(plain());
    play.acknowledges = false;
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(600));
    assert!(play.attempts.len() > 5, "{:?}", play.attempts);
    assert_eq!((play.troubles(), play.recoveries()), (1, 0));
    play.acknowledges = true;
    play.run(Duration::from_secs(180));
    assert_eq!((play.troubles(), play.recoveries()), (1, 1));
    assert_eq!(play.holds("p/state"), Some("connected"));
}

#[test]
fn a_config_that_breaks_every_connection_does_not_keep_the_state_from_the_broker() {
    let mut play = Play::new(device());
    for n in 0..600 {
        play.on(Event::Want(state(&n.to_string())));
        play.run(Duration::from_secs(1));
        if play.coming.is_empty() && play.line == Line::Up {
            play.break_line();
        }
    }
    assert!(play.attempts.len() < 25, "{}", play.attempts.len());
    assert!(play.held.contains_key("/devices/d/state"));
    assert!(play.troubles() <= 3);
}

#[test]
fn a_redelivered_message_is_heard_once() {
    let mut play = Play::new(device());
    play.run(ms(500));
    for n in 0..100 {
        play.on(Event::Message {
            topic: "/devices/d/config".into(),
            payload: "{}".into(),
            retained: false,
            duplicate: n > 0,
        });
    }
    let heard = play.told.iter().filter(|(_, tell)| matches!(tell, Tell::Config(_))).count();
    assert_eq!(heard, 1);
}

#[test]
fn messages_that_are_redelivered_in_turns_are_heard_once_each_and_new_ones_always() {
    let mut play = Play::new(device());
    play.run(ms(500));
    for n in 0..100 {
        play.on(Event::Message {
            topic: "/devices/d/commands/record".into(),
            payload: if n % 2 == 0 { "start" } else { "stop" }.into(),
            retained: false,
            duplicate: n > 1,
        });
    }
    let heard = |play: &Play| {
        play.told
            .iter()
            .filter(|(_, tell)| matches!(tell, Tell::Command { .. }))
            .count()
    };
    assert_eq!(heard(&play), 2);
    play.on(Event::Message {
        topic: "/devices/d/commands/record".into(),
        payload: "start".into(),
        retained: false,
        duplicate: false,
    });
    assert_eq!(
        heard(&play),
        3,
        "the same again is another command where it is not marked as a duplicate"
    );
}

#[test]
fn what_is_too_large_is_told_once_and_the_connection_lives_on() {
    let mut play = Play::new(device());
    play.run(ms(500));
    for _ in 0..5 {
        play.on(Event::Want(state(&"x".repeat(65_537))));
        play.run(Duration::from_secs(1));
    }
    let notices: Vec<_> = play.told.iter().filter(|(_, tell)| matches!(tell, Tell::Notice(_))).collect();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(play.attempts.len(), 1);
    assert!(play.given.is_empty());
    play.on(Event::Want(state(&"x".repeat(65_536))));
    play.run(Duration::from_secs(1));
    assert_eq!(play.given.len(), 1);
}

#[test]
fn telemetry_is_bounded_counted_and_not_told_after_a_minute() {
    let mut play = Play::new(device());
    play.accepts = false;
    play.run(Duration::from_secs(1));
    let say = |play: &mut Play, n: usize| {
        let (said, payload) = (play.now, Bytes::from(n.to_string()));
        play.on(Event::Telemetry {
            said,
            kind: "chunk",
            payload,
        });
    };
    (0..20).for_each(|n| say(&mut play, n));
    assert_eq!(play.link.stats().dropped, 4);
    play.run(Duration::from_secs(59));
    say(&mut play, 20);
    play.accepts = true;
    play.run(Duration::from_secs(61));
    let given: Vec<_> = play.given.iter().map(|(_, _, payload)| payload.clone()).collect();
    assert!(given.iter().all(|payload| payload == "20"), "{given:?}");
    assert!(play.link.stats().dropped >= 20);
}

#[test]
fn an_unset_clock_is_told_once_and_no_failure() {
    let mut play = Play::new(device());
    play.settle();
    for _ in 0..10 {
        play.drop_line();
        play.on(Event::ClockNotSet("1970".into()));
        play.coming.clear();
        assert_eq!(play.line, Line::Closed);
        play.now += CLOCK_WAIT;
        play.settle();
        play.coming.clear();
    }
    assert_eq!(play.link.stats().failures, 0);
    assert_eq!(play.told.len(), 1, "{:?}", play.told);
    play.arrive(Event::Connected { renew_at: None });
    assert!(play.link.is_up());
}

#[test]
fn the_last_word_is_acknowledged_then_offline_then_goodbye() {
    let mut play = Play::new(plain());
    play.on(Event::Want(state("connected")));
    play.run(ms(200));
    play.given.clear();
    play.close(state("disconnected"), Duration::from_secs(5));
    assert_eq!(play.finished, Some(true));
    let given: Vec<_> = play.given.iter().map(|(_, topic, p)| (topic.as_str(), p.clone())).collect();
    assert_eq!(given, [("p/state", "disconnected".into()), ("p/availability", OFFLINE)]);
    assert_eq!(play.goodbyes, 1);
}

#[test]
fn a_last_word_that_the_broker_has_already_is_not_said_again() {
    let mut play = Play::new(device());
    play.on(Event::Want(state("disconnected")));
    play.run(Duration::from_secs(3));
    play.given.clear();
    let before = play.now;
    play.on(Event::Close {
        last: state("disconnected"),
        until: before + Duration::from_secs(5),
    });
    play.run(ms(100));
    assert_eq!((play.finished, play.given.len(), play.goodbyes), (Some(true), 0, 1));
}

#[test]
fn a_broker_that_was_never_there_does_not_hold_up_the_end() {
    let mut play = Play::new(device());
    play.accepts = false;
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(100));
    play.on(Event::Close {
        last: state("disconnected"),
        until: play.now + Duration::from_secs(5),
    });
    play.run(ms(100));
    assert_eq!(play.finished, Some(false));
}

#[test]
fn a_broker_that_comes_back_within_the_deadline_hears_the_last_word() {
    let mut play = Play::new(device());
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(3));
    play.accepts = false;
    play.break_line();
    play.run(Duration::from_secs(30));
    play.on(Event::Close {
        last: state("disconnected"),
        until: play.now + Duration::from_secs(5),
    });
    play.run(Duration::from_secs(2));
    play.accepts = true;
    play.run(Duration::from_secs(3));
    assert_eq!(play.finished, Some(true));
    assert_eq!(play.holds("/devices/d/state"), Some("disconnected"));
}

#[test]
fn the_end_comes_at_the_deadline_whatever_the_broker_does() {
    let mut play = Play::new(device());
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(3));
    play.acknowledges = false;
    play.close(state("disconnected"), Duration::from_secs(5));
    assert_eq!(play.finished, Some(false));
}

#[test]
fn a_token_that_expires_before_the_last_word_may_be_said_is_renewed_for_it() {
    let mut play = Play::new(device());
    play.token = Some(Duration::from_secs(2));
    play.on(Event::Want(state("connected")));
    play.run(ms(1500));
    play.on(Event::Want(state("stalled")));
    play.run(ms(50));
    play.on(Event::Close {
        last: state("disconnected"),
        until: play.now + Duration::from_secs(5),
    });
    play.run(Duration::from_secs(2));
    assert_eq!((play.finished, play.goodbyes), (Some(true), 2));
    assert_eq!(play.holds("/devices/d/state"), Some("disconnected"));
}

#[test]
fn a_refused_subscription_is_told_and_the_rest_works() {
    let mut play = Play::new(plain());
    play.run(ms(500));
    play.on(Event::Subscribed {
        refused: vec!["p/set/#".into()],
    });
    assert!(matches!(&play.told.last().unwrap().1, Tell::Notice(text) if text.contains("p/set/#")));
    play.on(Event::Want(state("connected")));
    play.run(ms(500));
    assert_eq!(play.holds("p/state"), Some("connected"));
    for _ in 0..3 {
        play.break_line();
        play.run(Duration::from_secs(10));
        play.on(Event::Subscribed {
            refused: vec!["p/set/#".into()],
        });
    }
    let notices = play.told.iter().filter(|(_, tell)| matches!(tell, Tell::Notice(_))).count();
    assert_eq!(notices, 1, "the rules are the same at each connection");
}

#[derive(Clone, Debug)]
enum Step {
    Want,
    Heartbeat,
    Status,
    Event,
    Break,
    Accept(bool),
    Acknowledge(bool),
    Offline,
    Config(bool),
    Run(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Want),
        1 => Just(Step::Heartbeat),
        2 => Just(Step::Status),
        2 => Just(Step::Event),
        2 => Just(Step::Break),
        1 => any::<bool>().prop_map(Step::Accept),
        1 => any::<bool>().prop_map(Step::Acknowledge),
        1 => Just(Step::Offline),
        1 => any::<bool>().prop_map(Step::Config),
        6 => (0u64..3000).prop_map(Step::Run),
        1 => (0u64..90_000).prop_map(Step::Run),
    ];
    proptest::collection::vec(step, 0..60)
}

fn play_step(play: &mut Play, newest: &mut u32, step: Step) {
    match step {
        Step::Want => {
            *newest += 1;
            play.on(Event::Want(state(&newest.to_string())));
        }
        Step::Heartbeat => play.on(Event::Want(state(&newest.to_string()))),
        Step::Status => play.on(Event::Want(Wanted {
            state: None,
            status: Some("{}".into()),
        })),
        Step::Event => {
            let said = play.now;
            play.on(Event::Telemetry {
                said,
                kind: "gap",
                payload: "{}".into(),
            });
        }
        Step::Break => play.break_line(),
        Step::Accept(accepts) => play.accepts = accepts,
        Step::Acknowledge(acknowledges) => play.acknowledges = acknowledges,
        Step::Offline if play.line == Line::Up => play.on(Event::Message {
            topic: "p/availability".into(),
            payload: OFFLINE,
            retained: false,
            duplicate: false,
        }),
        Step::Config(duplicate) if play.line == Line::Up => play.on(Event::Message {
            topic: "/devices/d/config".into(),
            payload: "{}".into(),
            retained: false,
            duplicate,
        }),
        Step::Offline | Step::Config(_) => {}
        Step::Run(time) => play.run(ms(time)),
    }
}

proptest! {
    /// Never two publishes in flight and never two states within the gap: `Play` checks both at every publish.
    #[test]
    fn whatever_happens_the_wanted_state_is_published_in_the_end(
        steps in steps(), is_device in any::<bool>(), token in proptest::option::of(2u64..100), wait in 0u64..3000,
    ) {
        let mut play = Play::new(if is_device { device() } else { plain() });
        play.token = token.filter(|_| is_device).map(Duration::from_secs);
        let topic = play.plan.state.clone();
        let mut newest = 0;
        steps.into_iter().for_each(|step| play_step(&mut play, &mut newest, step));
        (play.accepts, play.acknowledges) = (true, true);
        newest += 1;
        play.on(Event::Want(state(&newest.to_string())));
        play.run(Duration::from_secs(200));
        let newest = newest.to_string();
        prop_assert_eq!(play.holds(&topic), Some(newest.as_str()));
        prop_assert_eq!(play.recoveries(), play.troubles());
        if !is_device {
            prop_assert_eq!(play.holds("p/availability"), Some("online"));
        }
        play.run(ms(wait));
        play.close(state("last"), Duration::from_secs(5));
        prop_assert_eq!(play.finished, Some(true));
        prop_assert_eq!(play.holds(&topic), Some("last"));
        prop_assert!(play.goodbyes > 0);
        if !is_device {
            prop_assert_eq!(play.holds("p/availability"), Some("offline"));
        }
    }

    #[test]
    fn whenever_the_end_is_asked_for_it_comes_in_time_and_tells_the_truth(
        steps in steps(), is_device in any::<bool>(), token in proptest::option::of(2u64..100), wait in 0u64..5000,
    ) {
        let mut play = Play::new(if is_device { device() } else { plain() });
        play.token = token.filter(|_| is_device).map(Duration::from_secs);
        let topic = play.plan.state.clone();
        let mut newest = 0;
        steps.into_iter().for_each(|step| play_step(&mut play, &mut newest, step));
        let until = play.now + Duration::from_secs(5);
        play.on(Event::Close { last: state("last"), until });
        play.run(ms(wait));
        play.break_line();
        play.run(Duration::from_secs(5));
        prop_assert!(play.finished.is_some());
        prop_assert_eq!(play.finished == Some(true), play.holds(&topic) == Some("last"));
    }
}

#[test]
fn a_state_that_may_have_arrived_when_the_connection_broke_counts_for_the_gap() {
    let mut play = Play::new(device());
    play.on(Event::Want(state("connected")));
    play.run(ms(25));
    assert!(play.in_flight.is_some());
    play.break_line();
    let broken = play.now;
    // The last word does not wait for the back-off, but it does for the gap.
    play.close(state("disconnected"), Duration::from_secs(5));
    assert_eq!(play.finished, Some(true));
    let (at, _, _) = &play.given[0];
    assert!(*at >= broken + GAP && *at < broken + GAP + ms(100), "{at:?}");
}

#[test]
fn an_outage_ends_though_the_token_is_renewed_before_the_connection_has_proved_itself() {
    let mut play = Play::new(device());
    play.token = Some(Duration::from_secs(2));
    play.run(ms(100));
    play.break_line();
    play.run(Duration::from_secs(10));
    assert_eq!((play.troubles(), play.recoveries()), (1, 1));
}

#[test]
fn a_last_word_that_is_too_large_is_not_said_to_be_there() {
    let mut play = Play::new(device());
    play.on(Event::Want(state("connected")));
    play.run(Duration::from_secs(2));
    let before = play.now;
    play.on(Event::Close {
        last: state(&"x".repeat(70_000)),
        until: before + Duration::from_secs(5),
    });
    play.run(ms(200));
    assert_eq!((play.finished, play.goodbyes), (Some(false), 1));
}
