"""Runs the images of scripts/test-container by an OCI runtime, as the image's own configuration says, and judges what they store.

Each container: its own user, a read-only root, no capability, no new privileges, the network of this machine.
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
PATIENCE = 90.0


def fail(text):
    sys.exit(f"error: {text}")


def wait_until(what, is_so, log=None):
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            fail(f"{what}: not within {PATIENCE:.0f} s\n{log.read_text(errors='replace')[-4000:] if log else ''}")
        time.sleep(0.2)


class Container:
    """A container that runs in the foreground of its own process; `stop` sends the image's stop signal and gives the exit status."""

    def __init__(self, args, image, name, arguments, environment=(), mounts=()):
        self.runtime = [args.runtime, "--root", str(args.folder / "runtime")]
        self.name = f"gcstreamer-test-{os.getpid()}-{name}"
        self.config = json.loads((args.folder / image / "config.json").read_text())["Docker"]["config"]
        self.bundle = Path(tempfile.mkdtemp(dir=args.folder))
        self.log = self.bundle / "log"
        subprocess.run([args.runtime, "spec"], cwd=self.bundle, check=True)
        specification = json.loads((self.bundle / "config.json").read_text())
        self._fill(specification, args.folder / image / "rootfs", arguments, environment, mounts)
        (self.bundle / "config.json").write_text(json.dumps(specification))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*self.runtime, "run", "--bundle", str(self.bundle), self.name], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _fill(self, specification, rootfs, arguments, environment, mounts):
        process = specification["process"]
        user, group = (int(part) for part in self.config["User"].split(":"))
        process["terminal"] = False
        process["user"] = {"uid": user, "gid": group}
        process["args"] = self.config["Entrypoint"] + (arguments or self.config["Cmd"])
        process["env"] = [*self.config["Env"], *environment]
        process["noNewPrivileges"] = True
        process["capabilities"] = {name: [] for name in process["capabilities"]}
        process["cwd"] = "/"
        specification["root"] = {"path": str(rootfs), "readonly": True}
        # The camera and the emulator are on this machine's loopback.
        linux = specification["linux"]
        linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] in ("pid", "mount", "ipc", "uts")]
        specification["mounts"] = [mount for mount in specification["mounts"] if mount["type"] in ("proc", "tmpfs", "devpts", "mqueue")]
        specification["mounts"].append(
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777", "size=67108864"]}
        )
        for source, target, mode in mounts:
            options = ["rbind", mode]
            specification["mounts"].append({"destination": target, "type": "bind", "source": str(source), "options": options})

    def run_inside(self, command):
        """What a health check does: exit status of one more process in the container."""
        run = [*self.runtime, "exec", self.name, *command]
        return subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)

    def text(self):
        return self.log.read_text(errors="replace")

    def stop(self):
        subprocess.run([*self.runtime, "kill", self.name, self.config["StopSignal"].removeprefix("SIG")], check=True)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            fail(f"{self.name} does not end by {self.config['StopSignal']}\n{self.text()[-4000:]}")

    def remove(self):
        if self.process.poll() is None:
            subprocess.run([*self.runtime, "kill", self.name, "KILL"], check=False)
            self.process.wait(20)
        subprocess.run([*self.runtime, "delete", "--force", self.name], capture_output=True, check=False)
        shutil.rmtree(self.bundle, ignore_errors=True)


def stored(bucket, camera):
    return recorded.of_camera(bucket, BUCKET, camera)


def assert_plays(bucket, camera, folder):
    pictures, faults = recorded.play(bucket, BUCKET, camera, folder)
    if faults:
        fail(faults[0])
    if pictures < 50:
        fail(f"{camera}: {pictures} pictures")


def record_by_recorder(args, bucket, camera, folder):
    spool = folder / "spool"
    spool.mkdir()
    os.chown(spool, 10001, 10001)
    port = storage.free_port()
    environment = [
        f"RTSP_URL=rtsp://127.0.0.1:{camera}/cam",
        "DEVICE_ID=by-recorder",
        f"BUCKET={BUCKET}",
        f"ENDPOINT_URI={bucket.endpoint}",
        f"LISTEN=127.0.0.1:{port}",
    ]
    container = Container(args, "recorder", "recorder", [], environment, [(spool, "/var/lib/gcstreamer", "rw")])
    try:
        wait_until("two chunks of the recorder", lambda: len(stored(bucket, "by-recorder")) >= 2, container.log)
        check = container.config["Healthcheck"]["Test"]
        health = container.run_inside(check[1:] if check[0] == "CMD" else ["/bin/sh", "-c", check[1]])
        if health.returncode != 0:
            fail(f"healthcheck: {health.returncode} {health.stderr}")
        status = container.stop()
        if status != 0:
            fail(f"the recorder ended with {status}\n{container.text()[-4000:]}")
        left = [path for path in spool.rglob("*.chunk*")]
        if left:
            fail(f"left in the spool after a clean end: {left}")
    finally:
        container.remove()
    assert_plays(bucket, "by-recorder", folder)


def record_by_line(args, bucket, camera, folder):
    line = (
        f"rtspsrc location=rtsp://127.0.0.1:{camera}/cam protocols=tcp latency=200 ! rtph264depay ! h264parse ! "
        f"flvmux streamable=true ! gcssink bucket={BUCKET} device-id=by-line max-size-time=3000000000"
    )
    container = Container(args, "plugin", "plugin", line.split(), [f"STORAGE_EMULATOR_HOST={bucket.endpoint}"])
    try:
        wait_until("two chunks of the line", lambda: len(stored(bucket, "by-line")) >= 2, container.log)
        status = container.stop()
        if status != 0:
            fail(f"the line ended with {status}\n{container.text()[-4000:]}")
    finally:
        container.remove()
    assert_plays(bucket, "by-line", folder)


def show(args, bucket, folder):
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    port = storage.free_port()
    environment = [
        f"GCSTREAMER_DASHBOARD_BUCKET={BUCKET}",
        f"GCSTREAMER_DASHBOARD_ENDPOINT_URI={bucket.endpoint}",
        f"GCSTREAMER_DASHBOARD_LISTEN=127.0.0.1:{port}",
    ]
    container = Container(args, "dashboard", "dashboard", [], environment, [(token, "/run/secrets/token", "ro")])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def cameras():
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/cameras", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            return sorted(camera["id"] for camera in json.loads(opener.open(request, timeout=10).read()))
        except OSError:
            return []

    try:
        wait_until("both cameras on the dashboard", lambda: cameras() == ["by-line", "by-recorder"], container.log)
        status = container.stop()
        if status != 0:
            fail(f"the dashboard ended with {status}\n{container.text()[-4000:]}")
    finally:
        container.remove()
    print("the dashboard shows both")


def check_libraries(image, root):
    """What was copied without its package: each has its licence, its entry for scanners, and its line in the SBOM."""
    lines = (root / "usr/share/gcstreamer/debian-packages").read_text().splitlines()
    packages = {line.split()[0].split(":")[0]: line.split()[1] for line in lines}
    sbom = json.loads((root / "usr/share/gcstreamer/debian-packages.spdx.json").read_text())
    named = {entry["name"]: entry["versionInfo"] for entry in sbom["packages"] if entry["SPDXID"] != "SPDXRef-image"}
    if named != packages:
        fail(f"the SBOM of the image {image} differs from its list of packages: {set(named.items()) ^ set(packages.items())}")
    for name, version in packages.items():
        entry = root / "var/lib/dpkg/status.d" / name
        if f"\nVersion: {version}\n" not in entry.read_text():
            fail(f"the image {image} has no entry of {name} {version} for scanners")
        if not (root / "usr/share/doc" / name / "copyright").read_text():
            fail(f"the image {image} lacks the licence of {name}")


def check_papers(folder):
    """Whoever hands on an image hands on the licence texts and the lists of what is in it."""
    for image in ("recorder", "dashboard", "plugin"):
        root = folder / image / "rootfs"
        for pattern in ("usr/share/doc/*/third-party-licences.gz", "usr/share/gcstreamer/debian-packages"):
            if not list(root.glob(pattern)):
                fail(f"the image {image} lacks {pattern}")
        labels = json.loads((folder / image / "config.json").read_text())["Docker"]["config"]["Labels"]
        for label in ("title", "description", "source", "version", "licenses"):
            if not labels.get(f"org.opencontainers.image.{label}"):
                fail(f"the image {image} has no label {label}")
    for image in ("recorder", "dashboard"):
        check_libraries(image, folder / image / "rootfs")
    print("licences and lists are in all three images")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--emulator", required=True)
    args = parser.parse_args()
    check_papers(args.folder)
    folder = Path(tempfile.mkdtemp())
    camera = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/lib/camera.py"), "--key-interval", "25"], stdout=subprocess.PIPE, text=True
    )
    bucket = storage.Emulator(args.emulator, folder / "emulator.log")
    try:
        bucket.create_bucket(BUCKET)
        port = camera.stdout.readline().removeprefix("READY ").strip()
        record_by_recorder(args, bucket, port, folder)
        record_by_line(args, bucket, port, folder)
        show(args, bucket, folder)
    finally:
        bucket.stop()
        storage.end(camera)
        camera.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print("images: all of it works")


if __name__ == "__main__":
    main()
