//! One connection to a broker, MQTT 3.1.1. The only module that names `rumqttc`.
//!
//! - `session`: the packets over one socket.
//! - `failure`: how a connection ended, in words.
//!
//! The crate's event loop is not used: it reconnects by itself, drops unacknowledged publishes, keeps events of the previous
//! connection, and waits for the broker's addresses one after the other. Only its packets and its connection state are used
//! here. Each connection has its own task, so that it is never cancelled in the middle of a packet and a panic in the crate
//! ends only this connection. The task ends with the connection, or when the [`Connection`] is dropped.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    Connect, ConnectionError, Disconnect, Event, LastWill, Outgoing, Packet, QoS, Request, Subscribe, SubscribeFilter,
    SubscribeReasonCode,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{FailedAddresses, first_to_connect};
use super::error_text::Login;
use super::link::Publish;
use super::shared::lock;
use failure::{Context, Failure};
use session::Session;

mod failure;
mod session;

/// Time for name look-up, TCP, TLS and ConnAck together. Also the time limit of a write.
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// How long the broker may take to close the connection after a DISCONNECT.
const DISCONNECT_WAIT: Duration = Duration::from_secs(1);
/// Capacity for requests to the task. The link has at most one publish, one subscription and one DISCONNECT outstanding.
const REQUESTS: usize = 8;
/// Events that wait for the driver, at most; then reading from the network pauses.
const EVENTS: usize = 16;

/// How to connect.
pub(super) struct ConnectionParams {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) client_id: String,
    pub(super) login: Option<(String, String)>,
    /// Whether the password is a token; affects texts only.
    pub(super) has_token: bool,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) will: Option<Publish>,
    /// Interval of PINGREQ; the connection ends if no PINGRESP has arrived by the next one.
    pub(super) keep_alive: Duration,
    /// Whether a client certificate is offered; affects texts only.
    pub(super) has_certificate: bool,
    /// Whether a failure will be reported, so that finding its cause is worthwhile.
    pub(super) is_first_failure: bool,
    /// The largest packet accepted from the broker, bytes.
    pub(super) max_incoming: usize,
    /// Shared by all connections of a client.
    pub(super) failed: FailedAddresses,
}

impl ConnectionParams {
    fn context(&self) -> Context {
        Context {
            client_id: self.client_id.clone(),
            host: self.host.clone(),
            port: self.port,
            login: match (&self.login, self.has_token) {
                (None, _) => Login::None,
                (Some(_), false) => Login::Password,
                (Some(_), true) => Login::Token,
            },
            keep_alive: self.keep_alive(),
            has_tls: self.tls.is_some(),
            has_certificate: self.has_certificate,
            has_will: self.will.is_some(),
            is_first_failure: self.is_first_failure,
            address: None,
            has_alternatives: false,
            accepted: None,
        }
    }

    fn keep_alive(&self) -> Duration {
        // 0 would turn the keep-alive off (MQTT 3.1.1, 3.1.2.10).
        Duration::from_secs(self.keep_alive.as_secs().clamp(1, u16::MAX.into()))
    }

    /// Returns the first packet.
    fn connect(&mut self) -> Connect {
        let mut connect = Connect::new(self.client_id.clone());
        connect.keep_alive = u16::try_from(self.keep_alive().as_secs()).unwrap_or(u16::MAX);
        // IoT Core requires it, and callers publish and subscribe again after every ConnAck anyway.
        connect.clean_session = true;
        if let Some((user, password)) = self.login.take() {
            connect.set_login(user, password);
        }
        let will = self.will.take();
        connect.last_will = will.map(|will| LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, will.retain));
        connect
    }
}

/// An event from the broker.
#[derive(Debug)]
pub(super) enum Received {
    Connected,
    Acknowledged,
    /// The refused subscriptions.
    Subscribed(Vec<String>),
    Message {
        topic: String,
        payload: Bytes,
        retained: bool,
        duplicate: bool,
    },
    /// DISCONNECT went out and the connection is closed.
    Disconnected,
    /// The connection could not be made, or it broke. Redacted.
    Lost(String),
    /// A packet of this many bytes exceeds our limit; the connection is over.
    TooLarge(usize),
}

/// A connection, from the first packet to the end. Dropping it closes the socket without a DISCONNECT.
pub(super) struct Connection {
    requests: mpsc::Sender<Request>,
    received: mpsc::Receiver<Received>,
    task: AbortHandle,
    /// The filters of the last SUBSCRIBE.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Connection {
    /// Begins to connect. Must be called within the runtime.
    pub(super) fn open(options: ConnectionParams) -> Self {
        let (host, port) = (options.host.clone(), options.port);
        Self::open_with(options, async move {
            tokio::net::lookup_host((host, port)).await.map(Iterator::collect)
        })
    }

    /// Begins to connect to the addresses that `lookup` finds.
    fn open_with(options: ConnectionParams, lookup: impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static) -> Self {
        let (sender, received) = mpsc::channel(EVENTS);
        let (requests, asked_for) = mpsc::channel(REQUESTS);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = Task {
            context: options.context(),
            failed: options.failed.clone(),
            requests: asked_for,
            asked: Arc::clone(&asked),
            sender,
        };
        let task = tokio::spawn(task.run(options, lookup));
        Self {
            requests,
            received,
            task: task.abort_handle(),
            asked,
        }
    }

    /// Waits for the next packet. Nothing follows [`Received::Lost`] and [`Received::Disconnected`]. Cancel safe.
    pub(super) async fn received(&mut self) -> Received {
        // The task sends a last event before it ends, unless it panics.
        let ended = || Received::Lost("the MQTT client broke off".to_owned());
        self.received.recv().await.unwrap_or_else(ended)
    }

    /// Publishes at QoS 1. A connection that has ended ignores all requests; [`Self::received`] returns why it ended.
    pub(super) fn publish(&self, publish: Publish) {
        let mut packet = rumqttc::Publish::from_bytes(publish.topic, QoS::AtLeastOnce, publish.payload);
        packet.retain = publish.retain;
        self.ask(Request::Publish(packet));
    }

    /// Subscribes to the topics at QoS 1.
    pub(super) fn subscribe(&self, topics: Vec<String>) {
        // A SUBACK holds only return codes, in the order of the filters (MQTT 3.1.1, 3.9.3).
        lock(&self.asked).clone_from(&topics);
        let filters = topics.into_iter().map(|topic| SubscribeFilter::new(topic, QoS::AtLeastOnce));
        self.ask(Request::Subscribe(Subscribe::new_many(filters)));
    }

    /// Sends DISCONNECT; [`Received::Disconnected`] follows.
    pub(super) fn disconnect(&self) {
        self.ask(Request::Disconnect(Disconnect));
    }

    fn ask(&self, request: Request) {
        // Fails only if the task has ended; `received` then returns the reason.
        let _ = self.requests.try_send(request);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a connection.
struct Task {
    context: Context,
    failed: FailedAddresses,
    requests: mpsc::Receiver<Request>,
    asked: Arc<Mutex<Vec<String>>>,
    sender: mpsc::Sender<Received>,
}

impl Task {
    /// Connects and forwards the broker's packets until the connection ends.
    async fn run(mut self, options: ConnectionParams, lookup: impl Future<Output = io::Result<Vec<SocketAddr>>>) {
        let opened = self.connect(options, lookup).await;
        if let Some(address) = self.context.address {
            if opened.is_ok() {
                self.failed.remove(address);
            } else {
                self.failed.add(address);
            }
        }
        let mut session = match opened {
            Ok(session) => session,
            Err(failure) => return self.end(&failure).await,
        };
        self.context.accepted = Some(Instant::now());
        let mut received = Some(Received::Connected);
        loop {
            if let Some(received) = received
                && self.sender.send(received).await.is_err()
            {
                return;
            }
            received = match session.next(&mut self.requests).await {
                Ok(Event::Incoming(packet)) => incoming(packet, &self.asked),
                Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                    // Closing first, with unread bytes, would reset the connection, and the DISCONNECT might be lost.
                    let _ = timeout(DISCONNECT_WAIT, session.closed()).await;
                    drop(session);
                    let _ = self.sender.send(Received::Disconnected).await;
                    return;
                }
                Ok(Event::Outgoing(_)) => None,
                Err(error) => return self.end(&Failure::Mqtt(error)).await,
            };
        }
    }

    async fn end(&self, failure: &Failure) {
        // Fails if the connection was dropped, which needs no last event.
        let _ = self.sender.send(self.context.end(failure).await).await;
    }

    async fn connect(
        &mut self,
        mut options: ConnectionParams,
        lookup: impl Future<Output = io::Result<Vec<SocketAddr>>>,
    ) -> Result<Session, Failure> {
        let deadline = Instant::now() + CONNECT_TIME;
        let found = timeout_at(deadline, lookup).await.map_err(|_| Failure::NoLookup)?;
        let mut addresses = found.map_err(ConnectionError::Io)?;
        self.context.has_alternatives = addresses.len() > 1;
        self.failed.put_last(&mut addresses);
        let (address, tcp) = first_to_connect(addresses, TcpStream::connect, deadline)
            .await
            .map_err(Failure::Unreachable)?;
        self.context.address = Some(address);
        let packet = options.connect();
        let session = Session::open(tcp, options.tls, &options.host, packet, options.max_incoming);
        match timeout_at(deadline, session).await {
            Ok(opened) => Ok(opened?),
            Err(_) => Err(ConnectionError::NetworkTimeout.into()),
        }
    }
}

fn incoming(packet: Packet, asked: &Mutex<Vec<String>>) -> Option<Received> {
    match packet {
        Packet::ConnAck(_) => Some(Received::Connected),
        Packet::PubAck(_) => Some(Received::Acknowledged),
        Packet::SubAck(answer) => {
            let asked = lock(asked);
            let refused = answer.return_codes.iter().zip(asked.iter());
            let refused = refused.filter(|(code, _)| **code == SubscribeReasonCode::Failure);
            Some(Received::Subscribed(refused.map(|(_, topic)| topic.clone()).collect()))
        }
        Packet::Publish(message) => Some(Received::Message {
            topic: message.topic,
            payload: message.payload,
            retained: message.retain,
            duplicate: message.dup,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
