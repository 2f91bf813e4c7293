//! When a status is published: heartbeats, answers, several sinks.

use super::answers::MAX_ANSWERS;
use super::*;

#[test]
fn the_heartbeat_comes_every_state_interval_and_never_before_the_first_word() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.run(200.0);
    let times: Vec<f64> = pipeline.states().iter().map(|s| s.0).collect();
    assert_eq!(times, [0.1, 60.1, 120.1, 180.1]);
    assert_eq!(pipeline.last()["seq"], 4);
    assert_eq!(pipeline.last()["video"]["fps"], 10.0);
    assert_eq!(pipeline.last()["video"]["key_interval_s"], 1.0);
    assert_eq!(pipeline.last()["video"]["kbps"], 80.0);
}

#[test]
fn the_bare_state_is_repeated_by_its_own_heartbeat_only_however_much_else_is_reported() {
    let mut pipeline = SimulatedPipeline::streaming();
    let mut repeated = Vec::new();
    for second in 1..150 {
        pipeline.run(1.0);
        pipeline.reporter.handle(Event::Answer(Answer::default()), at(pipeline.now));
        let output = pipeline.reporter.poll(&pipeline.counts, at(pipeline.now));
        assert!(output.publish.is_some());
        assert!(!output.with_state, "the pipeline's own poll was first");
        repeated.extend(pipeline.published.drain(..).map(|_| second));
    }
    assert_eq!(repeated, [1, 60, 120], "the first state, and two heartbeats");
}

#[test]
fn commands_and_configs_are_answered_in_a_status_of_their_own() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.handle(Event::Answer(Answer {
        name: "split".to_owned(),
        id: Some("r1".to_owned()),
        ok: true,
        ..Answer::default()
    }));
    pipeline.handle(Event::Config("ab".repeat(32)));
    assert_eq!(pipeline.states().len(), 3);
    assert_eq!(
        pipeline.last()["command"],
        serde_json::json!({"name": "split", "id": "r1", "ok": true, "msg": null})
    );
    assert_eq!(pipeline.last()["config"]["ok"], true);
}

#[test]
fn a_report_that_was_asked_for_goes_with_the_bare_state() {
    let mut pipeline = SimulatedPipeline::streaming();
    for (repeats_state, settled, goes) in [(false, true, false), (true, true, true), (true, false, false)] {
        let answer = Answer {
            ok: true,
            repeats_state,
            ..Answer::default()
        };
        pipeline.reporter.set_link_settled(settled);
        pipeline.reporter.handle(Event::Answer(answer), at(pipeline.now));
        let output = pipeline.reporter.poll(&pipeline.counts, at(pipeline.now));
        assert_eq!((output.publish.is_some(), output.with_state), (settled, goes));
    }
    // Published once the previous state has been acknowledged.
    pipeline.reporter.set_link_settled(true);
    assert!(pipeline.reporter.poll(&pipeline.counts, at(pipeline.now)).with_state);
}

#[test]
fn each_of_many_answers_has_a_status_of_its_own_however_close_the_commands_are() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.published.clear();
    pipeline.reporter.set_link_settled(false);
    for n in 0..5 {
        pipeline.handle(Event::Answer(Answer {
            id: Some(n.to_string()),
            ..Answer::default()
        }));
    }
    assert_eq!(pipeline.published.len(), 0, "a status is on its way");
    for n in 0..5 {
        pipeline.reporter.set_link_settled(true);
        pipeline.poll();
        assert_eq!(pipeline.last()["command"]["id"], n.to_string());
        pipeline.reporter.set_link_settled(false);
        // Another change does not replace an answer that has not been published.
        pipeline.handle(Event::Config(n.to_string()));
        assert_eq!(pipeline.last()["command"]["id"], n.to_string());
    }
    assert_eq!(pipeline.published.len(), 10);
    (0..200).for_each(|_| pipeline.reporter.handle(Event::Answer(Answer::default()), at(pipeline.now)));
    assert_eq!(pipeline.reporter.answers.waiting(), MAX_ANSWERS);
}

#[test]
fn several_sinks_count_as_one() {
    let mut pipeline = SimulatedPipeline::streaming();
    let good = SinkSample {
        name: "a".to_owned(),
        key_units: 1,
        bytes_received: 5,
        chunks_pending: 1,
        bytes_held: 10,
        status: UploadStatus::from_name("online"),
        ..SinkSample::default()
    };
    let bad = SinkSample {
        name: "b".to_owned(),
        oldest_pending: 9 * S,
        status: UploadStatus::from_name("degraded"),
        ..good.clone()
    };
    pipeline.handle(Event::Sinks(vec![good.clone(), bad.clone()]));
    assert_eq!(pipeline.last()["upload"]["status"], "degraded");
    assert_eq!(pipeline.last()["upload"]["backlog_bytes"], 20);
    let unfed = SinkSample { key_units: 0, ..bad };
    let mut pipeline = SimulatedPipeline::playing();
    pipeline.handle(Event::Sinks(vec![good, unfed]));
    pipeline.frames = true;
    pipeline.run(1.0);
    assert_ne!(
        pipeline.reporter.phase(),
        Phase::Streaming,
        "green only where all of them are fed"
    );
}

#[test]
fn what_was_published_before_the_link_existed_is_published_again_with_the_bare_state() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.run(3.0);
    let poll = |pipeline: &mut SimulatedPipeline| {
        let output = pipeline.reporter.poll(&pipeline.counts, at(pipeline.now));
        (output.publish.is_some(), output.with_state)
    };
    assert_eq!(poll(&mut pipeline), (false, false));
    pipeline.reporter.handle(Event::Connected, at(pipeline.now));
    pipeline.reporter.forget_published();
    assert_eq!(poll(&mut pipeline), (true, true));
    assert_eq!(poll(&mut pipeline), (false, false));
}

#[test]
fn the_first_status_after_an_outage_is_written_again_and_one_of_just_now_is_not() {
    let mut pipeline = SimulatedPipeline::streaming();
    pipeline.run(20.0);
    let before = pipeline.published.len();
    pipeline.handle(Event::Connected);
    assert_eq!(pipeline.published.len(), before + 1, "the last one is 20 s old");
    pipeline.run(1.0);
    pipeline.handle(Event::Connected);
    assert_eq!(pipeline.published.len(), before + 1);
}

#[test]
fn a_clock_that_is_set_corrects_what_began_before_and_a_slewed_one_changes_nothing() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(20.0);
    pipeline.handle(Event::Chunk(Chunk {
        object: "cam1/x.flv".to_owned(),
        ..Chunk::default()
    }));
    pipeline.run(5.0);
    let mut reported = |ahead_ms: u64| {
        let now = at(pipeline.now);
        let now = Now {
            wall: now.wall + ahead_ms * 1_000_000,
            ..now
        };
        pipeline.reporter.handle(Event::Connected, now);
        let status = pipeline.reporter.poll(&pipeline.counts, now).publish.unwrap();
        pipeline.run(6.0);
        (status.since, status.upload.last_done.unwrap())
    };
    let (since, done) = reported(0);
    assert_eq!(reported(500), (since, done));
    let hour = 3600 * S;
    assert_eq!(
        reported(3_600_000),
        (since + hour, done + hour),
        "the clock was an hour behind"
    );
    assert_eq!(reported(0), (since, done), "and back");
}
