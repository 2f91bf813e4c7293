#!/usr/bin/python3
"""A camera for demo and tests: RTSP on loopback with H.264 and AAC, made by gst-rtsp-server.

Prints `READY PORT` once it listens and `PLAYING` whenever a client starts to play; ends on SIGINT or SIGTERM.
Needs the system's Python, which has the bindings of GStreamer.
"""
import argparse
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

# Whichever the distribution has, best first.
AAC_ENCODERS = ["fdkaacenc", "voaacenc", "avenc_aac"]


def media(args):
    """The launch line of the camera's inside, in gst-rtsp-server's syntax: one payN for each track."""
    # Burnt-in time helps when looking at kept chunks; the element is in a package of its own that pulls X11 in.
    overlay = " ! timeoverlay" if Gst.ElementFactory.find("timeoverlay") else ""
    video = (
        "videotestsrc is-live=true pattern=ball"
        f" ! video/x-raw,format=I420,width={args.width},height={args.height},framerate={args.fps}/1{overlay}"
        f" ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate={args.kbps} key-int-max={args.key_interval}"
        " ! video/x-h264,profile=baseline ! rtph264pay name=pay0 pt=96 config-interval=-1"
    )
    if args.no_audio:
        return f"( {video} )"
    encoder = next((name for name in AAC_ENCODERS if Gst.ElementFactory.find(name)), None)
    if encoder is None:
        raise SystemExit(f"no AAC encoder here: one of {', '.join(AAC_ENCODERS)} is needed")
    audio = (
        "audiotestsrc is-live=true wave=ticks ! audio/x-raw,rate=48000,channels=1 ! audioconvert"
        f" ! {encoder} bitrate=64000 ! aacparse ! rtpmp4gpay name=pay1 pt=97"
    )
    return f"( {video} {audio} )"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = a free one")
    parser.add_argument("--path", default="/cam")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--kbps", type=int, default=1000)
    parser.add_argument("--key-interval", type=int, default=50, help="frames from key frame to key frame")
    parser.add_argument("--no-audio", action="store_true")
    args = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(args.port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(media(args))
    factory.set_shared(True)
    server.get_mount_points().add_factory(args.path, factory)
    if not server.attach(None):
        raise SystemExit(f"cannot listen on 127.0.0.1:{args.port}")

    def on_client(_server, client):
        client.connect("play-request", lambda *_: print("PLAYING", flush=True))

    server.connect("client-connected", on_client)
    print(f"READY {server.get_bound_port()}", flush=True)

    loop = GLib.MainLoop()
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, number, loop.quit)
    loop.run()


if __name__ == "__main__":
    main()
