#!/usr/bin/env python3
"""Flow control and outages, seen from the server: every figure is of bytes that have arrived.

- limits: how much of max-bytes-per-second is used while there is a backlog, and the worst second
- outage: the server is gone until 1 GB waits in the spool; how fast that comes when it is back

The stream is one file, pushed as fast as the sink takes it. Storage is a server on loopback that throws everything away.

usage: benches/flow.py [limits] [outage] [--seconds N] [--runs N] [--mb N] [--plugin-dir DIR] [--work DIR]
"""
import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common.lines import alone, environment, footage, load, run
from common.storage import Storage

LIMITS = (1_000_000, 5_000_000, 20_000_000)  # bytes a second
USED_TARGET = 0.97  # at the highest limit
LARGEST_PIECE = 256 << 10  # a piece is a tenth of a second of the limit, and at most this: src/flow/bucket.rs


def worst_second(arrivals):
    """Most bytes that arrived in any second."""
    most = held = first = 0
    for at, count in arrivals:
        held += count
        while arrivals[first][0] <= at - 1:
            held -= arrivals[first][1]
            first += 1
        most = max(most, held)
    return most


def verdict(met):
    return "met" if met else "MISSED"


def measure_limits(args, env, storage):
    """A backlog at each limit."""
    camera = footage(args.work, "camera", 4000, 640, 360, 25 * 40, args.mb)
    print(f"\n## Limits, with a backlog all the time ({args.runs} runs of {args.seconds} s each; {load()})\n")
    print("| limit, bytes/s | arrived | used | in silences of two pieces and more | worst second | over the limit, in pieces | target |\n|---:|---:|---:|---:|---:|---:|---|")
    for limit in LIMITS * args.runs:
        piece = min(limit // 10, LARGEST_PIECE)
        storage.arrivals()
        run(
            f"filesrc location={camera.flv} blocksize=65536 num-buffers={limit * args.seconds // 65536} ! gcssink bucket=bench"
            f" device-id=limit max-bytes-per-second={limit} drain-timeout=3600000000000",
            env,
            preexec_fn=lambda: alone(None),
        )
        arrivals = storage.arrivals()
        # Not the last moments: there is no backlog any more, and uploads end one by one.
        first, last = arrivals[0][0], arrivals[-1][0]
        steady = [(at, count) for at, count in arrivals if first + 1 <= at < last - 2]
        used = sum(count for _, count in steady) / (last - first - 3) / limit
        worst = worst_second(arrivals)
        over = (worst - limit) / piece
        silent = sum(b - a for (a, _), (b, _) in zip(steady, steady[1:]) if b - a > 2 * piece / limit)
        met = over <= 1.0 and (used >= USED_TARGET or limit != LIMITS[-1])
        row = f"{sum(count for _, count in arrivals) / 1e6:.0f} MB | {used * 100:.2f} % | {silent:.2f} s | {worst:,} | {over:+.2f}"
        print(f"| {limit:,} | {row} | {verdict(met)} |", flush=True)


def spooled(folder):
    """Bytes in the files of a spool."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_outage(args, env, storage):
    """A backlog on disk, and the server comes back."""
    camera = footage(args.work, "camera", 4000, 640, 360, 25 * 40, args.mb)
    size = camera.flv.stat().st_size
    print(f"\n## After an outage: {size / 1e6:.0f} MB wait in the spool ({load()})\n")
    print("| spool-mode | limit, bytes/s | first byte after | then backlog gone after | MB/s | of the limit | worst second |\n|---|---:|---:|---:|---:|---:|---:|")
    folder = args.work / "outage-spool"
    for mode, limit in (("always", 20_000_000), ("overflow", 20_000_000), ("always", 0), ("overflow", 0)):
        shutil.rmtree(folder, ignore_errors=True)
        storage.up.value = False
        line = (
            f"fdsrc fd=0 blocksize=65536 ! gcssink bucket=bench device-id=outage spool-dir={folder} spool-mode={mode}"
            f" max-bytes-per-second={limit} max-requests-per-second={10 if limit else 0}"
        )
        process = subprocess.Popen(["gst-launch-1.0", "-q", *shlex.split(line)], env=env, stdin=subprocess.PIPE, preexec_fn=lambda: alone(None))
        with open(camera.flv, "rb") as stream:
            shutil.copyfileobj(stream, process.stdin, 1 << 20)
        # The outage goes on for as long as it takes to make the attempts rare, and all but what memory holds is on disk.
        time.sleep(args.outage)
        held = spooled(folder)
        storage.arrivals()
        storage.up.value = True
        back, arrivals, quiet = time.time(), [], 0
        while quiet < 8 or not arrivals:
            time.sleep(1)
            more = storage.arrivals()
            arrivals += more
            quiet = 0 if more else quiet + 1
            if process.poll() is not None:
                sys.exit(f"gst-launch ended with status {process.returncode}")
        process.stdin.close()
        process.wait()
        took = arrivals[-1][0] - arrivals[0][0]
        rate = sum(count for _, count in arrivals) / took
        share = f"{rate / limit * 100:.1f} %" if limit else ""
        print(
            f"| {mode} ({held / 1e6:.0f} MB on disk) | {limit:,} | {arrivals[0][0] - back:.1f} s | {took:.1f} s | {rate / 1e6:.1f}"
            f" | {share} | {worst_second(arrivals):,} |",
            flush=True,
        )
    shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="limits, outage; both by default")
    parser.add_argument("--seconds", type=int, default=30, help="how long each limit is measured")
    parser.add_argument("--runs", type=int, default=1, help="of the limits")
    parser.add_argument("--outage", type=int, default=20, help="seconds that the server stays away once all has been recorded")
    parser.add_argument("--mb", type=int, default=1000, help="size of the stream; limits need seconds times 20")
    parser.add_argument("--plugin-dir", type=Path, help="where libgstgcstreamer.so is; without it, it is built")
    parser.add_argument("--work", type=Path, help="where footage and spool are kept (some GB)")
    args = parser.parse_args()
    measures = {"limits": measure_limits, "outage": measure_outage}
    for what in args.what:
        if what not in measures:
            parser.error(f"{what} is none of {', '.join(measures)}")
    storage = Storage(notes=True)
    env = environment(args, storage.endpoint)
    for what in args.what or measures:
        measures[what](args, env, storage)


if __name__ == "__main__":
    main()
