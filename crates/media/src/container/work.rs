//! Counts the bytes that are looked at, so that tests can bound the work for hostile input without a clock.
//!
//! PURE. Does nothing outside of tests.

#[cfg(test)]
thread_local! {
    static BYTES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Notes that so many bytes are looked at.
#[inline]
pub(super) fn count(_bytes: usize) {
    #[cfg(test)]
    BYTES.with(|bytes| bytes.set(bytes.get() + _bytes as u64));
}

/// Returns how many bytes were looked at since the last call, by this thread.
#[cfg(test)]
pub(crate) fn take() -> u64 {
    BYTES.with(std::cell::Cell::take)
}
