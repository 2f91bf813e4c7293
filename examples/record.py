#!/usr/bin/python3
"""Records into Cloud Storage from Python, listening to what gcssink says.

usage: record.py BUCKET [SOURCE]     SOURCE is a launch line up to its muxer

Needs PyGObject (Debian: python3-gi, gir1.2-gstreamer-1.0) and the plugin where GStreamer finds it (GST_PLUGIN_PATH).
Ctrl-C ends by EOS, so that the last chunk is complete.
"""
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

# A test picture where no source is given.
TEST_SOURCE = (
    "videotestsrc is-live=true ! video/x-raw,framerate=15/1 ! x264enc tune=zerolatency key-int-max=15"
    " ! h264parse ! flvmux streamable=true"
)


def make_pipeline(bucket, source):
    pipeline = Gst.Pipeline.new(None)
    source = Gst.parse_bin_from_description(source, True)
    sink = Gst.ElementFactory.make("gcssink")
    if sink is None:
        raise SystemExit("no element gcssink: install the plugin, or set GST_PLUGIN_PATH to the folder that it is in")
    sink.set_property("bucket", bucket)
    sink.set_property("device-id", "example-python")
    sink.set_property("max-size-time", 2 * Gst.SECOND)
    pipeline.add(source)
    pipeline.add(sink)
    if not source.link(sink):
        raise SystemExit("gcssink does not take what the source gives: end it with a muxer")
    return pipeline, sink


def print_message(structure):
    """What gcssink says of the recording."""
    name = structure.get_name()
    if name == "gcssink-chunk-uploaded":
        # Only now is the chunk in the bucket for certain.
        print(name, structure.get_string("object"), structure.get_value("size"), "bytes", flush=True)
    elif name == "gcssink-gap":
        milliseconds = structure.get_value("duration") // Gst.MSECOND
        print(name, structure.get_string("start-time"), milliseconds, "ms:", structure.get_string("reason"), flush=True)
    elif name == "gcssink-status":
        waiting = structure.get_value("pending-chunks")
        print(name, f"{structure.get_string('status')}, {waiting} chunks wait", structure.get_string("reason"), flush=True)


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    Gst.init(None)
    pipeline, sink = make_pipeline(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else TEST_SOURCE)
    # Told as messages: "notify::status" itself is emitted in threads of GStreamer's.
    sink.add_property_notify_watch("status", True)

    loop, faults = GLib.MainLoop(), []

    def on_message(_bus, message):
        if message.type == Gst.MessageType.ELEMENT:
            print_message(message.get_structure())
        elif message.type == Gst.MessageType.PROPERTY_NOTIFY:
            _sink, name, value = message.parse_property_notify()
            print(name, "is", value.value_nick, flush=True)
        elif message.type == Gst.MessageType.WARNING:
            print("warning:", message.parse_warning()[0].message, flush=True)
        elif message.type == Gst.MessageType.ERROR:
            faults.append(message.parse_error()[0].message)
            loop.quit()
        elif message.type == Gst.MessageType.EOS:
            loop.quit()

    def on_interrupt():
        # EOS runs through the muxer to the sink, which returns it once everything is stored, or after drain-timeout.
        print("interrupted: sending EOS", flush=True)
        pipeline.send_event(Gst.Event.new_eos())
        return GLib.SOURCE_CONTINUE

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", on_message)
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGINT, on_interrupt)

    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    for fault in faults:
        print(fault, file=sys.stderr)
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
