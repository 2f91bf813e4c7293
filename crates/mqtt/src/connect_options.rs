//! Reads everything that a connection needs from files: certificates, the password, the key of the token. Blocks while reading,
//! so the driver calls it on a blocking thread.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::ClientConfig;

use super::jwt::{self, TokenError};
use super::link::Expiry;
use super::shared::lock;
use super::{Config, ConfigError, Plain, Protocol, tls};

/// Longest password in MQTT, bytes.
const MAX_PASSWORD: usize = 65_535;

/// What a connection is opened with.
pub(super) struct ConnectOptions {
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) login: Option<(String, String)>,
    /// When the token is to be renewed, if one was signed.
    pub(super) expiry: Option<Expiry>,
}

/// Rejects certificate settings while `tls` is off: a user who sets them would believe that the connection is encrypted.
pub(super) fn check_tls(config: &Config) -> Result<(), ConfigError> {
    let set = [
        ("root-certificates", &config.root_certificates),
        ("client-certificate", &config.client_certificate),
        ("client-key", &config.client_key),
    ];
    match set.into_iter().find(|(_, file)| file.is_some()) {
        Some((setting, _)) if !config.tls => Err(ConfigError::setting(
            setting,
            "is set and tls is off, so nothing would be encrypted; set tls=true, or unset it",
        )),
        _ => Ok(()),
    }
}

/// Reads all files once to check them. Returns notices about what works but is unsafe.
pub(super) fn check(config: &Config) -> Result<Vec<String>, ConfigError> {
    let mut notices = Vec::new();
    check_tls(config)?;
    if config.tls {
        // Only tried here: the files are read again at every connection.
        tls::client_config(config)?;
    }
    notices.extend(
        config
            .client_key
            .as_deref()
            .and_then(|path| jwt::open_to_others("client-key", path)),
    );
    match &config.protocol {
        Protocol::IotCore(device) => {
            jwt::check(&device.private_key_file)?;
            notices.extend(jwt::open_to_others("private-key-file", &device.private_key_file));
        }
        Protocol::Mqtt(plain) => {
            login(plain)?;
            notices.extend(
                plain
                    .password_file
                    .as_deref()
                    .and_then(|path| jwt::open_to_others("password-file", path)),
            );
        }
    }
    Ok(notices)
}

/// Returns a notice if the password will leave this machine unencrypted. Only once per broker in a process, because a recorder
/// has one link per camera.
pub(super) fn open_password(config: &Config) -> Option<String> {
    static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let has_password = matches!(&config.protocol, Protocol::Mqtt(plain) if plain.password_file.is_some());
    if !has_password || config.tls || is_this_machine(tls::bare_host(&config.host)) {
        return None;
    }
    let address = config.address();
    let text = format!("user name and password go to {address} unencrypted; set tls=true if the broker has a port with TLS");
    lock(&REPORTED).insert(address).then_some(text)
}

/// Returns whether this host is the machine itself, so that nothing sent to it crosses a network.
fn is_this_machine(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // These names always mean the loopback address (RFC 6761, 6.3).
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// Reads all files again. `now` is the wall clock.
pub(super) fn read(config: &Config, now: SystemTime) -> Result<ConnectOptions, ConfigError> {
    let (login, expiry) = match &config.protocol {
        Protocol::IotCore(device) => {
            let audience = device.audience.as_deref().unwrap_or(&device.project);
            let token = jwt::mint(&device.private_key_file, audience, device.jwt_lifetime, now)?;
            let expiry = Expiry::new(token.expires_at, token.expires_in);
            // The bridge ignores the user name, but MQTT 3.1.1 allows no password without one (3.1.2.9).
            (Some(("unused".to_owned(), token.text)), Some(expiry))
        }
        Protocol::Mqtt(plain) => (login(plain)?, None),
    };
    let tls = if config.tls { Some(tls::client_config(config)?) } else { None };
    Ok(ConnectOptions { tls, login, expiry })
}

/// Returns whether the error goes away once the clock is set.
pub(super) fn is_clock(error: &ConfigError) -> bool {
    matches!(error, ConfigError::Token(TokenError::Clock { .. }))
}

fn login(plain: &Plain) -> Result<Option<(String, String)>, ConfigError> {
    let password = plain.password_file.as_deref().map(password).transpose()?;
    match (&plain.username, password) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(ConfigError::setting(
            "username",
            "a password-file is set, and MQTT takes a password only with a user name; set username",
        )),
        (Some(user), password) => Ok(Some((user.clone(), password.unwrap_or_default()))),
    }
}

fn password(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
        setting: "password-file",
        path: path.display().to_string(),
        source,
    })?;
    // One line end only, of either kind: a second one may belong to the password.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.len() > MAX_PASSWORD {
        let what = if line.is_empty() { "is empty" } else { "is too long" };
        return Err(ConfigError::setting("password-file", format!("{} {what}", path.display())));
    }
    Ok(line.to_owned())
}
