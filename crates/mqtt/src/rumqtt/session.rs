//! Sends and receives packets over one socket: CONNECT first, then as `rumqttc`'s connection state (packet ids, acknowledgements,
//! pings) requires.
//!
//! The event loop of the crate is not used: it resolves the broker's name by itself and waits for each address in turn.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::tokio_rustls::TlsConnector;
use rumqttc::{Connect, ConnectReturnCode, ConnectionError, Event, MqttState, Packet, PingReq, Request, StateError, TlsError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::CONNECT_TIME;
use crate::topics::MAX_PACKET;

/// Maximum number of publishes in flight that the crate allows. The link never has more than one.
const IN_FLIGHT: u16 = 100;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that the broker has accepted.
pub(super) struct Session {
    stream: Box<dyn Stream>,
    /// Received bytes that do not form a complete packet yet.
    unread: BytesMut,
    max_incoming: usize,
    state: MqttState,
    keep_alive: Duration,
    next_ping: Instant,
}

impl Session {
    /// Performs the TLS handshake if `tls` is set, sends `connect` and waits for the CONNACK. The certificate must be valid for
    /// `host`.
    pub(super) async fn open(
        tcp: TcpStream,
        tls: Option<Arc<ClientConfig>>,
        host: &str,
        connect: Connect,
        max_incoming: usize,
    ) -> Result<Self, ConnectionError> {
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from(host.to_owned()).map_err(TlsError::from)?;
                let tls = TlsConnector::from(config).connect(name, tcp).await;
                Box::new(tls.map_err(TlsError::from)?)
            }
        };
        let keep_alive = Duration::from_secs(connect.keep_alive.into());
        let mut session = Self {
            stream,
            unread: BytesMut::new(),
            max_incoming,
            // `false`: the crate acknowledges what arrives.
            state: MqttState::new(IN_FLIGHT, false),
            keep_alive,
            next_ping: Instant::now(),
        };
        session.send(&Packet::Connect(connect)).await?;
        match session.packet().await {
            Ok(Packet::ConnAck(answer)) if answer.code == ConnectReturnCode::Success => {}
            Ok(Packet::ConnAck(answer)) => return Err(ConnectionError::ConnectionRefused(answer.code)),
            Ok(packet) => return Err(ConnectionError::NotConnAck(packet)),
            // The server sent something and closed: bytes that the crate takes for the beginning of a longer packet. It is not
            // a broker.
            Err(StateError::ConnectionAborted) if !session.unread.is_empty() => {
                return Err(StateError::Deserialization(PacketError::MalformedPacket).into());
            }
            Err(error) => return Err(error.into()),
        }
        session.next_ping = Instant::now() + keep_alive;
        Ok(session)
    }

    /// Waits for the next packet of the broker, or sends the next request.
    pub(super) async fn next(&mut self, requests: &mut mpsc::Receiver<Request>) -> Result<Event, ConnectionError> {
        loop {
            if let Some(event) = self.state.events.pop_front() {
                return Ok(event);
            }
            let next_ping = self.next_ping;
            let outgoing = tokio::select! {
                packet = self.packet() => self.state.handle_incoming_packet(packet?)?,
                Some(request) = requests.recv() => self.state.handle_outgoing_packet(request)?,
                () = sleep_until(next_ping) => {
                    self.next_ping = Instant::now() + self.keep_alive;
                    self.state.handle_outgoing_packet(Request::PingReq(PingReq))?
                }
            };
            if let Some(packet) = outgoing {
                self.send(&packet).await?;
            }
        }
    }

    /// Reads until the broker closes the connection.
    pub(super) async fn closed(&mut self) {
        while self.packet().await.is_ok() {}
    }

    /// Reads a packet. Cancel safe.
    async fn packet(&mut self) -> Result<Packet, StateError> {
        loop {
            match Packet::read(&mut self.unread, self.max_incoming) {
                Err(PacketError::InsufficientBytes(missing)) => self.unread.reserve(missing),
                packet => return packet.map_err(StateError::Deserialization),
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(StateError::ConnectionAborted);
            }
        }
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), ConnectionError> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, MAX_PACKET).map_err(StateError::Deserialization)?;
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout(CONNECT_TIME, write).await {
            Ok(written) => Ok(written.map_err(StateError::Io)?),
            Err(_) => Err(ConnectionError::FlushTimeout),
        }
    }
}
