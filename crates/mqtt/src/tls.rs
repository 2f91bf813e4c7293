//! Our own rustls configuration: the aws-lc provider by name, the system's roots or a file's, a client certificate.
//!
//! Does not use the process's default provider, which may be missing or a different one, and cannot panic.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::Config;
use super::pinned::PinnedOrSigned;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system has no certificate authorities.
    #[error(
        "this system has no usable certificate authorities ({0}); install them (Debian: apt install ca-certificates) or set \
         root-certificates to a PEM file"
    )]
    NoSystemRoots(String),
    /// A PEM file that cannot be used.
    #[error("{setting} {path}: {reason}")]
    File {
        /// Name of the setting as the element's property.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate or key is missing.
    #[error("client-certificate and client-key go together: {0} is missing")]
    HalfPair(&'static str),
    /// Certificate and key do not match.
    #[error("client-certificate and client-key cannot be used: {0}")]
    Pair(String),
    /// No certificate can be checked against this host.
    #[error("host: \"{0}\" is neither a DNS name nor an address; a certificate cannot be checked against it")]
    Host(String),
    /// The provider and the protocol versions do not fit.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Reads the certificates and makes a configuration.
pub(super) fn client_config(config: &Config) -> Result<Arc<ClientConfig>, TlsError> {
    if ServerName::try_from(bare_host(&config.host)).is_err() {
        return Err(TlsError::Host(config.host.clone()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    let builder = match &config.root_certificates {
        // Also a broker's own certificate: users without an authority have only that.
        Some(path) => {
            let pinned = certificates("root-certificates", path)?;
            let roots = roots_of(path, &pinned)?;
            let verifier = PinnedOrSigned::new(roots, pinned, provider)?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        None => builder.with_root_certificates(system_roots()?),
    };
    let config = match (&config.client_certificate, &config.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => return Err(TlsError::HalfPair("client-key")),
        (None, Some(_)) => return Err(TlsError::HalfPair("client-certificate")),
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(certificates("client-certificate", certificate)?, client_key(key)?)
            .map_err(|error| TlsError::Pair(error.to_string()))?,
    };
    Ok(Arc::new(config))
}

/// Returns an address without the brackets of IPv6 in URLs.
pub(super) fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One certificate that cannot be parsed must not prevent TLS.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found
            .errors
            .first()
            .map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemRoots(reason));
    }
    Ok(roots)
}

fn roots_of(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| wrong("root-certificates", path, error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = std::fs::read(path).map_err(|error| wrong(setting, path, format!("cannot be read: {error}")))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(
            setting,
            path,
            "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned(),
        )),
        Err(error) => Err(wrong(setting, path, format!("is not readable PEM: {error:?}"))),
    }
}

fn client_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = std::fs::read(path).map_err(|error| wrong("client-key", path, format!("cannot be read: {error}")))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| wrong("client-key", path, "holds no unencrypted private key in PEM form".to_owned()))
}

fn wrong(setting: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::File {
        setting,
        path: path.display().to_string(),
        reason,
    }
}
