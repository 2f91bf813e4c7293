//! Builds the object of a chunk: name, metadata and properties, and the spool entry from which the same object can be built
//! later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::base::wall;
use crate::spool::{DestinationId, Entry};
use crate::upload::chunk;
use crate::upload::chunk::{Keep, Summary};
use gcstreamer_media::chunk::ChunkInfo;
use gcstreamer_schema::metadata::{GAP_REASON, PREVIOUS_SESSION};
use gcstreamer_schema::name::{NameFields, Template};
use gcstreamer_schema::{ClockKind, GapReason};
use gcstreamer_storage::{Body, Endpoint, ObjectRequest};

/// Memory charged for a chunk beside header, payload and texts.
pub const PER_CHUNK: u64 = 4 << 10;
/// Upper bound for our own metadata and the object's name.
const OWN_TEXTS: u64 = 1 << 10;

/// Properties that every object gets from the settings; `None` = by container, or the bucket's default.
#[derive(Clone, Debug, Default)]
pub struct ObjectSettings {
    /// Property `content-type`.
    pub content_type: Option<String>,
    /// Property `cache-control`.
    pub cache_control: Option<String>,
    /// Property `storage-class`.
    pub storage_class: Option<String>,
    /// Property `kms-key`.
    pub kms_key: Option<String>,
    /// Property `metadata`.
    pub metadata: BTreeMap<String, String>,
    /// Property `start-reason`: the `gap-reason` of sequence 0 instead of `start`.
    pub start_reason: Option<String>,
    /// Property `previous-session`, stored with sequence 0.
    pub previous_session: Option<String>,
}

impl ObjectSettings {
    /// Adds to the metadata of a session's first chunk why the recording began and which session it follows.
    fn add_start_reason(&self, info: &ChunkInfo, metadata: &mut BTreeMap<String, String>) {
        if let (Some(GapReason::Start), Some(reason)) = (info.gap, &self.start_reason) {
            metadata.insert(GAP_REASON.to_owned(), reason.clone());
        }
        if let Some(previous) = &self.previous_session {
            metadata.insert(PREVIOUS_SESSION.to_owned(), previous.clone());
        }
    }
}

/// Builds the objects of one session's chunks.
#[derive(Clone, Debug)]
pub struct ObjectBuilder {
    /// Property `bucket`.
    pub bucket: String,
    /// Property `device-id`.
    pub device: String,
    /// Property `location`.
    pub location: String,
    /// `location`, parsed.
    pub template: Template,
    /// The server that stores the objects.
    pub endpoint: Endpoint,
    /// Property `session-id`.
    pub session: Arc<str>,
    /// Which boot of the machine this is; empty if the kernel does not report it.
    pub boot_id: Arc<str>,
    /// Properties that every object has.
    pub settings: ObjectSettings,
}

impl ObjectBuilder {
    /// Returns the name of a chunk's object.
    pub fn name(&self, info: &ChunkInfo) -> String {
        let naming = NameFields {
            device: &self.device,
            session: &self.session,
            seq: info.sequence,
            ext: info.container.extension(),
            start: info.start,
        };
        // The template was tried at the start; only a year beyond 9999 can still fail.
        self.template
            .format(&naming)
            .unwrap_or_else(|_| format!("{}/{}_{:06}", self.device, self.session, info.sequence))
    }

    /// Returns the request for a chunk's object, without its bytes. `clock_off`: this machine's clock is known to be wrong.
    pub fn request(&self, info: &ChunkInfo, clock_off: bool) -> ObjectRequest {
        let container = info.container;
        let custom_time = (info.clock != ClockKind::Suspect && !clock_off)
            .then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(info.start)))
            .flatten();
        let settings = &self.settings;
        let mut metadata: BTreeMap<String, String> = info.metadata(&self.device, &self.session, &settings.metadata);
        // A start by the camera's clock does not depend on this machine's clock.
        if clock_off && info.clock == ClockKind::System {
            metadata.insert("clock".to_owned(), ClockKind::Suspect.name().to_owned());
        }
        if info.sequence == 0 {
            self.settings.add_start_reason(info, &mut metadata);
        }
        ObjectRequest {
            bucket: self.bucket.clone(),
            name: self.name(info),
            content_type: settings
                .content_type
                .clone()
                .unwrap_or_else(|| container.content_type(info.audio_only).to_owned()),
            cache_control: settings.cache_control.clone(),
            storage_class: settings.storage_class.clone(),
            kms_key: settings.kms_key.clone(),
            metadata,
            custom_time,
            crc32c: 0,
            size: 0,
            body: Body::from_pieces([]),
        }
    }

    /// Returns the memory charged for a chunk beside its header and payload: [`PER_CHUNK`] and its texts. The texts count twice
    /// if the spool needs a copy. In mode `always` a chunk that is shorter than the disk's delay is queued for the disk with both
    /// its first and its final entry.
    pub fn overhead(&self, keep: Keep) -> u64 {
        let settings = &self.settings;
        let options = [
            &settings.content_type,
            &settings.cache_control,
            &settings.storage_class,
            &settings.kms_key,
        ];
        let metadata = settings.metadata.iter().map(|(key, value)| key.len() + value.len());
        let texts = options.into_iter().flatten().map(String::len).chain(metadata).sum::<usize>();
        let names = self.bucket.len() + self.device.len() + self.location.len();
        let (chunks, copies) = match keep {
            Keep::Memory => (1, 1),
            Keep::Overflow => (1, 2),
            Keep::Always => (2, 3),
        };
        PER_CHUNK * chunks + ((texts + names) as u64 + OWN_TEXTS) * copies
    }

    /// Returns which other names the chunk may get if its own is taken.
    pub fn naming(&self, sequence: u64) -> chunk::NameFallback {
        chunk::NameFallback {
            session: self.session.to_string(),
            sequence,
            own: self.template.names_its_chunk(),
            rebuilt: false,
        }
    }

    /// Returns the figures for messages about the chunk.
    pub fn summary(&self, info: &ChunkInfo) -> Summary {
        Summary {
            session: Arc::clone(&self.session),
            sequence: info.sequence,
            start: info.start,
            duration: info.duration,
            running: info.running,
            size: info.size,
        }
    }

    /// Returns where the chunks go.
    pub fn destination(&self) -> DestinationId {
        let endpoint = &self.endpoint;
        DestinationId::of_bucket(endpoint.custom(), !endpoint.takes_credentials(), &self.bucket)
    }

    /// Returns the spool entry of a chunk. `began` is when the chunk began: ns since the boot, and by the wall clock.
    pub fn entry(&self, info: &ChunkInfo, request: &ObjectRequest, input_offset: u64, began: (u64, u64)) -> Entry {
        let (boot_ns, began_wall) = began;
        Entry {
            session: self.session.to_string(),
            sequence: info.sequence,
            device: self.device.clone(),
            bucket: request.bucket.clone(),
            endpoint: self.endpoint.custom().map(str::to_owned),
            anonymous: !self.endpoint.takes_credentials(),
            name: request.name.clone(),
            own_name: self.template.names_its_chunk(),
            location: self.location.clone(),
            content_type: Some(request.content_type.clone()),
            cache_control: request.cache_control.clone(),
            storage_class: request.storage_class.clone(),
            kms_key: request.kms_key.clone(),
            metadata: request.metadata.clone(),
            custom_time: request.custom_time.map(wall::since_epoch),
            container: info.container.name().to_owned(),
            init_bytes: info.init_bytes,
            input_offset,
            start: info.start,
            duration: info.duration,
            running: info.running,
            pts_start: info.pts_start,
            // As in the request: the clock may have been found wrong since.
            clock: request.metadata.get("clock").cloned().unwrap_or_default(),
            boot_id: self.boot_id.to_string(),
            // The boot time of `start`, which may be before the moment at which the chunk began here: dating compares the two.
            boot_ns: boot_ns.saturating_add(info.start).saturating_sub(began_wall),
            audio_only: info.audio_only,
            rebuilt: false,
            attempted: false,
            sent: false,
        }
    }
}
