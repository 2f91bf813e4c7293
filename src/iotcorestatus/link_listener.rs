//! Converts the reports of the MQTT link to events for the reporter and posts for the application.
//!
//! Called on the link's task: it never waits, and calls out without a lock held.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;

use super::command_queue::CommandQueue;
use super::commands::{Action, Command, parse};
use super::inbox::Inbox;
use super::messages::{MessagePoster, Post};
use super::report::{Answer, Event, sha256_hex};
use gcstreamer_mqtt::Listener;
use gcstreamer_schema::units::span;

/// Receives the reports of one link.
pub(super) struct LinkListener {
    pub element: glib::WeakRef<gst::Element>,
    pub poster: Arc<MessagePoster>,
    pub inbox: Arc<Inbox>,
    pub commands: Arc<CommandQueue>,
    /// Property `accept-commands`: whether the element acts on commands itself.
    pub accept_commands: bool,
}

impl LinkListener {
    fn act(&self, tail: &str, payload: &[u8]) {
        let Command { action, answer } = parse(tail, payload);
        match action {
            Ok(Action::Report) => self.inbox.push(Event::Answer(Answer { ok: true, ..answer })),
            Ok(action) => {
                if let Err(refused) = self.commands.enqueue(action, answer) {
                    self.inbox.push(Event::Answer(refused));
                }
            }
            Err(_) => self.inbox.push(Event::Answer(answer)),
        }
    }
}

/// Returns whether the application handles the signal.
fn has_handler(element: &gst::Element, signal: &str) -> bool {
    glib::subclass::SignalId::lookup(signal, element.type_())
        .is_some_and(|id| glib::signal::signal_has_handler_pending(element, id, None, true))
}

impl Listener for LinkListener {
    fn connected(&self, up: bool) {
        if up {
            self.inbox.push(Event::Connected);
        }
        self.poster.post(Post::Connected);
    }

    fn wants_commands(&self) -> bool {
        self.accept_commands || self.element.upgrade().is_some_and(|element| has_handler(&element, "command"))
    }

    fn trouble(&self, text: String) {
        self.poster.post(Post::Warning(text));
    }

    fn recovered(&self, after: Duration) {
        let text = format!("the MQTT broker is connected again after {}", span(after));
        self.poster.post(Post::Info(text));
    }

    fn config(&self, payload: Bytes) {
        self.inbox.push(Event::Config(sha256_hex(&payload)));
        self.poster.post(Post::Config(payload));
    }

    fn command(&self, tail: String, payload: Bytes, retained: bool) {
        // A retained command is an old one: the broker repeats it at every connection.
        if retained {
            return;
        }
        if self.accept_commands {
            self.act(&tail, &payload);
        }
        self.poster.post(Post::Command(tail, payload));
    }

    fn notice(&self, text: String) {
        self.poster.post(Post::Warning(text));
    }
}
