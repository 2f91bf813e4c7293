//! Writes the reports of all cameras as JSON for `/status`, and as a table for a terminal.
//!
//! Reads no clock: times are arguments.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use gcstreamer_schema::time::rfc3339_ms;
use serde::Serialize;

use crate::camera::report::Report;
use crate::camera::state::State;

/// A camera in `/status`. Every key is always present; `null` means unknown.
#[derive(Clone, Debug, Serialize)]
struct Row<'r> {
    id: &'r str,
    name: Option<&'r str>,
    state: State,
    since: String,
    reason: Option<&'r str>,
    codec: Option<&'static str>,
    width: Option<u32>,
    height: Option<u32>,
    fps: Option<f64>,
    key_interval_s: Option<f64>,
    last_frame: Option<String>,
    last_stored: Option<String>,
    backlog_bytes: u64,
    reconnects: u64,
}

/// Returns a time in RFC 3339, in UTC with milliseconds.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339_ms(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Returns the body of `/status`.
pub fn json(reports: &[Report]) -> String {
    let row = |report: &'_ Report| {
        serde_json::to_value(Row {
            id: &report.id,
            name: report.name.as_deref(),
            state: report.state,
            since: utc(report.since),
            reason: Some(report.reason.as_str()).filter(|reason| !reason.is_empty()),
            codec: report.codec,
            width: report.size.map(|(width, _)| width),
            height: report.size.map(|(_, height)| height),
            fps: report.fps.map(rounded),
            key_interval_s: report.key_interval.map(rounded),
            last_frame: report.last_frame.map(utc),
            last_stored: report.last_stored.map(utc),
            backlog_bytes: report.backlog_bytes,
            reconnects: report.reconnects.values().sum(),
        })
    };
    // `to_value` is infallible in practice: every field serializes.
    let rows: Vec<serde_json::Value> = reports.iter().filter_map(|report| row(report).ok()).collect();
    serde_json::Value::Array(rows).to_string()
}

/// Returns how long ago a time was, in seconds, minutes or hours.
fn ago(time: Option<SystemTime>, now: SystemTime) -> String {
    let Some(age) = time.map(|time| now.duration_since(time).unwrap_or_default()) else {
        return "never".to_owned();
    };
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{} kB", count.div_ceil(1000)),
        1_000_000..10_000_000_000 => format!("{} MB", count / 1_000_000),
        _ => format!("{} GB", count / 1_000_000_000),
    }
}

/// Returns the table for people: one line per camera.
pub fn table(reports: &[Report], now: SystemTime) -> String {
    let mut rows = vec![["CAMERA", "STATE", "SINCE", "PICTURE", "KEY", "STORED", "BACKLOG", ""].map(str::to_owned)];
    for report in reports {
        let picture = match (report.codec, report.size, report.fps) {
            (Some(codec), Some((width, height)), Some(fps)) => format!("{codec} {width}×{height} {fps:.0}/s"),
            (Some(codec), Some((width, height)), None) => format!("{codec} {width}×{height}"),
            _ => "-".to_owned(),
        };
        rows.push([
            report.id.clone(),
            report.state.name().to_owned(),
            ago(Some(report.since), now),
            picture,
            report
                .key_interval
                .map_or_else(|| "-".to_owned(), |interval| format!("{interval:.1} s")),
            ago(report.last_stored, now),
            bytes(report.backlog_bytes),
            report.reason.clone(),
        ]);
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        line.push_str(&row[7]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns one line for systemd's `STATUS=`.
pub fn line(reports: &[Report]) -> String {
    let count = |state| reports.iter().filter(|report| report.state == state).count();
    let late = reports
        .iter()
        .filter(|report| report.oldest_pending > Duration::from_secs(60))
        .count();
    let faults = reports.iter().filter(|report| report.state.is_fault()).count();
    format!(
        "{} recording, {faults} at fault, {late} with a backlog",
        count(State::Recording)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports() -> [Report; 2] {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_329_912_345);
        let well = Report {
            since: at,
            codec: Some("H.264"),
            size: Some((1920, 1080)),
            fps: Some(24.996),
            key_interval: Some(2.0),
            last_frame: Some(at),
            last_stored: Some(at),
            backlog_bytes: 1_234_567,
            state: State::Recording,
            reason: String::new(),
            ..Report::new("store42/cam3", Some("Back door"), "fmp4", State::Connecting, "")
        };
        let gone = Report {
            since: at,
            ..Report::new(
                "cam4",
                None,
                "fmp4",
                State::NoKeyFrames,
                "no key frame for 31 s: switch off H.264+",
            )
        };
        [well, gone]
    }

    #[test]
    fn every_key_is_there_and_what_is_unknown_is_null() {
        let json: serde_json::Value = serde_json::from_str(&json(&reports())).unwrap();
        assert_eq!(
            json[0],
            serde_json::json!({
                "id": "store42/cam3", "name": "Back door", "state": "recording", "since": "2026-11-22T06:45:12.345Z",
                "reason": null, "codec": "H.264", "width": 1920, "height": 1080, "fps": 25.0, "key_interval_s": 2.0,
                "last_frame": "2026-11-22T06:45:12.345Z", "last_stored": "2026-11-22T06:45:12.345Z",
                "backlog_bytes": 1_234_567, "reconnects": 0,
            })
        );
        assert_eq!(
            (&json[1]["state"], &json[1]["codec"]),
            (&"no-key-frames".into(), &serde_json::Value::Null)
        );
        assert_eq!(json[1].as_object().unwrap().len(), 14);
    }

    #[test]
    fn the_table_has_a_line_for_each_camera_with_its_reason() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_330_212);
        let table = table(&reports(), now);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("CAMERA        STATE"), "{table}");
        assert!(
            lines[1].contains("recording") && lines[1].contains("H.264 1920×1080 25/s") && lines[1].contains("4 min"),
            "{table}"
        );
        assert!(
            lines[2].contains("never") && lines[2].ends_with("switch off H.264+"),
            "{table}"
        );
        assert_eq!(line(&reports()), "1 recording, 1 at fault, 0 with a backlog");
    }
}
