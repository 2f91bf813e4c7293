//! The outcome of a failed attempt: a class to act on, and a text for people.
//!
//! Errors are classified by the HTTP status and by the chain of causes. Texts of servers pass [`redact()`].

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use google_cloud_gax::error::CredentialsError;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

use super::body_source::SourceError;
use super::error_text::{Reason, certificate_hint, chain, error_text};
use super::http_client::CONNECT_LIMIT;
use super::token_wait::TOKEN_LIMIT;
use super::watchdog::{Phase, Stalled};
use gcstreamer_schema::redact;
use gcstreamer_schema::units::{bytes, span};

/// The reaction that an error requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// May succeed later: 408, 409, 5xx, connection, name look-up, TLS, timeouts, unreadable answers; 400 and 416 of a session.
    Transient,
    /// The server asks for a lower rate: 429, or 503 with `Retry-After`.
    Throttled,
    /// The credentials were refused: 401, or no token is issued for them. The client was discarded: the next attempt reads the
    /// credentials again and gets a new token. If that is refused too, the user has to act.
    Auth,
    /// The user has to act: 400, 403, 404 and other 4xx, a 412 with a reason other than `conditionNotMet` (a policy of the
    /// organisation), unusable credentials files (no status).
    Permanent,
    /// 412 with the reason `conditionNotMet`, or without a reason: an object of this name appears to exist.
    Conflict,
    /// The request cannot be sent as it is: an invalid name, a body that does not match its checksum.
    Local,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WriteError {
    /// The reaction that the error requires.
    pub class: Class,
    /// The server's status, if there was an answer.
    pub http_status: Option<u16>,
    /// The server's reason code, such as `conditionNotMet`, if it sends one.
    pub reason: Option<String>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// The server's clock, if there was an answer.
    pub server_date: Option<SystemTime>,
    /// Generation of a stored object that differs from what was sent: delete it before the next attempt.
    pub bad_generation: Option<i64>,
    /// An earlier request of the same upload may have stored the object, whatever the answer to this one is.
    pub may_be_stored: bool,
    /// What happened, why, and what to do. Contains no secret.
    pub message: String,
}

impl WriteError {
    /// Returns whether the server stated that this request stored nothing. The object may be stored if there was no answer, after
    /// a gateway timeout or a server error, if another request for the same object is under way (409), and if only the session of
    /// a resumable upload is lost.
    #[must_use]
    pub fn means_nothing_was_stored(&self) -> bool {
        match self.http_status {
            _ if self.may_be_stored => false,
            Some(408 | 409 | 425 | 499) => false,
            // `Transient`: about a session and not the object, see `class_of`.
            Some(400 | 404 | 410 | 416) => self.class != Class::Transient,
            Some(status) => (400..500).contains(&status),
            None => false,
        }
    }
}

/// What was attempted, for the texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) action: Action,
    pub(crate) bucket: &'a str,
    pub(crate) name: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Store,
    GetMetadata,
    Delete,
    List,
    Read,
}

/// State of the attempt when it failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// The session of a resumable upload was in use: 404 and 410 then refer to the session.
    pub(crate) in_session: bool,
    /// The credentials are from the metadata server.
    pub(crate) metadata_server: bool,
}

impl Situation {
    /// Returns what to do if no token is issued.
    fn token_hint(self) -> &'static str {
        if self.metadata_server {
            "; outside Google Cloud set credentials-file or GOOGLE_APPLICATION_CREDENTIALS"
        } else {
            ""
        }
    }
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::Store => "storing",
            Self::GetMetadata => "looking at",
            Self::Delete => "deleting",
            Self::List => "listing",
            Self::Read => "reading",
        }
    }

    fn permission(self) -> &'static str {
        match self {
            Self::Store => "give the account storage.objects.create on the bucket (roles/storage.objectCreator)",
            Self::GetMetadata => "storage.objects.get on the bucket is missing",
            Self::Delete => "storage.objects.delete on the bucket is missing",
            Self::List => "give the account storage.objects.list on the bucket (roles/storage.objectViewer)",
            Self::Read => "give the account storage.objects.get on the bucket (roles/storage.objectViewer)",
        }
    }
}

impl Target<'_> {
    /// Creates an error of this class.
    pub(crate) fn fail(self, class: Class, what: &str) -> WriteError {
        WriteError {
            class,
            http_status: None,
            reason: None,
            retry_after: None,
            server_date: None,
            bad_generation: None,
            may_be_stored: false,
            message: format!("{} gs://{}/{}: {what}", self.action.verb(), self.bucket, self.name),
        }
    }

    /// Creates the error for an attempt without progress.
    pub(crate) fn stalled(self, stalled: Stalled, size: u64) -> WriteError {
        let idle = span(stalled.idle);
        let what = match stalled.phase {
            Phase::Starting => format!("no connection or token within {idle}"),
            Phase::Sending(offset) => format!("no progress for {idle} after {} of {}", bytes(offset), bytes(size)),
            Phase::Answer => format!(
                "all {} were sent and no answer came within {idle}; a slow uplink needs a longer request-timeout",
                bytes(size)
            ),
        };
        self.fail(Class::Transient, &what)
    }

    /// Creates the error for a stored object that differs from what was sent.
    pub(crate) fn bad_object(self, generation: i64, what: &str) -> WriteError {
        let what = format!("generation {generation} was stored damaged ({what}); it is to be deleted and sent again");
        WriteError {
            bad_generation: Some(generation),
            ..self.fail(Class::Transient, &what)
        }
    }

    /// Creates the error for an answer that is not a success.
    pub(crate) fn refused(self, status: u16, headers: &HeaderMap, why: &Reason, situation: Situation) -> WriteError {
        let server_date = http_date(headers, DATE);
        let retry_after = retry_after(headers, server_date);
        let class = class_of(status, retry_after, why, situation);
        let reason = redact(&why.text);
        let code = why.code.as_deref().map(redact);
        let mut what = format!("the server answered {status}");
        if !reason.is_empty() {
            what.push_str(&format!(" ({})", reason.trim_end_matches('.')));
        }
        match (status, retry_after) {
            (_, Some(wait)) if matches!(class, Class::Throttled) => what.push_str(&format!("; it asks to wait {}", span(wait))),
            (300..=399, _) => what.push_str("; a redirect is not followed: a login page or a proxy stands between"),
            (401, _) => what.push_str("; check credentials-file, or GOOGLE_APPLICATION_CREDENTIALS"),
            (403, _) if class == Class::Permanent => what.push_str(&format!("; {}", self.action.permission())),
            (404, _) if self.action == Action::Store && class == Class::Permanent => {
                what.push_str("; check the property bucket, and endpoint-uri where it is set");
            }
            (404, _) if self.action == Action::List => what.push_str("; check the bucket, and endpoint-uri where it is set"),
            (412, _) if class == Class::Conflict => what.push_str("; an object of this name exists already"),
            (412, _) => {
                let code = code.as_deref().map_or_else(String::new, |code| format!("reason {code}: "));
                what.push_str(&format!(
                    "; {code}nothing was stored, a policy of the organisation or of the bucket refuses the object; set what it asks for (such as kms-key), or have it changed"
                ));
            }
            _ => {}
        }
        // Tokens are refused if the clock is wrong.
        if let (401 | 403, Some(skew)) = (status, server_date.and_then(skew)) {
            what.push_str(&format!("; the clock of this machine is off by {}", span(skew)));
        }
        WriteError {
            http_status: Some(status),
            reason: code,
            retry_after,
            server_date,
            ..self.fail(class, &what)
        }
    }

    /// Creates the error for a token that was not issued.
    pub(crate) fn no_token(self, error: &CredentialsError, situation: Situation) -> WriteError {
        let class = if error.is_transient() { Class::Transient } else { Class::Auth };
        let hint = situation.token_hint();
        self.fail(
            class,
            &format!("no access token: {}{}{hint}", error_text(error), certificate_hint(error)),
        )
    }

    /// Creates the error for a token server that does not answer.
    pub(crate) fn no_token_in_time(self, situation: Situation) -> WriteError {
        let (limit, hint) = (span(TOKEN_LIMIT), situation.token_hint());
        self.fail(
            Class::Transient,
            &format!("no access token: the token server does not answer within {limit}{hint}"),
        )
    }

    /// Creates the error for a failure of the HTTP client.
    pub(crate) fn broken(self, error: &(dyn StdError + 'static)) -> WriteError {
        let limit = if is_connect_limit(error) {
            format!("no connection within {}: ", span(CONNECT_LIMIT))
        } else {
            String::new()
        };
        self.fail(
            Class::Transient,
            &format!("{limit}{}{}", error_text(error), certificate_hint(error)),
        )
    }

    /// Creates the error for an unreadable answer of a server that may have stored the object.
    pub(crate) fn unreadable(self, why: &str) -> WriteError {
        self.fail(
            Class::Transient,
            &format!("the answer cannot be read ({why}); the object may be stored"),
        )
    }

    /// Creates the error for a failed request whose body is a [`Source`](super::body_source::Source).
    pub(crate) fn http_error(self, error: &reqwest::Error) -> WriteError {
        let of_source = chain(error).find_map(|cause| cause.downcast_ref::<SourceError>());
        of_source.map_or_else(|| self.broken(error), |error| self.of_source(error))
    }

    /// Creates the error for bytes that cannot be read.
    pub(crate) fn of_source(self, error: &SourceError) -> WriteError {
        let class = match error {
            SourceError::Disk(_) => Class::Local,
            SourceError::KeepsNothing | SourceError::Beyond { .. } => Class::Transient,
        };
        self.fail(class, &error.to_string())
    }
}

/// Returns whether connecting took too long by our own limit, and not by one of the operating system.
fn is_connect_limit(error: &(dyn StdError + 'static)) -> bool {
    let is_ours = |error: &reqwest::Error| error.is_connect() && error.is_timeout();
    let is_system = |cause: &(dyn StdError + 'static)| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.raw_os_error().is_some())
    };
    error.downcast_ref().is_some_and(is_ours) && !chain(error).any(is_system)
}

/// Classifies an answer.
fn class_of(status: u16, retry_after: Option<Duration>, why: &Reason, situation: Situation) -> Class {
    let reason = why.text.as_str();
    match status {
        401 => Class::Auth,
        403 if is_rate_limit(reason) || why.code.as_deref().is_some_and(is_rate_limit) => Class::Throttled,
        // In a session these are about the session: another request may have finished it or changed its offset. The next attempt
        // begins a new one. A bucket or an object that is refused shows in the request that begins a session.
        400 | 404 | 410 | 416 if situation.in_session => Class::Transient,
        // The checksum does not match: the bytes were damaged in transit or before. `blamed` of the writer finds out which.
        400 if is_checksum(reason) => Class::Transient,
        // Another request for the same object is under way, such as our own before the connection broke.
        409 => Class::Transient,
        408 | 425 | 499 => Class::Transient,
        412 if why.is_conflict() => Class::Conflict,
        429 => Class::Throttled,
        503 if retry_after.is_some() => Class::Throttled,
        400..500 => Class::Permanent,
        _ => Class::Transient,
    }
}

/// Returns whether the reason is an exceeded quota: some Google front ends report that as 403.
fn is_rate_limit(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["rate limit", "ratelimitexceeded", "too many requests"]
        .iter()
        .any(|words| reason.contains(words))
}

fn is_checksum(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    reason.contains("crc32c") || reason.contains("checksum")
}

/// Returns how far this machine's clock is off if that is enough for tokens to be refused (Google tolerates minutes).
fn skew(server: SystemTime) -> Option<Duration> {
    let now = SystemTime::now();
    let skew = now.duration_since(server).or_else(|_| server.duration_since(now)).ok()?;
    (skew > Duration::from_secs(120)).then_some(skew)
}

/// Parses an HTTP date, RFC 9110 section 5.6.7.
fn http_date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    Some(DateTimeParser::new().parse_timestamp(text).ok()?.into())
}

/// Parses `Retry-After`, RFC 9110 section 10.2.3: seconds, or a date by the server's clock. At most one day.
fn retry_after(headers: &HeaderMap, server_date: Option<SystemTime>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = http_date(headers, RETRY_AFTER)?;
            until
                .duration_since(server_date.unwrap_or_else(SystemTime::now))
                .unwrap_or_default()
        }
    };
    Some(wait.min(Duration::from_secs(86400)))
}

#[cfg(test)]
mod tests {
    use super::super::error_text::reason_of;
    use super::*;

    const TARGET: Target<'static> = Target {
        action: Action::Store,
        bucket: "b",
        name: "cam/1.flv",
    };
    const PLAIN: Situation = Situation {
        in_session: false,
        metadata_server: false,
    };

    fn stated(text: &str) -> Reason {
        Reason::of_text(text)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn class(status: u16) -> Class {
        TARGET.refused(status, &HeaderMap::new(), &stated(""), PLAIN).class
    }

    #[test]
    fn every_status_has_the_class_that_the_scheduler_acts_on() {
        for (status, want) in [
            (200, Class::Transient),
            (302, Class::Transient),
            (308, Class::Transient),
            (400, Class::Permanent),
            (401, Class::Auth),
            (403, Class::Permanent),
            (404, Class::Permanent),
            (408, Class::Transient),
            (409, Class::Transient),
            (411, Class::Permanent),
            (412, Class::Conflict),
            (413, Class::Permanent),
            (429, Class::Throttled),
            (500, Class::Transient),
            (502, Class::Transient),
            (503, Class::Transient),
            (504, Class::Transient),
        ] {
            assert_eq!(class(status), want, "{status}");
        }
        let busy = TARGET.refused(503, &headers(&[("retry-after", "7")]), &stated(""), PLAIN);
        assert_eq!(
            (busy.class, busy.retry_after),
            (Class::Throttled, Some(Duration::from_secs(7)))
        );
        assert!(busy.message.contains("wait 7 s"), "{busy}");
    }

    #[test]
    fn a_412_of_a_policy_is_for_the_user_and_says_what_to_do() {
        let body = br#"{"error":{"message":"'x' violates constraint 'constraints/gcp.restrictNonCmekServices'","errors":[{"reason":"orgPolicyConstraintFailed"}]}}"#;
        let error = TARGET.refused(412, &HeaderMap::new(), &reason_of(body), PLAIN);
        assert_eq!(
            (error.class, error.reason.as_deref()),
            (Class::Permanent, Some("orgPolicyConstraintFailed"))
        );
        for part in [
            "412",
            "constraints/gcp.restrictNonCmekServices",
            "orgPolicyConstraintFailed",
            "nothing was stored",
            "kms-key",
        ] {
            assert!(error.message.contains(part), "{part}: {error}");
        }
        assert!(!error.message.contains("exists already"), "{error}");
    }

    #[test]
    fn only_an_answer_of_the_server_itself_says_that_nothing_was_stored() {
        let session = Situation {
            in_session: true,
            ..PLAIN
        };
        let says = |status, situation| {
            let error = TARGET.refused(status, &HeaderMap::new(), &stated(""), situation);
            error.means_nothing_was_stored()
        };
        for status in [400, 401, 403, 404, 411, 412, 413, 416, 429] {
            assert!(says(status, PLAIN), "{status}");
        }
        for status in [200, 302, 308, 408, 409, 499, 500, 502, 503, 504] {
            assert!(!says(status, PLAIN), "{status}");
        }
        for status in [400, 404, 409, 410, 416] {
            assert!(!says(status, session), "{status}: the session may have been finished");
        }
        assert!(!TARGET.fail(Class::Transient, "reset").means_nothing_was_stored());
    }

    #[test]
    fn quota_reported_as_403_is_throttling_and_a_lost_session_is_no_missing_bucket() {
        assert_eq!(
            TARGET
                .refused(403, &HeaderMap::new(), &stated("User Rate Limit Exceeded"), PLAIN)
                .class,
            Class::Throttled
        );
        let coded = Reason {
            text: "Quota".to_owned(),
            code: Some("userRateLimitExceeded".to_owned()),
        };
        assert_eq!(TARGET.refused(403, &HeaderMap::new(), &coded, PLAIN).class, Class::Throttled);
        let session = Situation {
            in_session: true,
            ..PLAIN
        };
        assert_eq!(
            TARGET.refused(410, &HeaderMap::new(), &stated(""), session).class,
            Class::Transient
        );
        assert_eq!(
            TARGET.refused(404, &HeaderMap::new(), &stated(""), session).class,
            Class::Transient
        );
        let crc = "Provided CRC32C \"a\" doesn't match calculated CRC32C \"b\".";
        assert_eq!(
            TARGET.refused(400, &HeaderMap::new(), &stated(crc), PLAIN).class,
            Class::Transient
        );
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date_by_the_servers_clock() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let wait = |value| {
            TARGET
                .refused(429, &headers(&[date, ("retry-after", value)]), &stated(""), PLAIN)
                .retry_after
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999"), Some(Duration::from_secs(86400)));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_wrong_clock_is_named_where_credentials_are_refused() {
        let error = TARGET.refused(
            401,
            &headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]),
            &stated("Invalid Credentials"),
            PLAIN,
        );
        assert!(error.message.contains("the clock of this machine is off by"), "{error}");
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(error.server_date, Some(date));
    }

    #[test]
    fn the_text_says_what_was_stored_the_number_the_reason_and_the_next_step() {
        let reason = "cam@p.iam.gserviceaccount.com does not have storage.objects.create access.";
        let error = TARGET.refused(403, &HeaderMap::new(), &stated(reason), PLAIN);
        for part in ["storing gs://b/cam/1.flv", "403", "cam@p.iam", "roles/storage.objectCreator"] {
            assert!(error.message.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn no_secret_is_in_the_text() {
        let error = TARGET.refused(
            401,
            &HeaderMap::new(),
            &stated("token ya29.SECRET of Bearer SECRET refused"),
            PLAIN,
        );
        assert!(!error.to_string().contains("SECRET"), "{error}");
        let error = CredentialsError::from_msg(false, r#"body=<{"assertion":"SECRET"}>"#);
        assert!(!TARGET.no_token(&error, PLAIN).to_string().contains("SECRET"));
        let error = std::io::Error::other("proxy http://u:SECRET@h:1 refused");
        assert!(!TARGET.broken(&error).to_string().contains("SECRET"));
    }
}
