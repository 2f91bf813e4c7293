//! Tasks of the client crate that end with what they work for.
//!
//! Its credentials start a task that fetches tokens, and nothing of the crate ends one whose request is never answered. Each such
//! task would keep a connection for ever, and another one comes with each client that replaces a stuck one. So it runs in a runtime of its
//! own, with one thread, which ends with the credentials.

use std::ops::Deref;

use tokio::runtime::{Builder, Runtime};

/// Something of the client crate and the tasks that it has started.
#[derive(Debug)]
pub(crate) struct OwnTasks<T> {
    inner: T,
    /// `None`: it has started no task that may hang, or the system gave us no thread.
    _tasks: Option<Tasks>,
}

#[derive(Debug)]
struct Tasks(Option<Runtime>);

impl<T> OwnTasks<T> {
    /// Of something whose tasks never wait for a server.
    pub(crate) fn none(inner: T) -> Self {
        Self { inner, _tasks: None }
    }

    /// Builds something; the tasks that this starts end with the result. Must run inside tokio.
    pub(crate) fn build<E>(build: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        // Threads for blocking work: name look-ups and files.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("gcs-token")
            .enable_all()
            .build();
        // Without a thread the tasks run among ours: better than no token.
        let tasks = runtime.ok().map(|runtime| Tasks(Some(runtime)));
        let inner = {
            let _entered = tasks.as_ref().and_then(|tasks| tasks.0.as_ref()).map(Runtime::enter);
            build()?
        };
        Ok(Self { inner, _tasks: tasks })
    }
}

impl<T> Deref for OwnTasks<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Does not wait for threads that hang in a name look-up: this is dropped inside tokio.
            runtime.shutdown_background();
        }
    }
}
