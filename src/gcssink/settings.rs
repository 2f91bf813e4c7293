//! The properties of `gcssink`: one table of names, types, defaults, specifications and meanings.

use gst::glib;
use gst::prelude::*;

use crate::element::properties::{Setting, Time, enumerations, settings};
use crate::flow::group::{DEFAULT_BYTES, DEFAULT_REQUESTS, UserLimit};
use crate::upload::chunk::Keep;
use crate::upload::health::Status;
use crate::upload::queue::Overflow;

/// Default of `location`.
pub(super) const DEFAULT_LOCATION: &str = "{device}/%Y/%m/%d/%Y%m%dT%H%M%S.%3fZ_{session}_{seq}.{ext}";
const SECOND: u64 = 1_000_000_000;

/// Property `overflow-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstGcsSinkOverflowPolicy")]
pub(super) enum OverflowPolicy {
    /// Live pipelines drop, others wait.
    #[default]
    #[enum_value(name = "Drop-oldest for live pipelines, block otherwise", nick = "auto")]
    Auto,
    /// Wait for room.
    #[enum_value(name = "Hold the pipeline up until there is room", nick = "block")]
    Block,
    /// Drop the oldest chunk.
    #[enum_value(name = "Drop the oldest chunk that is not being sent", nick = "drop-oldest")]
    DropOldest,
    /// End with an ERROR.
    #[enum_value(name = "End with an error", nick = "error")]
    Error,
}

/// Property `spool-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstGcsSinkSpoolMode")]
pub(super) enum SpoolMode {
    /// Write every buffer to disk as it arrives.
    #[default]
    #[enum_value(name = "Every buffer as it arrives", nick = "always")]
    Always,
    /// Write whole chunks to disk, only when the memory is full.
    #[enum_value(name = "Whole chunks, and only when the memory is full (SD cards)", nick = "overflow")]
    Overflow,
}

impl From<OverflowPolicy> for Option<Overflow> {
    fn from(policy: OverflowPolicy) -> Self {
        match policy {
            OverflowPolicy::Auto => None,
            OverflowPolicy::Block => Some(Overflow::Block),
            OverflowPolicy::DropOldest => Some(Overflow::DropOldest),
            OverflowPolicy::Error => Some(Overflow::Error),
        }
    }
}

impl From<SpoolMode> for Keep {
    fn from(mode: SpoolMode) -> Self {
        match mode {
            SpoolMode::Always => Self::Always,
            SpoolMode::Overflow => Self::Overflow,
        }
    }
}

/// Property `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstGcsSinkStatus")]
pub(super) enum StatusValue {
    #[default]
    #[enum_value(name = "Nothing was stored and nothing has failed yet", nick = "starting")]
    Starting,
    #[enum_value(name = "The newest closed chunk was stored", nick = "online")]
    Online,
    #[enum_value(name = "The last attempt failed, or chunks are late", nick = "degraded")]
    Degraded,
    #[enum_value(name = "Nothing gets through", nick = "offline")]
    Offline,
    #[enum_value(name = "Ending, the last chunks are being sent", nick = "draining")]
    Draining,
    #[enum_value(name = "Not running", nick = "stopped")]
    Stopped,
}

impl From<Status> for StatusValue {
    fn from(status: Status) -> Self {
        match status {
            Status::Starting => Self::Starting,
            Status::Online => Self::Online,
            Status::Degraded => Self::Degraded,
            Status::Offline => Self::Offline,
            Status::Draining => Self::Draining,
            Status::Stopped => Self::Stopped,
        }
    }
}

enumerations!(OverflowPolicy, SpoolMode, StatusValue);

/// Limits of a flow group. The order in which users set them decides which applies.
macro_rules! user_limits {
    ($($type:ty: $spec:ident, $builder:ident;)*) => {$(
        impl Setting for Option<UserLimit<$type>> {
            type Builder<'a> = glib::$builder<'a>;

            fn builder<'a>(name: &'a str, _none: &'a Self) -> Self::Builder<'a> {
                glib::$spec::builder(name)
            }

            fn assign(&mut self, value: &glib::Value) {
                *self = value.get().ok().map(UserLimit::now);
            }

            fn read(&self) -> Option<glib::Value> {
                self.map(|limit| limit.value.to_value())
            }
        }
    )*};
}

user_limits! {
    u64: ParamSpecUInt64, ParamSpecUInt64Builder;
    f64: ParamSpecDouble, ParamSpecDoubleBuilder;
}

settings! {
    /// A copy of all settings. Times in ns.
    #[derive(Clone, Debug)]
    pub(super) struct Settings {
        // Names.
        "bucket": Option<String> as bucket = None,
            "Bucket", "Name of the Cloud Storage bucket (required)", .mutable_ready();
        "device-id": Option<String> as device_id = None,
            "Device id", "First part of the object names, may hold / as in store42/cam3 (NULL = host name)", .mutable_ready();
        "location": String as location = DEFAULT_LOCATION.to_owned(),
            "Location", "Object name: strftime of the chunk's capture start in UTC, and {device} {session} {seq} {ext}; \
                         no placeholder at all = one single object", .mutable_ready();
        "uri": Option<String>,
            "URI", "gs://BUCKET[/LOCATION], sets bucket and location", .mutable_ready();
        "content-type": Option<String> as content_type = None,
            "Content-Type", "Content-Type of the objects (NULL = by container)", .mutable_ready();
        "cache-control": Option<String> as cache_control = None,
            "Cache-Control", "Cache-Control of the objects (NULL = default of the bucket)", .mutable_ready();
        "storage-class": Option<String> as storage_class = None,
            "Storage class", "Storage class of the objects, e.g. NEARLINE (NULL = default of the bucket)", .mutable_ready();
        "kms-key": Option<String> as kms_key = None,
            "KMS key", "Cloud KMS key, projects/P/locations/L/keyRings/R/cryptoKeys/K (NULL = default of the bucket)",
            .mutable_ready();
        "metadata": Option<gst::Structure> as metadata = None,
            "Metadata", "Custom metadata of every object, e.g. metadata,site=north (at most 8 KiB with the element's own)",
            .mutable_ready();
        "start-reason": Option<String> as start_reason = None,
            "Start reason",
            "The gap-reason of the first chunk of a session, lower-case letters, digits and hyphens (NULL = start)",
            .mutable_ready();
        "previous-session": Option<String> as previous_session = None,
            "Previous session", "session-id that this session follows, in the metadata of its first chunk (NULL = none)",
            .mutable_ready();

        // Cutting.
        "max-size-time": Time as max_size_time = Time::of(10 * SECOND),
            "Max size time", "Begin a new chunk at the first key unit at or after this long, ns (0 = never)",
            .mutable_playing();
        "max-size-bytes": u64 as max_size_bytes = 0,
            "Max size bytes", "Begin a new chunk at the first key unit at or after this size, bytes (0 = never)",
            .mutable_playing();
        "align-to-clock": bool as align_to_clock = false,
            "Align to clock", "Cut at whole multiples of max-size-time in UTC (10 s: at :00, :10, ...)", .mutable_playing();
        "send-keyframe-requests": bool as send_keyframe_requests = false,
            "Send keyframe requests", "Ask upstream for a key unit when a cut is due", .mutable_playing();

        // Uploads. The two limits are those of the flow group until a user sets them.
        "credentials-file": Option<String> as credentials_file = None,
            "Credentials file",
            "JSON of a service account, external account or user (NULL = Application Default Credentials)", .mutable_ready();
        "endpoint-uri": Option<String> as endpoint_uri = None,
            "Endpoint URI",
            "An emulator or private endpoint (NULL = STORAGE_EMULATOR_HOST, else Google); http:// never gets credentials",
            .mutable_ready();
        "max-bytes-per-second": Option<UserLimit<u64>> as max_bytes_per_second = None,
            "Max bytes per second", "Upload rate limit of the flow group, bytes/s (0 = none)",
            .default_value(DEFAULT_BYTES).mutable_playing();
        "max-requests-per-second": Option<UserLimit<f64>> as max_requests_per_second = None,
            "Max requests per second", "Request rate limit of the flow group, 1/s (0 = none)",
            .minimum(0.0).default_value(DEFAULT_REQUESTS).mutable_playing();
        "flow-group": String as flow_group = "default".to_owned(),
            "Flow group", "All sinks of the process with the same name share the two limits (empty = this sink alone)",
            .mutable_ready();
        "max-uploads": u32 as max_uploads = 4,
            "Max uploads", "Upper bound of the adaptive number of uploads in flight",
            .minimum(1).maximum(64).mutable_playing();
        "max-memory-bytes": u64 as max_memory_bytes = 64 << 20,
            "Max memory bytes", "Payload held in memory by this sink, never more, bytes",
            .minimum(1 << 20).mutable_playing();
        "overflow-policy": OverflowPolicy as overflow_policy = OverflowPolicy::Auto,
            "Overflow policy", "What to do when memory and spool are full", .mutable_playing();
        "retry-timeout": Time as retry_timeout = Time::of(0),
            "Retry timeout", "Give a chunk up after this long, ns (0 = never)", .mutable_playing();
        "request-timeout": Time as request_timeout = Time::of(60 * SECOND).at_least(SECOND / 10),
            "Request timeout", "One attempt without progress for this long is broken off, ns, at least 100 ms", .mutable_ready();
        "startup-timeout": Time as startup_timeout = Time::of(30 * SECOND),
            "Startup timeout", "PLAYING for this long without one key unit gives a WARNING, ns (0 = never)",
            .mutable_playing();
        "drain-timeout": Time as drain_timeout = Time::of(30 * SECOND),
            "Drain timeout", "EOS waits this long for all chunks to be stored, ns", .mutable_playing();
        "shutdown-timeout": Time as shutdown_timeout = Time::of(5 * SECOND),
            "Shutdown timeout", "Going to READY without EOS waits this long for the chunks to be stored, ns",
            .mutable_playing();

        // The spool.
        "spool-dir": Option<String> as spool_dir = None,
            "Spool directory",
            "Chunks wait in this folder until they are stored; survives crash, power cut and restart (NULL = no disk)",
            .mutable_ready();
        "spool-mode": SpoolMode as spool_mode = SpoolMode::Always,
            "Spool mode", "What is written to the spool, and when", .mutable_ready();
        "spool-sync-interval": Time as spool_sync_interval = Time::of(SECOND).at_least(SECOND / 50),
            "Spool sync interval", "In mode always, what came in is safe from a power cut after this long, ns, at least 20 ms",
            .mutable_ready();
        "max-spool-bytes": u64 as max_spool_bytes = 0,
            "Max spool bytes",
            "Disk used under spool-dir, never more, bytes (0 = the file system but 10 %, at least 1 GiB)", .mutable_playing();

        // What the element reports.
        "stats": Option<gst::Structure>,
            "Statistics", "Counters since the session began (times in ns, rate in bytes/s)", .read_only();
        "status": StatusValue,
            "Status", "State of the uploads; notified", .default_value(StatusValue::Stopped).read_only();
        "session-id": Option<String>,
            "Session id", "Ten characters that sort by time, one for each NULL to NULL", .read_only();
    }
}

impl Settings {
    /// Sets `bucket` and `location` from `gs://BUCKET[/LOCATION]`.
    ///
    /// # Errors
    /// [`gst::URIError::BadUri`] with the expected form.
    pub(super) fn set_uri(&mut self, uri: &str) -> Result<(), glib::Error> {
        let bad = || {
            glib::Error::new(
                gst::URIError::BadUri,
                &format!("\"{uri}\" is not of the form gs://BUCKET[/LOCATION]"),
            )
        };
        let rest = uri.strip_prefix("gs://").ok_or_else(bad)?;
        let (bucket, location) = rest.split_once('/').map_or((rest, ""), |(b, l)| (b, l));
        if bucket.is_empty() {
            return Err(bad());
        }
        self.bucket = Some(bucket.to_owned());
        if !location.is_empty() {
            location.clone_into(&mut self.location);
        }
        Ok(())
    }

    /// Returns `gs://BUCKET[/LOCATION]`.
    pub(super) fn uri(&self) -> Option<String> {
        let bucket = self.bucket.as_ref()?;
        Some(if self.location == DEFAULT_LOCATION {
            format!("gs://{bucket}")
        } else {
            format!("gs://{bucket}/{}", self.location)
        })
    }

    /// Sets the property `name`; ignores names that are no setting.
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        let text = || value.get::<Option<String>>().ok().flatten();
        match name {
            // Not `assign`, which treats an empty text as NULL: here it is a mistake, and the start reports it.
            "device-id" => self.device_id = text(),
            "location" => self.location = text().unwrap_or_else(|| DEFAULT_LOCATION.to_owned()),
            _ => self.assign(name, value),
        }
    }

    /// Returns a property that is a setting; `None` if its default applies.
    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        self.read(name)
    }
}
