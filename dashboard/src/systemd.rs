//! Notifies systemd that the dashboard is ready, alive, and stopping. Does nothing if systemd did not start it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest time for an answer of `/healthz`; after that the dashboard counts as hanging.
const ANSWER: Duration = Duration::from_secs(5);

/// Notifies systemd that the listener is bound. If the unit has a watchdog, starts a task that requests `/healthz` over HTTP
/// twice in each period and notifies systemd of each good answer. So systemd restarts a server that no longer accepts connections
/// or answers.
pub fn serves(address: SocketAddr) {
    let status = format!("listening on http://{address}");
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    tokio::spawn(async move {
        // Half of the period, as sd_watchdog_enabled(3) recommends.
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

/// Notifies systemd that the dashboard is stopping.
pub fn ends() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

async fn is_healthy(mut address: SocketAddr) -> std::io::Result<bool> {
    // The unspecified address is for listening only: connect to loopback.
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut stream = TcpStream::connect(address).await?;
    // Without authentication the dashboard answers only if `Host` is a name of this machine.
    let request = ["GET /healthz HTTP/1.0\r\n", "Host: localhost\r\n\r\n"].concat();
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(256).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.") && answer.get(8..12) == Some(b" 200"))
}
