//! The link to a broker, against mosquitto and against a broker that is as strict as IoT Core: what is published, what is
//! told, and that it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/mosquitto.rs"]
mod mosquitto;
#[path = "common/strict_broker/mod.rs"]
mod strict_broker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gcstreamer_mqtt::{Config, IotCore, Link, Listener, Plain, Protocol, Wanted};
use mosquitto::{Mosquitto, Rules};
use strict_broker::StrictBroker;
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq)]
enum Incoming {
    Connected(bool),
    Trouble(String),
    Recovered,
    Config(usize),
    Command(String, String, bool),
    Notice(String),
}

/// A listener that remembers.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Incoming>>,
    changed: Condvar,
}

impl Ear {
    fn hear(&self, heard: Incoming) {
        self.heard.lock().unwrap().push(heard);
        self.changed.notify_all();
    }

    fn all(&self) -> Vec<Incoming> {
        self.heard.lock().unwrap().clone()
    }

    fn wait(&self, what: impl Fn(&Incoming) -> bool) {
        let heard = self.heard.lock().unwrap();
        let (heard, timeout) = self
            .changed
            .wait_timeout_while(heard, SOON, |heard| !heard.iter().any(&what))
            .unwrap();
        assert!(!timeout.timed_out(), "not heard: {heard:#?}");
    }

    fn troubles(&self) -> Vec<String> {
        let text = |heard| match heard {
            Incoming::Trouble(text) => Some(text),
            _ => None,
        };
        self.all().into_iter().filter_map(text).collect()
    }

    fn count(&self, what: impl Fn(&Incoming) -> bool) -> usize {
        self.all().iter().filter(|heard| what(heard)).count()
    }
}

impl Listener for Ear {
    fn connected(&self, up: bool) {
        self.hear(Incoming::Connected(up));
    }
    fn trouble(&self, text: String) {
        self.hear(Incoming::Trouble(text));
    }
    fn recovered(&self, _after: Duration) {
        self.hear(Incoming::Recovered);
    }
    fn config(&self, payload: Bytes) {
        self.hear(Incoming::Config(payload.len()));
    }
    fn command(&self, tail: String, payload: Bytes, retained: bool) {
        self.hear(Incoming::Command(
            tail,
            String::from_utf8(payload.to_vec()).unwrap(),
            retained,
        ));
    }
    fn notice(&self, text: String) {
        self.hear(Incoming::Notice(text));
    }
}

/// A link with its runtime and its listener.
struct Run {
    link: Link,
    ear: Arc<Ear>,
    _runtime: Runtime,
}

impl Run {
    fn start(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let ear = Arc::new(Ear::default());
        let link = Link::start(config, runtime.handle(), Arc::clone(&ear) as Arc<dyn Listener>).unwrap();
        Self {
            link,
            ear,
            _runtime: runtime,
        }
    }

    fn want(&self, state: &str, status: &str) {
        self.link.want(wanted(state, status));
    }

    fn close(&self, state: &str, time: Duration) -> bool {
        self.link.close(wanted(state, "{}"), Instant::now() + time)
    }

    fn wait_connected(&self) {
        self.ear.wait(|heard| *heard == Incoming::Connected(true));
    }
}

fn wanted(state: &str, status: &str) -> Wanted {
    let some = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    Wanted {
        state: some(state),
        status: some(status),
    }
}

fn plain() -> Plain {
    Plain {
        client_id: "cam1".into(),
        username: None,
        password_file: None,
        prefix: "p".into(),
        discovery: None,
    }
}

fn at(broker: &Mosquitto, plain: Plain) -> Config {
    Config {
        host: "127.0.0.1".into(),
        port: broker.port(),
        tls: false,
        root_certificates: None,
        client_certificate: None,
        client_key: None,
        protocol: Protocol::Mqtt(plain),
        state_gap: Duration::from_millis(100),
        keep_alive: Duration::from_secs(60),
    }
}

#[test]
fn a_link_that_dies_leaves_its_will_and_its_last_state() {
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["p/#"], None);
    let run = Run::start(at(&broker, plain()));
    run.want("connected", "{\"v\":1}");
    watcher.wait_last("p/availability", "online", SOON);
    let topics: Vec<_> = watcher.seen().into_iter().map(|seen| seen.topic).collect();
    assert_eq!(
        topics,
        ["p/state", "p/status", "p/availability"],
        "valid only with what is true now"
    );
    drop(run);
    watcher.wait_last("p/availability", "offline", SOON);
    let late = broker.watch(&["p/#"], None);
    late.wait_last("p/state", "connected", SOON);
    late.wait_last("p/availability", "offline", SOON);
    assert!(late.seen().iter().all(|seen| seen.retained));
}

#[test]
fn a_broker_that_lost_its_memory_is_reported_everything_again() {
    let mut broker = Mosquitto::start();
    let discovery = Some(("ha/device/cam1/config".to_owned(), Bytes::from_static(b"{\"dev\":{}}")));
    let run = Run::start(at(&broker, Plain { discovery, ..plain() }));
    run.want("connected", "{}");
    broker.watch(&["#"], None).wait_last("p/state", "connected", SOON);
    broker.stop();
    run.ear.wait(|heard| matches!(heard, Incoming::Trouble(_)));
    assert!(!run.link.is_connected());
    run.want("stalled", "{}");
    broker.start_again();
    let watcher = broker.watch(&["#"], None);
    watcher.wait_last("p/state", "stalled", SOON);
    watcher.wait_last("p/availability", "online", SOON);
    watcher.wait_last("ha/device/cam1/config", "{\"dev\":{}}", SOON);
    run.ear.wait(|heard| *heard == Incoming::Recovered);
    assert_eq!(run.ear.troubles().len(), 1);
    assert!(
        !watcher.payloads("p/state").contains(&"connected".to_owned()),
        "an old state is not told again"
    );
}

#[test]
fn a_foreign_late_offline_is_answered() {
    let broker = Mosquitto::start();
    let run = Run::start(at(&broker, plain()));
    run.want("connected", "{}");
    let watcher = broker.watch(&["p/availability"], None);
    watcher.wait_last("p/availability", "online", SOON);
    // The link receives nothing before it has subscribed.
    broker.publish("p/set/report", b"", false);
    run.ear.wait(|heard| matches!(heard, Incoming::Command(..)));
    broker.publish("p/availability", b"offline", true);
    let answered = |seen: &[mosquitto::Seen]| {
        let said: Vec<_> = seen.iter().map(|s| s.payload.as_str()).collect();
        said.ends_with(&["offline", "online"])
    };
    assert!(watcher.wait_for(answered, SOON), "{:?}", watcher.seen());
}

#[test]
fn the_last_word_is_there_when_close_returns_and_no_will_follows() {
    let broker = Mosquitto::start();
    let run = Run::start(at(&broker, plain()));
    run.want("connected", "{}");
    let watcher = broker.watch(&["p/#"], None);
    watcher.wait_last("p/state", "connected", SOON);
    run.link.event("chunk", Bytes::from_static(b"{\"n\":1}"));
    let begun = Instant::now();
    assert!(run.close("disconnected", Duration::from_secs(5)));
    assert!(begun.elapsed() < Duration::from_secs(3));
    let late = broker.watch(&["p/#"], None);
    late.wait_last("p/state", "disconnected", SOON);
    late.wait_last("p/availability", "offline", SOON);
    watcher.wait_last("p/availability", "offline", SOON);
    assert_eq!(watcher.payloads("p/event/chunk"), ["{\"n\":1}"]);
    let offline = watcher
        .payloads("p/availability")
        .iter()
        .filter(|said| *said == "offline")
        .count();
    assert_eq!(offline, 1, "{:?}", watcher.seen());
    assert!(
        run.close("again", Duration::from_secs(5)),
        "a second close answers as the first"
    );
    assert!(run.ear.troubles().is_empty());
}

#[test]
fn commands_arrive_with_their_tail_and_are_marked_when_they_are_old() {
    let broker = Mosquitto::start();
    broker.publish("p/set/record", b"stop", true);
    let run = Run::start(at(&broker, plain()));
    run.ear
        .wait(|heard| *heard == Incoming::Command("record".into(), "stop".into(), true));
    broker.publish("p/set/split", b"{\"id\":\"7\"}", false);
    run.ear
        .wait(|heard| *heard == Incoming::Command("split".into(), "{\"id\":\"7\"}".into(), false));
}

#[test]
fn a_wrong_password_is_reported_once_and_a_corrected_file_is_read() {
    let rules = Rules {
        users: vec![("cam", "right-Secret"), ("eye", "eye")],
        access: vec!["user cam", "topic readwrite p/#", "user eye", "topic read #"],
        ..Rules::default()
    };
    let broker = Mosquitto::with(rules);
    let file = broker.secret("password", "wrong-Secret\n");
    let plain = Plain {
        username: Some("cam".into()),
        password_file: Some(file.clone()),
        ..plain()
    };
    let run = Run::start(at(&broker, plain));
    run.want("connected", "{}");
    let end = Instant::now() + SOON;
    while run.link.stats().failures < 2 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
    let troubles = run.ear.troubles();
    assert_eq!(troubles.len(), 1);
    assert!(
        troubles[0].contains("refused") && !troubles[0].contains("Secret"),
        "{troubles:?}"
    );
    std::fs::write(&file, "right-Secret\n").unwrap();
    let watcher = broker.watch(&["p/state"], Some(("eye", "eye")));
    watcher.wait_last("p/state", "connected", SOON);
    assert_eq!(run.ear.troubles().len(), 1);
}

#[test]
fn tls_with_client_certificates_works_and_its_troubles_say_what_to_do() {
    let broker = Mosquitto::with(Rules {
        client_certificates: true,
        ..Rules::default()
    });
    let (certificate, key) = broker.client_pair();
    let good = Config {
        host: "localhost".into(),
        tls: true,
        root_certificates: Some(broker.ca()),
        client_certificate: Some(certificate),
        client_key: Some(key),
        ..at(&broker, plain())
    };
    let run = Run::start(good.clone());
    run.want("connected", "{}");
    broker.watch(&["p/state"], None).wait_last("p/state", "connected", SOON);
    assert!(run.close("disconnected", Duration::from_secs(5)));

    let other = Mosquitto::with(Rules {
        tls: true,
        ..Rules::default()
    });
    let stranger = Run::start(Config {
        root_certificates: Some(other.ca()),
        ..good.clone()
    });
    stranger
        .ear
        .wait(|heard| matches!(heard, Incoming::Trouble(text) if text.contains("root-certificates")));
    let nobody = Run::start(Config {
        client_certificate: None,
        client_key: None,
        ..good
    });
    nobody.ear.wait(|heard| matches!(heard, Incoming::Trouble(_)));
    let plain_port = Mosquitto::start();
    let wrong_port = Run::start(Config {
        tls: true,
        root_certificates: Some(broker.ca()),
        ..at(&plain_port, plain())
    });
    wrong_port
        .ear
        .wait(|heard| matches!(heard, Incoming::Trouble(text) if text.contains("check port and tls")));
}

#[test]
fn a_retained_message_that_is_too_large_costs_one_warning_and_its_subscription() {
    for topic in ["p/set", "p/set/x", "p/set/split"] {
        let broker = Mosquitto::start();
        broker.publish(topic, &vec![b'x'; 100 << 10], true);
        let run = Run::start(at(&broker, plain()));
        run.want("connected", "{}");
        run.ear
            .wait(|heard| matches!(heard, Incoming::Notice(text) if text.contains("p/set/#") && text.contains("102")));
        let watcher = broker.watch(&["p/state", "p/availability"], None);
        watcher.wait_last("p/state", "connected", SOON);
        watcher.wait_last("p/availability", "online", SOON);
        let end = Instant::now() + SOON;
        while run.link.stats().connects < 3 {
            assert!(Instant::now() < end, "{:?}", run.link.stats());
            std::thread::sleep(Duration::from_millis(20));
        }
        // A second command that would end a connection with that subscription.
        broker.publish(topic, &vec![b'y'; 100 << 10], true);
        run.want("stalled", "{}");
        watcher.wait_last("p/state", "stalled", SOON);
        watcher.wait_last("p/availability", "online", SOON);
        assert_eq!(run.link.stats().connects, 3, "{topic}");
        assert!(run.ear.troubles().is_empty(), "{:?}", run.ear.troubles());
        assert_eq!(
            run.ear.count(|heard| matches!(heard, Incoming::Notice(_))),
            1,
            "{:?}",
            run.ear.all()
        );
    }
}

#[test]
fn a_broker_that_hangs_or_is_not_there_holds_nobody_up() {
    let broker = Mosquitto::start();
    let run = Run::start(at(&broker, plain()));
    run.want("connected", "{}");
    run.wait_connected();
    broker.watch(&["p/state"], None).wait_last("p/state", "connected", SOON);
    broker.freeze();
    let begun = Instant::now();
    run.want("stalled", "{}");
    assert!(!run.close("disconnected", Duration::from_secs(1)));
    assert!((900..1500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    broker.thaw();

    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let run = Run::start(Config {
        port: nobody,
        ..at(&broker, plain())
    });
    run.want("connected", "{}");
    run.ear
        .wait(|heard| matches!(heard, Incoming::Trouble(text) if text.contains("refused") && text.contains("127.0.0.1")));
    let begun = Instant::now();
    assert!(!run.close("disconnected", Duration::from_secs(5)));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// A device of the strict broker; its key in a directory of its own.
struct Device {
    directory: PathBuf,
    broker: StrictBroker,
}

impl Device {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("gcstreamer-link-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        secret(&directory.join("key.pem"), &key.serialize_pem());
        let broker = StrictBroker::start(strict_broker::Rules::new(key.public_key_pem()));
        secret(&directory.join("ca.pem"), broker.ca_pem().unwrap());
        Self { directory, broker }
    }

    fn config(&self, jwt_lifetime: u64) -> Config {
        let device = IotCore {
            project: "test-project".into(),
            region: "us-central1".into(),
            registry: "cameras".into(),
            device: "cam1".into(),
            private_key_file: self.directory.join("key.pem"),
            jwt_lifetime: Duration::from_secs(jwt_lifetime),
            audience: None,
            events: false,
        };
        Config {
            host: "127.0.0.1".into(),
            port: self.broker.port(),
            tls: true,
            root_certificates: Some(self.directory.join("ca.pem")),
            client_certificate: None,
            client_key: None,
            protocol: Protocol::IotCore(device),
            state_gap: Duration::from_secs(1),
            keep_alive: Duration::from_secs(60),
        }
    }

    fn wait_state(&self, state: &str) {
        let there = self.broker.wait_for(|seen| seen.last_state().as_deref() == Some(state), SOON);
        assert!(there, "{state} is not there: {:#?}", self.broker.seen());
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_device_gives_the_strict_broker_no_reason_in_a_life_of_short_tokens() {
    let device = Device::new("life");
    let run = Run::start(device.config(2));
    for n in 0..50 {
        run.want(&format!("state {n}"), "{}");
        run.link.event("chunk", Bytes::from_static(b"{}"));
        std::thread::sleep(Duration::from_millis(200));
    }
    device.wait_state("state 49");
    assert!(run.close("disconnected", Duration::from_secs(5)));
    device.broker.assert_no_violations();
    assert_eq!(device.broker.seen().last_state().as_deref(), Some("disconnected"));
    let connections = device.broker.connections();
    assert!(connections.len() >= 6, "{connections:#?}");
    assert!(connections.iter().all(|c| c.clean_disconnect), "{connections:#?}");
    assert!(device.broker.events().is_empty(), "telemetry is opt-in");
    let stats = run.link.stats();
    assert_eq!((stats.failures, stats.tokens), (0, stats.connects), "{stats:?}");
    assert!(run.ear.troubles().is_empty());
    assert_eq!(run.ear.count(|heard| matches!(heard, Incoming::Connected(true))), 1);
    assert_eq!(
        run.ear.count(|heard| matches!(heard, Incoming::Notice(_))),
        0,
        "{:?}",
        run.ear.all()
    );
}

#[test]
fn config_of_12_kib_and_commands_arrive_and_redelivery_is_answered_but_not_heard() {
    let device = Device::new("config");
    let run = Run::start(device.config(3600));
    run.want("connected", "{}");
    let subscribed = |seen: &strict_broker::Seen| seen.connected().is_some_and(|c| c.subscriptions.len() == 2);
    assert!(device.broker.wait_for(subscribed, SOON));
    device.broker.send_config(vec![b'c'; 12 << 10]);
    run.ear.wait(|heard| *heard == Incoming::Config(12 << 10));
    device.broker.send_command("split", "{}", false);
    run.ear
        .wait(|heard| *heard == Incoming::Command("split".into(), "{}".into(), false));
    device.broker.redeliver(vec![b'r'; 100], 500);
    assert!(device.broker.wait_for(|seen| seen.acknowledged() >= 501, SOON));
    device.wait_state("connected");
    assert!(run.ear.count(|heard| *heard == Incoming::Config(100)) <= 1);
    assert_eq!(run.link.stats().connects, 1);
    device.broker.assert_no_violations();
}

#[test]
fn broken_connections_garbage_and_oversize_end_in_the_wanted_state() {
    let device = Device::new("faults");
    let run = Run::start(device.config(3600));
    for n in 0..3 {
        run.want(&format!("state {n}"), "{}");
        device.wait_state(&format!("state {n}"));
        match n {
            0 => device.broker.drop_all_connections(),
            1 => device.broker.send_garbage(),
            _ => device.broker.send_oversized(100 << 10),
        };
        run.want(&format!("after {n}"), "{}");
    }
    let end = Instant::now() + Duration::from_secs(25);
    while device.broker.seen().last_state().as_deref() != Some("after 2") {
        assert!(Instant::now() < end, "{:#?}", device.broker.seen());
        std::thread::sleep(Duration::from_millis(50));
    }
    device.broker.assert_no_violations();
    assert_eq!(run.ear.troubles().len(), 1, "{:?}", run.ear.all());
    assert!(run.link.stats().connects <= 4);
}

#[test]
fn a_key_that_was_exchanged_in_the_registry_is_reported_once_and_the_new_file_is_read() {
    let device = Device::new("key");
    let other = rcgen::KeyPair::generate().unwrap();
    device.broker.set_public_key(other.public_key_pem());
    let run = Run::start(device.config(3600));
    run.want("connected", "{}");
    run.ear
        .wait(|heard| matches!(heard, Incoming::Trouble(text) if text.contains("token")));
    secret(&device.directory.join("key.pem"), &other.serialize_pem());
    device.wait_state("connected");
    assert_eq!(run.ear.troubles().len(), 1);
    assert!(run.link.stats().tokens >= 2);
}

#[test]
fn a_link_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Link>();
}

#[test]
fn without_an_acknowledgement_the_last_word_is_not_said_to_be_there() {
    let device = Device::new("acks");
    let run = Run::start(device.config(3600));
    run.want("connected", "{}");
    device.wait_state("connected");
    device.broker.hold_acks(true);
    assert!(!run.close("disconnected", Duration::from_secs(2)));
    device.broker.hold_acks(false);
    device.broker.assert_no_violations();
}

#[test]
fn settings_that_cannot_work_are_named_at_the_start() {
    let device = Device::new("settings");
    let runtime = Runtime::new().unwrap();
    let error = |config: Config| {
        let ear: Arc<dyn Listener> = Arc::new(Ear::default());
        Link::start(config, runtime.handle(), ear).unwrap_err().to_string()
    };
    let good = device.config(3600);
    let missing = Some(device.directory.join("nothing.pem"));
    let empty = device.directory.join("empty.pem");
    secret(&empty, "");
    for (config, says) in [
        (
            Config {
                host: String::new(),
                ..good.clone()
            },
            "host",
        ),
        (
            Config {
                root_certificates: missing,
                ..good.clone()
            },
            "root-certificates",
        ),
        (
            Config {
                root_certificates: Some(empty.clone()),
                ..good.clone()
            },
            "no certificate",
        ),
        (
            Config {
                client_key: Some(empty.clone()),
                ..good.clone()
            },
            "client-certificate is missing",
        ),
        (
            Config {
                tls: false,
                root_certificates: Some(device.directory.join("ca.pem")),
                ..good.clone()
            },
            "root-certificates: is set and tls is off, so nothing would be encrypted; set tls=true",
        ),
        (
            Config {
                tls: false,
                client_certificate: Some(empty.clone()),
                root_certificates: None,
                ..good.clone()
            },
            "client-certificate: is set and tls is off",
        ),
        (
            Config {
                tls: false,
                client_key: Some(empty.clone()),
                root_certificates: None,
                ..good.clone()
            },
            "client-key: is set and tls is off",
        ),
        (device.config(90_000), "jwt-lifetime"),
        (
            Config {
                protocol: Protocol::Mqtt(Plain {
                    password_file: Some(empty),
                    ..plain()
                }),
                ..good
            },
            "password-file",
        ),
    ] {
        let text = error(config);
        assert!(text.contains(says), "{says}: {text}");
    }
}
