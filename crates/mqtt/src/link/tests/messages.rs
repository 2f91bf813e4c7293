//! Messages that the link receives: oversized packets, its own publishes, other clients.

use super::simulation::{Simulation, device, ms, plain, state};
use super::*;

fn message(topic: &str, payload: &str, retained: bool) -> Event {
    Event::Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        retained,
        duplicate: false,
    }
}

/// Returns topic and payload of each publish.
fn given(sim: &Simulation) -> Vec<(&str, &[u8])> {
    sim.given
        .iter()
        .map(|(_, topic, what)| (topic.as_str(), what.as_ref()))
        .collect()
}

pub(super) fn wanted(sim: &mut Simulation) {
    sim.on(Event::Want(Wanted {
        state: Some("connected".into()),
        status: Some("{}".into()),
    }));
}

#[test]
fn a_message_that_is_too_large_costs_one_warning_and_its_subscription_whichever_it_is() {
    for (topics, filters) in [
        (plain(), vec!["p/set/#", "p/availability", "p/state", "p/status"]),
        (device(), vec!["/devices/d/commands/#", "/devices/d/config"]),
    ] {
        for filter in &filters {
            let mut sim = Simulation::new(topics.clone());
            sim.oversized = Some(((*filter).to_owned(), 102_400));
            wanted(&mut sim);
            sim.run(Duration::from_secs(60));
            let attempts = sim.attempts.len();
            assert!(attempts <= 3, "{filter}: {:?}", sim.attempts);
            let notices = sim.notices();
            assert!(
                notices.len() == 1 && notices[0].contains(filter) && notices[0].contains("102400"),
                "{notices:?}"
            );
            assert_eq!(sim.troubles(), 0, "{:?}", sim.notifications);
            let mut rest = filters.clone();
            rest.retain(|other| other != filter);
            sim.subscribed.sort();
            rest.sort_unstable();
            assert_eq!(sim.subscribed, rest, "everything else is still subscribed to");
            sim.run(Duration::from_secs(3600));
            assert_eq!(sim.attempts.len(), attempts, "the connection stays");
            // Also across the next outage.
            sim.break_line();
            sim.run(Duration::from_secs(30));
            assert!(!sim.subscribed.contains(&(*filter).to_owned()));
            assert_eq!(sim.notices().len(), 1);
        }
    }
}

/// Simulates a link that receives this many oversized messages, 100 s apart.
fn large_messages(has_commands: bool, messages: usize) -> Simulation {
    let mut sim = Simulation::new(plain());
    sim.commands = has_commands;
    wanted(&mut sim);
    sim.run(Duration::from_secs(100));
    for _ in 0..messages {
        sim.arrive(Event::TooLarge(90_000));
        sim.run(Duration::from_secs(100));
    }
    sim
}

#[test]
fn a_large_message_that_is_not_retained_costs_a_reconnect_and_a_row_of_them_the_commands() {
    let sim = large_messages(true, 2);
    let notices = sim.notices();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].contains("90000"), "{notices:?}");
    assert!(notices[1].contains("p/set/#"), "{notices:?}");
    assert!(!sim.subscribed.iter().any(|filter| filter == "p/set/#"));
    assert_eq!(sim.holds("p/availability"), Some("online"));
}

#[test]
fn a_row_of_large_messages_without_commands_costs_the_other_subscriptions_and_each_is_reported_once() {
    let mut sim = large_messages(false, 4);
    let notices = sim.notices();
    assert_eq!(notices.len(), 3, "{notices:?}");
    assert!(!notices.iter().any(|text| text.contains("p/set")), "{notices:?}");
    assert!(notices[1].contains("p/state and p/status"), "{notices:?}");
    assert!(notices[2].contains("p/availability"), "{notices:?}");
    // A handler that is connected later is heard.
    sim.commands = true;
    sim.break_line();
    sim.run(Duration::from_secs(100));
    assert!(sim.subscribed.iter().any(|filter| filter == "p/set/#"));
    assert_eq!(sim.holds("p/availability"), Some("online"));
}

#[test]
fn commands_are_subscribed_to_only_while_somebody_acts_on_them() {
    for (topics, filter) in [(plain(), "p/set/#"), (device(), "/devices/d/commands/#")] {
        let mut sim = Simulation::new(topics);
        sim.commands = false;
        wanted(&mut sim);
        sim.run(Duration::from_secs(5));
        assert!(!sim.subscribed.is_empty() && !sim.subscribed.iter().any(|f| f == filter));
        // A handler was connected meanwhile: the link asks again at the next ConnAck.
        sim.commands = true;
        sim.break_line();
        sim.run(Duration::from_secs(5));
        assert!(sim.subscribed.iter().any(|f| f == filter), "{:?}", sim.subscribed);
    }
}

#[test]
fn a_device_publishes_no_state_in_the_first_second_after_its_first_connack() {
    let mut sim = Simulation::new(device());
    sim.on(Event::Want(state("connected")));
    sim.run(ms(1100));
    assert!(sim.given.is_empty(), "{:?}", sim.given);
    sim.run(ms(100));
    assert_eq!(sim.holds("/devices/d/state"), Some("connected"));
    // Not again in the same process, and not for a broker without that limit.
    sim.given.clear();
    sim.run(Duration::from_secs(100));
    sim.break_line();
    sim.on(Event::Want(state("stalled")));
    sim.run(Duration::from_secs(4));
    let back = *sim.attempts.last().unwrap();
    assert!(sim.given[0].0 - back < ms(100), "{:?} after {back:?}", sim.given[0].0);
    let mut sim = Simulation::new(plain());
    sim.on(Event::Want(state("connected")));
    sim.run(ms(100));
    assert_eq!(sim.holds("p/state"), Some("connected"));
}

#[test]
fn a_broker_that_swallows_what_is_published_is_reported_once() {
    let mut sim = Simulation::new(plain());
    sim.swallows = true;
    wanted(&mut sim);
    sim.run(Duration::from_secs(29));
    assert!(sim.notices().is_empty());
    sim.run(Duration::from_secs(600));
    let notices = sim.notices();
    assert!(
        notices.len() == 1 && notices[0].contains("p/availability") && notices[0].contains("30 s"),
        "{notices:?}"
    );
    // If it comes back nothing is reported.
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    sim.run(Duration::from_secs(600));
    assert!(sim.notices().is_empty(), "{:?}", sim.notices());
    // A strict device has no availability.
    let mut sim = Simulation::new(device());
    wanted(&mut sim);
    sim.run(Duration::from_secs(600));
    assert!(sim.notices().is_empty());
}

#[test]
fn each_topic_that_the_broker_swallows_is_named() {
    for swallowed in [
        vec!["p/availability"],
        vec!["p/state"],
        vec!["p/status"],
        vec!["p/state", "p/status"],
    ] {
        let mut sim = Simulation::new(plain());
        sim.swallowed.clone_from(&swallowed);
        wanted(&mut sim);
        sim.run(Duration::from_secs(29));
        assert!(sim.notices().is_empty());
        sim.run(Duration::from_secs(600));
        sim.break_line();
        sim.run(Duration::from_secs(600));
        let notices = sim.notices();
        assert_eq!(notices.len(), 1, "{swallowed:?}: {notices:?}");
        for topic in ["p/availability", "p/state", "p/status"] {
            let text = notices[0].replace("topic-prefix", "");
            let is_named = text.split([' ', ',']).any(|word| word == topic);
            assert_eq!(is_named, swallowed.contains(&topic), "{swallowed:?}: {text}");
        }
    }
}

#[test]
fn a_message_above_the_brokers_limit_is_given_up_and_named_and_the_connection_stays() {
    let large = |size: usize| Bytes::from(vec![b'x'; size]);
    let status = |size| {
        Event::Want(Wanted {
            state: Some("connected".into()),
            status: Some(large(size)),
        })
    };
    // A status, the discovery message, telemetry.
    for (name, topic) in [
        ("status", "p/status"),
        ("discovery message", "ha/config"),
        ("event", "p/event/gap"),
    ] {
        let mut sim = Simulation::new(plain());
        sim.largest = Some(1000);
        sim.on(status(if name == "status" { 1100 } else { 900 }));
        sim.run(Duration::from_secs(5));
        match name {
            "discovery message" => sim.on(Event::Discovery(large(1100))),
            "event" => sim.on(Event::Telemetry {
                queued_at: sim.now,
                kind: "gap",
                payload: large(1100),
            }),
            _ => {}
        }
        sim.run(Duration::from_secs(100));
        let notices = sim.notices();
        assert_eq!(notices.len(), 1, "{name}: {notices:?}");
        assert!(
            notices[0].contains(&format!("{name} of 1100 bytes on {topic}")),
            "{notices:?}"
        );
        let attempts = sim.attempts.len();
        assert!(attempts <= 4, "{name}: {:?}", sim.attempts);
        sim.run(Duration::from_secs(3000));
        assert_eq!(sim.attempts.len(), attempts, "{name}: the connection stays");
        assert_eq!(sim.holds("p/availability"), Some("online"), "{name}");
        // A smaller status is published. After an hour the limit is tried again, without a report.
        sim.on(status(800));
        sim.run(Duration::from_secs(100));
        assert_eq!(sim.holds("p/status").map(str::len), Some(800), "{name}");
        sim.run(Duration::from_secs(3600));
        sim.largest = None;
        sim.on(status(1200));
        sim.run(Duration::from_secs(100));
        assert_eq!(sim.holds("p/status").map(str::len), Some(1200), "{name}");
        assert_eq!(sim.notices().len(), 1);
    }
}

fn json(state: usize, status: usize) -> Event {
    let large = |size: usize| Bytes::from(vec![b'x'; size]);
    Event::Want(Wanted {
        state: Some(large(state)),
        status: Some(large(status)),
    })
}

#[test]
fn a_broker_that_ends_connections_for_another_reason_keeps_nobody_from_being_heard() {
    // The broker closes the connection at every publish for a while, as if its access control were unreachable.
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    sim.run(Duration::from_secs(10));
    sim.largest = Some(0);
    sim.break_line();
    let before = sim.attempts.len();
    while sim.attempts.len() < before + 6 {
        sim.run(Duration::from_secs(1));
    }
    sim.largest = None;
    sim.held.clear();
    sim.run(Duration::from_secs(60));
    assert_eq!((sim.holds("p/state"), sim.holds("p/status")), (Some("connected"), Some("{}")));
    assert_eq!(sim.holds("p/availability"), Some("online"));
    assert!(sim.notices().is_empty(), "{:?}", sim.notices());
}

#[test]
fn what_a_broker_has_taken_before_is_given_up_only_if_it_refuses_it_for_long() {
    for losses in [5, 15] {
        let mut sim = Simulation::new(plain());
        sim.on(json(9, 820));
        sim.run(Duration::from_secs(10));
        sim.largest = Some(500);
        sim.on(json(9, 830));
        let before = sim.attempts.len();
        while sim.attempts.len() < before + losses && sim.notices().is_empty() {
            sim.run(Duration::from_secs(1));
        }
        let is_given_up = losses > 10;
        assert_eq!(sim.notices().len(), usize::from(is_given_up), "{losses}: {:?}", sim.notices());
        if !is_given_up {
            sim.largest = None;
        }
        sim.run(Duration::from_secs(100));
        assert_eq!(sim.holds("p/status").map(str::len), Some(if is_given_up { 820 } else { 830 }));
        assert_eq!(sim.holds("p/availability"), Some("online"));
    }
}

#[test]
fn a_large_state_that_ends_every_connection_is_reported_once_and_tried_again() {
    let mut sim = Simulation::new(plain());
    sim.largest = Some(500);
    sim.on(json(600, 10));
    sim.run(Duration::from_secs(600));
    let notices = sim.notices();
    assert!(
        notices.len() == 1 && notices[0].contains("state of 600 bytes on p/state") && notices[0].contains("tried again"),
        "{notices:?}"
    );
    assert!(sim.attempts.len() > 10);
    sim.largest = None;
    sim.run(Duration::from_secs(100));
    assert_eq!(sim.holds("p/state").map(str::len), Some(600));
}

#[test]
fn a_line_that_breaks_while_something_is_on_its_way_gives_nothing_up() {
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    // Whatever is in flight at the time: each message of a connection in turn, a few times over.
    for turn in 0..40_u32 {
        sim.run(Duration::from_secs(130));
        sim.on(Event::Want(Wanted {
            state: Some("connected".into()),
            status: Some(Bytes::from(format!("{{\"seq\":{turn}}}"))),
        }));
        sim.run(ms(u64::from(turn % 4) * 10));
        sim.break_line();
    }
    sim.run(Duration::from_secs(130));
    assert_eq!(sim.holds("p/status"), Some("{\"seq\":39}"));
    assert!(sim.notices().is_empty(), "{:?}", sim.notices());
}

#[test]
fn what_the_broker_kept_from_before_does_not_hide_that_it_swallows_everything() {
    for swallows in [true, false] {
        let mut sim = Simulation::new(plain());
        wanted(&mut sim);
        sim.run(Duration::from_secs(100));
        let published = |sim: &Simulation| sim.given.iter().filter(|(_, topic, _)| topic == "p/availability").count();
        assert_eq!((sim.notices().len(), published(&sim)), (0, 1));
        // The access rules change, and the connection breaks: the retained values are those of the previous connection.
        sim.swallows = swallows;
        sim.given.clear();
        sim.break_line();
        sim.run(Duration::from_secs(600));
        assert_eq!(sim.notices().len(), usize::from(swallows), "{:?}", sim.notices());
        assert!(published(&sim) <= 2, "{}", published(&sim));
    }
}

#[test]
fn an_availability_that_was_cleared_or_spoiled_is_online_again() {
    for payload in ["", "offline", "OFFLINE", "0"] {
        let mut sim = Simulation::new(plain());
        wanted(&mut sim);
        sim.run(Duration::from_secs(5));
        sim.given.clear();
        sim.on(message("p/availability", payload, false));
        sim.run(Duration::from_secs(2));
        assert_eq!(given(&sim), [("p/availability", &b"online"[..])], "{payload:?}");
    }
}

#[test]
fn what_another_client_writes_into_our_state_is_corrected_and_our_own_echo_is_not() {
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    sim.run(Duration::from_secs(5));
    sim.given.clear();
    sim.on(message("p/state", "connected", true));
    sim.on(message("p/status", "{}", true));
    sim.run(Duration::from_secs(5));
    assert!(sim.given.is_empty(), "an echo: {:?}", sim.given);
    for (topic, foreign, ours) in [
        ("p/state", "disconnected", "connected"),
        ("p/state", "", "connected"),
        ("p/status", "", "{}"),
    ] {
        sim.on(message(topic, foreign, false));
        sim.run(Duration::from_secs(2));
        assert_eq!(given(&sim), [(topic, ours.as_bytes())], "{foreign:?}");
        sim.given.clear();
        sim.on(message(topic, ours, false));
        sim.run(Duration::from_secs(5));
        assert!(sim.given.is_empty(), "an echo: {:?}", sim.given);
    }
    // Each one comes back, and none is corrected.
    for text in ["stalled", "connected", "stalled", "connected"] {
        sim.on(Event::Want(state(text)));
        sim.run(Duration::from_secs(2));
    }
    assert_eq!(sim.given.len(), 4, "{:?}", sim.given);
    // An echo that arrives after the next state has been published.
    sim.swallows = true;
    for text in ["stalled", "paused"] {
        sim.on(Event::Want(state(text)));
        sim.run(Duration::from_secs(2));
    }
    sim.given.clear();
    sim.on(message("p/state", "stalled", false));
    sim.on(message("p/state", "paused", false));
    sim.run(Duration::from_secs(5));
    assert!(sim.given.is_empty(), "an echo: {:?}", sim.given);
}

#[test]
fn two_devices_with_one_prefix_are_reported_once_and_make_no_storm() {
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    sim.run(Duration::from_secs(5));
    sim.given.clear();
    for _ in 0..40 {
        sim.on(message("p/state", "disconnected", false));
        sim.run(ms(500));
    }
    assert!(sim.given.len() <= 21, "{}", sim.given.len());
    let notices = sim.notices();
    assert!(notices.len() == 1 && notices[0].contains("topic-prefix"), "{notices:?}");
}

#[test]
fn the_first_status_after_an_outage_is_a_fresh_one() {
    let mut sim = Simulation::new(plain());
    wanted(&mut sim);
    sim.run(Duration::from_secs(5));
    sim.accepts = false;
    sim.break_line();
    sim.run(Duration::from_secs(600));
    sim.accepts = true;
    sim.given.clear();
    while sim.line != Line::Up {
        sim.run(ms(10));
    }
    sim.run(ms(200));
    assert!(sim.given.is_empty(), "the status of ten minutes ago: {:?}", sim.given);
    sim.on(Event::Want(Wanted {
        state: None,
        status: Some("{\"fresh\":1}".into()),
    }));
    sim.run(ms(200));
    let given = given(&sim);
    assert_eq!(
        given[..3],
        [
            ("p/state", &b"connected"[..]),
            ("p/status", b"{\"fresh\":1}"),
            ("p/availability", b"online")
        ]
    );
    // An owner that supplies no fresh status delays publishing by at most a second.
    sim.run(Duration::from_secs(70));
    sim.break_line();
    sim.given.clear();
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.given.len(), 4, "{:?}", sim.given);
}
