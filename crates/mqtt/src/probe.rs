//! Identifies the server on a port that did not answer as an MQTT broker: an HTTP server, or a server that speaks TLS.
//!
//! Sends no credentials. Used once per outage, after an answer that allows several explanations.

use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::error_text::Listening;

/// Time limit of one query.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Identifies the server at `address`. `host` is the server name in the TLS ClientHello.
pub(super) async fn what_listens(address: SocketAddr, host: &str) -> Listening {
    let questions = [b"GET / HTTP/1.0\r\n\r\n".to_vec(), client_hello(host).unwrap_or_default()];
    for question in questions.iter().filter(|question| !question.is_empty()) {
        let answer = tokio::time::timeout(PATIENCE, ask(address, question)).await;
        if let Ok(Ok(answer)) = answer
            && let found @ (Listening::Http | Listening::Tls) = classify(&answer)
        {
            return found;
        }
    }
    Listening::Unknown
}

/// Identifies a server by the first bytes of its answer.
fn classify(answer: &[u8]) -> Listening {
    match answer {
        [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => Listening::Http,
        // A TLS record: content type alert or handshake, version 3.x (RFC 8446, 5.1).
        [0x15 | 0x16, 3, ..] => Listening::Tls,
        _ => Listening::Unknown,
    }
}

async fn ask(address: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(address).await?;
    server.write_all(question).await?;
    let mut answer = vec![0; 16];
    let size = server.read(&mut answer).await?;
    answer.truncate(size);
    Ok(answer)
}

/// Returns the ClientHello of a TLS client.
fn client_hello(host: &str) -> Option<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut hello = Cursor::new(Vec::new());
    client.write_tls(&mut hello).ok()?;
    Some(hello.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_first_bytes() {
        for (answer, listening) in [
            (&b"HTTP/1.1 400 Bad Request"[..], Listening::Http),
            (b"<!DOCTYPE HTML", Listening::Http),
            (&[0x15, 3, 1, 0, 2], Listening::Tls),
            (&[0x16, 3, 3], Listening::Tls),
            (&[0x20, 2, 0, 0], Listening::Unknown),
            (b"", Listening::Unknown),
        ] {
            assert_eq!(classify(answer), listening, "{answer:?}");
        }
        assert_eq!(classify(&client_hello("localhost").unwrap()), Listening::Tls);
    }
}
