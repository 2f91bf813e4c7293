//! Turns the keys of the file into a [`Config`].
//!
//! PURE, except that `super::files` checks the files that the configuration names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gcstreamer_mqtt::Config as LinkConfig;
use gcstreamer_schema::cameras::check_id;
use gcstreamer_schema::limits::check_bucket;
use gcstreamer_schema::metadata::check_user_metadata;
use gcstreamer_schema::name::Template;
use gcstreamer_storage::Endpoint;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults};
use super::files::{Secret, check_certificates, check_credentials, check_folder, check_readable};
use super::section::{Placed, Section};
use super::{
    Address, Audio, Broker, Camera, Config, Container, Fingerprint, IotCore, Mqtt, Scheme, Shard, Surroundings, Transport,
};

/// Default of `listen`.
pub(super) const LISTEN: &str = "127.0.0.1:9640";
const SECOND: Duration = Duration::from_secs(1);
/// The least `max-memory-bytes` of a sink.
pub(crate) const LEAST_MEMORY: u64 = 1 << 20;

/// Reads the whole file.
pub(super) fn config(text: &str, surroundings: &Surroundings) -> Result<Config, Vec<Fault>> {
    let faults = Faults::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        faults.add(at, error.message());
    }
    let reader = Reader {
        faults: &faults,
        surroundings,
    };
    let top = Section::new(table.get_ref(), "this file", &faults);
    let config = reader.config(&top);
    top.finish();
    match (config, faults.finish()) {
        (Some(config), faults) if faults.is_empty() => Ok(config),
        (_, faults) => Err(faults),
    }
}

struct Reader<'a> {
    faults: &'a Faults<'a>,
    surroundings: &'a Surroundings,
}

/// The keys of `[defaults]` and of `[[camera]]`.
#[derive(Clone, Default)]
struct Keys {
    username: Option<Placed<String>>,
    password: Option<Placed<Secret>>,
    transport: Option<Placed<Transport>>,
    container: Option<Placed<Container>>,
    audio: Option<Placed<Audio>>,
    stall_timeout: Option<Placed<Duration>>,
    max_size_time: Option<Placed<Duration>>,
    time_zone: Option<Placed<String>>,
    location: Option<Placed<String>>,
    metadata: Option<Placed<BTreeMap<String, String>>>,
    enabled: Option<Placed<bool>>,
    private_key_file: Option<Placed<PathBuf>>,
    ca_file: Option<Placed<PathBuf>>,
    tls_fingerprint: Option<Placed<Fingerprint>>,
}

impl Keys {
    /// Takes keys that are not set from the defaults.
    fn or(self, defaults: &Self) -> Self {
        let d = defaults.clone();
        Self {
            username: self.username.or(d.username),
            password: self.password.or(d.password),
            transport: self.transport.or(d.transport),
            container: self.container.or(d.container),
            audio: self.audio.or(d.audio),
            stall_timeout: self.stall_timeout.or(d.stall_timeout),
            max_size_time: self.max_size_time.or(d.max_size_time),
            time_zone: self.time_zone.or(d.time_zone),
            location: self.location.or(d.location),
            metadata: self.metadata.or(d.metadata),
            enabled: self.enabled.or(d.enabled),
            private_key_file: self.private_key_file.or(d.private_key_file),
            ca_file: self.ca_file.or(d.ca_file),
            tls_fingerprint: self.tls_fingerprint.or(d.tls_fingerprint),
        }
    }
}

fn value<T>(placed: Option<Placed<T>>) -> Option<T> {
    placed.map(|placed| placed.value)
}

impl<'a> Reader<'a> {
    fn config(&self, top: &Section<'a>) -> Option<Config> {
        let bucket = self.required(top, "bucket", "name the Cloud Storage bucket: bucket = \"my-bucket\"");
        if let Some(bucket) = &bucket {
            self.check(bucket, check_bucket(&bucket.value).map_err(|error| error.to_string()));
        }
        let endpoint = top.word("endpoint-uri");
        if let Some(endpoint) = &endpoint {
            let checked = Endpoint::resolve(Some(&endpoint.value), None);
            self.check(endpoint, checked.map(drop).map_err(|error| error.to_string()));
        }
        let broker = self.broker(top);
        let defaults = top.table("defaults", "[defaults]").map(|section| {
            for key in ["id", "name", "url"] {
                section.misplaced(key, "differs from camera to camera: it belongs into [[camera]]");
            }
            let keys = self.keys(&section);
            section.finish();
            keys
        });
        let cameras = self.cameras(top, &defaults.unwrap_or_default(), broker.as_ref());
        let shard = top.table("shard", "[shard]").and_then(|section| {
            let pods = section.within("pods", 1, 100_000);
            if section.find("pods").is_none() {
                self.faults
                    .add(0, "[shard] has no pods; write the number of processes: pods = 6");
            }
            section.finish();
            pods.and_then(|pods| u32::try_from(pods.value).ok())
                .map(|pods| Shard { pods })
        });
        let max_memory_bytes = top.whole("max-memory-bytes");
        let enabled = cameras.iter().filter(|camera| camera.enabled).count() as u64;
        let pods = shard.as_ref().map_or(1, |shard| u64::from(shard.pods));
        // The cameras are spread over the pods, so each pod has about this many.
        let least = LEAST_MEMORY * enabled.div_ceil(pods).max(1);
        if let Some(memory) = max_memory_bytes.as_ref().filter(|memory| memory.value < least) {
            self.faults.add(
                memory.at,
                format!("max-memory-bytes is for all cameras of a process together and must be at least {least}, 1 MiB for each that is enabled"),
            );
        }
        Some(Config {
            endpoint_uri: value(endpoint),
            credentials_file: value(self.credentials(top)),
            spool_dir: self.spool_dir(top),
            max_spool_bytes: value(top.whole("max-spool-bytes")).unwrap_or(0),
            max_memory_bytes: value(max_memory_bytes),
            max_bytes_per_second: value(top.whole("max-bytes-per-second")).unwrap_or(0),
            max_requests_per_second: value(top.number("max-requests-per-second")),
            listen: self.listen(top),
            broker,
            shard,
            cameras,
            // Last: if it is missing, all other keys have been read before this returns, so that their faults are listed too.
            bucket: value(bucket)?,
        })
    }

    fn check<T>(&self, at: &Placed<T>, checked: Result<(), String>) {
        if let Err(text) = checked {
            self.faults.add(at.at, text);
        }
    }

    /// Reads a text that is required. Reports a missing key at line 1.
    fn required(&self, section: &Section<'a>, key: &'static str, hint: &str) -> Option<Placed<String>> {
        if section.find(key).is_none() {
            self.faults.add(0, format!("{key} is missing; {hint}"));
        }
        section.word(key)
    }

    /// Reads the name of a file, relative to the folder of the configuration, and checks that it can be read.
    fn file(&self, section: &Section<'a>, key: &'static str) -> Option<Placed<PathBuf>> {
        let file = section.word(key)?.map(|name| self.surroundings.folder.join(name));
        if self.surroundings.looks_at_files
            && let Err(text) = check_readable(&file.value)
        {
            self.faults.add(file.at, format!("{key}: {text}"));
        }
        Some(file)
    }

    /// Reads `credentials-file`, the credentials of Cloud Storage.
    fn credentials(&self, top: &Section<'a>) -> Option<Placed<PathBuf>> {
        let file = self.file(top, "credentials-file")?;
        if self.surroundings.reads_keys
            && let Err(text) = check_credentials(&file.value)
        {
            self.faults.add(file.at, format!("credentials-file: {text}"));
        }
        Some(file)
    }

    /// Reads `ca-file`, certificates in PEM form.
    fn certificates(&self, section: &Section<'a>) -> Option<Placed<PathBuf>> {
        let file = self.file(section, "ca-file")?;
        if self.surroundings.looks_at_files
            && let Err(text) = check_certificates(&file.value)
        {
            self.faults.add(file.at, format!("ca-file: {text}"));
        }
        Some(file)
    }

    fn password(&self, section: &Section<'a>) -> Option<Placed<Secret>> {
        let secret = section
            .word("password-file")?
            .map(|name| Secret::in_file(self.surroundings.folder.join(name)));
        if self.surroundings.looks_at_files
            && let Err(text) = secret.value.read()
        {
            self.faults.add(secret.at, format!("password-file: {text}"));
        }
        Some(secret)
    }

    fn fingerprint(&self, section: &Section<'a>) -> Option<Placed<Fingerprint>> {
        let text = section.word("tls-fingerprint")?;
        match Fingerprint::parse(&text.value) {
            Ok(fingerprint) => Some(text.map(|_| fingerprint)),
            Err(fault) => {
                self.faults.add(text.at, fault);
                None
            }
        }
    }

    /// Reports `ca-file` and `tls-fingerprint` if the address does not use them. Checks only the keys of the camera itself: those
    /// of `[defaults]` are for the cameras that use them.
    fn check_certificates(&self, own: &Keys, address: Option<&Address>) {
        let Some(address) = address else { return };
        if let Some(file) = own.ca_file.as_ref().filter(|_| !address.is_encrypted()) {
            let text = "ca-file is for rtsps and https; write url = \"rtsps://…\", or remove it";
            self.faults.add(file.at, text);
        }
        if let Some(fingerprint) = own.tls_fingerprint.as_ref().filter(|_| address.scheme() != Scheme::Rtsps) {
            let text = "tls-fingerprint is for rtsps; write url = \"rtsps://…\", or remove it";
            self.faults.add(fingerprint.at, text);
        }
    }

    fn spool_dir(&self, top: &Section<'a>) -> Option<PathBuf> {
        let Some(folder) = top.word("spool-dir") else {
            return self.surroundings.state_directory.clone();
        };
        let folder = folder.map(|name| self.surroundings.folder.join(name));
        if self.surroundings.looks_at_files {
            let checked = check_folder(&folder.value).map_err(|text| format!("spool-dir: {text}"));
            self.check(&folder, checked);
        }
        Some(folder.value)
    }

    fn listen(&self, top: &Section<'a>) -> Option<SocketAddr> {
        let Some(listen) = top.text("listen") else {
            return LISTEN.parse().ok();
        };
        if listen.value.is_empty() {
            return None;
        }
        let address = listen.value.parse().ok();
        if address.is_none() {
            let text = format!("listen must be ADDRESS:PORT, e.g. \"{LISTEN}\", or \"\" to serve nothing");
            self.faults.add(listen.at, text);
        }
        address
    }

    fn broker(&self, top: &Section<'a>) -> Option<Broker> {
        let mqtt = top.table("mqtt", "[mqtt]").map(|section| {
            let mqtt = self.mqtt(&section);
            section.finish();
            mqtt
        });
        let iotcore_at = top.find("iotcore").map(|found| found.span().start);
        let iotcore = top.table("iotcore", "[iotcore]").map(|section| {
            let iotcore = self.iotcore(&section);
            section.finish();
            iotcore
        });
        match (mqtt, iotcore) {
            (Some(_), Some(_)) => {
                let text = "[mqtt] and [iotcore] exclude each other: a camera has one broker; remove one of them";
                self.faults.add(iotcore_at.unwrap_or(0), text);
                None
            }
            (Some(mqtt), None) => mqtt.map(Broker::Mqtt),
            (None, Some(iotcore)) => iotcore.map(Broker::IotCore),
            (None, None) => None,
        }
    }

    fn port(section: &Section<'a>) -> u16 {
        section
            .within("port", 0, 65_535)
            .and_then(|port| u16::try_from(port.value).ok())
            .unwrap_or(0)
    }

    fn mqtt(&self, section: &Section<'a>) -> Option<Mqtt> {
        let host = self.required(section, "host", "name the broker in [mqtt]: host = \"mqtt.example\"");
        let topic_prefix = section.word("topic-prefix");
        if let Some(prefix) = topic_prefix.as_ref().filter(|prefix| !prefix.value.contains("{device}")) {
            self.faults.add(
                prefix.at,
                "topic-prefix must hold {device}, or all cameras would publish on the same topics",
            );
        }
        let username = section.word("username");
        let password = self.password(section);
        self.check_pair(username.as_ref(), password.as_ref());
        let at = host.as_ref().map_or(0, |host| host.at);
        let mqtt = Mqtt {
            port: Self::port(section),
            tls: value(section.flag("tls")).unwrap_or(false),
            root_certificates: value(self.file(section, "root-certificates")),
            username: value(username),
            password_file: password.map(|secret| secret.value.path().to_owned()),
            topic_prefix: value(topic_prefix),
            home_assistant_prefix: value(section.word("home-assistant-prefix")),
            name: self.recorder_name(section),
            host: value(host)?,
        };
        self.check_link(section, at, &mqtt.link_of_a_camera());
        Some(mqtt)
    }

    /// Reports a fault that the link to the broker finds, at the key of the same name. `at`: the place of a fault that belongs to
    /// no key.
    fn check_link(&self, section: &Section<'a>, at: usize, link: &LinkConfig) {
        let Err(error) = gcstreamer_mqtt::check(link, self.surroundings.looks_at_files) else {
            return;
        };
        let named = error.setting_name().and_then(|name| section.find(name));
        let at = named.map_or(at, |found| found.span().start);
        // A file that cannot be read has already been reported at its key.
        if !self.faults.is_reported_at(at) {
            self.faults.add(at, error.to_string());
        }
    }

    /// Reads the recorder's name, which must be one level of a topic.
    fn recorder_name(&self, section: &Section<'a>) -> Option<String> {
        let name = section.word("name")?;
        if name.value.len() > 200 || name.value.chars().any(|c| matches!(c, '/' | '+' | '#') || c.is_control()) {
            let text = "name is one level of the recorder's topic: at most 200 bytes, and no /, + or #";
            self.faults.add(name.at, text);
        }
        Some(name.value)
    }

    fn iotcore(&self, section: &Section<'a>) -> Option<IotCore> {
        let host = self.required(
            section,
            "host",
            "Google retired Cloud IoT Core; name another bridge in [iotcore], e.g. host = \"us-central1-mqtt.clearblade.com\"",
        );
        let project_id = self.required(section, "project-id", "name the project of the registry in [iotcore]");
        let region = self.required(
            section,
            "region",
            "name the region of the registry in [iotcore], e.g. us-central1",
        );
        let registry_id = self.required(section, "registry-id", "name the registry of the devices in [iotcore]");
        Some(IotCore {
            port: Self::port(section),
            host: value(host)?,
            project_id: value(project_id)?,
            region: value(region)?,
            registry_id: value(registry_id)?,
        })
    }

    fn keys(&self, section: &Section<'a>) -> Keys {
        let long = Duration::from_secs(3600);
        let time_zone = section.word("time-zone");
        if let Some(zone) = time_zone
            .as_ref()
            .filter(|zone| gcstreamer_schema::time::zone(&zone.value).is_none())
        {
            let text = "time-zone must be an IANA name such as \"Europe/Berlin\" or \"UTC\"";
            self.faults.add(zone.at, text);
        }
        let location = section.word("location");
        if let Some(location) = &location {
            let checked = Template::parse(&location.value).map_err(|error| error.to_string());
            match checked {
                Ok(template) if template.is_fixed() => self.faults.add(
                    location.at,
                    "location has no placeholder: every chunk would have the same name; use e.g. {device}, {session} and {seq}",
                ),
                checked => self.check(location, checked.map(drop)),
            }
        }
        let containers = [
            ("auto", Container::Fmp4),
            ("fmp4", Container::Fmp4),
            ("mpegts", Container::MpegTs),
            ("flv", Container::Flv),
            ("matroska", Container::Matroska),
        ];
        let transports = [("tcp", Transport::Tcp), ("udp", Transport::Udp), ("auto", Transport::Auto)];
        let audios = [("auto", Audio::Auto), ("off", Audio::Off), ("require", Audio::Require)];
        Keys {
            username: section.word("username"),
            password: self.password(section),
            transport: section.choice("transport", &transports),
            container: section.choice("container", &containers),
            audio: section.choice("audio", &audios),
            stall_timeout: section.duration("stall-timeout", SECOND / 2, long),
            max_size_time: section.duration("max-size-time", SECOND / 2, long),
            time_zone,
            location,
            metadata: section.texts("metadata"),
            enabled: section.flag("enabled"),
            private_key_file: self.file(section, "private-key-file"),
            ca_file: self.certificates(section),
            tls_fingerprint: self.fingerprint(section),
        }
    }

    fn cameras(&self, top: &Section<'a>, defaults: &Keys, broker: Option<&Broker>) -> Vec<Camera> {
        let sections = top.tables("camera", "[[camera]]");
        let found = top.find("camera");
        let is_empty = |value: &DeValue<'_>| value.as_array().is_some_and(|array| array.is_empty());
        if sections.is_empty() && found.is_none_or(|found| is_empty(found.get_ref())) {
            let at = found.map_or(0, |found| found.span().start);
            self.faults
                .add(at, "no camera; write at least one [[camera]] with id and url");
        }
        let mut ids = BTreeMap::new();
        let mut cameras = Vec::new();
        for (at, section) in sections {
            let camera = self.camera(&section, at, defaults, broker, &mut ids);
            section.finish();
            cameras.extend(camera);
        }
        cameras
    }

    fn camera(
        &self,
        section: &Section<'a>,
        at: usize,
        defaults: &Keys,
        broker: Option<&Broker>,
        ids: &mut BTreeMap<String, usize>,
    ) -> Option<Camera> {
        let id = self.id(section, at, ids);
        let address = section.word("url").map(|url| (url.at, Address::parse(&url.value)));
        if section.find("url").is_none() {
            self.faults
                .add(at, "this camera has no url; write url = \"rtsp://HOST/PATH\"");
        }
        let own = self.keys(section);
        let address = match address {
            Some((at, Err(text))) => {
                self.faults.add(at, text);
                None
            }
            Some((_, Ok(address))) => Some(address),
            None => None,
        };
        self.check_certificates(&own, address.as_ref());
        if let (Some(Scheme::Srt), Some(name)) = (address.as_ref().map(Address::scheme), &own.username) {
            self.faults
                .add(name.at, "srt has no user names; remove username and password-file");
        }
        let keys = own.or(defaults);
        // A camera needs both user name and password. A name from `[defaults]` does not apply to SRT, which takes none.
        let takes_name = address.as_ref().is_some_and(|address| address.scheme() != Scheme::Srt);
        if let (true, Some(name), None) = (takes_name, &keys.username, &keys.password)
            && !self.faults.is_reported_at(name.at)
        {
            let text = "username needs a password-file beside it; a newline alone in that file is the empty password";
            self.faults.add(name.at, text);
        }
        self.check_camera(&keys, id.as_ref(), at, broker);
        Some(Camera {
            name: value(section.word("name")),
            username: value(keys.username),
            password: value(keys.password),
            transport: value(keys.transport).unwrap_or_default(),
            container: value(keys.container).unwrap_or_default(),
            audio: value(keys.audio).unwrap_or_default(),
            stall_timeout: value(keys.stall_timeout).unwrap_or(SECOND * 10),
            max_size_time: value(keys.max_size_time).unwrap_or(SECOND * 10),
            time_zone: value(keys.time_zone).unwrap_or_else(|| "UTC".to_owned()),
            location: value(keys.location),
            metadata: value(keys.metadata).unwrap_or_default(),
            enabled: value(keys.enabled).unwrap_or(true),
            private_key_file: value(keys.private_key_file),
            ca_file: value(keys.ca_file),
            tls_fingerprint: value(keys.tls_fingerprint),
            id: value(id)?,
            address: address?,
        })
    }

    fn id(&self, section: &Section<'a>, at: usize, ids: &mut BTreeMap<String, usize>) -> Option<Placed<String>> {
        let id = section.text("id");
        let Some(id) = id else {
            if section.find("id").is_none() {
                self.faults.add(
                    at,
                    "this camera has no id; write id = \"…\", the first part of its objects' names",
                );
            }
            return None;
        };
        self.check(&id, check_id(&id.value));
        if ids.insert(id.value.clone(), id.at).is_some() {
            self.faults.add(
                id.at,
                format!("id \"{}\" is taken by another camera; give each its own", id.value),
            );
        }
        Some(id)
    }

    /// Reports a password without a user name, which would never be sent. The other way round is valid for a broker.
    fn check_pair(&self, username: Option<&Placed<String>>, password: Option<&Placed<Secret>>) {
        if let (None, Some(password)) = (username, password) {
            self.faults.add(password.at, "password-file needs a username beside it");
        }
    }

    fn check_camera(&self, keys: &Keys, id: Option<&Placed<String>>, at: usize, broker: Option<&Broker>) {
        self.check_pair(keys.username.as_ref(), keys.password.as_ref());
        if let (Some(Broker::IotCore(_)), None) = (broker, &keys.private_key_file) {
            self.faults.add(
                at,
                "this camera needs a private-key-file, the device's key at the bridge of [iotcore]",
            );
        }
        if let (Some(Broker::IotCore(bridge)), Some(key), Some(id)) = (broker, &keys.private_key_file, id) {
            // Without `reads_keys`, the key is read only when the camera is connected: its file may appear later, for example
            // from a Kubernetes Secret.
            let link = bridge.link_of_a_camera(&id.value, &key.value);
            if let Err(error) = gcstreamer_mqtt::check(&link, self.surroundings.reads_keys) {
                let is_key = error.setting_name() == Some("private-key-file");
                let at = if is_key { key.at } else { id.at };
                // Report a key of [defaults] once, not for each camera, and not again if its file cannot be read.
                if !is_key || !self.faults.is_reported_at(at) {
                    self.faults.add(at, error.to_string());
                }
            }
        }
        if let (Some(metadata), Some(id)) = (&keys.metadata, id) {
            self.check(metadata, check_user_metadata(&metadata.value, &id.value));
        }
    }
}
