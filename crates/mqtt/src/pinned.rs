//! Trust in the certificates of `root-certificates`: as authorities, and as the broker's own certificate.
//!
//! A certificate made by `openssl req -x509` is self-signed and marked CA:TRUE. rustls accepts such a certificate only as an
//! authority and refuses it as a server's own; OpenSSL's clients accept it. Here a server that presents exactly one of the given
//! certificates, byte for byte, is accepted as well. Name and dates are still checked, and the handshake proves that the server
//! has the key. One of X.509 version 1, which rustls cannot read as a server's own, is read by `version1`.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::error_text::{is_ca_as_server, is_version_1};
use super::tls::TlsError;
use super::version1;

/// Accepts certificates signed by the authorities, and the given certificates themselves.
#[derive(Debug)]
pub(super) struct PinnedOrSigned {
    signed: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedOrSigned {
    /// Creates the verifier. `roots` must hold the same certificates as `pinned`.
    ///
    /// # Errors
    /// Returns an error if there is no root.
    pub(super) fn new(
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, TlsError> {
        let algorithms = provider.signature_verification_algorithms;
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsError::Setup(error.to_string()))?;
        Ok(Arc::new(Self {
            signed,
            pinned,
            algorithms,
        }))
    }

    /// Checks a signature by a pinned certificate of version 1 where `checked` failed because it is one.
    fn signature(
        &self,
        checked: Result<HandshakeSignatureValid, Error>,
        (message, certificate, signature): (&[u8], &CertificateDer<'_>, &DigitallySignedStruct),
        is_tls13: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        match checked {
            Err(Error::InvalidCertificate(reason)) if is_version_1(&reason) && self.pinned.contains(certificate) => {
                version1::check_signature(certificate, message, signature, &self.algorithms, is_tls13)
            }
            checked => checked,
        }
    }
}

impl ServerCertVerifier for PinnedOrSigned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self
            .signed
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if !self.pinned.contains(end_entity) {
            return verdict;
        }
        match verdict {
            // Its dates were checked before.
            Err(Error::InvalidCertificate(reason)) if is_ca_as_server(&reason) => {
                let name = rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
                accept_name(name, end_entity, server_name)
            }
            Err(Error::InvalidCertificate(reason)) if is_version_1(&reason) => {
                version1::check_dates(end_entity, now)?;
                if !has_common_name(end_entity, &server_name.to_str()) {
                    return Err(CertificateError::NotValidForName.into());
                }
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => accept_name(Err(error), end_entity, server_name),
            Ok(valid) => Ok(valid),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let checked = self.signed.verify_tls12_signature(message, cert, dss);
        self.signature(checked, (message, cert, dss), false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let checked = self.signed.verify_tls13_signature(message, cert, dss);
        self.signature(checked, (message, cert, dss), true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Accepts a certificate without any subjectAltName by its common name, as OpenSSL does.
fn accept_name(
    checked: Result<(), Error>,
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
) -> Result<ServerCertVerified, Error> {
    match checked {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
            if presented.is_empty() && has_common_name(certificate, &server_name.to_str()) =>
        {
            Ok(ServerCertVerified::assertion())
        }
        checked => checked.map(|()| ServerCertVerified::assertion()),
    }
}

/// Returns whether a common name (OID 2.5.4.3) of the certificate is `name`. In a self-signed certificate issuer and subject are
/// the same, so it does not matter which one is found.
fn has_common_name(certificate: &[u8], name: &str) -> bool {
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    certificate.windows(COMMON_NAME.len()).enumerate().any(|(at, oid)| {
        // A string type, a length below 128, the text.
        let value = certificate.get(at.saturating_add(COMMON_NAME.len())..).unwrap_or_default();
        match value {
            [_, length, text @ ..] if oid == COMMON_NAME && *length < 128 => text
                .get(..usize::from(*length))
                .is_some_and(|text| text.eq_ignore_ascii_case(name.as_bytes())),
            _ => false,
        }
    })
}
