//! The start of whole fleets on virtual time: docs/scaling.md has the figures of this simulation.
//!
//! After a wanted change: `UPDATE_GOLDEN=1 cargo test -p gcstreamer-recorder --test fleet_start`, and read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "fleet_start/simulation.rs"]
mod simulation;
#[path = "../../tests/common/written_part.rs"]
mod written_part;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use simulation::{CAMERAS_PER_POD, Figures, Scenario, World};
use written_part::is_written;

const BEGIN: &str = "<!-- begin of what recorder/tests/fleet_start.rs writes -->\n";
const END: &str = "<!-- end of what recorder/tests/fleet_start.rs writes -->\n";

/// Cameras, and seconds of a chunk.
const FLEETS: [(usize, u64); 4] = [(10, 10), (500, 10), (10_000, 10), (10_000, 30)];

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// All pods start at once. `boot`: the cameras had no power either.
fn start((cameras, chunk): (usize, u64), boot: u64) -> Figures {
    let scenario = Scenario {
        cameras,
        chunk: seconds(chunk),
        boot: seconds(boot),
        uplink_at: seconds(0),
        limit: None,
        length: seconds(boot + 30 + 4 * chunk),
    };
    World::new(scenario).run()
}

/// The fleet records, and for five minutes nothing could be uploaded.
fn outage((cameras, chunk): (usize, u64), limit: Option<f64>) -> Figures {
    let scenario = Scenario {
        cameras,
        chunk: seconds(chunk),
        boot: seconds(0),
        uplink_at: seconds(300),
        limit,
        length: seconds(600),
    };
    World::new(scenario).run()
}

fn starts(text: &mut String) {
    text.push_str(
        "| start | cameras | pods | chunk | connections a second, of all and of a pod | all recorded after | \
         requests a second at most | later: requests a second at most | later: stored a second | later: refused |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (what, boot) in [("the cameras are up", 0), ("the cameras boot, 20 to 60 s", 60)] {
        for fleet in FLEETS {
            let of = start(fleet, boot);
            writeln!(
                text,
                "| {what} | {} | {} | {} s | {}, {} | {:.0} s | {} | {} | {:.0} | {:.1} % |",
                fleet.0,
                of.pods,
                fleet.1,
                of.peak_connections,
                of.peak_connections_of_a_pod,
                of.all_recording.as_secs_f64(),
                of.peak_requests,
                of.settled_peak_requests,
                of.settled_stored,
                of.settled_share_refused(),
            )
            .unwrap();
        }
    }
}

fn outages(text: &mut String) {
    text.push_str(
        "| cameras | pods | chunk | `max-requests-per-second` of a pod | requests a second at most | refused | no backlog after |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (fleet, limit) in [
        (FLEETS[0], None),
        (FLEETS[1], None),
        (FLEETS[3], None),
        (FLEETS[3], Some(4.0)),
    ] {
        let of = outage(fleet, limit);
        writeln!(
            text,
            "| {} | {} | {} s | {} | {} | {} | {:.0} s |",
            fleet.0,
            of.pods,
            fleet.1,
            limit.map_or_else(|| "as it is".to_owned(), |limit| limit.to_string()),
            of.peak_requests,
            of.refused,
            of.backlog_gone.as_secs_f64(),
        )
        .unwrap();
    }
}

#[test]
fn the_figures_of_scaling_are_those_of_the_simulation() {
    let mut text = String::from("\n");
    starts(&mut text);
    text.push_str("\nFive minutes without an uplink, which then comes back for all at once:\n\n");
    outages(&mut text);
    text.push('\n');
    print!("{text}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scaling.md");
    assert!(
        is_written(&path, BEGIN, &text, END),
        "docs/scaling.md is stale. It should be:\n{text}"
    );
}

#[test]
fn a_fleet_that_starts_at_once_asks_for_no_more_than_its_cameras_make() {
    let of = start((10_000, 30), 0);
    assert_eq!(of.pods, 10_000 / CAMERAS_PER_POD);
    // 333 a second. Without cuts of their own the chunks of all pods would end within four seconds of each thirty.
    assert!(of.settled_peak_requests < 500 && of.refused == 0, "{of:?}");
    assert!((of.settled_stored - 333.3).abs() < 5.0, "{of:?}");
    // A pod opens a connection every 100 ms.
    assert_eq!(of.peak_connections_of_a_pod, 10, "{of:?}");
    assert!(of.all_recording < seconds(15), "{of:?}");
}

#[test]
fn cameras_that_boot_are_recorded_within_ten_seconds_of_being_there() {
    let of = start((500, 10), 60);
    assert!(of.all_recording < seconds(72), "{of:?}");
    // Attempts are one in 1 to 5 s and 3 s of waiting each, and not in step.
    assert!(of.peak_connections_of_a_pod <= 40 && of.refused == 0, "{of:?}");
}
