//! The values of a chunk, stored with it: enough to upload it under its own bucket, endpoint, name and metadata, whatever the
//! settings are at that time.
//!
//! PURE. Stored as JSON in the Head and End records. Unknown fields are ignored, so that a field can be added without a new
//! version of the format. It never contains credentials.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::destination::{Destination, DestinationId};

/// Version of the JSON.
const VERSION: u32 = 1;

/// The values of a chunk. Times in ns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Property `session-id` of the session that recorded it.
    pub session: String,
    /// Sequence number in that session.
    pub sequence: u64,
    /// Property `device-id`.
    pub device: String,
    /// Property `bucket`.
    pub bucket: String,
    /// Base address of the service; `None` = Google's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Name of the object.
    pub name: String,
    /// Property `location` that `name` was made from.
    #[serde(default)]
    pub location: String,
    /// The endpoint gets no credentials.
    #[serde(default)]
    pub anonymous: bool,
    /// The name contains session and sequence number, so an existing object of this name is an earlier upload of this chunk.
    #[serde(default)]
    pub own_name: bool,
    /// Content-Type of the object.
    #[serde(default)]
    pub content_type: Option<String>,
    /// Cache-Control of the object.
    #[serde(default)]
    pub cache_control: Option<String>,
    /// Storage class of the object.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// Cloud KMS key of the object.
    #[serde(default)]
    pub kms_key: Option<String>,
    /// Custom metadata of the object.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// `customTime` of the object, ns since the Unix epoch.
    #[serde(default)]
    pub custom_time: Option<u64>,
    /// Name of the container, as in the metadata.
    #[serde(default)]
    pub container: String,
    /// Bytes of the header in front of the payload.
    #[serde(default)]
    pub init_bytes: u64,
    /// Offset of the payload in the session's input, bytes.
    #[serde(default)]
    pub input_offset: u64,
    /// Capture start, ns since the Unix epoch.
    #[serde(default)]
    pub start: u64,
    /// Duration in ns.
    #[serde(default)]
    pub duration: u64,
    /// Running time of the first buffer in ns.
    #[serde(default)]
    pub running: Option<u64>,
    /// Container time of the key unit in ns.
    #[serde(default)]
    pub pts_start: Option<u64>,
    /// Source of `start`: `system`, `ntp`, `corrected` or `suspect`.
    #[serde(default)]
    pub clock: String,
    /// Id of the boot that `boot_ns` counts from.
    #[serde(default)]
    pub boot_id: String,
    /// Time since that boot at `start`, suspension included, ns.
    #[serde(default)]
    pub boot_ns: u64,
    /// The stream has audio and no video.
    #[serde(default)]
    pub audio_only: bool,
    /// The chunk was open at a crash and was closed by a later process.
    #[serde(default)]
    pub rebuilt: bool,
    /// The chunk was rebuilt and a request for it had been sent before, so an object of its own name may be longer. Absent in an
    /// entry of an earlier build: it is then unknown whether a request was sent.
    #[serde(default)]
    pub attempted: bool,
    /// The chunk was rebuilt and had been sent whole under its name before.
    #[serde(default)]
    pub sent: bool,
}

/// Returns the mark that a Sent record stores for an object name: its CRC32C.
pub fn name_mark(name: &str) -> u32 {
    // Not the name itself: marks must have a fixed length, because they are read backwards from the end of the file.
    crc32c::crc32c(name.as_bytes())
}

/// The entry of a closed chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedEntry {
    /// The entry with its final values.
    #[serde(flatten)]
    pub entry: Entry,
    /// Size of the object in bytes. Bytes of the file beyond it are not part of the object.
    pub size: u64,
    /// CRC32C of the object.
    pub crc32c: u32,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    entry: &'a T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Entry {
    /// Returns the destination of the chunk.
    pub fn destination(&self) -> Destination {
        Destination {
            endpoint: self.endpoint.clone(),
            anonymous: self.anonymous,
        }
    }

    /// Returns the id of the chunk's destination, which includes the bucket.
    pub fn destination_id(&self) -> DestinationId {
        DestinationId::of_bucket(self.endpoint.as_deref(), self.anonymous, &self.bucket)
    }

    /// Returns whether `start` is from an implausible clock.
    pub fn suspect(&self) -> bool {
        self.clock == "suspect"
    }

    /// Returns the JSON of a Head record.
    ///
    /// # Errors
    /// Infallible in practice: every field serializes.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Versioned { v: VERSION, entry: self })
    }

    /// Parses the JSON of a Head record.
    ///
    /// # Errors
    /// The reason: a missing or wrong field, or another version.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        // The version first: an entry of another version may lack fields, and the error must name the version, not a field.
        check_version(json)?;
        serde_json::from_slice(json).map_err(|e| format!("its entry cannot be read: {e}"))
    }
}

impl ClosedEntry {
    /// Returns the JSON of an End record.
    ///
    /// # Errors
    /// Infallible in practice: every field serializes.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Versioned { v: VERSION, entry: self })
    }

    /// Parses the JSON of an End record.
    ///
    /// # Errors
    /// The reason: a missing or wrong field, or another version.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        check_version(json)?;
        serde_json::from_slice(json).map_err(|e| format!("its closing entry cannot be read: {e}"))
    }
}

fn check_version(json: &[u8]) -> Result<(), String> {
    let version: Version = serde_json::from_slice(json).map_err(|e| format!("its entry has no version: {e}"))?;
    if version.v != VERSION {
        return Err(format!("its entry has version {}, this build reads {VERSION}", version.v));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            session: "0a1b2c3d4e".into(),
            sequence: u64::MAX,
            device: "store42/cam3".into(),
            bucket: "b".into(),
            name: "store42/cam3/x_000012.ts".into(),
            metadata: BTreeMap::from([("site".into(), "north \"7\"\n".into())]),
            custom_time: Some(u64::MAX),
            input_offset: u64::MAX,
            ..Entry::default()
        }
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let entry = entry();
        assert_eq!(Entry::from_json(&entry.to_json().unwrap()).unwrap(), entry);
        let closed = ClosedEntry {
            entry,
            size: u64::MAX,
            crc32c: u32::MAX,
        };
        assert_eq!(ClosedEntry::from_json(&closed.to_json().unwrap()).unwrap(), closed);
    }

    #[test]
    fn fields_of_a_later_build_are_ignored_and_fields_of_an_earlier_one_may_be_missing() {
        let json = br#"{"v":1,"session":"s","sequence":3,"device":"d","bucket":"b","name":"n","colour":{"deep":[1]}}"#;
        let entry = Entry::from_json(json).unwrap();
        assert_eq!((entry.sequence, entry.init_bytes), (3, 0));
    }

    #[test]
    fn another_version_and_an_entry_without_a_name_are_refused() {
        assert!(Entry::from_json(br#"{"v":2}"#).unwrap_err().contains("version 2"));
        assert!(Entry::from_json(br#"{"v":1,"session":"s"}"#).is_err());
        assert!(Entry::from_json(b"\xff").is_err());
        assert!(ClosedEntry::from_json(&entry().to_json().unwrap()).is_err());
    }
}
