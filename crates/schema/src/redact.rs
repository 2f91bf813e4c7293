//! Removes secrets from texts of other programs. Pure.
//!
//! Servers, proxies and crates repeat their input in errors: bearer tokens, signed URLs, key files. Every such text passes
//! [`redact`] before it reaches a log or a bus.

const REDACTED: &str = "[redacted]";
/// Maximum length of the result in characters.
const MAX_CHARS: usize = 600;

/// Names whose values are secret in JSON, forms and URL queries. Compared in lower case without `-` and `_`.
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

/// Names with these endings are secret too: some cameras take `user=admin_password=X`.
const SECRET_ENDINGS: &[&str] = &["apikey", "passwd", "password", "passphrase", "secret", "streamkey", "token"];

/// Names whose value is secret only if `=` follows at once, as in the query of a URL; in prose they are ordinary words.
const QUERY_NAMES: &[&str] = &["auth", "loginpas", "loginpass", "pas", "pass", "psk", "psw", "pw", "pwd"];

/// Names that are never followed by prose.
const STRONG_NAMES: &[&str] = &["authorization", "passphrase", "passw", "secret", "_token", "private", "api"];

/// Prefixes of tokens: Google access tokens, refresh tokens, API keys, JWTs.
const TOKEN_PREFIXES: &[&str] = &["ya29.", "1//", "AIza", "eyJ", "GOOG1", "GOCSPX-"];

/// Returns the text without secrets and control characters, at most 600 characters of it.
#[must_use]
pub fn redact(text: &str) -> String {
    let text = without_keys(text);
    let mut out = String::with_capacity(text.len());
    let mut secret_follows = false;
    // End of the last value of a `name=` that was removed.
    let mut taken = 0;
    for (at, word, is_word) in words(&text) {
        if at < taken {
            continue;
        }
        if !is_word {
            // Quotes, separators and blanks may stand between a name and its secret. The end of a line or a field means that no
            // secret follows.
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
        let rest = text.get(at.saturating_add(word.len())..).unwrap_or_default();
        if !is_word {
            continue;
        }
        if let Some(value) = query_value(word, rest) {
            out.push('=');
            out.push_str(REDACTED);
            taken = text
                .len()
                .saturating_sub(rest.len())
                .saturating_add(1)
                .saturating_add(value.len());
        } else if names_secret(word) {
            secret_follows = follows_value(rest, word);
        }
    }
    let out = without_userinfo(&out);
    match out.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}…", out.get(..cut).unwrap_or_default().trim_end()),
        None => out.trim().to_owned(),
    }
}

/// Returns the word if it is `Bearer`, `Basic` or another scheme that a credential follows.
fn auth_scheme(word: &str) -> Option<&str> {
    ["bearer", "basic", "goog4-rsa-sha256"]
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme))
        .then_some(word)
}

/// Returns the last part of a name in lower case, without `-` and `_`.
fn plain(word: &str) -> String {
    let last = word.rsplit('/').next().unwrap_or(word);
    let letters = last.chars().filter(|c| !matches!(c, '-' | '_'));
    letters.flat_map(char::to_lowercase).collect()
}

fn names_secret(word: &str) -> bool {
    let plain = plain(word);
    SECRET_NAMES.contains(&plain.as_str()) || SECRET_ENDINGS.iter().any(|end| plain.ends_with(end))
}

/// Returns the secret of `name=secret`. A secret may contain any character, so it ends only at a blank, `&` or quote: removing
/// too much is safer than too little.
fn query_value<'a>(word: &str, rest: &'a str) -> Option<&'a str> {
    let value = rest.strip_prefix('=')?;
    if !names_secret(word) && !QUERY_NAMES.contains(&plain(word).as_str()) {
        return None;
    }
    let end = value.find(|c: char| c.is_whitespace() || matches!(c, '&' | '"'));
    let value = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
    (!value.is_empty()).then_some(value)
}

/// Returns whether a secret follows this name. `name =` and `"name":` introduce one. A bare colon does so only if the name or the
/// value is unambiguous: "token: failed to fetch" is prose.
fn follows_value(rest: &str, word: &str) -> bool {
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

/// Splits the text into runs of token characters and the runs between them, with their offsets.
fn words(text: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_word = in_word(first);
        let end = rest.find(|c| in_word(c) != is_word).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        rest = tail;
        let at = text.len().saturating_sub(run.len()).saturating_sub(tail.len());
        Some((at, run, is_word))
    })
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '%' | '~' | '$')
}

/// Removes PEM blocks, complete or truncated.
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

/// Replaces `user:password@` in URLs. People do not escape their passwords, so they may contain `/`, `#`, quotes and brackets:
/// everything up to the last `@` is removed if it may be a password.
fn without_userinfo(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let (url, tail) = after.split_at(after.find(char::is_whitespace).unwrap_or(after.len()));
        match url.rsplit_once('@').filter(|(user, _)| is_userinfo(user)) {
            Some((_, host)) => {
                out.push_str(REDACTED);
                out.push('@');
                out.push_str(host);
                rest = tail;
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// Returns whether the text between `://` and `@` may be a user name and password; `host/path` is not.
fn is_userinfo(text: &str) -> bool {
    match text.split_once(['/', '?', '#']) {
        Some((host, _)) => host.contains([':', '@']) || !text.get(host.len()..).unwrap_or_default().starts_with('/'),
        None => true,
    }
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
            "rtsp://u:'SECRET'@host/x",
            "rtsp://u:a#SECRET@host/x",
            "rtsp://u:a/SECRET@host/x",
            "rtsp://u:a?SECRET@host/x",
            "(rtsp://u:a)SECRET@host:554/x)",
            "rtsp://u:\"SECRET@host",
            "rtsp://SECRET#1@host",
            "rtsp://host/x?pwd=SECRET",
            "rtsp://host/x?user=a&pass=SECRET&y=1",
            "rtsp://host/x?auth=YWRt:SECRET=",
            "rtsp://host/x?loginuse=a&loginpas=a!SECRET",
            "rtmp://host/live?streamkey=SECRET",
            "rtsp://host/user=admin_password=SECRET_channel=1_stream=0.sdp",
            "rtsp://host/user=admin&password=$(SECRET)&channel=1",
            "rtsp://host/cam_pwd/pwd=a'SECRET",
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
        for text in [
            "rtsp://camera:554/stream1?channel=1",
            "https://host/folder/a@b.flv",
            "we pass: through, auth 401, pwd /tmp",
        ] {
            assert_eq!(redact(text), text);
        }
        assert_eq!(
            redact("rtsp://u:p@cam/x?user=a&pwd=b&channel=1"),
            "rtsp://[redacted]@cam/x?user=a&pwd=[redacted]&channel=1"
        );
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
