//! What goes into the decisions of the link, and what comes out. PURE.

use std::time::Duration;

use bytes::Bytes;

use super::super::Wanted;
use super::outbox::Publish;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Want(Wanted),
    Telemetry {
        said: Duration,
        kind: &'static str,
        payload: Bytes,
    },
    /// Telemetry that found no place on its way here.
    Dropped(u64),
    Close {
        last: Wanted,
        until: Duration,
    },
    /// ConnAck. When the token is to be renewed, see [`renewal`].
    Connected {
        renew_at: Option<Duration>,
    },
    /// It cannot be tried before somebody sets the clock.
    ClockNotSet(String),
    /// The connection could not be made, or it broke.
    Lost(String),
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
    SaidGoodbye,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect,
    Publish(Publish),
    Subscribe(Vec<String>),
    /// Say DISCONNECT, then close.
    Disconnect,
    /// Close without a word.
    Abandon,
    Tell(Tell),
    /// The end; whether the last state was acknowledged.
    Finish(bool),
}

/// What the listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    Connected(bool),
    Trouble(String),
    Recovered(Duration),
    Notice(String),
    Config(Bytes),
    Command { tail: String, payload: Bytes, retained: bool },
}
