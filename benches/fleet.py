#!/usr/bin/python3
"""What a recorder with many cameras costs: CPU and memory of its process, and how long it takes until all are recorded.

usage: benches/fleet.py [--cameras N] [--seconds S] [--kbps K] [--audio aac|pcma|pcmu|none] [--reconnects R] [--limits]
Release build of the recorder; one RTSP server and the storage emulator on the same machine, in processes of their own, whose CPU is not counted.

With --reconnects the RTSP server is then killed and started again until the cameras have connected so often: threads, descriptors and memory after each
round, when all are recorded again, must stay as after the first. With --limits the exit status is 1 where a limit of docs/scaling.md is exceeded; it is
meant for `--cameras 64 --kbps 1000 --audio none --seconds 300 --reconnects 1000`.
"""
import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts/lib"))
import emulator as storage  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid, key="VmRSS"):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(key)).split()[1]) / 1024


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def thread_names(pid):
    """Where the threads are, the most frequent names first."""
    names = collections.Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            names[task.joinpath("comm").read_text().strip().rstrip("0123456789:-")] += 1
        except OSError:  # it has ended meanwhile
            pass
    return ", ".join(f"{count} {name}" for name, count in names.most_common(8))


class Cameras:
    """One RTSP server for all; it can be killed, and comes back on its port."""

    def __init__(self, kbps, audio):
        self.command = ["/usr/bin/python3", str(ROOT / "scripts/lib/camera.py"), "--key-interval", "25", "--pattern", "snow", "--kbps", str(kbps), "--audio", audio]
        self.port = 0
        self.start()

    def start(self):
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().removeprefix("READY ").strip())

    def kill(self):
        self.process.kill()
        self.process.wait()


class Recorder:
    """The recorder under test."""

    def __init__(self, program, folder, bucket, port, cameras):
        self.cameras, self.listen = cameras, storage.free_port()
        text = f'bucket = "cameras"\nendpoint-uri = "{bucket.endpoint}"\nlisten = "127.0.0.1:{self.listen}"\nspool-dir = "{folder}/spool"\nmax-spool-bytes = 4000000000\n'
        text += "".join(f'[[camera]]\nid = "cam{n}"\nurl = "rtsp://127.0.0.1:{port}/cam"\n' for n in range(cameras))
        (folder / "recorder.toml").write_text(text)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen([str(program), "run", str(folder / "recorder.toml")], stdout=log, stderr=log)
        self.pid = self.process.pid

    def status(self):
        try:
            return json.loads(self.opener.open(f"http://127.0.0.1:{self.listen}/status", timeout=10).read())
        except OSError:
            return []

    def wait(self, what, timeout, is_so):
        """Until this holds of /status; the seconds it took."""
        began = time.monotonic()
        while not is_so(self.status()):
            if time.monotonic() - began > timeout:
                others = [(one["id"], one["state"], one["reason"]) for one in self.status() if one["state"] != "recording"]
                sys.exit(f"{what} after {timeout} s: {others[:3]}")
            time.sleep(0.2)
        return time.monotonic() - began

    def wait_until_all_are_recorded(self, reconnects=0):
        def is_so(status):
            ready = sum(one["state"] == "recording" and one["reconnects"] >= reconnects for one in status)
            return ready == self.cameras

        return self.wait("not all are recorded", 180, is_so)


def reconnect(cameras, recorder, wanted):
    """Kills and starts the cameras until they have reconnected so often; threads, descriptors and memory after each round."""
    rounds = []
    while sum(one["reconnects"] for one in recorder.status()) < wanted:
        before = min(one["reconnects"] for one in recorder.status())
        cameras.kill()
        recorder.wait("cameras that are gone are recorded", 60, lambda status: all(one["state"] != "recording" for one in status))
        cameras.start()
        recorder.wait_until_all_are_recorded(before + 1)
        time.sleep(5)  # what ended beside the new recordings has ended
        rounds.append((threads(recorder.pid), descriptors(recorder.pid), memory(recorder.pid)))
        print(f"reconnects {sum(one['reconnects'] for one in recorder.status())}: {rounds[-1][0]} threads, {rounds[-1][1]} descriptors, {rounds[-1][2]:.0f} MiB", flush=True)
    return rounds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--kbps", type=int, default=2000)
    parser.add_argument("--audio", choices=("aac", "pcma", "pcmu", "none"), default="aac", help="G.711 is written anew as AAC: the encoder counts")
    parser.add_argument("--reconnects", type=int, default=0)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--recorder", type=Path, default=ROOT / "target/release/gcstreamer-recorder")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    cameras = Cameras(args.kbps, args.audio)
    bucket = storage.Emulator(ROOT / ".venv/bin/fake-gcs-server", folder / "emulator.log")
    recorder, exceeded = None, []
    try:
        bucket.create_bucket("cameras")
        recorder = Recorder(args.recorder, folder, bucket, cameras.port, args.cameras)
        started = recorder.wait_until_all_are_recorded()
        at_first, begin = cpu(recorder.pid), time.monotonic()
        before = sum(int(item["size"]) for item in bucket.objects("cameras"))
        time.sleep(args.seconds)
        used, took = cpu(recorder.pid) - at_first, time.monotonic() - begin
        share, each = 100 * used / took, memory(recorder.pid, "VmHWM") / args.cameras
        stored = sum(int(item["size"]) for item in bucket.objects("cameras")) - before
        states = {one["state"] for one in recorder.status()}
        print(f"{args.cameras} cameras, {stored * 8 / took / args.cameras / 1e6:.2f} Mbit/s each stored; all recorded after {started:.1f} s; states {states}")
        print(f"CPU: {share:.1f} % of a core, {share / args.cameras:.2f} % a camera, {used / (stored / 1e9):.2f} s/GB")
        # With a spool the open chunks are on disk.
        print(f"memory at most {each * args.cameras:.0f} MiB, {each:.1f} MiB a camera; load {os.getloadavg()[0]:.1f}")
        print(f"{threads(recorder.pid)} threads ({thread_names(recorder.pid)}), {descriptors(recorder.pid)} descriptors", flush=True)
        exceeded += [text for is_over, text in ((share > 60, "CPU: more than 60 % of a core"), (each > 8, "memory: more than 8 MiB a camera")) if is_over]
        rounds = reconnect(cameras, recorder, args.reconnects)
        if rounds:
            # One of each that happens to be there at that moment for a tenth of the cameras is no leak.
            slack = max(8, args.cameras // 10)
            for i, what in enumerate(("threads", "descriptors")):
                if rounds[-1][i] > rounds[0][i] + slack:
                    exceeded.append(f"{what}: {rounds[0][i]} after the first round, {rounds[-1][i]} after the last")
    finally:
        if recorder:
            recorder.process.send_signal(signal.SIGINT)
            recorder.process.wait(60)
        bucket.stop()
        cameras.kill()
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(exceeded) if exceeded else "within all limits")
    return 1 if exceeded and args.limits else 0


if __name__ == "__main__":
    sys.exit(main())
