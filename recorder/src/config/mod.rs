//! The configuration: which cameras to record and where to store them. Read from a TOML file, or for one camera from the
//! environment.
//!
//! - [`load`] reads a file and reports all its faults; [`from_environment`] does the same for `RTSP_URL` and related variables.
//! - `fault`, `section`, `read`, `address`, `fingerprint`, `environment` PURE: places of faults, typed tables, meanings of keys,
//!   stream addresses, certificates, variables as a file.
//! - `link` PURE: the settings of a link to the broker.
//! - `files`: checks the files that a configuration names. [`Secret`]: a password, read when it is used.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shard;

mod address;
mod environment;
mod fault;
mod files;
mod fingerprint;
mod link;
mod read;
mod section;
#[cfg(test)]
mod tests;

pub use address::{Address, Scheme};
pub use environment::from_environment;
pub use fault::Fault;
pub use files::{Password, Secret};
pub use fingerprint::Fingerprint;
pub(crate) use link::STATE_GAP;
pub(crate) use read::LEAST_MEMORY;

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Property `bucket` of every sink.
    pub bucket: String,
    /// Property `endpoint-uri`; `None`: Google, or `STORAGE_EMULATOR_HOST`.
    pub endpoint_uri: Option<String>,
    /// Property `credentials-file`; `None`: Application Default Credentials.
    pub credentials_file: Option<PathBuf>,
    /// Property `spool-dir`; `None`: chunks wait in memory only.
    pub spool_dir: Option<PathBuf>,
    /// Property `max-spool-bytes`; 0: the whole file system except its reserve.
    pub max_spool_bytes: u64,
    /// Most payload in memory of all cameras of a process together, in bytes; `None`: a quarter of the memory of machine or
    /// cgroup.
    pub max_memory_bytes: Option<u64>,
    /// Upload limit of all cameras together, in bytes/s; 0: none.
    pub max_bytes_per_second: u64,
    /// Request limit of all cameras together, in requests/s; `None`: see [`Config::requests_per_second`].
    pub max_requests_per_second: Option<f64>,
    /// Address that serves `/healthz`, `/readyz`, `/metrics` and `/status`; `None`: none.
    pub listen: Option<SocketAddr>,
    /// Where states are published, if anywhere.
    pub broker: Option<Broker>,
    /// How many processes share the cameras.
    pub shard: Option<Shard>,
    /// The cameras in the order of the file.
    pub cameras: Vec<Camera>,
}

/// `[mqtt]` or `[iotcore]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// `[mqtt]`: any broker.
    Mqtt(Mqtt),
    /// `[iotcore]`: a bridge with the IoT Core device contract.
    IotCore(IotCore),
}

/// `[mqtt]`; the keys are properties of `iotcorestatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// Name or address of the broker.
    pub host: String,
    /// TCP port; 0: the default, by `tls`.
    pub port: u16,
    /// Whether to use TLS.
    pub tls: bool,
    /// PEM file of the authorities to trust.
    pub root_certificates: Option<PathBuf>,
    /// User name.
    pub username: Option<String>,
    /// File of the password.
    pub password_file: Option<PathBuf>,
    /// First part of all topics; holds `{device}`.
    pub topic_prefix: Option<String>,
    /// Where Home Assistant looks for discovery messages.
    pub home_assistant_prefix: Option<String>,
    /// Name of this recorder in its own topic; `None`: the host's.
    pub name: Option<String>,
}

/// `[iotcore]`; the keys are properties of `iotcorestatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IotCore {
    /// Name or address of the bridge.
    pub host: String,
    /// TCP port; 0: 8883.
    pub port: u16,
    /// Project of the registry.
    pub project_id: String,
    /// Region of the registry.
    pub region: String,
    /// The registry.
    pub registry_id: String,
}

/// `[shard]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Number of processes that share the cameras of the file.
    pub pods: u32,
}

/// How RTP is transported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// In the RTSP connection.
    #[default]
    Tcp,
    /// UDP only.
    Udp,
    /// UDP, then TCP if no packet arrives.
    Auto,
}

/// The container that a stream is stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Container {
    /// Fragmented MP4, which browsers play.
    #[default]
    Fmp4,
    /// MPEG-TS.
    MpegTs,
    /// FLV: H.264 only.
    Flv,
    /// Matroska.
    Matroska,
}

impl Container {
    /// Returns the name in the file and in the label `container` of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fmp4 => "fmp4",
            Self::MpegTs => "mpegts",
            Self::Flv => "flv",
            Self::Matroska => "matroska",
        }
    }
}

/// Whether to record a camera's sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audio {
    /// Recorded if there is any.
    #[default]
    Auto,
    /// Not recorded.
    Off,
    /// A camera without sound is a fault.
    Require,
}

/// One camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// Property `device-id` of its sink.
    pub id: String,
    /// Its name for people.
    pub name: Option<String>,
    /// Address of its stream.
    pub address: Address,
    /// User name at the camera.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// How RTP is transported.
    pub transport: Transport,
    /// The container that its stream is stored in.
    pub container: Container,
    /// Whether to record its sound.
    pub audio: Audio,
    /// How long pictures may be missing before the camera counts as frozen.
    pub stall_timeout: Duration,
    /// Length of a chunk.
    pub max_size_time: Duration,
    /// IANA time zone of its location, for the dashboard.
    pub time_zone: String,
    /// Property `location` of its sink.
    pub location: Option<String>,
    /// Property `metadata` of its sink.
    pub metadata: BTreeMap<String, String>,
    /// Whether to record it.
    pub enabled: bool,
    /// PEM file of its private key for `[iotcore]`.
    pub private_key_file: Option<PathBuf>,
    /// PEM file of the authorities that may have signed the camera's certificate; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the one certificate that the camera may show.
    pub tls_fingerprint: Option<Fingerprint>,
}

/// The least [`Camera::patience`] for HLS. Its pictures arrive a segment at a time, mostly of 2 to 10 s, and each segment is
/// requested only after it is complete.
const HLS_PATIENCE: Duration = Duration::from_secs(30);

impl Camera {
    /// Returns how long pictures may be missing: `stall-timeout`, but at least 30 s for HLS.
    pub fn patience(&self) -> Duration {
        match self.address.is_hls() {
            true => self.stall_timeout.max(HLS_PATIENCE),
            false => self.stall_timeout,
        }
    }
}

impl Config {
    /// Whether this process records a camera. `host`: the name of this machine; with `[shard]` it ends in the number of the
    /// process.
    pub fn is_ours(&self, camera: &Camera, host: &str) -> bool {
        self.shard
            .is_none_or(|shard| shard::ordinal(host) == Some(shard::pod_of(&camera.id, shard.pods)))
    }

    /// Returns the request limit of this process in requests/s: as set, otherwise max(10, 2 × its cameras / seconds of a chunk),
    /// which is twice the usual need so that a backlog shrinks. `host`: as for [`Config::is_ours`].
    pub fn requests_per_second(&self, host: &str) -> f64 {
        let wanted = || {
            self.cameras
                .iter()
                .filter(|camera| camera.enabled && self.is_ours(camera, host))
                .map(|camera| 2.0 / camera.max_size_time.as_secs_f64())
                .sum::<f64>()
        };
        self.max_requests_per_second.unwrap_or_else(|| wanted().max(10.0))
    }
}

impl Config {
    /// Returns the first part of the recorder's own topics, `gcstreamer/recorder/NAME`; `None` without `[mqtt]`. `NAME` is the
    /// key `name`, otherwise `host`, the name of this machine.
    ///
    /// With `[shard]`, the number of the process is appended to a name that is set: the client id follows from it, and two
    /// clients with the same id disconnect each other.
    pub fn presence_prefix(&self, host: &str) -> Option<String> {
        let Some(Broker::Mqtt(mqtt)) = &self.broker else { return None };
        let number = self
            .shard
            .filter(|shard| shard.pods > 1 && mqtt.name.is_some())
            .and_then(|_| shard::ordinal(host))
            .map_or_else(String::new, |ordinal| format!("-{ordinal}"));
        let name = mqtt.name.as_deref().unwrap_or(host);
        Some(format!("gcstreamer/recorder/{name}{number}"))
    }
}

/// Everything besides its text that a configuration depends on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Folder that relative file names refer to.
    pub folder: PathBuf,
    /// `$STATE_DIRECTORY`, the default of `spool-dir`.
    pub state_directory: Option<PathBuf>,
    /// Whether to check the files that the configuration names.
    pub looks_at_files: bool,
    /// Whether to check credentials and private keys as well. `run` does not at its start, because it also records while one of
    /// them cannot be used.
    pub reads_keys: bool,
}

/// Every fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faulty {
    /// The name of the file, or of what replaces it, for example `environment`.
    pub file: String,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let line_end = if i + 1 < self.faults.len() { "\n" } else { "" };
            write!(f, "{}:{fault}{line_end}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faulty {}

/// Reads and checks a file, including the files that it names. `reads_keys`: see [`Surroundings`].
///
/// # Errors
/// [`Faulty`] with every fault. It displays one per line, as `FILE:LINE:COLUMN: text`.
pub fn load(path: &Path, reads_keys: bool) -> Result<Config, Faulty> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| Faulty {
        file: file.clone(),
        faults: vec![Fault {
            line: 1,
            column: 1,
            text: format!("the file cannot be read: {error}"),
        }],
    })?;
    // The elements and libraries that receive these file names do not all accept relative paths.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let surroundings = Surroundings {
        folder: absolute.parent().map(Path::to_path_buf).unwrap_or_default(),
        state_directory: state_directory(std::env::var("STATE_DIRECTORY").ok().as_deref()),
        looks_at_files: true,
        reads_keys,
    };
    parse(&text, &surroundings).map_err(|faults| Faulty { file, faults })
}

/// Returns where a recorder serves its state; `None` for `listen = ""`. `text`: its file. `variable`: its `LISTEN`.
///
/// Reads only this key, and ignores all faults: a recorder that runs keeps its settings while its file has faults, and must still
/// be reachable. If the key is missing or wrong, `LISTEN` applies, as in an image whose recorder was started with another file.
pub fn listens(text: Option<&str>, variable: Option<&str>) -> Option<SocketAddr> {
    let in_file = text.and_then(|text| {
        let (table, _) = toml::de::DeTable::parse_recoverable(text);
        let listen = table.get_ref().get("listen")?;
        Some(listen.get_ref().as_str()?.to_owned())
    });
    // `Some(None)`: the value is valid, and nothing is served.
    let address = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    in_file
        .as_deref()
        .and_then(address)
        .or_else(|| variable.and_then(address))
        .unwrap_or_else(|| read::LISTEN.parse().ok())
}

/// Returns our folder of `$STATE_DIRECTORY`: the first, as systemd separates several by colons.
pub(crate) fn state_directory(variable: Option<&str>) -> Option<PathBuf> {
    let first = variable?.split(':').next().unwrap_or_default();
    (!first.is_empty()).then(|| PathBuf::from(first))
}

/// Checks the text of a file.
///
/// # Errors
/// Every fault, in the order of the text.
pub fn parse(text: &str, surroundings: &Surroundings) -> Result<Config, Vec<Fault>> {
    read::config(text, surroundings)
}
