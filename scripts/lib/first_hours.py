"""Types the commands of docs/start.md, "Two first hours", in a bare Debian that is booted, and judges what comes of them.

Typed is each line of the two blocks, word for word. What a person does beside it: he says yes to apt-get, writes into his editor, types
a password, and looks again while a camera is still being connected.
"""
import os
import signal
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import emulator as storage
import stored as recorded
from packages import System, arguments, assert_plays, fail, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
BUCKET = "first-hour"
PASSWORD = "correct horse"
CAMERAS = 16
RECORDER = "/etc/gcstreamer-recorder.toml"
DASHBOARD = "/etc/default/gcstreamer-dashboard"


def blocks():
    """The `sh` blocks of the part, each as its lines."""
    part = (ROOT / "docs/start.md").read_text().split("\n## Two first hours\n")[1]
    found = [block.split("\n```")[0] for block in part.split("```sh\n")[1:]]
    lines = [block.replace("\\\n", "").splitlines() for block in found]
    return [[line for line in block if line and not line.startswith("#")] for block in lines]


class Person:
    """Sits at the machine as root, in a folder with the packages and the key."""

    def __init__(self, system, root):
        self.system, self.root = system, root
        self.edits = {}
        home = root / "root"
        for package in (root / "packages").iterdir():
            shutil.copy(package, home)
        # Of step 2; with an endpoint of http:// nobody is shown it.
        (home / "recorder.json").write_text('{"type": "service_account"}\n')
        editor = root / "usr/bin/editor"
        editor.write_text('#!/bin/sh\nexec cp "/root/edited/$(basename "$1")" "$1"\n')
        editor.chmod(0o755)
        (home / "edited").mkdir()

    def journal(self):
        return self.system.journal("gcstreamer-recorder")

    def will_write(self, file, edit):
        """What he does to a file when he opens it: `edit` makes the new text of the old one."""
        self.edits[file] = edit

    def type(self, line):
        print(f"# {line}", flush=True)
        for file, edit in self.edits.items():
            if line.startswith(f"editor {file}"):
                old = (self.root / file.lstrip("/")).read_text()
                (self.root / "root/edited" / Path(file).name).write_text(edit(old))
        answers = f"{PASSWORD}\n" if "/dev/stdin" in line else "y\n" if line.startswith("apt-get install") else ""
        if line.startswith("curl"):
            return self.look(line)
        result = self.system.run("sh", "-c", f"cd /root && {line}", input=answers, timeout=900)
        text = result.stdout + result.stderr
        if result.returncode != 0:
            fail(f"{line}: status {result.returncode}\n{text[-4000:]}\n{self.journal()}")
        return text

    def look(self, line):
        """Looks again until nothing is being connected any more."""
        text = ""

        def is_settled():
            nonlocal text
            text = self.system.run("sh", "-c", line).stdout
            return bool(text) and '"connecting"' not in text

        wait_until(line, is_settled, lambda: text + self.journal())
        return text


class Cameras:
    """Sixteen cameras that ask for a user and a password."""

    def __init__(self):
        command = [sys.executable, str(ROOT / "scripts/lib/camera.py"), "--count", str(CAMERAS), "--user", "recorder"]
        command += ["--password", PASSWORD, "--width", "320", "--height", "180", "--fps", "10", "--kbps", "200", "--key-interval", "10"]
        self.process = subprocess.Popen([*command, "--audio", "none"], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().removeprefix("READY "))

    def url(self, number):
        return f"rtsp://127.0.0.1:{self.port}/cam{number}"

    def stop(self):
        storage.end(self.process)


def one_camera(cameras, bucket):
    """The example's text for one camera with a password."""

    def edit(old):
        new = old.replace('bucket = "my-bucket"', f'bucket = "{BUCKET}"\nendpoint-uri = "{bucket.endpoint}"')
        new = new.replace("rtsp://192.0.2.10/stream", cameras.url(1))
        new = new.replace("#username", "username").replace("#password-file", "password-file")
        assert new.count("\n") == old.count("\n") + 1
        return new

    return edit


def sixteen(cameras):
    """User and password of all of them under [defaults], and a [[camera]] for each."""

    def edit(old):
        head, _ = old.split("[[camera]]")
        head += 'username = "recorder"\npassword-file = "gcstreamer-recorder/cam1.pw"\n'
        each = (f'\n[[camera]]\nid = "cam{n}"\nname = "Camera {n}"\nurl = "{cameras.url(n)}"\n' for n in range(1, CAMERAS + 1))
        return head + "".join(each)

    return edit


def dashboard_of(bucket):
    def edit(old):
        new = old.replace("GCSTREAMER_DASHBOARD_BUCKET=\n", f"GCSTREAMER_DASHBOARD_BUCKET={BUCKET}\n")
        return f"{new}\nGCSTREAMER_DASHBOARD_ENDPOINT_URI={bucket.endpoint}\n"

    return edit


def sequences(bucket, camera):
    """The numbers of the stored chunks of each session."""
    found = {}
    for item in recorded.of_camera(bucket, BUCKET, camera):
        metadata = item["metadata"]
        found.setdefault(metadata["session-id"], []).append(int(metadata["sequence"]))
    return found


def pull_the_cable(person, bucket):
    """The uplink hangs for half a minute; then everything of that time is stored, and of nothing anything is missing."""
    before = len(recorded.of_camera(bucket, BUCKET, "cam1"))
    os.kill(bucket.process.pid, signal.SIGSTOP)
    time.sleep(35)
    os.kill(bucket.process.pid, signal.SIGCONT)
    wait_until("the chunks of the outage", lambda: len(recorded.of_camera(bucket, BUCKET, "cam1")) >= before + 4, person.journal)


def assert_whole(bucket, camera, sessions):
    found = sequences(bucket, camera)
    if len(found) != sessions or any(sorted(numbers) != list(range(len(numbers))) for numbers in found.values()):
        fail(f"{camera}: chunks are missing: {found}")


def first_hour_of_the_installer(person, lines, cameras, bucket):
    person.will_write(RECORDER, one_camera(cameras, bucket))
    for line in lines:
        text = person.type(line)
    if '"state":"recording"' not in text:
        fail(f"one camera: {text}")
    wait_until("a chunk of the camera", lambda: len(recorded.of_camera(bucket, BUCKET, "cam1")) >= 1, person.journal)
    pull_the_cable(person, bucket)
    assert_whole(bucket, "cam1", 1)


def first_hour_of_the_operator(person, lines, cameras, bucket):
    person.will_write(RECORDER, sixteen(cameras))
    person.will_write(DASHBOARD, dashboard_of(bucket))
    for line in lines:
        text = person.type(line)
        if line.startswith("curl -s http://127.0.0.1:9640/status") and text.count('"state":"recording"') != CAMERAS:
            fail(f"sixteen cameras: {text}\n{person.journal()}")
        if line.startswith("curl -s http://127.0.0.1:8080/api/cameras"):
            wait_until(
                "all cameras on the dashboard",
                lambda line=line: person.system.run("sh", "-c", line).stdout.count('"badge":"recording"') == CAMERAS,
                lambda line=line: person.system.run("sh", "-c", line).stdout + person.journal(),
            )
    page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://127.0.0.1:8080/", timeout=10).read()
    if b"<html" not in page:
        fail(f"the page of the dashboard: {page[:200]}")


def main():
    args = arguments(__doc__)
    installer, operator = blocks()
    folder = Path(tempfile.mkdtemp())
    cameras, bucket, system = Cameras(), storage.Emulator(args.emulator, folder / "emulator.log"), None
    try:
        bucket.create_bucket(BUCKET)
        system = System(args, folder / "boot.log")
        time.sleep(3)
        person = Person(system, args.root)
        first_hour_of_the_installer(person, installer, cameras, bucket)
        print("an installer with one camera: recorded, over an outage too")
        first_hour_of_the_operator(person, operator, cameras, bucket)
        system.systemctl("stop", "gcstreamer-recorder", "gcstreamer-dashboard")
        assert_plays(bucket, BUCKET, [f"cam{number}" for number in range(1, CAMERAS + 1)], folder)
        print(f"an operator with {CAMERAS} cameras: recorded, and on the dashboard")
    finally:
        if system:
            system.end()
        bucket.stop()
        cameras.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("first hours: all of it works")


if __name__ == "__main__":
    main()
