//! The writers of one sink: to its own endpoint, and to those that chunks of earlier sessions belong to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::destination::{Access, access};
use super::driver::Writers;
use gcstreamer_storage::{
    BoxFuture, ClientPool, Credentials, Endpoint, GcsWriter, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError,
};

/// Destinations whose writers are kept. Those of a spool that holds more are made again.
const MAX_KEPT: usize = 64;

/// The writers of one sink, by endpoint and credentials. Makes those to other endpoints when they are first needed.
pub struct GcsWriters {
    own: Arc<dyn ObjectWriter>,
    endpoint: Endpoint,
    credentials: Credentials,
    request_timeout: Duration,
    others: Mutex<Others>,
}

/// By endpoint, and whether it gets credentials.
type Others = HashMap<(Endpoint, bool), Arc<dyn ObjectWriter>>;

impl GcsWriters {
    /// Makes the writer of a session whose own chunks go to `endpoint`.
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
            // Without a session, whose address the server would choose.
            let writer = gcs_writer(endpoint, Credentials::Anonymous, timeout).with_resumable_from(None);
            Arc::new(Unheeded(writer))
        };
        // All of them: which are still needed is not known, and those are made again.
        if others.len() >= MAX_KEPT {
            others.clear();
        }
        others.insert(key, Arc::clone(&writer));
        writer
    }
}

/// The pool sees to it that an endpoint which takes no credentials gets none.
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

/// A server that a file in the spool has named: only whether it stored a chunk is believed. Its time
/// would date this sink's chunks, and its wish to be left alone could hold up others.
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
