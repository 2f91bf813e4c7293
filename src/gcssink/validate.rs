//! Checks the settings and converts them for use. Every error in them is reported here, before the first byte.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use gst::glib;

use super::settings::Settings;
use crate::base::runtime::runtime;
use crate::upload::queue::UploadLimits;
use gcstreamer_media::chunk::Limits;
use gcstreamer_schema::limits::{check_bucket, check_object_name};
use gcstreamer_schema::metadata::check_user_metadata;
use gcstreamer_schema::name::{NameFields, Template, check_device};
use gcstreamer_schema::reason::check_start_reason;
use gcstreamer_schema::session::is_session_id;
use gcstreamer_storage::{Credentials, Endpoint};

/// Checked settings, ready to build a session from.
#[derive(Clone, Debug)]
pub(super) struct ValidatedSettings {
    pub bucket: String,
    pub device: String,
    pub template: Template,
    /// Property `location`.
    pub location: String,
    pub metadata: BTreeMap<String, String>,
    pub endpoint: Endpoint,
    /// Set even if the endpoint of this sink takes none: chunks of the spool may belong to Google.
    pub credentials: Credentials,
    pub request_timeout: Duration,
}

/// Validates the settings.
///
/// # Errors
/// An error message that names the property, the value and the next step.
pub(super) fn validate(settings: &Settings) -> Result<ValidatedSettings, gst::ErrorMessage> {
    let bad = |text: String| gst::error_msg!(gst::ResourceError::Settings, ("{text}"));
    let Some(bucket) = settings.bucket.clone() else {
        return Err(bad(
            "no bucket is set; name an existing Cloud Storage bucket with bucket=NAME".into(),
        ));
    };
    check_bucket(&bucket).map_err(|e| bad(format!("{e}; set the property bucket")))?;
    let device = settings.device_id.clone().unwrap_or_else(|| glib::host_name().to_string());
    check_device(&device).map_err(bad)?;
    let template = Template::parse(&settings.location).map_err(|e| bad(e.to_string()))?;
    let metadata = user_metadata(settings.metadata.as_ref());
    check_user_metadata(&metadata, &device).map_err(bad)?;
    check_longest_name(&template, &device).map_err(bad)?;
    check_start(settings).map_err(bad)?;
    let endpoint = Endpoint::from_environment(settings.endpoint_uri.as_deref()).map_err(|e| bad(e.to_string()))?;
    let credentials = match &settings.credentials_file {
        Some(path) => Credentials::File(PathBuf::from(path)),
        None => Credentials::ApplicationDefault,
    };
    let request_timeout = Duration::from_nanos(settings.request_timeout.ns());
    Ok(ValidatedSettings {
        bucket,
        device,
        template,
        location: settings.location.clone(),
        metadata,
        endpoint,
        credentials,
        request_timeout,
    })
}

/// Checks `start-reason` and `previous-session`.
fn check_start(settings: &Settings) -> Result<(), String> {
    if let Some(reason) = &settings.start_reason {
        check_start_reason(reason)?;
    }
    match &settings.previous_session {
        Some(id) if !is_session_id(id) => {
            Err("previous-session must be the session-id of another gcssink: ten characters from 0 to 9 and a to v".to_owned())
        }
        _ => Ok(()),
    }
}

/// Returns the fault of the credentials, if any. A file that the user has set is checked even if an `http://` endpoint does not
/// need it.
///
/// # Errors
/// They cannot be checked.
pub(super) fn check_credentials(validated: &ValidatedSettings, settings: &Settings) -> Result<Option<String>, gst::ErrorMessage> {
    if !validated.endpoint.takes_credentials() && settings.credentials_file.is_none() {
        return Ok(None);
    }
    let credentials = validated.credentials.clone();
    let runtime =
        runtime().map_err(|e| gst::error_msg!(gst::ResourceError::Failed, ("the upload threads cannot be started: {e}")))?;
    // The application may call from a tokio runtime of its own, in which blocking on another runtime is not allowed.
    let (sender, receiver) = mpsc::channel();
    runtime.spawn(async move {
        let _ = sender.send(credentials.check().await);
    });
    match receiver.recv() {
        Ok(Err(e)) => Ok(Some(e.to_string())),
        // Without an answer nothing is known to be wrong; the first request will show it.
        Ok(Ok(())) | Err(_) => Ok(None),
    }
}

/// Checks the length of an object name, with a session id of ten characters and a sequence number of six digits.
fn check_longest_name(template: &Template, device: &str) -> Result<(), String> {
    let naming = NameFields {
        device,
        session: "0000000000",
        seq: 999_999,
        // The longest of the extensions.
        ext: "webm",
        start: 1_767_225_600_000_000_000,
    };
    let name = template.format(&naming)?;
    check_object_name(&name).map_err(|e| {
        format!(
            "{e} (it has {} bytes, the limit is 1024); shorten location or device-id",
            name.len()
        )
    })
}

fn user_metadata(structure: Option<&gst::Structure>) -> BTreeMap<String, String> {
    let text = |value: &glib::SendValue| match value.get::<Option<String>>() {
        Ok(text) => text.unwrap_or_default(),
        Err(_) => value
            .transform::<String>()
            .ok()
            .and_then(|v| v.get::<String>().ok())
            .unwrap_or_default(),
    };
    structure
        .map(|s| s.iter().map(|(k, v)| (k.to_string(), text(v))).collect())
        .unwrap_or_default()
}

/// Returns when to cut, from the settings.
pub(super) fn limits(settings: &Settings, template: &Template) -> Limits {
    Limits {
        max_time: settings.max_size_time.ns(),
        max_bytes: settings.max_size_bytes,
        align: settings.align_to_clock,
        single: template.is_fixed(),
        // A chunk on disk has no size limit.
        soft: if settings.spool_dir.is_some() {
            0
        } else {
            settings.max_memory_bytes / 4
        },
        hard: if settings.spool_dir.is_some() {
            0
        } else {
            settings.max_memory_bytes / 2
        },
    }
}

/// Returns how to upload, from the settings.
pub(super) fn upload_limits(settings: &Settings) -> UploadLimits {
    UploadLimits {
        max_uploads: usize::try_from(settings.max_uploads).unwrap_or(usize::MAX),
        max_memory: settings.max_memory_bytes,
        max_time: settings.max_size_time.ns(),
        retry_timeout: (settings.retry_timeout.ns() > 0).then_some(settings.retry_timeout.ns()),
    }
}

static IDENTITIES: Mutex<Option<HashSet<Device>>> = Mutex::new(None);

/// Bucket and device. Only one sink of the process at a time may store for them. A fixed object name has a key of its own,
/// because splitmuxsink starts the sink of the next fragment while that of the last one is still finishing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Device {
    bucket: String,
    device: String,
    object: String,
}

impl Device {
    pub(super) fn of(settings: &ValidatedSettings, location: &str) -> Self {
        Self {
            bucket: settings.bucket.clone(),
            device: settings.device.clone(),
            object: if settings.template.is_fixed() { location } else { "" }.to_owned(),
        }
    }
}

/// The exclusive right to store for a device into a bucket; released when dropped.
#[derive(Debug)]
pub(super) struct Identity(Device);

impl Identity {
    /// Claims bucket and device for this sink.
    ///
    /// # Errors
    /// Another running sink has claimed them; the message names the next step.
    pub(super) fn claim(device: &Device) -> Result<Self, gst::ErrorMessage> {
        let mut taken = IDENTITIES.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.get_or_insert_default().insert(device.clone()) {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                (
                    "another gcssink of this process stores in bucket \"{}\" with device-id \"{}\"; give each its own device-id",
                    device.bucket,
                    device.device
                )
            ));
        }
        Ok(Self(device.clone()))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if let Some(taken) = IDENTITIES.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            taken.remove(&self.0);
        }
    }
}
