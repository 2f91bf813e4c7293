//! The token that a device sends instead of a password. The only file of this crate that names `jsonwebtoken`.
//!
//! RS256 or ES256, depending on the key; claims `iat`, `exp`, `aud`, header with `typ`. The wall clock is an argument.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::key::{Key, KeyError};

/// 2020-01-01: a clock that shows an earlier time was never set.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_577_836_800);
/// Larger files are not keys.
const MAX_FILE: u64 = 64 << 10;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key file cannot be read.
    #[error("private-key-file {path} cannot be read: {source}; name the device's private key in PEM form")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no key that can sign.
    #[error("private-key-file {path}: {source}")]
    Key {
        /// The file.
        path: String,
        /// Why.
        source: KeyError,
    },
    /// The key looks right but does not sign.
    #[error("private-key-file {path}: the key in it does not sign ({reason}); it is damaged, make a new one")]
    Sign {
        /// The file.
        path: String,
        /// Error of the library.
        reason: String,
    },
    /// The wall clock was never set.
    #[error(
        "the clock of this machine is {seconds} s after 1970, which is before 2020: every token would be refused as expired; set \
         the clock (NTP), the link connects as soon as it is right"
    )]
    Clock {
        /// Seconds since 1970.
        seconds: u64,
    },
}

/// A signed token.
pub(super) struct Token {
    pub(super) text: String,
    /// Remaining lifetime.
    pub(super) expires_in: Duration,
    /// `exp`, since the Unix epoch.
    pub(super) expires_at: Duration,
}

/// Reads the key and signs. `now` is the wall clock.
pub(super) fn mint(path: &Path, audience: &str, lifetime: Duration, now: SystemTime) -> Result<Token, TokenError> {
    let key = read_key(path)?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if now < CLOCK_IS_SET {
        return Err(TokenError::Clock { seconds: now.as_secs() });
    }
    let issued = now.as_secs();
    let expires = issued.saturating_add(lifetime.as_secs());
    Ok(Token {
        text: sign(path, &key, audience, issued, expires)?,
        // Less than `lifetime`: `iat` is rounded down to a whole second.
        expires_in: Duration::from_secs(expires).saturating_sub(now),
        expires_at: Duration::from_secs(expires),
    })
}

/// Reads the key and signs a probe, whatever time the clock shows: the library also loads keys that it cannot sign with.
pub(super) fn check(path: &Path) -> Result<(), TokenError> {
    let key = read_key(path)?;
    sign(path, &key, "probe", 0, 1).map(drop)
}

/// Returns a warning if other users may read or change a key file.
#[cfg(unix)]
pub(super) fn open_to_others(setting: &str, path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        format!(
            "{setting} {} can be read or changed by other users of this machine (mode {mode:03o}); run `chmod 600` on it",
            path.display()
        )
    })
}

/// Permissions are checked on Unix only.
#[cfg(not(unix))]
pub(super) fn open_to_others(_setting: &str, _path: &Path) -> Option<String> {
    None
}

fn read_key(path: &Path) -> Result<Key, TokenError> {
    let shown = || path.display().to_string();
    let size = std::fs::metadata(path).map(|file| file.len());
    let read = size.and_then(|size| {
        if size > MAX_FILE {
            Ok(None)
        } else {
            std::fs::read(path).map(Some)
        }
    });
    let pem = read.map_err(|source| TokenError::File { path: shown(), source })?;
    let key = pem.map_or(Err(KeyError::NotPem), |pem| Key::from_pem(&pem));
    key.map_err(|source| TokenError::Key { path: shown(), source })
}

fn sign(path: &Path, key: &Key, audience: &str, issued: u64, expires: u64) -> Result<String, TokenError> {
    let (algorithm, key) = match key {
        Key::Rsa(der) => (Algorithm::RS256, EncodingKey::from_rsa_der(der)),
        Key::Ec(der) => (Algorithm::ES256, EncodingKey::from_ec_der(der)),
    };
    // `Header::new` sets `typ`, without which the token is refused.
    let claims = json!({ "iat": issued, "exp": expires, "aud": audience });
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).map_err(|error| TokenError::Sign {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
