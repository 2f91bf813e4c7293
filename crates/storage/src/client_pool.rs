//! One client for all sinks with equal endpoint and credentials: a hundred sinks share connections and tokens.
//!
//! A client is built at the first attempt, inside the runtime that drives the attempts, and it dies with that runtime.
//! All users of [`ClientPool::global`] must therefore share one runtime for the life of the process.
//!
//! Two errors make a client unusable: a permanent token error, because its refresher has ended, and a token request that is never
//! answered, because its refresher waits for ever. The client is then discarded, and the next attempt builds another one, which
//! reads the credentials file again.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use super::credentials::PATIENCE;
use super::error::{Class, Target, WriteError};
use super::http_client::http_client;
use super::metadata_server::Provider;
use super::token_wait::TokenWait;
use super::{Credentials, Endpoint};

/// The clients in use. Holds weak references only.
#[derive(Debug, Default)]
pub struct ClientPool {
    clients: Mutex<HashMap<Key, Weak<SharedClient>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    endpoint: Endpoint,
    credentials: Credentials,
}

/// A client that can be replaced while it is shared.
#[derive(Debug)]
pub(crate) struct SharedClient {
    key: Key,
    built: tokio::sync::Mutex<Built>,
}

#[derive(Debug, Default)]
struct Built {
    client: Option<Arc<Client>>,
    count: u64,
}

/// A client that is ready for requests.
#[derive(Debug)]
pub(crate) struct Client {
    /// Number of this client among those of its pool entry.
    pub(crate) serial: u64,
    /// A plain HTTP client: the client crate's own reads answers without a limit, and supports much over gRPC only.
    pub(crate) http: reqwest::Client,
    pub(crate) provider: Provider,
    pub(crate) token_wait: TokenWait,
    pub(crate) origin: String,
    pub(crate) host: Option<String>,
    /// The user has set the endpoint, and it is not a host of Google: a gateway, which forwards to Google.
    pub(crate) is_gateway: bool,
    pub(crate) metadata_server: bool,
}

impl ClientPool {
    /// Creates a separate pool for tests. The elements use [`ClientPool::global`].
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the pool of the process.
    #[must_use]
    pub fn global() -> Arc<Self> {
        static POOL: LazyLock<Arc<ClientPool>> = LazyLock::new(ClientPool::new);
        POOL.clone()
    }

    /// Returns how many clients are in use.
    #[must_use]
    pub fn len(&self) -> usize {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.values().filter(|client| client.strong_count() > 0).count()
    }

    /// Returns whether no client is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn client(&self, endpoint: Endpoint, credentials: Credentials) -> Arc<SharedClient> {
        // Decided here and not by the caller, so that no client for such an endpoint can have credentials.
        let credentials = if endpoint.takes_credentials() {
            credentials
        } else {
            Credentials::Anonymous
        };
        let key = Key { endpoint, credentials };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key).and_then(Weak::upgrade) {
            return client;
        }
        clients.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(SharedClient {
            key: key.clone(),
            built: tokio::sync::Mutex::default(),
        });
        clients.insert(key, Arc::downgrade(&client));
        client
    }
}

impl SharedClient {
    /// Returns the client; builds it if absent, or if its token server has stopped answering.
    pub(crate) async fn get(&self, target: Target<'_>) -> Result<Arc<Client>, WriteError> {
        let mut built = self.built.lock().await;
        if let Some(client) = built.client.as_ref().filter(|client| !client.token_wait.is_over()) {
            return Ok(client.clone());
        }
        let client = Arc::new(self.build(built.count, target).await?);
        built.count = built.count.saturating_add(1);
        built.client = Some(client.clone());
        Ok(client)
    }

    /// Makes the next attempt build another client, unless another attempt already did.
    pub(crate) async fn discard(&self, client: &Client) {
        let mut built = self.built.lock().await;
        if built.client.as_ref().is_some_and(|current| current.serial == client.serial) {
            built.client = None;
        }
    }

    async fn build(&self, serial: u64, target: Target<'_>) -> Result<Client, WriteError> {
        // Must come first: without a provider the crates that fetch tokens panic.
        let http = http_client().map_err(|error| {
            let error = target.broken(&error);
            let hint = "TLS cannot be set up; install ca-certificates, or set SSL_CERT_FILE to a file of certificates";
            WriteError {
                class: Class::Permanent,
                message: format!("{} ({hint})", error.message),
                ..error
            }
        })?;
        // The lock is held: a read that hangs would block all users of this client, so it has a timeout.
        let loaded = tokio::time::timeout(PATIENCE, self.key.credentials.load()).await;
        let loaded = loaded.map_err(|_| target.fail(Class::Transient, NO_FILE))?;
        let loaded = loaded.map_err(|error| target.fail(Class::Permanent, &error.to_string()))?;
        let (origin, host) = self.key.endpoint.origin_and_host(loaded.universe_domain.as_deref());
        let is_gateway = self.key.endpoint.is_gateway();
        Ok(Client {
            serial,
            http,
            provider: loaded.provider,
            token_wait: TokenWait::default(),
            origin,
            host,
            is_gateway,
            metadata_server: loaded.metadata_server,
        })
    }
}

const NO_FILE: &str = "the credentials file does not answer; its disk cannot be reached, or it is a pipe that nobody writes: check credentials-file, or GOOGLE_APPLICATION_CREDENTIALS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_with_equal_settings_share_one_client_and_the_last_one_takes_it_along() {
        let pool = ClientPool::new();
        let first = pool.client(Endpoint::google(), Credentials::ApplicationDefault);
        let second = pool.client(Endpoint::google(), Credentials::ApplicationDefault);
        assert!(Arc::ptr_eq(&first, &second));
        let other = pool.client(Endpoint::google(), Credentials::File("k.json".into()));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(pool.len(), 2);
        drop((first, second, other));
        assert!(pool.is_empty());
    }

    #[test]
    fn credentials_make_no_difference_where_none_are_sent() {
        let pool = ClientPool::new();
        let emulator = || Endpoint::resolve(Some("http://localhost:1"), None).unwrap();
        let first = pool.client(emulator(), Credentials::File("k.json".into()));
        assert!(Arc::ptr_eq(&first, &pool.client(emulator(), Credentials::ApplicationDefault)));
        assert_eq!(first.key.credentials, Credentials::Anonymous);
    }
}
