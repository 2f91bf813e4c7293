//! Signs as Identity-Aware Proxy does, with a key of its own.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub const AUDIENCE: &str = "/projects/123/global/backendServices/456";

pub struct Signer {
    kid: String,
    key: EncodingKey,
    point: Vec<u8>,
}

impl Signer {
    pub fn new(kid: &str) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        Self {
            kid: kid.into(),
            key: EncodingKey::from_ec_der(pkcs8.as_ref()),
            point: pair.public_key().as_ref().to_vec(),
        }
    }

    /// The uncompressed point.
    pub fn public(&self) -> &[u8] {
        &self.point
    }

    pub fn jwk(&self) -> Value {
        let part = |range| URL_SAFE_NO_PAD.encode(&self.point[range]);
        json!({"kid": self.kid, "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": part(1..33), "y": part(33..65)})
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_by(Algorithm::ES256, &self.key, claims)
    }

    pub fn sign_by(&self, algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(algorithm)
        };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    }

    /// Claims without a signature, `alg` none.
    pub fn unsigned(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!(
            "{}.{}.",
            part(&json!({"alg": "none", "typ": "JWT", "kid": self.kid})),
            part(claims)
        )
    }
}

pub fn jwks(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// What IAP says of a user at `now` (seconds since the Unix epoch).
pub fn claims(now: u64) -> Value {
    json!({
        "aud": AUDIENCE, "iss": "https://cloud.google.com/iap", "iat": now, "exp": now + 600,
        "sub": "accounts.google.com:1", "email": "ann@example.com", "hd": "example.com",
    })
}
