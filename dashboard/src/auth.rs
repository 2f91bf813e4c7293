//! Decides which requests are allowed.
//!
//! PURE. Checks by mode:
//!
//! - Without authentication: only this machine, by its own names. A page of another site whose name was made to resolve to this
//!   machine (DNS rebinding) is refused because of its `Host`.
//! - With a token: `Authorization: Bearer`, or the cookie that `POST /login` returns for the token. The token is neither in an
//!   address nor in the cookie, and is compared in constant time.
//! - With Identity-Aware Proxy: the user of its signed header, which `crate::iap` verifies.
//!
//! In each mode, guarded addresses refuse requests that a page of another site makes the browser send. They are recognized by
//! `Sec-Fetch-Site`, and without authentication also by the `Origin` of a `POST`.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::settings::Auth;

/// Name of the cookie.
pub const COOKIE: &str = "gcstreamer-dashboard";
/// Lifetime of the cookie, seconds: 30 days.
const MAX_AGE: u32 = 30 * 24 * 3600;

/// How to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer the request.
    Allow,
    /// No valid token: 401.
    LogIn,
    /// Allow the request if the header of Identity-Aware Proxy is valid.
    AskIap,
    /// The `Host` is not a name of this machine: 403.
    ForeignHost,
    /// A page of another site sent the request: 403.
    ForeignSite,
}

/// The kind of address that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// `/healthz`, which reveals nothing about cameras.
    Health,
    /// The page's own files and the login, which must work before a user has logged in.
    Page,
    /// Everything else.
    Guarded,
}

/// The headers of a request that decide about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// Header `Host`.
    pub host: Option<&'a str>,
    /// Header `Authorization`.
    pub authorization: Option<&'a str>,
    /// Header `Cookie`.
    pub cookie: Option<&'a str>,
    /// Header `Sec-Fetch-Site`.
    pub site: Option<&'a str>,
    /// Header `Origin` of a `POST`.
    pub posts_from: Option<&'a str>,
}

impl Shown<'_> {
    /// Returns whether a browser marks the request as sent by a page of another site. <https://www.w3.org/TR/fetch-metadata/>
    fn is_cross_site(&self) -> bool {
        self.site.is_some_and(|site| site.eq_ignore_ascii_case("cross-site"))
    }

    /// Returns whether a `POST` comes from a page that was not loaded from this `Host`. Browsers send `Origin` with each `POST`,
    /// also from another port of the same host.
    fn is_foreign_post(&self) -> bool {
        let authority = |origin: &str| origin.split_once("://").map(|(_, authority)| authority.to_ascii_lowercase());
        // A reverse proxy may have changed the `Host`. `same-origin` decides first then: no page can forge `Sec-Fetch-Site`.
        let is_own = self.site.is_some_and(|site| site.eq_ignore_ascii_case("same-origin"));
        !is_own
            && self
                .posts_from
                .is_some_and(|origin| authority(origin).is_none() || authority(origin) != self.host.map(str::to_ascii_lowercase))
    }
}

impl Auth {
    /// Decides about a request for an address.
    pub fn decide(&self, shown: Shown<'_>, address: Address) -> Decision {
        let is_health = address == Address::Health;
        let is_public = address != Address::Guarded;
        match self {
            Self::None if !shown.host.is_some_and(is_own_name) => Decision::ForeignHost,
            _ if !is_public && shown.is_cross_site() => Decision::ForeignSite,
            // Not in the other modes: a reverse proxy may have changed the `Host`, and there the cookie is SameSite=Strict, or
            // IAP protects the request.
            Self::None if !is_public && shown.is_foreign_post() => Decision::ForeignSite,
            Self::None => Decision::Allow,
            Self::Iap(_) if is_health => Decision::Allow,
            Self::Iap(_) => Decision::AskIap,
            Self::Token(_) if is_public => Decision::Allow,
            Self::Token(token) => {
                let bearer = shown
                    .authorization
                    .and_then(|value| value.split_once(' '))
                    // The scheme is case-insensitive: RFC 9110 section 11.1.
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
                    // RFC 9110 section 11.4 allows several spaces behind the scheme.
                    .map(|(_, given)| given.trim_start_matches(' '))
                    .is_some_and(|given| same(given, token));
                let cookies = shown
                    .cookie
                    .unwrap_or_default()
                    .split(';')
                    .filter_map(|pair| pair.trim().split_once('='));
                let cookie = cookies
                    .filter(|(name, _)| *name == COOKIE)
                    .any(|(_, value)| same(value, &session(token)));
                if bearer || cookie { Decision::Allow } else { Decision::LogIn }
            }
        }
    }

    /// Returns the `Set-Cookie` for a login with the token `given`. `None`: it is wrong, or this mode has no token.
    pub fn log_in(&self, given: &str, is_secure: bool) -> Option<String> {
        let Self::Token(token) = self else { return None };
        // Not on loopback: there is no TLS there, and browsers may refuse a Secure cookie over plain HTTP.
        let secure = if is_secure { "; Secure" } else { "" };
        same(given, token).then(|| {
            format!(
                "{COOKIE}={}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Strict{secure}",
                session(token)
            )
        })
    }
}

/// Returns the value of the cookie, a digest of the token: it proves the token without revealing it. Restarts keep it valid; a
/// new token invalidates it.
fn session(token: &str) -> String {
    let digest = Sha256::digest(format!("gcstreamer-dashboard session\0{token}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn same(a: &str, b: &str) -> bool {
    // Digests have equal lengths, so the time of the comparison does not reveal the length of the token either.
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.as_slice().ct_eq(b.as_slice()).into()
}

fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return matches!(rest.split_once(']'), Some(("::1", port)) if is_port(port)),
        None => host
            .split_once(':')
            .map_or((host, ""), |(name, _)| (name, host.get(name.len()..).unwrap_or_default())),
    };
    (name.0.eq_ignore_ascii_case("localhost") || name.0 == "127.0.0.1") && is_port(name.1)
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn without_authentication_only_this_machines_own_names_are_served() {
        let decide = |host| {
            Auth::None.decide(
                Shown {
                    host,
                    ..Shown::default()
                },
                Address::Health,
            )
        };
        for host in [
            "localhost",
            "localhost:8080",
            "LOCALHOST:1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
        ] {
            assert_eq!(decide(Some(host)), Decision::Allow, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "[::2]",
            "[::1]evil",
            "localhost:x",
            "",
        ] {
            assert_eq!(decide(Some(host)), Decision::ForeignHost, "{host}");
        }
        assert_eq!(decide(None), Decision::ForeignHost);
    }

    #[test]
    fn a_page_of_another_site_opens_nothing_that_is_guarded() {
        let shown = |site, posts_from| Shown {
            host: Some("localhost:8080"),
            site,
            posts_from,
            ..Shown::default()
        };
        for (site, posts_from) in [
            (Some("cross-site"), None),
            (None, Some("https://evil.example")),
            (None, Some("null")),
            (None, Some("http://localhost:3000")),
            (Some("same-site"), Some("http://localhost:3000")),
        ] {
            let shown = shown(site, posts_from);
            assert_eq!(Auth::None.decide(shown, Address::Guarded), Decision::ForeignSite, "{shown:?}");
            assert_eq!(Auth::None.decide(shown, Address::Page), Decision::Allow, "a link to the page");
        }
        for (site, posts_from) in [
            (None, None),
            (Some("none"), None),
            (Some("same-origin"), Some("http://LOCALHOST:8080")),
            // A reverse proxy has changed the `Host`.
            (Some("same-origin"), Some("https://cameras.example")),
        ] {
            let shown = shown(site, posts_from);
            assert_eq!(Auth::None.decide(shown, Address::Guarded), Decision::Allow, "{shown:?}");
        }
        // With a token, too, even with a valid one. The `Origin` is not compared: a reverse proxy may have changed the `Host`.
        let bearer = format!("Bearer {TOKEN}");
        let decide = |site| {
            let shown = Shown {
                authorization: Some(&bearer),
                ..shown(Some(site), Some("https://cameras.example"))
            };
            Auth::Token(TOKEN.into()).decide(shown, Address::Guarded)
        };
        assert_eq!(
            (decide("cross-site"), decide("same-origin")),
            (Decision::ForeignSite, Decision::Allow)
        );
    }

    #[test]
    fn a_token_opens_as_bearer_and_as_cookie_and_nothing_else_does() {
        let auth = Auth::Token(TOKEN.into());
        let bearer = |value: &str| {
            auth.decide(
                Shown {
                    authorization: Some(value),
                    ..Shown::default()
                },
                Address::Guarded,
            )
        };
        for right in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(bearer(&format!("{right} {TOKEN}")), Decision::Allow, "{right}");
        }
        for wrong in ["Bearer ", "Bearer 0123456789abcdeg", "Basic x", TOKEN] {
            assert_eq!(bearer(wrong), Decision::LogIn, "{wrong}");
        }
        let set = auth.log_in(TOKEN, true).unwrap();
        assert!(set.contains("; HttpOnly; SameSite=Strict; Secure") && !set.contains(TOKEN));
        let pair = set.split(';').next().unwrap();
        let cookie = |value: &str| {
            auth.decide(
                Shown {
                    cookie: Some(value),
                    ..Shown::default()
                },
                Address::Guarded,
            )
        };
        assert_eq!(cookie(&format!("a=b; {pair}; c=d")), Decision::Allow);
        assert_eq!(
            cookie(&format!("{COOKIE}={TOKEN}")),
            Decision::LogIn,
            "the token itself is no cookie"
        );
        assert_eq!(auth.log_in("wrong", true), None);
        assert!(!auth.log_in(TOKEN, false).unwrap().contains("Secure"));
    }

    #[test]
    fn the_page_itself_is_shown_to_whoever_has_to_log_in() {
        let auth = Auth::Token(TOKEN.into());
        assert_eq!(auth.decide(Shown::default(), Address::Page), Decision::Allow);
        assert_eq!(auth.decide(Shown::default(), Address::Guarded), Decision::LogIn);
    }
}
