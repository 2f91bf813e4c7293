//! Why: the causes of an error and the reasons of a server, as texts that help and hold no secret. Pure.

use std::error::Error as StdError;

use reqwest::Url;
use serde_json::Value;

use gcstreamer_schema::redact;

/// The server's own reason, out of the body of its answer.
pub(crate) fn reason_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if let Ok(json) = serde_json::from_str::<Value>(&text) {
        let error = json.get("error").unwrap_or(&json);
        for found in [error.get("message"), json.get("error_description"), Some(error)]
            .into_iter()
            .flatten()
        {
            if let Some(reason) = found.as_str() {
                return reason.to_owned();
            }
        }
        return String::new();
    }
    if let Some((_, tail)) = text.split_once("<Message>") {
        return tail.split("</Message>").next().unwrap_or_default().to_owned();
    }
    if text.trim_start().starts_with('<') {
        return "an HTML page, not an answer of Cloud Storage".to_owned();
    }
    text.trim().chars().take(200).collect()
}

/// An error and its causes, with what `io::Error` hides.
pub(crate) fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    // Nothing good comes deeper; a chain of one's own making could be a circle.
    std::iter::successors(Some(error), |error| cause_of(*error)).take(32)
}

fn cause_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(hidden) => Some(hidden),
        None => error.source(),
    }
}

/// The causes as one text, fit for a log: those that say something which the others do not say already.
pub(crate) fn told(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = plain(&cause.to_string());
        if text.is_empty() || texts.iter().any(|known| known.contains(&text)) {
            continue;
        }
        texts.retain(|known| !text.contains(known.as_str()));
        texts.push(text);
    }
    redact(&texts.join(": "))
}

/// What the crates say around every error and what helps nobody: advice to programmers, and addresses at full length.
fn plain(text: &str) -> String {
    const NOISE: [&str; 12] = [
        "Fetching the token resulted in transient errors. Subsequent calls with this credential might succeed.",
        "Request to fetch the token failed. Subsequent calls with this credential will also fail.",
        "but future attempts may succeed",
        "and future attempts will not succeed",
        "cannot create the authentication headers",
        "cannot connect to endpoint:",
        "cannot deserialize the response error",
        "client error (Connect):",
        "client error (SendRequest):",
        "client error (Connect)",
        "client error (SendRequest)",
        "the transport reports an error:",
    ];
    let mut text = NOISE.iter().fold(text.to_owned(), |text, noise| text.replace(noise, " "));
    if let Some((before, rest)) = text.split_once(" for url (")
        && let Some((url, after)) = rest.split_once(')')
    {
        let server = Url::parse(url)
            .map(|url| url.origin().ascii_serialization())
            .unwrap_or_default();
        text = format!("{before} ({server}){after}");
    }
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .trim_matches([' ', ':'])
        .to_owned()
}

/// What to look at when TLS was refused.
pub(crate) fn certificate_hint(error: &(dyn StdError + 'static)) -> &'static str {
    let refused = |cause: &(dyn StdError + 'static)| {
        matches!(
            cause.downcast_ref::<rustls::Error>(),
            Some(rustls::Error::InvalidCertificate(_))
        )
    };
    if chain(error).any(refused) {
        "; the server's certificate is not accepted: check the clock of this machine, SSL_CERT_FILE, and proxies that open TLS"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_address_is_told_without_what_was_asked_of_it() {
        let text =
            plain("error sending request for url (https://h:4443/upload/o?upload_id=x&name=a): client error (Connect): refused");
        assert_eq!(text, "error sending request (https://h:4443): refused");
        assert_eq!(plain("plain words (in brackets)"), "plain words (in brackets)");
    }

    #[test]
    fn reasons_are_found_in_all_shapes_that_google_and_proxies_use() {
        for (body, want) in [
            (r#"{"error":{"code":404,"message":"No such bucket"}}"#, "No such bucket"),
            (r#"{"error":"invalid_grant","error_description":"Bad clock"}"#, "Bad clock"),
            (r#"{"error":"invalid_grant"}"#, "invalid_grant"),
            (r#"{"error":{}}"#, ""),
            (
                "<?xml version='1.0'?><Error><Code>X</Code><Message>Denied</Message></Error>",
                "Denied",
            ),
            ("<html><body>login", "an HTML page, not an answer of Cloud Storage"),
            ("Not Found\n", "Not Found"),
            ("", ""),
        ] {
            assert_eq!(reason_of(body.as_bytes()), want, "{body}");
        }
    }
}
