//! Finds out why an HTTP camera cannot be reached. `souphttpsrc` does not report the cause: the text is always "Internal data
//! stream error."

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use url::Url;

use super::classify::{Unreached, unreached};
use super::state::Failure;
use crate::config::Address;

/// How long to try all addresses of a name together. Must be less than the 10 s that the supervisor waits for an answer.
const CONNECT: Duration = Duration::from_secs(5);

/// Returns why a camera gave no answer, by connecting to it and closing at once. Blocks on name resolution and then for at most
/// [`CONNECT`].
pub(super) fn ask(address: &Address) -> Failure {
    let why = match connect(address) {
        Err(why) => why,
        Ok(()) if address.is_encrypted() => Unreached::NotSecure,
        Ok(()) => Unreached::NotUnderstood,
    };
    unreached(why, address.scheme())
}

fn connect(address: &Address) -> Result<(), Unreached> {
    let url = Url::parse(address.secret()).map_err(|_| Unreached::NotConnected)?;
    // `Url` has IPv6 addresses in brackets, which name resolution does not accept.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    let until = Instant::now() + CONNECT;
    let mut why = Unreached::NoName;
    for address in (host, port).to_socket_addrs().map_err(|_| Unreached::NoName)? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unreached::Silent);
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return Ok(()),
            Err(error) => why = of_error(error.kind()),
        }
    }
    Err(why)
}

fn of_error(kind: ErrorKind) -> Unreached {
    match kind {
        ErrorKind::ConnectionRefused => Unreached::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Unreached::NoRoute,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Unreached::Silent,
        _ => Unreached::NotConnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_says_what_an_http_source_does_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, words) in [
            ("http://no-such-host.invalid/x".to_owned(), "cannot be resolved"),
            (format!("http://{closed}/x"), "refuses connections"),
            (format!("http://{open}/x"), "cannot be understood"),
            (format!("https://{open}/x"), "no secure connection"),
        ] {
            let failure = ask(&Address::parse(&url).unwrap());
            assert!(
                matches!(&failure, Failure::Unreachable(text) if text.contains(words)),
                "{url}: {failure:?}"
            );
        }
        for (kind, expected) in [
            (ErrorKind::HostUnreachable, Unreached::NoRoute),
            (ErrorKind::TimedOut, Unreached::Silent),
            (ErrorKind::Other, Unreached::NotConnected),
        ] {
            assert_eq!(of_error(kind), expected);
        }
    }
}
