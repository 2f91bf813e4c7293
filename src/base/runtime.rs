//! The tokio runtime of the process: all elements share it and its two threads.
//!
//! Credentials and connections depend on it, so it is never shut down. SIGPIPE is blocked in its threads: a program in C
//! (`gst-launch-1.0`) does not ignore SIGPIPE as a Rust program does, and `writev` has no `MSG_NOSIGNAL`, so a peer that closes
//! its connection at the wrong moment would end the process. No other thread of the plugin writes to a socket.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use once_cell::sync::OnceCell;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: OnceCell<Runtime> = OnceCell::new();

/// Returns the runtime; creates it at the first call.
///
/// # Errors
/// The system refuses to create threads.
pub(crate) fn runtime() -> io::Result<&'static Runtime> {
    RUNTIME.get_or_try_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gcstreamer")
            .on_thread_start(block_sigpipe)
            .enable_all()
            .build()
    })
}

/// Returns whether the upload threads answer `within` this time. Blocks until then; must not be called from a thread of that
/// runtime.
pub fn uploads_respond(within: std::time::Duration) -> bool {
    let Ok(runtime) = runtime() else { return false };
    let (answer, answered) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        // Fails only after the caller has waited long enough and left.
        let _ = answer.send(());
    });
    answered.recv_timeout(within).is_ok()
}

/// Blocks SIGPIPE in this thread only, which suffices: the signal of a failed write goes to the thread that wrote (POSIX,
/// `write`).
fn block_sigpipe() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGPIPE);
    // Fails only for invalid arguments.
    let _ = signals.thread_block();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uploads_respond_unless_every_thread_of_them_hangs() {
        use std::sync::{Arc, Barrier};
        use std::time::Duration;
        assert!(uploads_respond(Duration::from_secs(20)));
        let (held, all) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
        for _ in 0..2 {
            let (held, all) = (Arc::clone(&held), Arc::clone(&all));
            runtime().unwrap().spawn(async move {
                held.wait();
                all.wait();
            });
        }
        held.wait();
        assert!(!uploads_respond(Duration::from_millis(50)));
        all.wait();
        assert!(uploads_respond(Duration::from_secs(20)));
    }

    #[tokio::test]
    async fn no_thread_of_the_runtime_takes_sigpipe() {
        let blocks = || SigSet::thread_get_mask().unwrap().contains(Signal::SIGPIPE);
        let runtime = runtime().unwrap();
        assert!(runtime.spawn(async move { blocks() }).await.unwrap());
        assert!(runtime.spawn_blocking(blocks).await.unwrap());
        assert!(!blocks(), "the application's threads are left alone");
    }
}
