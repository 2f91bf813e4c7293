#!/usr/bin/python3
"""Records WebRTC: a WHIP endpoint that cameras, browsers and OBS send to, or a WHEP client that fetches from a media server.

usage: webrtc.py whip PORT DESCRIPTION      waits at http://0.0.0.0:PORT/whip for one sender
       webrtc.py whep URL DESCRIPTION       plays from a WHEP address
DESCRIPTION is what follows the network, as for gst-launch-1.0, with its depayloaders named `video` and `audio`:
  rtph264depay name=video ! video/x-h264,alignment=au ! h264parse config-interval=-1 ! mpegtsmux ! gcssink bucket=MY-BUCKET
Only the codec of the depayloader is negotiated. Ctrl-C ends by EOS. Plain HTTP and no token: for a trusted network, or behind
a proxy that has both. Debian packages: gstreamer1.0-nice, gir1.2-gst-plugins-bad-1.0, python3-gi.
"""
import http.server
import signal
import sys
import threading
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

PATIENCE = 20  # seconds for one step of the handshake


class Receiver:
    """One incoming WebRTC session and the recording behind it."""

    def __init__(self, description, offers):
        self.pipeline = Gst.parse_launch(f"webrtcbin name=webrtc bundle-policy=max-bundle {description}")
        self.pipeline.set_property("message-forward", True)
        self.webrtc = self.pipeline.get_by_name("webrtc")
        self.branches = [branch for name in ("video", "audio") if (branch := self.pipeline.get_by_name(name))]
        if not self.branches:
            raise SystemExit("no element of the description is named video or audio")
        self.webrtc.connect("pad-added", self.on_pad)
        self.gathered = threading.Event()
        self.webrtc.connect("notify::ice-gathering-state", self.on_gathering)
        self.pipeline.set_state(Gst.State.PLAYING)
        for number, branch in enumerate(self.branches):
            # Receive only, and only what this depayloader takes: the other side then sends that codec.
            codec = branch.get_static_pad("sink").get_pad_template_caps().fixate().get_structure(0).copy()
            codec.remove_field("payload")
            caps = codec.to_string().rstrip(";") + (f",payload={96 + number}" if offers else "")
            self.webrtc.emit("add-transceiver", GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, Gst.Caps.from_string(caps))

    def on_pad(self, _webrtc, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        branch = self.pipeline.get_by_name(pad.get_current_caps().get_structure(0).get_string("media"))
        if branch is None:  # sent though not wanted: a pad without a peer would end the pipeline
            branch = Gst.ElementFactory.make("fakesink")
            branch.set_property("async", False)
            self.pipeline.add(branch)
            branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def on_gathering(self, webrtc, _spec):
        if webrtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def ask(self, action, *arguments):
        promise = Gst.Promise.new()
        self.webrtc.emit(action, *arguments, promise)
        promise.wait()
        return promise.get_reply()

    def remote(self, kind, text):
        _result, sdp = GstSdp.SDPMessage.new_from_text(text)
        self.ask("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(kind, sdp))

    def local(self, action):
        """Makes an offer or an answer; its text when all candidates are in it."""
        reply = self.ask(action, None)
        self.ask("set-local-description", reply.get_value("offer" if action == "create-offer" else "answer"))
        assert self.gathered.wait(PATIENCE), f"no ICE candidates within {PATIENCE} s"
        return self.webrtc.get_property("local-description").sdp.as_text()


def serve_whip(port, receiver, stop):
    """POST /whip brings the offer and takes the answer, DELETE ends the session (RFC 9725)."""

    class Endpoint(http.server.BaseHTTPRequestHandler):
        taken = threading.Lock()

        def do_POST(self):
            if self.path != "/whip" or not Endpoint.taken.acquire(blocking=False):
                return self.send_error(404 if self.path != "/whip" else 409)
            receiver.remote(GstWebRTC.WebRTCSDPType.OFFER, self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            answer = receiver.local("create-answer").encode()
            self.send_response(201)
            headers = {"Content-Type": "application/sdp", "Location": "/whip/session", "Content-Length": str(len(answer))}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def do_DELETE(self):
            self.send_response(200)
            self.end_headers()
            GLib.idle_add(stop)

    server = http.server.ThreadingHTTPServer(("", port), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"waiting at http://0.0.0.0:{server.server_port}/whip", flush=True)


def fetch_whep(url, receiver):
    offer = receiver.local("create-offer").encode()
    with urllib.request.urlopen(urllib.request.Request(url, offer, {"Content-Type": "application/sdp"}), timeout=PATIENCE) as reply:
        receiver.remote(GstWebRTC.WebRTCSDPType.ANSWER, reply.read().decode())


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("whip", "whep"):
        raise SystemExit(__doc__)
    mode, where, description = sys.argv[1:]
    Gst.init(None)
    receiver = Receiver(description, offers=mode == "whep")
    loop, status = GLib.MainLoop(), []

    def stop():
        # webrtcbin has no source that would take an EOS from outside: it goes in where the network ends.
        for branch in receiver.branches:
            branch.get_static_pad("sink").send_event(Gst.Event.new_eos())
        return GLib.SOURCE_REMOVE

    def on_message(_bus, message):
        if message.type == Gst.MessageType.ERROR:
            print(*message.parse_error(), file=sys.stderr)
            status.append(1)
            loop.quit()
        # The pipeline as a whole never has EOS, since webrtcbin holds sinks of its own: gcssink's is what counts.
        if message.has_name("GstBinForwarded"):
            inner = message.get_structure().get_value("message")
            if inner.type == Gst.MessageType.EOS and inner.src.get_factory().get_name() == "gcssink":
                loop.quit()

    receiver.pipeline.get_bus().add_signal_watch()
    receiver.pipeline.get_bus().connect("message", on_message)
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGINT, stop)
    serve_whip(int(where), receiver, stop) if mode == "whip" else fetch_whep(where, receiver)
    loop.run()
    receiver.pipeline.set_state(Gst.State.NULL)
    return len(status)


if __name__ == "__main__":
    sys.exit(main())
