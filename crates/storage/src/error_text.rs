//! Error texts: formats the chain of causes and the server's reason for a log, without secrets. Pure.

use std::error::Error as StdError;

use reqwest::Url;
use serde_json::Value;

use gcstreamer_schema::redact;

/// The reason of a 412 when `ifGenerationMatch=0` is not met because an object of that name exists.
pub(crate) const CONDITION_NOT_MET: &str = "conditionNotMet";
/// Marks an organisation policy: every text of Cloud Storage about one contains it.
const CONSTRAINT: &str = "constraint";

/// Why a server refuses a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Text for people.
    pub(crate) text: String,
    /// Code for programs, such as `conditionNotMet` or `orgPolicyConstraintFailed`; `None` if the answer has none.
    pub(crate) code: Option<String>,
}

impl Reason {
    /// Creates a reason without a code.
    pub(crate) fn of_text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: None,
        }
    }

    /// Chooses among all `codes` and `texts` of an answer. A more specific code takes precedence over `conditionNotMet`, and the
    /// violated constraint is added to the text.
    fn new(text: &str, codes: Vec<String>, texts: &[String]) -> Self {
        let mut codes: Vec<String> = codes.into_iter().filter(|code| !code.trim().is_empty()).collect();
        let telling = codes.iter().position(|code| code != CONDITION_NOT_MET).unwrap_or(0);
        let code = (telling < codes.len()).then(|| codes.swap_remove(telling));
        let mut text = text.to_owned();
        let names_one = |text: &str| text.contains("constraints/");
        if let Some(more) = texts.iter().find(|more| names_one(more)).filter(|_| !names_one(&text)) {
            text = format!("{} {more}", text.trim_end()).trim_start().to_owned();
        }
        Self { text, code }
    }

    fn of_json(json: &Value) -> Self {
        let error = json.get("error").unwrap_or(json);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let (mut codes, mut texts) = (Vec::new(), Vec::new());
        for item in list(error.get("errors")).into_iter().chain(list(error.get("details"))) {
            codes.extend(text(item.get("reason")));
            texts.extend(text(item.get("message")));
            for violation in list(item.get("violations")) {
                codes.extend(text(violation.get("type")));
                texts.extend(
                    text(violation.get("subject"))
                        .into_iter()
                        .chain(text(violation.get("description"))),
                );
            }
        }
        let stated = text(error.get("message")).or_else(|| text(json.get("error_description")));
        Self::new(&stated.or_else(|| text(Some(error))).unwrap_or_default(), codes, &texts)
    }

    /// Returns whether a 412 with this reason means that an object of that name exists. There are two kinds of 412.
    /// `ifGenerationMatch=0` was not met; or a policy of the organisation refuses the object (`orgPolicyConstraintFailed`), and
    /// nothing is stored. Some front ends use `conditionNotMet` for the second kind too, and only the text names the constraint.
    pub(crate) fn is_conflict(&self) -> bool {
        let is_policy = self.text.to_ascii_lowercase().contains(CONSTRAINT);
        !is_policy && self.code.as_deref().is_none_or(|code| code == CONDITION_NOT_MET)
    }
}

/// Returns the server's reason from the body of its answer.
pub(crate) fn reason_of(body: &[u8]) -> Reason {
    let text = String::from_utf8_lossy(body);
    if let Ok(json) = serde_json::from_str::<Value>(&text) {
        return Reason::of_json(&json);
    }
    let tag = |name: &str| {
        let (_, tail) = text.split_once(&format!("<{name}>"))?;
        Some(tail.split(&format!("</{name}>")).next().unwrap_or_default().to_owned())
    };
    if let Some(message) = tag("Message") {
        // The XML API's name for the same condition.
        let code = tag("Code").map(|code| match code.as_str() {
            "PreconditionFailed" => CONDITION_NOT_MET.to_owned(),
            _ => code,
        });
        let details: Vec<String> = tag("Details").into_iter().collect();
        return Reason::new(&message, code.into_iter().collect(), &details);
    }
    if text.trim_start().starts_with('<') {
        return Reason::of_text("an HTML page, not an answer of Cloud Storage");
    }
    Reason::of_text(text.trim().chars().take(200).collect::<String>())
}

/// Returns an error and its causes, including those that `io::Error` hides.
pub(crate) fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    // Real chains are shorter; an artificial one could be a cycle.
    std::iter::successors(Some(error), |error| cause_of(*error)).take(32)
}

fn cause_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(hidden) => Some(hidden),
        None => error.source(),
    }
}

/// Returns the causes as one text for a log. Leaves out causes that are contained in another one.
pub(crate) fn error_text(error: &(dyn StdError + 'static)) -> String {
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

/// Removes what the crates add to every error: advice to programmers, and full addresses.
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

/// Returns what to check if TLS was refused.
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
    fn the_servers_address_is_reported_without_what_was_asked_of_it() {
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
            assert_eq!(reason_of(body.as_bytes()).text, want, "{body}");
        }
    }

    #[test]
    fn a_412_is_a_conflict_only_where_the_server_names_the_condition_or_nothing() {
        let json = |errors: &str| format!(r#"{{"error":{{"code":412,"message":"No.","errors":{errors}}}}}"#);
        let policy = "'constraints/gcp.restrictNonCmekServices'";
        for (body, code, is_conflict) in [
            (json(r#"[{"domain":"global","reason":"conditionNotMet","message":"x"}]"#), Some("conditionNotMet"), true),
            (json("null"), None, true),
            (json("[]"), None, true),
            (json(r#"[{"reason":""}]"#), None, true),
            (json(r#"[{"reason":7}]"#), None, true),
            (json(r#""no list""#), None, true),
            (String::new(), None, true),
            ("Precondition Failed".to_owned(), None, true),
            ("<html>no</html>".to_owned(), None, true),
            (
                "<?xml version='1.0'?><Error><Code>PreconditionFailed</Code><Message>At least one.</Message></Error>".to_owned(),
                Some("conditionNotMet"),
                true,
            ),
            (json(r#"[{"reason":"orgPolicyConstraintFailed"}]"#), Some("orgPolicyConstraintFailed"), false),
            (json(r#"[{"reason":"somethingNew"}]"#), Some("somethingNew"), false),
            (
                json(r#"[{"reason":"conditionNotMet"},{"reason":"orgPolicyConstraintFailed"}]"#),
                Some("orgPolicyConstraintFailed"),
                false,
            ),
            // Seen in production: the condition's code with a policy's text.
            (
                format!(
                    r#"{{"error":{{"message":"Request violates constraint {policy}","errors":[{{"reason":"conditionNotMet"}}]}}}}"#
                ),
                Some("conditionNotMet"),
                false,
            ),
            (
                r#"{"error":{"message":"No.","status":"FAILED_PRECONDITION","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ORG_POLICY"}]}}"#.to_owned(),
                Some("ORG_POLICY"),
                false,
            ),
            (
                format!("<Error><Code>OrgPolicyConstraintFailed</Code><Message>Request violates OrgPolicy.</Message><Details>It violates {policy}</Details></Error>"),
                Some("OrgPolicyConstraintFailed"),
                false,
            ),
        ] {
            let reason = reason_of(body.as_bytes());
            assert_eq!((reason.code.as_deref(), reason.is_conflict()), (code, is_conflict), "{body}");
        }
        let details =
            format!("<Error><Code>X</Code><Message>It is refused.</Message><Details>violates {policy}</Details></Error>");
        assert_eq!(
            reason_of(details.as_bytes()).text,
            format!("It is refused. violates {policy}")
        );
    }
}
