//! What systemd is told: when the dashboard serves, that it still does, and that it ends. Nothing happens where there is no systemd.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer takes no longer than this unless the dashboard hangs.
const ANSWER: Duration = Duration::from_secs(5);

/// The listener is bound. Where the unit has a watchdog, `/healthz` is asked by HTTP from now on, twice in each of its periods, and every
/// good answer is reported: a server that accepts no connection or answers none is started again.
pub fn serves(address: SocketAddr) {
    let status = format!("listening on http://{address}");
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(period / 2);
        loop {
            ticks.tick().await;
            match tokio::time::timeout(ANSWER, is_healthy(address)).await {
                Ok(Ok(true)) => {
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
                Ok(Ok(false)) | Err(_) => {
                    tracing::warn!("http://{address}/healthz does not answer; systemd starts the dashboard again")
                }
                Ok(Err(error)) => tracing::warn!("http://{address}/healthz: {error}; systemd starts the dashboard again"),
            }
        }
    });
}

/// The end has begun.
pub fn ends() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

async fn is_healthy(mut address: SocketAddr) -> std::io::Result<bool> {
    // "All addresses" is none to connect to.
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut stream = TcpStream::connect(address).await?;
    // Without authentication the dashboard answers to names of this machine alone.
    let request = ["GET /healthz HTTP/1.0\r\n", "Host: localhost\r\n\r\n"].concat();
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(256).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.") && answer.get(8..12) == Some(b" 200"))
}
