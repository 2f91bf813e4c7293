//! One test for each phase of the contract's list.

use super::*;

#[test]
fn starting_publishes_nothing_before_the_first_frame_or_the_startup_timeout() {
    let mut pipeline = SimulatedPipeline::playing();
    pipeline.run(29.9);
    assert_eq!(pipeline.states(), []);
    pipeline.run(0.2);
    assert_eq!(pipeline.states(), [(30.0, "disconnected", "starting")]);
    assert_eq!(pipeline.last()["reason"], "no-frame");
}

#[test]
fn streaming_is_connected_with_the_first_frame() {
    let mut pipeline = SimulatedPipeline::playing();
    pipeline.run(5.0);
    pipeline.frames = true;
    pipeline.run(3.0);
    assert_eq!(pipeline.states(), [(5.1, "connected", "streaming")]);
    assert_eq!(pipeline.last()["recording"], Value::Null, "there is no gcssink");
}

#[test]
fn stalled_after_the_stall_timeout_and_connected_again_with_the_next_frame() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.frames = false;
    pipeline.run(20.0);
    pipeline.frames = true;
    pipeline.run(1.0);
    assert_eq!(
        pipeline.states(),
        [
            (0.1, "connected", "streaming"),
            (11.0, "disconnected", "stalled"),
            (21.1, "connected", "streaming")
        ]
    );
    let stalled = pipeline.published[1].1.to_json();
    assert_eq!(stalled["since"], "2026-11-22T06:45:13.000Z", "since the last frame");
    assert_eq!(pipeline.last()["stalls"]["count"], 1);
    assert_eq!(pipeline.last()["stalls"]["total_s"], 20.1);
    let kinds: Vec<_> = pipeline
        .telemetry
        .iter()
        .map(|e| (e.kind, e.body["stalled"].as_bool()))
        .collect();
    assert_eq!(kinds, [("stall", Some(true)), ("stall", Some(false))]);
}

#[test]
fn an_application_is_notified_of_a_state_only_when_its_value_changes() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.frames = false;
    pipeline.run(20.0);
    pipeline.is(Phase::Stalled);
    // Another phase, and `disconnected` as before.
    pipeline.handle(Event::Playing(false));
    pipeline.is(Phase::Paused);
    pipeline.handle(Event::Stopping);
    pipeline.is(Phase::Stopped);
    assert_eq!(pipeline.notified, [0.1, 11.0], "connected, then disconnected once");
}

#[test]
fn blocked_is_not_stalled() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.counts.pushing_since = Some(at(pipeline.now).mono);
    pipeline.run(30.0);
    pipeline.is(Phase::Blocked);
    assert_eq!(pipeline.states()[1..], [(11.0, "disconnected", "blocked")]);
    assert_eq!(pipeline.last()["reason"], "downstream");
    assert_eq!(pipeline.last()["stalls"]["count"], 0);
    // Downstream continues, and the camera needs a while.
    pipeline.end_push();
    pipeline.frames = false;
    pipeline.run(9.0);
    pipeline.is(Phase::Streaming);
    pipeline.run(2.0);
    pipeline.is(Phase::Stalled);
}

#[test]
fn not_recording_when_the_sink_gets_no_key_unit_within_the_startup_timeout() {
    let mut pipeline = SimulatedPipeline::playing().with_sink(false);
    pipeline.frames = true;
    pipeline.run(29.0);
    assert_eq!(pipeline.states(), [], "green only while the sink is fed");
    pipeline.run(2.0);
    pipeline.is(Phase::NotRecording);
    assert_eq!(pipeline.last()["reason"], "no-key-unit");
    assert_eq!(pipeline.last()["recording"], false);
    pipeline.sink.as_mut().unwrap().1 = true;
    pipeline.run(0.3);
    pipeline.is(Phase::Streaming);
    assert_eq!(pipeline.last()["recording"], true);
}

#[test]
fn not_recording_when_the_sink_is_fed_no_longer() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(20.0);
    pipeline.is(Phase::Streaming);
    pipeline.sink.as_mut().unwrap().1 = false;
    pipeline.run(10.5);
    pipeline.is(Phase::NotRecording);
    assert_eq!(pipeline.last()["reason"], "no-data");
    pipeline.sink.as_mut().unwrap().1 = true;
    pipeline.run(0.3);
    pipeline.is(Phase::Streaming);
}

/// Plays for `seconds` with a push in progress at every poll. Each push takes `wait` seconds; polls every `wait` seconds, at
/// least 1.02 s apart. Returns when the phase was first `not-recording`.
fn run_with_waiting_pushes(pipeline: &mut SimulatedPipeline, seconds: f64, wait: f64) -> Option<f64> {
    let (began, step) = (pipeline.now, wait.max(1.02));
    while pipeline.now < began + seconds {
        pipeline.now += step;
        // The push before has ended, and the next one began 10 ms ago.
        let entered = at(pipeline.now - 0.01).mono;
        if wait >= 1.0 {
            pipeline.counts.long_push = Some(Push {
                began: at(pipeline.now - 0.01 - wait).mono,
                ended: entered,
            });
        }
        pipeline.counts.frames += 1;
        (pipeline.counts.last_frame, pipeline.counts.pushing_since) = (Some(entered), Some(entered));
        let (sample, fed) = pipeline.sink.as_mut().unwrap();
        sample.key_units += u64::from(*fed);
        let samples = vec![sample.clone()];
        pipeline.reporter.handle(Event::Sinks(samples), at(pipeline.now));
        pipeline.poll();
        if pipeline.reporter.phase() == Phase::NotRecording {
            return Some(pipeline.now - began);
        }
    }
    None
}

#[test]
fn not_recording_is_noticed_where_each_push_waits_for_a_clock_or_a_muxer() {
    for (wait, limit) in [(0.03, 11.5), (2.0, 15.0)] {
        let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
        assert_eq!(run_with_waiting_pushes(&mut pipeline, 60.0, wait), None);
        pipeline.sink.as_mut().unwrap().1 = false;
        let noticed = run_with_waiting_pushes(&mut pipeline, 60.0, wait);
        assert!(noticed.is_some_and(|after| after <= limit), "{wait}: {noticed:?}");
        assert_eq!(pipeline.last()["reason"], "no-data");
    }
}

#[test]
fn a_freeze_is_dated_by_the_last_frame_though_a_push_was_under_way_at_the_last_poll() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    assert_eq!(run_with_waiting_pushes(&mut pipeline, 20.0, 0.03), None);
    let last = pipeline.counts.last_frame.unwrap();
    pipeline.counts.pushing_since = None;
    pipeline.frames = false;
    pipeline.run(10.5);
    pipeline.is(Phase::Stalled);
    assert_eq!(pipeline.published.last().unwrap().1.since, WALL + last);
}

#[test]
fn a_push_that_is_blocked_for_a_while_is_no_silence_of_the_sink() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    pipeline.keys = false;
    pipeline.run(4.0);
    pipeline.counts.pushing_since = Some(at(pipeline.now).mono);
    pipeline.run(9.0);
    pipeline.end_push();
    pipeline.run(5.0);
    pipeline.is(Phase::Streaming);
    pipeline.run(1.5);
    pipeline.is(Phase::NotRecording);
}

#[test]
fn a_sink_that_appears_in_mid_stream_has_a_moment_for_its_first_key_unit() {
    for comes in [true, false] {
        let mut pipeline = SimulatedPipeline::streaming();
        pipeline.run(40.0);
        pipeline.published.clear();
        let mut pipeline = pipeline.with_sink(false);
        // A camera may send its next key frame long after `stall-timeout`.
        pipeline.run(15.0);
        pipeline.sink.as_mut().unwrap().1 = comes;
        pipeline.run(14.8);
        assert_eq!(pipeline.states().iter().find(|s| s.2 != "streaming"), None);
        pipeline.run(1.0);
        pipeline.is(if comes { Phase::Streaming } else { Phase::NotRecording });
    }
}

#[test]
fn a_sink_that_replaces_one_without_a_key_unit_has_the_startup_timeout_from_its_own_start() {
    let mut pipeline = SimulatedPipeline::playing().with_sink(false);
    pipeline.frames = true;
    pipeline.run(25.0);
    pipeline.sink.as_mut().unwrap().0.name = "gcssink1".to_owned();
    pipeline.run(29.0);
    pipeline.is(Phase::Starting);
    pipeline.run(1.5);
    pipeline.is(Phase::NotRecording);
    let since = pipeline.published.last().unwrap().1.since;
    assert_eq!((since - WALL) / S, 25);
    // A third sink does not restart the timeout.
    pipeline.sink.as_mut().unwrap().0.name = "gcssink2".to_owned();
    pipeline.run(5.0);
    pipeline.is(Phase::NotRecording);
}

#[test]
fn a_pipeline_whose_sink_was_taken_out_is_connected_and_records_nothing() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    pipeline.sink = None;
    pipeline.handle(Event::Sinks(Vec::new()));
    pipeline.run(70.0);
    pipeline.is(Phase::Streaming);
    let status = pipeline.last();
    assert_eq!(
        (&status["recording"], &status["upload"]["status"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn the_second_outage_of_a_sink_is_noticed_as_soon_as_the_first() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    for _ in 0..4 {
        pipeline.sink.as_mut().unwrap().1 = true;
        pipeline.run(20.0);
        pipeline.is(Phase::Streaming);
        pipeline.sink.as_mut().unwrap().1 = false;
        pipeline.run(10.5);
        pipeline.is(Phase::NotRecording);
        // The outage continues: its length does not raise the limit.
        pipeline.run(60.0);
        pipeline.is(Phase::NotRecording);
    }
}

#[test]
fn a_sink_that_gets_sound_alone_where_there_were_pictures_is_not_recording() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(20.0);
    pipeline.keys = false;
    pipeline.run(10.5);
    pipeline.is(Phase::NotRecording);
    assert_eq!(pipeline.last()["state"], "disconnected");
    pipeline.keys = true;
    pipeline.run(0.3);
    pipeline.is(Phase::Streaming);
}

#[test]
fn a_camera_with_a_key_picture_each_forty_seconds_does_record_once_that_is_known() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    let mut phases = Vec::new();
    for _ in 0..6 {
        pipeline.keys = true;
        pipeline.run(0.1);
        pipeline.keys = false;
        pipeline.run(39.0);
        phases.push(pipeline.reporter.phase());
    }
    assert_eq!(phases[3..], [Phase::Streaming; 3], "{phases:?}");
}

#[test]
fn the_next_fragment_of_a_splitmuxsink_has_a_moment_for_its_first_key_unit() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    let (sample, fed) = pipeline.sink.as_mut().unwrap();
    *sample = SinkSample {
        name: "gcssink1".to_owned(),
        ..SinkSample::default()
    };
    *fed = false;
    pipeline.run(29.0);
    pipeline.is(Phase::Streaming);
    pipeline.run(2.0);
    pipeline.is(Phase::NotRecording);
}

#[test]
fn a_muxer_that_waits_and_takes_no_more_is_not_recording_rather_than_blocked() {
    let mut pipeline = SimulatedPipeline::playing().with_sink(false);
    pipeline.frames = true;
    pipeline.run(2.0);
    pipeline.counts.pushing_since = Some(at(pipeline.now).mono);
    pipeline.run(11.0);
    pipeline.is(Phase::NotRecording);
}

#[test]
fn a_muxer_that_hands_on_in_bursts_does_record() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    for _ in 0..10 {
        pipeline.sink.as_mut().unwrap().1 = true;
        pipeline.run(0.1);
        pipeline.sink.as_mut().unwrap().1 = false;
        pipeline.run(12.0);
        pipeline.is(Phase::Streaming);
    }
}

#[test]
fn paused_stops_the_stall_timer() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(Event::Playing(false));
    pipeline.frames = false;
    pipeline.run(40.0);
    pipeline.is(Phase::Paused);
    pipeline.handle(Event::Playing(true));
    pipeline.run(9.0);
    pipeline.is(Phase::Paused);
    pipeline.frames = true;
    pipeline.run(0.1);
    pipeline.is(Phase::Streaming);
    let states: Vec<_> = pipeline.states().iter().map(|s| s.2).collect();
    assert_eq!(states, ["streaming", "paused", "streaming"]);
}

#[test]
fn a_camera_that_does_not_come_back_after_a_pause_is_stalled() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(Event::Playing(false));
    pipeline.frames = false;
    pipeline.run(5.0);
    pipeline.handle(Event::Playing(true));
    pipeline.run(10.1);
    pipeline.is(Phase::Stalled);
}

#[test]
fn a_push_that_waited_for_the_preroll_is_not_blocked_when_the_pipeline_plays() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(Event::Playing(false));
    pipeline.counts.pushing_since = Some(at(pipeline.now).mono);
    pipeline.run(60.0);
    pipeline.is(Phase::Paused);
    pipeline.handle(Event::Playing(true));
    assert_ne!(pipeline.reporter.phase(), Phase::Blocked);
    pipeline.run(9.0);
    assert_ne!(pipeline.reporter.phase(), Phase::Blocked);
    pipeline.run(2.0);
    pipeline.is(Phase::Blocked);
}

#[test]
fn a_preroll_says_nothing() {
    let mut pipeline = SimulatedPipeline::new();
    pipeline.frames = true;
    pipeline.run(0.1);
    pipeline.frames = false;
    pipeline.run(5.0);
    assert_eq!(pipeline.states(), []);
    pipeline.handle(Event::Playing(true));
    pipeline.frames = true;
    pipeline.run(0.2);
    assert_eq!(pipeline.states().len(), 1);
    pipeline.is(Phase::Streaming);
}

#[test]
fn eos_is_reported_at_once_and_stays_the_final_status() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(Event::Eos);
    pipeline.handle(Event::Stopping);
    assert_eq!(pipeline.states()[1..], [(1.0, "disconnected", "eos")]);
}

#[test]
fn an_eos_near_a_sources_trouble_is_a_lost_source_in_either_order() {
    for (first, pause, second, phase) in [
        (trouble(true, false), 1.9, Event::Eos, Phase::SourceLost),
        (trouble(true, true), 1.9, Event::Eos, Phase::SourceLost),
        (Event::Eos, 1.0, trouble(true, false), Phase::SourceLost),
        (trouble(true, false), 2.2, Event::Eos, Phase::Eos),
        (trouble(false, false), 0.1, Event::Eos, Phase::Eos),
        (trouble(false, true), 0.1, Event::Eos, Phase::Error),
    ] {
        let mut pipeline = SimulatedPipeline::streaming();
        pipeline.handle(first);
        pipeline.run(pause);
        pipeline.handle(second);
        pipeline.is(phase);
        let is_error = matches!(phase, Phase::SourceLost | Phase::Error);
        assert_eq!(pipeline.last()["error"]["src"].is_string(), is_error, "{phase:?}");
    }
}

/// Does what basesrc does when its push fails: posts an ERROR of its own, and sends EOS.
fn source_gives_up(pipeline: &mut SimulatedPipeline) {
    pipeline.frames = false;
    pipeline.now += 0.01;
    pipeline.handle(trouble(true, true));
    pipeline.handle(Event::Eos);
    pipeline.run(1.0);
}

#[test]
fn an_error_behind_us_stays_an_error_though_the_source_gives_up_after_it() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(trouble(false, true));
    source_gives_up(&mut pipeline);
    pipeline.is(Phase::Error);
    pipeline.run(30.0);
    pipeline.handle(Event::Stopping);
    pipeline.is(Phase::Error);
    assert_eq!(pipeline.last()["reason"], "element-error");
    assert!(
        pipeline.states().iter().all(|s| s.2 != "source-lost"),
        "{:?}",
        pipeline.states()
    );
}

#[test]
fn a_push_that_failed_before_the_source_gave_up_is_an_error() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.counts.flow = Flow::NotNegotiated;
    source_gives_up(&mut pipeline);
    pipeline.is(Phase::Error);
    assert_eq!(pipeline.last()["reason"], "not-negotiated");
    pipeline.handle(Event::Stopping);
    pipeline.is(Phase::Error);
    // In the other order it is the source's end.
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(trouble(true, true));
    pipeline.counts.flow = Flow::Error;
    pipeline.handle(Event::Eos);
    pipeline.is(Phase::SourceLost);
    // Flushing and EOS downstream are not failures.
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.counts.flow = Flow::Eos;
    source_gives_up(&mut pipeline);
    pipeline.is(Phase::SourceLost);
}

#[test]
fn an_error_is_reported_at_once_with_its_cause_and_without_the_password() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(trouble(true, true));
    pipeline.handle(Event::Problem(Problem {
        src: "demux".to_owned(),
        is_error: true,
        ..Problem::default()
    }));
    pipeline.handle(Event::Stopping);
    assert_eq!(pipeline.states()[1..], [(1.0, "disconnected", "error")]);
    let error = &pipeline.last()["error"];
    assert_eq!(error["src"], "rtspsrc0");
    assert_eq!(error["code"], 9);
    assert!(!pipeline.last().to_string().contains("hunter2"), "{error}");
    assert!(pipeline.telemetry.iter().all(|e| !e.body.to_string().contains("hunter2")));
}

#[test]
fn a_pipeline_that_goes_on_after_an_error_is_connected_again() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(trouble(false, true));
    pipeline.run(1.9);
    pipeline.is(Phase::Error);
    pipeline.run(0.3);
    pipeline.is(Phase::Streaming);
    assert_eq!(pipeline.last()["error"]["src"], Value::Null);
}

#[test]
fn a_flow_error_downstream_is_an_error() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.counts.flow = Flow::NotLinked;
    pipeline.poll();
    pipeline.is(Phase::Error);
    assert_eq!(pipeline.last()["reason"], "not-linked");
}

#[test]
fn stopped_on_purpose_is_reported_once() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.frames = false;
    pipeline.handle(Event::Stopping);
    assert_eq!(pipeline.states().len(), 1, "what stopped it may be heard of yet");
    pipeline.run(0.3);
    assert_eq!(pipeline.states()[1..], [(1.1, "disconnected", "stopped")]);
    let mut pipeline = SimulatedPipeline::playing();
    pipeline.handle(Event::Stopping);
    pipeline.run(0.3);
    assert_eq!(
        pipeline.states(),
        [(0.1, "disconnected", "stopped")],
        "also where nothing was ever told"
    );
}

#[test]
fn an_error_that_is_heard_of_just_after_the_stop_is_what_is_reported() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.frames = false;
    pipeline.handle(Event::Stopping);
    pipeline.handle(Event::Problem(Problem {
        is_error: true,
        msg: "gone".into(),
        src: "rtsp://user:SECRET@camera".into(),
        ..Problem::default()
    }));
    pipeline.run(0.3);
    assert_eq!(pipeline.states().len(), 2);
    pipeline.is(Phase::Error);
    assert!(!pipeline.last()["error"]["src"].to_string().contains("SECRET"));
    let counts = pipeline.counts;
    assert_eq!(
        pipeline.reporter.final_status(&counts, at(pipeline.now)),
        None,
        "all of it was told"
    );
}

#[test]
fn an_error_elsewhere_in_the_pipeline_is_the_cause_of_a_stop_and_of_nothing_else() {
    let elsewhere = || {
        let Event::Problem(problem) = trouble(true, true) else {
            unreachable!()
        };
        Event::Problem(Problem {
            is_elsewhere: true,
            ..problem
        })
    };
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.run(5.0);
    pipeline.handle(elsewhere());
    pipeline.run(3.0);
    pipeline.is(Phase::Streaming);
    assert!(pipeline.telemetry.is_empty(), "{:?}", pipeline.telemetry);
    pipeline.handle(Event::Stopping);
    pipeline.run(0.5);
    pipeline.is(Phase::Stopped);
    // Before the stop, and just after it.
    for is_before in [true, false] {
        let mut pipeline = SimulatedPipeline::streaming();
        pipeline.run(5.0);
        let mut events = vec![elsewhere(), Event::Stopping];
        if !is_before {
            events.reverse();
        }
        events.into_iter().for_each(|event| pipeline.handle(event));
        pipeline.run(0.5);
        pipeline.is(Phase::Error);
    }
}
