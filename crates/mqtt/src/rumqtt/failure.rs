//! Describes how a connection ended, and what to do.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use tokio::time::Instant;

use super::{CONNECT_TIME, Received};
use crate::dial::Tried;
use crate::error_text::{
    CLOSED, Login, NO_TLS, WILL, causes, error_text, no_answer, no_lookup, refused, tls_failure, unreachable, unwrapped,
    wrong_server,
};
use crate::probe;
use gcstreamer_schema::redact;

/// A connection that ends this soon after its ConnAck was refused rather than broken.
const SOON: Duration = Duration::from_secs(5);

/// Why a connection could not be made, or why it ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// The broker's name was not resolved in time.
    NoLookup,
    /// No address of the broker could be connected to.
    Unreachable(Vec<Tried>),
    /// Anything else.
    Mqtt(ConnectionError),
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::Mqtt(error)
    }
}

/// Context for explaining an error.
pub(super) struct Context {
    pub(super) client_id: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: Login,
    pub(super) keep_alive: Duration,
    pub(super) has_tls: bool,
    pub(super) has_certificate: bool,
    pub(super) has_will: bool,
    pub(super) is_first_failure: bool,
    /// The address that was connected to.
    pub(super) address: Option<SocketAddr>,
    /// Whether the name has several addresses.
    pub(super) has_alternatives: bool,
    /// When the broker accepted the connection.
    pub(super) accepted: Option<Instant>,
}

impl Context {
    /// Returns how the connection ended, and what to do.
    pub(super) async fn end(&self, failure: &Failure) -> Received {
        let error = match failure {
            Failure::NoLookup => return Received::Lost(self.text(&no_lookup(CONNECT_TIME.as_secs()))),
            Failure::Unreachable(tried) => return Received::Lost(self.text(&unreachable(tried, CONNECT_TIME.as_secs()))),
            Failure::Mqtt(error) => error,
        };
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
        let address = self.address.filter(|_| self.has_alternatives);
        let address = address.map(|address| format!(" ({})", address.ip())).unwrap_or_default();
        redact(&format!("MQTT broker {}:{}{address}: {reason}", self.host, self.port))
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
        // `NO_TLS` is only a guess: ask first what listens there.
        if let Some(text) = tls_failure(error, self.has_certificate).filter(|text| !text.starts_with(NO_TLS)) {
            return text;
        }
        if self.is_first_failure
            && let Some(address) = self.address
            && let Some(text) = wrong_server(probe::what_listens(address, &self.host).await, self.has_tls)
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
            format!(" right after accepting it; {}", self.causes())
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
            self.causes()
        )
    }

    fn causes(&self) -> String {
        let will = if self.has_will { WILL } else { "" };
        format!("{}{will}", causes(self.login))
    }

    fn broken(&self, error: &ConnectionError) -> String {
        if let Some(text) = tls_failure(error, self.has_certificate) {
            return text;
        }
        match error {
            ConnectionError::NetworkTimeout => no_answer(CONNECT_TIME.as_secs()),
            ConnectionError::FlushTimeout => format!("it has taken no bytes for {} s", CONNECT_TIME.as_secs()),
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
