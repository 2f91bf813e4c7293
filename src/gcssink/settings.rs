//! The properties of `gcssink`: one table of names, defaults and meanings.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use crate::flow::group::{DEFAULT_BYTES, DEFAULT_REQUESTS, UserLimit};
use crate::properties::{string, time};
use crate::upload::health::Status;

/// Default of `location`.
pub(super) const DEFAULT_LOCATION: &str = "{device}/%Y/%m/%d/%Y%m%dT%H%M%S.%3fZ_{session}_{seq}.{ext}";
const DEFAULT_FLOW_GROUP: &str = "default";
const SECOND: u64 = 1_000_000_000;

/// Property `overflow-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstGcsSinkOverflowPolicy")]
pub(super) enum OverflowPolicy {
    /// By the pipeline.
    #[default]
    #[enum_value(name = "Drop-oldest for live pipelines, block otherwise", nick = "auto")]
    Auto,
    /// Wait.
    #[enum_value(name = "Hold the pipeline up until there is room", nick = "block")]
    Block,
    /// Drop.
    #[enum_value(name = "Drop the oldest chunk that is not being sent", nick = "drop-oldest")]
    DropOldest,
    /// Error.
    #[enum_value(name = "End with an error", nick = "error")]
    Error,
}

/// Property `spool-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstGcsSinkSpoolMode")]
pub(super) enum SpoolMode {
    /// At once.
    #[default]
    #[enum_value(name = "Every buffer as it arrives", nick = "always")]
    Always,
    /// When it has to be.
    #[enum_value(name = "Whole chunks, and only when the memory is full (SD cards)", nick = "overflow")]
    Overflow,
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

/// A copy of all settings. Times in ns.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub bucket: Option<String>,
    pub device_id: Option<String>,
    pub location: String,
    pub max_size_time: u64,
    pub max_size_bytes: u64,
    pub align_to_clock: bool,
    pub send_keyframe_requests: bool,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub storage_class: Option<String>,
    pub kms_key: Option<String>,
    pub metadata: Option<gst::Structure>,
    pub credentials_file: Option<String>,
    pub endpoint_uri: Option<String>,
    /// As the user set it; `None`: the group's.
    pub max_bytes_per_second: Option<UserLimit<u64>>,
    /// As the user set it; `None`: the group's.
    pub max_requests_per_second: Option<UserLimit<f64>>,
    pub flow_group: String,
    pub max_uploads: u32,
    pub max_memory_bytes: u64,
    pub spool_dir: Option<String>,
    pub spool_mode: SpoolMode,
    pub spool_sync_interval: u64,
    /// 0: no limit of this sink's own.
    pub max_spool_bytes: u64,
    pub overflow_policy: OverflowPolicy,
    pub retry_timeout: u64,
    pub request_timeout: u64,
    pub startup_timeout: u64,
    pub drain_timeout: u64,
    pub shutdown_timeout: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bucket: None,
            device_id: None,
            location: DEFAULT_LOCATION.to_owned(),
            max_size_time: 10 * SECOND,
            max_size_bytes: 0,
            align_to_clock: false,
            send_keyframe_requests: false,
            content_type: None,
            cache_control: None,
            storage_class: None,
            kms_key: None,
            metadata: None,
            credentials_file: None,
            endpoint_uri: None,
            max_bytes_per_second: None,
            max_requests_per_second: None,
            flow_group: DEFAULT_FLOW_GROUP.to_owned(),
            max_uploads: 4,
            max_memory_bytes: 64 << 20,
            spool_dir: None,
            spool_mode: SpoolMode::Always,
            spool_sync_interval: SECOND,
            max_spool_bytes: 0,
            overflow_policy: OverflowPolicy::Auto,
            retry_timeout: 0,
            request_timeout: 60 * SECOND,
            startup_timeout: 30 * SECOND,
            drain_timeout: 30 * SECOND,
            shutdown_timeout: 5 * SECOND,
        }
    }
}

impl Settings {
    /// Takes the location part of `gs://BUCKET[/LOCATION]`.
    ///
    /// # Errors
    /// [`gst::URIError::BadUri`] with the form it should have.
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

    /// `gs://BUCKET[/LOCATION]`.
    pub(super) fn uri(&self) -> Option<String> {
        let bucket = self.bucket.as_ref()?;
        Some(if self.location == DEFAULT_LOCATION {
            format!("gs://{bucket}")
        } else {
            format!("gs://{bucket}/{}", self.location)
        })
    }

    /// Sets a property; `false` where there is none of that name.
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value, into: &mut T)
        where
            T::Checker: glib::value::ValueTypeChecker<Error = glib::value::ValueTypeMismatchError>,
        {
            if let Ok(v) = value.get::<T>() {
                *into = v;
            }
        }
        fn opt(value: &glib::Value, into: &mut Option<String>) {
            // An empty string is what a launch line can say for none.
            *into = value.get::<Option<String>>().ok().flatten().filter(|s| !s.is_empty());
        }
        match name {
            "bucket" => opt(value, &mut self.bucket),
            "device-id" => self.device_id = value.get().ok().flatten(),
            "location" => {
                self.location = value
                    .get::<Option<String>>()
                    .ok()
                    .flatten()
                    .unwrap_or_else(|| DEFAULT_LOCATION.to_owned())
            }
            "max-size-time" => get(value, &mut self.max_size_time),
            "max-size-bytes" => get(value, &mut self.max_size_bytes),
            "align-to-clock" => get(value, &mut self.align_to_clock),
            "send-keyframe-requests" => get(value, &mut self.send_keyframe_requests),
            "content-type" => opt(value, &mut self.content_type),
            "cache-control" => opt(value, &mut self.cache_control),
            "storage-class" => opt(value, &mut self.storage_class),
            "kms-key" => opt(value, &mut self.kms_key),
            "metadata" => self.metadata = value.get().ok().flatten(),
            "credentials-file" => opt(value, &mut self.credentials_file),
            "endpoint-uri" => opt(value, &mut self.endpoint_uri),
            "max-bytes-per-second" => self.max_bytes_per_second = value.get().ok().map(UserLimit::now),
            "max-requests-per-second" => self.max_requests_per_second = value.get().ok().map(UserLimit::now),
            "flow-group" => self.flow_group = value.get::<Option<String>>().ok().flatten().unwrap_or_default(),
            "max-uploads" => get(value, &mut self.max_uploads),
            "max-memory-bytes" => get(value, &mut self.max_memory_bytes),
            "spool-dir" => opt(value, &mut self.spool_dir),
            "spool-mode" => get(value, &mut self.spool_mode),
            "spool-sync-interval" => get(value, &mut self.spool_sync_interval),
            "max-spool-bytes" => get(value, &mut self.max_spool_bytes),
            "overflow-policy" => get(value, &mut self.overflow_policy),
            "retry-timeout" => get(value, &mut self.retry_timeout),
            "request-timeout" => get(value, &mut self.request_timeout),
            "startup-timeout" => get(value, &mut self.startup_timeout),
            "drain-timeout" => get(value, &mut self.drain_timeout),
            "shutdown-timeout" => get(value, &mut self.shutdown_timeout),
            _ => return false,
        }
        true
    }

    /// Reads a property that is a setting.
    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "bucket" => self.bucket.to_value(),
            "device-id" => self.device_id.to_value(),
            "location" => self.location.to_value(),
            "max-size-time" => self.max_size_time.to_value(),
            "max-size-bytes" => self.max_size_bytes.to_value(),
            "align-to-clock" => self.align_to_clock.to_value(),
            "send-keyframe-requests" => self.send_keyframe_requests.to_value(),
            "content-type" => self.content_type.to_value(),
            "cache-control" => self.cache_control.to_value(),
            "storage-class" => self.storage_class.to_value(),
            "kms-key" => self.kms_key.to_value(),
            "metadata" => self.metadata.to_value(),
            "credentials-file" => self.credentials_file.to_value(),
            "endpoint-uri" => self.endpoint_uri.to_value(),
            "max-bytes-per-second" => self.max_bytes_per_second.map_or(DEFAULT_BYTES, |l| l.value).to_value(),
            "max-requests-per-second" => self.max_requests_per_second.map_or(DEFAULT_REQUESTS, |l| l.value).to_value(),
            "flow-group" => self.flow_group.to_value(),
            "max-uploads" => self.max_uploads.to_value(),
            "max-memory-bytes" => self.max_memory_bytes.to_value(),
            "spool-dir" => self.spool_dir.to_value(),
            "spool-mode" => self.spool_mode.to_value(),
            "spool-sync-interval" => self.spool_sync_interval.to_value(),
            "max-spool-bytes" => self.max_spool_bytes.to_value(),
            "overflow-policy" => self.overflow_policy.to_value(),
            "retry-timeout" => self.retry_timeout.to_value(),
            "request-timeout" => self.request_timeout.to_value(),
            "startup-timeout" => self.startup_timeout.to_value(),
            "drain-timeout" => self.drain_timeout.to_value(),
            "shutdown-timeout" => self.shutdown_timeout.to_value(),
            _ => return None,
        })
    }
}

/// The properties' specifications.
pub(super) fn specs() -> &'static [glib::ParamSpec] {
    static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let mut specs = naming_specs();
        specs.extend(cutting_specs());
        specs.extend(upload_specs());
        specs.extend(spool_specs());
        specs.extend(state_specs());
        specs
    });
    &SPECS
}

fn naming_specs() -> Vec<glib::ParamSpec> {
    vec![
        string("bucket", "Bucket", "Name of the Cloud Storage bucket (required)"),
        string(
            "device-id",
            "Device id",
            "First part of the object names, may hold / as in store42/cam3 (NULL = host name)",
        ),
        glib::ParamSpecString::builder("location")
            .nick("Location")
            .blurb(
                "Object name: strftime of the chunk's capture start in UTC, and {device} {session} {seq} {ext}; \
                 no placeholder at all = one single object",
            )
            .default_value(DEFAULT_LOCATION)
            .mutable_ready()
            .build(),
        string("uri", "URI", "gs://BUCKET[/LOCATION], sets bucket and location"),
        string(
            "content-type",
            "Content-Type",
            "Content-Type of the objects (NULL = by container)",
        ),
        string(
            "cache-control",
            "Cache-Control",
            "Cache-Control of the objects (NULL = default of the bucket)",
        ),
        string(
            "storage-class",
            "Storage class",
            "Storage class of the objects, e.g. NEARLINE (NULL = default of the bucket)",
        ),
        string(
            "kms-key",
            "KMS key",
            "Cloud KMS key, projects/P/locations/L/keyRings/R/cryptoKeys/K (NULL = default of the bucket)",
        ),
        glib::ParamSpecBoxed::builder::<gst::Structure>("metadata")
            .nick("Metadata")
            .blurb("Custom metadata of every object, e.g. metadata,site=north (at most 8 KiB with the element's own)")
            .mutable_ready()
            .build(),
    ]
}

fn cutting_specs() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    vec![
        time(
            "max-size-time",
            "Max size time",
            "Begin a new chunk at the first key unit at or after this long, ns (0 = never)",
            0,
            defaults.max_size_time,
        ),
        glib::ParamSpecUInt64::builder("max-size-bytes")
            .nick("Max size bytes")
            .blurb("Begin a new chunk at the first key unit at or after this size, bytes (0 = never)")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("align-to-clock")
            .nick("Align to clock")
            .blurb("Cut at whole multiples of max-size-time in UTC (10 s: at :00, :10, ...)")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("send-keyframe-requests")
            .nick("Send keyframe requests")
            .blurb("Ask upstream for a key unit when a cut is due")
            .mutable_playing()
            .build(),
    ]
}

fn upload_specs() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    vec![
        string(
            "credentials-file",
            "Credentials file",
            "JSON of a service account, external account or user (NULL = Application Default Credentials)",
        ),
        string(
            "endpoint-uri",
            "Endpoint URI",
            "An emulator or private endpoint (NULL = STORAGE_EMULATOR_HOST, else Google); http:// never gets credentials",
        ),
        glib::ParamSpecUInt64::builder("max-bytes-per-second")
            .nick("Max bytes per second")
            .blurb("Upload rate limit of the flow group, bytes/s (0 = none)")
            .default_value(DEFAULT_BYTES)
            .mutable_playing()
            .build(),
        glib::ParamSpecDouble::builder("max-requests-per-second")
            .nick("Max requests per second")
            .blurb("Request rate limit of the flow group, 1/s (0 = none)")
            .minimum(0.0)
            .default_value(DEFAULT_REQUESTS)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("flow-group")
            .nick("Flow group")
            .blurb("All sinks of the process with the same name share the two limits (empty = this sink alone)")
            .default_value(DEFAULT_FLOW_GROUP)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-uploads")
            .nick("Max uploads")
            .blurb("Upper bound of the adaptive number of uploads in flight")
            .minimum(1)
            .maximum(64)
            .default_value(defaults.max_uploads)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("max-memory-bytes")
            .nick("Max memory bytes")
            .blurb("Payload held in memory by this sink, never more, bytes")
            .minimum(1 << 20)
            .default_value(defaults.max_memory_bytes)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder::<OverflowPolicy>("overflow-policy")
            .nick("Overflow policy")
            .blurb("What to do when memory and spool are full")
            .mutable_playing()
            .build(),
        time(
            "retry-timeout",
            "Retry timeout",
            "Give a chunk up after this long, ns (0 = never)",
            0,
            defaults.retry_timeout,
        ),
        glib::ParamSpecUInt64::builder("request-timeout")
            .nick("Request timeout")
            .blurb("One attempt without progress for this long is broken off, ns")
            .minimum(SECOND / 10)
            .default_value(defaults.request_timeout)
            .mutable_ready()
            .build(),
        time(
            "startup-timeout",
            "Startup timeout",
            "PLAYING for this long without one key unit gives a WARNING, ns (0 = never)",
            0,
            defaults.startup_timeout,
        ),
        time(
            "drain-timeout",
            "Drain timeout",
            "EOS waits this long for all chunks to be stored, ns",
            0,
            defaults.drain_timeout,
        ),
        time(
            "shutdown-timeout",
            "Shutdown timeout",
            "Going to READY without EOS waits this long for the chunks to be stored, ns",
            0,
            defaults.shutdown_timeout,
        ),
    ]
}

fn spool_specs() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    vec![
        string(
            "spool-dir",
            "Spool directory",
            "Chunks wait in this folder until they are stored; survives crash, power cut and restart (NULL = no disk)",
        ),
        glib::ParamSpecEnum::builder::<SpoolMode>("spool-mode")
            .nick("Spool mode")
            .blurb("What is written to the spool, and when")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("spool-sync-interval")
            .nick("Spool sync interval")
            .blurb("In mode always, what came in is safe from a power cut after this long, ns")
            .minimum(SECOND / 50)
            .default_value(defaults.spool_sync_interval)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-spool-bytes")
            .nick("Max spool bytes")
            .blurb("Disk used under spool-dir, never more, bytes (0 = the file system but 10 %, at least 1 GiB)")
            .mutable_playing()
            .build(),
    ]
}

fn state_specs() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters since the session began (times in ns, rate in bytes/s)")
            .read_only()
            .build(),
        glib::ParamSpecEnum::builder_with_default("status", StatusValue::Stopped)
            .nick("Status")
            .blurb("State of the uploads; notified")
            .read_only()
            .build(),
        glib::ParamSpecString::builder("session-id")
            .nick("Session id")
            .blurb("Ten characters that sort by time, one for each NULL to NULL")
            .read_only()
            .build(),
    ]
}
