//! The element against a broker as strict as IoT Core: it never gives a reason to close the connection, and no state is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/status_line.rs"]
mod status_line;
#[path = "common/strict_broker/mod.rs"]
mod strict_broker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use serde_json::Value;
use status_line::{NOWHERE, StatusLine};
use strict_broker::{Rules, Seen, StrictBroker};

const SOON: Duration = Duration::from_secs(15);

/// A device of the broker: its key and the broker's authority in a directory of their own.
struct Device {
    directory: PathBuf,
    broker: StrictBroker,
}

impl Device {
    fn new(name: &str, change: impl FnOnce(&mut Rules)) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("iot-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(directory.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut rules = Rules::new(key.public_key_pem());
        change(&mut rules);
        let broker = StrictBroker::start(rules);
        std::fs::write(directory.join("ca.pem"), broker.ca_pem().unwrap()).unwrap();
        Self { directory, broker }
    }

    /// The launch line's properties.
    fn properties(&self) -> String {
        format!(
            "host=127.0.0.1 port={} root-certificates={}/ca.pem project-id=test-project region=us-central1 registry-id=cameras \
             device-id=cam1 private-key-file={}/key.pem stall-timeout=1500000000",
            self.broker.port(),
            self.directory.display(),
            self.directory.display()
        )
    }

    fn line(&self, more: &str) -> StatusLine {
        StatusLine::new(&format!("{} {more}", self.properties()), NOWHERE)
    }

    fn wait(&self, what: impl FnMut(&Seen) -> bool, time: Duration) {
        assert!(self.broker.wait_for(what, time), "{:#?}", self.broker.seen());
    }

    fn wait_state(&self, state: &str) {
        self.wait(|seen| seen.last_state().as_deref() == Some(state), SOON);
    }

    /// The last JSON state for which this holds.
    fn wait_json(&self, what: impl Fn(&Value) -> bool) -> Value {
        let json = |seen: &Seen| serde_json::from_str::<Value>(&seen.last_state()?).ok().filter(&what);
        let mut found = None;
        let there = self.broker.wait_for(
            |seen| {
                found = json(seen);
                found.is_some()
            },
            SOON,
        );
        assert!(there, "{:#?}", self.broker.seen().last_state());
        found.unwrap()
    }

    /// The device listens: what was sent before would not reach it.
    fn wait_subscribed(&self) {
        self.wait(|seen| seen.connected().is_some_and(|c| !c.subscriptions.is_empty()), SOON);
    }

    /// The states in order, repetitions counted once.
    fn story(&self) -> Vec<String> {
        let states = self.broker.states();
        let mut texts: Vec<String> = states.iter().map(|(_, p)| String::from_utf8_lossy(p).into_owned()).collect();
        texts.dedup();
        texts
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn a_pipelines_life_is_reported_in_order_and_the_last_word_is_acknowledged() {
    let device = Device::new("life", |_| ());
    let line = device.line("");
    line.play();
    device.wait_state("connected");
    line.freeze(true);
    device.wait_state("disconnected");
    line.freeze(false);
    device.wait_state("connected");
    let took = line.stop();
    assert!(took < Duration::from_secs(4), "{took:?}");
    let seen = device.broker.seen();
    assert_eq!(seen.last_state().as_deref(), Some("disconnected"));
    assert!(
        seen.states.last().unwrap().acknowledged.is_some(),
        "before set_state returned"
    );
    assert_eq!(device.story(), ["connected", "disconnected", "connected", "disconnected"]);
    device.wait(|seen| seen.connections.iter().all(|c| c.clean_disconnect), SOON);
    device.broker.assert_no_violations();
}

#[test]
fn tokens_of_two_seconds_are_renewed_without_a_lost_state_or_a_word() {
    let device = Device::new("tokens", |_| ());
    let line = device.line("jwt-lifetime=2000000000 state-interval=1000000000");
    line.play();
    device.wait_state("connected");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(4));
        line.freeze(true);
        device.wait_state("disconnected");
        line.freeze(false);
        device.wait_state("connected");
    }
    let accepted = device.broker.seen().accepted();
    assert!(accepted > 6, "tokens of 2 s: {accepted} connections");
    let words = line.words();
    assert!(words.iter().all(|w| !["warning", "error"].contains(&w.0)), "{words:?}");
    assert_eq!(line.stat("mqtt-failures"), 0);
    line.stop();
    assert_eq!(device.story().len(), 8, "{:?}", device.story());
    device.broker.assert_no_violations();
}

#[test]
fn twenty_broken_connections_are_one_outage_without_a_storm() {
    let device = Device::new("drops", |_| ());
    let line = device.line("");
    line.play();
    device.wait_state("connected");
    let began = Instant::now();
    let mut drops = 0;
    while drops < 20 && began.elapsed() < Duration::from_secs(25) {
        drops += device.broker.drop_all_connections();
        std::thread::sleep(Duration::from_millis(50));
    }
    let seen = device.broker.seen();
    assert!(
        seen.connections.len() < 12,
        "{} connections in {:?}",
        seen.connections.len(),
        began.elapsed()
    );
    assert!(seen.states.len() < 30, "{} states", seen.states.len());
    let words = line.words();
    let warnings = words.iter().filter(|w| w.0 == "warning").count();
    assert_eq!(warnings, 1, "{words:?}");
    assert_eq!(line.phase(), "streaming", "the pipeline never notices");
    // Also now, in the middle of a pause, the last word arrives.
    line.stop();
    assert_eq!(device.broker.seen().last_state().as_deref(), Some("disconnected"));
    device.broker.assert_no_violations();
}

/// The keep-alive that the broker is asked for with these properties.
fn asked_for(properties: &str) -> u16 {
    let device = Device::new("asked", |_| ());
    let line = device.line(properties);
    line.play();
    device.wait_state("connected");
    line.stop();
    device.broker.assert_no_violations();
    device.broker.seen().connections[0].keep_alive
}

#[test]
fn the_broker_is_asked_for_the_keep_alive_in_whole_seconds_and_for_no_more_than_the_bridge_takes() {
    assert_eq!(asked_for(""), 60);
    assert_eq!(asked_for("keep-alive=2900000000"), 2);
    assert_eq!(asked_for("keep-alive=65535000000000"), 1200);
    assert_eq!(asked_for("keep-alive=0"), 60, "a dead connection would never be noticed");
}

#[test]
fn an_idle_connection_is_kept_alive_and_a_dead_one_is_noticed_within_twice_the_keep_alive() {
    let device = Device::new("alive", |_| ());
    let line = device.line("keep-alive=2000000000 state-interval=600000000000");
    line.play();
    device.wait_state("connected");
    // The broker ends a connection that is silent for 1.5 times the keep-alive.
    device.wait(|seen| seen.connections[0].pings >= 4, SOON);
    assert_eq!(device.broker.connections().len(), 1);
    assert_eq!(device.broker.states().len(), 1, "only the keep-alive keeps it");
    assert!(line.words().iter().all(|word| word.0 != "warning"));
    let began = Instant::now();
    device.broker.half_open();
    let warning = line.wait_word("warning", SOON);
    assert!(warning.contains("has not answered for 2 s"), "{warning}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    device.wait(|seen| seen.connections.len() == 2, SOON);
    line.stop();
}

#[test]
fn a_config_of_12_kib_is_heard_and_its_hash_is_acknowledged_in_the_next_state() {
    use sha2::{Digest, Sha256};
    let device = Device::new("config", |_| ());
    let line = device.line("payload-format=json");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&heard);
    line.status.connect("config", false, move |args| {
        into.lock().unwrap().push(args[1].get::<glib::Bytes>().unwrap().len());
        None
    });
    line.play();
    device.wait_json(|s| s["phase"] == "streaming");
    device.wait_subscribed();
    let config = vec![b'x'; 12 << 10];
    device.broker.send_config(config.clone());
    let hex: String = Sha256::digest(&config).iter().map(|b| format!("{b:02x}")).collect();
    let status = device.wait_json(|s| s["config"]["ok"] == true);
    assert_eq!(status["config"]["sha256"], hex);
    assert_eq!(*heard.lock().unwrap(), [12 << 10]);
    line.stop();
    assert_eq!(device.wait_json(|_| true)["phase"], "stopped");
    device.broker.assert_no_violations();
}

#[test]
fn commands_are_answered_where_they_are_accepted_and_always_emitted() {
    let device = Device::new("commands", |_| ());
    let line = device.line("payload-format=json accept-commands=true");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&heard);
    line.status.connect("command", false, move |args| {
        let payload = args[2].get::<glib::Bytes>().unwrap();
        into.lock().unwrap().push((
            args[1].get::<String>().unwrap(),
            String::from_utf8_lossy(&payload).into_owned(),
        ));
        None
    });
    line.play();
    device.wait_json(|s| s["phase"] == "streaming");
    device.wait_subscribed();
    for (tail, payload, ok) in [
        ("report", r#"{"id":"r1"}"#, true),
        ("reboot", r#"{"id":"r2"}"#, false),
        // There is no gcssink in this pipeline.
        ("split", r#"{"id":"r3"}"#, false),
    ] {
        device.broker.send_command(tail, payload, false);
        let id = serde_json::from_str::<Value>(payload).unwrap()["id"].clone();
        let status = device.wait_json(|s| s["command"]["id"] == id);
        assert_eq!(
            (&status["command"]["name"], &status["command"]["ok"]),
            (&tail.into(), &ok.into()),
            "{status}"
        );
        assert_eq!(status["command"]["msg"].is_string(), !ok);
    }
    let seen: Vec<String> = heard.lock().unwrap().iter().map(|(tail, _)| tail.clone()).collect();
    assert_eq!(seen, ["report", "reboot", "split"]);
    // A retained one is old: no client receives it.
    device.broker.send_command("report", r#"{"id":"old"}"#, true);
    device.broker.send_command("report", r#"{"id":"new"}"#, false);
    device.wait_json(|s| s["command"]["id"] == "new");
    assert!(!heard.lock().unwrap().iter().any(|(_, payload)| payload.contains("old")));
    line.stop();
    device.broker.assert_no_violations();
}

#[test]
fn a_report_is_the_state_again_where_it_is_text() {
    let device = Device::new("report", |_| ());
    let line = device.line("accept-commands=true");
    line.play();
    device.wait_state("connected");
    device.wait_subscribed();
    for n in 2..=3 {
        device.broker.send_command("report", r#"{"id":"r1"}"#, false);
        device.wait(|seen| seen.states.len() == n, SOON);
    }
    assert_eq!(device.story(), ["connected"]);
    line.stop();
    device.broker.assert_no_violations();
}

#[test]
fn a_broker_that_acknowledges_nothing_holds_the_end_up_for_shutdown_timeout_only() {
    let device = Device::new("no-acks", |_| ());
    let line = device.line("shutdown-timeout=1000000000");
    line.play();
    device.wait_state("connected");
    device.broker.hold_acks(true);
    // A stop within a second of another's end belongs to it and has its deadline.
    std::thread::sleep(Duration::from_millis(1100));
    let took = line.stop();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_millis(2000),
        "{took:?}"
    );
}

#[test]
fn a_pipeline_that_is_stopped_and_started_at_once_keeps_its_second_between_states() {
    let device = Device::new("restart", |_| ());
    let line = device.line("");
    for n in 1..=3 {
        line.play();
        device.wait(|seen| seen.states.len() == 2 * n - 1, SOON);
        line.stop();
        device.wait(|seen| seen.states.len() == 2 * n, SOON);
    }
    assert_eq!(device.story(), ["connected", "disconnected"].repeat(3));
    let times: Vec<Instant> = device.broker.states().iter().map(|(at, _)| *at).collect();
    assert!(
        times.windows(2).all(|w| w[1] - w[0] >= Duration::from_millis(990)),
        "{times:#?}"
    );
    device.broker.assert_no_violations();
}

#[test]
fn commands_close_together_are_each_answered() {
    let device = Device::new("row", |_| ());
    let line = device.line("payload-format=json accept-commands=true");
    line.play();
    device.wait_json(|s| s["phase"] == "streaming");
    device.wait_subscribed();
    for n in 0..4 {
        device.broker.send_command("report", format!("{{\"id\":\"{n}\"}}"), false);
    }
    device.wait_json(|s| s["command"]["id"] == "3");
    let mut answered: Vec<String> = device
        .broker
        .states()
        .iter()
        .filter_map(|(_, p)| Some(serde_json::from_slice::<Value>(p).ok()?["command"]["id"].as_str()?.to_owned()))
        .collect();
    answered.dedup();
    assert_eq!(answered, ["0", "1", "2", "3"]);
    line.stop();
    device.broker.assert_no_violations();
}

#[test]
fn an_error_a_stop_and_an_eos_are_each_the_last_word() {
    for phase in ["error", "eos", "stopped"] {
        let device = Device::new(phase, |_| ());
        let line = device.line("payload-format=json");
        line.play();
        device.wait_json(|s| s["state"] == "connected");
        match phase {
            "error" => gst::element_error!(line.status, gst::ResourceError::Read, ("rtsp://u:secret@h broke")),
            "eos" => assert!(line.pipeline.send_event(gst::event::Eos::new())),
            _ => {}
        }
        if phase != "stopped" {
            line.wait_word(phase, SOON);
        }
        line.stop();
        let last = device.wait_json(|_| true);
        assert_eq!(
            (&last["phase"], &last["state"]),
            (&phase.into(), &"disconnected".into()),
            "{last}"
        );
        assert!(!last.to_string().contains("secret"), "{last}");
        device.broker.assert_no_violations();
    }
}
