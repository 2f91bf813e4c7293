//! A certificate authority of a test's own, and servers that it vouches for as `localhost`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;

use super::gcs_server::{Answer, GcsServer, Options};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// For `SSL_CERT_FILE`.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server that speaks TLS, as `localhost`.
    pub fn server(&self) -> GcsServer {
        self.server_named(&["localhost"])
    }

    /// A server that speaks TLS, with a certificate for these names.
    pub fn server_named(&self, names: &[&str]) -> GcsServer {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        GcsServer::spawn_thread_with(Options {
            tls: Some(Arc::new(config)),
            ..Options::default()
        })
    }
}

/// What a token server answers.
pub fn token(value: &str) -> Answer {
    let json = serde_json::json!({
        "access_token": value, "token_type": "Bearer", "expires_in": 3600,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    });
    Answer::raw(200, "application/json", &json.to_string())
}

/// Writes a credentials file into `dir` that gets its tokens from that server; its path.
pub fn credentials_file(dir: &std::path::Path, server: &GcsServer) -> std::path::PathBuf {
    std::fs::write(dir.join("subject"), "subject-token").unwrap();
    let json = serde_json::json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/token", server.endpoint()),
        "credential_source": {"file": dir.join("subject")},
    });
    let path = dir.join("key.json");
    std::fs::write(&path, json.to_string()).unwrap();
    path
}
