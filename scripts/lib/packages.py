"""Boots a system that has the Debian packages, as scripts/test-packages made it, and judges what its units record.

systemd is process 1 of the booted system, so the units' sandboxes are the real ones; only the network is that of this machine.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import emulator as storage
import stored as recorded

ROOT = Path(__file__).resolve().parent.parent.parent
BUCKET = "cameras"
TOKEN = "a-token-of-the-test"
PATIENCE = 120.0
UNITS = ["gcstreamer-recorder.service", "gcstreamer-dashboard.service", "gcstreamer@door.service"]


def fail(text):
    raise SystemExit(f"error: {text}")


class System:
    """The booted system."""

    def __init__(self, args, log):
        command = [args.nspawn, "--quiet", "--directory", str(args.root), "--register=no", "--keep-unit", "--boot"]
        # Its own libraries, where it was unpacked and not installed.
        libraries = Path("/usr/lib/x86_64-linux-gnu/systemd")
        environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)} if libraries.exists() else None
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)

    def run(self, *command, input="", timeout=120):
        """Runs a command inside, with this text on its standard input."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            fail(f"the system does not boot: {self.log.read_text(errors='replace')[-3000:]}")
        # systemd-nspawn's own child is the outer one; process 1 of the system is that one or its child.
        inner = Path(f"/proc/{children[0]}/task/{children[0]}/children").read_text().split()
        leader = inner[0] if inner and "systemd" not in Path(f"/proc/{children[0]}/comm").read_text() else children[0]
        enter = ["nsenter", "--target", leader, "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, input=input, timeout=timeout)

    def systemctl(self, *arguments):
        result = self.run("systemctl", *arguments)
        return result.returncode, result.stdout.strip() + result.stderr.strip()

    def property(self, unit, name):
        return self.systemctl("show", "--value", "--property", name, unit)[1]

    def journal(self, unit):
        return self.run("journalctl", "--no-pager", "--lines=40", "--unit", unit).stdout

    def end(self):
        if self.process.poll() is None:
            self.systemctl("--no-block", "poweroff")
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def wait_until(what, is_so, told):
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            fail(f"{what}: not within {PATIENCE:.0f} s\n{told()}")
        time.sleep(0.3)


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def set_up(root, bucket, camera, listen, shown):
    """What docs/systemd.md says: one file for the recorder, one for the dashboard, one for a launch line."""
    etc = root / "etc"
    group = next(line for line in (etc / "group").read_text().splitlines() if line.startswith("gcstreamer:")).split(":")[2]
    write(etc / "gcstreamer-recorder/cam.pw", "secret\n", 0o640)
    os.chown(etc / "gcstreamer-recorder/cam.pw", 0, int(group))
    recorder = f'bucket = "{BUCKET}"\nendpoint-uri = "{bucket.endpoint}"\nlisten = "127.0.0.1:{listen}"\n'
    recorder += f'[[camera]]\nid = "by-recorder"\nurl = "rtsp://127.0.0.1:{camera}/cam"\nusername = "rec"\n'
    recorder += 'password-file = "gcstreamer-recorder/cam.pw"\nmax-size-time = "3s"\n'
    write(etc / "gcstreamer-recorder.toml", recorder, 0o640)
    os.chown(etc / "gcstreamer-recorder.toml", 0, int(group))
    write(etc / "credstore/gcstreamer-dashboard.token", TOKEN, 0o600)
    (etc / "credstore").chmod(0o700)
    dashboard = (etc / "default/gcstreamer-dashboard").read_text()
    dashboard = dashboard.replace("BUCKET=\n", f"BUCKET={BUCKET}\n").replace("127.0.0.1:8080", f"127.0.0.1:{shown}")
    dashboard = dashboard.replace("#GCSTREAMER_DASHBOARD_", "GCSTREAMER_DASHBOARD_")
    write(etc / "default/gcstreamer-dashboard", f"{dashboard}\nGCSTREAMER_DASHBOARD_ENDPOINT_URI={bucket.endpoint}\n")
    line = f"# The door.\nrtspsrc location=rtsp://127.0.0.1:{camera}/cam protocols=tcp latency=200 ! rtph264depay ! h264parse ! \\\n"
    line += f"  flvmux streamable=true ! gcssink bucket={BUCKET} device-id=by-line max-size-time=3000000000\n"
    line += f"  endpoint-uri={bucket.endpoint} spool-dir=/var/lib/gcstreamer-lines/door\n"
    write(etc / "gcstreamer/door.line", line, 0o640)
    os.chown(etc / "gcstreamer/door.line", 0, int(group))
    wants = etc / "systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    for unit in UNITS:
        template = unit.replace("@door", "@")
        (wants / unit).symlink_to(f"/usr/lib/systemd/system/{template}")


def get(port, path):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).read()
    except OSError:
        return b""


def stored(bucket, camera):
    return recorded.of_camera(bucket, BUCKET, camera)


def check_records(system, bucket, shown):
    told = lambda: "\n".join(system.journal(unit) for unit in UNITS)  # noqa: E731
    for camera in ("by-recorder", "by-line"):
        wait_until(f"two chunks of {camera}", lambda camera=camera: len(stored(bucket, camera)) >= 2, told)

    def cameras():
        return sorted(camera["id"] for camera in json.loads(get(shown, "/api/cameras") or b"[]"))

    wait_until("both cameras on the dashboard", lambda: cameras() == ["by-line", "by-recorder"], told)
    for unit in UNITS:
        state = [system.property(unit, name) for name in ("ActiveState", "NRestarts", "NoNewPrivileges")]
        if state != ["active", "0", "yes"]:
            fail(f"{unit}: {state}\n{system.journal(unit)}")
    print("each unit runs and was never restarted; " + system.property(UNITS[0], "StatusText"))


def check_reload_and_end(system, bucket):
    before = system.property(UNITS[0], "ExecMainPID")
    status, text = system.systemctl("reload", UNITS[0])
    if status != 0 or system.property(UNITS[0], "ExecMainPID") != before:
        fail(f"reload: {text}\n{system.journal(UNITS[0])}")
    for unit in UNITS:
        status, text = system.systemctl("stop", unit)
        result = [system.property(unit, name) for name in ("Result", "ExecMainStatus", "ExecMainCode")]
        # CLD_EXITED, not by a signal.
        if status != 0 or result != ["success", "0", "1"]:
            fail(f"{unit}: {text} {result}\n{system.journal(unit)}")
    print("reload keeps the process, and each ends with 0 when it is stopped")


def assert_plays(storage, bucket, cameras, folder):
    for camera in cameras:
        _, faults = recorded.play(storage, bucket, camera, folder)
        if faults:
            fail(faults[0])


def arguments(description):
    """Where the system is, and what boots it and stores for it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", required=True, type=Path)
    parser.add_argument("--nspawn", required=True)
    parser.add_argument("--emulator", required=True)
    return parser.parse_args()


def main():
    args = arguments(__doc__)
    folder = Path(tempfile.mkdtemp())
    camera = subprocess.Popen([sys.executable, str(ROOT / "scripts/lib/camera.py"), "--key-interval", "25"], stdout=subprocess.PIPE, text=True)
    bucket = storage.Emulator(args.emulator, folder / "emulator.log")
    system = None
    try:
        bucket.create_bucket(BUCKET)
        port = camera.stdout.readline().removeprefix("READY ").strip()
        listen, shown = storage.free_port(), storage.free_port()
        set_up(args.root, bucket, port, listen, shown)
        system = System(args, folder / "boot.log")
        time.sleep(1)
        check_records(system, bucket, shown)
        check_reload_and_end(system, bucket)
        assert_plays(bucket, BUCKET, ("by-recorder", "by-line"), folder)
    finally:
        if system:
            system.end()
        bucket.stop()
        storage.end(camera)
        camera.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
