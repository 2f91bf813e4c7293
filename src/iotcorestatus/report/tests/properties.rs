//! Invariants that hold for any sequence of events.

use proptest::prelude::*;

use super::*;

fn keys(value: &Value, path: &str, into: &mut Vec<String>) {
    if let Some(map) = value.as_object() {
        for (key, value) in map {
            into.push(format!("{path}/{key}"));
            keys(value, &format!("{path}/{key}"), into);
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let sample = (0..3u64, 0..5u64, 0..3u64, 0..6usize).prop_map(|(created, bytes, pending, status)| SinkSample {
        name: "s".to_owned(),
        key_units: created,
        bytes_received: bytes,
        chunks_pending: pending,
        status: UploadStatus::from_name(["starting", "online", "degraded", "offline", "draining", "stopped"][status]),
        ..SinkSample::default()
    });
    prop_oneof![
        any::<bool>().prop_map(Event::Playing),
        Just(Event::Eos),
        Just(Event::Restart),
        Just(Event::GapEvent),
        (any::<bool>(), any::<bool>()).prop_map(|(s, e)| trouble(s, e)),
        prop::collection::vec(sample, 0..3).prop_map(Event::Sinks),
        any::<bool>().prop_map(Event::Record),
        Just(Event::Chunk(Chunk {
            object: "o".to_owned(),
            ..Chunk::default()
        })),
        "[a-z:/@]{0,20}".prop_map(|msg| Event::Answer(Answer {
            msg: Some(format!("{msg} mqtt://u:hunter2@h")),
            ..Answer::default()
        })),
    ]
}

/// Steps of a random pipeline between two polls.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Frame,
    Push(bool),
    Flow(Flow),
    Handle(Event),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..20_000u64).prop_map(|ms| Step::Wait(ms * 1_000_000)),
        3 => Just(Step::Frame),
        1 => any::<bool>().prop_map(Step::Push),
        1 => prop_oneof![Just(Flow::Ok), Just(Flow::Error), Just(Flow::Eos)].prop_map(Step::Flow),
        3 => event().prop_map(Step::Handle),
    ]
}

proptest! {
    #[test]
    fn whatever_happens(steps in prop::collection::vec(step(), 1..80)) {
        let mut pipeline = SimulatedPipeline::playing();
        let mut expected = Vec::new();
        keys(&pipeline.reporter.final_status(&Counts::default(), at(0.0)).unwrap().0.to_json(), "", &mut expected);
        let (mut now, mut passed, mut last_status) = (0u64, None, 0u64);
        for step in steps {
            match step {
                Step::Wait(ns) => now += ns,
                Step::Frame if pipeline.counts.pushing_since.is_none() => {
                    pipeline.counts.frames += 1;
                    pipeline.counts.last_frame = Some(now);
                    passed = Some(now);
                }
                Step::Frame => {}
                Step::Push(true) => {
                    if pipeline.counts.frames > 0 && pipeline.counts.pushing_since.is_none() {
                        pipeline.counts.pushing_since = pipeline.counts.last_frame;
                    }
                }
                Step::Push(false) => {
                    if let Some(began) = pipeline.counts.pushing_since.take() {
                        passed = Some(now);
                        if now - began >= S {
                            pipeline.counts.long_push = Some(Push { began, ended: now });
                        }
                    }
                }
                Step::Flow(flow) => pipeline.counts.flow = flow,
                Step::Handle(event) => pipeline.reporter.handle(event, Now { mono: now, wall: WALL + now }),
            }
            let output = pipeline.reporter.poll(&pipeline.counts, Now { mono: now, wall: WALL + now });
            prop_assert!(output.next_poll > now);
            if let Some(status) = output.publish {
                let json = status.to_json();
                let mut found = Vec::new();
                keys(&json, "", &mut found);
                prop_assert_eq!(&found, &expected, "every key is always there");
                prop_assert!(!json.to_string().contains("hunter2"), "{}", json);
                prop_assert!(status.seq > last_status);
                last_status = status.seq;
                if json["state"] == "connected" {
                    let age = now - passed.expect("connected without a frame");
                    prop_assert!(age < 10 * S, "connected, and the last frame passed {age} ns ago");
                }
                prop_assert_eq!(json["state"] == "connected", json["phase"] == "streaming");
            }
            for telemetry in output.telemetry {
                prop_assert!(!telemetry.body.to_string().contains("hunter2"));
                prop_assert_eq!(&telemetry.body["device"], "cam1");
            }
        }
    }
}
