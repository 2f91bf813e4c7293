//! Parses a command: from the rest of its topic and its payload to the action.
//!
//! The payload is empty, plain text (`start`), or JSON `{"id": "...", "value": "start"}`; the answer repeats the id.
//!
//! PURE: no GStreamer, no I/O, no clock.

use serde_json::Value;

use super::report::Answer;
use gcstreamer_schema::structures::command;

/// Longest name or id that an answer repeats, in characters.
const MAX_ECHO: usize = 64;

/// The action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Cut at the next key unit.
    Split,
    /// Record again.
    RecordStart,
    /// Store nothing until the next start.
    RecordStop,
    /// Publish a fresh status.
    Report,
}

impl Action {
    /// Returns the name in the event `gcssink-command`; `None` if the action does not concern a gcssink.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Split => Some(command::SPLIT),
            Self::RecordStart => Some(command::RECORD_START),
            Self::RecordStop => Some(command::RECORD_STOP),
            Self::Report => None,
        }
    }
}

/// A received command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The action, or why the command is refused.
    pub action: Result<Action, String>,
    /// The answer; its outcome is still missing if the action has yet to be carried out.
    pub answer: Answer,
}

/// Parses a command. `tail` is its topic below `commands/` or `set/`.
#[must_use]
pub fn parse(tail: &str, payload: &[u8]) -> Command {
    let name = tail.trim_matches('/');
    let (id, value) = parse_payload(payload);
    let action = match (name, value.as_str()) {
        ("split", _) => Ok(Action::Split),
        ("report", _) => Ok(Action::Report),
        ("record", "start") => Ok(Action::RecordStart),
        ("record", "stop") => Ok(Action::RecordStop),
        ("record", _) => Err("unknown payload; record accepts start and stop".to_owned()),
        _ => Err("unknown command; the commands are split, record and report".to_owned()),
    };
    Command {
        answer: Answer {
            name: sanitized(name),
            id,
            ok: false,
            msg: action.clone().err(),
            repeats_state: action == Ok(Action::Report),
        },
        action,
    }
}

/// Returns id and value of the payload.
fn parse_payload(payload: &[u8]) -> (Option<String>, String) {
    let plain = || String::from_utf8_lossy(payload).trim().to_ascii_lowercase();
    match serde_json::from_slice::<Value>(payload) {
        Ok(Value::Object(map)) => {
            let id = map.get("id").and_then(|id| match id {
                Value::String(text) => Some(sanitized(text)),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            });
            let value = map.get("value").and_then(Value::as_str).unwrap_or_default();
            (id, value.trim().to_ascii_lowercase())
        }
        Ok(Value::String(text)) => (None, text.trim().to_ascii_lowercase()),
        _ => (None, plain()),
    }
}

fn sanitized(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_ECHO).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_as_plain_text_and_as_json() {
        for (tail, payload, action, id) in [
            ("split", "", Some(Action::Split), None),
            ("split", "now", Some(Action::Split), None),
            ("/report", r#"{"id":"r1"}"#, Some(Action::Report), Some("r1")),
            ("record", "start", Some(Action::RecordStart), None),
            ("record", " STOP\n", Some(Action::RecordStop), None),
            ("record", "\"stop\"", Some(Action::RecordStop), None),
            ("record", r#"{"id":7,"value":"start"}"#, Some(Action::RecordStart), Some("7")),
            ("record", "pause", None, None),
            ("record", r#"{"id":"x"}"#, None, Some("x")),
            ("", "", None, None),
            ("reboot", "{", None, None),
        ] {
            let command = parse(tail, payload.as_bytes());
            assert_eq!(command.action.clone().ok(), action, "{tail} {payload}");
            assert_eq!(command.answer.id.as_deref(), id, "{tail} {payload}");
            assert_eq!(command.answer.msg.is_some(), action.is_none(), "{tail} {payload}");
        }
    }

    #[test]
    fn what_a_stranger_sends_is_shortened_before_it_is_repeated() {
        let long = "x".repeat(10_000);
        let command = parse(&long, format!("{{\"id\":\"{long}\"}}").as_bytes());
        assert!(command.action.is_err());
        assert_eq!(command.answer.name.len(), MAX_ECHO);
        assert_eq!(command.answer.id.unwrap().len(), MAX_ECHO);
        assert!(parse("\u{7}\n", b"\xff\xfe").answer.name.is_empty());
    }
}
