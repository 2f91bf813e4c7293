//! Checks a certificate of X.509 version 1 as the broker's own: its dates, and the signature of the handshake by its key.
//!
//! `openssl x509 -req -signkey` without a file of extensions makes such certificates, and OpenSSL's clients accept them. rustls
//! accepts them only as authorities. Used only for a certificate that the user has configured, byte for byte; the caller checks
//! the name. PURE.
//! Source: RFC 5280 4.1 (Certificate, Validity), RFC 8446 4.2.3 (no PKCS #1 v1.5 in handshakes of TLS 1.3).

use super::der::{BIT_STRING, INTEGER, SEQUENCE, expect, value};
use gcstreamer_schema::time::parse_rfc3339;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// Returns what follows the issuer in a certificate of version 1: validity, subject, key.
fn behind_issuer(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (signed, _) = expect(certificate, SEQUENCE)?;
    // Later versions have a tagged version number in front of the serial number, and fail here.
    let (_serial, rest) = expect(signed, INTEGER)?;
    let (_algorithm, rest) = expect(rest, SEQUENCE)?;
    let (_issuer, rest) = expect(rest, SEQUENCE)?;
    Some(rest)
}

/// Returns the first time in `input` as seconds since the Unix epoch, and what follows. `UTCTime` has years from 1950 to 2049.
fn seconds(input: &[u8]) -> Option<(u64, &[u8])> {
    let (tag, text, rest) = value(input)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        0x17 if text.get(..2)? < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |at: usize, len: usize| text.get(at..at + len);
    let time = format!(
        "{}-{}-{}T{}:{}:{}{}",
        part(0, 4)?,
        part(4, 2)?,
        part(6, 2)?,
        part(8, 2)?,
        part(10, 2)?,
        part(12, 2)?,
        text.get(14..)?
    );
    // `parse_rfc3339` rejects times before 1970. As a start or an end, 0 has the same effect.
    let begins_before = part(0, 4)? < "1970";
    let ns = if begins_before { 0 } else { parse_rfc3339(&time)? };
    Some((ns / 1_000_000_000, rest))
}

/// Checks the dates of the certificate.
///
/// # Errors
/// [`CertificateError`]: it is not valid yet, has expired, or is not of version 1.
pub(super) fn check_dates(certificate: &[u8], now: UnixTime) -> Result<(), Error> {
    let dates = || {
        let (validity, _) = expect(behind_issuer(certificate)?, SEQUENCE)?;
        let (begins, rest) = seconds(validity)?;
        let (ends, _) = seconds(rest)?;
        Some((begins, ends))
    };
    match dates() {
        None => Err(CertificateError::BadEncoding.into()),
        Some((begins, _)) if now.as_secs() < begins => Err(CertificateError::NotValidYet.into()),
        Some((_, ends)) if now.as_secs() > ends => Err(CertificateError::Expired.into()),
        Some(_) => Ok(()),
    }
}

/// Checks the signature of a handshake by the key of the certificate.
///
/// # Errors
/// [`CertificateError`]: the signature is not of that key, or the certificate is not of version 1.
pub(super) fn check_signature(
    certificate: &[u8],
    message: &[u8],
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
    is_tls13: bool,
) -> Result<HandshakeSignatureValid, Error> {
    let is_old = matches!(
        signature.scheme,
        SignatureScheme::RSA_PKCS1_SHA256 | SignatureScheme::RSA_PKCS1_SHA384 | SignatureScheme::RSA_PKCS1_SHA512
    );
    let is_valid = || {
        let (_validity, rest) = expect(behind_issuer(certificate)?, SEQUENCE)?;
        let (_subject, rest) = expect(rest, SEQUENCE)?;
        let (key, _) = expect(rest, SEQUENCE)?;
        let (kind, rest) = expect(key, SEQUENCE)?;
        let (bits, _) = expect(rest, BIT_STRING)?;
        // The number of unused bits, always 0.
        let (_, key) = bits.split_first().filter(|(unused, _)| **unused == 0)?;
        let (_, known) = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme)?;
        let fits = known
            .iter()
            .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == kind);
        fits.map(|algorithm| algorithm.verify_signature(key, message, signature.signature()))
            .find_map(Result::ok)
    };
    if (is_old && is_tls13) || is_valid().is_none() {
        return Err(CertificateError::BadSignature.into());
    }
    Ok(HandshakeSignatureValid::assertion())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat()
    }

    fn certificate(begins: &[u8], ends: &[u8]) -> Vec<u8> {
        let (first, second) = (
            element(0x17, begins),
            element(if ends.len() > 13 { 0x18 } else { 0x17 }, ends),
        );
        let signed = [
            element(INTEGER, &[1]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[first, second].concat()),
        ];
        element(SEQUENCE, &element(SEQUENCE, &signed.concat()))
    }

    fn at(certificate: &[u8], seconds: u64) -> Result<(), Error> {
        check_dates(certificate, UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }

    #[test]
    fn the_dates_of_a_certificate_hold() {
        // From 2001-09-09 01:46:40 to 2033-05-18 03:33:20.
        let short = certificate(b"010909014640Z", b"330518033320Z");
        let long = certificate(b"690101000000Z", b"20330518033320Z");
        assert_eq!(at(&short, 999_999_999), Err(CertificateError::NotValidYet.into()));
        for certificate in [&short, &long] {
            assert_eq!(
                (at(certificate, 1_000_000_000), at(certificate, 2_000_000_000)),
                (Ok(()), Ok(()))
            );
            assert_eq!(at(certificate, 2_000_000_001), Err(CertificateError::Expired.into()));
        }
        for len in 0..short.len() {
            assert_eq!(
                at(&short[..len], 1_500_000_000),
                Err(CertificateError::BadEncoding.into()),
                "{len}"
            );
        }
        assert_eq!(
            at(&certificate(b"not a date..Z", b"330518033320Z"), 9),
            Err(CertificateError::BadEncoding.into())
        );
    }
}
