//! What a person reads when the broker cannot be reached as configured: real brokers with every kind of certificate, a web server,
//! ports of the other kind, refusals. Each has a sentence of its own with the next step.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/mosquitto.rs"]
mod mosquitto;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gcstreamer_mqtt::{Config, IotCore, Link, Listener, Plain, Protocol, Wanted};
use mosquitto::{Kind, Mosquitto, Rules};
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(40);

/// What was reported: connections, WARNINGs.
#[derive(Default)]
struct Reports {
    state: Mutex<(bool, Vec<String>)>,
    changed: Condvar,
}

impl Listener for Reports {
    fn connected(&self, up: bool) {
        self.state.lock().unwrap().0 |= up;
        self.changed.notify_all();
    }
    fn trouble(&self, text: String) {
        self.state.lock().unwrap().1.push(text);
        self.changed.notify_all();
    }
    fn recovered(&self, _after: Duration) {}
    fn config(&self, _payload: Bytes) {}
    fn command(&self, _tail: String, _payload: Bytes, _retained: bool) {}
    fn notice(&self, text: String) {
        self.trouble(text);
    }
}

/// A link that has begun to connect.
struct Attempt {
    link: Link,
    reports: Arc<Reports>,
    _runtime: Runtime,
}

impl Attempt {
    fn new(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let reports = Arc::new(Reports::default());
        let link = Link::start(config, runtime.handle(), Arc::clone(&reports) as Arc<dyn Listener>).unwrap();
        link.want(Wanted {
            state: Some(Bytes::from_static(b"connected")),
            status: None,
        });
        Self {
            link,
            reports,
            _runtime: runtime,
        }
    }

    fn wait(&self, is: impl Fn(&(bool, Vec<String>)) -> bool) {
        let state = self.reports.state.lock().unwrap();
        let (state, timeout) = self
            .reports
            .changed
            .wait_timeout_while(state, SOON, |state| !is(state))
            .unwrap();
        assert!(!timeout.timed_out(), "{:?}", *state);
    }

    /// The first WARNING.
    fn warning(&self) -> String {
        self.wait(|state| !state.1.is_empty());
        assert!(!self.link.is_connected());
        let text = self.reports.state.lock().unwrap().1[0].clone();
        // "TLS: TLS: …", "TLS: I/O: …": what the layers of the connection call the error says nothing to the reader.
        let words: Vec<&str> = text.split(' ').collect();
        let is_label = |word: &&str| word.ends_with(':');
        assert!(!words.windows(2).any(|pair| pair.iter().all(is_label)), "{text}");
        text
    }
}

fn plain(port: u16) -> Config {
    Config {
        host: "localhost".into(),
        port,
        tls: false,
        root_certificates: None,
        client_certificate: None,
        client_key: None,
        protocol: Protocol::Mqtt(Plain {
            client_id: format!("cam-{port}"),
            username: None,
            password_file: None,
            prefix: "p".into(),
            discovery: None,
        }),
        state_gap: Duration::from_millis(100),
        keep_alive: Duration::from_secs(60),
    }
}

fn tls(broker: &Mosquitto) -> Config {
    Config {
        tls: true,
        root_certificates: Some(broker.ca()),
        ..plain(broker.port())
    }
}

fn broker(certificate: Kind) -> Mosquitto {
    Mosquitto::with(Rules {
        tls: true,
        certificate,
        ..Rules::default()
    })
}

#[test]
fn a_certificate_that_mosquittos_own_clients_accept_is_accepted() {
    for kind in [
        Kind::SignedByCommonName,
        Kind::SelfSigned,
        Kind::SelfSignedByCommonName,
        Kind::SelfSignedNoCa,
        Kind::SelfSignedVersion1,
        Kind::SelfSignedVersion1Ecdsa,
    ] {
        let broker = broker(kind);
        let attempt = Attempt::new(tls(&broker));
        attempt.wait(|state| state.0 || !state.1.is_empty());
        let warnings = attempt.reports.state.lock().unwrap().1.clone();
        assert!(warnings.is_empty(), "{kind:?}: {warnings:?}");
    }
}

#[test]
fn every_fault_of_a_certificate_is_named_with_the_next_step() {
    for (kind, wanted) in [
        (Kind::OtherName, vec!["another name than host", "set host"]),
        (Kind::SelfSignedForAnother, vec!["another name than host", "set host"]),
        (
            Kind::SignedByAnotherCommonName,
            vec!["another name than host", "set host", "CN=camera.example"],
        ),
        (Kind::Expired, vec!["has expired", "renew it"]),
        (Kind::SelfSignedExpired, vec!["has expired", "renew it"]),
        (Kind::NotYetValid, vec!["not valid yet", "set the clock"]),
    ] {
        let broker = broker(kind);
        let warning = Attempt::new(tls(&broker)).warning();
        for text in wanted {
            assert!(warning.contains(text), "{kind:?}: {warning}");
        }
    }
    // An authority that is not the broker's, and a self-signed certificate that was not given.
    let other = broker(Kind::Signed);
    for kind in [Kind::Signed, Kind::SelfSigned] {
        let broker = broker(kind);
        let config = Config {
            root_certificates: Some(other.ca()),
            ..tls(&broker)
        };
        let warning = Attempt::new(config).warning();
        assert!(warning.contains("set root-certificates"), "{kind:?}: {warning}");
    }
}

#[test]
fn a_broker_that_wants_a_client_certificate_says_so() {
    let broker = Mosquitto::with(Rules {
        client_certificates: true,
        ..Rules::default()
    });
    let warning = Attempt::new(tls(&broker)).warning();
    assert!(warning.contains("client-certificate and client-key"), "{warning}");
}

#[test]
fn a_password_that_would_leave_the_machine_unencrypted_is_reported() {
    let config = plain(1883);
    let broker = Mosquitto::start();
    let Protocol::Mqtt(protocol) = config.protocol.clone() else {
        unreachable!()
    };
    let protocol = Protocol::Mqtt(Plain {
        username: Some("cam".into()),
        password_file: Some(broker.secret("password", "pw\n")),
        ..protocol
    });
    for host in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let (host, protocol) = (host.into(), protocol.clone());
        let config = Config {
            host,
            port: broker.port(),
            protocol,
            ..config.clone()
        };
        let attempt = Attempt::new(config);
        attempt.wait(|state| state.0 || !state.1.is_empty());
        assert_eq!(attempt.reports.state.lock().unwrap().1, Vec::<String>::new());
    }
    let host = "broker.invalid".into();
    let config = Config {
        host,
        protocol,
        ..config
    };
    let warning = Attempt::new(config.clone()).warning();
    assert!(
        warning.contains("broker.invalid:1883 unencrypted") && warning.contains("set tls=true"),
        "{warning}"
    );
    let again = Attempt::new(config).warning();
    assert!(
        !again.contains("unencrypted"),
        "a recorder has a link for every camera: {again}"
    );
}

#[test]
fn plain_text_on_a_tls_port_and_the_reverse_are_told_apart() {
    let secure = broker(Kind::Signed);
    let warning = Attempt::new(plain(secure.port())).warning();
    assert!(
        warning.contains("it speaks TLS on this port") && warning.contains("set tls=true"),
        "{warning}"
    );
    let open = Mosquitto::start();
    let config = Config {
        port: open.port(),
        ..tls(&secure)
    };
    let warning = Attempt::new(config).warning();
    assert!(warning.contains("seems not to speak TLS on this port"), "{warning}");
}

/// Answers every connection, each in a thread of its own.
fn server(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(size) = stream.read(&mut buffer) {
                    came.extend_from_slice(&buffer[..size]);
                    let answered = answer(&came);
                    if let Some(answer) = &answered {
                        let _ = stream.write_all(answer);
                    }
                    if size == 0 || answered.is_some() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_web_server_is_named_as_one() {
    let at_once = server(|_| Some(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()));
    let long = server(|_| Some(format!("HTTP/1.1 400 Bad Request\r\nServer: {}\r\n\r\n", "x".repeat(200)).into_bytes()));
    // Waits for the end of a line first, which no packet of MQTT holds.
    let patient = server(|came| came.ends_with(b"\r\n\r\n").then(|| b"HTTP/1.0 200 OK\r\n\r\n".to_vec()));
    let secure = broker(Kind::Signed);
    for port in [at_once, long, patient] {
        let encrypted = Config { port, ..tls(&secure) };
        let configs = if port == patient {
            vec![plain(port)]
        } else {
            vec![plain(port), encrypted]
        };
        for config in configs {
            let tls = config.tls;
            let warning = Attempt::new(config).warning();
            assert!(warning.contains("an HTTP server answers there"), "tls={tls}: {warning}");
        }
    }
}

/// A device, without TLS.
fn device(port: u16) -> (Config, std::path::PathBuf) {
    let directory = std::env::temp_dir().join(format!("gcstreamer-trouble-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let key = directory.join("key.pem");
    std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let protocol = Protocol::IotCore(IotCore {
        project: "p".into(),
        region: "r".into(),
        registry: "g".into(),
        device: "d".into(),
        private_key_file: key,
        jwt_lifetime: Duration::from_secs(3600),
        audience: None,
        events: false,
    });
    let config = Config { protocol, ..plain(port) };
    (config, directory)
}

/// The WARNING about the connection, behind the one about the mode of the key file.
fn trouble(attempt: &Attempt) -> String {
    attempt.wait(|state| state.1.iter().any(|text| text.contains("MQTT broker")));
    let state = attempt.reports.state.lock().unwrap();
    state.1.iter().find(|text| text.contains("MQTT broker")).unwrap().clone()
}

#[test]
fn every_refusal_of_a_connack_names_its_likely_causes() {
    for code in [1u8, 2, 3, 4, 5, 6, 13, 128, 132, 135, 137, 255] {
        let port = server(move |_| Some(vec![0x20, 2, 0, code]));
        let (config, directory) = device(port);
        let warning = trouble(&Attempt::new(config));
        assert!(!warning.contains("redacted"), "{code}: {warning}");
        let wanted = match code {
            1 | 132 => vec!["does not speak MQTT 3.1.1"],
            2 => vec!["client id", "second client"],
            3 => vec!["not available"],
            // Reason codes of MQTT 5: not authorized, server busy.
            4 | 5 | 135 => vec!["token", "audience", "clock"],
            137 => vec!["not available or busy"],
            _ => vec!["private-key-file", "audience", "clock", "second client"],
        };
        for text in wanted {
            assert!(warning.contains(text), "{code}: {warning}");
        }
        assert!(code < 6 || warning.contains(&format!("CONNACK {code}")), "{warning}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn a_bridge_that_closes_right_after_connect_says_why_it_may() {
    for answer in [Vec::new(), vec![0x20, 2, 0, 0]] {
        let port = server(move |_| Some(answer.clone()));
        let (config, directory) = device(port);
        let warning = trouble(&Attempt::new(config));
        for text in [
            "it closed the connection",
            "private-key-file",
            "audience",
            "clock",
            "second client",
        ] {
            assert!(warning.contains(text), "{warning}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn a_broker_that_takes_no_last_will_says_what_it_may_not_allow() {
    for line in ["retain_available false", "max_qos 0"] {
        let broker = Mosquitto::with(Rules {
            line: Some(line),
            ..Rules::default()
        });
        let warning = Attempt::new(plain(broker.port())).warning();
        for text in [
            "no retained messages",
            "no QoS 1",
            "last will",
            line.split(' ').next().unwrap(),
        ] {
            assert!(warning.contains(text), "{line}: {warning}");
        }
    }
}

#[test]
fn two_clients_with_one_id_are_reported_that_they_evict_each_other() {
    let broker = Mosquitto::start();
    let first = Attempt::new(plain(broker.port()));
    first.wait(|state| state.0);
    // A client that is not ours, which comes back whenever it was thrown out.
    let id = format!("cam-{}", broker.port());
    let end = Instant::now() + SOON;
    let is_reported = || {
        first
            .reports
            .state
            .lock()
            .unwrap()
            .1
            .iter()
            .any(|text| text.contains("a second client connects with the same client id") && text.contains(&id))
    };
    while !is_reported() {
        assert!(Instant::now() < end, "{:?}", first.reports.state.lock().unwrap());
        if first.link.is_connected() {
            broker.visit_as(&id);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn access_rules_that_swallow_everything_are_reported() {
    let broker = Mosquitto::with(Rules {
        users: vec![("cam", "pw")],
        access: vec!["user cam", "topic read p/#"],
        ..Rules::default()
    });
    let password = broker.secret("password", "pw\n");
    let config = plain(broker.port());
    let Protocol::Mqtt(protocol) = config.protocol.clone() else {
        unreachable!()
    };
    let protocol = Protocol::Mqtt(Plain {
        username: Some("cam".into()),
        password_file: Some(password),
        ..protocol
    });
    let attempt = Attempt::new(Config { protocol, ..config });
    attempt.wait(|state| !state.1.is_empty());
    let warning = attempt.reports.state.lock().unwrap().1[0].clone();
    assert!(
        warning.contains("p/availability") && warning.contains("access rules"),
        "{warning}"
    );
    assert!(attempt.link.is_connected());
}

#[test]
fn a_message_that_the_broker_ends_the_connection_for_is_given_up_and_the_rest_is_published() {
    let broker = Mosquitto::with(Rules {
        largest_packet: Some(1000),
        ..Rules::default()
    });
    let config = plain(broker.port());
    let Protocol::Mqtt(protocol) = config.protocol.clone() else {
        unreachable!()
    };
    let payload = vec![b'x'; 2000].into();
    let protocol = Protocol::Mqtt(Plain {
        discovery: Some(("homeassistant/device/cam/config".into(), payload)),
        ..protocol
    });
    let attempt = Attempt::new(Config { protocol, ..config });
    let text = "discovery message of 2000 bytes on homeassistant/device/cam/config";
    attempt.wait(|state| state.1.iter().any(|warning| warning.contains(text)));
    attempt.wait(|state| state.0);
    let watcher = broker.watch(&["p/availability"], None);
    watcher.wait_last("p/availability", "online", SOON);
}
