//! One session's streaming side: chunker, gathering, and what becomes of a closed chunk. Shared by the streaming thread and
//! the timers; its lock is never held across a wait, I/O, or a call into GStreamer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::messages::Post;
use super::outbox::Outbox;
use super::plan::Plan;
use crate::chunk::clock::{ClockKind, Stamp};
use crate::chunk::gather::{Gather, Gathered};
use crate::chunk::name::Naming;
use crate::chunk::{ChunkInfo, Chunker, Event};
use crate::container::Fault;
use crate::gcs::{Body, ObjectRequest};
use crate::upload::attempt;
use crate::upload::uploads::{Chunk, Uploads};

/// What is said of every object, from the settings.
#[derive(Clone, Debug)]
pub(super) struct ObjectSettings {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub storage_class: Option<String>,
    pub kms_key: Option<String>,
}

/// See the module.
pub(super) struct Recorder {
    pub chunker: Chunker,
    gather: Gather,
    plan: Plan,
    session: String,
    objects: ObjectSettings,
    uploads: Arc<Uploads>,
    outbox: Arc<Outbox>,
    events: Vec<Event>,
    next_sequence: u64,
    /// When the last buffer came, on the uploads' scale.
    last_buffer: u64,
    pub wants_key_unit: bool,
    /// The one object has grown too large.
    pub too_large: Option<u64>,
    pub eos: bool,
}

impl Recorder {
    pub(super) fn new(
        chunker: Chunker,
        plan: Plan,
        session: String,
        objects: ObjectSettings,
        uploads: Arc<Uploads>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let last_buffer = uploads.now();
        Self {
            chunker,
            gather: Gather::default(),
            plan,
            session,
            objects,
            uploads,
            outbox,
            events: Vec::new(),
            next_sequence: 0,
            last_buffer,
            wants_key_unit: false,
            too_large: None,
            eos: false,
        }
    }

    /// Takes a buffer whose bytes the memory was charged with.
    ///
    /// # Errors
    /// [`Fault`] where the stream cannot be cut.
    pub(super) fn push(&mut self, data: &[u8], owned: impl FnOnce() -> Option<Bytes>, stamp: Stamp) -> Result<(), Fault> {
        self.last_buffer = self.uploads.now();
        if std::mem::take(&mut self.eos) {
            self.uploads.resume();
        }
        let mut events = std::mem::take(&mut self.events);
        let outcome = self.chunker.push(data, owned, stamp, &mut events);
        self.work_off(&mut events);
        self.events = events;
        outcome
    }

    /// The stream has ended, or recording does: the open chunk is closed and queued.
    ///
    /// # Errors
    /// [`Fault`] where the stream turns out to be one that cannot be cut.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        let mut events = Vec::new();
        let outcome = if self.eos { Ok(()) } else { self.chunker.finish(&mut events) };
        self.eos = true;
        self.work_off(&mut events);
        outcome
    }

    /// The memory is full and nothing is on its way: closes the open chunk, so that it can be sent.
    pub(super) fn make_room(&mut self) {
        let mut events = Vec::new();
        self.chunker.make_room(&mut events);
        self.work_off(&mut events);
    }

    /// Closes the open chunk when nothing has come for `idle` ns.
    pub(super) fn close_if_idle(&mut self, idle: u64) {
        if !self.eos && self.uploads.now().saturating_sub(self.last_buffer) >= idle {
            let mut events = Vec::new();
            self.chunker.close_idle(&mut events);
            self.work_off(&mut events);
        }
    }

    fn work_off(&mut self, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            match event {
                Event::Begin { sequence, init } => {
                    self.next_sequence = sequence + 1;
                    self.uploads.created();
                    self.gather.begin(sequence, init);
                }
                Event::Data { sequence, bytes } => self.gather.data(sequence, bytes),
                Event::End(info) => {
                    if let Some(gathered) = self.gather.end(info.sequence) {
                        self.queue(*info, gathered);
                    }
                }
                Event::Gap {
                    reason,
                    start,
                    duration,
                    bytes,
                } => {
                    let first_sequence = self.next_sequence;
                    self.uploads.dropped(bytes);
                    self.outbox.post(Post::Gap {
                        reason,
                        start,
                        duration,
                        bytes,
                        first_sequence,
                    });
                }
                Event::Discard(bytes) => self.uploads.release(bytes),
                Event::Warn(warning) => self.outbox.post(Post::Warning(warning)),
                Event::WantKeyUnit => self.wants_key_unit = true,
                Event::TooLarge(bytes) => self.too_large = Some(bytes),
            }
        }
    }

    fn queue(&mut self, info: ChunkInfo, gathered: Gathered) {
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
        let custom_time = (info.clock != ClockKind::Suspect && self.uploads.clock_off().is_none())
            .then(|| SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_nanos(info.start)))
            .flatten();
        let objects = &self.objects;
        let mut metadata: BTreeMap<String, String> = info.metadata(&plan.device, &self.session, &plan.metadata);
        if self.uploads.clock_off().is_some() && info.clock == ClockKind::System {
            metadata.insert("clock".to_owned(), ClockKind::Suspect.name().to_owned());
        }
        let request = ObjectRequest {
            bucket: plan.bucket.clone(),
            name,
            content_type: objects
                .content_type
                .clone()
                .unwrap_or_else(|| container.content_type(info.audio_only).to_owned()),
            cache_control: objects.cache_control.clone(),
            storage_class: objects.storage_class.clone(),
            kms_key: objects.kms_key.clone(),
            metadata,
            custom_time,
            crc32c: gathered.crc32c,
            size: gathered.size,
            body: Body::from_pieces(gathered.pieces),
        };
        let naming = attempt::Naming {
            session: self.session.clone(),
            sequence: info.sequence,
            own: plan.template.names_its_chunk(),
        };
        let closed_at = self.uploads.now();
        self.uploads.queue(Chunk {
            info,
            request,
            naming,
            charged: gathered.payload,
            closed_at,
        });
    }
}
