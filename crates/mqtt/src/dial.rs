//! Connects to one of a broker's addresses without waiting for those that do not answer.
//!
//! Connecting to an address that drops all packets (a machine that is off, a broken IPv6 route) takes minutes to fail. The next
//! address is therefore tried 250 ms later, in addition; the first to connect is used. The next connection tries an address last
//! if it accepted TCP but the broker did not accept the MQTT connection there. Source: RFC 8305, sections 5 and 8.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::shared::lock;

// The delay that RFC 8305 recommends.
/// Time until the next address is tried as well.
const STAGGER: Duration = Duration::from_millis(250);

/// An address that was tried, and why it failed; `None` if it has not answered.
pub(super) type Tried = (SocketAddr, Option<io::Error>);

/// Returns the first address that connects, and the connection that `connect` made to it.
///
/// # Errors
/// Returns what was tried if none has connected by `deadline`.
pub(super) async fn first_to_connect<S, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
    deadline: Instant,
) -> Result<(SocketAddr, S), Vec<Tried>>
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: Send + 'static,
{
    let mut waiting = addresses.into_iter();
    let mut running = JoinSet::new();
    let mut tried: Vec<Tried> = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            tried.push((address, None));
            running.spawn(async move { (address, attempt.await) });
        }
        let is_last = waiting.len() == 0;
        let next = if is_last {
            deadline
        } else {
            deadline.min(Instant::now() + STAGGER)
        };
        match timeout_at(next, running.join_next()).await {
            Ok(Some(Ok((address, Ok(connected))))) => return Ok((address, connected)),
            Ok(Some(Ok((address, Err(error))))) => {
                if let Some((_, why)) = tried.iter_mut().find(|(tried, _)| *tried == address) {
                    *why = Some(error);
                }
            }
            // The attempt has panicked: its address stays without an answer in the report.
            Ok(Some(Err(_))) => {}
            Ok(None) if is_last => return Err(tried),
            Err(_) if Instant::now() >= deadline => return Err(tried),
            Ok(None) | Err(_) => {}
        }
    }
}

/// The addresses at which a connection of this client failed before the broker accepted it, the latest failure last.
#[derive(Clone, Debug, Default)]
pub(super) struct FailedAddresses(Arc<Mutex<Vec<SocketAddr>>>);

impl FailedAddresses {
    /// Moves the addresses that have failed behind the others, the latest failure last. Forgets addresses that the broker no
    /// longer has.
    pub(super) fn put_last(&self, addresses: &mut [SocketAddr]) {
        let mut failed = lock(&self.0);
        failed.retain(|address| addresses.contains(address));
        // `None` sorts first and the sort is stable: the other addresses keep the order of the name look-up.
        addresses.sort_by_key(|address| failed.iter().position(|failed| failed == address));
    }

    /// Remembers an address that has failed.
    pub(super) fn add(&self, address: SocketAddr) {
        self.remove(address);
        lock(&self.0).push(address);
    }

    /// Forgets an address at which the broker has accepted a connection.
    pub(super) fn remove(&self, address: SocketAddr) {
        lock(&self.0).retain(|failed| *failed != address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 1883))
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    /// 1 to 9 are silent, 10 to 19 refuse, the others connect.
    async fn connect(to: SocketAddr) -> io::Result<SocketAddr> {
        match to {
            SocketAddr::V4(v4) if v4.ip().octets()[3] < 10 => std::future::pending().await,
            SocketAddr::V4(v4) if v4.ip().octets()[3] < 20 => Err(refused()),
            _ => Ok(to),
        }
    }

    async fn dial(addresses: &[u8]) -> Result<SocketAddr, Vec<(SocketAddr, bool)>> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let addresses = addresses.iter().copied().map(address).collect();
        match first_to_connect(addresses, connect, deadline).await {
            Ok((address, connected)) => {
                assert_eq!(address, connected);
                Ok(address)
            }
            Err(tried) => Err(tried.into_iter().map(|(address, why)| (address, why.is_some())).collect()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_that_connects_counts_however_silent_those_before_it_are() {
        assert_eq!(dial(&[20, 21]).await, Ok(address(20)));
        assert_eq!(dial(&[1, 20]).await, Ok(address(20)));
        assert_eq!(dial(&[10, 1, 11, 2, 21, 20]).await, Ok(address(21)));
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_that_was_tried_is_named_if_none_connects() {
        assert_eq!(dial(&[10, 11]).await, Err(vec![(address(10), true), (address(11), true)]));
        assert_eq!(dial(&[1, 10]).await, Err(vec![(address(1), false), (address(10), true)]));
        assert_eq!(dial(&[]).await, Err(vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn more_addresses_than_there_is_time_for_end_in_time() {
        let many: Vec<_> = (0..200).map(|_| 1).collect();
        assert_eq!(dial(&many).await.unwrap_err().len(), 80);
    }

    #[test]
    fn addresses_that_have_failed_are_tried_in_turn_behind_the_others() {
        let failed = FailedAddresses::default();
        let order = || {
            let mut addresses = [1, 2, 3].map(address);
            failed.put_last(&mut addresses);
            addresses
        };
        let mut first = Vec::new();
        for _ in 0..4 {
            let next = order()[0];
            failed.add(next);
            first.push(next);
        }
        assert_eq!(first, [1, 2, 3, 1].map(address));
        failed.remove(address(3));
        assert_eq!(order(), [3, 2, 1].map(address));
        failed.put_last(&mut [address(1)]);
        assert_eq!(order(), [2, 3, 1].map(address), "2 is another machine by now");
    }
}
