//! Counts the bytes that are examined, so that tests can limit the work for hostile input without a clock.
//!
//! PURE. Does nothing outside of tests.

#[cfg(test)]
thread_local! {
    static BYTES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts this many bytes as examined.
#[inline]
pub(super) fn count(_bytes: usize) {
    #[cfg(test)]
    BYTES.with(|bytes| bytes.set(bytes.get() + _bytes as u64));
}

/// Returns how many bytes this thread has examined since the last call.
#[cfg(test)]
pub(crate) fn take() -> u64 {
    BYTES.with(std::cell::Cell::take)
}
