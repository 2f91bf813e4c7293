//! Judges the password of a device: a JWT, its claims and its signature.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::Value;

/// What a token said. Times in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub alg: String,
    pub iat: i64,
    pub exp: i64,
    pub aud: String,
}

/// What a token is held against.
pub struct Measure<'a> {
    /// `-----BEGIN PUBLIC KEY-----`, RSA or P-256.
    pub public_key_pem: &'a str,
    pub audience: &'a str,
    /// Longest `exp - iat`, before `skew` is added.
    pub longest: Duration,
    /// How much the device's clock may differ.
    pub skew: Duration,
    /// The bridge's clock, seconds since 1970.
    pub wall: i64,
}

/// The token, if it can be read, and everything that is wrong with it. No sentence has a part of the token.
pub fn judge(password: &[u8], measure: &Measure<'_>) -> (Option<Token>, Vec<String>) {
    let (Ok(header), Ok(claims)) = (
        jsonwebtoken::decode_header(password),
        jsonwebtoken::dangerous::insecure_decode::<Value>(password).map(|t| t.claims),
    ) else {
        return (
            None,
            vec![format!(
                "the password ({} bytes) is not a JWT that can be read",
                password.len()
            )],
        );
    };
    let mut wrong = Vec::new();
    match header.typ.as_deref() {
        Some("JWT") => {}
        Some(other) => wrong.push(format!("the token's typ is {other:?}, not \"JWT\"")),
        None => wrong.push("the token's header has no typ".to_owned()),
    }
    wrong.extend(signature(password, header.alg, measure.public_key_pem).err());
    let number = |name: &str| claims.get(name).and_then(Value::as_i64);
    let (Some(iat), Some(exp)) = (number("iat"), number("exp")) else {
        wrong.push("the token lacks iat or exp, as whole numbers".to_owned());
        return (None, wrong);
    };
    let aud = match claims.get("aud") {
        Some(Value::String(aud)) => aud.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    times(iat, exp, measure, &mut wrong);
    if claims.get("aud").and_then(Value::as_str) != Some(measure.audience) {
        wrong.push(format!("the token's audience is {aud:?}, not {:?}", measure.audience));
    }
    let alg = format!("{:?}", header.alg);
    (Some(Token { alg, iat, exp, aud }), wrong)
}

fn times(iat: i64, exp: i64, measure: &Measure<'_>, wrong: &mut Vec<String>) {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap();
    let (wall, skew, longest) = (measure.wall, seconds(measure.skew), seconds(measure.longest));
    if exp - iat > longest + skew {
        let limit = longest + skew;
        wrong.push(format!(
            "the token lives {} s; with the skew {limit} s is the most",
            exp - iat
        ));
    }
    if exp <= iat {
        wrong.push("the token expires before it was issued".to_owned());
    }
    if exp <= wall {
        wrong.push(format!("the token expired {} s ago", wall - exp));
    }
    if iat > wall + skew {
        wrong.push(format!(
            "the token was issued {} s in the future; {skew} s of skew are forgiven",
            iat - wall
        ));
    }
}

fn signature(password: &[u8], alg: Algorithm, public_key_pem: &str) -> Result<(), String> {
    let public_key = SubjectPublicKeyInfoDer::from_pem_slice(public_key_pem.as_bytes())
        .map_err(|e| format!("the public key that the test gave to the broker is not PEM: {e}"))?;
    let key = match alg {
        Algorithm::RS256 => DecodingKey::from_rsa_der(&public_key),
        Algorithm::ES256 => DecodingKey::from_ec_der(&public_key),
        other => return Err(format!("the token's alg is {other:?}; RS256 and ES256 are known")),
    };
    let mut only_the_signature = Validation::new(alg);
    only_the_signature.validate_exp = false;
    only_the_signature.validate_aud = false;
    only_the_signature.required_spec_claims.clear();
    jsonwebtoken::decode::<Value>(password, &key, &only_the_signature)
        .map(drop)
        .map_err(|e| format!("the token is not signed by the device's key with {alg:?}: {e}"))
}
