#!/usr/bin/env python3
"""Whole launch lines, measured from outside: CPU for each GB, speed of one core, peak memory.

Every line is run into `filesink location=/dev/null` and into `gcssink`; what the sink costs is the difference. Storage
is a server on loopback that throws everything away (its own process, its CPU is not counted), or `--endpoint URL`.
Footage is encoded once by GStreamer and kept in the work folder. Linux; needs what `scripts/setup test` installs.

usage: benches/line.py [cpu] [core] [memory] [--mb N] [--runs N] [--seconds N] [--plugin-dir DIR] [--work DIR]
"""
import argparse
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import Pipe, Process
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_TARGET = 0.5  # CPU-seconds for each GB over the same line into filesink
CORE_TARGET = 400  # MB/s
MEMORY_TARGET = 48  # MiB over the same line into filesink
PACED_MBIT = 60
FPS = 25


# ---- a storage that keeps nothing ----

def serve(connection):
    """Answers every upload as Cloud Storage does, without keeping a byte; tells its port through `connection`."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    connection.send(listener.getsockname()[1])
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve_one, args=(client,), daemon=True).start()


class Wire:
    """Reads a connection; bytes that nobody looks at are dropped in the kernel (MSG_TRUNC), uncopied."""

    def __init__(self, client):
        self.client = client
        self.held = b""

    def fill(self):
        more = self.client.recv(4096)
        if not more:
            raise ConnectionError("closed")
        self.held += more

    def until(self, end):
        while end not in self.held:
            self.fill()
        found, self.held = self.held.split(end, 1)
        return found

    def drop(self, count, keep):
        """Passes `count` bytes over; returns the first of them, at most `keep`."""
        while len(self.held) < min(keep, count):
            self.fill()
        first = self.held[: min(keep, count)]
        held = min(len(self.held), count)
        self.held = self.held[held:]
        count -= held
        while count > 0:
            got = self.client.recv_into(SCRATCH, min(count, len(SCRATCH)), socket.MSG_TRUNC)
            if not got:
                raise ConnectionError("closed")
            count -= got
        return first


SCRATCH = bytearray(1 << 20)


def serve_one(client):
    """One connection, request after request."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = Wire(client)
    try:
        while True:
            lines = wire.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
            first, length = read_body(wire, headers)
            boundary = headers.get("content-type", "").partition("boundary=")[2].strip('"')
            # Two parts: metadata, media. What is not media is two heads and the closing boundary.
            heads = first.split(b"\r\n\r\n", 2)
            media = length - len(heads[0]) - len(heads[1]) - 8 - len(boundary) - 8 if len(heads) == 3 else 0
            answer = {"kind": "storage#object", "bucket": "bench", "name": "x", "generation": "1", "size": str(media)}
            body = json.dumps(answer).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
    except (ConnectionError, OSError):
        client.close()


def read_body(wire, headers):
    """The first bytes of a body, and its length."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        length = int(headers.get("content-length", 0))
        return wire.drop(length, 16384), length
    first, length = b"", 0
    while True:
        size = int(wire.until(b"\r\n"), 16)
        first += wire.drop(size, max(0, min(size, 16384 - len(first))))
        length += size
        wire.until(b"\r\n")
        if size == 0:
            return first, length


# ---- footage ----

@dataclass
class Footage:
    """H.264 as a camera sends it, and the same in containers, all of about `size` bytes."""

    h264: Path
    flv: Path
    ts: Path


def run(line, env=None, **more):
    subprocess.run(["gst-launch-1.0", "-q", *shlex.split(line)], check=True, env=env, **more)


def footage(work, name, kbps, width, height, frames, megabytes):
    """Encodes `frames` once and repeats them up to the size wanted."""
    made = [work / f"{name}-{megabytes}.{ext}" for ext in ("h264", "flv", "ts")]
    if not all(path.exists() for path in made):
        print(f"making {megabytes} MB of footage ({name}) …", flush=True)
        clip = work / f"{name}-clip.h264"
        run(
            f"videotestsrc pattern=snow num-buffers={frames} ! video/x-raw,format=I420,width={width},height={height},framerate={FPS}/1"
            f" ! x264enc tune=zerolatency speed-preset=ultrafast bitrate={kbps} vbv-buf-capacity=200 key-int-max=50 qp-min=1"
            f" ! video/x-h264,stream-format=byte-stream ! filesink location={clip}"
        )
        data = clip.read_bytes()
        unfinished = [path.with_suffix(".part") for path in made]
        with open(unfinished[0], "wb") as out:
            for _ in range(max(1, round(megabytes * 1e6 / len(data)))):
                out.write(data)
        os.rename(unfinished[0], made[0])
        source = f"filesrc location={made[0]} blocksize=65536 ! h264parse config-interval=-1"
        for path, muxer in ((made[1], "flvmux streamable=true"), (made[2], "mpegtsmux")):
            run(f"{source} ! {muxer} ! filesink location={path.with_suffix('.part')}")
            os.rename(path.with_suffix(".part"), path)
    return Footage(*made)


# ---- measuring ----

@dataclass
class Cost:
    """What a process has used."""

    cpu: float
    wall: float
    peak_kib: int
    samples: list  # of resident memory, KiB, one a second


def measure(line, env, core=None):
    """Runs gst-launch to its end."""
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    began = time.monotonic()
    process = subprocess.Popen(["gst-launch-1.0", "-q", *shlex.split(line)], env=env, preexec_fn=pin)
    peak, samples = 0, []
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        # VmHWM and not ru_maxrss: the latter counts what this script had at the fork.
        text = Path(f"/proc/{process.pid}/status").read_text()
        values = dict(row.split(":", 1) for row in text.splitlines() if row.startswith("Vm"))
        if "VmHWM" in values:
            peak = max(peak, int(values["VmHWM"].split()[0]))
            if time.monotonic() - began >= len(samples):
                samples.append(int(values["VmRSS"].split()[0]))
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"the line ended with status {process.returncode}: {line}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began, peak, samples)


def sinks(device):
    """The sink measured against, and ours."""
    return "filesink location=/dev/null", f"gcssink max-bytes-per-second=0 max-requests-per-second=0 bucket=bench device-id={device}"


def verdict(met):
    return "met" if met else "MISSED"


def measure_cpu(args, env):
    """CPU of lines with gcssink over the same lines with filesink."""
    camera = footage(args.work, "camera", 4000, 640, 360, 25 * 40, args.mb)
    # flvdemux in front, since h264parse over raw bytes costs several times what is measured here.
    lines = {
        "flvdemux ! flvmux streamable=true": (camera.flv, "filesrc location={} blocksize=65536 ! flvdemux ! flvmux streamable=true"),
        "flvdemux ! h264parse ! mpegtsmux": (camera.flv, "filesrc location={} blocksize=65536 ! flvdemux ! h264parse ! mpegtsmux"),
        "filesrc of FLV, 64 KiB": (camera.flv, "filesrc location={} blocksize=65536"),
        "filesrc of FLV, 4 KiB (its default)": (camera.flv, "filesrc location={}"),
        "filesrc of TS, 64 KiB": (camera.ts, "filesrc location={} blocksize=65536"),
    }
    print(f"\n## CPU-seconds for each GB ({args.runs} runs of {args.mb} MB, medians; range of the differences)\n")
    print("| line | filesink | gcssink | difference | target 0.5 |\n|---|---:|---:|---:|---|")
    for name, (path, line) in lines.items():
        gigabytes = path.stat().st_size / 1e9
        costs = {sink: [] for sink in sinks("cpu")}
        for _ in range(args.runs):
            for sink, seen in costs.items():
                # On one core: a muxer's threads wake each other for every buffer, and what that costs is luck on two.
                seen.append(measure(f"{line.format(path)} ! {sink}", env, core=0).cpu / gigabytes)
        plain, ours = map(statistics.median, costs.values())
        differences = [b - a for a, b in zip(*costs.values())]
        between = f"{min(differences):.2f} to {max(differences):.2f}"
        print(f"| `{name}` | {plain:.2f} | {ours:.2f} | {ours - plain:.2f} ({between}) | {verdict(ours - plain <= CPU_TARGET)} |", flush=True)


def measure_core(args, env):
    """The process on one core, the storage on another."""
    camera = footage(args.work, "camera", 4000, 640, 360, 25 * 40, args.mb)
    print(f"\n## One core, unlimited ({args.runs} runs of {args.mb} MB, medians)\n")
    print("| line into gcssink | MB/s of wall clock | MB for each CPU-second | target 400 |\n|---|---:|---:|---|")
    rows = {
        "filesrc of FLV, 64 KiB": (camera.flv, "filesrc location={} blocksize=65536"),
        "filesrc of TS, 64 KiB": (camera.ts, "filesrc location={} blocksize=65536"),
        "flvdemux ! flvmux": (camera.flv, "filesrc location={} blocksize=65536 ! flvdemux ! flvmux streamable=true"),
    }
    for name, (path, line) in rows.items():
        megabytes = path.stat().st_size / 1e6
        runs = [measure(f"{line.format(path)} ! {sinks('core')[1]}", env, core=0) for _ in range(args.runs)]
        wall = megabytes / statistics.median(r.wall for r in runs)
        cpu = megabytes / statistics.median(r.cpu for r in runs)
        print(f"| `{name}` | {wall:.0f} | {cpu:.0f} | {verdict(cpu >= CORE_TARGET)} (by CPU) |", flush=True)


def measure_memory(args, env):
    """Peak memory at 60 Mbit/s, paced by the clock."""
    size = PACED_MBIT * args.seconds // 8
    heavy = footage(args.work, "heavy", PACED_MBIT * 1000, 1280, 720, 25 * 8, size)
    line = f"filesrc location={heavy.h264} blocksize=65536 ! h264parse ! flvmux streamable=true ! clocksync"
    plain, ours = (measure(f"{line} ! {sink}", env) for sink in sinks("memory"))
    rate = heavy.h264.stat().st_size * 8 / 1e6 / ours.wall
    over = (ours.peak_kib - plain.peak_kib) / 1024
    print(f"\n## Memory at {rate:.0f} Mbit/s for {ours.wall:.0f} s\n")
    print("| sink | peak MiB | resident MiB at 1/4, 2/4, 3/4 of the time, and last |\n|---|---:|---|")
    for name, cost in (("filesink", plain), ("gcssink", ours)):
        at = [cost.samples[min(len(cost.samples) - 1, len(cost.samples) * i // 4)] / 1024 for i in (1, 2, 3, 4)]
        print(f"| {name} | {cost.peak_kib / 1024:.1f} | {', '.join(f'{mib:.1f}' for mib in at)} |")
    half = len(ours.samples) // 2
    first, second = max(ours.samples[:half]) / 1024, max(ours.samples[half:]) / 1024
    print(f"\nOver filesink: {over:.1f} MiB, target {MEMORY_TARGET}: {verdict(over <= MEMORY_TARGET)}.", end=" ")
    print(f"Highest sample of the first half of the time: {first:.1f} MiB, of the second: {second:.1f} MiB.")


def plugin_folder():
    """Builds the release plugin; where it is."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--lib"], cwd=ROOT, check=True)
    metadata = subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT)
    return Path(json.loads(metadata)["target_directory"]) / "release"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="cpu, core, memory; all of them by default")
    parser.add_argument("--mb", type=int, default=1000, help="size of the streams for cpu and core")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=90, help="length of the stream for memory")
    parser.add_argument("--plugin-dir", type=Path, help="where libgstgcstreamer.so is; without it, it is built")
    parser.add_argument("--work", type=Path, help="where the footage is kept (some GB)")
    parser.add_argument("--endpoint", help="another storage with a bucket `bench`, instead of the one that keeps nothing")
    args = parser.parse_args()
    measures = {"cpu": measure_cpu, "core": measure_core, "memory": measure_memory}
    for what in args.what:
        if what not in measures:
            parser.error(f"{what} is none of {', '.join(measures)}")
    plugins = (args.plugin_dir or plugin_folder()).resolve()
    args.work = (args.work or plugins.parent / "bench-line").resolve()
    args.work.mkdir(parents=True, exist_ok=True)

    ours, theirs = Pipe()
    server = Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(server.pid, os.sched_getaffinity(0) - {0})
    env = {
        **os.environ,
        "GST_PLUGIN_PATH": str(plugins),
        "GST_REGISTRY": str(args.work / "registry.bin"),
        "STORAGE_EMULATOR_HOST": args.endpoint or f"http://127.0.0.1:{ours.recv()}",
    }
    env["no_proxy"] = env["NO_PROXY"] = "127.0.0.1,localhost"
    # Fills the registry, so that no measured run does; not --exists, which compares versions with GStreamer's own.
    subprocess.run(["gst-inspect-1.0", "gcssink"], env=env, check=True, stdout=subprocess.DEVNULL)
    for what in args.what or measures:
        measures[what](args, env)


if __name__ == "__main__":
    main()
