//! Keys in every form that openssl writes, and the error texts for keys that cannot sign.

use std::path::PathBuf;
use std::process::Command;

use jsonwebtoken::{DecodingKey, Validation};

use super::*;

const NOW: Duration = Duration::from_millis(1_800_000_000_250);

/// A directory of its own, removed at the end.
struct Keys(PathBuf);

impl Keys {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gcstreamer-jwt-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn openssl(&self, line: &str) {
        let out = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(&self.0)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "openssl {line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    fn mint(&self, name: &str) -> Result<Token, TokenError> {
        mint(&self.path(name), "project", Duration::from_secs(3600), UNIX_EPOCH + NOW)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Verifies a token with the public half, in the DER that the library expects: PKCS#1, or the bare point. Returns the claims.
fn verify(token: &str, public_der: &[u8], algorithm: Algorithm) -> serde_json::Value {
    let key = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_der(public_der),
        _ => DecodingKey::from_ec_der(public_der),
    };
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.set_audience(&["project"]);
    let decoded = jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).unwrap();
    assert_eq!(decoded.header.typ.as_deref(), Some("JWT"), "a header without typ is refused");
    assert_eq!(decoded.header.alg, algorithm);
    decoded.claims
}

#[test]
fn every_form_of_an_rsa_key_signs_rs256() {
    let keys = Keys::new("rsa");
    keys.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out pkcs8.pem");
    keys.openssl("rsa -in pkcs8.pem -traditional -out pkcs1.pem");
    keys.openssl("rsa -in pkcs8.pem -RSAPublicKey_out -outform DER -out public.der");
    let public = std::fs::read(keys.path("public.der")).unwrap();
    for name in ["pkcs8.pem", "pkcs1.pem"] {
        check(&keys.path(name)).unwrap();
        let token = keys.mint(name).unwrap();
        let claims = verify(&token.text, &public, Algorithm::RS256);
        assert_eq!(claims["iat"], 1_800_000_000);
        assert_eq!(claims["exp"], 1_800_003_600);
        assert_eq!(claims["aud"], "project");
        assert_eq!(
            token.expires_in,
            Duration::from_millis(3_599_750),
            "counted from now, not from the whole second"
        );
    }
}

#[test]
fn every_form_of_an_ec_key_signs_es256() {
    let keys = Keys::new("ec");
    // With the EC PARAMETERS block in front, as Google's own recipe has it.
    keys.openssl("ecparam -genkey -name prime256v1 -out sec1.pem");
    keys.openssl("ecparam -genkey -name prime256v1 -noout -out other.pem");
    keys.openssl("pkcs8 -topk8 -nocrypt -in sec1.pem -out pkcs8.pem");
    keys.openssl("ec -in sec1.pem -no_public -out short.pem");
    keys.openssl("ec -in sec1.pem -pubout -outform DER -out public.der");
    let public = std::fs::read(keys.path("public.der")).unwrap();
    // An uncompressed point is the last 65 bytes.
    let point = &public[public.len() - 65..];
    for name in ["sec1.pem", "pkcs8.pem", "short.pem"] {
        let token = keys.mint(name).unwrap();
        verify(&token.text, point, Algorithm::ES256);
    }
    let stranger = keys.mint("other.pem").unwrap();
    let key = DecodingKey::from_ec_der(point);
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["project"]);
    assert!(jsonwebtoken::decode::<serde_json::Value>(&stranger.text, &key, &validation).is_err());
}

#[test]
fn each_key_that_cannot_sign_has_a_text_of_its_own() {
    let keys = Keys::new("bad");
    keys.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out small.pem");
    keys.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    keys.openssl("pkey -in rsa.pem -pubout -out public.pem");
    keys.openssl("pkey -in rsa.pem -aes128 -passout pass:x -out encrypted.pem");
    keys.openssl("rsa -in rsa.pem -traditional -aes128 -passout pass:x -out legacy.pem");
    keys.openssl("ecparam -genkey -name secp384r1 -noout -out p384.pem");
    keys.openssl("pkcs8 -topk8 -nocrypt -in p384.pem -out p384-8.pem");
    keys.openssl("genpkey -algorithm ed25519 -out ed25519.pem");
    keys.openssl("req -x509 -key rsa.pem -subj /CN=x -out cert.pem");
    std::fs::write(keys.path("empty.pem"), "\n").unwrap();
    std::fs::write(keys.path("garbage.pem"), [0xff_u8; 500]).unwrap();
    std::fs::write(keys.path("huge.pem"), vec![b'x'; 1 << 20]).unwrap();
    let rsa = std::fs::read_to_string(keys.path("rsa.pem")).unwrap();
    let body: String = rsa.lines().filter(|line| !line.starts_with("---")).take(3).collect();
    std::fs::write(
        keys.path("cut.pem"),
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"),
    )
    .unwrap();
    std::fs::write(keys.path("torn.pem"), rsa.get(..800).unwrap()).unwrap();
    for (name, expected) in [
        ("small.pem", "1024 bits"),
        ("public.pem", "public key"),
        ("encrypted.pem", "encrypted"),
        ("legacy.pem", "encrypted"),
        ("p384.pem", "P-384"),
        ("p384-8.pem", "P-384"),
        ("ed25519.pem", "Ed25519"),
        ("cert.pem", "certificate"),
        ("empty.pem", "empty"),
        ("garbage.pem", "no private key"),
        ("huge.pem", "no private key"),
        ("cut.pem", "damaged"),
        ("torn.pem", "damaged"),
        ("missing.pem", "cannot be read"),
    ] {
        let text = check(&keys.path(name)).unwrap_err().to_string();
        assert!(
            text.contains(expected) && text.contains("private-key-file") && text.contains(name),
            "{name}: {text}"
        );
        assert!(!text.contains(body.get(..40).unwrap()), "{name}: {text}");
    }
}

#[test]
fn a_clock_that_was_never_set_signs_nothing_and_says_so() {
    let keys = Keys::new("clock");
    keys.openssl("ecparam -genkey -name prime256v1 -noout -out key.pem");
    let early = mint(
        &keys.path("key.pem"),
        "p",
        Duration::from_secs(60),
        UNIX_EPOCH + Duration::from_secs(100),
    );
    let text = early.err().unwrap().to_string();
    assert!(text.contains("2020") && text.contains("NTP"), "{text}");
    check(&keys.path("key.pem")).unwrap();
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let keys = Keys::new("mode");
    keys.openssl("ecparam -genkey -name prime256v1 -noout -out key.pem");
    let path = keys.path("key.pem");
    for (mode, reported) in [(0o600, false), (0o400, false), (0o640, true), (0o644, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let text = open_to_others("private-key-file", &path);
        assert_eq!(text.is_some(), reported, "{mode:o}");
        assert!(text.is_none_or(|text| text.contains("chmod 600")));
    }
}
