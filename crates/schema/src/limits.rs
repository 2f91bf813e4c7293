//! What Cloud Storage accepts as bucket names, object names and custom metadata. Pure.
//!
//! <https://cloud.google.com/storage/docs/buckets#naming>, <https://cloud.google.com/storage/docs/objects#naming>,
//! <https://cloud.google.com/storage/quotas#objects>.

use std::collections::BTreeMap;

/// Maximum custom metadata of one object in bytes, keys and values together.
pub const MAX_METADATA_BYTES: usize = 8 << 10;

/// A name that Cloud Storage refuses, and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A bucket name.
    #[error("\"{}\" cannot be a bucket name: {rule}", shown(.name))]
    Bucket {
        /// The name.
        name: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// An object name.
    #[error("\"{}\" cannot be an object name: {rule}", shown(.name))]
    Object {
        /// The name.
        name: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// Too much custom metadata.
    #[error(
        "custom metadata of {bytes} bytes (keys and values together): Cloud Storage takes at most {MAX_METADATA_BYTES}; shorten the property metadata"
    )]
    Metadata {
        /// Its size.
        bytes: usize,
    },
    /// An empty metadata key.
    #[error("custom metadata with an empty key")]
    EmptyKey,
}

/// Returns a name in a form that is safe to print: at most 80 characters, control characters escaped.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        text.push('…');
    }
    text
}

/// Checks a bucket name.
///
/// # Errors
/// The first rule that the name breaks.
pub fn check_bucket(name: &str) -> Result<(), NameError> {
    match bucket_rule(name) {
        None => Ok(()),
        Some(rule) => Err(NameError::Bucket {
            name: name.to_owned(),
            rule,
        }),
    }
}

fn bucket_rule(name: &str) -> Option<&'static str> {
    let dotted = name.contains('.');
    if name.is_empty() {
        return Some("it is empty; set the property bucket");
    }
    if name.starts_with("gs://") {
        return Some("leave out the gs:// (a whole gs:// address goes into the property uri)");
    }
    if name.contains('/') {
        return Some("it holds a slash; folders belong into the property location");
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some("it holds capital letters; bucket names are lower case");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
    {
        return Some("only lower-case letters, digits, - _ and . are allowed");
    }
    if name.len() < 3 {
        return Some("it has fewer than 3 characters");
    }
    if !dotted && name.len() > 63 {
        return Some("it has more than 63 characters");
    }
    if dotted && name.len() > 222 {
        return Some("it has more than 222 characters");
    }
    if dotted && name.split('.').any(|part| part.is_empty() || part.len() > 63) {
        return Some("each part between dots has 1 to 63 characters");
    }
    let ends = [name.bytes().next(), name.bytes().next_back()];
    if !ends.iter().flatten().all(u8::is_ascii_alphanumeric) {
        return Some("it must begin and end with a letter or a digit");
    }
    if name.split('.').count() == 4 && name.split('.').all(|part| part.parse::<u8>().is_ok()) {
        return Some("it looks like an IP address");
    }
    if name.starts_with("goog") {
        return Some("it begins with goog, which is reserved");
    }
    if name.contains("google") || name.contains("g00gle") {
        return Some("it holds the word google, which is reserved");
    }
    None
}

/// Checks an object name.
///
/// # Errors
/// The first rule that the name breaks.
pub fn check_object_name(name: &str) -> Result<(), NameError> {
    let rule = if name.is_empty() {
        "it is empty"
    } else if name.len() > 1024 {
        "it has more than 1024 bytes of UTF-8"
    } else if name.contains(['\r', '\n']) {
        "it holds a line break"
    } else if name.contains('\0') {
        // Neither Cloud Storage's XML API nor a GStreamer string can hold it.
        "it holds a NUL character"
    } else if name == "." || name == ".." {
        "it is . or .."
    } else if name.starts_with(".well-known/acme-challenge/") {
        "it begins with .well-known/acme-challenge/, which is reserved"
    } else {
        return Ok(());
    };
    Err(NameError::Object {
        name: name.to_owned(),
        rule,
    })
}

/// Checks the size of custom metadata.
///
/// # Errors
/// The metadata exceeds [`MAX_METADATA_BYTES`], or a key is empty.
pub fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), NameError> {
    if metadata.contains_key("") {
        return Err(NameError::EmptyKey);
    }
    let bytes = metadata.iter().fold(0usize, |sum, (key, value)| {
        sum.saturating_add(key.len()).saturating_add(value.len())
    });
    if bytes > MAX_METADATA_BYTES {
        return Err(NameError::Metadata { bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_that_cloud_storage_takes_are_taken() {
        let dotted = [&"a".repeat(63), &"b".repeat(63), &"c".repeat(63)]
            .map(String::as_str)
            .join(".");
        for name in [
            "abc",
            "my-bucket_1",
            "1cam",
            "example.com",
            "a.b.c",
            "1.2.3.4.5",
            &"x".repeat(63),
            &dotted,
        ] {
            assert_eq!(check_bucket(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn bucket_names_that_cloud_storage_refuses_name_the_rule() {
        let long = "x".repeat(64);
        let dotted = format!("a.{long}");
        let very_long = ["a"; 112].join(".");
        for (name, rule) in [
            ("", "empty"),
            ("ab", "fewer than 3"),
            (long.as_str(), "more than 63"),
            (dotted.as_str(), "between dots"),
            (very_long.as_str(), "more than 222"),
            ("a..b", "between dots"),
            ("Abc", "capital"),
            ("a b", "only lower-case"),
            ("bückets", "only lower-case"),
            ("-abc", "begin and end"),
            ("abc_", "begin and end"),
            ("192.168.5.4", "IP address"),
            ("goog-x", "goog"),
            ("my-google-x", "google"),
            ("gs://abc", "gs://"),
            ("abc/def", "slash"),
        ] {
            let text = check_bucket(name).unwrap_err().to_string();
            assert!(text.contains(rule), "{name}: {text}");
        }
    }

    #[test]
    fn object_names_are_checked_in_bytes() {
        for name in ["a", "store 42/cam#3/é%.flv", "a/../b", "...", &"é".repeat(512)] {
            assert_eq!(check_object_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a\nb",
            "a\rb",
            ".well-known/acme-challenge/x",
            &"é".repeat(513),
        ] {
            assert!(check_object_name(name).is_err(), "{name:?}");
        }
        assert!(!check_object_name("a\nb").unwrap_err().to_string().contains('\n'));
    }

    #[test]
    fn metadata_is_counted_with_its_keys() {
        let fits = BTreeMap::from([("k".repeat(192), "v".repeat(8000))]);
        assert_eq!(check_metadata(&fits), Ok(()));
        let too_much = BTreeMap::from([("k".repeat(193), "v".repeat(8000))]);
        assert_eq!(check_metadata(&too_much), Err(NameError::Metadata { bytes: 8193 }));
        assert_eq!(
            check_metadata(&BTreeMap::from([(String::new(), String::new())])),
            Err(NameError::EmptyKey)
        );
    }
}
