//! What `rtspsrc` may send to a camera. It has no settings for it: refused credentials it sends eight times over, which locks accounts, it
//! takes them along to whatever host a redirect names, and it follows redirects in a circle as fast as the network goes.
//!
//! [`Guard`] is PURE; [`watch`] asks it before each request of a source. A request that the source makes without announcing it
//! ([`Login::note_next`]) is the one before once more, with credentials, because the camera has asked for them.

use std::sync::Mutex;

use gst::prelude::*;
use gstgcstreamer::base::lock::lock;
use url::Url;

/// Requests before the camera has described its stream: OPTIONS and DESCRIBE, the latter again with credentials, over three redirects.
const UNDESCRIBED: u32 = 12;
/// Requests for a session of one camera, other transports included, before its streams play.
const SESSION: u32 = 60;

/// What was wrong with the camera's answers, where the source does not say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misled {
    /// It named another host.
    Elsewhere,
    /// It redirected again and again.
    InACircle,
}

/// A request that is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    /// It holds credentials already: it was sent with them and refused.
    is_refused: bool,
    /// To the host of the camera's address.
    is_home: bool,
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Send,
    /// It may go, but without credentials from now on.
    SendBare,
    Withhold,
}

/// What has been sent so far.
#[derive(Debug, Default)]
struct Guard {
    sent: u32,
    /// The camera has described its streams.
    is_described: bool,
    /// It has taken the credentials.
    is_trusted: bool,
    /// The source has announced its next request.
    is_announced: bool,
    /// The last request was repeated with credentials, and was not refused yet.
    is_challenged: bool,
    /// All is set up: what follows keeps the session alive.
    is_open: bool,
    /// It plays: the requests from now on are not announced.
    is_playing: bool,
    /// Requests in a row that came back as refused.
    refused: u32,
    misled: Option<Misled>,
}

impl Guard {
    /// The last request has done what it was for.
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

    fn judge(&mut self, request: Request) -> Verdict {
        self.sent += 1;
        let is_repeated = !std::mem::take(&mut self.is_announced);
        // A request that is refused again was not taken with these credentials.
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
        // Credentials that were good for a request before are sent once more: their nonce may count for one request (RFC 2617 3.2.1).
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
    /// The camera has described its streams.
    pub(super) fn note_described(&self) {
        lock(&self.guard).describe();
    }

    /// Its streams are set up.
    pub(super) fn note_open(&self) {
        lock(&self.guard).open();
    }

    /// The source makes its next request.
    pub(super) fn note_next(&self) {
        lock(&self.guard).announce();
    }

    /// Its streams play.
    pub(super) fn note_playing(&self) {
        lock(&self.guard).play();
    }

    /// What was wrong with its answers.
    pub(super) fn misled(&self) -> Option<Misled> {
        lock(&self.guard).misled
    }
}

fn host(source: &gst::Element) -> Option<String> {
    let location = source.property::<Option<String>>("location")?;
    Some(Url::parse(&location).ok()?.host_str()?.to_ascii_lowercase())
}

/// Has every request of `source` judged before it is sent. `on_answer`: the camera has answered the request before.
pub(super) fn watch(source: &gst::Element, login: &std::sync::Arc<Login>, on_answer: impl Fn() + Send + Sync + 'static) {
    let home = host(source);
    let login = std::sync::Arc::clone(login);
    let is_sent = move |values: &[gst::glib::Value]| {
        let source = values.first()?.get::<gst::Element>().ok()?;
        let message = values.get(1)?.get::<gst_rtsp::rtsp_message::RTSPMessage>().ok()?;
        let request = Request {
            is_refused: !message.parse_auth_credentials().is_empty(),
            // After a redirect it names the new address.
            is_home: host(&source) == home,
        };
        let (verdict, is_answered) = {
            let mut guard = lock(&login.guard);
            (guard.judge(request), guard.sent > 1 && !guard.is_open)
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

    /// The one before once more, with credentials.
    const AGAIN: (bool, Request) = (false, FRESH);
    const NEXT: (bool, Request) = (true, FRESH);
    const REFUSED_AGAIN: (bool, Request) = (false, REFUSED);

    /// Whether each is sent. `true` beside it: the source has announced it.
    fn sends(guard: &mut Guard, requests: &[(bool, Request)]) -> Vec<bool> {
        let mut send = |(is_announced, request): &(bool, Request)| {
            if *is_announced {
                guard.announce();
            }
            guard.judge(*request) != Verdict::Withhold
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
        // A camera that asks for them at SETUP alone.
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT]);
        guard.describe();
        assert_eq!(sends(&mut guard, &[NEXT, AGAIN, REFUSED_AGAIN]), [true, true, false]);
        assert_eq!(guard.misled, None);
        // One that asks for them at PLAY alone: its two SETUPs have shown nothing. Nor has a redirect.
        let mut guard = Guard::default();
        sends(&mut guard, &[NEXT, NEXT, NEXT, NEXT]);
        guard.describe();
        sends(&mut guard, &[NEXT, NEXT]);
        guard.open();
        assert_eq!(sends(&mut guard, &[NEXT, AGAIN, REFUSED_AGAIN]), [true, true, false]);
        // One that refuses them at OPTIONS, and is asked for the description all the same.
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
        assert_eq!(guard.judge(elsewhere), Verdict::SendBare);
        assert_eq!(guard.misled, Some(Misled::Elsewhere));
        let mut guard = Guard::default();
        let sent = sends(&mut guard, &[NEXT; 1000]);
        assert_eq!(sent.iter().filter(|sent| **sent).count(), 12);
        assert_eq!(guard.misled, Some(Misled::InACircle));
    }
}
