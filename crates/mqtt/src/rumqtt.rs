//! One connection to a broker, MQTT 3.1.1. The only file that names `rumqttc`.
//!
//! The crate reconnects by itself, forgets what was not acknowledged and keeps events of the connection before. So each
//! connection gets an event loop of its own, which is polled by a task of its own: `poll` is never cancelled half way, and a
//! panic in the crate costs one connection. The task ends with the connection, and with the [`Connection`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS, StateError,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::link::Publish;
use super::topics::MAX_PACKET;
use gcstreamer_schema::redact;

/// PINGREQ at least this often; a PINGRESP that is not there by the next ends the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Name look-up, TCP, TLS and ConnAck together, in seconds. Also how long a write may take.
const CONNECT_SECONDS: u64 = 20;
/// How long the broker may take to close the connection after a DISCONNECT.
const GOODBYE: Duration = Duration::from_secs(1);
/// Requests that wait for the event loop: one publish, one subscription, one DISCONNECT.
const REQUESTS: usize = 8;
/// Events that wait for the driver; then the network waits.
const EVENTS: usize = 16;

/// How to connect.
pub(super) struct Options {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) client_id: String,
    pub(super) login: Option<(String, String)>,
    /// Whether the password is a token; for the texts.
    pub(super) has_token: bool,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) will: Option<Publish>,
    pub(super) subscriptions: Vec<String>,
}

/// Who we say that we are.
#[derive(Clone, Copy)]
enum Login {
    None,
    Password,
    Token,
}

/// What came from the broker.
#[derive(Debug)]
pub(super) enum Received {
    Connected,
    Acknowledged,
    /// The subscriptions that were refused.
    Subscribed(Vec<String>),
    Message {
        topic: String,
        payload: Bytes,
        retained: bool,
        duplicate: bool,
    },
    /// DISCONNECT went out and the connection is closed.
    SaidGoodbye,
    /// The connection could not be made, or it broke. Redacted.
    Lost(String),
}

/// A connection, from the first packet to the end. Dropping it closes the socket without a word.
pub(super) struct Connection {
    client: AsyncClient,
    received: mpsc::Receiver<Received>,
    pump: AbortHandle,
}

impl Connection {
    /// Begins to connect. Must be called within the runtime.
    pub(super) fn open(options: Options) -> Self {
        let place = format!("{}:{}", options.host, options.port);
        let mut mqtt = MqttOptions::new(options.client_id, options.host, options.port);
        mqtt.set_keep_alive(KEEP_ALIVE)
            .set_clean_session(true)
            .set_max_packet_size(MAX_PACKET, MAX_PACKET);
        let login = match (&options.login, options.has_token) {
            (None, _) => Login::None,
            (Some(_), false) => Login::Password,
            (Some(_), true) => Login::Token,
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
        let pump = tokio::spawn(async move {
            let text = |error: &ConnectionError| lost(&place, error, login);
            pump(events, &options.subscriptions, text, &sender).await;
        });
        Self {
            client,
            received,
            pump: pump.abort_handle(),
        }
    }

    /// What the broker says next. After [`Received::Lost`] and [`Received::SaidGoodbye`] nothing comes. Cancel safe.
    pub(super) async fn received(&mut self) -> Received {
        let ended = || Received::Lost("the MQTT client broke off".to_owned());
        self.received.recv().await.unwrap_or_else(ended)
    }

    /// Asks the event loop to publish at QoS 1. An error means that the connection is at its end.
    pub(super) fn publish(&self, publish: Publish) -> Result<(), String> {
        let sent = self
            .client
            .try_publish(publish.topic, QoS::AtLeastOnce, publish.retain, Vec::from(publish.payload));
        sent.map_err(|_| "the MQTT client takes no more requests".to_owned())
    }

    /// Asks for the topics at QoS 1.
    pub(super) fn subscribe(&self, topics: Vec<String>) -> Result<(), String> {
        let filters = topics.into_iter().map(|topic| SubscribeFilter::new(topic, QoS::AtLeastOnce));
        let sent = self.client.try_subscribe_many(filters);
        sent.map_err(|_| "the MQTT client takes no more requests".to_owned())
    }

    /// Says DISCONNECT; [`Received::SaidGoodbye`] follows.
    pub(super) fn disconnect(&self) -> Result<(), String> {
        let sent = self.client.try_disconnect();
        sent.map_err(|_| "the MQTT client takes no more requests".to_owned())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Polls until the connection is at its end.
async fn pump(
    mut events: EventLoop,
    subscriptions: &[String],
    text: impl Fn(&ConnectionError) -> String,
    sender: &mpsc::Sender<Received>,
) {
    loop {
        let received = match events.poll().await {
            Ok(Event::Incoming(packet)) => incoming(packet, subscriptions),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Some(Received::SaidGoodbye),
            Ok(Event::Outgoing(_)) => None,
            Err(error) => Some(Received::Lost(text(&error))),
        };
        let Some(received) = received else {
            continue;
        };
        // Another poll after either would connect again.
        let last = matches!(received, Received::Lost(_) | Received::SaidGoodbye);
        if matches!(received, Received::SaidGoodbye) {
            closed_by_broker(&mut events).await;
            events.network = None;
        }
        if sender.send(received).await.is_err() || last {
            return;
        }
    }
}

/// Closing first, with bytes unread, would reset the connection, and the DISCONNECT might be lost with it.
async fn closed_by_broker(events: &mut EventLoop) {
    let Some(network) = events.network.as_mut() else {
        return;
    };
    let _ = tokio::time::timeout(GOODBYE, async { while network.read().await.is_ok() {} }).await;
}

fn incoming(packet: Packet, subscriptions: &[String]) -> Option<Received> {
    match packet {
        Packet::ConnAck(_) => Some(Received::Connected),
        Packet::PubAck(_) => Some(Received::Acknowledged),
        Packet::SubAck(answer) => {
            let refused = answer.return_codes.iter().zip(subscriptions);
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

const CLOSED: &str = "it closed the connection";

/// What happened, and what helps.
fn lost(place: &str, error: &ConnectionError, login: Login) -> String {
    let reason = match error {
        ConnectionError::ConnectionRefused(code) => refused(*code, login).to_owned(),
        ConnectionError::NetworkTimeout => {
            format!("no answer within {CONNECT_SECONDS} s; check host, port, tls and the network")
        }
        ConnectionError::FlushTimeout => format!("it has taken no bytes for {CONNECT_SECONDS} s"),
        ConnectionError::NotConnAck(_) => "it does not answer as an MQTT broker; check host and port".to_owned(),
        ConnectionError::MqttState(state) => broken(state),
        ConnectionError::Tls(error) => format!("TLS: {}{}", causes(error), tls_hint(&causes(error))),
        ConnectionError::Io(error) => ended(error),
        other => other.to_string(),
    };
    redact(&format!("MQTT broker {place}: {reason}"))
}

fn refused(code: ConnectReturnCode, login: Login) -> &'static str {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => match login {
            Login::None => {
                "it refused a client without credentials; set username and password-file, or client-certificate and client-key"
            }
            Login::Password => "it refused user name and password; check username and password-file",
            Login::Token => {
                "it refused the device's token; check that the registry has this key's public half, the audience, that the device \
                 is not blocked, and this machine's clock"
            }
        },
        ConnectReturnCode::BadClientId => "it refused the client id; check client-id, or project, region, registry and device",
        ConnectReturnCode::ServiceUnavailable => "it is there but not available at the moment",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::Success => "it accepted and refused at once",
    }
}

fn broken(error: &StateError) -> String {
    use rumqttc::mqttbytes::Error;
    match error {
        StateError::ConnectionAborted => CLOSED.to_owned(),
        StateError::AwaitPingResp => format!("it has not answered for {} s", KEEP_ALIVE.as_secs()),
        StateError::Io(error) => ended(error),
        StateError::Deserialization(Error::PayloadSizeLimitExceeded(size)) => {
            format!("it sent a packet of {size} bytes; at most {MAX_PACKET} are taken, publish less there")
        }
        StateError::Deserialization(Error::Io(error)) => ended(error),
        other => other.to_string(),
    }
}

/// Many brokers end a TLS connection without its close_notify: an end of the bytes is an end of the connection.
fn ended(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        CLOSED.to_owned()
    } else {
        causes(error)
    }
}

fn tls_hint(text: &str) -> &'static str {
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        "; its certificate comes from an authority that is not trusted here, set root-certificates to that authority's PEM file"
    } else if text.contains("NotValidForName") {
        "; its certificate is for another name, set host to the name in it"
    } else if text.contains("Expired") || text.contains("NotValidYet") {
        "; check this machine's clock and the certificate's dates"
    } else if ["InvalidContentType", "corrupt message", "reset by peer", "handshake eof"]
        .iter()
        .any(|sign| text.contains(sign))
    {
        "; it seems not to speak TLS on this port, check port and tls"
    } else {
        ""
    }
}

/// The error and what is behind it, once each.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}
