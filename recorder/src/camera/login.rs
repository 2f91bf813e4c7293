//! Limits what `rtspsrc` sends to a camera. The element has no settings for this: it sends refused credentials eight times, which
//! locks accounts, it sends them to any host that a redirect names, and it follows circular redirects as fast as the network
//! allows.
//!
//! [`Guard`] is PURE; [`watch`] asks it before each request of a source. A request that the source does not announce
//! ([`Login::note_next`]) repeats the previous one with credentials, because the camera has asked for them.

use std::sync::Mutex;

use gst::prelude::*;
use gstgcstreamer::base::lock::lock;
use url::Url;

/// The most requests before the camera has described its stream: OPTIONS, DESCRIBE and DESCRIBE with credentials, with up to
/// three redirects.
const UNDESCRIBED: u32 = 12;
/// The most requests before the streams of a described session are set up, including those for other transports.
const SESSION: u32 = 60;

/// What was wrong with the camera's answers, in the cases that the source does not report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misled {
    /// It redirected to another host.
    Elsewhere,
    /// It redirected in a circle.
    InACircle,
}

/// A request that is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    /// It already contains credentials: it was sent with them and refused.
    is_refused: bool,
    /// It goes to the host of the camera's address.
    is_home: bool,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Send,
    /// Send it, and use no credentials from now on.
    SendBare,
    Withhold,
}

/// The history of the requests of one source.
#[derive(Debug, Default)]
struct Guard {
    sent: u32,
    /// The camera has described its streams.
    is_described: bool,
    /// The camera has accepted the credentials.
    is_trusted: bool,
    /// The source has announced its next request.
    is_announced: bool,
    /// The last request was repeated with credentials and has not been refused so far.
    is_challenged: bool,
    /// The streams are set up: later requests are PLAY and keep-alives.
    is_open: bool,
    /// The streams play: the source announces no request from now on.
    is_playing: bool,
    /// Number of refused requests in a row.
    refused: u32,
    misled: Option<Misled>,
}

impl Guard {
    /// The last request was successful, so credentials that it was repeated with are valid.
    fn accept(&mut self) {
        self.is_trusted |= std::mem::take(&mut self.is_challenged);
    }

    fn announce(&mut self) {
        self.accept();
        self.is_announced = true;
    }

    fn describe(&mut self) {
        self.accept();
        self.is_described = true;
    }

    fn open(&mut self) {
        self.accept();
        self.is_open = true;
    }

    fn play(&mut self) {
        self.accept();
        self.is_playing = true;
    }

    fn decide(&mut self, request: Request) -> Verdict {
        self.sent += 1;
        let is_repeated = !std::mem::take(&mut self.is_announced);
        // Without an announcement this is the last request again, with credentials. If it already contains some, they were
        // refused.
        self.is_challenged = is_repeated && !request.is_refused && !self.is_playing;
        let most = if self.is_described { SESSION } else { UNDESCRIBED };
        if !self.is_open && self.sent > most {
            self.misled.get_or_insert(Misled::InACircle);
            return Verdict::Withhold;
        }
        if !request.is_home {
            self.misled = Some(Misled::Elsewhere);
            return Verdict::SendBare;
        }
        if !request.is_refused {
            self.refused = 0;
            return Verdict::Send;
        }
        self.refused += 1;
        // Credentials that were accepted before are sent once more: the camera may allow each nonce for one request only (RFC
        // 2617 3.2.1).
        match self.is_trusted && self.refused == 1 {
            true => Verdict::Send,
            false => Verdict::Withhold,
        }
    }
}

/// The guard of one source.
#[derive(Debug, Default)]
pub(super) struct Login {
    guard: Mutex<Guard>,
}

impl Login {
    /// Notes that the camera has described its streams.
    pub(super) fn note_described(&self) {
        lock(&self.guard).describe();
    }

    /// Notes that the streams are set up.
    pub(super) fn note_open(&self) {
        lock(&self.guard).open();
    }

    /// Notes that the source announces its next request.
    pub(super) fn note_next(&self) {
        lock(&self.guard).announce();
    }

    /// Notes that the streams play.
    pub(super) fn note_playing(&self) {
        lock(&self.guard).play();
    }

    /// Returns what was wrong with the camera's answers, if anything.
    pub(super) fn misled(&self) -> Option<Misled> {
        lock(&self.guard).misled
    }
}

fn host(source: &gst::Element) -> Option<String> {
    let location = source.property::<Option<String>>("location")?;
    Some(Url::parse(&location).ok()?.host_str()?.to_ascii_lowercase())
}

/// Checks every request of `source` before it is sent. Calls `on_answer` when a further request shows that the camera has
/// answered the previous one.
pub(super) fn watch(source: &gst::Element, login: &std::sync::Arc<Login>, on_answer: impl Fn() + Send + Sync + 'static) {
    let home = host(source);
    let login = std::sync::Arc::clone(login);
    let is_sent = move |values: &[gst::glib::Value]| {
        let source = values.first()?.get::<gst::Element>().ok()?;
        let message = values.get(1)?.get::<gst_rtsp::rtsp_message::RTSPMessage>().ok()?;
        let request = Request {
            is_refused: !message.parse_auth_credentials().is_empty(),
            // After a redirect, `location` holds the new address.
            is_home: host(&source) == home,
        };
        let (verdict, is_answered) = {
            let mut guard = lock(&login.guard);
            (guard.decide(request), guard.sent > 1 && !guard.is_open)
        };
        if is_answered {
            on_answer();
        }
        if verdict == Verdict::SendBare {
            source.set_property("user-id", None::<&str>);
            source.set_property("user-pw", None::<&str>);
        }
        Some(verdict != Verdict::Withhold)
    };
    source.connect("before-send", false, move |values| {
        Some(is_sent(values).unwrap_or(true).to_value())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Request = Request {
        is_refused: false,
        is_home: true,
    };
    const REFUSED: Request = Request {
        is_refused: true,
        is_home: true,
    };

    /// The previous request again, with credentials.
    const AGAIN: (bool, Request) = (false, FRESH);
    const NEXT: (bool, Request) = (true, FRESH);
    const REFUSED_AGAIN: (bool, Request) = (false, REFUSED);

    /// Returns whether each request is sent. The flag of a request: whether the source has announced it.
    fn sends(guard: &mut Guard, requests: &[(bool, Request)]) -> Vec<bool> {
        let mut send = |(is_announced, request): &(bool, Request)| {
            if *is_announced {
                guard.announce();
            }
            guard.decide(*request) != Verdict::Withhold
        };
        requests.iter().map(&mut send).collect()
    }

    #[test]
    fn a_wrong_password_goes_to_the_camera_once() {
        // OPTIONS, DESCRIBE, DESCRIBE with credentials, and what would follow.
        let mut guard = Guard::default();
        assert_eq!(
            sends(&mut guard, &[NEXT, NEXT, AGAIN, REFUSED_AGAIN, REFUSED_AGAIN]),
            [true, true, true, false, false]
        );
        // A camera that requires credentials only for SETUP.
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT]);
        guard.describe();
        assert_eq!(sends(&mut guard, &[NEXT, AGAIN, REFUSED_AGAIN]), [true, true, false]);
        assert_eq!(guard.misled, None);
        // A camera that requires them only for PLAY: neither its two SETUPs nor a redirect have proved them valid.
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT, NEXT, NEXT]);
        guard.describe();
        sends(&mut guard, &[NEXT, NEXT]);
        guard.open();
        assert_eq!(sends(&mut guard, &[NEXT, AGAIN, REFUSED_AGAIN]), [true, true, false]);
        // A camera that refuses them for OPTIONS; the source sends DESCRIBE nevertheless.
        let mut guard = Guard::default();
        assert_eq!(sends(&mut guard, &[NEXT, AGAIN, REFUSED_AGAIN]), [true, true, false]);
        assert_eq!(sends(&mut guard, &[NEXT, REFUSED_AGAIN]), [true, false]);
    }

    #[test]
    fn a_nonce_that_counts_once_is_no_refusal() {
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT, AGAIN]);
        guard.describe();
        // SETUP, PLAY, and an hour of requests that keep the session.
        assert_eq!(sends(&mut guard, &[NEXT, REFUSED_AGAIN, NEXT, REFUSED_AGAIN]), [true; 4]);
        guard.open();
        guard.play();
        for _ in 0..200 {
            assert_eq!(sends(&mut guard, &[AGAIN, REFUSED_AGAIN]), [true; 2]);
        }
        assert_eq!(sends(&mut guard, &[AGAIN, REFUSED_AGAIN, REFUSED_AGAIN]), [true, true, false]);
    }

    #[test]
    fn a_nonce_that_counts_once_is_no_refusal_wherever_the_camera_asks_first() {
        let keeps_alive = |guard: &mut Guard| assert_eq!(sends(guard, &[AGAIN, REFUSED_AGAIN]), [true; 2]);
        // At OPTIONS.
        let mut guard = Guard::default();
        assert_eq!(sends(&mut guard, &[NEXT, AGAIN, NEXT, REFUSED_AGAIN]), [true; 4]);
        // At SETUP.
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT]);
        guard.describe();
        sends(&mut guard, &[NEXT, AGAIN]);
        guard.open();
        assert_eq!(sends(&mut guard, &[NEXT, REFUSED_AGAIN]), [true; 2]);
        guard.play();
        keeps_alive(&mut guard);
        // At PLAY.
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT]);
        guard.describe();
        sends(&mut guard, &[NEXT]);
        guard.open();
        sends(&mut guard, &[NEXT, AGAIN]);
        guard.play();
        keeps_alive(&mut guard);
    }

    #[test]
    fn a_login_does_not_follow_a_redirect_to_another_host_and_a_circle_ends() {
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT]);
        let elsewhere = Request { is_home: false, ..FRESH };
        assert_eq!(guard.decide(elsewhere), Verdict::SendBare);
        assert_eq!(guard.misled, Some(Misled::Elsewhere));
        let mut guard = Guard::default();
        let sent = sends(&mut guard, &[NEXT; 1000]);
        assert_eq!(sent.iter().filter(|sent| **sent).count(), 12);
        assert_eq!(guard.misled, Some(Misled::InACircle));
    }
}
