//! Writes the reports of all cameras as OpenMetrics for `/metrics`. Labels are ids, codecs and words of a closed list, never an
//! address or a free text.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::camera::report::Report;
use crate::camera::state::{StartReason, State};

/// Figures of the whole recorder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole {
    /// Free bytes of the spool's file system; `None`: no spool, or its disk does not answer.
    pub spool_free: Option<u64>,
    /// Repeated uploads of all cameras, including removed ones, and of leftovers.
    pub retries: u64,
    /// Pipelines of all cameras, including removed ones, that did not end in time.
    pub stuck: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Camera {
    camera: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    camera: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    camera: String,
    codec: &'static str,
    width: u32,
    height: u32,
    audio: &'static str,
    container: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    gstreamer: String,
}

type Float = Gauge<f64, AtomicU64>;

#[allow(clippy::cast_precision_loss, reason = "metrics are floats; bytes up to 9 PB are exact")]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

struct Families {
    registry: Registry,
}

impl Families {
    fn gauge(&mut self, name: &str, help: &str, values: impl Iterator<Item = (String, f64)>) {
        let family = Family::<Camera, Float>::default();
        for (camera, value) in values {
            family.get_or_create(&Camera { camera }).set(value);
        }
        self.registry.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, values: impl Iterator<Item = (String, u64)>) {
        let family = Family::<Camera, Counter>::default();
        for (camera, value) in values {
            family.get_or_create(&Camera { camera }).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    fn total(&mut self, name: &str, help: &str, value: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        self.registry.register(name, help, counter);
    }

    fn single(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Float::default();
        gauge.set(value);
        self.registry.register(name, help, gauge);
    }
}

/// Returns the body of `/metrics`.
pub fn openmetrics(reports: &[Report], whole: Whole, gstreamer: &str) -> String {
    let mut families = Families {
        registry: Registry::default(),
    };
    cameras(&mut families, reports);
    reasons(&mut families, reports);
    families.total("gcstreamer_upload_retries", "Uploads that were repeated", whole.retries);
    if let Some(free) = whole.spool_free {
        families.single(
            "gcstreamer_spool_free_bytes",
            "Free space of the spool's file system",
            float(free),
        );
    }
    if let Some(left) = reports.iter().filter_map(|report| report.spool_left).min() {
        families.single(
            "gcstreamer_spool_seconds_left",
            "How long the spool lasts at what the cameras send now",
            left.as_secs_f64(),
        );
    }
    families.total(
        "gcstreamer_stuck_pipelines",
        "Pipelines that did not end in time",
        whole.stuck,
    );
    let build = Family::<Build, Gauge>::default();
    let labels = Build {
        version: env!("CARGO_PKG_VERSION"),
        gstreamer: gstreamer.to_owned(),
    };
    build.get_or_create(&labels).set(1);
    families.registry.register("gcstreamer_build_info", "Versions", build);
    let mut body = String::new();
    // Writing into a String does not fail.
    let _ = text::encode(&mut body, &families.registry);
    body
}

fn cameras(families: &mut Families, reports: &[Report]) {
    let all = || reports.iter().map(|report| (report.id.clone(), report));
    families.gauge(
        "gcstreamer_camera_up",
        "1 while pictures are recorded",
        all().map(|(id, report)| (id, f64::from(u8::from(report.state == State::Recording)))),
    );
    families.gauge(
        "gcstreamer_camera_last_frame_timestamp_seconds",
        "When the last picture came",
        all().filter_map(|(id, report)| Some((id, seconds(report.last_frame?)))),
    );
    families.gauge(
        "gcstreamer_camera_last_stored_timestamp_seconds",
        "End of the newest chunk that was stored",
        all().filter_map(|(id, report)| Some((id, seconds(report.last_stored?)))),
    );
    families.counter(
        "gcstreamer_camera_received_bytes",
        "Bytes from the camera",
        all().map(|(id, report)| (id, report.received_bytes)),
    );
    families.counter(
        "gcstreamer_camera_stored_bytes",
        "Bytes that were stored",
        all().map(|(id, report)| (id, report.stored_bytes)),
    );
    families.gauge(
        "gcstreamer_camera_backlog_bytes",
        "Bytes that wait",
        all().map(|(id, report)| (id, float(report.backlog_bytes))),
    );
    families.gauge(
        "gcstreamer_camera_oldest_pending_seconds",
        "Age of the oldest chunk that waits",
        all().map(|(id, report)| (id, report.oldest_pending.as_secs_f64())),
    );
    families.counter(
        "gcstreamer_camera_dropped_bytes",
        "Bytes of chunks that were dropped for want of room",
        all().map(|(id, report)| (id, report.dropped_bytes)),
    );
    families.gauge(
        "gcstreamer_camera_keyframe_interval_seconds",
        "Time between the last two key frames",
        all().filter_map(|(id, report)| Some((id, report.key_interval?))),
    );
    let info = Family::<Info, Gauge>::default();
    for report in reports {
        if let (Some(codec), Some((width, height))) = (report.codec, report.size) {
            let labels = Info {
                camera: report.id.clone(),
                codec,
                width,
                height,
                audio: report.audio.unwrap_or("none"),
                container: report.container,
            };
            info.get_or_create(&labels).set(1);
        }
    }
    families.registry.register("gcstreamer_camera_info", "What is recorded", info);
}

fn reasons(families: &mut Families, reports: &[Report]) {
    let because = |report: &Report, reason: StartReason| Because {
        camera: report.id.clone(),
        reason: reason.name(),
    };
    let gaps = Family::<Because, Counter<f64, AtomicU64>>::default();
    let reconnects = Family::<Because, Counter>::default();
    for report in reports {
        // Start all counters at 0: Prometheus' `increase()` ignores the first value of a counter, so one that appears with the
        // first outage would raise no alert. Not for a camera that is stopped on purpose, which must have no counters: its last
        // values would raise an alert for ever.
        if report.state != State::Stopped {
            for reason in StartReason::ALL {
                // Only to create them. Dropped at once: what is returned locks the whole family.
                drop(gaps.get_or_create(&because(report, reason)));
                drop(reconnects.get_or_create(&because(report, reason)));
            }
        }
        for (reason, time) in &report.gaps {
            gaps.get_or_create(&because(report, *reason)).inc_by(time.as_secs_f64());
        }
        for (reason, count) in &report.reconnects {
            reconnects.get_or_create(&because(report, *reason)).inc_by(*count);
        }
    }
    let help = "Time without recording by its reason";
    families.registry.register("gcstreamer_camera_gap_seconds", help, gaps);
    let help = "Attempts to connect after the first, by their reason";
    families.registry.register("gcstreamer_camera_reconnects", help, reconnects);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::camera::report::Board;

    #[test]
    fn totals_of_the_recorder_do_not_fall_when_a_camera_is_removed() {
        let board = Board::default();
        board.put(Report::new("cam", None, "fmp4", State::Recording, ""));
        board.count_retries(3);
        board.count_stuck();
        board.remove("cam");
        let whole = Whole {
            spool_free: None,
            retries: board.retries(),
            stuck: board.stuck(),
        };
        let body = openmetrics(&board.all(), whole, "1.22.0");
        for line in ["gcstreamer_upload_retries_total 3", "gcstreamer_stuck_pipelines_total 1"] {
            assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
        }
    }

    #[test]
    fn the_first_outage_of_each_kind_is_an_increase() {
        let whole = Whole::default();
        let body = openmetrics(&[Report::new("cam", None, "fmp4", State::Recording, "")], whole, "1.22.0");
        for reason in StartReason::ALL {
            let labels = format!("{{camera=\"cam\",reason=\"{}\"}}", reason.name());
            for line in [
                format!("gcstreamer_camera_gap_seconds_total{labels} 0.0"),
                format!("gcstreamer_camera_reconnects_total{labels} 0"),
            ] {
                assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
            }
        }
        let body = openmetrics(&[Report::new("cam", None, "fmp4", State::Stopped, "")], whole, "1.22.0");
        assert!(!body.contains("reason="), "{body}");
    }

    #[test]
    fn every_metric_has_its_name_and_no_label_holds_a_text() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_329_912_500);
        let report = Report {
            codec: Some("H.264"),
            size: Some((1920, 1080)),
            key_interval: Some(2.0),
            last_frame: Some(at),
            last_stored: Some(at),
            received_bytes: 7,
            stored_bytes: 5,
            backlog_bytes: 2,
            dropped_bytes: 3,
            spool_left: Some(Duration::from_secs(90)),
            gaps: [(StartReason::CameraFrozen, Duration::from_millis(2500))].into(),
            reconnects: [(StartReason::CameraFrozen, 4)].into(),
            ..Report::new("store42/cam3", Some("SECRET"), "fmp4", State::Recording, "SECRET")
        };
        let whole = Whole {
            spool_free: Some(1000),
            retries: 5,
            stuck: 1,
        };
        let body = openmetrics(&[report], whole, "1.22.0");
        for line in [
            "gcstreamer_camera_up{camera=\"store42/cam3\"} 1.0",
            "gcstreamer_camera_last_frame_timestamp_seconds{camera=\"store42/cam3\"} 1795329912.5",
            "gcstreamer_camera_last_stored_timestamp_seconds{camera=\"store42/cam3\"} 1795329912.5",
            "gcstreamer_camera_received_bytes_total{camera=\"store42/cam3\"} 7",
            "gcstreamer_camera_stored_bytes_total{camera=\"store42/cam3\"} 5",
            "gcstreamer_camera_gap_seconds_total{camera=\"store42/cam3\",reason=\"camera-frozen\"} 2.5",
            "gcstreamer_camera_reconnects_total{camera=\"store42/cam3\",reason=\"camera-frozen\"} 4",
            "gcstreamer_camera_backlog_bytes{camera=\"store42/cam3\"} 2.0",
            "gcstreamer_camera_oldest_pending_seconds{camera=\"store42/cam3\"} 0.0",
            "gcstreamer_camera_keyframe_interval_seconds{camera=\"store42/cam3\"} 2.0",
            "gcstreamer_camera_dropped_bytes_total{camera=\"store42/cam3\"} 3",
            "gcstreamer_upload_retries_total 5",
            "gcstreamer_spool_seconds_left 90.0",
            "gcstreamer_spool_free_bytes 1000.0",
            "gcstreamer_stuck_pipelines_total 1",
            "gcstreamer_camera_info{camera=\"store42/cam3\",codec=\"H.264\",width=\"1920\",height=\"1080\",audio=\"none\",container=\"fmp4\"} 1",
            concat!(
                "gcstreamer_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\",gstreamer=\"1.22.0\"} 1"
            ),
            "# EOF",
        ] {
            assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
        }
        assert!(!body.contains("SECRET"), "{body}");
    }
}
