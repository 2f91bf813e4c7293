//! Destinations of the chunks in the spool.
//!
//! PURE. An entry has its full destination; a chunk in memory has only a short id of it.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The destination that an entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The endpoint as the user wrote it; `None` = Google.
    pub endpoint: Option<String>,
    /// The endpoint gets no credentials.
    pub anonymous: bool,
}

/// Id of a destination within a process: equal for equal destinations. It is a hash, so nothing security-relevant may depend on
/// it: somebody who writes entries can create two that collide. The default means no destination, because a damaged chunk may
/// name none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(u64);

impl DestinationId {
    /// Returns the id of a bucket at an endpoint (`None` = Google). `anonymous`: the endpoint gets no credentials.
    pub fn of_bucket(endpoint: Option<&str>, anonymous: bool, bucket: &str) -> Self {
        Self::of(&(endpoint, anonymous, bucket))
    }

    /// Returns the id of anything else that distinguishes destinations, such as an endpoint whatever the bucket.
    pub fn of(what: &impl Hash) -> Self {
        // `DefaultHasher::new` has fixed keys, unlike `RandomState`, so all sinks compute the same id.
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_credentials_and_bucket_tell_destinations_apart() {
        let id = DestinationId::of_bucket;
        assert_eq!(id(Some("https://a"), false, "b"), id(Some("https://a"), false, "b"));
        let all = [
            id(None, false, "b"),
            id(None, true, "b"),
            id(None, false, "c"),
            id(Some("https://a"), false, "b"),
            id(Some("https://ab"), false, ""),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
