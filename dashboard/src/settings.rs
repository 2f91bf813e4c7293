//! The command line and the environment, checked before anything starts.
//!
//! Reads the files that the settings name.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{FalseyValueParser, Resettable};
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use gcstreamer_schema::cameras::{self, Camera};
use gcstreamer_schema::limits::check_bucket;
use gcstreamer_schema::name::Template;
use gcstreamer_schema::time;
use gcstreamer_storage::{Credentials, Endpoint};

use crate::command::{ExportFlags, VerifyFlags};
use crate::iap::{self, IapSettings, Source};
use crate::mqtt::Broker;

/// The default of `gcssink`'s property `location`.
pub const DEFAULT_LOCATION: &str = "{device}/%Y/%m/%d/%Y%m%dT%H%M%S.%3fZ_{session}_{seq}.{ext}";
/// Longest silence of the bucket before a request fails: a viewer is waiting for the answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest accepted token, in bytes: a shorter one can be guessed.
const MIN_TOKEN: usize = 16;

/// See the cameras that gcssink records into Cloud Storage, and watch what was recorded.
#[derive(Debug, Parser)]
#[command(name = "gcstreamer-dashboard", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of serve.
    #[command(flatten)]
    pub serve: Flags,
}

impl Cli {
    /// Parses the command line and the environment. Exits the process with clap's message if they are invalid.
    ///
    /// An empty variable counts as unset: systemd unit files and container manifests leave a setting out that way.
    pub fn read() -> Self {
        let command = Self::command().mut_args(without_empty);
        let command = command.mut_subcommands(|command| command.mut_args(without_empty));
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

fn without_empty(arg: Arg) -> Arg {
    let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(Resettable::Reset) } else { arg }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the page (the default)
    Serve(Box<Flags>),
    /// Write what was recorded of a camera between two times into a file
    Export(Box<ExportFlags>),
    /// Compare an exported file with its manifest, offline: proves damage, not forgery
    Verify(VerifyFlags),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How recordings that play as they are reach a player.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Delivery {
    /// Through the dashboard.
    #[default]
    Proxy,
    /// From the bucket, by an address that is signed for ten minutes.
    Redirect,
}

/// How a bucket with recordings is read: flags of serve and of export.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// Server to ask instead of Google's, e.g. http://localhost:4443; http:// gets no credentials
    #[arg(long, env = "GCSTREAMER_DASHBOARD_ENDPOINT_URI")]
    pub endpoint_uri: Option<String>,
    /// Service account key or external account file [default: Application Default Credentials]
    #[arg(long, env = "GCSTREAMER_DASHBOARD_CREDENTIALS_FILE")]
    pub credentials_file: Option<PathBuf>,
    /// Object names, as the property location of gcssink; must hold {device}
    #[arg(long, env = "GCSTREAMER_DASHBOARD_LOCATION", default_value = DEFAULT_LOCATION)]
    pub location: String,
}

impl Reading {
    /// Checks the server's address.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        Endpoint::from_environment(self.endpoint_uri.as_deref()).map_err(|error| error.to_string())
    }

    /// Returns which credentials to use. Does not read the file yet.
    pub fn credentials(&self) -> Credentials {
        let file = self.credentials_file.clone();
        file.map_or(Credentials::ApplicationDefault, Credentials::File)
    }
}

/// Checks the flag `--location`.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn template(location: &str) -> Result<Template, String> {
    if !location.contains("{device}") {
        return Err("--location must hold {device}: without it a name does not tell whose chunk it is".into());
    }
    Template::parse(location).map_err(|error| format!("--{error}"))
}

/// The flags of serve; each is also read from the environment.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// Bucket with the recordings
    #[arg(long, env = "GCSTREAMER_DASHBOARD_BUCKET")]
    pub bucket: Option<String>,
    /// How to read it.
    #[command(flatten)]
    pub reading: Reading,
    /// Recorder's file whose cameras are shown even if they never uploaded; may be given more than once
    #[arg(
        long = "cameras",
        value_name = "RECORDER.toml",
        env = "GCSTREAMER_DASHBOARD_CAMERAS",
        value_delimiter = ','
    )]
    pub cameras: Vec<PathBuf>,
    /// Address and port to listen on
    #[arg(long, env = "GCSTREAMER_DASHBOARD_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Who may see it: none (loopback only), token:FILE, or iap:AUDIENCE (behind Google's Identity-Aware Proxy)
    #[arg(long, env = "GCSTREAMER_DASHBOARD_AUTH", default_value = "none")]
    pub auth: String,
    /// For tests: address or file of the JWK set that --auth iap: checks with, instead of Google's
    #[arg(
        long,
        value_name = "URL|FILE",
        env = "GCSTREAMER_DASHBOARD_IAP_KEYS",
        default_value = iap::GOOGLE,
        hide = true
    )]
    pub iap_keys: String,
    /// MQTT broker that the cameras report to; their badges say more then
    #[arg(long, env = "GCSTREAMER_DASHBOARD_MQTT_HOST")]
    pub mqtt_host: Option<String>,
    /// Its port [default: 1883, or 8883 with --mqtt-tls]
    #[arg(long, env = "GCSTREAMER_DASHBOARD_MQTT_PORT")]
    pub mqtt_port: Option<u16>,
    /// User name at the broker
    #[arg(long, env = "GCSTREAMER_DASHBOARD_MQTT_USERNAME")]
    pub mqtt_username: Option<String>,
    /// File with the password at the broker
    #[arg(long, env = "GCSTREAMER_DASHBOARD_MQTT_PASSWORD_FILE")]
    pub mqtt_password_file: Option<PathBuf>,
    /// Speak TLS to the broker
    #[arg(long, env = "GCSTREAMER_DASHBOARD_MQTT_TLS", value_parser = FalseyValueParser::new())]
    pub mqtt_tls: bool,
    /// How recordings that play as they are reach a player: proxy (through the dashboard), or redirect (from the bucket, by
    /// signed URLs)
    #[arg(long, env = "GCSTREAMER_DASHBOARD_DELIVERY", default_value = "proxy")]
    pub delivery: Delivery,
    /// Folder for listings of finished hours; kept over restarts
    #[arg(long, env = "GCSTREAMER_DASHBOARD_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// How log lines are written
    #[arg(long, env = "GCSTREAMER_DASHBOARD_LOG", default_value = "text")]
    pub log: LogFormat,
}

/// Who may see the dashboard.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Everybody on this machine.
    None,
    /// Users who have this token.
    Token(String),
    /// Users whom Google's Identity-Aware Proxy has authenticated.
    Iap(IapSettings),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Iap(settings) => f.debug_tuple("Iap").field(settings).finish(),
        }
    }
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the bucket.
    pub bucket: String,
    /// Address of Cloud Storage, or of the server used instead.
    pub endpoint: Endpoint,
    /// Credentials for the endpoint.
    pub credentials: Credentials,
    /// Template of the object names.
    pub template: Template,
    /// Cameras of the `--cameras` files, in the order of the files.
    pub cameras: Vec<Camera>,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Who may see it.
    pub auth: Auth,
    /// How recordings that play as they are reach a player.
    pub delivery: Delivery,
    /// Folder that caches listings of finished hours.
    pub cache_dir: Option<PathBuf>,
    /// MQTT broker that the cameras report to.
    pub broker: Option<Broker>,
    /// Longest silence of the bucket before a request fails.
    pub request_timeout: Duration,
}

impl Flags {
    fn broker(&self) -> Result<Option<Broker>, String> {
        let Some(host) = self.mqtt_host.clone().filter(|host| !host.is_empty()) else {
            let others = self.mqtt_port.is_some() || self.mqtt_username.is_some() || self.mqtt_password_file.is_some();
            return if others || self.mqtt_tls {
                Err("--mqtt-host is missing: the other flags of MQTT mean nothing without it".into())
            } else {
                Ok(None)
            };
        };
        let broker = Broker {
            host,
            port: self.mqtt_port.unwrap_or(0),
            username: self.mqtt_username.clone(),
            password_file: self.mqtt_password_file.clone(),
            tls: self.mqtt_tls,
        };
        broker.check().map_err(|error| format!("--mqtt-{error}"))?;
        Ok(Some(broker))
    }

    /// Checks all flags and reads the files that they name. Creates the cache folder.
    ///
    /// # Errors
    /// A text that says what is wrong and what to do.
    pub fn check(&self) -> Result<Settings, String> {
        let bucket = self
            .bucket
            .clone()
            .ok_or("--bucket is missing: the bucket that gcssink records into")?;
        check_bucket(&bucket).map_err(|fault| format!("--bucket: {fault}"))?;
        let endpoint = self.reading.endpoint()?;
        if self.delivery == Delivery::Redirect && !endpoint.takes_credentials() {
            return Err(format!(
                "--delivery redirect: {} takes no credentials, so addresses for it cannot be signed; use --delivery proxy",
                endpoint.as_str()
            ));
        }
        let credentials = self.reading.credentials();
        let template = template(&self.reading.location)?;
        let mut cameras: Vec<Camera> = Vec::new();
        for path in &self.cameras {
            let text = std::fs::read_to_string(path).map_err(|error| format!("--cameras {}: {error}", path.display()))?;
            let listed = cameras::from_toml(&text).map_err(|fault| format!("{}:{fault}", path.display()))?;
            for Camera { id, time_zone, .. } in &listed {
                if let Some(zone) = time_zone.as_deref().filter(|zone| time::zone(zone).is_none()) {
                    let path = path.display();
                    return Err(format!(
                        "--cameras {path}: {id}: time-zone \"{zone}\" is not known; write it as Europe/Berlin"
                    ));
                }
            }
            cameras.extend(listed);
        }
        let auth = auth(&self.auth, &self.iap_keys)?;
        if auth == Auth::None && !self.listen.ip().is_loopback() {
            return Err(format!(
                "--listen {} is reachable from other machines, and --auth none lets everybody in without a login; use --auth token:FILE or iap:AUDIENCE, or listen on 127.0.0.1",
                self.listen
            ));
        }
        if let Some(folder) = &self.cache_dir {
            std::fs::create_dir_all(folder).map_err(|error| format!("--cache-dir {}: {error}", folder.display()))?;
        }
        Ok(Settings {
            bucket,
            endpoint,
            credentials,
            template,
            cameras,
            listen: self.listen,
            auth,
            delivery: self.delivery,
            cache_dir: self.cache_dir.clone(),
            broker: self.broker()?,
            request_timeout: REQUEST_TIMEOUT,
        })
    }
}

fn auth(text: &str, iap_keys: &str) -> Result<Auth, String> {
    match text.split_once(':') {
        None if text == "none" => Ok(Auth::None),
        Some(("token", path)) => token(Path::new(path)).map(Auth::Token),
        Some(("iap", audience)) => audience_of(audience).map(|audience| {
            let keys = keys_from(iap_keys);
            Auth::Iap(IapSettings { audience, keys })
        }),
        _ => Err("--auth must be none, token:FILE or iap:AUDIENCE".into()),
    }
}

/// Checks the audience of `--auth iap:`. Rejects white space: the audience is compared byte by byte, so a space or line break
/// that was copied along with it would lock everybody out.
fn audience_of(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "--auth iap:{}: the audience is empty or holds a space; copy the \"Signed Header JWT Audience\" of the IAP page, as /projects/NUMBER/global/backendServices/ID",
            text.escape_debug()
        ));
    }
    Ok(text.to_owned())
}

fn keys_from(text: &str) -> Source {
    if text.starts_with("https://") || text.starts_with("http://") {
        Source::Url(text.to_owned())
    } else {
        Source::File(text.into())
    }
}

fn token(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("--auth token:{}: {error}", path.display()))?;
    let token = text.strip_suffix('\n').unwrap_or(&text);
    // Editors on Windows end lines with CR LF.
    let token = token.strip_suffix('\r').unwrap_or(token);
    if token.len() < MIN_TOKEN {
        return Err(format!(
            "--auth token:{}: the token has {} characters and can be guessed; use at least {MIN_TOKEN}, e.g. openssl rand -base64 24",
            path.display(),
            token.len()
        ));
    }
    // Headers are read as ASCII: any other token could never be sent as `Authorization`.
    if token.chars().any(|c| c.is_control() || !c.is_ascii()) {
        return Err(format!(
            "--auth token:{}: the token holds a line break, or what is not ASCII",
            path.display()
        ));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<Settings, String> {
        let cli = Cli::try_parse_from([&["gcstreamer-dashboard"], arguments].concat()).map_err(|error| error.to_string())?;
        match cli.command {
            Some(Command::Serve(flags)) => flags.check(),
            Some(other) => Err(format!("{other:?}")),
            None => cli.serve.check(),
        }
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        for arguments in [&["--bucket", "cams"][..], &["serve", "--bucket", "cams"]] {
            let settings = check(arguments).unwrap();
            assert_eq!(
                (settings.bucket.as_str(), settings.listen.to_string().as_str()),
                ("cams", "127.0.0.1:8080")
            );
            assert_eq!(settings.auth, Auth::None);
        }
    }

    #[test]
    fn a_fault_is_named_with_what_to_do() {
        for (arguments, expected) in [
            (&[][..], "--bucket is missing"),
            (&["--bucket", "UPPER"], "--bucket: "),
            (&["--bucket", "cams", "--mqtt-port", "1883"], "--mqtt-host is missing"),
            (
                &["--bucket", "cams", "--mqtt-host", "h", "--mqtt-password-file", "/nonexistent"],
                "--mqtt-password-file: /nonexistent",
            ),
            (&["--bucket", "cams", "--listen", "0.0.0.0:80"], "use --auth token:FILE"),
            (&["--bucket", "cams", "--listen", "[::]:80"], "use --auth token:FILE"),
            (
                &["--bucket", "cams", "--auth", "iap"],
                "--auth must be none, token:FILE or iap:AUDIENCE",
            ),
            (
                &["--bucket", "cams", "--auth", "iap:"],
                "the audience is empty or holds a space",
            ),
            (
                &["--bucket", "cams", "--auth", "iap:/projects/1/apps/x "],
                "the audience is empty or holds a space",
            ),
            (
                &["--bucket", "cams", "--auth", "token:/nonexistent"],
                "--auth token:/nonexistent",
            ),
            (
                &["--bucket", "cams", "--location", "{session}_{seq}"],
                "--location must hold {device}",
            ),
            (
                &["--bucket", "cams", "--cameras", "/nonexistent.toml"],
                "--cameras /nonexistent.toml",
            ),
            (
                &[
                    "--bucket",
                    "cams",
                    "--delivery",
                    "redirect",
                    "--endpoint-uri",
                    "http://localhost:4443",
                ],
                "cannot be signed; use --delivery proxy",
            ),
            (&["--bucket", "cams", "--endpoint-uri", "ftp://x"], "endpoint-uri"),
        ] {
            let fault = check(arguments).unwrap_err();
            assert!(fault.contains(expected), "{arguments:?}: {fault}");
        }
    }

    #[test]
    fn a_token_is_read_from_its_file_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            check(&[
                "--bucket",
                "cams",
                "--listen",
                "0.0.0.0:80",
                "--auth",
                &format!("token:{}", path.display()),
            ])
        };
        let settings = with("0123456789abcdef\n").unwrap();
        assert_eq!(settings.auth, Auth::Token("0123456789abcdef".into()));
        assert!(!format!("{settings:?}").contains("0123456789abcdef"));
        assert!(with("short\n").unwrap_err().contains("5 characters"));
        assert!(with("0123456789abcdef\n\n").unwrap_err().contains("line break"));
    }

    #[test]
    fn behind_iap_it_may_listen_beyond_loopback_and_checks_by_googles_keys() {
        let audience = "/projects/1/global/backendServices/2";
        let auth = format!("iap:{audience}");
        let with = |more: &[&str]| {
            let arguments = [&["--bucket", "cams", "--listen", "0.0.0.0:80", "--auth", &auth], more].concat();
            check(&arguments).unwrap().auth
        };
        let iap = |keys| {
            Auth::Iap(IapSettings {
                audience: audience.into(),
                keys,
            })
        };
        assert_eq!(
            with(&[]),
            iap(Source::Url("https://www.gstatic.com/iap/verify/public_key-jwk".into()))
        );
        assert_eq!(with(&["--iap-keys", "keys.json"]), iap(Source::File("keys.json".into())));
    }

    #[test]
    fn listed_cameras_are_those_of_all_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(&path, "[[camera]]\nid = \"a/b\"\nurl = \"rtsp://x\"\n").unwrap();
        let path = path.display().to_string();
        let settings = check(&["--bucket", "cams", "--cameras", &path, "--cameras", &path]).unwrap();
        assert_eq!(settings.cameras.len(), 2);
    }
}
