//! Connections to brokers with several addresses.

use std::io::{Read, Write};
use std::net::TcpListener;

use tokio::net::TcpSocket;

use super::*;
use crate::topics::MAX_PACKET;

/// Accepts every connection and answers CONNECT with `answer`.
fn broker(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(answer);
            if !answer.is_empty() {
                open.push(stream);
            }
        }
    });
    address
}

const ACCEPTED: &[u8] = &[0x20, 2, 0, 0];

/// Returns an address that does not answer, and what must stay alive for that: connections that fill its accept queue.
async fn silent() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        waiting.spawn(async move {
            let _open = TcpStream::connect(address).await;
            std::future::pending::<()>().await;
        });
    }
    while tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address))
        .await
        .is_ok()
    {}
    (address, (listener, waiting))
}

/// A port of 127.0.0.1 where nothing listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A client of a broker whose addresses the test supplies.
#[derive(Default)]
struct Client {
    failed: FailedAddresses,
}

impl Client {
    async fn first(&self, addresses: &[SocketAddr]) -> Received {
        let found = addresses.to_vec();
        self.open(async move { Ok(found) }).received().await
    }

    fn open(&self, lookup: impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static) -> Connection {
        let options = ConnectionParams {
            host: "brk".into(),
            port: 1883,
            client_id: "cam".into(),
            login: None,
            has_token: false,
            tls: None,
            will: None,
            keep_alive: Duration::from_secs(60),
            has_certificate: false,
            is_first_failure: false,
            max_incoming: MAX_PACKET,
            failed: self.failed.clone(),
        };
        Connection::open_with(options, lookup)
    }

    async fn lost(&self, addresses: &[SocketAddr]) -> String {
        match self.first(addresses).await {
            Received::Lost(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_broker_behind_a_silent_address_is_reached() {
    let (silent, _keep) = silent().await;
    let received = Client::default().first(&[silent, broker(ACCEPTED)]).await;
    assert!(matches!(received, Received::Connected), "{received:?}");
}

#[tokio::test]
async fn an_address_where_no_broker_accepts_is_not_the_first_again() {
    let (refusing, accepting) = (broker(&[]), broker(ACCEPTED));
    let client = Client::default();
    let text = client.lost(&[refusing, accepting]).await;
    assert!(
        text.starts_with("MQTT broker brk:1883 (127.0.0.1): it closed the connection"),
        "{text}"
    );
    for _ in 0..2 {
        let received = client.first(&[refusing, accepting]).await;
        assert!(matches!(received, Received::Connected), "{received:?}");
    }
    // The other one may be the broker again when this one refuses.
    assert!(client.lost(&[refusing]).await.contains("brk:1883: it closed"));
}

#[tokio::test]
async fn a_failure_names_the_addresses_that_were_tried() {
    let client = Client::default();
    let text = client
        .lost(&[closed(), SocketAddr::from(([127, 0, 0, 2], closed().port()))])
        .await;
    for part in [
        "MQTT broker brk:1883: none of its 2 addresses",
        "127.0.0.1 (",
        "127.0.0.2 (",
        "refused",
        "check host",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = client.lost(&[closed()]).await;
    assert!(text.starts_with("MQTT broker brk:1883: Connection refused"), "{text}");
    assert!(client.lost(&[]).await.contains("its name has no address"));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_never_resolved_ends_the_attempt() {
    let received = Client::default().open(std::future::pending()).received().await;
    assert!(
        matches!(&received, Received::Lost(text) if text.contains("not resolved within 20 s")),
        "{received:?}"
    );
}
