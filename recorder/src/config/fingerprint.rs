//! The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` and browsers show it.
//!
//! PURE.

use std::fmt;

/// SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Parses 64 hexadecimal digits, with or without colons between the bytes.
    ///
    /// # Errors
    /// The text says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "tls-fingerprint must be the SHA-256 of the camera's certificate, 64 hexadecimal digits: openssl s_client -connect HOST:322 \
             </dev/null | openssl x509 -noout -fingerprint -sha256"
                .to_owned()
        };
        let digits: Vec<u8> = text.bytes().filter(|c| *c != b':').collect();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }

    /// Whether this fingerprint equals a SHA-256 in hexadecimal digits.
    pub fn is(&self, hex: &str) -> bool {
        Self::parse(hex).as_ref() == Ok(self)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_tools_show_it() {
        let plain = "0123456789abcdef".repeat(4);
        let pairs: Vec<&str> = (0..32).map(|i| &plain[2 * i..2 * i + 2]).collect();
        let shown = pairs.join(":").to_uppercase();
        let fingerprint = Fingerprint::parse(&shown).unwrap();
        assert_eq!(fingerprint, Fingerprint::parse(&plain).unwrap());
        assert!(fingerprint.is(&plain) && !fingerprint.is(&plain.replace('0', "1")));
        for wrong in ["", "01:23", &plain[1..], &plain.replace('0', "g"), "SHA256:abc"] {
            assert!(Fingerprint::parse(wrong).unwrap_err().contains("openssl"), "{wrong}");
        }
    }
}
