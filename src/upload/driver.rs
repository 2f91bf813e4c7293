//! The task of one sink that carries out what its scheduler decides. Never calls into GStreamer: what is to be told goes into
//! the reports of [`Uploads`].

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};

use super::attempt::{Attempted, attempt};
use super::uploads::{Due, Uploads};
use crate::flow::group::Member;
use crate::gcs::{Class, ObjectWriter, WriteError};

/// Runs until [`Uploads::stop`]; attempts that are then in flight are dropped, and their connections with them.
pub async fn run(uploads: Arc<Uploads>, writer: Arc<dyn ObjectWriter>, flow: Arc<Member>) {
    let mut attempts: JoinSet<(u64, Attempted)> = JoinSet::new();
    let mut running: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        let (chunks, aborts, wake) = match uploads.due() {
            Due::Send { chunks, aborts, wake } => (chunks, aborts, wake),
            Due::Stop => return,
        };
        for sequence in aborts {
            if let Some(attempt) = running.remove(&sequence) {
                attempt.abort();
            }
        }
        for chunk in chunks {
            let (writer, flow) = (Arc::clone(&writer), Arc::clone(&flow));
            let sequence = chunk.info.sequence;
            let handle = attempts.spawn(async move {
                // A panic in a library must cost one attempt, not the recording.
                let inner = {
                    let (writer, chunk) = (Arc::clone(&writer), Arc::clone(&chunk));
                    tokio::spawn(async move { attempt(&*writer, &chunk.request, &chunk.naming, &flow).await })
                };
                let mut inner = AbortOnDrop(inner);
                let attempted = (&mut inner.0).await.unwrap_or_else(|panic| Attempted::Failed {
                    error: WriteError {
                        class: Class::Transient,
                        http_status: None,
                        retry_after: None,
                        server_date: None,
                        bad_generation: None,
                        message: format!(
                            "storing gs://{}/{} broke off: {panic}",
                            chunk.request.bucket, chunk.request.name
                        ),
                    },
                    name: chunk.request.name.clone(),
                    warning: None,
                });
                (sequence, attempted)
            });
            running.insert(sequence, handle);
        }
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(joined) = attempts.join_next() => {
                if let Ok((sequence, attempted)) = joined {
                    running.remove(&sequence);
                    uploads.finished(sequence, attempted);
                }
            }
            () = uploads.woken() => {}
            () = timer => {}
        }
    }
}

/// A task that ends with the one that waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
