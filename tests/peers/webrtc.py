#!/usr/bin/python3
"""The other side of a WebRTC test: sends H.264 and Opus from a webrtcbin of its own.

webrtc.py publish URL   offers by WHIP: POST of an offer to URL
webrtc.py serve         answers WHEP: prints `READY PORT`, takes one POST of an offer at /whep
Ends on SIGINT or SIGTERM.
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

LINE = """webrtcbin name=webrtc bundle-policy=max-bundle
    videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=15/1
    ! valve name=pictures drop=true drop-mode=forward-sticky-events ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=300 key-int-max=15
    ! video/x-h264,profile=constrained-baseline ! rtph264pay config-interval=-1 aggregate-mode=zero-latency pt=96
    ! application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000 ! webrtc.
    audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2
    ! valve name=sound drop=true drop-mode=forward-sticky-events ! opusenc ! rtpopuspay pt=97
    ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000 ! webrtc."""


class Sender:
    def __init__(self):
        self.pipeline = Gst.parse_launch(LINE)
        self.webrtc = self.pipeline.get_by_name("webrtc")
        self.gathered = threading.Event()
        self.webrtc.connect("notify::connection-state", self.on_connection)
        self.webrtc.connect("notify::ice-gathering-state", self.on_gathering)

    def on_connection(self, webrtc, _spec):
        """Opens the taps: a picture that waited for the handshake would be sent with a time long past, as no camera does."""
        if webrtc.get_property("connection-state") == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
            for tap in ("pictures", "sound"):
                self.pipeline.get_by_name(tap).set_property("drop", False)

    def on_gathering(self, webrtc, _spec):
        if webrtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def ask(self, action, *arguments):
        promise = Gst.Promise.new()
        self.webrtc.emit(action, *arguments, promise)
        promise.wait()
        return promise.get_reply()

    def play(self):
        self.pipeline.set_state(Gst.State.PLAYING)

    def remote(self, kind, text):
        _result, sdp = GstSdp.SDPMessage.new_from_text(text)
        self.ask("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(kind, sdp))

    def local(self, action):
        reply = self.ask(action, None)
        self.ask("set-local-description", reply.get_value("offer" if action == "create-offer" else "answer"))
        assert self.gathered.wait(20), "no ICE candidates"
        return self.webrtc.get_property("local-description").sdp.as_text()


def publish(sender, url):
    sender.play()
    offer = sender.local("create-offer").encode()
    with urllib.request.urlopen(urllib.request.Request(url, offer, {"Content-Type": "application/sdp"}), timeout=20) as reply:
        sender.remote(GstWebRTC.WebRTCSDPType.ANSWER, reply.read().decode())
    print("PUBLISHING", flush=True)


def serve(sender):
    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
            sender.play()
            sender.remote(GstWebRTC.WebRTCSDPType.OFFER, offer)
            answer = sender.local("create-answer").encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/sdp")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"READY {server.server_port}", flush=True)


def main():
    Gst.init(None)
    sender = Sender()
    loop = GLib.MainLoop()
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, number, loop.quit)
    publish(sender, sys.argv[2]) if sys.argv[1] == "publish" else serve(sender)
    loop.run()
    sender.pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    main()
