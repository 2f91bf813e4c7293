//! The signed header of Google's Identity-Aware Proxy.
//!
//! PURE: keys and time are arguments. This is the only file of the crate that uses `jsonwebtoken`.
//! Source: <https://cloud.google.com/iap/docs/signed-headers-howto>

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

/// The `iss` of headers that IAP signs.
const ISSUER: &str = "https://cloud.google.com/iap";
/// How far the clocks of this machine and of IAP may differ, seconds.
// As Google's page recommends.
const LEEWAY: u64 = 30;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header is missing.
    #[error("the request did not come through Identity-Aware Proxy")]
    Missing,
    /// The header is not a JWT, or lacks a claim.
    #[error("the header of IAP is malformed")]
    Malformed,
    /// It is not signed by ES256.
    #[error("the header of IAP is not signed by ES256")]
    Algorithm,
    /// The key is not one of IAP's.
    #[error("the header of IAP is signed by an unknown key")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the signature of the header of IAP is wrong")]
    Signature,
    /// The header is for another service.
    #[error("the header of IAP is for another audience, {0}")]
    Audience(String),
    /// The issuer is not IAP.
    #[error("the header of IAP is not issued by IAP")]
    Issuer,
    /// The header has expired.
    #[error("the header of IAP expired")]
    Expired,
    /// The header was issued in the future.
    #[error("the header of IAP is not valid yet; check the clock of this machine")]
    NotYet,
}

/// The public keys of IAP by their id.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, DecodingKey>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl Keys {
    /// Parses a JWK set (RFC 7517). Ignores keys that are not on the curve P-256. `None`: it is not a JWK set, or has no such
    /// key.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let set: JwkSet = serde_json::from_slice(json).ok()?;
        let keys = set.keys.into_iter().filter(|key| key.kty == "EC" && key.crv == "P-256");
        let keys: BTreeMap<_, _> = keys
            .filter_map(|key| Some((key.kid, DecodingKey::from_ec_components(&key.x, &key.y).ok()?)))
            .collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Returns whether a key is known.
    pub fn has(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    /// Returns the e-mail address of the user, or the subject if the header has none. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`Refusal`]. The signature is checked first, so an error about audience, issuer or times means that the header is
    /// authentic.
    pub fn user(&self, header: &str, audience: &str, now: u64) -> Result<String, Refusal> {
        let key = self.0.get(&key_id(header)?).ok_or(Refusal::UnknownKey)?;
        let mut signature = Validation::new(Algorithm::ES256);
        // `Claims::check` checks the claims: `jsonwebtoken` would use the system clock instead of `now`.
        signature.validate_exp = false;
        signature.validate_aud = false;
        signature.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(header, key, &signature).map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Refusal::Signature,
            _ => Refusal::Malformed,
        })?;
        claims.claims.check(audience, now)
    }
}

/// Returns the id of the key that the header names.
///
/// # Errors
/// [`Refusal`]: the header is not a JWT signed by ES256 that names a key.
pub fn key_id(header: &str) -> Result<String, Refusal> {
    let head = jsonwebtoken::decode_header(header).map_err(|_| Refusal::Malformed)?;
    // `decode` allows ES256 alone, too, but its error would be `Malformed`.
    if head.alg != Algorithm::ES256 {
        return Err(Refusal::Algorithm);
    }
    head.kid.ok_or(Refusal::Malformed)
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    exp: u64,
    iat: u64,
    sub: String,
    email: Option<String>,
}

impl Claims {
    fn check(self, audience: &str, now: u64) -> Result<String, Refusal> {
        if self.iss != ISSUER {
            return Err(Refusal::Issuer);
        }
        if self.aud != audience {
            return Err(Refusal::Audience(self.aud));
        }
        if self.exp.saturating_add(LEEWAY) < now {
            return Err(Refusal::Expired);
        }
        if self.iat > now.saturating_add(LEEWAY) {
            return Err(Refusal::NotYet);
        }
        Ok(self.email.filter(|email| !email.is_empty()).unwrap_or(self.sub))
    }
}

#[cfg(test)]
#[path = "assertion_tests.rs"]
mod tests;
