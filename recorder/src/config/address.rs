//! The address of a camera's stream: checked, and never displayed with parts that could be secret.
//!
//! PURE.

use std::fmt;

use url::Url;

/// How the stream is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `rtsp`.
    Rtsp,
    /// `rtsps`.
    Rtsps,
    /// `http` or `https`: FLV, MPEG-TS or HLS.
    Http,
    /// `rtmp`.
    Rtmp,
    /// `srt`.
    Srt,
}

/// A checked stream address. [`fmt::Display`] and [`fmt::Debug`] show only scheme, host and port, because paths and queries of
/// cameras may contain keys and passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    scheme: Scheme,
    shown: String,
}

const SCHEMES: &str = "rtsp, rtsps, http, https, rtmp or srt";

impl Address {
    /// Parses and checks an address.
    ///
    /// # Errors
    /// What is wrong and what to write. The text does not contain the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write it as rtsp://HOST/PATH";
        let url = Url::parse(text).map_err(|error| format!("url is not a stream address ({error}); {example}"))?;
        let scheme = match url.scheme() {
            "rtsp" => Scheme::Rtsp,
            "rtsps" => Scheme::Rtsps,
            "http" | "https" => Scheme::Http,
            "rtmp" => Scheme::Rtmp,
            "srt" => Scheme::Srt,
            _ => return Err(format!("url must begin with {SCHEMES}; {example}")),
        };
        // GStreamer treats everything before the @ as user name and password, even if it contains a #. `Url` would take the # for
        // the beginning of the fragment.
        let behind = text.split_once("://").map_or("", |(_, behind)| behind);
        let mark = behind.find(['/', '?', '#']).and_then(|at| behind.get(at..));
        let has_mark = mark.is_some_and(|rest| rest.starts_with('#') && rest.contains('@'));
        if !url.username().is_empty() || url.password().is_some() || has_mark {
            return Err(
                "url holds a user name or password; write the name as username = \"…\", put the password into a file of its own \
                 and name that with password-file"
                    .to_owned(),
            );
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(format!("url has no host; {example}"));
        };
        // `Url` ignores line breaks, tabs and blanks at both ends, but GStreamer gets the text as it is.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("url holds a blank or a control character; remove it".to_owned());
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            shown: format!("{}://{host}{port}", url.scheme()),
            text: text.to_owned(),
            scheme,
        })
    }

    /// Returns the whole address. Use it only for the element that connects.
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// Returns the whole address with user name and password in it: the element that fetches HLS takes them only from there.
    pub fn with_login(&self, username: &str, password: &str) -> String {
        let Ok(mut url) = Url::parse(&self.text) else {
            return self.text.clone();
        };
        // Cannot fail for an address with a host, which `parse` requires. Both are percent-encoded.
        let _ = url.set_username(username);
        let _ = url.set_password(Some(password));
        url.into()
    }

    /// Whether the connection is encrypted by TLS.
    pub fn is_encrypted(&self) -> bool {
        self.shown.starts_with("rtsps:") || self.shown.starts_with("https:")
    }

    /// Whether the address is, by its extension, an HLS playlist.
    pub fn is_hls(&self) -> bool {
        let path = self.text.split(['?', '#']).next().unwrap_or_default();
        self.scheme == Scheme::Http && path.to_ascii_lowercase().ends_with(".m3u8")
    }

    /// Returns how the stream is fetched.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_its_host_and_nothing_that_could_be_a_secret() {
        for (text, shown, scheme) in [
            ("rtsp://10.0.3.3/stream?key=SECRET", "rtsp://10.0.3.3", Scheme::Rtsp),
            ("rtsps://cam.example:322/SECRET", "rtsps://cam.example:322", Scheme::Rtsps),
            ("rtsp://[fd00::7]:8554/SECRET", "rtsp://[fd00::7]:8554", Scheme::Rtsp),
            ("https://host/live/SECRET.m3u8", "https://host", Scheme::Http),
            ("rtmp://host/app/SECRET", "rtmp://host", Scheme::Rtmp),
            ("srt://host:9000?passphrase=SECRET", "srt://host:9000", Scheme::Srt),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.to_string().as_str(), address.scheme()), (shown, scheme));
            assert_eq!(address.secret(), text);
            assert_eq!(address.is_hls(), text.contains("m3u8"));
            assert!(!format!("{address:?}").contains("SECRET"));
        }
    }

    #[test]
    fn a_login_is_escaped_and_leaves_the_rest_as_it_is() {
        let address = Address::parse("http://10.0.3.3:8080/live/a%20b.m3u8?key=a%2Fb").unwrap();
        assert_eq!(
            address.with_login("a:b", "p@s/s#w?"),
            "http://a%3Ab:p%40s%2Fs%23w%3F@10.0.3.3:8080/live/a%20b.m3u8?key=a%2Fb"
        );
    }

    #[test]
    fn credentials_in_an_address_are_refused_without_being_shown() {
        for text in ["rtsp://rec:SECRET@10.0.3.3/stream", "rtsp://SECRET@h/", "http://:SECRET@h/"] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains("password-file") && !error.contains("SECRET"), "{error}");
        }
        for text in [
            "",
            "SECRET",
            "10.0.3.3/SECRET",
            "ftp://h/SECRET",
            // GStreamer's names for a transport, which is a key of its own here.
            "rtspt://h/SECRET",
            "rtspu://h/SECRET",
            "file:///SECRET",
            "rtsp:///SECRET",
            "rtsp://h/SEC RET",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(!error.contains("SEC"), "{error}");
        }
    }
}
