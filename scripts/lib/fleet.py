"""The demo behind scripts/demo --fleet: the recorder on four cameras, of which one dies and one freezes, and both come back.

Everything listens on loopback only, lives in one temporary folder and is ended by its own process id.
"""
import argparse
import json
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo import BUCKET, HERE, SIGNALS, STOP_PATIENCE, Chunk, Failure, Part, on_signal, supervise  # noqa: E402
from emulator import Emulator, free_port  # noqa: E402
from judge import judge  # noqa: E402

# Name, its sound, and what happens to it.
CAMERAS = [("entrance", "aac", ""), ("yard", "pcma", "dies"), ("till", "aac", "freezes"), ("store", "none", "")]
CHUNK_SECONDS = 3
STALL_SECONDS = 3
COLUMNS = ("id", "state", "codec", "size", "fps", "last_stored", "backlog_bytes", "reason")


class Fleet:
    """Cameras and recorder, and the states that were seen."""

    def __init__(self, args, work, storage, parts):
        self.args, self.work, self.storage, self.parts = args, work, storage, parts
        self.listen = f"127.0.0.1:{free_port()}"
        self.cameras, self.states = {}, {name: [] for name, *_ in CAMERAS}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start_camera(self, name, sound, port=0):
        command = [sys.executable, "-B", HERE / "camera.py", "--port", port, "--width", 320, "--height", 180, "--fps", 10, "--kbps", 200]
        log = self.work / f"{name}-{len(self.parts)}.log"
        camera = Part(name, [*command, "--key-interval", 10, "--audio", sound], log).start()
        self.parts.append(camera)
        self.cameras[name] = (camera, int(camera.wait_for_line("READY ", 30, "the camera did not start")))

    def start_recorder(self):
        lines = [f'bucket = "{BUCKET}"', f'endpoint-uri = "{self.storage.endpoint}"', f'spool-dir = "{self.work}/spool"']
        lines += [f'listen = "{self.listen}"', "[defaults]", f'stall-timeout = "{STALL_SECONDS}s"', f'max-size-time = "{CHUNK_SECONDS}s"']
        for name, *_ in CAMERAS:
            lines += ["[[camera]]", f'id = "shop/{name}"', f'url = "rtsp://127.0.0.1:{self.cameras[name][1]}/cam"']
        file = self.work / "recorder.toml"
        file.write_text("\n".join(lines) + "\n")
        print("\n" + "\n".join("  " + line for line in lines) + "\n\n  gcstreamer-recorder run recorder.toml\n", flush=True)
        env = {**os.environ, "GST_REGISTRY": str(self.work / "registry.bin")}
        recorder = Part("recorder", [self.args.recorder, "run", file], self.work / "recorder.log", env).start()
        self.parts.append(recorder)
        return recorder

    def status(self):
        """/status, by the camera's name; empty while the recorder does not listen."""
        try:
            with self._opener.open(f"http://{self.listen}/status", timeout=10) as answer:
                rows = json.load(answer)
        except (urllib.error.URLError, OSError):
            return {}
        found = {row["id"].removeprefix("shop/"): row for row in rows}
        for name, row in found.items():
            if self.states[name][-1:] != [row["state"]]:
                self.states[name].append(row["state"])
        return found

    def wait(self, what, timeout, is_so):
        """Until this holds of the status; the table is shown at every change."""
        deadline, shown = time.monotonic() + timeout, None
        while time.monotonic() < deadline:
            status = self.status()
            now = {name: (row["state"], row["reason"]) for name, row in status.items()}
            if status and now != shown:
                print_table(status)
                shown = now
            if status and is_so(status):
                return
            time.sleep(0.2)
        raise Failure(f"{what} did not happen within {timeout} s")


def print_table(status):
    """One line a camera."""
    rows = [[name.upper().replace("_", " ") for name in COLUMNS]]
    for row in status.values():
        size = f"{row['width']}×{row['height']}" if row["width"] else None
        stored = (row["last_stored"] or "")[11:19] or None
        cells = {**row, "size": size, "last_stored": stored}
        rows.append(["-" if cells[key] is None else str(cells[key]) for key in COLUMNS])
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    print()
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)


def record(args, work, parts):
    """Runs everything once; the faults found."""
    try:
        storage = Emulator(args.emulator, work / "storage.log")
    except RuntimeError as error:
        raise Failure(str(error)) from None
    parts.append(Part("storage", [], storage.log_path))
    parts[-1].process = storage.process
    storage.create_bucket(BUCKET)
    fleet = Fleet(args, work, storage, parts)
    print("== starting four cameras", flush=True)
    for name, sound, _ in CAMERAS:
        fleet.start_camera(name, sound)
    recorder = fleet.start_recorder()
    quarter = args.seconds / 3
    fleet.wait("that all cameras are recorded", 30, lambda status: all(row["state"] == "recording" for row in status.values()))
    show_for(fleet, quarter)

    print("\n== the yard's camera dies (kill -9), the till's freezes (its process is stopped)", flush=True)
    dead, frozen = fleet.cameras["yard"], fleet.cameras["till"]
    dead[0].process.kill()
    dead[0].process.wait()
    frozen[0].process.send_signal(signal.SIGSTOP)
    wanted = {"yard": "unreachable", "till": "frozen"}
    fleet.wait("that both are reported", 12, lambda status: all(status[name]["state"] == state for name, state in wanted.items()))
    show_for(fleet, quarter)

    print("\n== both come back", flush=True)
    fleet.start_camera("yard", "pcma", dead[1])
    frozen[0].process.send_signal(signal.SIGCONT)
    fleet.wait("that all are recorded again", 30, lambda status: all(row["state"] == "recording" for row in status.values()))
    show_for(fleet, quarter)

    print("\n== stopping the recorder (SIGINT)", flush=True)
    recorder.process.send_signal(signal.SIGINT)
    if recorder.process.wait(STOP_PATIENCE) != 0:
        raise Failure(f"the recorder ended with status {recorder.process.returncode}")
    return judge_all(storage, work, fleet)


def show_for(fleet, seconds):
    """Goes on for a while; a state that is seen is remembered."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        fleet.status()
        time.sleep(0.2)
    print_table(fleet.status())


def judge_all(storage, work, fleet):
    """Each chunk alone, and the sessions of each camera; the faults found."""
    print("\n== judging each chunk alone, with ffprobe and ffmpeg", flush=True)
    faults = []
    # A camera that hangs answers no new connection either, once it is tried.
    began = "recorder-started"
    expected = {"dies": [[began, "camera-unreachable"]], "freezes": [[began, "camera-frozen"], [began, "camera-unreachable"]], "": [[began]]}
    for name, _, fate in CAMERAS:
        chunks = [Chunk(item) for item in storage.objects(BUCKET) if item["metadata"]["device-id"] == f"shop/{name}"]
        chunks.sort(key=lambda chunk: (chunk.resource["metadata"]["session-id"], chunk.sequence))
        pictures, bad = 0, 0
        for chunk in chunks:
            path = work / chunk.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.download(BUCKET, chunk.name))
            verdict = judge(path, wants_audio=False)
            pictures += len(verdict.video_times)
            if verdict.faults:
                bad += 1
                faults.append(f"{chunk.name}: {verdict.faults[0]}")
        reasons = [chunk.resource["metadata"]["gap-reason"] for chunk in chunks if chunk.sequence == 0]
        seconds = sum(chunk.seconds for chunk in chunks)
        print(f"  {name:<9} {len(chunks):>3} chunks  {seconds:6.1f} s  {pictures:>5} pictures  began as {', '.join(reasons)}", flush=True)
        if reasons not in expected[fate]:
            faults.append(f"{name}: its recordings should have begun as {expected[fate]}, they did as {reasons}")
        if not fate and fleet.states[name] != ["connecting", "recording"][-len(fleet.states[name]) :]:
            faults.append(f"{name}: nothing happened to it, and its states were {fleet.states[name]}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recorder", type=Path, required=True)
    parser.add_argument("--emulator", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    args = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, on_signal)
    with tempfile.TemporaryDirectory(prefix="gcstreamer-fleet-", ignore_cleanup_errors=True) as work:
        faults, _ = supervise(lambda parts: record(args, Path(work), parts))
    if faults:
        print("\nFAILED: " + "; ".join(faults))
        return 1
    print("both faults were seen and told, and everything that was sent arrived and plays")
    return 0


if __name__ == "__main__":
    sys.exit(main())
