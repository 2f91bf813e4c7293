//! What a chunk becomes: the object's name and properties, and what the spool has to know to make the same of it later.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::plan::Plan;
use super::settings::Settings;
use crate::spool::{Entry, site};
use crate::upload::attempt;
use crate::upload::chunk::Summary;
use crate::wall;
use gcstreamer_media::chunk::ChunkInfo;
use gcstreamer_schema::ClockKind;
use gcstreamer_schema::name::Naming;
use gcstreamer_storage::{Body, ObjectRequest};

/// What is said of every object, from the settings.
#[derive(Clone, Debug)]
pub(super) struct ObjectSettings {
    content_type: Option<String>,
    cache_control: Option<String>,
    storage_class: Option<String>,
    kms_key: Option<String>,
}

impl From<&Settings> for ObjectSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            content_type: settings.content_type.clone(),
            cache_control: settings.cache_control.clone(),
            storage_class: settings.storage_class.clone(),
            kms_key: settings.kms_key.clone(),
        }
    }
}

/// Makes objects of the chunks of one session.
#[derive(Clone, Debug)]
pub(super) struct Maker {
    pub plan: Plan,
    pub session: std::sync::Arc<str>,
    /// Which boot of the machine this is; empty where the kernel does not tell.
    pub boot_id: std::sync::Arc<str>,
    pub settings: ObjectSettings,
}

impl Maker {
    /// The object of a chunk, without its bytes. `clock_off`: this machine's clock is known to be wrong.
    pub(super) fn request(&self, info: &ChunkInfo, clock_off: bool) -> ObjectRequest {
        let (plan, container) = (&self.plan, info.container);
        let naming = Naming {
            device: &plan.device,
            session: &self.session,
            seq: info.sequence,
            ext: container.extension(),
            start: info.start,
        };
        // The template was tried at the start; what could still fail is a year beyond 9999.
        let name = plan
            .template
            .format(&naming)
            .unwrap_or_else(|_| format!("{}/{}_{:06}", plan.device, self.session, info.sequence));
        let custom_time = (info.clock != ClockKind::Suspect && !clock_off)
            .then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(info.start)))
            .flatten();
        let settings = &self.settings;
        let mut metadata: BTreeMap<String, String> = info.metadata(&plan.device, &self.session, &plan.metadata);
        if clock_off && info.clock == ClockKind::System {
            metadata.insert("clock".to_owned(), ClockKind::Suspect.name().to_owned());
        }
        ObjectRequest {
            bucket: plan.bucket.clone(),
            name,
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

    /// What the chunk may be called.
    pub(super) fn naming(&self, sequence: u64) -> attempt::Naming {
        attempt::Naming {
            session: self.session.to_string(),
            sequence,
            own: self.plan.template.names_its_chunk(),
            rebuilt: false,
        }
    }

    /// What messages say of it.
    pub(super) fn summary(&self, info: &ChunkInfo) -> Summary {
        Summary {
            session: std::sync::Arc::clone(&self.session),
            sequence: info.sequence,
            start: info.start,
            duration: info.duration,
            running: info.running,
            size: info.size,
        }
    }

    /// The number of where its chunks go.
    pub(super) fn site(&self) -> u64 {
        let endpoint = &self.plan.endpoint;
        site(endpoint.custom(), !endpoint.takes_credentials(), &self.plan.bucket)
    }

    /// What the spool has to know. `began` is when the chunk began: by the clock that counts from the boot, and the wall clock.
    pub(super) fn entry(&self, info: &ChunkInfo, request: &ObjectRequest, input_offset: u64, began: (u64, u64)) -> Entry {
        let (boot_ns, began_wall) = began;
        Entry {
            session: self.session.to_string(),
            sequence: info.sequence,
            device: self.plan.device.clone(),
            bucket: request.bucket.clone(),
            endpoint: self.plan.endpoint.custom().map(str::to_owned),
            anonymous: !self.plan.endpoint.takes_credentials(),
            name: request.name.clone(),
            own_name: self.plan.template.names_its_chunk(),
            location: self.plan.location.clone(),
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
            // Another machine's clock may have been found wrong since.
            clock: request.metadata.get("clock").cloned().unwrap_or_default(),
            boot_id: self.boot_id.to_string(),
            boot_ns: boot_ns.saturating_add(info.start).saturating_sub(began_wall),
            audio_only: info.audio_only,
            rebuilt: false,
        }
    }
}
