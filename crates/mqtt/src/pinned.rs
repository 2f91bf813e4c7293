//! Trust in the certificates of `root-certificates`: as authorities, and as the broker's own certificate.
//!
//! A certificate made by `openssl req -x509` is self-signed and marked CA:TRUE. rustls accepts such a certificate only as an
//! authority and refuses it as a server's own; OpenSSL's clients accept it. Here a server that presents exactly one of the given
//! certificates, byte for byte, is accepted as well. Name and dates are still checked, and the handshake proves that the server
//! has the key. `version1` checks a certificate of X.509 version 1, which rustls cannot parse as a server's own.
//!
//! A certificate without a subjectAltName, such as one made by the recipe in mosquitto's manual, has only a common name, which
//! rustls ignores. The authorities of `root-certificates` are the user's own, so the common name is accepted here.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::der::common_names;
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

    /// Returns `checked`, unless it failed because a pinned certificate is of version 1: then checks the signature with the key
    /// of that certificate.
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
        let is_pinned = self.pinned.contains(end_entity);
        match verdict {
            Ok(valid) => Ok(valid),
            // rustls checks the name last: a certificate that fails only there is valid otherwise.
            Err(error) if !is_pinned => accept_name(Err(error), end_entity, server_name),
            // rustls has checked its dates by then, but not its name.
            Err(Error::InvalidCertificate(reason)) if is_ca_as_server(&reason) => {
                let name = rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
                accept_name(name, end_entity, server_name)
            }
            Err(Error::InvalidCertificate(reason)) if is_version_1(&reason) => {
                version1::check_dates(end_entity, now)?;
                if !common_names(end_entity).iter().any(|name| is_name_of(name, server_name)) {
                    return Err(CertificateError::NotValidForName.into());
                }
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => accept_name(Err(error), end_entity, server_name),
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

/// Accepts a certificate without any subjectAltName by a common name of its subject, as OpenSSL's clients do. If no common name
/// is the server's, the error contains the common names.
fn accept_name(
    checked: Result<(), Error>,
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
) -> Result<ServerCertVerified, Error> {
    match checked {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }))
            if presented.is_empty() =>
        {
            let names = common_names(certificate);
            if names.iter().any(|name| is_name_of(name, server_name)) {
                return Ok(ServerCertVerified::assertion());
            }
            let presented = names.into_iter().map(|name| format!("CN={name}")).collect();
            Err(CertificateError::NotValidForNameContext { expected, presented }.into())
        }
        checked => checked.map(|()| ServerCertVerified::assertion()),
    }
}

/// Returns whether a common name is that of the server. `*.` matches one label, and at least two must follow it.
fn is_name_of(common_name: &str, server_name: &ServerName<'_>) -> bool {
    let server = server_name.to_str();
    if common_name.eq_ignore_ascii_case(&server) {
        return true;
    }
    let (Some(parent), ServerName::DnsName(_), Some((_, behind))) =
        (common_name.strip_prefix("*."), server_name, server.split_once('.'))
    else {
        return false;
    };
    parent.contains('.') && parent.eq_ignore_ascii_case(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_is_the_servers_or_stands_for_one_label_of_it() {
        for (common_name, server, is_it) in [
            ("broker.lan", "broker.lan", true),
            ("Broker.LAN", "broker.lan", true),
            ("10.0.0.5", "10.0.0.5", true),
            ("*.shop.lan", "broker.shop.lan", true),
            ("*.shop.lan", "a.broker.shop.lan", false),
            ("*.shop.lan", "shop.lan", false),
            ("*.lan", "broker.lan", false),
            ("*.0.0.5", "10.0.0.5", false),
            ("broker", "broker.lan", false),
            ("", "broker.lan", false),
        ] {
            let name = ServerName::try_from(server).unwrap();
            assert_eq!(is_name_of(common_name, &name), is_it, "{common_name} for {server}");
        }
    }
}
