//! Allows requests that come through Google's Identity-Aware Proxy (IAP).
//!
//! [`assertion`] decides (PURE). This file reads IAP's public keys, from Google or from a file, and caches them in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use gcstreamer_storage::read_public;

pub mod assertion;

use crate::lock::lock;
use assertion::{Keys, Refusal, key_id};

/// Name of the header that IAP adds to each request.
pub const HEADER: &str = "x-goog-iap-jwt-assertion";
/// Address of the public keys that Google publishes for IAP.
pub const GOOGLE: &str = "https://www.gstatic.com/iap/verify/public_key-jwk";
/// Longest key file, bytes. Google's has about 1 KiB.
const MAX_KEYS: usize = 64 << 10;
const SECOND: u64 = 1_000_000_000;
/// Shortest time between two reads of the keys, ns: requests with invented key ids must not cause more.
const RARELY: u64 = 60 * SECOND;
/// Shortest time to the next read after one that failed, ns.
const SOON: u64 = 5 * SECOND;
/// Keys older than this are read again, ns: if they can be read, a key that Google has revoked is not trusted for longer.
const STALE: u64 = 24 * 3600 * SECOND;

/// Where IAP's public keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A server.
    Url(String),
    /// A JWK set in a file, for tests.
    File(PathBuf),
}

/// Settings of `--auth iap:AUDIENCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IapSettings {
    /// The audience that IAP signs for.
    pub audience: String,
    /// Where to read the public keys.
    pub keys: Source,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Its header is missing or invalid.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The header cannot be checked without the keys.
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

/// The last read of the keys, and its result.
#[derive(Debug, Default)]
struct Reads {
    /// When it was (ns since the Unix epoch), and how long no other one is made after it (ns).
    last: Option<(u64, u64)>,
    fault: Option<String>,
}

impl Gate {
    /// Creates a gate. Does not read the keys yet.
    pub fn new(settings: IapSettings) -> Self {
        Self {
            settings,
            keys: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the user of a request by its header of IAP. `now` is in ns since the Unix epoch.
    ///
    /// # Errors
    /// [`GateError`].
    pub async fn user(&self, header: Option<&str>, now: u64) -> Result<String, GateError> {
        let header = header.ok_or(Refusal::Missing)?;
        let kid = key_id(header)?;
        let keys = self.keys_with(&kid, now).await?;
        let user = keys.user(header, &self.settings.audience, now / SECOND);
        // A wrong audience in the settings refuses every user: the log names both.
        if let Err(Refusal::Audience(stated)) = &user {
            let audience = &self.settings.audience;
            tracing::warn!("IAP signs for the audience {stated}, and --auth iap: names {audience}");
        }
        Ok(user?)
    }

    /// Returns the keys. Reads them first if `kid` is not among them or they are stale, and if a read is due.
    async fn keys_with(&self, kid: &str, now: u64) -> Result<Arc<Keys>, GateError> {
        if let Some(keys) = self.known(kid, now) {
            return Ok(keys);
        }
        let mut reads = self.reading.lock().await;
        // Another request may have read them in the meantime.
        if let Some(keys) = self.known(kid, now) {
            return Ok(keys);
        }
        // `now < at`: after the clock was set back, the keys must not stay unread until it catches up.
        let is_due = reads.last.is_none_or(|(at, holds)| now < at || now - at >= holds);
        if is_due {
            // Set before the read: if the request is cancelled meanwhile, the read still counts as a failed one.
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
        // An outage of the key server refuses no user whose key is known, however old the keys are.
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
