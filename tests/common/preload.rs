//! Libraries for `LD_PRELOAD`, built from a source of one file.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

use std::path::Path;
use std::process::Command;

/// Builds `out`.
pub fn build(source: &Path, out: &Path) {
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([out, source])
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success(), "{}", source.display());
}
