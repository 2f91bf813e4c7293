//! The files that a configuration names: whether they can be used, and the passwords in them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use gcstreamer_storage::Credentials;

/// A password, by the file that holds it. Read when it is used, so that a new one needs no restart.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(PathBuf);

impl Secret {
    /// Names the file.
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the password; one trailing newline is not part of it. So a newline alone is the empty password, which cameras have that were
    /// never set up; a file without a byte is one that was not written.
    ///
    /// # Errors
    /// Why the file cannot be used, without what it holds.
    pub fn read(&self) -> Result<Password, String> {
        let path = self.0.display();
        let text = std::fs::read(&self.0).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let text = String::from_utf8(text).map_err(|_| format!("{path} is not text in UTF-8"))?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        match password {
            "" if text.is_empty() => Err(format!(
                "{path} is empty; write the password into it, or a newline alone for a camera's empty password"
            )),
            _ if password.contains(['\n', '\r', '\0']) => {
                Err(format!("{path} has more than one line; write the password alone into it"))
            }
            _ => Ok(Password(password.to_owned())),
        }
    }
}

/// A password that was read. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Returns it in clear, for the camera.
    pub fn clear(&self) -> &str {
        &self.0
    }

    /// Returns a number, not 0, that changes with it.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish() | 1
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.0.display())
    }
}

/// Whether a file can be read.
///
/// # Errors
/// The system's error.
pub(super) fn check_readable(path: &Path) -> Result<(), String> {
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() || !metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("{} is a folder", path.display())),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Whether a file holds certificates. One that cannot be read is no concern of this.
///
/// # Errors
/// What it lacks, and how to make one.
pub(super) fn check_certificates(path: &Path) -> Result<(), String> {
    match std::fs::read(path) {
        Ok(text) if !String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") => Err(format!(
            "{} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); of one in DER makes it: openssl x509 -inform der -in FILE",
            path.display()
        )),
        _ => Ok(()),
    }
}

/// Whether a file holds credentials of Cloud Storage. One that cannot be read is no concern of this. Not to be called by a task of tokio.
///
/// # Errors
/// What is wrong with it, without what it holds.
pub(super) fn check_credentials(path: &Path) -> Result<(), String> {
    if std::fs::File::open(path).is_err() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("{} cannot be checked: {error}", path.display()))?;
    let checked = runtime.block_on(Credentials::File(path.to_owned()).check());
    checked.map_err(|error| error.to_string())
}

/// Whether `spool-dir` is there or can be made: its parent must exist.
///
/// # Errors
/// What is missing and what to do.
pub(super) fn check_folder(path: &Path) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(format!("{} is not a folder", path.display())),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{} cannot be used: {error}", path.display()));
        }
        Err(_) => {}
    }
    match path
        .parent()
        .filter(|parent| parent.is_dir() || parent.as_os_str().is_empty())
    {
        Some(_) => Ok(()),
        None => Err(format!(
            "{} cannot be made: the folder above it does not exist; create that, or mount what belongs there",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_file_without_one_newline_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let secret = Secret::in_file(folder.path().join("pw"));
        let write = |text: &str| std::fs::write(secret.path(), text).unwrap();
        write("hunter2\n");
        let read = || secret.read().unwrap();
        let mark = || read().mark();
        assert_eq!(read().clear(), "hunter2");
        assert!(!format!("{:?}", read()).contains("hunter"));
        let before = mark();
        write("hunter2");
        assert_eq!(mark(), before, "the same password");
        write("other\r\n");
        assert_eq!(read().clear(), "other");
        assert_ne!(mark(), before);
        // Of a camera that was never set up.
        write("\n");
        assert_eq!(read().clear(), "");
        assert!(mark() != 0 && mark() != before);
        for text in ["", "hunter2\nhunter3\n"] {
            write(text);
            let error = secret.read().unwrap_err();
            assert!(error.contains("write the password") && !error.contains("hunter"), "{error}");
        }
        assert!(!format!("{secret:?}").contains("hunter"));
    }

    #[test]
    fn a_spool_folder_may_be_made_but_not_its_parents() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check_folder(folder.path()), Ok(()));
        assert_eq!(check_folder(&folder.path().join("spool")), Ok(()));
        assert!(check_folder(&folder.path().join("a/b")).unwrap_err().contains("above it"));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(check_folder(&file).unwrap_err().contains("not a folder"));
    }
}
