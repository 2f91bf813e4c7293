//! The one tokio runtime of the process: a hundred sinks share it and its two threads.
//!
//! Credentials and connections live in it, so it is never shut down.

use std::io;

use once_cell::sync::OnceCell;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: OnceCell<Runtime> = OnceCell::new();

/// The runtime; made at the first call.
///
/// # Errors
/// Where the system gives no threads.
pub fn runtime() -> io::Result<&'static Runtime> {
    RUNTIME.get_or_try_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gcstreamer")
            .enable_all()
            .build()
    })
}
