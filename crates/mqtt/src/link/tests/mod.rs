//! The link against a simulated broker, in virtual time.

use proptest::prelude::*;

use super::super::topics::OFFLINE;
use super::*;

mod messages;
mod simulation;

use messages::wanted;
use simulation::{GAP, Line, Simulation, device, ms, plain, state};

#[test]
fn a_plain_client_says_state_and_status_then_online_and_discovery_at_every_connection() {
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    for _ in 0..2 {
        sim.given.clear();
        sim.run(Duration::from_secs(10));
        let topics: Vec<_> = sim.given.iter().map(|(_, topic, _)| topic.as_str()).collect();
        assert_eq!(topics, ["p/state", "p/status", "p/availability", "ha/config"]);
        assert_eq!(sim.holds("p/availability"), Some("online"));
        sim.break_line();
    }
}

#[test]
fn another_discovery_message_is_published_at_once_and_at_every_later_connection() {
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.holds("ha/config"), Some("{}"));
    sim.given.clear();
    sim.on(Event::Discovery("{\"v\":2}".into()));
    sim.run(ms(200));
    assert_eq!(sim.holds("ha/config"), Some("{\"v\":2}"));
    sim.on(Event::Discovery("{\"v\":2}".into()));
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.given.len(), 1, "the same is not published again");
    sim.break_line();
    sim.on(Event::Discovery("{\"v\":3}".into()));
    sim.run(Duration::from_secs(30));
    let of_later: Vec<_> = sim
        .given
        .iter()
        .filter(|(_, topic, _)| topic == "ha/config")
        .skip(1)
        .collect();
    assert_eq!(of_later.len(), 1, "{of_later:?}");
    assert_eq!(sim.holds("ha/config"), Some("{\"v\":3}"));
}

#[test]
fn what_a_dead_process_left_there_is_not_made_valid_by_online() {
    let mut sim = Simulation::new(plain());
    sim.run(Duration::from_secs(5));
    let offline = Event::Message {
        topic: "p/availability".into(),
        payload: OFFLINE,
        retained: true,
        duplicate: false,
    };
    sim.on(offline.clone());
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.holds("p/availability"), None, "nothing is known of this session yet");
    wanted(&mut sim);
    sim.run(ms(200));
    assert_eq!(sim.holds("p/availability"), Some("online"));
    // The retained state is ours but older than the outage: it is replaced before `online` makes it valid again.
    sim.break_line();
    sim.on(Event::Want(state("disconnected")));
    sim.given.clear();
    sim.run(Duration::from_secs(10));
    let first: Vec<_> = sim
        .given
        .iter()
        .map(|(_, topic, payload)| (topic.as_str(), payload.clone()))
        .collect();
    assert_eq!(first[0], ("p/state", "disconnected".into()));
    sim.on(offline);
    sim.run(Duration::from_secs(2));
    assert_eq!(sim.given.last().map(|(_, _, payload)| payload.clone()), Some("online".into()));
}

#[test]
fn the_second_between_states_holds_over_links_of_the_same_client() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("disconnected")));
    sim.run(ms(1500));
    let before = sim.link.free_at(sim.now).unwrap();
    assert_eq!(before, sim.given[0].0 + GAP);
    // The next link has its own time scale, which begins now.
    let left = before - sim.now;
    let mut next = Simulation::new(device());
    next.link = LinkState::new(device(), GAP, 7).not_before(left);
    next.on(Event::Want(state("connected")));
    next.run(Duration::from_secs(3));
    assert!(next.given[0].0 >= left, "{:?} < {left:?}", next.given[0].0);
    assert_eq!(next.holds("/devices/d/state"), Some("connected"));
}

#[test]
fn a_state_on_its_way_counts_for_the_next_link_too() {
    let mut sim = Simulation::new(device());
    assert_eq!(sim.link.free_at(sim.now), None);
    sim.acknowledges = false;
    sim.on(Event::Want(state("connected")));
    sim.run(ms(1500));
    assert_eq!(sim.link.free_at(sim.now), Some(sim.now + GAP));
}

#[test]
fn a_late_foreign_offline_is_answered_and_a_row_of_them_does_not_make_a_storm() {
    let mut sim = Simulation::new(plain());
    sim.on(Event::Want(state("connected")));
    sim.run(Duration::from_secs(2));
    sim.given.clear();
    for _ in 0..50 {
        sim.on(Event::Message {
            topic: "p/availability".into(),
            payload: OFFLINE,
            retained: false,
            duplicate: false,
        });
        sim.run(ms(100));
    }
    let answers = sim.given.iter().filter(|(_, _, payload)| payload == "online").count();
    assert!((4..=6).contains(&answers), "{answers}");
}

#[test]
fn twenty_broker_restarts_make_no_storm_and_one_story() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("connected")));
    for _ in 0..20 {
        sim.run(Duration::from_secs(2));
        sim.break_line();
    }
    sim.run(Duration::from_secs(200));
    assert!(sim.attempts.len() <= 21, "{:?}", sim.attempts);
    assert_eq!(sim.holds("/devices/d/state"), Some("connected"));
    assert!(sim.troubles() <= 3, "{:?}", sim.notifications);
    assert_eq!(sim.recoveries(), sim.troubles());
}

#[test]
fn a_broker_that_is_away_for_an_hour_is_reported_once_and_tried_once_a_minute() {
    let mut sim = Simulation::new(device());
    sim.accepts = false;
    sim.run(Duration::from_secs(3600));
    assert_eq!(sim.troubles(), 1);
    assert!((55..75).contains(&sim.attempts.len()), "{}", sim.attempts.len());
    sim.accepts = true;
    sim.on(Event::Want(state("connected")));
    sim.run(Duration::from_secs(70));
    assert_eq!((sim.troubles(), sim.recoveries()), (1, 1));
    assert_eq!(sim.holds("/devices/d/state"), Some("connected"));
}

#[test]
fn a_token_is_renewed_at_once_without_a_word_and_without_losing_a_state() {
    let mut sim = Simulation::new(device());
    sim.token = Some(Duration::from_secs(2));
    for n in 0..60 {
        sim.on(Event::Want(state(&n.to_string())));
        sim.run(Duration::from_secs(1));
    }
    sim.run(Duration::from_secs(1));
    assert_eq!(sim.holds("/devices/d/state"), Some("59"));
    assert!(sim.attempts.len() >= 30 && sim.disconnects >= 30);
    assert_eq!(sim.link.stats().failures, 0);
    let reported: Vec<_> = sim
        .notifications
        .iter()
        .map(|(_, notification)| notification.clone())
        .collect();
    assert_eq!(reported, [Notification::Connected(true)]);
    let waits: Vec<_> = sim.attempts.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(waits.iter().all(|wait| *wait < ms(1700)), "{waits:?}");
}

#[test]
fn a_token_of_an_hour_is_renewed_a_minute_before_its_end() {
    let mut sim = Simulation::new(device());
    sim.token = Some(Duration::from_secs(3600));
    sim.run(Duration::from_secs(3539));
    assert_eq!(sim.attempts.len(), 1);
    sim.run(Duration::from_secs(2));
    assert_eq!(sim.attempts.len(), 2);
}

#[test]
fn a_token_that_a_clock_set_forward_ends_sooner_is_renewed_sooner_and_one_set_back_changes_nothing() {
    let (life, hour) = (Duration::from_secs(1210), Duration::from_secs(3600));
    let signed = Duration::from_secs(1_800_000_000);
    let expiry = Expiry::new(signed + life, life);
    let mut sim = Simulation::new(device());
    sim.token = Some(life);
    sim.run(Duration::from_secs(6));
    // The clock was 20 minutes behind: what it shows is 20 minutes later.
    for (ahead, connections) in [(Duration::ZERO, 1), (Duration::from_secs(1200), 2)] {
        let wall = signed + sim.now + ahead;
        sim.on(Event::RenewBy(expiry.by_clock(sim.now, wall)));
        sim.run(Duration::from_secs(5));
        assert_eq!(sim.attempts.len(), connections, "{ahead:?}");
    }
    assert_eq!(sim.link.stats().failures, 0);
    // Its successor was signed by the right time, and the clock is set back by an hour.
    let renewed = *sim.attempts.last().unwrap();
    sim.on(Event::RenewBy(expiry.by_clock(sim.now, signed - hour)));
    sim.run(renewed + life - Duration::from_secs(61) - sim.now);
    assert_eq!(sim.attempts.len(), 2);
    sim.run(Duration::from_secs(2));
    assert_eq!(sim.attempts.len(), 3, "as planned when it was signed");
}

#[test]
fn a_clock_far_ahead_does_not_renew_the_token_in_a_storm() {
    let mut sim = Simulation::new(device());
    sim.token = Some(Duration::from_secs(3600));
    for _ in 0..100 {
        sim.on(Event::RenewBy(sim.now));
        sim.run(ms(100));
    }
    let waits: Vec<_> = sim.attempts.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(waits.iter().all(|wait| *wait >= ms(500)), "{waits:?}");
}

#[test]
fn a_renewal_that_finds_no_broker_is_a_failure_as_any_other() {
    let mut sim = Simulation::new(device());
    sim.token = Some(Duration::from_secs(100));
    sim.run(Duration::from_secs(70));
    sim.accepts = false;
    sim.run(Duration::from_secs(20));
    assert_eq!(sim.troubles(), 1);
    assert!(!sim.link.is_up());
}

#[test]
fn a_broker_that_never_acknowledges_is_left_after_half_a_minute() {
    let mut sim = Simulation::new(device());
    sim.acknowledges = false;
    sim.on(Event::Want(state("connected")));
    // Its first state goes out after 1.1 s.
    sim.run(Duration::from_secs(30));
    assert_eq!(sim.troubles(), 0);
    sim.run(Duration::from_secs(2));
    assert_eq!(sim.troubles(), 1);
    sim.acknowledges = true;
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.holds("/devices/d/state"), Some("connected"));
}

#[test]
fn a_broker_that_accepts_and_never_acknowledges_is_one_outage_until_it_does() {
    let mut sim = Simulation::new(plain());
    sim.acknowledges = false;
    sim.on(Event::Want(state("connected")));
    sim.run(Duration::from_secs(600));
    assert!(sim.attempts.len() > 5, "{:?}", sim.attempts);
    assert_eq!((sim.troubles(), sim.recoveries()), (1, 0));
    sim.acknowledges = true;
    sim.run(Duration::from_secs(180));
    assert_eq!((sim.troubles(), sim.recoveries()), (1, 1));
    assert_eq!(sim.holds("p/state"), Some("connected"));
}

#[test]
fn a_config_that_breaks_every_connection_does_not_keep_the_state_from_the_broker() {
    let mut sim = Simulation::new(device());
    for n in 0..600 {
        sim.on(Event::Want(state(&n.to_string())));
        sim.run(Duration::from_secs(1));
        if sim.coming.is_empty() && sim.line == Line::Up {
            sim.break_line();
        }
    }
    assert!(sim.attempts.len() < 25, "{}", sim.attempts.len());
    assert!(sim.held.contains_key("/devices/d/state"));
    assert!(sim.troubles() <= 3);
}

#[test]
fn a_redelivered_message_is_heard_once() {
    let mut sim = Simulation::new(device());
    sim.run(ms(500));
    for n in 0..100 {
        sim.on(Event::Message {
            topic: "/devices/d/config".into(),
            payload: "{}".into(),
            retained: false,
            duplicate: n > 0,
        });
    }
    let recent = sim
        .notifications
        .iter()
        .filter(|(_, notification)| matches!(notification, Notification::Config(_)))
        .count();
    assert_eq!(recent, 1);
}

#[test]
fn messages_that_are_redelivered_in_turns_are_heard_once_each_and_new_ones_always() {
    let mut sim = Simulation::new(device());
    sim.run(ms(500));
    for n in 0..100 {
        sim.on(Event::Message {
            topic: "/devices/d/commands/record".into(),
            payload: if n % 2 == 0 { "start" } else { "stop" }.into(),
            retained: false,
            duplicate: n > 1,
        });
    }
    let recent = |sim: &Simulation| {
        sim.notifications
            .iter()
            .filter(|(_, notification)| matches!(notification, Notification::Command { .. }))
            .count()
    };
    assert_eq!(recent(&sim), 2);
    sim.on(Event::Message {
        topic: "/devices/d/commands/record".into(),
        payload: "start".into(),
        retained: false,
        duplicate: false,
    });
    assert_eq!(
        recent(&sim),
        3,
        "the same again is another command where it is not marked as a duplicate"
    );
}

#[test]
fn what_is_too_large_is_reported_once_and_the_connection_lives_on() {
    let mut sim = Simulation::new(device());
    sim.run(ms(500));
    for _ in 0..5 {
        sim.on(Event::Want(state(&"x".repeat(65_537))));
        sim.run(Duration::from_secs(1));
    }
    let notices: Vec<_> = sim
        .notifications
        .iter()
        .filter(|(_, notification)| matches!(notification, Notification::Notice(_)))
        .collect();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(sim.attempts.len(), 1);
    assert!(sim.given.is_empty());
    sim.on(Event::Want(state(&"x".repeat(65_536))));
    sim.run(Duration::from_secs(1));
    assert_eq!(sim.given.len(), 1);
}

#[test]
fn telemetry_is_bounded_counted_and_not_reported_after_a_minute() {
    let mut sim = Simulation::new(device());
    sim.accepts = false;
    sim.run(Duration::from_secs(1));
    let publish_event = |sim: &mut Simulation, n: usize| {
        let (queued_at, payload) = (sim.now, Bytes::from(n.to_string()));
        sim.on(Event::Telemetry {
            queued_at,
            kind: "chunk",
            payload,
        });
    };
    (0..20).for_each(|n| publish_event(&mut sim, n));
    assert_eq!(sim.link.stats().dropped, 4);
    sim.run(Duration::from_secs(59));
    publish_event(&mut sim, 20);
    sim.accepts = true;
    sim.run(Duration::from_secs(61));
    let given: Vec<_> = sim.given.iter().map(|(_, _, payload)| payload.clone()).collect();
    assert!(given.iter().all(|payload| payload == "20"), "{given:?}");
    assert!(sim.link.stats().dropped >= 20);
}

#[test]
fn an_unset_clock_is_reported_once_and_no_failure() {
    let mut sim = Simulation::new(device());
    sim.act_until_idle();
    for _ in 0..10 {
        sim.drop_line();
        sim.on(Event::ClockNotSet("1970".into()));
        sim.coming.clear();
        assert_eq!(sim.line, Line::Closed);
        sim.now += CLOCK_WAIT;
        sim.act_until_idle();
        sim.coming.clear();
    }
    assert_eq!(sim.link.stats().failures, 0);
    assert_eq!(sim.notifications.len(), 1, "{:?}", sim.notifications);
    sim.arrive(Event::Connected {
        renew_at: None,
        commands: true,
    });
    assert!(sim.link.is_up());
}

#[test]
fn the_last_word_is_acknowledged_then_offline_then_goodbye() {
    let mut sim = Simulation::new(plain());
    sim.on(Event::Want(state("connected")));
    sim.run(ms(200));
    sim.given.clear();
    sim.close(state("disconnected"), Duration::from_secs(5));
    assert_eq!(sim.finished, Some(true));
    let given: Vec<_> = sim.given.iter().map(|(_, topic, p)| (topic.as_str(), p.clone())).collect();
    assert_eq!(given, [("p/state", "disconnected".into()), ("p/availability", OFFLINE)]);
    assert_eq!(sim.disconnects, 1);
}

#[test]
fn a_last_word_that_the_broker_has_already_is_not_said_again() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("disconnected")));
    sim.run(Duration::from_secs(3));
    sim.given.clear();
    let before = sim.now;
    sim.on(Event::Close {
        last: state("disconnected"),
        until: before + Duration::from_secs(5),
    });
    sim.run(ms(100));
    assert_eq!((sim.finished, sim.given.len(), sim.disconnects), (Some(true), 0, 1));
}

#[test]
fn a_broker_that_was_never_there_does_not_hold_up_the_end() {
    let mut sim = Simulation::new(device());
    sim.accepts = false;
    sim.on(Event::Want(state("connected")));
    sim.run(Duration::from_secs(100));
    sim.on(Event::Close {
        last: state("disconnected"),
        until: sim.now + Duration::from_secs(5),
    });
    sim.run(ms(100));
    assert_eq!(sim.finished, Some(false));
}

#[test]
fn a_broker_that_comes_back_within_the_deadline_hears_the_last_word() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("connected")));
    sim.run(Duration::from_secs(3));
    sim.accepts = false;
    sim.break_line();
    sim.run(Duration::from_secs(30));
    sim.on(Event::Close {
        last: state("disconnected"),
        until: sim.now + Duration::from_secs(5),
    });
    sim.run(Duration::from_secs(2));
    sim.accepts = true;
    sim.run(Duration::from_secs(3));
    assert_eq!(sim.finished, Some(true));
    assert_eq!(sim.holds("/devices/d/state"), Some("disconnected"));
}

#[test]
fn the_end_comes_at_the_deadline_whatever_the_broker_does() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("connected")));
    sim.run(Duration::from_secs(3));
    sim.acknowledges = false;
    sim.close(state("disconnected"), Duration::from_secs(5));
    assert_eq!(sim.finished, Some(false));
}

#[test]
fn a_token_that_expires_before_the_last_word_may_be_said_is_renewed_for_it() {
    let mut sim = Simulation::new(device());
    sim.token = Some(Duration::from_secs(2));
    sim.on(Event::Want(state("connected")));
    sim.run(ms(1500));
    sim.on(Event::Want(state("stalled")));
    sim.run(ms(50));
    sim.on(Event::Close {
        last: state("disconnected"),
        until: sim.now + Duration::from_secs(5),
    });
    sim.run(Duration::from_secs(2));
    assert_eq!((sim.finished, sim.disconnects), (Some(true), 2));
    assert_eq!(sim.holds("/devices/d/state"), Some("disconnected"));
}

#[test]
fn a_refused_subscription_is_reported_and_the_rest_works() {
    let mut sim = Simulation::new(plain());
    sim.run(ms(500));
    sim.on(Event::Subscribed {
        refused: vec!["p/set/#".into()],
    });
    assert!(matches!(&sim.notifications.last().unwrap().1, Notification::Notice(text) if text.contains("p/set/#")));
    sim.on(Event::Want(state("connected")));
    sim.run(ms(500));
    assert_eq!(sim.holds("p/state"), Some("connected"));
    for _ in 0..3 {
        sim.break_line();
        sim.run(Duration::from_secs(10));
        sim.on(Event::Subscribed {
            refused: vec!["p/set/#".into()],
        });
    }
    let notices = sim
        .notifications
        .iter()
        .filter(|(_, notification)| matches!(notification, Notification::Notice(_)))
        .count();
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

fn apply_step(sim: &mut Simulation, newest: &mut u32, step: Step) {
    match step {
        Step::Want => {
            *newest += 1;
            sim.on(Event::Want(state(&newest.to_string())));
        }
        Step::Heartbeat => sim.on(Event::Want(state(&newest.to_string()))),
        Step::Status => sim.on(Event::Want(Wanted {
            state: None,
            status: Some("{}".into()),
        })),
        Step::Event => {
            let queued_at = sim.now;
            sim.on(Event::Telemetry {
                queued_at,
                kind: "gap",
                payload: "{}".into(),
            });
        }
        Step::Break => sim.break_line(),
        Step::Accept(accepts) => sim.accepts = accepts,
        Step::Acknowledge(acknowledges) => sim.acknowledges = acknowledges,
        Step::Offline if sim.line == Line::Up => sim.on(Event::Message {
            topic: "p/availability".into(),
            payload: OFFLINE,
            retained: false,
            duplicate: false,
        }),
        Step::Config(duplicate) if sim.line == Line::Up => sim.on(Event::Message {
            topic: "/devices/d/config".into(),
            payload: "{}".into(),
            retained: false,
            duplicate,
        }),
        Step::Offline | Step::Config(_) => {}
        Step::Run(time) => sim.run(ms(time)),
    }
}

proptest! {
    /// Never two publishes in flight and never two states within the gap: `Simulation` checks both at every publish.
    #[test]
    fn whatever_happens_the_wanted_state_is_published_in_the_end(
        steps in steps(), is_device in any::<bool>(), token in proptest::option::of(2u64..100), wait in 0u64..3000,
    ) {
        let mut sim = Simulation::new(if is_device { device() } else { plain() });
        sim.token = token.filter(|_| is_device).map(Duration::from_secs);
        let topic = sim.topics.state.clone();
        let mut newest = 0;
        steps.into_iter().for_each(|step| apply_step(&mut sim, &mut newest, step));
        (sim.accepts, sim.acknowledges) = (true, true);
        newest += 1;
        sim.on(Event::Want(state(&newest.to_string())));
        sim.run(Duration::from_secs(200));
        let newest = newest.to_string();
        prop_assert_eq!(sim.holds(&topic), Some(newest.as_str()));
        prop_assert_eq!(sim.recoveries(), sim.troubles());
        if !is_device {
            prop_assert_eq!(sim.holds("p/availability"), Some("online"));
        }
        sim.run(ms(wait));
        sim.close(state("last"), Duration::from_secs(5));
        prop_assert_eq!(sim.finished, Some(true));
        prop_assert_eq!(sim.holds(&topic), Some("last"));
        prop_assert!(sim.disconnects > 0);
        if !is_device {
            prop_assert_eq!(sim.holds("p/availability"), Some("offline"));
        }
    }

    #[test]
    fn whenever_the_end_is_asked_for_it_comes_in_time_and_tells_the_truth(
        steps in steps(), is_device in any::<bool>(), token in proptest::option::of(2u64..100), wait in 0u64..5000,
    ) {
        let mut sim = Simulation::new(if is_device { device() } else { plain() });
        sim.token = token.filter(|_| is_device).map(Duration::from_secs);
        let topic = sim.topics.state.clone();
        let mut newest = 0;
        steps.into_iter().for_each(|step| apply_step(&mut sim, &mut newest, step));
        let until = sim.now + Duration::from_secs(5);
        sim.on(Event::Close { last: state("last"), until });
        sim.run(ms(wait));
        sim.break_line();
        sim.run(Duration::from_secs(5));
        prop_assert!(sim.finished.is_some());
        prop_assert_eq!(sim.finished == Some(true), sim.holds(&topic) == Some("last"));
    }
}

#[test]
fn a_state_that_may_have_arrived_when_the_connection_broke_counts_for_the_gap() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("connected")));
    sim.run(ms(1125));
    assert!(sim.in_flight.is_some());
    sim.break_line();
    let broken = sim.now;
    // The final state does not wait for the back-off, but it does for the gap.
    sim.close(state("disconnected"), Duration::from_secs(5));
    assert_eq!(sim.finished, Some(true));
    let (at, _, _) = &sim.given[0];
    assert!(*at >= broken + GAP && *at < broken + GAP + ms(100), "{at:?}");
}

#[test]
fn an_outage_ends_though_the_token_is_renewed_before_the_connection_has_proved_itself() {
    let mut sim = Simulation::new(device());
    sim.token = Some(Duration::from_secs(2));
    sim.run(ms(100));
    sim.break_line();
    sim.run(Duration::from_secs(10));
    assert_eq!((sim.troubles(), sim.recoveries()), (1, 1));
}

#[test]
fn a_last_word_that_is_too_large_is_not_said_to_be_there() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("connected")));
    sim.run(Duration::from_secs(2));
    let before = sim.now;
    sim.on(Event::Close {
        last: state(&"x".repeat(70_000)),
        until: before + Duration::from_secs(5),
    });
    sim.run(ms(200));
    assert_eq!((sim.finished, sim.disconnects), (Some(false), 1));
}
