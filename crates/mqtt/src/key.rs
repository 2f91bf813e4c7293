//! Reads a private key from a PEM text. PURE.
//!
//! The token library signs only with a PKCS#1 RSA key or a PKCS#8 EC key, and also loads keys that it cannot sign with. So the
//! few bytes of DER that identify a key are parsed here: PKCS#8, PKCS#1 and SEC1 are accepted, and the error text names the kind
//! of an unusable key.

use rustls::pki_types::pem::{PemObject, SectionKind};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const PARAMETERS: u8 = 0xa0;

// Object identifiers: RFC 8017 A.1 (RSA), RFC 5480 2.1.1 (EC and its curves), SEC 2 (secp256k1), RFC 8410 3 (Ed25519).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const SECP256K1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Shortest accepted RSA key, bits.
const MIN_RSA_BITS: usize = 2048;
/// Longest RSA key that the cryptographic library supports, bits.
const MAX_RSA_BITS: usize = 8192;

/// Why a PEM text is not a key that can sign a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file is empty.
    #[error("it is empty")]
    Empty,
    /// No `-----BEGIN … PRIVATE KEY-----`, or damaged.
    #[error("it holds no private key in PEM form (BEGIN PRIVATE KEY), or a damaged one")]
    NotPem,
    /// The key is encrypted.
    #[error(
        "the key in it is encrypted, and nobody can type its passphrase here; decrypt it with `openssl pkey -in KEY -out KEY.plain`"
    )]
    Encrypted,
    /// A public key.
    #[error("it holds a public key; the private key is needed here, the public one belongs in the registry")]
    Public,
    /// Another kind of PEM file.
    #[error("it holds a certificate, not the private key")]
    Certificate,
    /// A curve or key type that the device contract has no algorithm for.
    #[error("the key in it is {0}; tokens are signed with RSA of at least {MIN_RSA_BITS} bits or EC P-256 (prime256v1)")]
    Kind(&'static str),
    /// An RSA key that is too short or too long.
    #[error("the RSA key in it has {0} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are needed")]
    RsaBits(usize),
    /// The bytes do not have the structure that the label promises.
    #[error("the key in it is damaged, or of a form that is not known")]
    Damaged,
}

/// A key that can sign a token.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// PKCS#1: RS256.
    Rsa(Vec<u8>),
    /// PKCS#8 on P-256: ES256.
    Ec(Vec<u8>),
}

impl Key {
    /// Returns the first private key in the text.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        if pem.iter().all(u8::is_ascii_whitespace) {
            return Err(KeyError::Empty);
        }
        let text = String::from_utf8_lossy(pem);
        // PKCS#8 has a label of its own; older formats have the header `Proc-Type: 4,ENCRYPTED` (RFC 1421, 4.6.1.1).
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY") || text.contains(",ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let mut found = KeyError::NotPem;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| KeyError::NotPem)?;
            match kind {
                SectionKind::RsaPrivateKey => return rsa(&der),
                SectionKind::EcPrivateKey => return sec1(&der),
                SectionKind::PrivateKey => return pkcs8(&der),
                SectionKind::PublicKey => found = KeyError::Public,
                SectionKind::Certificate => found = KeyError::Certificate,
                _ => {}
            }
        }
        // The PEM parser skips this label.
        if found == KeyError::NotPem && text.contains("-----BEGIN RSA PUBLIC KEY") {
            found = KeyError::Public;
        }
        Err(found)
    }
}

/// Parses PrivateKeyInfo (PKCS#8, RFC 5208 5): version, { algorithm, parameters }, key.
fn pkcs8(der: &[u8]) -> Result<Key, KeyError> {
    let info = Der(der).enter(SEQUENCE)?;
    let rest = info.skip(INTEGER)?;
    let (algorithm, rest) = rest.split(SEQUENCE)?;
    let (kind, parameters) = algorithm.split(OID)?;
    match kind.0 {
        RSA => rsa(rest.enter(OCTETS)?.0),
        EC => {
            curve(parameters.enter(OID)?.0)?;
            Ok(Key::Ec(der.to_vec()))
        }
        ED25519 => Err(KeyError::Kind("Ed25519")),
        _ => Err(KeyError::Kind("of a kind that is not known")),
    }
}

/// Parses RSAPrivateKey (PKCS#1, RFC 8017 A.1.2): version, modulus, …
fn rsa(der: &[u8]) -> Result<Key, KeyError> {
    let (modulus, _) = Der(der).enter(SEQUENCE)?.skip(INTEGER)?.split(INTEGER)?;
    let leading = modulus.0.iter().take_while(|byte| **byte == 0).count();
    let significant = modulus.0.get(leading..).unwrap_or_default();
    let first = significant.first().ok_or(KeyError::Damaged)?;
    let unused = usize::try_from(first.leading_zeros()).unwrap_or(0);
    let bits = significant.len().saturating_mul(8).saturating_sub(unused);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyError::RsaBits(bits));
    }
    Ok(Key::Rsa(der.to_vec()))
}

/// Parses ECPrivateKey (SEC1, RFC 5915 3): version, private key, `[0]` curve, `[1]` public key. Wraps it into PKCS#8.
fn sec1(der: &[u8]) -> Result<Key, KeyError> {
    let (private, rest) = Der(der).enter(SEQUENCE)?.skip(INTEGER)?.split(OCTETS)?;
    match rest.enter(PARAMETERS) {
        Ok(parameters) => curve(parameters.enter(OID)?.0)?,
        // The curve is optional. Without one, only the length of the private key identifies it.
        Err(_) if private.0.len() == 32 => {}
        Err(_) => return Err(KeyError::Kind("an EC key whose curve is not named")),
    }
    let algorithm = element(SEQUENCE, &[element(OID, EC)?, element(OID, P256)?].concat())?;
    let info = [element(INTEGER, &[0])?, algorithm, element(OCTETS, der)?].concat();
    Ok(Key::Ec(element(SEQUENCE, &info)?))
}

fn curve(oid: &[u8]) -> Result<(), KeyError> {
    match oid {
        P256 => Ok(()),
        P384 => Err(KeyError::Kind("EC on curve P-384")),
        P521 => Err(KeyError::Kind("EC on curve P-521")),
        SECP256K1 => Err(KeyError::Kind("EC on curve secp256k1")),
        _ => Err(KeyError::Kind("EC on a curve other than P-256")),
    }
}

/// A sequence of DER elements.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Returns the content of the first element, which must have this tag, and what follows it.
    fn split(self, tag: u8) -> Result<(Der<'a>, Der<'a>), KeyError> {
        let (first, rest) = self.0.split_first().ok_or(KeyError::Damaged)?;
        let (length, rest) = rest.split_first().ok_or(KeyError::Damaged)?;
        let (length, rest) = match usize::from(*length) {
            short @ 0..=0x7f => (short, rest),
            // Keys are far below 64 KiB: one or two bytes of length.
            long @ 0x81..=0x82 => {
                let (bytes, rest) = rest.split_at_checked(long & 0x7f).ok_or(KeyError::Damaged)?;
                (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return Err(KeyError::Damaged),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(KeyError::Damaged)?;
        if *first == tag {
            Ok((Der(content), Der(rest)))
        } else {
            Err(KeyError::Damaged)
        }
    }

    fn enter(self, tag: u8) -> Result<Der<'a>, KeyError> {
        self.split(tag).map(|(content, _)| content)
    }

    fn skip(self, tag: u8) -> Result<Der<'a>, KeyError> {
        self.split(tag).map(|(_, rest)| rest)
    }
}

/// Encodes one DER element.
fn element(tag: u8, content: &[u8]) -> Result<Vec<u8>, KeyError> {
    let length = u16::try_from(content.len()).map_err(|_| KeyError::Damaged)?;
    let [high, low] = length.to_be_bytes();
    let mut out = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    out.extend_from_slice(content);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_file_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = Key::from_pem(&bytes);
            let _ = pkcs8(&bytes);
            let _ = sec1(&bytes);
            let _ = rsa(&bytes);
        }
    }
}
