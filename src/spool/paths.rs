//! Names of the spool's folders and files.
//!
//! PURE. `<device>/<session>/<sequence>.chunk`, `<device>/<session>/lock` and
//! `quarantine/<device>~<session>~<sequence>.chunk`. Files with other names are not ours and are left alone.

/// The folder for chunks that cannot be used.
pub const QUARANTINE: &str = "quarantine";
/// The lock file of a session.
pub const LOCK: &str = "lock";

/// Maximum length of a device's folder name, so that the quarantine's three-part names stay below 255 bytes.
const MAX_DEVICE: usize = 200;
/// Maximum length of a session's name.
const MAX_SESSION: usize = 20;
const EXTENSION: &str = ".chunk";
const DIGITS: usize = 20;

/// Returns the folder name of a device: percent-encoded, and shortened with a checksum if too long. The complete `device-id` is
/// in every entry.
pub fn device_dir(device: &str) -> String {
    // These names have a meaning to the system or to the spool. Encoding the first letter makes them ordinary names.
    let whole = matches!(device, "." | ".." | "" | QUARANTINE);
    let mut out = String::new();
    for (i, byte) in device.bytes().enumerate() {
        if is_plain(byte) && !(whole && i == 0) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    if out.is_empty() {
        // A lone `%` cannot collide: a percent-encoded byte has two more digits.
        return "%".to_owned();
    }
    if out.len() <= MAX_DEVICE {
        return out;
    }
    let crc = format!("~{:08x}", crc32c::crc32c(device.as_bytes()));
    let keep = MAX_DEVICE - crc.len();
    // `out` is ASCII. Cuts in front of an encoded byte (`%XX`), not inside it.
    let cut = out
        .get(..keep)
        .and_then(|s| s.rfind('%'))
        .filter(|at| at + 3 > keep)
        .unwrap_or(keep);
    out.truncate(cut);
    out + &crc
}

/// Returns whether a name can be the folder of a device.
pub fn is_device_dir(name: &str) -> bool {
    let ours = |b: u8| is_plain(b) || matches!(b, b'%' | b'~');
    !matches!(name, "" | "." | ".." | QUARANTINE) && name.len() <= MAX_DEVICE && name.bytes().all(ours)
}

/// Returns whether a name can be the folder of a session: 1 to 20 ASCII letters and digits.
pub fn is_session(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_SESSION && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Returns the file name of a chunk.
pub fn chunk_file(sequence: u64) -> String {
    format!("{sequence:020}{EXTENSION}")
}

/// Returns the sequence number of a chunk's file; `None` if the name is not a chunk's.
pub fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    if digits.len() != DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Returns the file name of a chunk in the quarantine. `again` > 0 distinguishes files of the same chunk.
pub fn quarantined(device_dir: &str, session: &str, sequence: u64, again: usize) -> String {
    let name = format!("{device_dir}~{session}~{}", chunk_file(sequence));
    if again == 0 { name } else { format!("{name}~{again}") }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_device_gets_one_folder_whatever_its_id() {
        assert_eq!(device_dir("cam-1.front_left"), "cam-1.front_left");
        assert_eq!(device_dir("store42/cam3"), "store42%2Fcam3");
        assert_eq!(device_dir("."), "%2E");
        assert_eq!(device_dir(".."), "%2E.");
        assert_eq!(device_dir("quarantine"), "%71uarantine");
        assert_eq!(device_dir("a%2Fb"), "a%252Fb");
        assert_eq!(device_dir("Tür"), "T%C3%BCr");
    }

    #[test]
    fn long_ids_that_differ_only_at_the_end_get_folders_of_their_own() {
        let a = device_dir(&"ü".repeat(300));
        let b = device_dir(&("ü".repeat(299) + "x"));
        assert_ne!(a, b);
        assert!(a.len() <= 200 && is_device_dir(&a), "{a}");
        assert!(quarantined(&a, &"z".repeat(20), u64::MAX, 99).len() <= 255);
    }

    #[test]
    fn only_our_own_files_are_taken_for_chunks() {
        assert_eq!(sequence_of(&chunk_file(12)), Some(12));
        assert_eq!(sequence_of(&chunk_file(u64::MAX)), Some(u64::MAX));
        for foreign in [
            "12.chunk",
            "00000000000000000012.chunk~",
            "+0000000000000000012.chunk",
            "99999999999999999999.chunk",
            "lock",
            "",
        ] {
            assert_eq!(sequence_of(foreign), None, "{foreign}");
        }
        assert!(!is_session("../x") && !is_session("") && !is_session(".Trash") && is_session("0a1b2c3d4e"));
        assert!(!is_device_dir("lost+found") && !is_device_dir("quarantine") && !is_device_dir(".."));
    }

    proptest! {
        #[test]
        fn folders_of_short_ids_can_be_told_apart(a in ".{1,40}", b in ".{1,40}") {
            prop_assert!(is_device_dir(&device_dir(&a)));
            if a != b && device_dir(&a).len() < 190 {
                prop_assert_ne!(device_dir(&a), device_dir(&b));
            }
        }
    }
}
