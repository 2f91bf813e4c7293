//! Decides whether a chunk of the spool gets this sink's credentials, by the endpoint that it names and this sink's own.
//!
//! PURE: names and settings in, a decision out. Anybody with write access to `spool-dir` may have written a file in it, so the
//! endpoint in a file must not decide where a token is sent. Credentials are sent to this sink's own endpoint, which the user has
//! set, and to Google: `https` hosts equal to or below `googleapis.com` on port 443. Chunks for any other endpoint are parked
//! until a sink with that `endpoint-uri` finds them.

use std::collections::BTreeSet;
use std::hash::Hash;

use crate::spool::{Destination, DestinationId};
use crate::upload::scheduler::{Elsewhere, LinkKey};
use gcstreamer_schema::redact;
use gcstreamer_storage::{Endpoint, is_google_host};

/// Most destinations named in WARNINGs: anybody who can write to the spool could invent thousands.
const MAX_NAMED: usize = 8;

/// How a chunk of the spool is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is sent to this sink's own endpoint, like this sink's own chunks: without credentials if they get none.
    Own,
    /// It is sent to Google with credentials.
    Google(Endpoint),
    /// It belongs to another endpoint: it is parked, and tried there without credentials.
    Parked(Endpoint),
    /// Its endpoint is invalid: it is parked, and no request is made. Contains the reason, for the user.
    Unusable(String),
}

/// Decides about a chunk that belongs to `endpoint` (`None` = Google). `anonymous`: the sink that recorded it used no credentials
/// there. `own`: the endpoint of this sink's own chunks.
pub(super) fn access(endpoint: Option<&str>, anonymous: bool, own: &Endpoint) -> Access {
    let belongs_to = match endpoint {
        None => Endpoint::google(),
        // Compare the parsed endpoint, never the text: the request goes to the parsed one too.
        Some(text) => match Endpoint::resolve(Some(text), None) {
            Ok(endpoint) => endpoint,
            Err(e) => return Access::Unusable(e.to_string()),
        },
    };
    if belongs_to.custom() == own.custom() {
        Access::Own
    } else if endpoint.is_none() || (!anonymous && is_google(&belongs_to)) {
        Access::Google(belongs_to)
    } else {
        Access::Parked(belongs_to)
    }
}

/// Whether an endpoint is a host of Google's on port 443. A parsed endpoint contains every other port, which fails this test. So
/// does a dot at the end, which is refused on purpose.
fn is_google(endpoint: &Endpoint) -> bool {
    endpoint.as_str().strip_prefix("https://").is_some_and(is_google_host)
}

/// Assigns the chunks found in the spool to their links. Each parked endpoint is reported once.
#[derive(Debug)]
pub(super) struct Sorter {
    own: Endpoint,
    /// The destination of this sink's own chunks.
    own_destination: DestinationId,
    reported: BTreeSet<DestinationId>,
}

impl Sorter {
    /// Creates the sorter of a sink: the endpoint of its own chunks, and their destination there.
    pub(super) fn new(own: Endpoint, own_destination: DestinationId) -> Self {
        Self {
            own,
            own_destination,
            reported: BTreeSet::new(),
        }
    }

    /// Returns the link of a chunk, and a WARNING the first time an endpoint is parked.
    pub(super) fn sort(&mut self, id: DestinationId, destination: Option<&Destination>) -> (LinkKey, Option<String>) {
        let found = destination.map(|d| access(d.endpoint.as_deref(), d.anonymous, &self.own));
        match found {
            Some(Access::Parked(endpoint)) => {
                let name = redact(endpoint.as_str());
                self.park(&endpoint, || {
                    format!(
                        "chunks of the spool belong to {name}, which is not the endpoint of this sink: they stay in spool-dir, no credentials are sent there, and once an hour they are tried without; a gcssink with endpoint-uri={name} and this spool-dir stores them"
                    )
                })
            }
            Some(Access::Unusable(why)) => self.park(&why, || {
                format!(
                    "chunks of the spool name an invalid endpoint ({why}); they are not sent and stay in spool-dir: find out who writes there, and remove them"
                )
            }),
            Some(Access::Own | Access::Google(_)) | None => {
                // The link affects only the order of uploads: `access` decides again about the writer when the chunk is sent.
                let is_own = id == self.own_destination;
                ((!is_own).then_some(Elsewhere::Served(id)), None)
            }
        }
    }

    fn park(&mut self, destination: &impl Hash, text: impl Fn() -> String) -> (LinkKey, Option<String>) {
        let id = DestinationId::of(destination);
        let link_key = Some(Elsewhere::Parked(id));
        if self.reported.len() > MAX_NAMED || !self.reported.insert(id) {
            return (link_key, None);
        }
        let is_last = self.reported.len() > MAX_NAMED;
        let more = || {
            format!(
                "chunks of the spool belong to more than {MAX_NAMED} endpoints other than that of this sink: they stay in spool-dir too, and no more are named; find out who writes there"
            )
        };
        (link_key, Some(if is_last { more() } else { text() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(uri: &str) -> Endpoint {
        Endpoint::resolve(Some(uri), None).unwrap()
    }

    /// `own`, `google`, `parked` or `unusable`, and where it goes.
    fn decided(chunk: Option<&str>, anonymous: bool, own: &Endpoint) -> (&'static str, String) {
        match access(chunk, anonymous, own) {
            Access::Own => ("own", String::new()),
            Access::Google(to) => ("google", to.as_str().to_owned()),
            Access::Parked(to) => ("parked", to.as_str().to_owned()),
            Access::Unusable(why) => ("unusable", why),
        }
    }

    #[test]
    fn only_hosts_of_google_on_port_443_get_credentials() {
        let own = Endpoint::google();
        for (chunk, expected, to) in [
            // Google's, however it is written: what the parser makes of it is where the request goes.
            ("https://storage.googleapis.com", "google", "https://storage.googleapis.com"),
            ("https://googleapis.com", "google", "https://googleapis.com"),
            ("https://private.googleapis.com", "google", "https://private.googleapis.com"),
            (
                "https://storage-x.p.googleapis.com/",
                "google",
                "https://storage-x.p.googleapis.com",
            ),
            (
                "https://storage.googleapis.com:443",
                "google",
                "https://storage.googleapis.com",
            ),
            ("HTTPS://Storage.GoogleAPIs.COM", "google", "https://storage.googleapis.com"),
            ("https://storage.google%61pis.com", "google", "https://storage.googleapis.com"),
            (
                "https://storage。ｇoogleapis．com",
                "google",
                "https://storage.googleapis.com",
            ),
            ("https:\\\\storage.googleapis.com", "google", "https://storage.googleapis.com"),
            // Looks like it and is not.
            ("https://googleapis.com.evil", "parked", "https://googleapis.com.evil"),
            (
                "https://storage.googleapis.com.evil",
                "parked",
                "https://storage.googleapis.com.evil",
            ),
            ("https://evilgoogleapis.com", "parked", "https://evilgoogleapis.com"),
            ("https://evil-googleapis.com", "parked", "https://evil-googleapis.com"),
            ("https://storage.googleapis.co", "parked", "https://storage.googleapis.co"),
            ("https://storage.googleapis.com.", "parked", "https://storage.googleapis.com."),
            (
                "https://storage.googleapis.com..",
                "parked",
                "https://storage.googleapis.com..",
            ),
            (
                "https://storage.gооgleapis.com",
                "parked",
                "https://storage.xn--ggleapis-nbha.com",
            ),
            ("https://xn--ggleapis-nbha.com", "parked", "https://xn--ggleapis-nbha.com"),
            ("https://storage-googleapis.com", "parked", "https://storage-googleapis.com"),
            // Another port, and no TLS.
            (
                "https://storage.googleapis.com:8443",
                "parked",
                "https://storage.googleapis.com:8443",
            ),
            (
                "https://storage.googleapis.com:80",
                "parked",
                "https://storage.googleapis.com:80",
            ),
            ("http://storage.googleapis.com", "parked", "http://storage.googleapis.com"),
            (
                "http://storage.googleapis.com:443",
                "parked",
                "http://storage.googleapis.com:443",
            ),
            ("http://169.254.169.254", "parked", "http://169.254.169.254"),
            ("http://0xa9fea9fe", "parked", "http://169.254.169.254"),
            ("http://[::1]:4443", "parked", "http://[::1]:4443"),
            ("https://[::ffff:8.8.8.8]", "parked", "https://[::ffff:808:808]"),
            // Another universe of Google's: its domain is not known here. Its own chunks name no endpoint at all.
            (
                "https://storage.apis-berlin-build0.goog",
                "parked",
                "https://storage.apis-berlin-build0.goog",
            ),
        ] {
            assert_eq!(decided(Some(chunk), false, &own), (expected, to.to_owned()), "{chunk}");
        }
    }

    #[test]
    fn what_is_no_server_is_asked_nothing_and_its_secrets_are_not_reported() {
        for chunk in [
            "",
            " ",
            "/",
            "storage.googleapis.com",
            "https://",
            "https://storage.googleapis.com@evil/",
            "https://evil@storage.googleapis.com",
            "https://user:SECRET@storage.googleapis.com",
            "https://storage.googleapis.com\\@evil",
            "https://evil/https://storage.googleapis.com",
            "https://evil\\.googleapis.com",
            "https://evil/.googleapis.com",
            "https://evil?.googleapis.com",
            "https://evil#.googleapis.com",
            "https://evil%2f.googleapis.com",
            "https://evil%00.googleapis.com",
            "https://storage.googleapis.com/upload/../../x",
            "https://storage.googleapis.com:443:443",
            "https://storage.googleapis.com:0",
            "file:///etc/passwd",
            "gopher://storage.googleapis.com",
        ] {
            let (what, why) = decided(Some(chunk), false, &Endpoint::google());
            assert_eq!(what, "unusable", "{chunk}: {why}");
            assert!(!why.contains("SECRET"), "{why}");
        }
    }

    #[test]
    fn a_chunk_goes_with_credentials_to_the_endpoint_of_this_sink_and_to_google_and_nowhere_else() {
        let emulator_variable = Endpoint::resolve(None, Some("localhost:4443")).unwrap();
        let emulator_https = Endpoint::resolve(None, Some("https://emulator")).unwrap();
        let (private, http) = (endpoint("https://store.example"), endpoint("http://localhost:4443"));
        let google_by_name = endpoint("https://storage.googleapis.com");
        for (chunk, anonymous, own, expected) in [
            // No endpoint is Google, whatever else is said.
            (None, false, &Endpoint::google(), "own"),
            (None, true, &Endpoint::google(), "own"),
            (None, false, &private, "google"),
            (None, true, &private, "google"),
            // STORAGE_EMULATOR_HOST is set now, and the chunk is Google's.
            (None, false, &emulator_variable, "google"),
            (Some("https://storage.googleapis.com"), false, &emulator_variable, "google"),
            // The reverse.
            (Some("http://localhost:4443"), true, &Endpoint::google(), "parked"),
            (Some("https://emulator"), true, &Endpoint::google(), "parked"),
            // The same emulator, however it was set.
            (Some("http://localhost:4443"), true, &http, "own"),
            (Some("http://localhost:4443/"), true, &emulator_variable, "own"),
            (Some("https://emulator"), true, &emulator_https, "own"),
            (Some("https://emulator"), false, &emulator_https, "own"),
            // That endpoint-uri releases it, as a setting of the user's; what the file says of credentials does not count.
            (Some("https://store.example"), false, &private, "own"),
            (Some("HTTPS://STORE.example:443/"), true, &private, "own"),
            (Some("https://store.example"), false, &Endpoint::google(), "parked"),
            (Some("https://store.example:444"), false, &private, "parked"),
            (Some("http://store.example"), false, &private, "parked"),
            (Some("https://x.store.example"), false, &private, "parked"),
            (Some("https://store.example"), false, &http, "parked"),
            // Recorded without credentials at a host of Google's: so it stays, unless the user says otherwise.
            (Some("https://storage.googleapis.com"), true, &Endpoint::google(), "parked"),
            (Some("https://storage.googleapis.com"), true, &google_by_name, "own"),
            (Some("https://private.googleapis.com"), false, &google_by_name, "google"),
        ] {
            assert_eq!(decided(chunk, anonymous, own).0, expected, "{chunk:?} {anonymous} {own:?}");
        }
    }

    fn id(n: i32) -> DestinationId {
        DestinationId::of(&n)
    }

    fn destination(endpoint: &str) -> Destination {
        Destination {
            endpoint: Some(endpoint.to_owned()),
            anonymous: false,
        }
    }

    #[test]
    fn each_destination_is_reported_once_and_thousands_are_not_reported_one_by_one() {
        let mut sorter = Sorter::new(Endpoint::google(), id(1));
        let google = Destination {
            endpoint: None,
            anonymous: false,
        };
        assert_eq!(sorter.sort(id(1), Some(&google)), (None, None));
        assert_eq!(sorter.sort(id(2), Some(&google)), (Some(Elsewhere::Served(id(2))), None));
        let (link_key, reported) = sorter.sort(id(3), Some(&destination("https://store.example")));
        assert!(reported.unwrap().contains("endpoint-uri=https://store.example "));
        // Another bucket there, and another way to write it.
        assert_eq!(
            sorter.sort(id(4), Some(&destination("https://STORE.example/"))),
            (link_key, None)
        );
        assert!(matches!(link_key, Some(Elsewhere::Parked(_))));
        let (_, reported) = sorter.sort(id(5), Some(&destination("https://u:SECRET@h")));
        let reported = reported.unwrap();
        assert!(
            reported.contains("user name or password") && !reported.contains("SECRET"),
            "{reported}"
        );
        let many = (0..1000).filter_map(|i| sorter.sort(id(i), Some(&destination(&format!("https://h{i}.example")))).1);
        assert_eq!(many.count(), MAX_NAMED + 1 - 2);
    }
}
