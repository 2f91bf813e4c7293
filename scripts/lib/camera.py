#!/usr/bin/python3
"""A camera for demo and tests: RTSP on loopback with H.264 or H.265, and AAC, G.711 or no sound, made by gst-rtsp-server.

With --matrix every combination is there at once, each at its own path (/h265-pcma); one that nobody plays costs nothing.
Prints `READY PORT` once it listens and `PLAYING` whenever a client starts to play; ends on SIGINT or SIGTERM.
Needs the system's Python, which has the bindings of GStreamer.
"""
import argparse
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

ROLE = "user"

# Whichever the distribution has, best first.
AAC_ENCODERS = ["fdkaacenc", "voaacenc", "avenc_aac"]


VIDEO = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate={kbps} key-int-max={key_interval}"
    " ! video/x-h264,profile=baseline ! rtph264pay name=pay0 pt=96 config-interval=-1",
    # No open GOP and no I-frames that are no IDR: as cameras send it.
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate={kbps} key-int-max={key_interval}"
    " option-string=open-gop=0:scenecut=0:pools=none:frame-threads=1:log-level=none"
    " ! h265parse ! rtph265pay name=pay0 pt=96 config-interval=-1",
}
AUDIO = {
    "aac": "audio/x-raw,rate=48000,channels=1 ! audioconvert ! {aac} bitrate=64000 ! aacparse ! rtpmp4gpay name=pay1 pt=97",
    "pcma": "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 pt=8",
    "pcmu": "audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0",
}


def media(args, video, audio):
    """The launch line of the camera's inside, in gst-rtsp-server's syntax: one payN for each track."""
    # Burnt-in time helps when looking at kept chunks; the element is in a package of its own that pulls X11 in.
    overlay = " ! timeoverlay" if Gst.ElementFactory.find("timeoverlay") else ""
    line = (
        f"videotestsrc is-live=true pattern={args.pattern}"
        f" ! video/x-raw,format=I420,width={args.width},height={args.height},framerate={args.fps}/1{overlay} ! "
        + VIDEO[video].format(kbps=args.kbps, key_interval=args.key_interval)
    )
    if audio in AUDIO:
        encoder = next((name for name in AAC_ENCODERS if Gst.ElementFactory.find(name)), None)
        if encoder is None and audio == "aac":
            raise SystemExit(f"no AAC encoder here: one of {', '.join(AAC_ENCODERS)} is needed")
        line += " audiotestsrc is-live=true wave=ticks ! " + AUDIO[audio].format(aac=encoder)
    return f"( {line} )"


def mounts(args):
    """Path and launch line of every stream that is served."""
    if args.matrix:
        return {f"/{video}-{audio}": media(args, video, audio) for video in VIDEO for audio in ["none", *AUDIO]}
    if args.count:
        return {f"{args.path}{number}": media(args, args.video, args.audio) for number in range(1, args.count + 1)}
    return {args.path: media(args, args.video, args.audio)}


def protect(server, user, password):
    """Only this user is somebody."""
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
    auth.add_digest(user, password, token)
    server.set_auth(auth)


def allow(factory):
    """Whoever is somebody may watch it."""
    role = Gst.Structure.new_empty(ROLE)
    for permission in (GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT):
        role.set_value(permission, True)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role_from_structure(role)
    factory.set_permissions(permissions)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = a free one")
    parser.add_argument("--path", default="/cam")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--kbps", type=int, default=1000)
    parser.add_argument("--pattern", default="ball", help="of videotestsrc; snow fills the bit rate")
    parser.add_argument("--key-interval", type=int, default=50, help="frames from key frame to key frame")
    parser.add_argument("--video", choices=list(VIDEO), default="h264")
    parser.add_argument("--audio", choices=["none", *AUDIO], default="aac")
    parser.add_argument("--matrix", action="store_true", help="serve every combination, at /VIDEO-AUDIO")
    parser.add_argument("--count", type=int, default=0, help="serve this many, at PATH1, PATH2, ...")
    parser.add_argument("--user", help="ask for this user and --password, by Digest")
    parser.add_argument("--password", default="")
    args = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    if args.user:
        protect(server, args.user, args.password)
    server.set_address("127.0.0.1")
    server.set_service(str(args.port))
    for path, line in mounts(args).items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(line)
        # Six clients that set up one shared stream at the same moment were seen to wait for ever: there, a pipeline for each.
        factory.set_shared(not args.matrix)
        if args.user:
            allow(factory)
        server.get_mount_points().add_factory(path, factory)
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
