//! The writers of one sink: to its own endpoint, and to those that chunks of earlier sessions belong to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::plan::Plan;
use crate::upload::driver::Writers;
use gcstreamer_storage::{ClientPool, Credentials, Endpoint, GcsWriter, ObjectWriter};

/// See the module.
pub(super) struct GcsWriters {
    own: Arc<dyn ObjectWriter>,
    endpoint: Endpoint,
    credentials: Credentials,
    request_timeout: Duration,
    others: Mutex<Others>,
}

/// By endpoint (`None` = Google's), and whether it gets no credentials.
type Others = HashMap<(Option<String>, bool), Arc<dyn ObjectWriter>>;

impl GcsWriters {
    /// For a session of this plan.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            own: writer(plan.endpoint.clone(), plan.credentials.clone(), plan.request_timeout),
            endpoint: plan.endpoint.clone(),
            credentials: plan.credentials.clone(),
            request_timeout: plan.request_timeout,
            others: Mutex::default(),
        }
    }
}

fn writer(endpoint: Endpoint, credentials: Credentials, request_timeout: Duration) -> Arc<dyn ObjectWriter> {
    Arc::new(GcsWriter::new(&ClientPool::global(), endpoint, credentials).with_request_timeout(request_timeout))
}

impl Writers for GcsWriters {
    fn own(&self) -> Arc<dyn ObjectWriter> {
        Arc::clone(&self.own)
    }

    fn to(&self, endpoint: Option<&str>, anonymous: bool) -> Result<Arc<dyn ObjectWriter>, String> {
        if endpoint == self.endpoint.custom() && anonymous != self.endpoint.takes_credentials() {
            return Ok(self.own());
        }
        let key = (endpoint.map(str::to_owned), anonymous);
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = others.get(&key) {
            return Ok(Arc::clone(writer));
        }
        let to = match endpoint {
            None => Endpoint::google(),
            Some(origin) => {
                Endpoint::resolve(Some(origin), None).map_err(|e| format!("a chunk of the spool cannot be stored: {e}"))?
            }
        };
        // Where this sink has none itself, those of the machine are used.
        let credentials = match (&self.credentials, to.takes_credentials() && !anonymous) {
            (_, false) => Credentials::Anonymous,
            (Credentials::Anonymous, true) => Credentials::ApplicationDefault,
            (own, true) => own.clone(),
        };
        let writer = writer(to, credentials, self.request_timeout);
        others.insert(key, Arc::clone(&writer));
        Ok(writer)
    }
}
