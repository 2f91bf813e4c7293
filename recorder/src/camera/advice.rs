//! What is worth changing about a camera that is recorded: for `probe`, and once each in the log.
//!
//! PURE.

/// Chunks begin at key frames, s.
const LONG_KEY_INTERVAL: f64 = 4.0;
/// Cameras' clocks run seconds off within days without NTP.
const CLOCK_OFF: f64 = 2.0;
/// Fewer pictures than declared.
const FEW_PICTURES: f64 = 0.85;
/// What to do about key frames that are far apart.
pub const KEY_FRAMES: &str = "set its key frame interval to 1 or 2 s and switch off H.264+, H.265+ or Smart codec";

/// Two decimals.
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Judges the time between key frames, s.
pub fn key_interval(interval: f64) -> Option<String> {
    (interval > LONG_KEY_INTERVAL).then(|| format!("key frame every {} s: {KEY_FRAMES}", rounded(interval)))
}

/// Whether fewer pictures a second come than are declared.
pub fn is_slow(real: f64, declared: f64) -> bool {
    real < declared * FEW_PICTURES
}

/// Judges the pictures a second that come.
pub fn frame_rate(real: f64, declared: f64) -> Option<String> {
    is_slow(real, declared).then(|| {
        format!(
            "{} pictures a second come, and the camera declares {}: look at its load, its network and its exposure time",
            rounded(real),
            rounded(declared)
        )
    })
}

/// Judges the camera's clock less ours, s.
pub fn clock(error: f64) -> Option<String> {
    let way = if error > 0.0 { "ahead" } else { "behind" };
    (error.abs() > CLOCK_OFF).then(|| format!("the camera's clock is {} s {way}: set its NTP server", rounded(error.abs())))
}
