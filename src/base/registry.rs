//! One shared value per key, kept while it is in use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use super::lock::lock;

/// Maps keys to shared values without keeping them alive. Made for statics: everything in the process that uses a key shares one
/// value.
#[derive(Debug)]
pub(crate) struct Registry<K, V>(Mutex<BTreeMap<K, Weak<V>>>);

impl<K: Ord, V> Registry<K, V> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Returns the value of this key if it is in use.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        lock(&self.0).get(key).and_then(Weak::upgrade)
    }

    /// Returns the value of this key; creates it if none is in use. Drops entries that are no longer in use.
    pub(crate) fn get_or(&self, key: K, make: impl FnOnce() -> Arc<V>) -> Arc<V> {
        let mut all = lock(&self.0);
        all.retain(|_, known| known.strong_count() > 0);
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        // Create it under the lock: two callers at once must not create one each.
        let made = make();
        all.insert(key, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_value_as_long_as_somebody_uses_it() {
        let registry = Registry::new();
        let first = registry.get_or("a", || Arc::new(1));
        assert_eq!(*registry.get_or("a", || Arc::new(2)), 1);
        assert_eq!(*registry.get_or("b", || Arc::new(3)), 3);
        drop(first);
        assert!(registry.get(&"a").is_none());
        assert_eq!(*registry.get_or("a", || Arc::new(4)), 4);
    }
}
