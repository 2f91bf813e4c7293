//! One row for each row of the contract's tables, and what holds whatever happens.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const S: u64 = 1_000_000_000;
/// 2026-11-22T06:45:12Z.
const WALL: u64 = 1_795_329_912 * S;

fn at(seconds: f64) -> Now {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let mono = (seconds * 1e9).round() as u64;
    Now { mono, wall: WALL + mono }
}

/// A pipeline on paper: 10 frames a second while `frames` is on, the reporter looked at when it asks for it.
struct Paper {
    reporter: Reporter,
    tally: Tally,
    frames: bool,
    /// The gcssink, where there is one: whether it gets what passes.
    sink: Option<(Sample, bool)>,
    /// What the sink gets holds key units.
    keys: bool,
    now: f64,
    published: Vec<(f64, Status)>,
    events: Vec<Event>,
}

impl Paper {
    fn new() -> Self {
        let limits = Limits {
            stall: 10 * S,
            startup: 30 * S,
            interval: 60 * S,
        };
        let identity = Identity {
            device: "cam1".to_owned(),
            session: "d209ufrfpg".to_owned(),
            ..Identity::default()
        };
        Self {
            reporter: Reporter::new(limits, identity, at(0.0)),
            tally: Tally::default(),
            frames: false,
            sink: None,
            keys: true,
            now: 0.0,
            published: Vec::new(),
            events: Vec::new(),
        }
    }

    fn tell(&mut self, input: Input) {
        self.reporter.tell(input, at(self.now));
        self.look();
    }

    fn look(&mut self) {
        let look = self.reporter.look(&self.tally, at(self.now));
        assert!(
            look.next > at(self.now).mono,
            "a look that asks to look again at once never ends"
        );
        self.published.extend(look.publish.map(|s| (self.now, s)));
        self.events.extend(look.events);
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + seconds;
        while self.now < end - 1e-6 {
            self.now += 0.1;
            if self.frames && self.tally.pushing_since.is_none() {
                self.tally.frames += 1;
                self.tally.bytes += 1000;
                if self.tally.frames % 10 == 1 {
                    self.tally.key_frames += 1;
                    if self.tally.key_frames > 1 {
                        self.tally.key_gaps += 1;
                        self.tally.key_span += 1_000_000_000;
                        self.tally.last_key_gap = Some(1_000_000_000);
                    }
                }
                self.tally.last_frame = Some(at(self.now).mono);
            }
            if let Some((sample, fed)) = &mut self.sink {
                if *fed && self.frames && self.tally.pushing_since.is_none() {
                    sample.bytes_received += 1000;
                    sample.key_units += u64::from(self.keys);
                }
                self.reporter.tell(Input::Sinks(vec![sample.clone()]), at(self.now));
            }
            self.look();
        }
    }

    fn playing() -> Self {
        let mut paper = Self::new();
        paper.tell(Input::Playing(true));
        paper
    }

    fn streaming() -> Self {
        let mut paper = Self::playing();
        paper.frames = true;
        paper.run(1.0);
        paper
    }

    fn with_sink(mut self, fed: bool) -> Self {
        let sample = Sample {
            name: "gcssink0".to_owned(),
            status: UploadStatus::from_name("online"),
            ..Sample::default()
        };
        self.sink = Some((sample, fed));
        self
    }

    fn is(&self, phase: Phase) -> &Self {
        assert_eq!(self.reporter.phase(), phase, "at {} s: {:?}", self.now, self.states());
        self
    }

    /// What a subscriber of the state topic sees: time, state, phase.
    fn states(&self) -> Vec<(f64, &'static str, &'static str)> {
        let rows = self.published.iter();
        rows.map(|(t, s)| ((t * 10.0).round() / 10.0, s.state(), s.phase.name()))
            .collect()
    }

    fn last(&self) -> Value {
        self.published.last().unwrap().1.to_json()
    }
}

fn trouble(is_source: bool, is_error: bool) -> Input {
    Input::Problem(Problem {
        src: "rtspsrc0".to_owned(),
        domain: "gst-resource-error-quark".to_owned(),
        code: 9,
        msg: "Could not read from rtsp://admin:hunter2@10.0.0.7/stream".to_owned(),
        is_source,
        is_error,
    })
}

// The contract's list of phases, one row each.

#[test]
fn starting_publishes_nothing_before_the_first_frame_or_the_startup_timeout() {
    let mut paper = Paper::playing();
    paper.run(29.9);
    assert_eq!(paper.states(), []);
    paper.run(0.2);
    assert_eq!(paper.states(), [(30.0, "disconnected", "starting")]);
    assert_eq!(paper.last()["reason"], "no-frame");
}

#[test]
fn streaming_is_connected_with_the_first_frame() {
    let mut paper = Paper::playing();
    paper.run(5.0);
    paper.frames = true;
    paper.run(3.0);
    assert_eq!(paper.states(), [(5.1, "connected", "streaming")]);
    assert_eq!(paper.last()["recording"], Value::Null, "there is no gcssink");
}

#[test]
fn stalled_after_the_stall_timeout_and_connected_again_with_the_next_frame() {
    let mut paper = Paper::streaming();
    paper.frames = false;
    paper.run(20.0);
    paper.frames = true;
    paper.run(1.0);
    assert_eq!(
        paper.states(),
        [
            (0.1, "connected", "streaming"),
            (11.0, "disconnected", "stalled"),
            (21.1, "connected", "streaming")
        ]
    );
    let stalled = paper.published[1].1.to_json();
    assert_eq!(stalled["since"], "2026-11-22T06:45:13.000Z", "since the last frame");
    assert_eq!(paper.last()["stalls"]["count"], 1);
    assert_eq!(paper.last()["stalls"]["total_s"], 20.1);
    let kinds: Vec<_> = paper.events.iter().map(|e| (e.kind, e.body["stalled"].as_bool())).collect();
    assert_eq!(kinds, [("stall", Some(true)), ("stall", Some(false))]);
}

#[test]
fn blocked_is_not_stalled() {
    let mut paper = Paper::streaming();
    paper.tally.pushing_since = Some(at(paper.now).mono);
    paper.run(30.0);
    paper.is(Phase::Blocked);
    assert_eq!(paper.states()[1..], [(11.0, "disconnected", "blocked")]);
    assert_eq!(paper.last()["reason"], "downstream");
    assert_eq!(paper.last()["stalls"]["count"], 0);
    // Downstream goes on, and the camera needs a while.
    paper.tally.pushing_since = None;
    paper.frames = false;
    paper.run(9.0);
    paper.is(Phase::Streaming);
    paper.run(2.0);
    paper.is(Phase::Stalled);
}

#[test]
fn not_recording_when_the_sink_gets_no_key_unit_within_the_startup_timeout() {
    let mut paper = Paper::playing().with_sink(false);
    paper.frames = true;
    paper.run(29.0);
    assert_eq!(paper.states(), [], "green only while the sink is fed");
    paper.run(2.0);
    paper.is(Phase::NotRecording);
    assert_eq!(paper.last()["reason"], "no-key-unit");
    assert_eq!(paper.last()["recording"], false);
    paper.sink.as_mut().unwrap().1 = true;
    paper.run(0.3);
    paper.is(Phase::Streaming);
    assert_eq!(paper.last()["recording"], true);
}

#[test]
fn not_recording_when_the_sink_is_fed_no_longer() {
    let mut paper = Paper::streaming().with_sink(true);
    paper.run(20.0);
    paper.is(Phase::Streaming);
    paper.sink.as_mut().unwrap().1 = false;
    paper.run(10.5);
    paper.is(Phase::NotRecording);
    assert_eq!(paper.last()["reason"], "no-data");
    paper.sink.as_mut().unwrap().1 = true;
    paper.run(0.3);
    paper.is(Phase::Streaming);
}

#[test]
fn the_second_outage_of_a_sink_is_noticed_as_soon_as_the_first() {
    let mut paper = Paper::streaming().with_sink(true);
    for _ in 0..4 {
        paper.sink.as_mut().unwrap().1 = true;
        paper.run(20.0);
        paper.is(Phase::Streaming);
        paper.sink.as_mut().unwrap().1 = false;
        paper.run(10.5);
        paper.is(Phase::NotRecording);
        // It lasts, and is no habit for it.
        paper.run(60.0);
        paper.is(Phase::NotRecording);
    }
}

#[test]
fn a_sink_that_gets_sound_alone_where_there_were_pictures_is_not_recording() {
    let mut paper = Paper::streaming().with_sink(true);
    paper.run(20.0);
    paper.keys = false;
    paper.run(10.5);
    paper.is(Phase::NotRecording);
    assert_eq!(paper.last()["state"], "disconnected");
    paper.keys = true;
    paper.run(0.3);
    paper.is(Phase::Streaming);
}

#[test]
fn a_camera_with_a_key_picture_each_forty_seconds_does_record_once_that_is_known() {
    let mut paper = Paper::streaming().with_sink(true);
    let mut phases = Vec::new();
    for _ in 0..6 {
        paper.keys = true;
        paper.run(0.1);
        paper.keys = false;
        paper.run(39.0);
        phases.push(paper.reporter.phase());
    }
    assert_eq!(phases[3..], [Phase::Streaming; 3], "{phases:?}");
}

#[test]
fn the_next_fragment_of_a_splitmuxsink_has_a_moment_for_its_first_key_unit() {
    let mut paper = Paper::streaming().with_sink(true);
    paper.run(5.0);
    let (sample, fed) = paper.sink.as_mut().unwrap();
    *sample = Sample {
        name: "gcssink1".to_owned(),
        ..Sample::default()
    };
    *fed = false;
    paper.run(9.0);
    paper.is(Phase::Streaming);
    paper.run(2.0);
    paper.is(Phase::NotRecording);
}

#[test]
fn a_muxer_that_waits_and_takes_no_more_is_not_recording_rather_than_blocked() {
    let mut paper = Paper::playing().with_sink(false);
    paper.frames = true;
    paper.run(2.0);
    paper.tally.pushing_since = Some(at(paper.now).mono);
    paper.run(11.0);
    paper.is(Phase::NotRecording);
}

#[test]
fn a_muxer_that_hands_on_in_bursts_does_record() {
    let mut paper = Paper::streaming().with_sink(true);
    for _ in 0..10 {
        paper.sink.as_mut().unwrap().1 = true;
        paper.run(0.1);
        paper.sink.as_mut().unwrap().1 = false;
        paper.run(12.0);
        paper.is(Phase::Streaming);
    }
}

#[test]
fn paused_stops_the_stall_timer() {
    let mut paper = Paper::streaming();
    paper.tell(Input::Playing(false));
    paper.frames = false;
    paper.run(40.0);
    paper.is(Phase::Paused);
    paper.tell(Input::Playing(true));
    paper.run(9.0);
    paper.is(Phase::Paused);
    paper.frames = true;
    paper.run(0.1);
    paper.is(Phase::Streaming);
    let states: Vec<_> = paper.states().iter().map(|s| s.2).collect();
    assert_eq!(states, ["streaming", "paused", "streaming"]);
}

#[test]
fn a_camera_that_does_not_come_back_after_a_pause_is_stalled() {
    let mut paper = Paper::streaming();
    paper.tell(Input::Playing(false));
    paper.frames = false;
    paper.run(5.0);
    paper.tell(Input::Playing(true));
    paper.run(10.1);
    paper.is(Phase::Stalled);
}

#[test]
fn a_push_that_waited_for_the_preroll_is_not_blocked_when_the_pipeline_plays() {
    let mut paper = Paper::streaming();
    paper.tell(Input::Playing(false));
    paper.tally.pushing_since = Some(at(paper.now).mono);
    paper.run(60.0);
    paper.is(Phase::Paused);
    paper.tell(Input::Playing(true));
    assert_ne!(paper.reporter.phase(), Phase::Blocked);
    paper.run(9.0);
    assert_ne!(paper.reporter.phase(), Phase::Blocked);
    paper.run(2.0);
    paper.is(Phase::Blocked);
}

#[test]
fn a_preroll_says_nothing() {
    let mut paper = Paper::new();
    paper.frames = true;
    paper.run(0.1);
    paper.frames = false;
    paper.run(5.0);
    assert_eq!(paper.states(), []);
    paper.tell(Input::Playing(true));
    paper.frames = true;
    paper.run(0.2);
    assert_eq!(paper.states().len(), 1);
    paper.is(Phase::Streaming);
}

#[test]
fn eos_is_told_at_once_and_stays_the_last_word() {
    let mut paper = Paper::streaming();
    paper.tell(Input::Eos);
    paper.tell(Input::Stopping);
    assert_eq!(paper.states()[1..], [(1.0, "disconnected", "eos")]);
}

#[test]
fn an_eos_near_a_sources_trouble_is_a_lost_source_in_either_order() {
    for (first, pause, second, phase) in [
        (trouble(true, false), 1.9, Input::Eos, Phase::SourceLost),
        (trouble(true, true), 1.9, Input::Eos, Phase::SourceLost),
        (Input::Eos, 1.0, trouble(true, false), Phase::SourceLost),
        (trouble(true, false), 2.2, Input::Eos, Phase::Eos),
        (trouble(false, false), 0.1, Input::Eos, Phase::Eos),
        (trouble(false, true), 0.1, Input::Eos, Phase::Error),
    ] {
        let mut paper = Paper::streaming();
        paper.tell(first);
        paper.run(pause);
        paper.tell(second);
        paper.is(phase);
        let is_error = matches!(phase, Phase::SourceLost | Phase::Error);
        assert_eq!(paper.last()["error"]["src"].is_string(), is_error, "{phase:?}");
    }
}

/// What basesrc does when its push fails: an ERROR of its own, and EOS.
fn source_gives_up(paper: &mut Paper) {
    paper.frames = false;
    paper.now += 0.01;
    paper.tell(trouble(true, true));
    paper.tell(Input::Eos);
    paper.run(1.0);
}

#[test]
fn an_error_behind_us_stays_an_error_though_the_source_gives_up_after_it() {
    let mut paper = Paper::streaming();
    paper.tell(trouble(false, true));
    source_gives_up(&mut paper);
    paper.is(Phase::Error);
    paper.run(30.0);
    paper.tell(Input::Stopping);
    paper.is(Phase::Error);
    assert_eq!(paper.last()["reason"], "element-error");
    assert!(paper.states().iter().all(|s| s.2 != "source-lost"), "{:?}", paper.states());
}

#[test]
fn a_push_that_failed_before_the_source_gave_up_is_an_error() {
    let mut paper = Paper::streaming();
    paper.tally.flow = Flow::NotNegotiated;
    source_gives_up(&mut paper);
    paper.is(Phase::Error);
    assert_eq!(paper.last()["reason"], "not-negotiated");
    paper.tell(Input::Stopping);
    paper.is(Phase::Error);
    // The other way round it is the source's end.
    let mut paper = Paper::streaming();
    paper.tell(trouble(true, true));
    paper.tally.flow = Flow::Error;
    paper.tell(Input::Eos);
    paper.is(Phase::SourceLost);
    // Flushing and EOS behind us are no failure.
    let mut paper = Paper::streaming();
    paper.tally.flow = Flow::Eos;
    source_gives_up(&mut paper);
    paper.is(Phase::SourceLost);
}

#[test]
fn an_error_is_told_at_once_with_its_cause_and_without_the_password() {
    let mut paper = Paper::streaming();
    paper.tell(trouble(true, true));
    paper.tell(Input::Problem(Problem {
        src: "demux".to_owned(),
        is_error: true,
        ..Problem::default()
    }));
    paper.tell(Input::Stopping);
    assert_eq!(paper.states()[1..], [(1.0, "disconnected", "error")]);
    let error = &paper.last()["error"];
    assert_eq!(error["src"], "rtspsrc0");
    assert_eq!(error["code"], 9);
    assert!(!paper.last().to_string().contains("hunter2"), "{error}");
    assert!(paper.events.iter().all(|e| !e.body.to_string().contains("hunter2")));
}

#[test]
fn a_pipeline_that_goes_on_after_an_error_is_connected_again() {
    let mut paper = Paper::streaming();
    paper.tell(trouble(false, true));
    paper.run(1.9);
    paper.is(Phase::Error);
    paper.run(0.3);
    paper.is(Phase::Streaming);
    assert_eq!(paper.last()["error"]["src"], Value::Null);
}

#[test]
fn a_flow_error_downstream_is_an_error() {
    let mut paper = Paper::streaming();
    paper.tally.flow = Flow::NotLinked;
    paper.look();
    paper.is(Phase::Error);
    assert_eq!(paper.last()["reason"], "not-linked");
}

#[test]
fn stopped_on_purpose_is_told_once() {
    let mut paper = Paper::streaming();
    paper.frames = false;
    paper.tell(Input::Stopping);
    assert_eq!(paper.states().len(), 1, "what stopped it may be heard of yet");
    paper.run(0.3);
    assert_eq!(paper.states()[1..], [(1.1, "disconnected", "stopped")]);
    let mut paper = Paper::playing();
    paper.tell(Input::Stopping);
    paper.run(0.3);
    assert_eq!(
        paper.states(),
        [(0.1, "disconnected", "stopped")],
        "also where nothing was ever told"
    );
}

#[test]
fn an_error_that_is_heard_of_just_after_the_stop_is_what_is_told() {
    let mut paper = Paper::streaming();
    paper.frames = false;
    paper.tell(Input::Stopping);
    paper.tell(Input::Problem(Problem {
        is_error: true,
        msg: "gone".into(),
        src: "rtsp://user:SECRET@camera".into(),
        ..Problem::default()
    }));
    paper.run(0.3);
    assert_eq!(paper.states().len(), 2);
    paper.is(Phase::Error);
    assert!(!paper.last()["error"]["src"].to_string().contains("SECRET"));
    let tally = paper.tally;
    assert_eq!(paper.reporter.last_word(&tally, at(paper.now)), None, "all of it was told");
}

// The second table: what is true, in words of both elements.

#[test]
fn a_camera_whose_uplink_is_down_is_no_dead_camera() {
    let mut paper = Paper::streaming().with_sink(true);
    paper.run(5.0);
    let sample = &mut paper.sink.as_mut().unwrap().0;
    sample.status = UploadStatus::from_name("offline");
    (sample.chunks_pending, sample.bytes_held, sample.oldest_pending) = (3, 5000, 30 * S);
    paper.run(0.2);
    paper.is(Phase::Streaming);
    let status = paper.last();
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
    let mut paper = Paper::streaming().with_sink(true);
    paper.run(5.0);
    paper.frames = false;
    paper.run(15.0);
    paper.is(Phase::Stalled);
    assert_eq!(paper.last()["upload"]["status"], "online");
    paper.frames = true;
    paper.run(0.2);
    paper.is(Phase::Streaming);
}

#[test]
fn a_recording_that_rests_by_command_is_connected_and_says_so() {
    let mut paper = Paper::streaming().with_sink(true);
    paper.run(1.0);
    paper.tell(Input::Record(false));
    paper.run(60.0);
    paper.is(Phase::Streaming);
    assert_eq!(paper.last()["recording"], false);
    assert_eq!(paper.last()["reason"], "record-stopped");
    paper.sink.as_mut().unwrap().1 = false;
    paper.run(11.0);
    paper.is(Phase::NotRecording);
    paper.tell(Input::Record(true));
    paper.sink.as_mut().unwrap().1 = true;
    paper.run(1.0);
    assert_eq!(paper.last()["recording"], true);
}

// The rest.

#[test]
fn the_heartbeat_comes_every_state_interval_and_never_before_the_first_word() {
    let mut paper = Paper::streaming();
    paper.run(200.0);
    let times: Vec<f64> = paper.states().iter().map(|s| s.0).collect();
    assert_eq!(times, [0.1, 60.1, 120.1, 180.1]);
    assert_eq!(paper.last()["seq"], 4);
    assert_eq!(paper.last()["video"]["fps"], 10.0);
    assert_eq!(paper.last()["video"]["key_interval_s"], 1.0);
    assert_eq!(paper.last()["video"]["kbps"], 80.0);
}

#[test]
fn the_bare_state_is_repeated_by_its_own_heartbeat_only_however_much_else_is_told() {
    let mut paper = Paper::streaming();
    let mut repeated = Vec::new();
    for second in 1..150 {
        paper.run(1.0);
        paper.reporter.tell(Input::Answer(Answer::default()), at(paper.now));
        let look = paper.reporter.look(&paper.tally, at(paper.now));
        assert!(look.publish.is_some());
        assert!(!look.with_state, "the look of the line itself was first");
        repeated.extend(paper.published.drain(..).map(|_| second));
    }
    assert_eq!(repeated, [1, 60, 120], "the first state, and two heartbeats");
}

#[test]
fn commands_and_configs_are_answered_in_a_status_of_their_own() {
    let mut paper = Paper::streaming();
    paper.tell(Input::Answer(Answer {
        name: "split".to_owned(),
        id: Some("r1".to_owned()),
        ok: true,
        msg: None,
    }));
    paper.tell(Input::Config("ab".repeat(32)));
    assert_eq!(paper.states().len(), 3);
    assert_eq!(
        paper.last()["command"],
        serde_json::json!({"name": "split", "id": "r1", "ok": true, "msg": null})
    );
    assert_eq!(paper.last()["config"]["ok"], true);
}

#[test]
fn each_of_many_answers_has_a_status_of_its_own_however_close_the_commands_are() {
    let mut paper = Paper::streaming();
    paper.published.clear();
    paper.reporter.set_link_free(false);
    for n in 0..5 {
        paper.tell(Input::Answer(Answer {
            id: Some(n.to_string()),
            ..Answer::default()
        }));
    }
    assert_eq!(paper.published.len(), 0, "a status is on its way");
    for n in 0..5 {
        paper.reporter.set_link_free(true);
        paper.look();
        assert_eq!(paper.last()["command"]["id"], n.to_string());
        paper.reporter.set_link_free(false);
        // News of another kind push out no answer that has not been told.
        paper.tell(Input::Config(n.to_string()));
        assert_eq!(paper.last()["command"]["id"], n.to_string());
    }
    assert_eq!(paper.published.len(), 10);
    (0..200).for_each(|_| paper.reporter.tell(Input::Answer(Answer::default()), at(paper.now)));
    assert_eq!(paper.reporter.answers.len(), MOST_ANSWERS);
}

#[test]
fn several_sinks_count_as_one() {
    let mut paper = Paper::streaming();
    let good = Sample {
        name: "a".to_owned(),
        key_units: 1,
        bytes_received: 5,
        chunks_pending: 1,
        bytes_held: 10,
        status: UploadStatus::from_name("online"),
        ..Sample::default()
    };
    let bad = Sample {
        name: "b".to_owned(),
        oldest_pending: 9 * S,
        status: UploadStatus::from_name("degraded"),
        ..good.clone()
    };
    paper.tell(Input::Sinks(vec![good.clone(), bad.clone()]));
    assert_eq!(paper.last()["upload"]["status"], "degraded");
    assert_eq!(paper.last()["upload"]["backlog_bytes"], 20);
    let unfed = Sample { key_units: 0, ..bad };
    let mut paper = Paper::streaming();
    paper.tell(Input::Sinks(vec![good, unfed]));
    assert_ne!(
        paper.reporter.phase(),
        Phase::Streaming,
        "green only where all of them are fed"
    );
}

fn keys(value: &Value, path: &str, into: &mut Vec<String>) {
    if let Some(map) = value.as_object() {
        for (key, value) in map {
            into.push(format!("{path}/{key}"));
            keys(value, &format!("{path}/{key}"), into);
        }
    }
}

fn input() -> impl Strategy<Value = Input> {
    let sample = (0..3u64, 0..5u64, 0..3u64, 0..6usize).prop_map(|(created, bytes, pending, status)| Sample {
        name: "s".to_owned(),
        key_units: created,
        bytes_received: bytes,
        chunks_pending: pending,
        status: UploadStatus::from_name(["starting", "online", "degraded", "offline", "draining", "stopped"][status]),
        ..Sample::default()
    });
    prop_oneof![
        any::<bool>().prop_map(Input::Playing),
        Just(Input::Eos),
        Just(Input::Restart),
        Just(Input::GapEvent),
        (any::<bool>(), any::<bool>()).prop_map(|(s, e)| trouble(s, e)),
        prop::collection::vec(sample, 0..3).prop_map(Input::Sinks),
        any::<bool>().prop_map(Input::Record),
        Just(Input::Chunk(Chunk {
            object: "o".to_owned(),
            ..Chunk::default()
        })),
        "[a-z:/@]{0,20}".prop_map(|msg| Input::Answer(Answer {
            msg: Some(format!("{msg} mqtt://u:hunter2@h")),
            ..Answer::default()
        })),
    ]
}

/// What a random pipeline does between two looks.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Frame,
    Push(bool),
    Flow(Flow),
    Tell(Input),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..20_000u64).prop_map(|ms| Step::Wait(ms * 1_000_000)),
        3 => Just(Step::Frame),
        1 => any::<bool>().prop_map(Step::Push),
        1 => prop_oneof![Just(Flow::Ok), Just(Flow::Error), Just(Flow::Eos)].prop_map(Step::Flow),
        3 => input().prop_map(Step::Tell),
    ]
}

proptest! {
    #[test]
    fn whatever_happens(steps in prop::collection::vec(step(), 1..80)) {
        let mut paper = Paper::playing();
        let mut expected = Vec::new();
        keys(&paper.reporter.last_word(&Tally::default(), at(0.0)).unwrap().0.to_json(), "", &mut expected);
        let (mut now, mut passed, mut last_status) = (0u64, None, 0u64);
        for step in steps {
            match step {
                Step::Wait(ns) => now += ns,
                Step::Frame if paper.tally.pushing_since.is_none() => {
                    paper.tally.frames += 1;
                    paper.tally.last_frame = Some(now);
                    passed = Some(now);
                }
                Step::Frame => {}
                Step::Push(true) => {
                    if paper.tally.frames > 0 && paper.tally.pushing_since.is_none() {
                        paper.tally.pushing_since = paper.tally.last_frame;
                    }
                }
                Step::Push(false) => {
                    if paper.tally.pushing_since.take().is_some() {
                        passed = Some(now);
                    }
                }
                Step::Flow(flow) => paper.tally.flow = flow,
                Step::Tell(input) => paper.reporter.tell(input, Now { mono: now, wall: WALL + now }),
            }
            let look = paper.reporter.look(&paper.tally, Now { mono: now, wall: WALL + now });
            prop_assert!(look.next > now);
            if let Some(status) = look.publish {
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
            for event in look.events {
                prop_assert!(!event.body.to_string().contains("hunter2"));
                prop_assert_eq!(&event.body["device"], "cam1");
            }
        }
    }
}
