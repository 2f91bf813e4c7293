//! What a device may do. Pure judgements: each wrong thing is one sentence. Time is an argument.

use std::time::{Duration, Instant};

use super::packet::{Login, Publish};
use super::token::{Measure, Token, judge};

/// The gap between two states is measured on this side of a socket and with another thread's clock reading: so much
/// less than the gap is forgiven.
pub const MEASURING_SLACK: Duration = Duration::from_millis(5);
/// The bridge ends connections that are idle for this duration, whatever the keep-alive.
const LONGEST_KEEP_ALIVE: u16 = 1200;
const STATE_LIMIT: usize = 64 << 10;
const EVENT_LIMIT: usize = 256 << 10;

/// The registry's entry for one device, and what the bridge insists on.
#[derive(Clone, Debug)]
pub struct Rules {
    pub project: String,
    pub region: String,
    pub registry: String,
    pub device: String,
    /// `-----BEGIN PUBLIC KEY-----`, RSA or P-256.
    pub public_key_pem: String,
    /// What `aud` of the token must be: the project id, unless told.
    pub audience: String,
    pub tls: bool,
    /// Added to the machine's clock, in seconds, to get the bridge's.
    pub clock_offset: i64,
    /// The registry has no Pub/Sub topic, so that telemetry closes the connection.
    pub no_telemetry_topic: bool,
    /// Least time between the acknowledgement of a state and the next state.
    pub state_gap: Duration,
    /// Longest `exp - iat`.
    pub longest_token: Duration,
    /// Forgiven in `iat` and in the length of the token. A token that has expired is refused without it: a device that
    /// connects with one has not renewed it in time.
    pub skew: Duration,
    /// How long after `exp` an open connection is closed.
    pub expiry_grace: Duration,
    /// How long a connection may be open without CONNECT.
    pub connect_timeout: Duration,
}

impl Rules {
    /// Device `cam1` of the registry `cameras` with this public key; strict in everything, over TLS.
    pub fn new(public_key_pem: impl Into<String>) -> Self {
        Self {
            project: "test-project".to_owned(),
            region: "us-central1".to_owned(),
            registry: "cameras".to_owned(),
            device: "cam1".to_owned(),
            public_key_pem: public_key_pem.into(),
            audience: "test-project".to_owned(),
            tls: true,
            clock_offset: 0,
            no_telemetry_topic: true,
            state_gap: Duration::from_secs(1),
            longest_token: Duration::from_hours(24),
            skew: Duration::from_mins(10),
            expiry_grace: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(10),
        }
    }

    pub fn client_id(&self) -> String {
        let Self {
            project,
            region,
            registry,
            device,
            ..
        } = self;
        format!("projects/{project}/locations/{region}/registries/{registry}/devices/{device}")
    }

    pub fn state_topic(&self) -> String {
        self.topic("state")
    }

    pub fn events_topic(&self) -> String {
        self.topic("events")
    }

    pub fn config_topic(&self) -> String {
        self.topic("config")
    }

    /// Of a command without a tail.
    pub fn commands_topic(&self) -> String {
        self.topic("commands")
    }

    fn topic(&self, last: &str) -> String {
        format!("/devices/{}/{last}", self.device)
    }
}

/// What is to be said of a CONNECT.
#[derive(Debug, Default)]
pub struct Verdict {
    pub token: Option<Token>,
    /// Empty: the device may come in.
    pub wrong: Vec<String>,
    /// Return code of the CONNACK that says so, where MQTT has one.
    pub code: Option<u8>,
}

/// `wall`: seconds since 1970.
pub fn judge_login(rules: &Rules, login: &Login, public_key_pem: &str, wall: i64) -> Verdict {
    let mut verdict = Verdict::default();
    if login.client_id != rules.client_id() {
        let (got, wanted) = (&login.client_id, rules.client_id());
        verdict.wrong.push(format!("the client id is {got:?}, not {wanted:?}"));
        verdict.code = Some(2);
    }
    if let Some(topic) = &login.will {
        verdict
            .wrong
            .push(format!("the CONNECT has a will, for {topic:?}; the bridge has no wills"));
    }
    if !login.clean_session {
        verdict
            .wrong
            .push("the CONNECT asks for a session that is kept; it must be clean".to_owned());
    }
    if login.keep_alive == 0 || login.keep_alive > LONGEST_KEEP_ALIVE {
        let got = login.keep_alive;
        verdict
            .wrong
            .push(format!("the keep-alive is {got} s; 1 to {LONGEST_KEEP_ALIVE} s are allowed"));
    }
    let Some(password) = &login.password else {
        verdict.wrong.push("the CONNECT has no password".to_owned());
        verdict.code = verdict.code.or(Some(5));
        return verdict;
    };
    let measure = Measure {
        public_key_pem,
        audience: &rules.audience,
        longest: rules.longest_token,
        skew: rules.skew,
        wall,
    };
    let (token, wrong) = judge(password, &measure);
    if !wrong.is_empty() {
        verdict.code = verdict.code.or(Some(5));
    }
    verdict.token = token;
    verdict.wrong.extend(wrong);
    verdict
}

/// What a device's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    State,
    Event,
}

/// `last_state`: acknowledgement of the state before, or its arrival if it was not acknowledged; of any connection.
pub fn judge_publish(rules: &Rules, publish: &Publish, last_state: Option<Instant>, now: Instant) -> Result<Kind, String> {
    let (topic, len) = (&publish.topic, publish.payload.len());
    if publish.retain {
        return Err(format!(
            "a PUBLISH to {topic:?} is marked as retained; the bridge retains nothing"
        ));
    }
    if publish.qos > 1 {
        return Err(format!("a PUBLISH to {topic:?} has QoS {}; 0 and 1 are allowed", publish.qos));
    }
    let kind = kind(rules, topic)?;
    let limit = if kind == Kind::State { STATE_LIMIT } else { EVENT_LIMIT };
    if len > limit {
        return Err(format!("a PUBLISH to {topic:?} has {len} bytes; {limit} is the most"));
    }
    if kind == Kind::Event && rules.no_telemetry_topic {
        return Err(format!(
            "telemetry was published to {topic:?}, and the registry has no telemetry topic"
        ));
    }
    if kind == Kind::State
        && let Some(since) = last_state.map(|last| now.saturating_duration_since(last))
        && since + MEASURING_SLACK < rules.state_gap
    {
        let (since, gap) = (since.as_millis(), rules.state_gap.as_millis());
        return Err(format!(
            "a state came {since} ms after the last one was acknowledged; {gap} ms is the least"
        ));
    }
    Ok(kind)
}

fn kind(rules: &Rules, topic: &str) -> Result<Kind, String> {
    if topic == rules.state_topic() {
        return Ok(Kind::State);
    }
    match topic.strip_prefix(&rules.events_topic()) {
        Some("") => Ok(Kind::Event),
        Some(tail) if tail.len() > 1 && tail.starts_with('/') => Ok(Kind::Event),
        _ => Err(format!("a PUBLISH has the foreign topic {topic:?}")),
    }
}

pub fn judge_subscribe(rules: &Rules, filters: &[(String, u8)]) -> Result<(), String> {
    let allowed = [rules.topic("config"), rules.topic("commands/#"), rules.topic("errors")];
    for (filter, qos) in filters {
        if !allowed.contains(filter) {
            return Err(format!("a SUBSCRIBE asks for the foreign topic {filter:?}"));
        }
        if *qos > 1 {
            return Err(format!("a SUBSCRIBE asks for {filter:?} with QoS {qos}; 0 and 1 are allowed"));
        }
    }
    Ok(())
}
