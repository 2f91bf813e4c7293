//! The HTTP client of this crate, and its name look-up.
//!
//! Its own timeouts are for connecting only. Afterwards, an attempt ends when it makes no progress, see `watchdog`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// User agent of the requests.
pub(crate) const USER_AGENT: &str = concat!("gst-plugin-gcstreamer/", env!("CARGO_PKG_VERSION"));

/// Timeout for connecting: name look-up, TCP and TLS. The addresses of one family share it, see [`MAX_ADDRESSES`].
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Maximum number of addresses of one family that are tried for a connection. Cloud Storage has 16: with a sixteenth of
/// [`CONNECT_LIMIT`] for each, a satellite link would never connect.
const MAX_ADDRESSES: usize = 3;

/// Returns a plain HTTP client that neither follows redirects nor retries; sets up TLS for the process.
pub(crate) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    builder().build()
}

/// As [`http_client`], without the proxies of the environment: for a server of this machine or of its network.
pub(crate) fn direct_http_client() -> Result<reqwest::Client, reqwest::Error> {
    builder().no_proxy().build()
}

fn builder() -> ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails if another thread was first. Its provider serves as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    // Redirects and retries are off, because one call is one attempt: the scheduler decides about the next one.
    let builder = reqwest::Client::builder()
        .http1_only()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_LIMIT)
        .dns_resolver(Arc::<Resolver>::default());
    // The default of 30 s would end a connection on a slow link before `request-timeout` does. Dead connections in the pool are
    // found by their keep-alive within 60 s.
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let builder = builder.tcp_user_timeout(None::<Duration>);
    builder
}

/// Looks up names and puts another address first each time. The HTTP client tries the addresses of one family in sequence, and an
/// attempt with a short `request-timeout` ends at the first address that does not answer. The rotation lets the next attempt try
/// another.
#[derive(Debug, Default)]
struct Resolver {
    turn: AtomicUsize,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // Port 0: the HTTP client replaces it with the port of the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Addrs = Box::new(in_turn(found, turn).into_iter());
            Ok(addresses)
        })
    }
}

/// Returns at most [`MAX_ADDRESSES`] addresses of each family, beginning with another one at each `turn`. Keeps the system's
/// order of the two families.
fn in_turn(found: impl Iterator<Item = SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    let mut found = found.peekable();
    let is_ipv6_first = found.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.partition(|address| address.is_ipv6() == is_ipv6_first);
    let rotated = |mut family: Vec<SocketAddr>| {
        let by = turn.checked_rem(family.len()).unwrap_or(0);
        family.rotate_left(by);
        family.truncate(MAX_ADDRESSES);
        family
    };
    [first, second].into_iter().flat_map(rotated).collect()
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::os::fd::BorrowedFd;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::timeout;

    use super::*;

    /// A server that answers one request at 127.0.0.1, and a listener at the same port of 127.0.0.2 that does not answer.
    async fn one_of_two_answers() -> (u16, Vec<Box<dyn Any>>) {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = live.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut connection, _) = live.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await.unwrap();
            connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        let silent: SocketAddr = ([127, 0, 0, 2], port).into();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(silent).unwrap();
        let mut kept: Vec<Box<dyn Any>> = vec![Box::new(socket.listen(1).unwrap())];
        // Fills the accept queue: then connections are no longer established.
        while let Ok(connected) = timeout(Duration::from_secs(1), TcpStream::connect(silent)).await {
            kept.push(Box::new(connected.unwrap()));
        }
        (port, kept)
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_address_is_tried_within_an_attempt_if_the_first_does_not_answer() {
        let (port, _kept) = one_of_two_answers().await;
        let addresses = [([127, 0, 0, 2], port).into(), ([127, 0, 0, 1], port).into()];
        let client = builder().no_proxy().resolve_to_addrs("two.test", &addresses).build().unwrap();
        let call = client.get(format!("http://two.test:{port}/")).send();
        let response = timeout(crate::DEFAULT_REQUEST_TIMEOUT, call)
            .await
            .expect("no answer in time");
        assert_eq!(response.unwrap().status(), 204);
    }

    /// The option of the connection from this process to `server`.
    #[allow(unsafe_code, reason = "the client does not give its sockets away")]
    fn user_timeout_to(server: SocketAddr) -> Option<u32> {
        let names = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let numbers: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        numbers.into_iter().find_map(|number| {
            // SAFETY: if another test has closed the descriptor meanwhile, the calls only return errors.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            let peer = SocketAddr::try_from(rustix::net::getpeername(file).ok()??).ok()?;
            let is_ours = peer == server;
            is_ours.then(|| rustix::net::sockopt::tcp_user_timeout(file).unwrap())
        })
    }

    #[tokio::test]
    async fn the_system_ends_no_connection_that_a_slow_link_holds_up() {
        let (port, _kept) = one_of_two_answers().await;
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let client = direct_http_client().unwrap();
        client.get(format!("http://{server}/")).send().await.unwrap();
        assert_eq!(user_timeout_to(server), Some(0), "0: none");
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn an_address_that_does_not_answer_is_first_in_one_attempt_and_not_in_the_next() {
        let two = addresses(&["192.0.2.1", "192.0.2.2"]);
        assert_eq!(in_turn(two.iter().copied(), 0), two);
        assert_eq!(in_turn(two.iter().copied(), 1), addresses(&["192.0.2.2", "192.0.2.1"]));
        assert_eq!(in_turn(two.iter().copied(), 2), two);
        assert_eq!(in_turn(std::iter::empty(), 7), []);
    }

    #[test]
    fn each_of_many_addresses_has_its_turn_and_enough_time() {
        let both = addresses(&[
            "2001:db8::1",
            "192.0.2.1",
            "2001:db8::2",
            "192.0.2.2",
            "192.0.2.3",
            "192.0.2.4",
        ]);
        assert_eq!(
            in_turn(both.iter().copied(), 1),
            addresses(&["2001:db8::2", "2001:db8::1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]),
            "the system prefers IPv6 here"
        );
        let firsts: Vec<SocketAddr> = (0..6).map(|turn| in_turn(both.iter().copied(), turn)[0]).collect();
        assert!(
            addresses(&["2001:db8::1", "2001:db8::2"])
                .iter()
                .all(|each| firsts.contains(each))
        );
        assert!(CONNECT_LIMIT / 3 >= Duration::from_secs(10));
    }
}
