//! The driver against a broker that accepts everything, and a wall clock that the test sets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{IotCore, Plain, Wanted};
use super::*;

/// How far the wall clock was set forward, s.
static AHEAD: AtomicU64 = AtomicU64::new(0);

fn wall() -> SystemTime {
    SystemTime::now() + Duration::from_secs(AHEAD.load(Ordering::Relaxed))
}

struct Deaf;

impl Listener for Deaf {
    fn connected(&self, _up: bool) {}
    fn trouble(&self, _text: String) {}
    fn recovered(&self, _after: Duration) {}
    fn config(&self, _payload: bytes::Bytes) {}
    fn command(&self, _tail: String, _payload: bytes::Bytes, _retained: bool) {}
}

/// Reads one packet; `None` at the end of the connection.
fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let (kind, mut length) = (byte[0], 0);
    for place in 0..4 {
        stream.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}

/// Accepts every connection, publish and subscription; returns the port and the number of connections so far.
fn broker() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            while let Some((kind, body)) = packet(&mut stream) {
                let answer = match kind >> 4 {
                    1 => {
                        counted.fetch_add(1, Ordering::Relaxed);
                        vec![0x20, 2, 0, 0]
                    }
                    3 => {
                        let id = 2 + usize::from(body[0]) * 256 + usize::from(body[1]);
                        vec![0x40, 2, body[id], body[id + 1]]
                    }
                    // One filter at a time.
                    8 => vec![0x90, 3, body[0], body[1], 1],
                    12 => vec![0xd0, 0],
                    _ => break,
                };
                stream.write_all(&answer).unwrap();
            }
        }
    });
    (port, connections)
}

fn config(port: u16, protocol: Protocol) -> Config {
    Config {
        host: "127.0.0.1".into(),
        port,
        tls: false,
        root_certificates: None,
        client_certificate: None,
        client_key: None,
        protocol,
        state_gap: DEVICE_GAP,
        keep_alive: Duration::from_secs(60),
    }
}

#[test]
fn attempts_whose_files_do_not_answer_leave_the_threads_to_others_and_read_once_they_do() {
    let pipe = std::env::temp_dir().join(format!("gcstreamer-driver-{}.pipe", std::process::id()));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let plain = Plain {
        client_id: "c".into(),
        username: Some("u".into()),
        password_file: Some(pipe.clone()),
        prefix: "p".into(),
        discovery: None,
    };
    let config = Arc::new(config(1883, Protocol::Mqtt(plain)));
    // Two blocking threads: one for the attempt that hangs, one for the task below.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let turn = Arc::default();
        for _ in 0..5 {
            let given_up = Reading::begin(Arc::clone(&config), wall, Arc::clone(&turn));
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(given_up);
        }
        let other = tokio::task::spawn_blocking(|| "the spool");
        let other = tokio::time::timeout(Duration::from_secs(10), other).await;
        assert_eq!(other.expect("no thread is left").unwrap(), "the spool");
        let mut last = Reading::begin(Arc::clone(&config), wall, Arc::clone(&turn));
        let answer = std::thread::spawn(move || {
            // One line for the abandoned attempt, one for the last.
            for _ in 0..2 {
                std::fs::write(&pipe, "secret").unwrap();
                std::thread::sleep(Duration::from_millis(300));
            }
            std::fs::remove_file(pipe).unwrap();
        });
        let read = tokio::time::timeout(Duration::from_secs(10), &mut last.0).await;
        let login = read.expect("it reads").flatten().unwrap().unwrap().login;
        assert_eq!(login, Some(("u".to_owned(), "secret".to_owned())));
        answer.join().unwrap();
    });
}

#[test]
fn a_token_is_renewed_once_a_clock_that_was_behind_is_set() {
    let key = std::env::temp_dir().join(format!("gcstreamer-driver-{}.pem", std::process::id()));
    let made = Command::new("openssl")
        .args(["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let (port, connections) = broker();
    let device = IotCore {
        project: "p".into(),
        region: "r".into(),
        registry: "g".into(),
        device: "d".into(),
        private_key_file: key.clone(),
        jwt_lifetime: Duration::from_secs(1210),
        audience: None,
        events: false,
    };
    let config = config(port, Protocol::IotCore(device));
    let topics = Topics::new(&config).unwrap();
    let interval = PublishInterval::of(&topics.client_id, "driver test");
    let shared = Arc::new(Shared::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(run(
        Arc::clone(&shared),
        config,
        topics,
        Arc::new(Deaf),
        Vec::new(),
        interval,
        wall,
    ));
    let wait = |wanted: u64| {
        let end = std::time::Instant::now() + CLOCK_CHECK + Duration::from_secs(10);
        while connections.load(Ordering::Relaxed) < wanted && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        connections.load(Ordering::Relaxed)
    };
    assert_eq!(wait(1), 1);
    // Past the shortest age of a connection.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    AHEAD.store(1200, Ordering::Relaxed);
    assert_eq!(wait(2), 2, "exp is 10 s away");
    shared.close(Wanted::default(), std::time::Instant::now() + Duration::from_secs(2));
    assert_eq!(connections.load(Ordering::Relaxed), 2, "the new token is good for 20 minutes");
    std::fs::remove_file(key).unwrap();
}
