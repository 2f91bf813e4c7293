//! The manifest of an exported file. It shows whether the file, the list of its chunks and their times are those that were
//! exported. It proves damage, not forgery: anyone who can write the file can write a manifest for it.
//!
//! PURE. [`damage`] compares the file.

use std::io::{Read, Seek};

use gcstreamer_schema::crc32c;
use gcstreamer_schema::name::Template;
use gcstreamer_schema::time::rfc3339_ms;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::index::timeline::Gap;

mod damage;

/// How far a time may differ from the one in a name, ns: names have milliseconds.
const ROUNDING: u64 = 1_000_000;

/// Describes an exported file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Device id.
    pub camera: String,
    /// Beginning of the range, ns since the Unix epoch.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub from: u64,
    /// End of the range, ns since the Unix epoch.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub to: u64,
    /// `mp4` or `native`.
    pub format: String,
    /// The chunks that the file is made of, in their order.
    pub objects: Vec<Object>,
    /// The gaps inside the range.
    pub gaps: Vec<Gap>,
    /// The least certain clock of the chunks, as in the metadata `clock`.
    pub clock: String,
    /// Bytes of the file.
    pub size: u64,
    /// The bytes in front of the first chunk.
    pub header: Part,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// SHA-256 of this manifest without this key, hexadecimal.
    #[serde(default)]
    pub seal: String,
}

/// A chunk, and the part of it that is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Object name.
    pub name: String,
    /// Generation of the object.
    pub generation: i64,
    /// Bytes of the object.
    pub size: u64,
    /// CRC32C of the object, base64 as Cloud Storage writes it.
    pub crc32c: String,
    /// SHA-256 of the object, hexadecimal.
    pub sha256: String,
    /// Beginning of the chunk, ns since the Unix epoch.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub from: u64,
    /// End of the chunk, ns since the Unix epoch.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub to: u64,
    /// The part of it that is in the file.
    pub part: Part,
}

/// A run of bytes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of bytes.
    pub size: u64,
    /// Their SHA-256, hexadecimal.
    pub sha256: String,
}

/// Returns a digest in hexadecimal.
pub(super) fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns CRC32C (base64) and SHA-256 (hexadecimal) of an object.
pub(super) fn sums(bytes: &[u8]) -> (String, String) {
    (crc32c::to_base64(::crc32c::crc32c(bytes)), hex(Sha256::digest(bytes)))
}

impl Manifest {
    /// Fills in the seal.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.seal = self.seal_of();
        self
    }

    fn seal_of(&self) -> String {
        let bare = Self {
            seal: String::new(),
            ..self.clone()
        };
        hex(Sha256::digest(serde_json::to_vec(&bare).unwrap_or_default()))
    }

    /// Returns the manifest as JSON for people and programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Returns the contradictions within the manifest, one line each. Each shows that it was changed after the export.
    fn contradictions(&self, template: &Template) -> Vec<String> {
        let mut faults = Vec::new();
        let tolerance = ROUNDING.saturating_add(template.resolution());
        for object in &self.objects {
            let named = template.read(&object.name).and_then(|parts| parts.start);
            if let Some(named) = named.filter(|named| named.abs_diff(object.from) > tolerance) {
                faults.push(format!(
                    "clock: {} begins at {} by its name and at {} by the manifest",
                    object.name,
                    rfc3339_ms(named),
                    rfc3339_ms(object.from)
                ));
            }
            if object.to <= object.from || object.from >= self.to || object.to <= self.from {
                faults.push(format!("clock: {} lies outside the range of the manifest", object.name));
            }
        }
        for pair in self.objects.windows(2) {
            let [a, b] = pair else { continue };
            let parts = |object: &Object| template.read(&object.name).map(|parts| (parts.session, parts.sequence));
            let follows = match (parts(a), parts(b)) {
                (Some((sa, Some(qa))), Some((sb, Some(qb)))) if sa == sb => qa.checked_add(1) == Some(qb),
                // Of two sessions, or of names without numbers, it is unknown whether anything is missing in between.
                _ => true,
            };
            let is_reported = self.gaps.iter().any(|gap| gap.from < b.from && gap.to > a.from);
            if !follows && !is_reported {
                faults.push(format!(
                    "chunk: between {} and {} the manifest lists none, and no gap",
                    a.name, b.name
                ));
            }
        }
        // Saturating: the sizes are from a file that anyone may have changed.
        let sum = self
            .objects
            .iter()
            .map(|object| object.part.size)
            .fold(self.header.size, u64::saturating_add);
        if sum != self.size {
            faults.push(format!(
                "chunk: the parts have {sum} bytes together, the file is said to have {}",
                self.size
            ));
        }
        if self.seal_of() != self.seal {
            faults.push("manifest: it was changed after the export, its seal does not fit".into());
        }
        faults
    }

    /// Compares a file with the manifest. Returns what is wrong, one line each; empty if the file is whole.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn verify(&self, file: impl Read + Seek, template: &Template) -> std::io::Result<Vec<String>> {
        let mut faults = self.contradictions(template);
        let found = damage::of(self, file)?;
        let is_as_listed = faults.is_empty() && found.faults.is_empty();
        faults.extend(found.faults);
        // Reported only alone: with a fault above, the sum differs anyway, or the manifest itself was changed.
        if is_as_listed && found.sha256.as_deref() != Some(self.sha256.as_str()) {
            faults.push("bytes: the parts are right, and the SHA-256 of the file is not that of the manifest".into());
        }
        Ok(faults)
    }
}
