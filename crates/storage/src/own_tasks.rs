//! Ends the background tasks of the client crate's credentials together with the credentials.
//!
//! The credentials start a task that fetches tokens. The crate never ends a task whose request is not answered: it would keep a
//! connection for ever, and each client that replaces a stuck one would add another. So the task runs in a runtime of its own,
//! with one thread, which is shut down with the credentials.

use std::ops::Deref;

use tokio::runtime::{Builder, Runtime};

/// A value of the client crate and the runtime of its tasks.
#[derive(Debug)]
pub(crate) struct OwnTasks<T> {
    inner: T,
    /// `None`: the value starts no task that may hang, or the system refused a thread.
    _tasks: Option<Tasks>,
}

#[derive(Debug)]
struct Tasks(Option<Runtime>);

impl<T> OwnTasks<T> {
    /// Wraps a value that starts no task that waits for a server.
    pub(crate) fn none(inner: T) -> Self {
        Self { inner, _tasks: None }
    }

    /// Builds a value. The tasks that `build` starts end when the result is dropped. Must run inside tokio.
    pub(crate) fn build<E>(build: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        // The blocking threads are for name look-ups and files.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("gcs-token")
            .enable_all()
            .build();
        // If the system refuses a thread, the tasks run in our runtime, where they may be left behind. Without them there is no
        // token.
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
            // Does not wait for threads that hang in a name look-up, because it runs inside tokio, where blocking is not allowed.
            runtime.shutdown_background();
        }
    }
}
