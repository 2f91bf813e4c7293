"""The demo behind scripts/demo: camera, launch line, storage, MQTT broker; watches chunks and state, and has each chunk judged.

Everything listens on loopback only, lives in one temporary folder and is ended by its own process id.
"""
import argparse
import base64
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from broker import Broker  # noqa: E402
from emulator import Emulator, end  # noqa: E402
from judge import Verdict, judge  # noqa: E402

HERE = Path(__file__).resolve().parent
BUCKET = "demo-recordings"
DEVICE = "cam1"
CHUNK_SECONDS = 5
FPS = 25
# How much of the recorded time the chunks must cover; the rest is start and stop of the RTSP session.
WANTED_COVERAGE = 0.8
# gcssink's drain-timeout (30 s) and some air: no stop takes longer.
STOP_PATIENCE = 40
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failure(Exception):
    """The demo cannot go on; the text is for the user."""


@dataclass
class Part:
    """A child process and the log it writes."""

    name: str
    command: list
    log_path: Path
    env: dict = None
    process: subprocess.Popen = field(default=None, init=False)

    def start(self):
        with open(self.log_path, "ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches the demo only, which then stops its parts in order.
            self.process = subprocess.Popen(
                [str(word) for word in self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
            )
        return self

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_for_line(self, prefix, timeout, what):
        """The rest of the first log line that starts with `prefix`."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in self.log().splitlines():
                if line.startswith(prefix):
                    return line[len(prefix) :].strip()
            if self.process.poll() is not None:
                raise Failure(f"the {self.name} ended with status {self.process.returncode}")
            time.sleep(0.1)
        raise Failure(f"{what} within {timeout} s")


@dataclass
class Chunk:
    """One stored object and what became of it."""

    resource: dict
    verdict: Verdict = None

    @property
    def name(self):
        return self.resource["name"]

    @property
    def size(self):
        return int(self.resource.get("size", 0))

    def number(self, key):
        """An integer of the custom metadata, -1 where it is missing or no number."""
        text = self.resource.get("metadata", {}).get(key, "")
        return int(text) if text.isdigit() else -1

    @property
    def sequence(self):
        return self.number("sequence")

    @property
    def seconds(self):
        return max(self.number("duration-ms"), 0) / 1000


def launch_line(port, mqtt_port):
    """The line of the README, with the camera's second stream and shorter chunks than the default of 10 s."""
    line = f"""gst-launch-1.0 -e
        rtspsrc location=rtsp://127.0.0.1:{port}/cam latency=200 name=src
        ! rtph264depay ! h264parse
        ! iotcorestatus protocol=mqtt host=127.0.0.1 port={mqtt_port} device-id={DEVICE}
        ! flvmux streamable=true name=mux
        ! gcssink bucket={BUCKET} device-id={DEVICE} max-size-time={CHUNK_SECONDS * 10**9}
        src. ! rtpmp4gdepay ! aacparse ! mux."""
    return [word.strip() for word in line.splitlines()]


def start_line(lines, plugin_dir, endpoint, work):
    """Starts the launch line with our plugin and the emulator in its environment, and shows both."""
    settings = {"GST_PLUGIN_PATH": str(plugin_dir), "STORAGE_EMULATOR_HOST": endpoint}
    print("\nThe launch line (chunks of 5 s for the demo; 10 s is the default):\n")
    print("  " + " ".join(f"{key}={shlex.quote(value)}" for key, value in settings.items()) + " \\")
    print("  " + " \\\n      ".join(lines) + "\n", flush=True)
    env = {**os.environ, **settings, "GST_REGISTRY": str(work / "registry.bin"), "GST_DEBUG_NO_COLOR": "1"}
    env.setdefault("GST_DEBUG", "1,gcssink*:4,iotcorestatus:4")
    for key in ("no_proxy", "NO_PROXY"):
        env[key] = ",".join(filter(None, [env.get(key), "127.0.0.1,localhost"]))
    return Part("launch line", shlex.split(" ".join(lines)), work / "launch.log", env).start()


def watch(storage, states, line, seconds, started):
    """Shows new objects once a second until the time is over; a line that ends by itself has failed."""
    seen = {}
    while time.monotonic() - started < seconds:
        time.sleep(min(1.0, max(0.0, seconds - (time.monotonic() - started))))
        show_new(storage, seen, started)
        states.show_new(started)
        if line.process.poll() is not None:
            raise Failure(f"the launch line ended by itself after {time.monotonic() - started:.0f} s, status {line.process.returncode}")
    return seen


def show_new(storage, seen, started):
    """Prints a row for each object that was not there before."""
    for resource in storage.objects(BUCKET):
        chunk = Chunk(resource)
        if chunk.name not in seen:
            seen[chunk.name] = chunk
            at = time.monotonic() - started
            print(f"  {at:6.1f} s  chunk {chunk.sequence:>4}  {chunk.seconds:6.2f} s  {chunk.size / 1024:8.1f} KiB  {chunk.name}", flush=True)


class States:
    """What a subscriber sees of the device: rows for the screen, and a judgement."""

    def __init__(self, broker):
        self.broker = broker
        self.shown = 0

    def show_new(self, started):
        """Prints a row for each message on the state and availability topics that was not there before."""
        seen = self.broker.seen()
        new, self.shown = seen[self.shown :], len(seen)
        for topic, payload in new:
            if topic.endswith(("/state", "/availability")):
                at = time.monotonic() - started
                print(f"  {at:6.1f} s  {topic}  {payload}", flush=True)

    def faults(self):
        """What is wrong with the story that the topics tell."""
        prefix, faults = f"gcstreamer/{DEVICE}", []
        states = self.broker.payloads(f"{prefix}/state")
        if not states or states[0] != "connected" or states[-1] != "disconnected":
            faults.append(f"the state topic should begin with connected and end with disconnected: {states}")
        availability = self.broker.payloads(f"{prefix}/availability")
        if availability[-1:] != ["offline"]:
            faults.append(f"the availability topic should end with offline: {availability}")
        last = self.broker.payloads(f"{prefix}/status")[-1:]
        if last and json.loads(last[0])["phase"] != "eos":
            faults.append(f"the last status should be of the phase eos: {last[0]}")
        return faults


def stop_line(line):
    """SIGINT with -e is the clean stop: the line sends EOS, the sink stores its open chunk and waits for the uploads."""
    line.process.send_signal(signal.SIGINT)
    try:
        status = line.process.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failure(f"the launch line did not end within {STOP_PATIENCE} s after SIGINT") from None
    if status != 0 and not is_rtspsrc_race(status, line.log()):
        raise Failure(f"the launch line ended with status {status} after SIGINT")


def is_rtspsrc_race(status, said):
    """Whether all that went wrong is rtspsrc's PAUSE meeting its own CLOSE on the way to NULL (docs/troubleshooting.md)."""
    errors = said.split("ERROR: ")[1:]
    return status == 1 and bool(errors) and all("GstRTSPSrc" in text and "Could not send message." in text for text in errors)


def fetch_and_judge(storage, chunks, folder):
    """Downloads every chunk into `folder`, under its object name, and judges it alone."""
    for chunk in chunks:
        path = folder / chunk.name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = storage.download(BUCKET, chunk.name)
        path.write_bytes(content)
        # The last chunk may end with its first picture, before any sound.
        is_short = chunk is chunks[-1] and chunk.number("duration-ms") < 500
        chunk.verdict = judge(path, wants_audio=not is_short)
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        if len(content) != chunk.size or md5 != chunk.resource.get("md5Hash", md5):
            chunk.verdict.faults.append("the downloaded bytes are not what the storage says it has")
        if chunk.number("duration-ms") <= 0:
            chunk.verdict.faults.append("no duration-ms in the metadata")
        if chunk.resource.get("metadata", {}).get("key-frame") != "true":
            chunk.verdict.faults.append("the metadata does not say key-frame=true")


def judge_recording(chunks, seconds):
    """What is wrong with the chunks as a whole: holes between them, missing time, missing frames."""
    if not chunks:
        return ["no chunk arrived"]
    faults = []
    sessions = {chunk.resource.get("metadata", {}).get("session-id") for chunk in chunks}
    if len(sessions) != 1 or None in sessions:
        faults.append(f"the chunks should be of one session, they name {sorted(map(str, sessions))}")
    sequences = [chunk.sequence for chunk in chunks]
    if sequences != list(range(len(chunks))):
        faults.append(f"the sequence should run from 0 without a hole: {sequences}")
    covered = sum(chunk.seconds for chunk in chunks)
    if covered < WANTED_COVERAGE * seconds:
        faults.append(f"the chunks cover {covered:.1f} s of {seconds} s, less than {WANTED_COVERAGE:.0%}")
    frames = sum(len(chunk.verdict.video_times) for chunk in chunks)
    expected = covered * FPS
    if frames < WANTED_COVERAGE * seconds * FPS or abs(frames - expected) > max(FPS, 0.1 * expected):
        faults.append(f"{frames} video frames decode, {expected:.0f} were expected for {covered:.1f} s at {FPS} a second")
    if len(chunks) < (seconds - 3) // (CHUNK_SECONDS + 1):
        faults.append(f"{len(chunks)} chunks in {seconds} s are too few for chunks of {CHUNK_SECONDS} s")
    for before, after in zip(chunks, chunks[1:]):
        if before.verdict.video_times and after.verdict.video_times:
            step = min(after.verdict.video_times) - max(before.verdict.video_times)
            if not 0 <= step <= 0.5:
                faults.append(f"{step:.2f} s lie between the pictures of chunks {before.sequence} and {after.sequence}")
    return faults


def print_summary(chunks, faults):
    """The table, then the verdict."""
    print("\n  chunk   seconds       KiB  video  audio  plays alone")
    for chunk in chunks:
        seen = chunk.verdict
        row = f"  {chunk.sequence:>5}  {chunk.seconds:8.2f}  {chunk.size / 1024:8.1f}  {len(seen.video_times):>5}  {seen.audio_frames:>5}"
        print(f"{row}  {'yes' if not seen.faults else 'NO: ' + '; '.join(seen.faults)}")
    seconds = sum(chunk.seconds for chunk in chunks)
    frames = sum(len(chunk.verdict.video_times) for chunk in chunks)
    audio = sum(chunk.verdict.audio_frames for chunk in chunks)
    print(f"  {'all':>5}  {seconds:8.2f}  {sum(chunk.size for chunk in chunks) / 1024:8.1f}  {frames:>5}  {audio:>5}\n")
    for fault in faults:
        print(f"  - {fault}")


def record(args, work, parts):
    """Runs everything once; the faults found, and the chunks."""
    print("\n== starting storage and camera", flush=True)
    try:
        storage = Emulator(args.emulator, work / "storage.log")
    except RuntimeError as error:
        raise Failure(str(error)) from None
    parts.append(Part("storage", [], storage.log_path))
    parts[-1].process = storage.process
    storage.create_bucket(BUCKET)
    print(f"  storage  {storage.endpoint}, bucket {BUCKET} (fake-gcs-server, in memory)")

    try:
        broker = Broker(work)
    except RuntimeError as error:
        raise Failure(str(error)) from None
    for name, process, log in (("broker", broker.process, broker.log_path), ("subscriber", broker.subscriber, broker.seen_path)):
        parts.append(Part(name, [], log))
        parts[-1].process = process
    print(f"  broker   mqtt://127.0.0.1:{broker.port}, topics gcstreamer/{DEVICE}/# (mosquitto)")

    camera = Part("camera", [sys.executable, "-B", HERE / "camera.py", "--fps", FPS, "--key-interval", FPS], work / "camera.log")
    parts.append(camera.start())
    port = camera.wait_for_line("READY ", 30, "the camera did not start")
    print(f"  camera   rtsp://127.0.0.1:{port}/cam (H.264 640x360 at {FPS} a second, a key frame each second, and AAC)")

    line = start_line(launch_line(port, broker.port), args.plugin_dir, storage.endpoint, work)
    parts.append(line)
    wait_for_play(camera, line)
    started = time.monotonic()
    print(f"== recording for {args.seconds} s; chunks as they land, and the device's state", flush=True)
    states = States(broker)
    seen = watch(storage, states, line, args.seconds, started)
    print("== stopping (SIGINT): the open chunk is stored too", flush=True)
    stop_line(line)
    show_new(storage, seen, started)
    time.sleep(0.3)  # the subscriber writes a moment after the broker has acknowledged
    states.show_new(started)

    chunks = sorted(seen.values(), key=lambda chunk: (chunk.sequence, chunk.name))
    folder = Path.cwd() / "demo-out" if args.keep else work / "chunks"
    print("== judging each chunk alone, with ffprobe and ffmpeg", flush=True)
    fetch_and_judge(storage, chunks, folder)
    faults = judge_recording(chunks, args.seconds) + states.faults()
    print_summary(chunks, faults)
    if args.dashboard:
        frames = sum(len(chunk.verdict.video_times) for chunk in chunks)
        faults += show_dashboard(args.dashboard, storage, work, parts, frames)
    if args.keep:
        print(f"chunks kept in {folder}")
    bad = [chunk.sequence for chunk in chunks if chunk.verdict.faults]
    if bad:
        faults.append(f"these chunks do not play alone: {bad}")
    return faults


def show_dashboard(program, storage, work, parts, frames):
    """Starts the dashboard on what was recorded, and plays it all through it; the faults found."""
    command = [program, "--bucket", BUCKET, "--endpoint-uri", storage.endpoint, "--listen", "127.0.0.1:0"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GCSTREAMER_DASHBOARD_")}
    dashboard = Part("dashboard", command, work / "dashboard.log", environment)
    parts.append(dashboard.start())
    deadline = time.monotonic() + 30
    while "listening on " not in dashboard.log():
        if dashboard.process.poll() is not None:
            raise Failure(f"the dashboard ended with status {dashboard.process.returncode}")
        if time.monotonic() > deadline:
            raise Failure("the dashboard does not listen within 30 s")
        time.sleep(0.1)
    address = dashboard.log().split("listening on ", 1)[1].split()[0]
    print(f"== the dashboard, on what was recorded: {address}", flush=True)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}/api/cameras", timeout=20) as answer:
        cameras = [camera["id"] for camera in json.load(answer)]
    if cameras != [DEVICE]:
        return [f"the dashboard should show {DEVICE}, it shows {cameras}"]
    ends = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + shift)) for shift in (-12 * 3600, 3600))
    query = urllib.parse.urlencode(dict(zip(("camera", "from", "to"), (DEVICE, *ends))))
    probe = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
    probe.append(f"{address}/hls/index.m3u8?{query}")
    played = subprocess.run(probe, capture_output=True, text=True, timeout=120, check=False)
    seen = [int(word) for word in played.stdout.replace(",", " ").split() if word.isdigit()]
    if not seen or seen[0] != frames:
        return [f"the dashboard plays {seen[0] if seen else 0} of {frames} frames {played.stderr.strip()}"]
    print(f"  all {frames} frames play through it", flush=True)
    return []


def wait_for_play(camera, line, timeout=30):
    """Until the camera was asked to play: the recording time counts from here."""
    deadline = time.monotonic() + timeout
    while "PLAYING" not in camera.log():
        for part in (line, camera):
            if part.process.poll() is not None:
                raise Failure(f"the {part.name} ended with status {part.process.returncode} before the camera played")
        if time.monotonic() > deadline:
            raise Failure(f"nobody asked the camera to play within {timeout} s")
        time.sleep(0.1)


def print_logs(parts):
    """The last lines of every part, for somebody who has to find out."""
    for part in parts:
        lines = [line for line in part.log().splitlines() if not line.startswith("Redistribute latency")][-20:]
        print(f"\n-- last lines of the {part.name}:")
        print("\n".join(f"   {line}" for line in lines) or "   (nothing)")


def on_signal(number, _frame):
    raise KeyboardInterrupt(number)


def supervise(record, is_kept=lambda _part: False):
    """Runs `record(parts)`, which gives the faults found, and ends every part whatever happened, but those that are kept where there is no
    fault. Returns the faults and the parts that go on."""
    parts, kept, faults = [], [], ["ended early"]
    try:
        faults = record(parts)
    except KeyboardInterrupt:
        faults = ["interrupted"]
    except (Failure, OSError, subprocess.SubprocessError) as error:
        faults = [str(error)]
    finally:
        for number in SIGNALS:  # the clean-up is short and must not be cut short
            signal.signal(number, signal.SIG_IGN)
        kept = [part for part in parts if not faults and is_kept(part)]
        for part in reversed(parts):
            if part.process is not None and part not in kept:
                if part.process.poll() is None:
                    # A stopped process does not act on SIGTERM.
                    part.process.send_signal(signal.SIGCONT)
                end(part.process)
    if faults and faults != ["interrupted"]:
        print_logs(parts)
    return faults, kept


def run(args, work):
    """Records; the faults found."""
    # With --keep the dashboard and the storage that it reads go on.
    is_kept = lambda part: args.dashboard and part.name in ("storage", "dashboard")  # noqa: E731
    faults, kept = supervise(lambda parts: record(args, work, parts), is_kept)
    if kept:
        print("the dashboard goes on; end it and the storage with: kill " + " ".join(str(part.process.pid) for part in kept))
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin-dir", type=Path, required=True)
    parser.add_argument("--emulator", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--dashboard", type=Path, help="program to show the recording with; it is left running")
    args = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, on_signal)

    with tempfile.TemporaryDirectory(prefix="gcstreamer-demo-", ignore_cleanup_errors=True) as work:
        faults = run(args, Path(work))
    if faults:
        print("\nFAILED: " + "; ".join(faults))
        return 1
    print("everything arrived and plays")
    return 0


if __name__ == "__main__":
    sys.exit(main())
