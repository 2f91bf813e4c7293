#!/usr/bin/python3
"""What a recorder with many cameras costs: CPU and memory of its process, and how long it takes until all are recorded.

usage: benches/fleet.py [--cameras N] [--seconds S] [--kbps K]
Release build of the recorder; one RTSP server and the storage emulator on the same machine, in processes of their own, whose CPU is not counted.
"""
import argparse
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


def memory(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--kbps", type=int, default=2000)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    camera = subprocess.Popen(
        ["/usr/bin/python3", str(ROOT / "scripts/lib/camera.py"), "--key-interval", "25", "--pattern", "snow", "--kbps", str(args.kbps)], stdout=subprocess.PIPE, text=True
    )
    bucket = storage.Emulator(ROOT / ".venv/bin/fake-gcs-server", folder / "emulator.log")
    recorder = None
    try:
        bucket.create_bucket("cameras")
        port, listen = camera.stdout.readline().removeprefix("READY ").strip(), storage.free_port()
        text = f'bucket = "cameras"\nendpoint-uri = "{bucket.endpoint}"\nlisten = "127.0.0.1:{listen}"\nspool-dir = "{folder}/spool"\nmax-spool-bytes = 4000000000\n'
        text += "".join(f'[[camera]]\nid = "cam{n}"\nurl = "rtsp://127.0.0.1:{port}/cam"\n' for n in range(args.cameras))
        (folder / "recorder.toml").write_text(text)
        began = time.monotonic()
        with open(folder / "log", "wb") as log:
            recorder = subprocess.Popen([str(ROOT / "target/release/gcstreamer-recorder"), "run", str(folder / "recorder.toml")], stdout=log, stderr=log)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def status():
            try:
                return json.loads(opener.open(f"http://127.0.0.1:{listen}/status", timeout=10).read())
            except OSError:
                return []

        while sum(one["state"] == "recording" for one in status()) < args.cameras:
            if time.monotonic() - began > 180:
                sys.exit(f"not all are recorded: {[(one['id'], one['reason']) for one in status() if one['state'] != 'recording'][:3]}")
            time.sleep(0.2)
        started = time.monotonic() - began
        at_first, begin = cpu(recorder.pid), time.monotonic()
        before = sum(int(item["size"]) for item in bucket.objects("cameras"))
        time.sleep(args.seconds)
        used, took = cpu(recorder.pid) - at_first, time.monotonic() - begin
        stored = sum(int(item["size"]) for item in bucket.objects("cameras")) - before
        states = {one["state"] for one in status()}
        print(f"{args.cameras} cameras, {stored * 8 / took / args.cameras / 1e6:.2f} Mbit/s each stored; all recorded after {started:.1f} s; states {states}")
        print(f"CPU: {100 * used / took:.1f} % of a core, {100 * used / took / args.cameras:.2f} % a camera, {used / (stored / 1e9):.2f} s/GB")
        print(f"memory at most {memory(recorder.pid):.0f} MiB, {threads(recorder.pid)} threads; load {os.getloadavg()[0]:.1f}")
    finally:
        if recorder:
            recorder.send_signal(signal.SIGINT)
            recorder.wait(60)
        bucket.stop()
        storage.end(camera)
        camera.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
