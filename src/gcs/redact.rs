//! Takes secrets out of texts that others wrote. Pure.
//!
//! Servers, proxies and crates put into their errors what they were given: bearer tokens, signed URLs, key files. What
//! we pass on to logs and buses goes through [`redact`] first.

const REDACTED: &str = "[redacted]";
/// Longest text that is passed on, in characters.
const MAX_CHARS: usize = 600;

/// Names whose value is a secret, in JSON, in forms and in URL queries. Compared in lower case without `-` and `_`.
const SECRET_NAMES: &[&str] = &[
    "accesstoken",
    "assertion",
    "apikey",
    "authorization",
    "clientsecret",
    "code",
    "credential",
    "idtoken",
    "key",
    "passphrase",
    "password",
    "passwd",
    "privatekey",
    "privatekeyid",
    "proxyauthorization",
    "refreshtoken",
    "secret",
    "sig",
    "signature",
    "subjecttoken",
    "token",
    "uploadid",
    "xamzcredential",
    "xamzsecuritytoken",
    "xamzsignature",
    "xgoogapikey",
    "xgoogcredential",
    "xgoogencryptionkey",
    "xgoogsignature",
];

/// Names that are never followed by prose.
const STRONG_NAMES: &[&str] = &["authorization", "passphrase", "passw", "secret", "_token", "private", "api"];

/// Beginnings of tokens that are known by sight: Google access tokens, refresh tokens, API keys, JWTs.
const TOKEN_PREFIXES: &[&str] = &["ya29.", "1//", "AIza", "eyJ", "GOOG1", "GOCSPX-"];

/// The text without secrets and control characters, cut to a sensible length.
#[must_use]
pub fn redact(text: &str) -> String {
    let text = without_keys(text);
    let mut out = String::with_capacity(text.len());
    let mut secret_follows = false;
    for (word, is_word) in words(&text) {
        if !is_word {
            // Quotes, separators and blanks keep a pending secret pending; the end of a line or a field ends it.
            if word.contains([',', '}', ')', '\n', '&', ';']) {
                secret_follows = false;
            }
            out.extend(word.chars().map(|c| if c.is_control() { ' ' } else { c }));
        } else if let Some(scheme) = auth_scheme(word) {
            out.push_str(scheme);
            secret_follows = true;
        } else if secret_follows || TOKEN_PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
            out.push_str(REDACTED);
            secret_follows = false;
        } else {
            out.push_str(word);
            secret_follows = false;
        }
        if is_word && names_secret(word) {
            secret_follows = follows_value(&text, word);
        }
    }
    let out = without_userinfo(&out);
    match out.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}…", out.get(..cut).unwrap_or_default().trim_end()),
        None => out.trim().to_owned(),
    }
}

/// `Bearer` and `Basic`, which a credential follows.
fn auth_scheme(word: &str) -> Option<&str> {
    ["bearer", "basic", "goog4-rsa-sha256"]
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme))
        .then_some(word)
}

fn names_secret(word: &str) -> bool {
    let plain: String = word
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect();
    SECRET_NAMES.contains(&plain.as_str())
}

/// Whether a secret stands behind this name (a slice of `text`). `name=` and `"name":` say so. A bare colon does where the
/// name or what follows leaves no doubt; "token: failed to fetch" is prose.
fn follows_value(text: &str, word: &str) -> bool {
    let end = (word.as_ptr() as usize)
        .saturating_sub(text.as_ptr() as usize)
        .saturating_add(word.len());
    let rest = text.get(end..).unwrap_or_default();
    let bare = rest.trim_start_matches(' ');
    let unquoted = rest.trim_start_matches(['"', '\'', '\\', ' ']);
    if unquoted.starts_with('=') {
        return true;
    }
    let Some(value) = unquoted.strip_prefix(':') else {
        return false;
    };
    let value = value.trim_start();
    let value = value.split(|c| !in_word(c)).next().unwrap_or_default();
    let quoted = bare.len() != unquoted.len();
    let strong = STRONG_NAMES.iter().any(|name| word.to_ascii_lowercase().contains(name));
    quoted || strong || value.chars().any(|c| c.is_ascii_digit()) || value.len() >= 16
}

/// Splits into runs of characters that tokens consist of, and what is between them.
fn words(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_word = in_word(first);
        let end = rest.find(|c| in_word(c) != is_word).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        rest = tail;
        Some((run, is_word))
    })
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '%' | '~' | '$')
}

/// Cuts PEM blocks out, whole or torn.
fn without_keys(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, block)) = rest.split_once("-----BEGIN ") {
        out.push_str(before);
        out.push_str(REDACTED);
        let end = block.split_once("-----END ").and_then(|(_, tail)| tail.split_once("-----"));
        rest = end.map_or("", |(_, tail)| tail);
    }
    out.push_str(rest);
    out
}

/// Replaces `user:password@` of URLs.
fn without_userinfo(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after
            .find(|c: char| c.is_whitespace() || "/?#\"'<>)".contains(c))
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(REDACTED);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_any_known_shape_gets_through() {
        let cases = [
            "Authorization: Bearer SECRET.abc-_123",
            "authorization: basic SECRET==",
            "error for token ya29.SECRET-x: expired",
            "proxy http://user:SECRET@proxy.local:3128 refused",
            "http://SECRET@host/x",
            "https://storage.googleapis.com/b/o?X-Goog-Signature=SECRET&X-Goog-Date=1",
            "https://h/upload?uploadType=resumable&upload_id=SECRET_x-1&name=n",
            r#"{"access_token":"SECRET","expires_in":3599}"#,
            r#"{"private_key": "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n"}"#,
            "-----BEGIN RSA PRIVATE KEY-----\nSECRET torn off",
            "refresh_token=1//SECRET&client_secret=GOCSPX-SECRET",
            r#"body=<{"client_secret" : "SECRET"}>"#,
            r#"{\"refresh_token\":\"SECRET\"}"#,
            "assertion=eyJhbGciOi.SECRET.sig",
            "jwt eyJSECRET was not accepted",
            "password: SECRET",
            "token: SECRET0123",
            "x-goog-api-key: SECRET",
        ];
        for case in cases {
            let text = redact(case);
            assert!(!text.contains("SECRET"), "{case} -> {text}");
            assert!(text.contains(REDACTED), "{case} -> {text}");
        }
    }

    #[test]
    fn what_helps_the_user_stays() {
        for text in [
            "sa@p.iam.gserviceaccount.com does not have storage.objects.create access to the bucket.",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            "tcp connect error: Connection refused (os error 111)",
            "The specified bucket does not exist: https://storage.googleapis.com/b?name=a.flv&ifGenerationMatch=0",
            "key unit missing, token expired",
            "no access token: failed to fetch token: error sending request",
        ] {
            assert_eq!(redact(text), text);
        }
        assert_eq!(redact("http://u:p@proxy:3128/x"), "http://[redacted]@proxy:3128/x");
        assert_eq!(redact("a?token=abc&name=x"), "a?token=[redacted]&name=x");
    }

    #[test]
    fn texts_are_one_short_line() {
        let text = redact(&"line\r\n".repeat(1000));
        assert!(text.chars().count() <= MAX_CHARS + 1 && !text.contains(['\r', '\n']));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = redact(&text);
        }
    }
}
