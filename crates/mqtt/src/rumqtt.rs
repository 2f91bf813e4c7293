//! One connection to a broker, MQTT 3.1.1. The only file that names `rumqttc`.
//!
//! The crate reconnects by itself, drops unacknowledged publishes and keeps events of the previous connection. So each connection
//! has its own event loop, polled by its own task: `poll` is never cancelled half way, and a panic in the crate costs one
//! connection. The task ends with the connection, and with the [`Connection`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS, StateError,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::error_text::{CLOSED, Login, NO_TLS, causes, error_text, refused, tls_failure, unwrapped, wrong_server};
use super::link::Publish;
use super::probe;
use super::shared::lock;
use super::topics::MAX_PACKET;
use gcstreamer_schema::redact;

/// Time for name look-up, TCP, TLS and ConnAck together, in seconds. Also the time limit of a write.
const CONNECT_SECONDS: u64 = 20;
/// How long the broker may take to close the connection after a DISCONNECT.
const DISCONNECT_WAIT: Duration = Duration::from_secs(1);
/// Requests that wait for the event loop: one publish, one subscription, one DISCONNECT.
const REQUESTS: usize = 8;
/// Events that wait for the driver, at most; then reading from the network pauses.
const EVENTS: usize = 16;

/// A connection that ends this soon after its ConnAck was refused rather than broken.
const SOON: Duration = Duration::from_secs(5);

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
    /// The largest packet that is taken from the broker, bytes.
    pub(super) max_incoming: usize,
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

/// Context for explaining an error.
struct Context {
    client_id: String,
    host: String,
    port: u16,
    login: Login,
    keep_alive: Duration,
    has_tls: bool,
    has_certificate: bool,
    is_first_failure: bool,
    /// When the broker accepted the connection.
    accepted: Option<Instant>,
}

/// A connection, from the first packet to the end. Dropping it closes the socket without a DISCONNECT.
pub(super) struct Connection {
    client: AsyncClient,
    received: mpsc::Receiver<Received>,
    pump: AbortHandle,
    /// The filters of the last SUBSCRIBE.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Connection {
    /// Begins to connect. Must be called within the runtime.
    pub(super) fn open(options: ConnectionParams) -> Self {
        let keep_alive = Duration::from_secs(options.keep_alive.as_secs().clamp(1, u16::MAX.into()));
        let mut mqtt = MqttOptions::new(options.client_id.clone(), options.host.clone(), options.port);
        mqtt.set_keep_alive(keep_alive)
            .set_clean_session(true)
            .set_max_packet_size(options.max_incoming, MAX_PACKET);
        let login = match (&options.login, options.has_token) {
            (None, _) => Login::None,
            (Some(_), false) => Login::Password,
            (Some(_), true) => Login::Token,
        };
        let context = Context {
            client_id: options.client_id.clone(),
            host: options.host,
            port: options.port,
            login,
            keep_alive,
            has_tls: options.tls.is_some(),
            has_certificate: options.has_certificate,
            is_first_failure: options.is_first_failure,
            accepted: None,
        };
        if let Some((user, password)) = options.login {
            mqtt.set_credentials(user, password);
        }
        if let Some(config) = options.tls {
            mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        if let Some(will) = options.will {
            mqtt.set_last_will(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, will.retain));
        }
        let (client, mut events) = AsyncClient::new(mqtt, REQUESTS);
        events
            .network_options
            .set_connection_timeout(CONNECT_SECONDS)
            .set_tcp_nodelay(true);
        let (sender, received) = mpsc::channel(EVENTS);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let filters = Arc::clone(&asked);
        let pump = tokio::spawn(async move { pump(events, &filters, context, &sender).await });
        Self {
            client,
            received,
            pump: pump.abort_handle(),
            asked,
        }
    }

    /// Waits for the next packet. Nothing follows [`Received::Lost`] and [`Received::Disconnected`]. Cancel safe.
    pub(super) async fn received(&mut self) -> Received {
        let ended = || Received::Lost("the MQTT client broke off".to_owned());
        self.received.recv().await.unwrap_or_else(ended)
    }

    /// Asks the event loop to publish at QoS 1. A connection that has ended ignores this and all other requests;
    /// [`Self::received`] returns why it ended.
    pub(super) fn publish(&self, publish: Publish) {
        let _ = self
            .client
            .try_publish(publish.topic, QoS::AtLeastOnce, publish.retain, Vec::from(publish.payload));
    }

    /// Subscribes to the topics at QoS 1.
    pub(super) fn subscribe(&self, topics: Vec<String>) {
        lock(&self.asked).clone_from(&topics);
        let filters = topics.into_iter().map(|topic| SubscribeFilter::new(topic, QoS::AtLeastOnce));
        let _ = self.client.try_subscribe_many(filters);
    }

    /// Sends DISCONNECT; [`Received::Disconnected`] follows.
    pub(super) fn disconnect(&self) {
        let _ = self.client.try_disconnect();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Polls until the connection ends.
async fn pump(mut events: EventLoop, asked: &Mutex<Vec<String>>, mut context: Context, sender: &mpsc::Sender<Received>) {
    loop {
        let received = match events.poll().await {
            Ok(Event::Incoming(packet)) => incoming(packet, asked),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Some(Received::Disconnected),
            Ok(Event::Outgoing(_)) => None,
            Err(error) => Some(context.end(&error).await),
        };
        let Some(received) = received else {
            continue;
        };
        if matches!(received, Received::Connected) {
            context.accepted = Some(Instant::now());
        }
        // Polling again after any of these would reconnect.
        let last = matches!(received, Received::Lost(_) | Received::TooLarge(_) | Received::Disconnected);
        if matches!(received, Received::Disconnected) {
            closed_by_broker(&mut events).await;
            events.network = None;
        }
        if sender.send(received).await.is_err() || last {
            return;
        }
    }
}

/// Reads until the broker closes the connection. Closing it first, with unread bytes, would reset it, and the DISCONNECT might be
/// lost.
async fn closed_by_broker(events: &mut EventLoop) {
    let Some(network) = events.network.as_mut() else {
        return;
    };
    let _ = tokio::time::timeout(DISCONNECT_WAIT, async { while network.read().await.is_ok() {} }).await;
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

impl Context {
    /// Returns how the connection ended, and what to do.
    async fn end(&self, error: &ConnectionError) -> Received {
        if self.accepted.is_none() {
            return Received::Lost(self.text(&self.not_accepted(error).await));
        }
        match error {
            ConnectionError::MqttState(StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(size))) => {
                Received::TooLarge(*size)
            }
            error if is_closed(error) => Received::Lost(self.text(&self.closed())),
            error => Received::Lost(self.text(&self.broken(error))),
        }
    }

    fn text(&self, reason: &str) -> String {
        redact(&format!("MQTT broker {}:{}: {reason}", self.host, self.port))
    }

    /// Returns why there is no ConnAck.
    async fn not_accepted(&self, error: &ConnectionError) -> String {
        let refusal = match error {
            ConnectionError::ConnectionRefused(ConnectReturnCode::RefusedProtocolVersion) => Some(1),
            ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId) => Some(2),
            ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => Some(3),
            ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword) => Some(4),
            ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized) => Some(5),
            ConnectionError::MqttState(StateError::Deserialization(PacketError::InvalidConnectReturnCode(code))) => Some(*code),
            _ => None,
        };
        if let Some(code) = refusal {
            return refused(code, self.login);
        }
        if let Some(text) = tls_failure(error, self.has_certificate).filter(|text| !text.starts_with(NO_TLS)) {
            return text;
        }
        let is_refused = matches!(error, ConnectionError::Io(error) if !is_end(error) && !is_no_packet(error));
        if is_refused {
            return self.broken(error);
        }
        if self.is_first_failure
            && let Some(text) = wrong_server(probe::what_listens(&self.host, self.port).await, self.has_tls)
        {
            return text.to_owned();
        }
        match error {
            ConnectionError::Tls(_) => format!("{NO_TLS} (TLS: {})", error_text(unwrapped(error))),
            error if is_closed(error) => self.closed_at_once(),
            error => self.broken(error),
        }
    }

    /// Returns the sentence for an accepted connection that the broker closed. Two clients with one id do this to each other; the
    /// first report must name that cause, because there is only one report for an outage.
    fn closed(&self) -> String {
        let id = &self.client_id;
        let hint = if self.accepted.is_some_and(|at| at.elapsed() < SOON) {
            format!(" right after accepting it; {}", causes(self.login))
        } else {
            String::new()
        };
        format!(
            "{CLOSED}{hint}; if it happens again and again, a second client connects with the same client id ({id}), and a broker keeps only \
             the newest: stop that one, or give each a device-id (or client-id) of its own"
        )
    }

    fn closed_at_once(&self) -> String {
        let certificate = if self.has_tls && !self.has_certificate {
            ", or it wants client-certificate and client-key"
        } else {
            ""
        };
        format!(
            "{CLOSED} right after CONNECT, without an answer; {}{certificate}",
            causes(self.login)
        )
    }

    fn broken(&self, error: &ConnectionError) -> String {
        if let Some(text) = tls_failure(error, self.has_certificate) {
            return text;
        }
        match error {
            ConnectionError::NetworkTimeout => {
                format!("no answer within {CONNECT_SECONDS} s; check host, port, tls and the network")
            }
            ConnectionError::FlushTimeout => format!("it has taken no bytes for {CONNECT_SECONDS} s"),
            ConnectionError::NotConnAck(_) => NO_BROKER.to_owned(),
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                format!("it has not answered for {} s", self.keep_alive.as_secs())
            }
            ConnectionError::MqttState(StateError::Deserialization(_)) if self.accepted.is_none() => NO_BROKER.to_owned(),
            error if is_closed(error) => CLOSED.to_owned(),
            other => error_text(unwrapped(other)),
        }
    }
}

const NO_BROKER: &str = "it does not answer as an MQTT broker; check host and port";

/// Returns whether the broker closed the connection. Many brokers end a TLS connection without close_notify, so an unexpected EOF
/// is a normal end.
fn is_closed(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::Io(error)
        | ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(PacketError::Io(error))) => {
            is_end(error)
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => true,
        _ => false,
    }
}

fn is_end(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe
    )
}

/// Returns whether the bytes of a server were not an MQTT packet truncated by the end of the connection.
fn is_no_packet(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::Other && error.to_string().contains("bytes remaining")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::TlsError;

    #[test]
    fn a_broken_connection_is_described_without_the_kinds_that_the_crate_puts_in_front() {
        let reset = || std::io::Error::new(std::io::ErrorKind::HostUnreachable, "no way there");
        for error in [
            ConnectionError::Io(reset()),
            ConnectionError::Tls(TlsError::Io(reset())),
            ConnectionError::MqttState(StateError::Io(reset())),
            ConnectionError::MqttState(StateError::Deserialization(PacketError::Io(reset()))),
        ] {
            assert_eq!(error_text(unwrapped(&error)), "no way there", "{error}");
        }
        let other = ConnectionError::MqttState(StateError::WrongPacket);
        assert_eq!(error_text(unwrapped(&other)), StateError::WrongPacket.to_string());
    }
}
