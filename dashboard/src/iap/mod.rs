//! Lets in who comes through Google's Identity-Aware Proxy (IAP).
//!
//! [`assertion`] decides (PURE). This file reads IAP's public keys, from Google or from a file, and keeps them in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use gcstreamer_storage::read_public;

pub mod assertion;

use crate::lock::lock;
use assertion::{Keys, Refusal, key_id};

/// Name of the header that IAP adds to each request.
pub const HEADER: &str = "x-goog-iap-jwt-assertion";
/// Google's public keys of IAP.
pub const GOOGLE: &str = "https://www.gstatic.com/iap/verify/public_key-jwk";
/// Longest key file, bytes. Google's has about 1 KiB.
const MAX_KEYS: usize = 64 << 10;
const SECOND: u64 = 1_000_000_000;
/// The keys are read at most once in this time, whatever keys the requests name, ns.
const RARELY: u64 = 60 * SECOND;
/// After a failure they are read again sooner, ns.
const SOON: u64 = 5 * SECOND;
/// Keys older than this are read again, so that a key that Google took back is not trusted for longer, ns.
const STALE: u64 = 24 * 3600 * SECOND;

/// Where IAP's public keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A server.
    Url(String),
    /// A JWK set in a file, for tests.
    File(PathBuf),
}

/// What `--auth iap:AUDIENCE` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IapSettings {
    /// The audience that IAP signs for.
    pub audience: String,
    /// The keys.
    pub keys: Source,
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// What it shows is not right.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing can be checked.
    #[error("the public keys of IAP cannot be read: {0}")]
    NoKeys(String),
}

/// Checks the header of IAP.
#[derive(Debug)]
pub struct Gate {
    settings: IapSettings,
    keys: Mutex<Known>,
    reading: tokio::sync::Mutex<Reads>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Arc<Keys>,
    /// When they were read, ns since the Unix epoch; 0: never.
    at: u64,
}

/// When the keys were last asked for, and with which result.
#[derive(Debug, Default)]
struct Reads {
    /// ns since the Unix epoch, and how long that holds.
    last: Option<(u64, u64)>,
    fault: Option<String>,
}

impl Gate {
    /// A gate that has not read the keys yet.
    pub fn new(settings: IapSettings) -> Self {
        Self {
            settings,
            keys: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// Returns who asks. `now` is in ns since the Unix epoch.
    ///
    /// # Errors
    /// [`GateError`].
    pub async fn user(&self, header: Option<&str>, now: u64) -> Result<String, GateError> {
        let header = header.ok_or(Refusal::Missing)?;
        let kid = key_id(header)?;
        let keys = self.keys_with(&kid, now).await?;
        let user = keys.user(header, &self.settings.audience, now / SECOND);
        if let Err(Refusal::Audience(said)) = &user {
            let audience = &self.settings.audience;
            tracing::warn!("IAP signs for the audience {said}, and --auth iap: names {audience}");
        }
        Ok(user?)
    }

    /// Returns the keys, after reading them if this one is not among them, or they are old.
    async fn keys_with(&self, kid: &str, now: u64) -> Result<Arc<Keys>, GateError> {
        if let Some(keys) = self.known(kid, now) {
            return Ok(keys);
        }
        let mut reads = self.reading.lock().await;
        // Another request may have read them in the meantime.
        if let Some(keys) = self.known(kid, now) {
            return Ok(keys);
        }
        // A clock that was set back must not keep the keys from being read.
        let is_due = reads.last.is_none_or(|(at, holds)| now < at || now - at >= holds);
        if is_due {
            // Before it is read: a request that is given up in between counts too.
            reads.last = Some((now, SOON));
            reads.fault = match self.read().await {
                Ok(keys) => {
                    reads.last = Some((now, RARELY));
                    let known = Known {
                        keys: Arc::new(keys),
                        at: now,
                    };
                    *lock(&self.keys) = known;
                    None
                }
                Err(fault) => {
                    tracing::warn!("the public keys of IAP cannot be read: {fault}");
                    Some(fault)
                }
            };
        }
        let keys = lock(&self.keys).keys.clone();
        match &reads.fault {
            Some(fault) if !keys.has(kid) => Err(GateError::NoKeys(fault.clone())),
            _ => Ok(keys),
        }
    }

    fn known(&self, kid: &str, now: u64) -> Option<Arc<Keys>> {
        let known = lock(&self.keys);
        (known.keys.has(kid) && now.saturating_sub(known.at) < STALE).then(|| known.keys.clone())
    }

    async fn read(&self) -> Result<Keys, String> {
        let json = match &self.settings.keys {
            Source::Url(url) => read_public(url, MAX_KEYS).await.map_err(|error| error.to_string())?,
            Source::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string())?,
        };
        Keys::parse(&json).ok_or_else(|| "the answer is no set of ES256 keys".to_owned())
    }
}

#[cfg(test)]
#[allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]
#[path = "../../tests/common/iap_signer.rs"]
mod iap_signer;

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
