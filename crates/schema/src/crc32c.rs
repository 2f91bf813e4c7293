//! CRC32C in the format of Cloud Storage: base64 of its four big-endian bytes, eight characters of which the last two are
//! padding.
//!
//! PURE. Source: the fields of an object, <https://cloud.google.com/storage/docs/json_api/v1/objects>.

use base64::engine::general_purpose::{GeneralPurpose, PAD};
use base64::{Engine as _, alphabet};

const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Formats a CRC32C.
pub fn to_base64(crc32c: u32) -> String {
    BASE64.encode(crc32c.to_be_bytes())
}

/// Parses what [`to_base64`] writes; ignores the four bits after the value. Returns `None` for any other text.
pub fn from_base64(text: &str) -> Option<u32> {
    let bytes = BASE64.decode(text).ok()?;
    Some(u32::from_be_bytes(<[u8; 4]>::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_written_and_read_as_cloud_storage_does() {
        for (crc32c, text) in [(0xfe27_8e72, "/ieOcg=="), (1_234_567_890, "SZYC0g=="), (0, "AAAAAA==")] {
            assert_eq!((to_base64(crc32c).as_str(), from_base64(text)), (text, Some(crc32c)));
        }
        assert_eq!(from_base64("/ieOch=="), Some(0xfe27_8e72));
        for text in ["", "AAAA", "AAAAAA", "AAAAAAA=", "AAAAAAAA", "!!!!!!=="] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }
}
