//! Where the chunks of the spool go.
//!
//! PURE. An entry names its destination in full; what is kept in memory of a chunk is a short name for it.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Destination that an entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The endpoint as it was written; `None` = Google.
    pub endpoint: Option<String>,
    /// That endpoint gets no credentials.
    pub anonymous: bool,
}

/// Names a destination within a process: equal for equal ones. It is a hash, so nothing that has to be safe may depend on it:
/// whoever writes entries can make two of them equal. The default stands for no destination: a damaged chunk may name none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(u64);

impl DestinationId {
    /// Returns the id of a bucket at an endpoint (`None` = Google). `anonymous`: that endpoint gets no credentials.
    pub fn of_bucket(endpoint: Option<&str>, anonymous: bool, bucket: &str) -> Self {
        Self::of(&(endpoint, anonymous, bucket))
    }

    /// Returns the id of anything else that distinguishes destinations, such as an endpoint whatever the bucket.
    pub fn of(what: &impl Hash) -> Self {
        // Its keys are fixed, unlike those of `RandomState`: all sinks get the same id.
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
