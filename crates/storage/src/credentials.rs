//! Credentials: Application Default Credentials, a credentials file, or none.
//!
//! Reads credential files and the environment. Error texts never contain their content. Loading needs no network: the first
//! request fetches the token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use google_cloud_auth::credentials::{anonymous, external_account, impersonated, mds, service_account, user_account};
use google_cloud_auth::signer::Signer;
use serde_json::Value;
use tokio::time::timeout;

use super::metadata_server::{MetadataServer, Provider};
use super::own_tasks::OwnTasks;

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// `GOOGLE_APPLICATION_CREDENTIALS`, then gcloud's own file, then the metadata server.
    ApplicationDefault,
    /// A JSON file: service account key, workload identity federation, impersonation or user.
    File(PathBuf),
    /// No credentials.
    Anonymous,
}

/// A credentials file that cannot be used. Names the file and the next step, never its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsFileError {
    /// It cannot be read.
    #[error("the credentials file {} cannot be read ({reason}); check {origin}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The setting that named it.
        origin: &'static str,
        /// The operating system's reason.
        reason: String,
    },
    /// It is not JSON.
    #[error("the credentials file {} is not JSON (line {line}); download it again, a PEM or P12 key does not work", .path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Line of the first error.
        line: usize,
    },
    /// It has no `type`.
    #[error("the credentials file {} has no \"type\": it is no credentials file; {}", .path.display(), HOW)]
    NoType {
        /// The file.
        path: PathBuf,
    },
    /// Its `type` cannot be used here.
    #[error("the credentials file {} is of type \"{kind}\", which cannot be used; {}", .path.display(), HOW)]
    UnknownType {
        /// The file.
        path: PathBuf,
        /// The type, if it is a plain word.
        kind: String,
    },
    /// A field is missing or malformed.
    #[error("the credentials file {} of type \"{kind}\" cannot be used: {reason}; download it again", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The type.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

const HOW: &str = "use a service account key (gcloud iam service-accounts keys create) or a workload identity federation file";

/// Timeout for reading a file: on an unmounted network disk, or from a pipe that nobody writes, a read blocks for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// After this time the path may lead to another file than the one whose read hangs.
const HUNG: Duration = Duration::from_secs(60);

/// Supported values of the field `type`.
const KINDS: [&str; 4] = [
    "service_account",
    "external_account",
    "impersonated_service_account",
    "authorized_user",
];

/// Credentials ready to sign requests.
pub(crate) struct Loaded {
    pub(crate) provider: Provider,
    /// Set if the file names another universe than googleapis.com.
    pub(crate) universe_domain: Option<String>,
    /// Whether they come from the metadata server and not from a file.
    pub(crate) metadata_server: bool,
}

impl Credentials {
    /// Loads the credentials to check them, and drops them. Takes at most 5 s: if a file does not answer by then, returns `Ok`,
    /// and the first request reports the problem. Must run inside tokio.
    ///
    /// # Errors
    /// [`CredentialsFileError`] with the file and what is wrong with it.
    pub async fn check(&self) -> Result<(), CredentialsFileError> {
        timeout(PATIENCE, self.load()).await.map_or(Ok(()), |loaded| loaded.map(drop))
    }

    /// Loads and checks the credentials. Must run inside tokio: a token refresher is started.
    pub(crate) async fn load(&self) -> Result<Loaded, CredentialsFileError> {
        if self == &Self::Anonymous {
            return Ok(Loaded {
                provider: Provider::Library(OwnTasks::none(anonymous::Builder::new().build())),
                universe_domain: None,
                metadata_server: false,
            });
        }
        match self.file().await? {
            Some((path, text)) => from_json(&path, &text, self == &Self::ApplicationDefault),
            None => metadata_server(),
        }
    }

    /// Returns the signer for these credentials and the universe domain: a service account key signs locally, otherwise the IAM
    /// API signs (`signBlob`). Must run inside tokio.
    pub(crate) async fn signer(&self) -> Result<(OwnTasks<Signer>, Option<String>), CredentialsFileError> {
        let Some((path, text)) = self.file().await? else {
            let universe_domain = metadata_universe();
            let builder = mds::Builder::default().with_universe_domain(universe_domain.as_deref().unwrap_or("googleapis.com"));
            let signer = OwnTasks::build(|| builder.build_signer()).map_err(|_| no_metadata_server())?;
            return Ok((signer, universe_domain));
        };
        let (kind, json) = parse(&path, &text)?;
        let universe_domain = universe_of(&json);
        let built = match kind {
            "service_account" => service_account::Builder::new(json).build_signer().map(OwnTasks::none),
            "impersonated_service_account" => OwnTasks::build(|| impersonated::Builder::new(json).build_signer()),
            _ => {
                let reason =
                    "it cannot sign addresses, which takes a service account key or an impersonated service account".to_owned();
                return Err(CredentialsFileError::Unusable { path, kind, reason });
            }
        };
        let signer = built.map_err(|error| CredentialsFileError::Unusable {
            path,
            kind,
            reason: missing_field(&error.to_string()).unwrap_or_else(|| "a field is missing or malformed".to_owned()),
        })?;
        Ok((signer, universe_domain))
    }

    /// Returns the credentials file and its text; `None` without one.
    async fn file(&self) -> Result<Option<(PathBuf, String)>, CredentialsFileError> {
        let found = match self {
            Self::Anonymous => None,
            Self::File(path) => Some((path.clone(), "credentials-file", false)),
            Self::ApplicationDefault => default_file(),
        };
        let Some((path, origin, optional)) = found else {
            return Ok(None);
        };
        match read(path.clone()).await {
            Ok(text) => Ok(Some((path, text))),
            Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CredentialsFileError::Unreadable {
                path,
                origin,
                reason: error.to_string(),
            }),
        }
    }
}

/// Returns the file of Application Default Credentials, the setting that names it, and whether it may be missing.
/// <https://cloud.google.com/docs/authentication/application-default-credentials>
fn default_file() -> Option<(PathBuf, &'static str, bool)> {
    const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Some((path.into(), VARIABLE, false));
    }
    let (variable, below) = if cfg!(windows) {
        ("APPDATA", "gcloud")
    } else {
        ("HOME", ".config/gcloud")
    };
    let root = PathBuf::from(std::env::var_os(variable)?);
    Some((
        root.join(below).join("application_default_credentials.json"),
        "gcloud auth application-default login",
        true,
    ))
}

/// Reads on tokio's blocking threads, because the file may be on a network file system. A file that does not answer blocks one
/// thread, and few more over time, however often it is read; see [`turn_at`].
async fn read(path: PathBuf) -> std::io::Result<String> {
    let turn = turn_of(&path).lock_owned().await;
    let reading = tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(path);
        // Only now: the read goes on even if its caller has given up.
        drop(turn);
        text
    });
    reading.await.map_err(std::io::Error::other)?
}

/// The lock of the reader of a file, and the time since which it has been in use without a break.
type Turn = (Instant, Arc<tokio::sync::Mutex<()>>);

/// Returns the lock that a reader of this file must hold.
fn turn_of(path: &Path) -> Arc<tokio::sync::Mutex<()>> {
    turn_at(path, Instant::now())
}

/// As [`turn_of`], at the time `now`. A lock that is held for a minute is replaced: its thread may hang in a file, or on a disk,
/// that is no longer at that path, and the current file must be readable. The next lock is replaced after two minutes, then four:
/// a hang of a week takes 14 threads.
fn turn_at(path: &Path, now: Instant) -> Arc<tokio::sync::Mutex<()>> {
    static TURNS: Mutex<BTreeMap<PathBuf, Vec<Turn>>> = Mutex::new(BTreeMap::new());
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, of_path| {
        of_path.retain(|(_, turn)| Arc::strong_count(turn) > 1);
        !of_path.is_empty()
    });
    let of_path = turns.entry(path.to_owned()).or_default();
    let patience = (1..of_path.len()).fold(HUNG, |patience, _| patience.saturating_mul(2));
    if let Some((since, turn)) = of_path.last()
        && now.saturating_duration_since(*since) < patience
    {
        return Arc::clone(turn);
    }
    let turn = Arc::default();
    of_path.push((now, Arc::clone(&turn)));
    turn
}

fn metadata_server() -> Result<Loaded, CredentialsFileError> {
    // Asks the environment, not the server: without a metadata server, such a request takes as long as a name look-up may take.
    let universe_domain = metadata_universe();
    let server = MetadataServer::from_environment(quota_project(true)).map_err(|_| no_metadata_server())?;
    let provider = Provider::Metadata(server);
    Ok(Loaded {
        provider,
        universe_domain,
        metadata_server: true,
    })
}

fn no_metadata_server() -> CredentialsFileError {
    CredentialsFileError::Unusable {
        path: PathBuf::new(),
        kind: "metadata server",
        reason: "it cannot be set up".to_owned(),
    }
}

fn metadata_universe() -> Option<String> {
    let domain = std::env::var("GOOGLE_CLOUD_UNIVERSE_DOMAIN").ok();
    domain.filter(|domain| !domain.is_empty())
}

fn universe_of(json: &Value) -> Option<String> {
    let domain = json.get("universe_domain").and_then(Value::as_str);
    let domain = domain.filter(|domain| !domain.is_empty() && *domain != "googleapis.com");
    domain.map(str::to_owned)
}

fn quota_project(application_default: bool) -> Option<String> {
    let project = std::env::var("GOOGLE_CLOUD_QUOTA_PROJECT").ok();
    project.filter(|project| application_default && !project.is_empty())
}

/// Returns the kind and content of a credentials file.
fn parse(path: &Path, text: &str) -> Result<(&'static str, Value), CredentialsFileError> {
    // Without the byte order mark that some editors write, and that JSON does not allow.
    let json: Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| CredentialsFileError::NotJson {
            path: path.to_owned(),
            line: error.line(),
        })?;
    let Some(kind) = json.get("type").and_then(Value::as_str) else {
        return Err(CredentialsFileError::NoType { path: path.to_owned() });
    };
    match KINDS.into_iter().find(|known| *known == kind) {
        Some(known) => Ok((known, json)),
        None => {
            // Not quoted as it is: the value may be a key in the wrong field.
            let plain = kind.len() <= 40 && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let kind = if plain { kind } else { "?" }.to_owned();
            Err(CredentialsFileError::UnknownType {
                path: path.to_owned(),
                kind,
            })
        }
    }
}

fn from_json(path: &Path, text: &str, application_default: bool) -> Result<Loaded, CredentialsFileError> {
    let (kind, json) = parse(path, text)?;
    let universe_domain = universe_of(&json);
    let quota = quota_project(application_default);
    // A macro, because the builders are different types without a common trait.
    macro_rules! build {
        ($module:ident) => {
            quota
                .into_iter()
                .fold($module::Builder::new(json), |builder, project| {
                    builder.with_quota_project_id(project)
                })
                .build()
        };
    }
    let built = match kind {
        // Signs its tokens locally, so no task of it can hang on a server.
        "service_account" => build!(service_account).map(OwnTasks::none),
        "external_account" => OwnTasks::build(|| build!(external_account)),
        "impersonated_service_account" => OwnTasks::build(|| build!(impersonated)),
        _ => OwnTasks::build(|| build!(user_account)),
    };
    let provider = built.map_err(|error| CredentialsFileError::Unusable {
        path: path.to_owned(),
        kind,
        reason: missing_field(&error.to_string()).unwrap_or_else(|| "a field is missing or malformed".to_owned()),
    })?;
    Ok(Loaded {
        provider: Provider::Library(provider),
        universe_domain,
        metadata_server: false,
    })
}

/// Returns the name of a missing field: the only part of a parser's error that is safe to quote.
fn missing_field(text: &str) -> Option<String> {
    let (_, tail) = text.split_once("missing field `")?;
    let (field, _) = tail.split_once('`')?;
    Some(format!("the field \"{field}\" is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let Err(error) = from_json(Path::new("/etc/cam/key.json"), text, false) else {
            panic!("{text} was taken")
        };
        error.to_string()
    }

    #[tokio::test]
    async fn a_broken_file_is_named_with_its_fault_and_never_quoted() {
        for (text, says) in [
            ("", "not JSON (line 1)"),
            ("-----BEGIN PRIVATE KEY-----SECRET", "not JSON"),
            (r#"{"installed":{"client_secret":"SECRET"}}"#, "has no \"type\""),
            (r#""SECRET""#, "has no \"type\""),
            (r#"{"type":5}"#, "has no \"type\""),
            (
                r#"{"type":"gdch_service_account","private_key":"SECRET"}"#,
                "\"gdch_service_account\", which cannot be used",
            ),
            (r#"{"type":"SECRET key"}"#, "of type \"?\""),
            (r#"{"type":"service_account","private_key":"SECRET"}"#, "is missing"),
            (
                r#"{"type":"service_account","client_email":"a","private_key":"SECRET","private_key_id":{"x":"SECRET"},"project_id":"p"}"#,
                "malformed",
            ),
            (r#"{"type":"external_account","audience":"SECRET"}"#, "is missing"),
        ] {
            let error = error(text);
            assert!(error.contains(says), "{text}: {error}");
            assert!(error.contains("/etc/cam/key.json") && !error.contains("SECRET"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_names_the_property() {
        let Err(error) = Credentials::File("/nonexistent/key.json".into()).load().await else {
            panic!()
        };
        let text = error.to_string();
        assert!(
            text.contains("/nonexistent/key.json") && text.contains("credentials-file"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_file_that_does_not_answer_is_no_fault_holds_up_nobody_and_takes_one_thread() {
        let pipe = std::env::temp_dir().join(format!("gcs-never-{}.json", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let credentials = Credentials::File(pipe.clone());
        let began = std::time::Instant::now();
        assert_eq!(tokio::join!(credentials.check(), credentials.check()), (Ok(()), Ok(())));
        assert!(began.elapsed() < PATIENCE + Duration::from_secs(3), "{:?}", began.elapsed());
        // One of the two reads; this is the end of what it reads.
        let turn = turn_of(&pipe);
        assert!(turn.try_lock().is_err());
        drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
        drop(timeout(Duration::from_secs(5), turn.lock()).await.unwrap());
        std::fs::remove_file(&pipe).unwrap();
    }

    #[tokio::test]
    async fn a_good_file_in_place_of_one_that_does_not_answer_is_read_after_a_minute() {
        let path = std::env::temp_dir().join(format!("gcs-replaced-{}.json", std::process::id()));
        let away = path.with_extension("away");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let began = Instant::now();
        assert!(timeout(Duration::from_millis(200), read(path.clone())).await.is_err());
        std::fs::rename(&path, &away).unwrap();
        std::fs::write(&path, "good").unwrap();
        assert!(turn_at(&path, began + HUNG / 2).try_lock().is_err());
        // Held here, as by one who waits; what hangs as well is given twice the time.
        let next = turn_at(&path, Instant::now() + HUNG);
        let text = timeout(Duration::from_secs(5), read(path.clone())).await;
        assert_eq!(text.expect("its turn is held for ever").unwrap(), "good");
        assert!(Arc::ptr_eq(&next, &turn_at(&path, Instant::now() + HUNG * 5 / 2)));
        assert!(!Arc::ptr_eq(&next, &turn_at(&path, Instant::now() + HUNG * 4)));
        drop(std::fs::OpenOptions::new().write(true).open(&away).unwrap());
        for file in [path, away] {
            std::fs::remove_file(file).unwrap();
        }
    }

    #[tokio::test]
    async fn every_known_type_is_built_without_a_network() {
        for text in [
            r#"{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}"#,
            r#"{"type":"external_account","audience":"a","subject_token_type":"urn:ietf:params:oauth:token-type:jwt","token_url":"https://sts.invalid/","credential_source":{"file":"/x"}}"#,
            r#"{"type":"impersonated_service_account","service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken","source_credentials":{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}}"#,
            "\u{feff}{\"type\":\"service_account\",\"client_email\":\"a\",\"private_key_id\":\"i\",\"private_key\":\"k\",\"project_id\":\"p\"}",
        ] {
            assert!(from_json(Path::new("k"), text, false).is_ok(), "{text}");
        }
    }

    #[tokio::test]
    async fn another_universe_is_taken_from_the_file() {
        let text = r#"{"type":"service_account","client_email":"a","private_key_id":"i","private_key":"k","project_id":"p","universe_domain":"u.example"}"#;
        let Ok(loaded) = from_json(Path::new("k"), text, false) else {
            panic!()
        };
        assert_eq!(loaded.universe_domain.as_deref(), Some("u.example"));
    }
}
