//! Checks the files that a configuration names, and reads passwords.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use gcstreamer_storage::Credentials;

/// The file of a password. It is read at each use, so that a changed password needs no restart.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(PathBuf);

impl Secret {
    /// Creates a secret from the name of its file. Does not read it.
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the name of the file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the password. One newline at the end of the file is not part of it.
    ///
    /// A newline alone is therefore the empty password, of cameras that were never set up. A file of 0 bytes is an error: it was
    /// not written yet.
    ///
    /// # Errors
    /// Why the file cannot be used. The text contains nothing of the file.
    pub fn read(&self) -> Result<Password, String> {
        let path = self.0.display();
        let text = std::fs::read(&self.0).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let text = String::from_utf8(text).map_err(|_| format!("{path} is not text in UTF-8"))?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        // Editors on Windows end lines with CR LF.
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

/// A password that was read. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Returns the password in clear text, for the camera.
    pub fn clear(&self) -> &str {
        &self.0
    }

    /// Returns a number other than 0 that changes with the password.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        // Never 0, which means "no password".
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

/// Checks that a file can be read.
///
/// # Errors
/// The system's error.
pub(super) fn check_readable(path: &Path) -> Result<(), String> {
    // Opened: metadata alone do not show whether this user may read the file.
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() || !metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("{} is a folder", path.display())),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Checks that a file contains certificates. Ignores a file that cannot be read: [`check_readable`] reports that.
///
/// # Errors
/// The file contains none. The text says how to create one.
pub(super) fn check_certificates(path: &Path) -> Result<(), String> {
    match std::fs::read(path) {
        Ok(text) if !String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") => Err(format!(
            "{} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); of one in DER makes it: openssl x509 -inform der -in FILE",
            path.display()
        )),
        _ => Ok(()),
    }
}

/// Checks that a file contains credentials of Cloud Storage. Ignores a file that cannot be read: [`check_readable`] reports that.
/// Must not be called from a tokio task, because it blocks on a runtime of its own.
///
/// # Errors
/// What is wrong with the file. The text contains nothing of it.
pub(super) fn check_credentials(path: &Path) -> Result<(), String> {
    if std::fs::File::open(path).is_err() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("{} cannot be checked: {error}", path.display()))?;
    let checked = runtime.block_on(Credentials::File(path.to_owned()).check());
    checked.map_err(|error| error.to_string())
}

/// Checks that `spool-dir` exists or can be created, for which its parent must exist.
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
        // The empty password of a camera that was never set up.
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
