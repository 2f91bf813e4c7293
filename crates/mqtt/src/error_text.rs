//! Describes why a connection failed, in a sentence that names the next step. PURE.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

/// The kind of credentials that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    None,
    Password,
    Token,
}

/// What listens on a port that did not answer as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listening {
    Http,
    Tls,
    Unknown,
}

pub(super) const CLOSED: &str = "it closed the connection";

/// A further likely cause if the broker closes the connection of a client that has a last will.
pub(super) const WILL: &str =
    ", or it allows no retained messages or no QoS 1, which the last will needs (mosquitto: retain_available, max_qos)";

/// Returns the sentence for a broker that does not answer.
pub(super) fn no_answer(seconds: u64) -> String {
    format!("no answer within {seconds} s; check host, port, tls and the network")
}

/// Returns the sentence for a name that is not resolved.
pub(super) fn no_lookup(seconds: u64) -> String {
    format!("its name was not resolved within {seconds} s; check host and the name servers of this machine")
}

/// Returns the sentence for a broker none of whose addresses could be connected to. An address that did not answer comes without
/// an error.
pub(super) fn unreachable(tried: &[(SocketAddr, Option<io::Error>)], seconds: u64) -> String {
    match tried {
        [] => "its name has no address; check host".to_owned(),
        [(_, None)] => no_answer(seconds),
        [(_, Some(error))] => error_text(error),
        several => {
            let one = |(address, error): &(SocketAddr, Option<io::Error>)| match error {
                Some(error) => format!("{} ({})", address.ip(), error_text(error)),
                None => format!("{} (no answer within {seconds} s)", address.ip()),
            };
            format!(
                "none of its {} addresses can be connected to: {}; check host, port and the network",
                several.len(),
                several.iter().map(one).collect::<Vec<_>>().join(", ")
            )
        }
    }
}

/// Returns the sentence for the return code of a CONNACK.
pub(super) fn refused(code: u8, login: Login) -> String {
    if let Some(text) = meaning(code, login) {
        return text.to_owned();
    }
    // A broker that speaks only MQTT 5 may answer with the reason codes of that version.
    match of_version_5(code, login) {
        Some(text) => format!("{text} (CONNACK {code}, a reason code of MQTT 5)"),
        None => format!(
            "it refused the connection with CONNACK {code}, which is not of MQTT 3.1.1; {}",
            causes(login)
        ),
    }
}

/// Returns the sentence for a return code of MQTT 3.1.1 (section 3.2.2.3 of its specification).
fn meaning(code: u8, login: Login) -> Option<&'static str> {
    Some(match code {
        1 => "it does not speak MQTT 3.1.1; check that host and port are those of an MQTT broker",
        2 => {
            "it refused the client id; check client-id, or project-id, region, registry-id and device-id, and that no second client uses \
             the id"
        }
        3 => "it is there but not available at the moment",
        4 | 5 => credentials_refused(login),
        _ => return None,
    })
}

/// Returns the sentence for a reason code of MQTT 5 (section 3.2.2.2 of its specification) whose cause is known.
fn of_version_5(code: u8, login: Login) -> Option<&'static str> {
    match code {
        0x84 => meaning(1, login),
        0x85 => meaning(2, login),
        0x86 | 0x87 => meaning(4, login),
        // Unavailable, busy, quota exceeded, connection rate exceeded.
        0x88 | 0x89 | 0x97 | 0x9f => Some("it is there but not available or busy at the moment"),
        0x8a => Some("it has banned this client; ask who runs the broker, and check that no second client uses the id"),
        _ => None,
    }
}

fn credentials_refused(login: Login) -> &'static str {
    match login {
        Login::None => {
            "it refused a client without credentials; set username and password-file, or client-certificate and client-key"
        }
        Login::Password => "it refused user name and password; check username and password-file",
        Login::Token => {
            "it refused the device's token; check that the registry has this key's public half, the audience, that the device is not \
             blocked, that no second client connects as the same device, and this machine's clock"
        }
    }
}

/// Returns the likely causes of a refusal without an explanation.
pub(super) fn causes(login: Login) -> &'static str {
    match login {
        Login::Token => {
            "likely causes: the registry does not have the public half of private-key-file, audience is not what the bridge expects, this \
             machine's clock is wrong, or a second client connects as the same device"
        }
        Login::Password => {
            "likely causes: username or password-file is wrong, a second client has the same client-id, or the broker's access rules"
        }
        Login::None => {
            "likely causes: the broker wants username and password-file, a second client has the same client-id, or the broker's access \
             rules"
        }
    }
}

/// Returns the sentence about a server that is not an MQTT broker, or about a broker addressed in the wrong way.
pub(super) fn wrong_server(listening: Listening, tls: bool) -> Option<&'static str> {
    match (listening, tls) {
        (Listening::Http, _) => Some(
            "an HTTP server answers there, no MQTT broker; set port to the broker's (8883 with TLS, 1883 without), and host if it is another \
             machine",
        ),
        (Listening::Tls, false) => {
            Some("it speaks TLS on this port and tls=false is set; set tls=true, or port to its port without TLS")
        }
        (Listening::Tls | Listening::Unknown, _) => None,
    }
}

pub(super) const NO_TLS: &str = "it seems not to speak TLS on this port; check port and tls: the TLS port of a broker is usually 8883, tls=false is for trusted networks only";

/// Returns the sentence for a failure of TLS; `None` for any other. `has_certificate` is whether we offered one.
pub(super) fn tls_failure(error: &(dyn Error + 'static), has_certificate: bool) -> Option<String> {
    let failure = rustls_error(error)?;
    let hint = match failure {
        rustls::Error::InvalidCertificate(reason) => certificate_hint(reason),
        rustls::Error::AlertReceived(alert) => alert_hint(*alert, has_certificate),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            Some(NO_TLS.to_owned())
        }
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            Some("it speaks only versions of TLS before 1.2, which are broken; update the broker".to_owned())
        }
        _ => None,
    };
    Some(match hint {
        Some(hint) => format!("{hint} (TLS: {})", error_text(failure)),
        None => format!("TLS: {}", error_text(failure)),
    })
}

fn certificate_hint(reason: &CertificateError) -> Option<String> {
    let text = match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; renew it at the broker, or set this machine's clock if that is ahead"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: this machine's clock is behind, or the certificate was made for later; set the clock first"
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "its certificate has no subjectAltName; make one with it, or set root-certificates to the PEM file of its authority or of this very \
             certificate: then its common name counts, which must be host"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name than host; set host to a name in the certificate (its subjectAltName, or without one its \
             common name), or make one for this name"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate comes from an authority that is not trusted here; set root-certificates to the PEM file of that authority, or \
             of the broker's own certificate if it is self-signed"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate was not made for a server; make one with extendedKeyUsage=serverAuth"
        }
        CertificateError::Revoked => "its certificate is revoked; renew it at the broker",
        other if is_ca_as_server(other) => {
            "its certificate is self-signed and that of an authority; set root-certificates to a PEM file with this very certificate"
        }
        other if is_version_1(other) => {
            "its certificate is of X.509 version 1: make one of version 3 with a subjectAltName, or set root-certificates to a PEM file with \
             this very certificate"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Returns whether a server presented a certificate with CA:TRUE as its own. rustls has checked its dates by then.
pub(super) fn is_ca_as_server(reason: &CertificateError) -> bool {
    // rustls has no variant for this error of webpki, and webpki is not a dependency of ours: only the Debug text identifies it.
    matches!(reason, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

/// Returns whether a server presented a certificate of X.509 version 1. rustls has checked nothing of it by then.
pub(super) fn is_version_1(reason: &CertificateError) -> bool {
    matches!(reason, CertificateError::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion"))
}

fn alert_hint(alert: AlertDescription, has_certificate: bool) -> Option<String> {
    use AlertDescription as Alert;
    let wants_certificate = matches!(
        alert,
        Alert::CertificateRequired
            // TLS 1.2 has no `certificate_required`; servers may answer this instead (RFC 5246, 7.4.6).
            | Alert::HandshakeFailure
            | Alert::BadCertificate
            | Alert::NoCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnknownCA
            | Alert::AccessDenied
    );
    let text = match (wants_certificate, has_certificate) {
        (true, false) => "it wants a client certificate; set client-certificate and client-key",
        (true, true) => {
            "it does not accept our client certificate; check that client-certificate is of an authority that the broker trusts, and its dates"
        }
        (false, _) if alert == Alert::ProtocolVersion => "it does not speak TLS 1.2 or 1.3; update the broker",
        (false, _) if alert == Alert::UnrecognisedName => "it does not serve this name; set host to the name that it serves",
        (false, _) => return None,
    };
    Some(text.to_owned())
}

/// Returns the error of rustls inside this one. `io::Error::source` skips the error that it wraps, so `get_ref` is used.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match wrapped {
        Some(inner) => rustls_error(inner),
        None => error.source().and_then(rustls_error),
    }
}

/// Returns the error inside wrappers that only put a kind in front of its text: `TLS: I/O: …` of the MQTT crate becomes `…`. Some
/// wrappers print the inner error with `Debug`.
pub(super) fn unwrapped<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let is_kind = |inner: &dyn Error| {
        let text = error.to_string();
        let kind = text
            .strip_suffix(&inner.to_string())
            .or_else(|| text.strip_suffix(&format!("{inner:?}")));
        kind.is_some_and(|kind| kind.ends_with(": "))
    };
    match error.source() {
        Some(inner) if is_kind(inner) => unwrapped(inner),
        _ => error,
    }
}

/// Returns the text of an error and of its sources, each once.
pub(super) fn error_text(error: &(dyn Error + 'static)) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_a_broker_says_what_to_check() {
        for login in [Login::None, Login::Password, Login::Token] {
            for code in 1..=u8::MAX {
                let text = gcstreamer_schema::redact(&refused(code, login));
                assert!(!text.contains("redacted"), "{code}: {text}");
                assert!(code < 6 || text.contains(&format!("CONNACK {code},")), "{code}: {text}");
            }
        }
        for code in [4, 5, 13, 19] {
            let text = refused(code, Login::Token);
            for cause in ["key", "audience", "clock", "second client"] {
                assert!(text.contains(cause), "{text}");
            }
        }
    }

    #[test]
    fn a_reason_code_of_mqtt_5_has_its_own_cause_and_not_that_of_a_refused_login() {
        for (code, expected) in [
            (0x84, "does not speak MQTT 3.1.1"),
            (0x85, "client id"),
            (0x86, "username and password-file"),
            (0x87, "username and password-file"),
            (0x88, "not available or busy"),
            (0x89, "not available or busy"),
            (0x97, "not available or busy"),
            (0x9f, "not available or busy"),
            (0x8a, "banned"),
        ] {
            let text = refused(code, Login::Password);
            assert!(text.contains(expected), "{code}: {text}");
            assert!(!text.contains("likely causes"), "{code}: {text}");
        }
        assert!(refused(0x86, Login::Token).contains("public half"));
        assert!(refused(0x80, Login::None).contains("likely causes"), "it says nothing");
    }

    #[test]
    fn a_certificate_that_is_refused_names_the_one_thing_to_change() {
        let for_another = |presented| CertificateError::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("broker.lan").unwrap(),
            presented,
        };
        for (reason, names) in [
            (CertificateError::Expired, "expired"),
            (CertificateError::NotValidYet, "set the clock"),
            (CertificateError::NotValidForName, "set host"),
            (for_another(vec!["DnsName(\"other\")".to_owned()]), "set host"),
            (
                for_another(Vec::new()),
                "has no subjectAltName; make one with it, or set root-certificates",
            ),
            (CertificateError::UnknownIssuer, "root-certificates"),
        ] {
            // As it comes from a read: twice wrapped.
            let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(reason));
            let error = std::io::Error::other(inner);
            let text = tls_failure(&error, false).unwrap();
            assert!(text.contains(names), "{text}");
        }
        assert_eq!(tls_failure(&std::io::Error::other("no TLS"), false), None);
    }
}
