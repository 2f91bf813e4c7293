//! What a test may look at.

use std::time::Instant;

use bytes::Bytes;

use super::token::Token;

/// All that the broker has seen, in order.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// One sentence each. Empty = the bridge never had a reason to close a connection.
    pub violations: Vec<String>,
    pub states: Vec<Published>,
    pub events: Vec<Published>,
    /// Every TCP connection, also those that came to nothing. A connection's number is its place here.
    pub connections: Vec<Connection>,
    /// Every copy of a config or command that went out.
    pub deliveries: Vec<Delivery>,
}

impl Seen {
    /// The device's accepted connection that is still open.
    pub fn connected(&self) -> Option<&Connection> {
        self.connections.iter().rev().find(|c| c.is_up())
    }

    pub fn is_connected(&self) -> bool {
        self.connected().is_some()
    }

    /// Payload of the last state, as text.
    pub fn last_state(&self) -> Option<String> {
        let last = self.states.last()?;
        Some(String::from_utf8_lossy(&last.payload).into_owned())
    }

    /// How many connections were let in.
    pub fn accepted(&self) -> usize {
        self.connections.iter().filter(|c| c.accepted.is_some()).count()
    }

    /// How many deliveries with QoS 1 the device has acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.deliveries.iter().filter(|d| d.acknowledged).count()
    }
}

/// A message of the device.
#[derive(Clone, Debug)]
pub struct Published {
    pub at: Instant,
    pub connection: usize,
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    /// When the PUBACK was sent.
    pub acknowledged: Option<Instant>,
}

/// A message to the device.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub at: Instant,
    pub connection: usize,
    pub topic: String,
    pub len: usize,
    pub qos: u8,
    pub dup: bool,
    pub acknowledged: bool,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub at: Instant,
    /// When it was let in.
    pub accepted: Option<Instant>,
    pub closed: Option<Instant>,
    pub end: Option<End>,
    pub client_id: Option<String>,
    pub user: Option<String>,
    /// Also of a token that was refused, if it could be read.
    pub token: Option<Token>,
    /// Seconds.
    pub keep_alive: u16,
    /// Filters and the QoS granted.
    pub subscriptions: Vec<(String, u8)>,
    pub pings: usize,
    /// The device said DISCONNECT.
    pub clean_disconnect: bool,
}

impl Connection {
    pub(super) fn new(at: Instant) -> Self {
        Self {
            at,
            accepted: None,
            closed: None,
            end: None,
            client_id: None,
            user: None,
            token: None,
            keep_alive: 0,
            subscriptions: Vec::new(),
            pings: 0,
            clean_disconnect: false,
        }
    }

    pub fn is_up(&self) -> bool {
        self.accepted.is_some() && self.closed.is_none()
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// DISCONNECT.
    Disconnected,
    /// The device closed or lost the connection without DISCONNECT.
    Gone,
    /// TLS failed, with its words.
    TlsFailed(String),
    /// It never said CONNECT.
    NoConnect,
    /// The broker closed it for this reason, one of [`Seen::violations`].
    Violation(String),
    /// The token's `exp` has passed.
    TokenExpired,
    /// Another connection with the same client id came.
    Evicted,
    /// CONNACK with this code, because the test wanted it.
    Refused(u8),
    /// The test wanted it.
    Dropped,
}
