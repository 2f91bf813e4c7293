//! Advice on the settings of a camera: `probe` prints it, and the log has each once.
//!
//! PURE.

/// A longer time between key frames is reported, in s: chunks can begin only at key frames.
const LONG_KEY_INTERVAL: f64 = 4.0;
/// A larger error of the camera's clock is reported, in s. Without NTP these clocks drift by seconds within days.
const CLOCK_OFF: f64 = 2.0;
/// A smaller share of the declared frame rate is reported.
const FEW_PICTURES: f64 = 0.85;
/// The remedy for key frames that are far apart.
pub const KEY_FRAMES: &str = "set its key frame interval to 1 or 2 s and switch off H.264+, H.265+ or Smart codec";

/// Rounds to two decimals.
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Returns advice on the time between key frames, in s; `None` if it is fine.
pub fn key_interval(interval: f64) -> Option<String> {
    (interval > LONG_KEY_INTERVAL).then(|| format!("key frame every {} s: {KEY_FRAMES}", rounded(interval)))
}

/// Whether the real frame rate is clearly below the declared one.
pub fn is_slow(real: f64, declared: f64) -> bool {
    real < declared * FEW_PICTURES
}

/// Returns advice on the frame rate; `None` if it is fine.
pub fn frame_rate(real: f64, declared: f64) -> Option<String> {
    is_slow(real, declared).then(|| {
        format!(
            "{} pictures a second come, and the camera declares {}: look at its load, its network and its exposure time",
            rounded(real),
            rounded(declared)
        )
    })
}

/// Returns advice on the camera's clock; `None` if it is fine. `error`: that clock minus ours, in s.
pub fn clock(error: f64) -> Option<String> {
    let way = if error > 0.0 { "ahead" } else { "behind" };
    (error.abs() > CLOCK_OFF).then(|| format!("the camera's clock is {} s {way}: set its NTP server", rounded(error.abs())))
}
