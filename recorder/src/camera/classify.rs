//! Turns an ERROR of the source into a [`Failure`], by its status code, or else by the text of GStreamer's elements, which report
//! many causes in no other way.
//!
//! PURE.

use super::login::Misled;
use super::state::Failure;
use crate::config::Scheme;

/// The parts of an ERROR message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceError {
    /// Field `rtsp-status-code` of its details.
    pub(super) rtsp_status: Option<u32>,
    /// Field `http-status-code` of its details.
    pub(super) http_status: Option<u32>,
    /// Name of the code in its domain, e.g. `NotFound`.
    pub(super) code: String,
    /// The text.
    pub(super) text: String,
    /// The text for developers.
    pub(super) debug: String,
    /// Whether the connection is encrypted.
    pub(super) is_encrypted: bool,
    /// How the stream is fetched.
    pub(super) scheme: Option<Scheme>,
    /// Whether the streams that the camera announced can be recorded.
    pub(super) is_chosen: bool,
    /// What was wrong with the camera's answers.
    pub(super) misled: Option<Misled>,
}

impl SourceError {
    /// Returns the status code of the answer. Some are only in the debug text, as `Unauthorized (401)`.
    fn status(&self) -> Option<u32> {
        let in_text = || {
            let (_, after) = self.debug.rsplit_once('(')?;
            let number: u32 = after.split(')').next()?.parse().ok()?;
            // Other numbers in parentheses are source lines or error codes, not a status.
            (300..600).contains(&number).then_some(number)
        };
        self.rtsp_status.or(self.http_status).or_else(in_text)
    }
}

/// Why a camera gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreached {
    NoName,
    Refused,
    NoRoute,
    Silent,
    NotSecure,
    /// For another reason.
    NotConnected,
    /// The camera was connected, but its answer was not understood.
    NotUnderstood,
}

/// Returns the failure for a camera that gave no answer.
pub(super) fn unreached(why: Unreached, scheme: Scheme) -> Failure {
    let service = match scheme {
        Scheme::Rtsp | Scheme::Rtsps => "RTSP",
        Scheme::Http => "HTTP",
        Scheme::Rtmp => "RTMP",
        Scheme::Srt => "SRT",
    };
    Failure::Unreachable(match why {
        Unreached::NoName => "the name of the camera cannot be resolved; check the host in url and DNS".to_owned(),
        Unreached::Refused => format!("the camera refuses connections; check host and port in url, and that {service} is on"),
        Unreached::NoRoute => "there is no route to the camera; check cable, switch and address".to_owned(),
        Unreached::Silent => "the camera does not answer".to_owned(),
        Unreached::NotSecure => {
            let own = match scheme {
                Scheme::Rtsp | Scheme::Rtsps => "name its SHA-256 with tls-fingerprint, or the authority with ca-file",
                Scheme::Http | Scheme::Rtmp | Scheme::Srt => "name it, or the authority, with ca-file",
            };
            format!(
                "no secure connection to the camera; check host and port in url, and that it speaks TLS there; if its certificate is \
                 its own, {own}"
            )
        }
        Unreached::NotConnected => format!("no connection to the camera; check host and port in url, and that {service} is on"),
        Unreached::NotUnderstood => {
            format!("the camera's answers cannot be understood, or the connection broke; check that url is an {service} stream")
        }
    })
}

/// Returns the failure that an ERROR means. Its text contains no address, because addresses of cameras may hold keys and
/// passwords.
pub(super) fn classify(error: &SourceError) -> Failure {
    let words = format!("{} {}", error.text, error.debug).to_lowercase();
    // For a 401 with an authentication that the source does not support, it reports no status.
    let is_unknown = words.contains("no supported authentication");
    let is_refused = is_unknown
        || matches!(error.status(), Some(401 | 403 | 407))
        || error.code == "NotAuthorized"
        || words.contains("unauthorized");
    match error.misled {
        Some(Misled::InACircle) => {
            return Failure::Unreachable("the camera redirects again and again; check the path in url".to_owned());
        }
        Some(Misled::Elsewhere) if is_refused => {
            return Failure::Unreachable(
                "the camera redirects to another host, which gets no credentials of this one; write that host into url"
                    .to_owned(),
            );
        }
        Some(Misled::Elsewhere) | None => {}
    }
    if is_unknown {
        return Failure::Refused(
            "the camera asks for a kind of authentication that is not supported; set it to Basic, or Digest with MD5".to_owned(),
        );
    }
    if let Some(status) = error.status() {
        return by_status(status);
    }
    let has = |word: &str| words.contains(word);
    let unreachable = |text: &str| Failure::Unreachable(text.to_owned());
    let unreached = |why| unreached(why, error.scheme.unwrap_or(Scheme::Rtsp));
    match error.code.as_str() {
        "NotAuthorized" => by_status(401),
        "NotFound" => by_status(404),
        _ if has("unauthorized") => by_status(401),
        // The streams were selected, so the camera refused every transport. The source does not report the status (461).
        _ if error.is_chosen && has("no supported stream") => by_status(461),
        _ if has("udp packets") => {
            unreachable("no packet of the camera comes over UDP: a firewall is in the way; set transport = \"tcp\"")
        }
        _ if has("could not resolve") || has("resolving") || has("name or service not known") => unreached(Unreached::NoName),
        _ if has("connection refused") => unreached(Unreached::Refused),
        _ if has("no route") || has("network is unreachable") || has("network unreachable") => unreached(Unreached::NoRoute),
        _ if has("tls") || has("certificate") => unreached(Unreached::NotSecure),
        _ if has("timeout") || has("timed out") => unreached(Unreached::Silent),
        _ if has("end-of-file") || has("eof") || has("closed") => {
            Failure::Closed("the camera has ended the connection".to_owned())
        }
        // A rejected certificate has no other text than this.
        _ if error.is_encrypted && (has("failed to connect") || has("could not connect")) => unreached(Unreached::NotSecure),
        _ if has("failed to connect") || has("could not connect") => unreached(Unreached::NotConnected),
        _ if has("no supported stream") || has("missing plugin") || has("no suitable") => {
            Failure::Unsupported("the camera sends nothing that can be recorded; set it to H.264 or H.265".to_owned())
        }
        // After the causes above: `rtspsrc` begins most of its texts with these words, whatever the cause is.
        _ if has("could not receive")
            || has("could not send")
            || has("could not open resource")
            || has("parse error")
            || has("read") =>
        {
            unreached(Unreached::NotUnderstood)
        }
        _ => Failure::Internal(format!("the pipeline failed: {}", gcstreamer_schema::redact(&error.text))),
    }
}

fn by_status(status: u32) -> Failure {
    match status {
        401 | 403 | 407 => Failure::Refused(format!(
            "the camera refuses the credentials ({status}); check username and password-file, and set the camera's authentication to \
             Digest with MD5 if it offers SHA-256 only"
        )),
        404 | 410 => Failure::Unreachable(format!(
            "the camera knows no stream of this path ({status}); check the path in url"
        )),
        453 => Failure::Busy("the camera has no free session (453); end other viewers, or raise its limit".to_owned()),
        454 => Failure::Busy("the camera has lost the session (454); waiting until it has forgotten it".to_owned()),
        503 => Failure::Busy("the camera is busy (503); end other viewers, or restart it".to_owned()),
        300..=399 => Failure::Unreachable(format!(
            "the camera redirects to another address ({status}); write that into url"
        )),
        461 => Failure::Unreachable(
            "the camera does not offer this transport (461); set transport to another of \"tcp\", \"udp\" and \"auto\""
                .to_owned(),
        ),
        415 | 551 => Failure::Unsupported(format!(
            "the camera cannot send this stream ({status}); check the path in url"
        )),
        _ => Failure::Unreachable(format!("the camera answers with an error ({status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, text: &str, debug: &str) -> SourceError {
        SourceError {
            code: code.to_owned(),
            text: text.to_owned(),
            debug: debug.to_owned(),
            ..SourceError::default()
        }
    }

    fn kind(failure: &Failure) -> &'static str {
        match failure {
            Failure::Refused(_) => "refused",
            Failure::Busy(_) => "busy",
            Failure::Unreachable(_) => "unreachable",
            Failure::Closed(_) => "closed",
            Failure::Frozen(_) => "frozen",
            Failure::Unsupported(_) => "unsupported",
            Failure::Changed(_) => "changed",
            Failure::Internal(_) => "internal",
            Failure::Setup(_) => "setup",
        }
    }

    #[test]
    fn a_status_code_decides_wherever_it_stands() {
        for (status, expected) in [
            (401, "refused"),
            (403, "refused"),
            (404, "unreachable"),
            (453, "busy"),
            (454, "busy"),
            (503, "busy"),
            (461, "unreachable"),
            (302, "unreachable"),
            (500, "unreachable"),
        ] {
            let detailed = SourceError {
                rtsp_status: Some(status),
                ..SourceError::default()
            };
            let failure = classify(&detailed);
            assert_eq!(kind(&failure), expected, "{status}");
            assert!(failure.text().contains(&status.to_string()), "{}", failure.text());
            let debug = format!("gstrtspsrc.c(6740): gst_rtspsrc_send (): /x:\nSomething ({status})");
            assert_eq!(classify(&error("Read", "Unhandled error", &debug)), failure);
        }
    }

    #[test]
    fn the_words_of_the_source_decide_where_there_is_no_code() {
        for (code, text, debug, expected) in [
            (
                "OpenReadWrite",
                "Could not open resource for reading and writing.",
                "Failed to connect. (Generic error: Could not connect to 127.0.0.1: Connection refused)",
                "refuses connections",
            ),
            (
                "OpenReadWrite",
                "Could not open resource for reading and writing.",
                "Failed to connect. (Timeout while waiting for server response)",
                "does not answer",
            ),
            (
                "OpenReadWrite",
                "",
                "Failed to connect. (Error resolving “cam”: Name or service not known)",
                "cannot be resolved",
            ),
            (
                "Read",
                "Could not read from resource.",
                "Could not receive message. (Received end-of-file)",
                "ended the connection",
            ),
            (
                "Read",
                "Could not read from resource.",
                "Could not receive message. (Parse error)",
                "cannot be understood",
            ),
            ("NotAuthorized", "Unauthorized", "", "refuses the credentials"),
            (
                "OpenRead",
                "Could not open resource for reading.",
                "gstrtspsrc.c(6400): gst_rtspsrc_setup_auth (): /x:\nNo supported authentication protocol was found",
                "set it to Basic, or Digest with MD5",
            ),
        ] {
            let failure = classify(&error(code, text, debug));
            assert!(failure.text().contains(expected), "{debug}: {}", failure.text());
        }
    }

    #[test]
    fn a_login_of_an_unknown_kind_is_tried_as_seldom_as_one_that_is_refused() {
        let failure = classify(&error(
            "OpenRead",
            "Could not open resource for reading.",
            "No supported authentication protocol was found",
        ));
        assert_eq!(kind(&failure), "refused", "{}", failure.text());
    }

    #[test]
    fn a_refused_transport_and_blocked_udp_are_named_as_what_they_are() {
        let mut refused = error(
            "Failed",
            "Could not set up the stream.",
            "gstrtspsrc.c(7850): gst_rtspsrc_setup_streams_start (): /x:\nNo supported stream was found. You might need to allow more \
             transport protocols or may otherwise be missing the right GStreamer RTSP extension plugin.",
        );
        assert_eq!(kind(&classify(&refused)), "unsupported", "nothing was chosen");
        refused.is_chosen = true;
        let failure = classify(&refused);
        assert_eq!(kind(&failure), "unreachable");
        assert!(
            failure.text().contains("461") && failure.text().contains("transport"),
            "{}",
            failure.text()
        );
        let blocked = error(
            "Read",
            "Could not read from resource.",
            "Could not receive any UDP packets for 5.0000 seconds, maybe your firewall is blocking it. No other protocols to try.",
        );
        assert!(
            classify(&blocked).text().contains("transport = \"tcp\""),
            "{}",
            classify(&blocked).text()
        );
    }

    #[test]
    fn a_reason_never_holds_an_address_with_a_secret() {
        let failure = classify(&error("Failed", "odd rtsp://u:SECRET@h/x", "rtsp://u:SECRET@h/x"));
        assert!(!failure.text().contains("SECRET"), "{}", failure.text());
    }
}
