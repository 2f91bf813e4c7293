//! Reads from the headers of an answer which kind of authentication a camera requires.
//!
//! PURE.

use serde::Serialize;

/// The kind of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// The camera requires none.
    None,
    /// Only Basic, which sends the password unencrypted.
    Basic,
    /// Digest with MD5, which the recorder supports.
    DigestMd5,
    /// Only Digest with SHA-256, which `rtspsrc` does not support.
    DigestSha256,
    /// Something else, or an answer that is not understood.
    Unknown,
}

impl Authentication {
    /// Returns the best kind that the recorder supports among those in the answer to a request without credentials.
    pub fn of_answer(answer: &str) -> Self {
        let mut lines = answer.split("\r\n");
        match lines.next().and_then(|status| status.split(' ').nth(1)) {
            Some("200") => return Self::None,
            Some("401") => {}
            _ => return Self::Unknown,
        }
        let challenges: Vec<String> = lines
            .filter_map(|line| line.split_once(':'))
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("www-authenticate"))
            .map(|(_, challenge)| challenge.trim().to_ascii_lowercase())
            .collect();
        let has = |is: &dyn Fn(&str) -> bool| challenges.iter().any(|challenge| is(challenge));
        let is_digest = |challenge: &str| challenge.starts_with("digest");
        if has(&|challenge| is_digest(challenge) && !challenge.contains("sha-")) {
            Self::DigestMd5
        } else if has(&is_digest) {
            Self::DigestSha256
        } else if has(&|challenge| challenge.starts_with("basic")) {
            Self::Basic
        } else {
            Self::Unknown
        }
    }

    /// Returns the name for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "Basic",
            Self::DigestMd5 => "Digest (MD5)",
            Self::DigestSha256 => "Digest (SHA-256 only)",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_that_is_offered_counts() {
        let refused = |headers: &str| format!("RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n{headers}\r\n");
        for (answer, expected) in [
            ("RTSP/1.0 200 OK\r\n\r\n".to_owned(), Authentication::None),
            (
                refused("WWW-Authenticate: Basic realm=\"c\"\r\nwww-authenticate: Digest realm=\"c\", nonce=\"x\"\r\n"),
                Authentication::DigestMd5,
            ),
            (
                refused("WWW-Authenticate: Digest realm=\"c\", nonce=\"x\", algorithm=SHA-256\r\n"),
                Authentication::DigestSha256,
            ),
            (refused("WWW-Authenticate: Basic realm=\"c\"\r\n"), Authentication::Basic),
            (refused(""), Authentication::Unknown),
            ("HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(), Authentication::Unknown),
            (String::new(), Authentication::Unknown),
        ] {
            assert_eq!(Authentication::of_answer(&answer), expected, "{answer}");
        }
    }
}
