//! What is let in, and each way in which a header can be wrong.

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::*;

use crate::iap::iap_signer::{AUDIENCE, Signer, claims, jwks};

const NOW: u64 = 1_800_000_000;

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims(NOW);
    claims[name] = value;
    claims
}

#[test]
fn the_user_is_the_e_mail_and_without_one_the_subject() {
    let signer = Signer::new("k1");
    let keys = Keys::parse(jwks(&[&Signer::new("k0"), &signer]).as_bytes()).unwrap();
    let user = |claims: &Value| keys.user(&signer.sign(claims), AUDIENCE, NOW).unwrap();
    assert_eq!(user(&claims(NOW)), "ann@example.com");
    assert_eq!(user(&with("email", Value::Null)), "accounts.google.com:1");
}

#[test]
fn each_wrong_claim_is_refused_and_the_leeway_is_30_s() {
    let signer = Signer::new("k1");
    let keys = Keys::parse(jwks(&[&signer]).as_bytes()).unwrap();
    let user = |claims: &Value| keys.user(&signer.sign(claims), AUDIENCE, NOW).map(drop);
    let other = "/projects/123/global/backendServices/999";
    assert_eq!(user(&with("aud", json!(other))), Err(Refusal::Audience(other.into())));
    assert_eq!(user(&with("aud", json!([AUDIENCE]))), Err(Refusal::Malformed));
    assert_eq!(user(&with("iss", json!("https://accounts.google.com"))), Err(Refusal::Issuer));
    assert_eq!(user(&with("exp", json!(NOW - 31))), Err(Refusal::Expired));
    assert_eq!(user(&with("exp", json!(NOW - 30))), Ok(()));
    assert_eq!(user(&with("iat", json!(NOW + 31))), Err(Refusal::NotYet));
    assert_eq!(user(&with("iat", json!(NOW + 30))), Ok(()));
    for claim in ["aud", "iss", "exp", "iat", "sub"] {
        assert_eq!(user(&with(claim, Value::Null)), Err(Refusal::Malformed), "{claim}");
    }
    assert_eq!(user(&with("exp", json!("never"))), Err(Refusal::Malformed));
}

#[test]
fn only_es256_by_a_known_key_counts() {
    let (signer, stranger) = (Signer::new("k1"), Signer::new("k1"));
    let keys = Keys::parse(jwks(&[&signer]).as_bytes()).unwrap();
    let user = |header: &str| keys.user(header, AUDIENCE, NOW).unwrap_err();
    assert_eq!(
        user(&stranger.sign(&claims(NOW))),
        Refusal::Signature,
        "another key, the same id"
    );
    assert_eq!(user(&Signer::new("k2").sign(&claims(NOW))), Refusal::UnknownKey);
    // The public key is known to everybody: it must not serve as a secret.
    let public = EncodingKey::from_secret(signer.public());
    assert_eq!(
        user(&signer.sign_by(Algorithm::HS256, &public, &claims(NOW))),
        Refusal::Algorithm
    );
    assert_eq!(user(&signer.unsigned(&claims(NOW))), Refusal::Malformed, "alg none");
    let good = signer.sign(&claims(NOW));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other = signer.sign(&with("email", json!("eve@example.com")));
    let (forged, _) = other.rsplit_once('.').unwrap();
    assert_eq!(user(&format!("{forged}.{signature}")), Refusal::Signature);
    assert_eq!(user(&format!("{head}.")), Refusal::Signature, "no signature");
    for text in ["", ".", "..", "a.b.c", "nonsense"] {
        assert_eq!(user(text), Refusal::Malformed, "{text}");
    }
}

#[test]
fn keys_of_other_kinds_are_left_out_and_a_login_page_is_no_key_set() {
    let signer = Signer::new("k1");
    let mut set: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    let others = [
        json!({"kid": "rsa", "kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        json!({"kid": "p384", "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
    ];
    set["keys"].as_array_mut().unwrap().extend(others);
    let keys = Keys::parse(set.to_string().as_bytes()).unwrap();
    assert!(keys.has("k1") && !keys.has("rsa") && !keys.has("p384"));
    for text in ["", "<html>", "{}", r#"{"keys":[]}"#] {
        assert!(Keys::parse(text.as_bytes()).is_none(), "{text}");
    }
}
