//! The writers of one sink: to its own endpoint, and to those of chunks of earlier sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::destination::{Access, access};
use super::driver::Writers;
use gcstreamer_storage::{
    BoxFuture, ClientPool, Credentials, Endpoint, GcsWriter, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError,
};

/// Most writers to other destinations that are cached. All are dropped when there are more.
const MAX_KEPT: usize = 64;

/// The writers of one sink, by endpoint and credentials. Those to other endpoints are created when first needed.
pub struct GcsWriters {
    own: Arc<dyn ObjectWriter>,
    endpoint: Endpoint,
    credentials: Credentials,
    request_timeout: Duration,
    others: Mutex<Others>,
}

/// Writers by endpoint and by whether it gets credentials.
type Others = HashMap<(Endpoint, bool), Arc<dyn ObjectWriter>>;

impl GcsWriters {
    /// Creates the writers of a session whose own chunks go to `endpoint`.
    pub fn new(endpoint: Endpoint, credentials: Credentials, request_timeout: Duration) -> Self {
        let own = gcs_writer(endpoint.clone(), credentials.clone(), request_timeout);
        Self {
            own: Arc::new(own),
            endpoint,
            credentials,
            request_timeout,
            others: Mutex::default(),
        }
    }

    fn other(&self, endpoint: Endpoint, with_credentials: bool) -> Arc<dyn ObjectWriter> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint, with_credentials);
        if let Some(writer) = others.get(&key) {
            return Arc::clone(writer);
        }
        let (endpoint, timeout) = (key.0.clone(), self.request_timeout);
        let writer: Arc<dyn ObjectWriter> = if with_credentials {
            Arc::new(gcs_writer(endpoint, self.credentials.clone(), timeout))
        } else {
            // Never resumable: the server would choose the address to which the session's bytes are sent.
            let writer = gcs_writer(endpoint, Credentials::Anonymous, timeout).with_resumable_from(None);
            Arc::new(Unheeded(writer))
        };
        // Drop all: which ones are still needed is unknown, and those are created again.
        if others.len() >= MAX_KEPT {
            others.clear();
        }
        others.insert(key, Arc::clone(&writer));
        writer
    }
}

/// Creates a writer. The pool ensures that an endpoint which accepts no credentials gets none.
fn gcs_writer(endpoint: Endpoint, credentials: Credentials, request_timeout: Duration) -> GcsWriter {
    GcsWriter::new(&ClientPool::global(), endpoint, credentials).with_request_timeout(request_timeout)
}

impl Writers for GcsWriters {
    fn own(&self) -> Arc<dyn ObjectWriter> {
        Arc::clone(&self.own)
    }

    fn to(&self, endpoint: Option<&str>, anonymous: bool) -> Result<Arc<dyn ObjectWriter>, String> {
        match access(endpoint, anonymous, &self.endpoint) {
            Access::Own => Ok(self.own()),
            Access::Google(endpoint) => Ok(self.other(endpoint, true)),
            Access::Parked(endpoint) => Ok(self.other(endpoint, false)),
            Access::Unusable(why) => Err(why),
        }
    }
}

/// The writer to a server that a file in the spool has named. Only whether it stored a chunk is used of its answers: its time
/// would date this sink's chunks, and its `Retry-After` could delay others.
struct Unheeded(GcsWriter);

fn unheeded_error(error: WriteError) -> WriteError {
    WriteError {
        retry_after: None,
        server_date: None,
        ..error
    }
}

fn unheeded(result: Result<Stored, WriteError>) -> Result<Stored, WriteError> {
    result
        .map(|stored| Stored { created: None, ..stored })
        .map_err(unheeded_error)
}

impl ObjectWriter for Unheeded {
    fn write<'a>(&'a self, request: &'a ObjectRequest, pacer: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(async move { unheeded(self.0.write(request, pacer).await) })
    }

    fn stat<'a>(&'a self, bucket: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(async move { unheeded(self.0.stat(bucket, name).await) })
    }

    fn delete<'a>(&'a self, bucket: &'a str, name: &'a str, generation: i64) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move { self.0.delete(bucket, name, generation).await.map_err(unheeded_error) })
    }
}
