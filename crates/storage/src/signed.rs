//! V4 signed URLs: addresses with which anyone can read one generation of an object for a limited time.
//!
//! A service account key signs locally. The metadata server's account and impersonated accounts call the IAM API (`signBlob`) for
//! each address, which needs `iam.serviceAccounts.signBlob` on the account.
//! <https://cloud.google.com/storage/docs/access-control/signed-urls>

use std::sync::Arc;
use std::time::Duration;

use gcstreamer_schema::units::span;
use google_cloud_auth::signer::{Signer, SigningError};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::error_text::error_text;
use super::http_client::http_client;
use super::object_api::encoded;
use super::own_tasks::OwnTasks;
use super::token_wait::{NoAnswer, TOKEN_LIMIT, TokenWait};
use super::{Credentials, CredentialsFileError, Endpoint};

/// Maximum lifetime of a V4 signed URL: 7 days.
const MAX_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why an address cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The endpoint takes no credentials, so none can sign for it.
    #[error("{0} takes no credentials, so addresses for it cannot be signed")]
    NoCredentials(String),
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsFileError),
    /// TLS cannot be set up, or the signature was refused.
    #[error("an address cannot be signed: {0}")]
    Failed(String),
}

/// Signs addresses of objects.
#[derive(Debug)]
pub struct UrlSigner {
    origin: String,
    credentials: Credentials,
    built: tokio::sync::Mutex<Option<Arc<Built>>>,
}

#[derive(Debug)]
struct Built {
    signer: OwnTasks<Signer>,
    wait: TokenWait,
}

impl Built {
    fn new(signer: OwnTasks<Signer>) -> Arc<Self> {
        let wait = TokenWait::default();
        Arc::new(Self { signer, wait })
    }
}

impl UrlSigner {
    /// Reads the credentials and creates a signer of addresses at this endpoint. No server is contacted. Must run inside tokio.
    ///
    /// # Errors
    /// [`SignError::NoCredentials`]: an emulator, or `http://`. [`SignError::Credentials`]: the file cannot sign.
    pub async fn load(endpoint: &Endpoint, credentials: Credentials) -> Result<Self, SignError> {
        if !endpoint.takes_credentials() || credentials == Credentials::Anonymous {
            return Err(SignError::NoCredentials(endpoint.as_str().to_owned()));
        }
        // Sets up TLS, without which the crates that fetch tokens panic.
        http_client().map_err(|error| SignError::Failed(error_text(&error)))?;
        let (signer, universe_domain) = credentials.signer().await?;
        Ok(Self {
            origin: endpoint.origin_and_host(universe_domain.as_deref()).0,
            credentials,
            built: tokio::sync::Mutex::new(Some(Built::new(signer))),
        })
    }

    /// Returns `scheme://host[:port]` of the addresses.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns an address at which `GET` reads this generation of an object for `life`, at most 7 days. Must run inside tokio.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn url(&self, bucket: &str, name: &str, generation: i64, life: Duration) -> Result<String, SignError> {
        let built = self.built().await?;
        let life = life.min(MAX_LIFE).as_secs();
        let signed = self.signed(&built.signer, bucket, name, generation, life, Timestamp::now());
        match built.wait.answer(signed).await {
            Ok(Ok(url)) => Ok(url),
            Ok(Err(error)) => {
                // A refused token ends its refresher: the next use builds another signer.
                *self.built.lock().await = None;
                Err(SignError::Failed(error_text(&error)))
            }
            Err(NoAnswer) => {
                let limit = span(TOKEN_LIMIT);
                let what = format!(
                    "neither a token nor a signature came within {limit}; see whether the token server and iamcredentials.googleapis.com can be reached"
                );
                Err(SignError::Failed(what))
            }
        }
    }

    /// Signs a canonical request, <https://cloud.google.com/storage/docs/authentication/canonical-requests>. Does not use the
    /// builder of `google-cloud-storage`, because it signs the host without its port, and clients send the port.
    async fn signed(
        &self,
        signer: &Signer,
        bucket: &str,
        name: &str,
        generation: i64,
        life: u64,
        now: Timestamp,
    ) -> Result<String, SigningError> {
        let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/auto/storage/goog4_request", now.strftime("%Y%m%d"));
        let who = encoded(&format!("{}/{scope}", signer.client_email().await?));
        // The canonical request requires this order: sorted by name.
        let query = format!(
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={who}&X-Goog-Date={date}&X-Goog-Expires={life}&X-Goog-SignedHeaders=host&generation={generation}"
        );
        let path = format!("/{bucket}/{}", encoded(name).replace("%2F", "/"));
        let host = self.origin.split_once("://").map_or("", |(_, host)| host);
        let request = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
        let text = format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(request)));
        let signature = hex(&signer.sign(text).await?);
        Ok(format!("{}{path}?{query}&X-Goog-Signature={signature}", self.origin))
    }

    /// Returns the signer; builds it if absent, or if the servers that it needs have stopped answering.
    async fn built(&self) -> Result<Arc<Built>, SignError> {
        let mut current = self.built.lock().await;
        if let Some(built) = current.as_ref().filter(|built| !built.wait.is_over()) {
            return Ok(Arc::clone(built));
        }
        let built = Built::new(self.credentials.signer().await?.0);
        *current = Some(Arc::clone(&built));
        Ok(built)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
