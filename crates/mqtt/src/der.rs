//! Parses the parts of a certificate that rustls does not expose: DER values, and the common names of its subject. PURE.
//!
//! Source: RFC 5280 4.1 (Certificate), ITU-T X.690 (DER), ITU-T X.520 (commonName, 2.5.4.3).

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const SET: u8 = 0x31;
/// Tag of the version, which a certificate of version 1 does not have.
const VERSION: u8 = 0xa0;
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Splits off the first value. Returns its tag, its content and the bytes that follow; `None` if it is longer than 65,535 bytes.
pub(super) fn value(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = input.split_first_chunk::<2>()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(&len, rest)| (usize::from(len), rest))?,
        0x82 => rest
            .split_first_chunk::<2>()
            .map(|(&len, rest)| (usize::from(u16::from_be_bytes(len)), rest))?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// Splits off the first value if it has this tag. Returns its content and the bytes that follow.
pub(super) fn expect(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    value(input)
        .filter(|(tag, ..)| *tag == wanted)
        .map(|(_, content, rest)| (content, rest))
}

/// Returns the common names of a certificate's subject; not those of its issuer.
pub(super) fn common_names(certificate: &[u8]) -> Vec<&str> {
    let Some(mut rest) = subject(certificate) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    // A sequence of sets of pairs of kind and text.
    while let Some((mut set, behind)) = expect(rest, SET) {
        rest = behind;
        while let Some((pair, behind)) = expect(set, SEQUENCE) {
            set = behind;
            names.extend(common_name(pair));
        }
    }
    names
}

fn common_name(pair: &[u8]) -> Option<&str> {
    let (kind, text) = expect(pair, OBJECT_ID)?;
    let (_string_type, text, _) = value(text)?;
    std::str::from_utf8(text).ok().filter(|_| kind == COMMON_NAME)
}

fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (signed, _) = expect(certificate, SEQUENCE)?;
    let signed = expect(signed, VERSION).map_or(signed, |(_version, rest)| rest);
    let (_serial, rest) = expect(signed, INTEGER)?;
    let (_algorithm, rest) = expect(rest, SEQUENCE)?;
    let (_issuer, rest) = expect(rest, SEQUENCE)?;
    let (_validity, rest) = expect(rest, SEQUENCE)?;
    expect(rest, SEQUENCE).map(|(subject, _)| subject)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat()
    }

    fn name(parts: &[(&[u8], &str)]) -> Vec<u8> {
        let part = |(kind, text): &(&[u8], &str)| {
            let pair = [element(OBJECT_ID, kind), element(0x0c, text.as_bytes())].concat();
            element(SET, &element(SEQUENCE, &pair))
        };
        element(SEQUENCE, &parts.iter().flat_map(part).collect::<Vec<_>>())
    }

    fn certificate(version: &[u8], issuer: &[u8], subject: &[u8]) -> Vec<u8> {
        let (serial, algorithm, validity) = (element(INTEGER, &[1]), element(SEQUENCE, &[]), element(SEQUENCE, &[]));
        let signed = [version, &serial, &algorithm, issuer, &validity, subject].concat();
        element(SEQUENCE, &element(SEQUENCE, &signed))
    }

    #[test]
    fn the_common_names_are_those_of_the_subject() {
        const COUNTRY: &[u8] = &[0x55, 0x04, 0x06];
        let issuer = name(&[(&COMMON_NAME, "authority")]);
        let subject = name(&[(COUNTRY, "NL"), (&COMMON_NAME, "broker.lan"), (&COMMON_NAME, "broker")]);
        for version in [element(VERSION, &element(INTEGER, &[2])), Vec::new()] {
            let whole = certificate(&version, &issuer, &subject);
            assert_eq!(common_names(&whole), ["broker.lan", "broker"]);
            for len in 0..whole.len() {
                assert!(common_names(&whole[..len]).is_empty(), "{len}");
            }
            assert!(common_names(&certificate(&version, &issuer, &name(&[(COUNTRY, "NL")]))).is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            let _ = common_names(&bytes);
            let (serial, none) = (element(INTEGER, &[1]), element(SEQUENCE, &[]));
            let signed = [&serial[..], &none, &none, &none, &bytes].concat();
            let _ = subject(&signed);
        }
    }
}
