//! Where requests go, and whether credentials may be sent there. Pure except for [`Endpoint::from_environment`].
//!
//! Precedence: the property, then `STORAGE_EMULATOR_HOST`, then Google. `http://` endpoints never get credentials, nor does an
//! emulator named by the environment.

use reqwest::Url;

use gcstreamer_schema::redact;

/// The variable that all Cloud Storage client libraries read, except the Rust one.
const EMULATOR_VARIABLE: &str = "STORAGE_EMULATOR_HOST";
const GOOGLE: &str = "https://storage.googleapis.com";
/// The domain whose hosts may get credentials.
const GOOGLE_DOMAIN: &str = "googleapis.com";

/// The server that requests go to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `scheme://host[:port]`; `None` for Google.
    origin: Option<String>,
    credentials: bool,
    port: bool,
}

/// An endpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin} \"{text}\" {reason}; it must look like https://host or http://localhost:4443")]
pub struct EndpointError {
    origin: &'static str,
    text: String,
    reason: &'static str,
}

impl Endpoint {
    /// Returns Google's endpoint.
    #[must_use]
    pub fn google() -> Self {
        Self {
            origin: None,
            credentials: true,
            port: false,
        }
    }

    /// Returns the endpoint for a property and the present environment.
    ///
    /// # Errors
    /// The property or `STORAGE_EMULATOR_HOST` is not the address of a server.
    pub fn from_environment(property: Option<&str>) -> Result<Self, EndpointError> {
        let variable = std::env::var_os(EMULATOR_VARIABLE);
        Self::resolve(property, variable.as_deref().map(std::ffi::OsStr::to_string_lossy).as_deref())
    }

    /// Returns the endpoint for the property `endpoint-uri` and the value of `STORAGE_EMULATOR_HOST`.
    ///
    /// # Errors
    /// The one that applies is not the address of a server.
    pub fn resolve(property: Option<&str>, emulator_host: Option<&str>) -> Result<Self, EndpointError> {
        if let Some(text) = property {
            return Self::parse("endpoint-uri", text, text);
        }
        match emulator_host.map(str::trim).filter(|text| !text.is_empty()) {
            None => Ok(Self::google()),
            Some(text) => {
                let uri = if text.contains("://") {
                    text.to_owned()
                } else {
                    format!("http://{text}")
                };
                Self::parse(EMULATOR_VARIABLE, text, &uri).map(|endpoint| Self {
                    credentials: false,
                    ..endpoint
                })
            }
        }
    }

    fn parse(origin: &'static str, text: &str, uri: &str) -> Result<Self, EndpointError> {
        let fail = |reason| {
            Err(EndpointError {
                origin,
                text: redact(text),
                reason,
            })
        };
        let Ok(url) = Url::parse(uri.trim()) else {
            return fail("is not a URL");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return fail("has a scheme that is neither http nor https");
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return fail("names no host");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return fail("holds a user name or password, which is not sent; use credentials-file");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return fail("has a query or fragment");
        }
        if !matches!(url.path(), "" | "/") {
            return fail("has a path; give the server alone, without /storage/v1 or a bucket");
        }
        if url.port() == Some(0) {
            return fail("has port 0");
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            origin: Some(format!("{}://{host}{port}", url.scheme())),
            credentials: url.scheme() == "https",
            port: !port.is_empty(),
        })
    }

    /// Returns whether requests to it have credentials.
    #[must_use]
    pub fn takes_credentials(&self) -> bool {
        self.credentials
    }

    /// Returns `scheme://host[:port]`, for texts.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.origin.as_deref().unwrap_or(GOOGLE)
    }

    /// Returns the endpoint if it is not Google's, which follows the universe domain.
    #[must_use]
    pub fn custom(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Returns whether the endpoint is between the user and Google, so that Google's own addresses may not be reachable: it uses
    /// TLS, and its host is not Google's.
    pub(crate) fn is_gateway(&self) -> bool {
        let host = self.origin.as_deref().and_then(|origin| origin.strip_prefix("https://"));
        host.is_some_and(|host| !is_google_host(host.split(':').next().unwrap_or_default()))
    }

    /// Returns whether resumable uploads are used. Servers with a port are emulators and gateways. Some of them finish a session
    /// at a mere status query; and the path to them is short, so a second upload costs little.
    pub(crate) fn can_resume(&self) -> bool {
        !self.port && self.credentials
    }

    /// Returns the origin for our own requests, and the `Host` they need if it is not the origin's: private endpoints of Google
    /// (`private.googleapis.com`, Private Service Connect) serve every API and distinguish them by `Host`.
    pub(crate) fn origin_and_host(&self, universe_domain: Option<&str>) -> (String, Option<String>) {
        let domain = universe_domain.unwrap_or(GOOGLE_DOMAIN);
        let service = format!("storage.{domain}");
        let Some(origin) = &self.origin else {
            return (format!("https://{service}"), None);
        };
        let host = origin
            .split_once("://")
            .map_or("", |(_, authority)| authority.split(':').next().unwrap_or(""));
        let host = match host.strip_suffix(&format!(".{domain}")) {
            None => None,
            // The public addresses of Cloud Storage itself need no other `Host`.
            Some(prefix) if prefix == "storage" || prefix.ends_with("-storage") => None,
            Some(prefix) if prefix.starts_with("storage.") && prefix.ends_with(".rep") => None,
            Some(_) => Some(service),
        };
        (origin.clone(), host)
    }
}

/// Returns whether a host is Google's: equal to or below `googleapis.com`. False for a host with a dot at its end.
#[must_use]
pub fn is_google_host(host: &str) -> bool {
    let below = host.strip_suffix(GOOGLE_DOMAIN);
    below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(text: &str) -> Endpoint {
        Endpoint::resolve(Some(text), None).unwrap()
    }

    #[test]
    fn without_settings_it_is_google_with_credentials() {
        let endpoint = Endpoint::resolve(None, None).unwrap();
        assert_eq!(endpoint.as_str(), "https://storage.googleapis.com");
        assert!(endpoint.takes_credentials() && endpoint.custom().is_none() && endpoint.can_resume());
        assert_eq!(Endpoint::resolve(None, Some("  ")).unwrap(), endpoint);
    }

    #[test]
    fn plain_http_never_gets_credentials_and_https_does() {
        assert!(!property("http://storage.googleapis.com").takes_credentials());
        assert!(!property("HTTP://proxy.local:80").takes_credentials());
        assert!(property("https://storage.example.org").takes_credentials());
    }

    #[test]
    fn the_emulator_variable_is_read_in_both_forms_and_is_anonymous() {
        for text in ["localhost:9000", "http://localhost:9000", "http://localhost:9000/"] {
            let endpoint = Endpoint::resolve(None, Some(text)).unwrap();
            assert_eq!(endpoint.as_str(), "http://localhost:9000");
            assert!(!endpoint.takes_credentials());
        }
        assert!(!Endpoint::resolve(None, Some("https://emulator")).unwrap().takes_credentials());
        assert_eq!(
            Endpoint::resolve(None, Some("[::1]:9000")).unwrap().as_str(),
            "http://[::1]:9000"
        );
    }

    #[test]
    fn the_property_wins_over_the_variable() {
        let endpoint = Endpoint::resolve(Some("https://a.example"), Some("localhost:9")).unwrap();
        assert_eq!(endpoint.as_str(), "https://a.example");
    }

    #[test]
    fn ipv6_and_ports_are_kept() {
        assert_eq!(property("http://[::1]:4443").as_str(), "http://[::1]:4443");
        assert_eq!(property("https://h:443").as_str(), "https://h");
        assert!(!property("https://h:8443").can_resume());
        assert!(property("https://h").can_resume());
    }

    #[test]
    fn what_is_no_server_address_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "not a URL"),
            ("localhost:4443", "neither http nor https"),
            ("storage.googleapis.com", "not a URL"),
            ("ftp://h", "neither http"),
            ("http://", "not a URL"),
            ("http://h:99999", "not a URL"),
            ("http://h:0", "port 0"),
            ("https://u:SECRET@h", "user name or password"),
            ("https://h/storage/v1", "path"),
            ("https://h?x=1", "query"),
        ] {
            let error = Endpoint::resolve(Some(text), None).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("endpoint-uri"), "{text}: {error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
        assert!(
            Endpoint::resolve(None, Some("h:x"))
                .unwrap_err()
                .to_string()
                .contains("STORAGE_EMULATOR_HOST")
        );
    }

    #[test]
    fn a_gateway_is_what_the_user_has_put_before_google() {
        for text in ["https://gateway.example", "https://gateway.example:8443", "https://[::1]"] {
            assert!(property(text).is_gateway(), "{text}");
        }
        for text in [
            "http://gateway.example",
            "https://storage.googleapis.com",
            "https://private.googleapis.com",
        ] {
            assert!(!property(text).is_gateway(), "{text}");
        }
        assert!(!Endpoint::google().is_gateway());
    }

    #[test]
    fn private_google_endpoints_are_asked_for_storage_by_host() {
        let host = |text: &str| property(text).origin_and_host(None).1;
        assert_eq!(
            host("https://private.googleapis.com").as_deref(),
            Some("storage.googleapis.com")
        );
        assert_eq!(
            host("https://storage-x.p.googleapis.com").as_deref(),
            Some("storage.googleapis.com")
        );
        assert_eq!(host("https://storage.googleapis.com"), None);
        assert_eq!(host("https://storage.europe-west3.rep.googleapis.com"), None);
        assert_eq!(host("https://us-east1-storage.googleapis.com"), None);
        assert_eq!(host("http://localhost:4443"), None);
        assert_eq!(
            Endpoint::google().origin_and_host(Some("x.example")).0,
            "https://storage.x.example"
        );
    }
}
