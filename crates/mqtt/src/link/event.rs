//! Input and output of the link's state machine. PURE.

use std::time::Duration;

use bytes::Bytes;

use super::super::Wanted;
use super::publish_queue::Publish;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Want(Wanted),
    /// A new payload of the discovery message.
    Discovery(Bytes),
    Telemetry {
        queued_at: Duration,
        kind: &'static str,
        payload: Bytes,
    },
    /// Telemetry that was dropped because the inbox was full.
    Dropped(u64),
    Close {
        last: Wanted,
        until: Duration,
    },
    /// ConnAck, with the time to renew the token, see [`Expiry`](super::Expiry), and whether the owner acts on commands.
    Connected {
        renew_at: Option<Duration>,
        commands: bool,
    },
    /// When to renew the token according to the wall clock, which may have been set since the token was signed.
    RenewBy(Duration),
    /// The wall clock was never set: no token can be signed.
    ClockNotSet(String),
    /// The connection could not be made, or it broke.
    Lost(String),
    /// A packet of this many bytes exceeds the limit and broke the connection.
    TooLarge(usize),
    /// PUBACK of the publish in flight.
    Acknowledged,
    /// SUBACK.
    Subscribed {
        refused: Vec<String>,
    },
    Message {
        topic: String,
        payload: Bytes,
        retained: bool,
        duplicate: bool,
    },
    /// DISCONNECT went out and the connection is closed.
    Disconnected,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect,
    Publish(Publish),
    Subscribe(Vec<String>),
    /// Send DISCONNECT, then close.
    Disconnect,
    /// Close without a DISCONNECT.
    Abandon,
    Notify(Notification),
    /// End the task. `true` if the final state was acknowledged, or there was none.
    Finish(bool),
}

/// A call of the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    Connected(bool),
    Trouble(String),
    Recovered(Duration),
    Notice(String),
    Config(Bytes),
    Command { tail: String, payload: Bytes, retained: bool },
}
