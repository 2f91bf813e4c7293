//! The contract's second table: the combined report of pipeline and uploads.

use super::*;

#[test]
fn a_camera_whose_uplink_is_down_is_no_dead_camera() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    let sample = &mut pipeline.sink.as_mut().unwrap().0;
    sample.status = UploadStatus::from_name("offline");
    (sample.chunks_pending, sample.bytes_held, sample.oldest_pending) = (3, 5000, 30 * S);
    pipeline.run(0.2);
    pipeline.is(Phase::Streaming);
    let status = pipeline.last();
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&"connected".into(), &"upload-offline".into())
    );
    assert_eq!(status["upload"]["status"], "offline");
    assert_eq!(status["upload"]["backlog_bytes"], 5000);
    assert_eq!(status["upload"]["oldest_pending_s"], 30.0);
    assert_eq!(status["recording"], true);
}

#[test]
fn a_frozen_camera_with_an_idle_sink_is_stalled() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    pipeline.frames = false;
    pipeline.run(15.0);
    pipeline.is(Phase::Stalled);
    assert_eq!(pipeline.last()["upload"]["status"], "online");
    pipeline.frames = true;
    pipeline.run(0.2);
    pipeline.is(Phase::Streaming);
}

#[test]
fn a_recording_that_rests_by_command_is_connected_and_says_so() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(1.0);
    pipeline.handle(Event::Record(false));
    pipeline.run(60.0);
    pipeline.is(Phase::Streaming);
    assert_eq!(pipeline.last()["recording"], false);
    assert_eq!(pipeline.last()["reason"], "record-stopped");
    pipeline.sink.as_mut().unwrap().1 = false;
    pipeline.run(11.0);
    pipeline.is(Phase::NotRecording);
    pipeline.handle(Event::Record(true));
    pipeline.sink.as_mut().unwrap().1 = true;
    pipeline.run(1.0);
    assert_eq!(pipeline.last()["recording"], true);
}

#[test]
fn a_camera_that_freezes_just_after_a_new_fragment_is_stalled_and_nothing_else() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    // The next fragment's sink exists, but its muxer has not passed on the first key unit.
    let (sample, fed) = pipeline.sink.as_mut().unwrap();
    (sample.name, sample.key_units, sample.bytes_received) = ("gcssink1".to_owned(), 0, 0);
    *fed = false;
    pipeline.run(0.9);
    pipeline.frames = false;
    pipeline.published.clear();
    pipeline.run(20.0);
    pipeline.is(Phase::Stalled);
    assert!(
        pipeline
            .published
            .iter()
            .all(|(_, status)| status.phase != Phase::NotRecording),
        "{:?}",
        pipeline.states()
    );
}

#[test]
fn nothing_is_connected_before_the_first_sink_of_a_splitmuxsink_runs() {
    let mut pipeline = SimulatedPipeline::playing().with_sink(false);
    pipeline.sink.as_mut().unwrap().0.status = UploadStatus::from_name("stopped");
    pipeline.frames = true;
    pipeline.run(5.0);
    pipeline.is(Phase::Starting);
    assert!(pipeline.published.is_empty(), "{:?}", pipeline.states());
    let (sample, fed) = pipeline.sink.as_mut().unwrap();
    sample.status = UploadStatus::from_name("starting");
    *fed = true;
    pipeline.run(1.0);
    pipeline.is(Phase::Streaming);
    // Between two fragments no sink runs for a moment; if no other sink follows, nothing is recorded.
    let (sample, fed) = pipeline.sink.as_mut().unwrap();
    sample.status = UploadStatus::from_name("stopped");
    *fed = false;
    pipeline.run(3.0);
    pipeline.is(Phase::Streaming);
    pipeline.run(10.0);
    pipeline.is(Phase::NotRecording);
}

#[test]
fn the_status_of_the_uploads_does_not_start_again_with_each_fragment() {
    for before in ["online", "degraded", "offline"] {
        let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
        pipeline.sink.as_mut().unwrap().0.status = UploadStatus::from_name(before);
        pipeline.run(5.0);
        for fragment in 1..4 {
            let (sample, _) = pipeline.sink.as_mut().unwrap();
            (sample.name, sample.key_units, sample.bytes_received) = (format!("gcssink{fragment}"), 0, 0);
            sample.status = UploadStatus::from_name("starting");
            pipeline.published.clear();
            pipeline.run(65.0);
            assert_eq!(pipeline.last()["upload"]["status"], before);
        }
        pipeline.sink.as_mut().unwrap().0.status = UploadStatus::from_name("draining");
        pipeline.run(1.0);
        assert_eq!(pipeline.last()["upload"]["status"], "draining");
    }
}
