//! A broker for tests that is as strict as the IoT Core bridge was documented to be: it closes the connection, and records
//! why, on anything that a device may not do.
//!
//! The server side of MQTT 3.1.1, plain or TLS, for one device. It shares no code with the product: packets are read here by
//! the letter of the standard, and tokens are verified with the device's public key. It runs on threads of its own with a
//! real clock. One lock guards everything it knows ([`Seen`]); a condition variable wakes the waiters.
//!
//! ```ignore
//! let broker = StrictBroker::start(Rules::new(public_key_pem));
//! // … a device connects to 127.0.0.1:broker.port(), trusting broker.ca_pem() …
//! assert!(broker.wait_for(|seen| seen.last_state().as_deref() == Some("connected"), Duration::from_secs(5)));
//! broker.assert_no_violations();
//! ```
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub
)]

mod bridge;
mod packet;
mod record;
mod rules;
mod token;
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ServerConfig;

pub use record::{Connection, Delivery, End, Published, Seen};
pub use rules::{MEASURING_SLACK, Rules};
pub use token::Token;

use bridge::Bridge;
use wire::{Authority, Wire};

/// Not MQTT: packet type 15 with a length of five bytes.
const GARBAGE: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x42];

/// A running broker. Dropped, it closes everything and ends its threads.
pub struct StrictBroker {
    shared: Arc<Shared>,
    address: SocketAddr,
    authority: Option<Authority>,
    acceptor: Mutex<Option<Acceptor>>,
    timer: Option<JoinHandle<()>>,
}

struct Acceptor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Shared {
    bridge: Mutex<Bridge>,
    changed: Condvar,
}

impl Shared {
    /// Changes the bridge under the lock, then writes without it.
    fn act<T>(&self, change: impl FnOnce(&mut Bridge, Instant) -> T) -> T {
        let mut bridge = self.bridge.lock().unwrap();
        let outcome = change(&mut bridge, Instant::now());
        let dirty = std::mem::take(&mut bridge.dirty);
        drop(bridge);
        self.changed.notify_all();
        dirty.iter().for_each(|wire| wire.flush());
        outcome
    }

    fn look<T>(&self, at: impl FnOnce(&Bridge) -> T) -> T {
        at(&self.bridge.lock().unwrap())
    }

    /// Ends connections whose time has come.
    fn keep_time(&self) {
        let mut bridge = self.bridge.lock().unwrap();
        while !bridge.over {
            let next = bridge.tick(Instant::now());
            let dirty = std::mem::take(&mut bridge.dirty);
            if !dirty.is_empty() {
                drop(bridge);
                self.changed.notify_all();
                dirty.iter().for_each(|wire| wire.flush());
                bridge = self.bridge.lock().unwrap();
                continue;
            }
            let wait = next.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            bridge = self
                .changed
                .wait_timeout(bridge, wait.min(Duration::from_hours(1)))
                .unwrap()
                .0;
        }
    }

    /// Reads one connection until it has ended.
    fn serve(&self, number: usize, wire: &Wire) {
        let mut pending = Vec::new();
        while self.look(|b| b.is_open(number)) {
            if wire.is_silent() {
                return self.wait_until_closed(number);
            }
            let read = wire.read(&mut pending);
            if wire.is_silent() {
                continue;
            }
            match read {
                Ok(1..) => self.digest(number, &mut pending),
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                    self.act(|b, now| b.end(number, End::TlsFailed(e.to_string()), now));
                }
                Ok(0) | Err(_) => self.act(|b, now| b.end(number, End::Gone, now)),
            }
        }
    }

    fn wait_until_closed(&self, number: usize) {
        let bridge = self.bridge.lock().unwrap();
        let _closed = self.changed.wait_while(bridge, |b| b.is_open(number)).unwrap();
    }

    fn digest(&self, number: usize, pending: &mut Vec<u8>) {
        while self.look(|b| b.is_open(number)) {
            if !pending.is_empty() && self.look(|b| b.is_over(number)) {
                let text = format!("{} bytes came after DISCONNECT", pending.len());
                return self.act(|b, now| b.violation(number, text, now));
            }
            match packet::parse(pending) {
                Ok(None) => return,
                Ok(Some((packet, len))) => {
                    pending.drain(..len);
                    self.act(|b, now| b.receive(number, packet, now));
                }
                Err(text) => return self.act(|b, now| b.violation(number, format!("malformed: {text}"), now)),
            }
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, stop: &AtomicBool) {
    for socket in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else {
            continue;
        };
        let wire = Arc::new(Wire::new(socket, tls));
        let number = shared.act(|b, now| b.open(wire.clone(), now));
        let shared = shared.clone();
        std::thread::spawn(move || shared.serve(number, &wire));
    }
}

impl StrictBroker {
    pub fn start(rules: Rules) -> Self {
        let authority = rules.tls.then(Authority::create);
        let shared = Arc::new(Shared {
            bridge: Mutex::new(Bridge::new(rules)),
            changed: Condvar::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().unwrap();
        let timer = shared.clone();
        let broker = Self {
            shared,
            address,
            authority,
            acceptor: Mutex::new(None),
            timer: Some(std::thread::spawn(move || timer.keep_time())),
        };
        broker.listen(listener);
        broker
    }

    fn listen(&self, listener: TcpListener) {
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, tls, stopped) = (self.shared.clone(), self.authority.as_ref(), stop.clone());
        let tls = tls.map(|a| a.server.clone());
        let thread = std::thread::spawn(move || accept(&shared, &listener, tls.as_ref(), &stopped));
        *self.acceptor.lock().unwrap() = Some(Acceptor { stop, thread });
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The CA to trust. Of a broker without TLS: none.
    pub fn ca_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(|a| a.ca_pem.as_str())
    }

    /// All that was seen until now.
    pub fn seen(&self) -> Seen {
        self.shared.look(|b| b.seen.clone())
    }

    /// Whether `is` has become true of what was seen. `is` runs under the broker's lock: it must not call the broker.
    pub fn wait_for(&self, mut is: impl FnMut(&Seen) -> bool, at_most: Duration) -> bool {
        let bridge = self.shared.bridge.lock().unwrap();
        let waited = self.shared.changed.wait_timeout_while(bridge, at_most, |b| !is(&b.seen));
        !waited.unwrap().1.timed_out()
    }

    pub fn violations(&self) -> Vec<String> {
        self.shared.look(|b| b.seen.violations.clone())
    }

    /// # Panics
    /// When there was one; it names them all.
    pub fn assert_no_violations(&self) {
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "the bridge had reason to close the connection: {violations:#?}"
        );
    }

    /// Arrival and payload of each state.
    pub fn states(&self) -> Vec<(Instant, Bytes)> {
        let states = self.seen().states.into_iter();
        states.map(|s| (s.at, s.payload)).collect()
    }

    pub fn events(&self) -> Vec<Published> {
        self.seen().events
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.seen().connections
    }

    /// Filters and QoS of the device that is connected now.
    pub fn subscriptions(&self) -> Vec<(String, u8)> {
        let seen = self.seen();
        seen.connected().map(|c| c.subscriptions.clone()).unwrap_or_default()
    }

    /// The device's config from now on: sent to it now, and at each subscription. How many got it now.
    pub fn send_config(&self, payload: impl Into<Bytes>) -> usize {
        let payload = payload.into();
        self.shared.act(|b, now| b.set_config(&payload, now))
    }

    /// A command with this tail, which may be empty. Nobody subscribed: it is lost, and 0 is returned.
    pub fn send_command(&self, tail: &str, payload: impl Into<Bytes>, retained: bool) -> usize {
        let payload = payload.into();
        self.shared.act(|b, now| b.command(tail, &payload, retained, now))
    }

    /// A config that comes again whenever it is acknowledged or subscribed to, marked as a duplicate, `copies` times after
    /// the first. With QoS 0 only subscribing brings it again.
    pub fn redeliver(&self, payload: impl Into<Bytes>, copies: u32) {
        let payload = payload.into();
        self.shared.act(|b, now| b.redeliver(&payload, copies, now));
    }

    /// One config of so many bytes, not remembered ([`Self::send_config`] is, and comes again at each connection).
    pub fn send_oversized(&self, bytes: usize) -> usize {
        let payload = Bytes::from(vec![b'x'; bytes]);
        self.shared.act(|b, now| b.send_once(&payload, now))
    }

    /// Bytes that are no MQTT.
    pub fn send_garbage(&self) -> usize {
        self.send_raw(&GARBAGE)
    }

    /// These bytes as they are, to who is connected.
    pub fn send_raw(&self, bytes: &[u8]) -> usize {
        self.shared.act(|b, _| b.send_raw(bytes))
    }

    /// The next `times` CONNECTs that have no fault get this return code and are closed.
    pub fn refuse_next(&self, code: u8, times: usize) {
        self.shared.act(|b, _| b.refusals.extend(std::iter::repeat_n(code, times)));
    }

    /// The next CONNECT that has no fault is not answered; the connection stays open.
    pub fn stall_next_connack(&self) {
        self.shared.act(|b, _| b.connacks_to_stall += 1);
    }

    /// The next connection is accepted by TCP, and nothing else happens on it.
    pub fn stall_next_handshake(&self) {
        self.shared.act(|b, _| b.handshakes_to_stall += 1);
    }

    /// `true`: publishes are taken and not acknowledged. `false`: what is open is acknowledged, and all that follows.
    pub fn hold_acks(&self, hold: bool) {
        self.shared.act(|b, now| b.hold_acks(hold, now));
    }

    /// Open connections are neither read nor written any more, and not closed. New ones are served, and the device's next
    /// one evicts them.
    pub fn half_open(&self) -> usize {
        self.shared.act(|b, _| b.half_open())
    }

    /// Closes every connection. How many there were.
    pub fn drop_all_connections(&self) -> usize {
        self.shared.act(Bridge::drop_all)
    }

    /// Whether a connection is closed soon after its token has expired. The default is yes, as the real one.
    pub fn disconnect_at_token_expiry(&self, yes: bool) {
        self.shared.act(|b, _| b.disconnect_at_expiry = yes);
    }

    /// The bridge's clock = the machine's plus so many seconds.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.shared.act(|b, _| b.rules.clock_offset = seconds);
    }

    /// Another public key of the device, for the connections to come.
    pub fn set_public_key(&self, pem: impl Into<String>) {
        let pem = pem.into();
        self.shared.act(|b, _| b.rules.public_key_pem = pem);
    }

    /// Whether telemetry closes the connection.
    pub fn no_telemetry_topic(&self, yes: bool) {
        self.shared.act(|b, _| b.rules.no_telemetry_topic = yes);
    }

    /// Nobody listens on the port: new connections are refused by TCP. Open ones stay.
    pub fn stop_listening(&self) {
        let Some(acceptor) = self.acceptor.lock().unwrap().take() else {
            return;
        };
        acceptor.stop.store(true, Ordering::SeqCst);
        // Accepting cannot be interrupted otherwise.
        let _ = TcpStream::connect(self.address);
        acceptor.thread.join().unwrap();
    }

    /// After [`Self::stop_listening`], on the same port.
    ///
    /// # Panics
    /// When somebody has taken the port.
    pub fn listen_again(&self) {
        if self.acceptor.lock().unwrap().is_none() {
            self.listen(TcpListener::bind(self.address).expect("the port is still free"));
        }
    }
}

impl Drop for StrictBroker {
    fn drop(&mut self) {
        self.stop_listening();
        self.shared.act(|b, now| {
            b.drop_all(now);
            b.over = true;
        });
        if let Some(timer) = self.timer.take() {
            let _ = timer.join();
        }
    }
}
