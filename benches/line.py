#!/usr/bin/env python3
"""Whole launch lines, measured from outside: CPU for each GB, speed of one core, peak memory.

Every line is run into `filesink location=/dev/null` and into `gcssink`; what the sink costs is the difference. Beside them
runs `benches/client.rs`: as many bytes from cold memory through the bare client crate, which is the least an upload can cost.
Storage is a server on loopback that throws everything away (its own process, its CPU is not counted), or `--endpoint URL`.
Footage is encoded once by GStreamer and kept in the work folder. Linux; needs what `scripts/setup test` installs.

- client: the bare client crate
- cpu:    lines into gcssink, and as a ratio to the bare client
- spool:  the same with chunks waiting on disk
- core:   how much one core moves
- memory: peak of a long line

usage: benches/line.py [client] [cpu] [spool] [core] [memory] [--mb N] [--runs N] [--seconds N] [--plugin-dir DIR] [--work DIR]
"""
import argparse
import shutil
import statistics
import subprocess
from pathlib import Path

from common.lines import alone, bench_binary, environment, footage, load, measure, unlimited
from common.storage import Storage

CPU_TARGET = 0.5  # CPU-seconds for each GB over the same line into filesink
CORE_TARGET = 400  # MB/s
MEMORY_TARGET = 48  # MiB over the same line into filesink
PACED_MBIT = 60


def sinks(device):
    """The sink measured against, and ours."""
    return "filesink location=/dev/null", unlimited(device)


def verdict(met):
    return "met" if met else "MISSED"


def measure_client(args, env):
    """The floor alone."""
    runs = [client(args, env) for _ in range(args.runs)]
    print(f"\n## The bare client crate ({args.runs} runs of {args.mb} MB, {load()})\n")
    between = f"{min(runs):.2f} to {max(runs):.2f}"
    print(f"{statistics.median(runs):.2f} CPU-seconds for each GB ({between}), without start and stop")


def client(args, env):
    """CPU-seconds for each GB of one run, on the core that the lines get."""
    args.client = args.client or bench_binary("client")
    command = [args.client, env["STORAGE_EMULATOR_HOST"], str(args.mb)]
    return float(subprocess.check_output(command, env=env, preexec_fn=lambda: alone(0), text=True).split()[0])


def measure_cpu(args, env):
    """CPU of lines with gcssink over the same lines with filesink, and of the client."""
    camera = footage(args.work, "camera", 4000, 640, 360, 25 * 40, args.mb)
    # flvdemux in front, since h264parse over raw bytes costs several times what is measured here.
    lines = {
        "flvdemux ! flvmux streamable=true": (camera.flv, "filesrc location={} blocksize=65536 ! flvdemux ! flvmux streamable=true"),
        "flvdemux ! h264parse ! mpegtsmux": (camera.flv, "filesrc location={} blocksize=65536 ! flvdemux ! h264parse ! mpegtsmux"),
        "filesrc of FLV, 64 KiB": (camera.flv, "filesrc location={} blocksize=65536"),
        "filesrc of FLV, 4 KiB (its default)": (camera.flv, "filesrc location={}"),
        "filesrc of TS, 64 KiB": (camera.ts, "filesrc location={} blocksize=65536"),
    }
    print(f"\n## CPU-seconds for each GB ({args.runs} runs of {args.mb} MB, medians (minima); {load()})\n")
    print("| line | filesink | gcssink | difference | bare client | difference / client | target 0.5 |\n|---|---:|---:|---:|---:|---:|---|")
    for name, (path, line) in lines.items():
        gigabytes = path.stat().st_size / 1e9
        costs = {sink: [] for sink in sinks("cpu")}
        floor = []
        for _ in range(args.runs):
            for sink, seen in costs.items():
                # On one core: a muxer's threads wake each other for every buffer, and what that costs is luck on two.
                seen.append(measure(f"{line.format(path)} ! {sink}", env, core=0).cpu / gigabytes)
            floor.append(client(args, env))
        row = [f"{statistics.median(seen):.2f} ({min(seen):.2f})" for seen in costs.values()]
        differences = [b - a for a, b in zip(*costs.values())]
        ours, least = statistics.median(differences), statistics.median(floor)
        row += [f"{ours:.2f} ({min(differences):.2f} to {max(differences):.2f})", f"{least:.2f} ({min(floor):.2f})", f"{ours / least:.2f}"]
        print(f"| `{name}` | {' | '.join(row)} | {verdict(ours <= CPU_TARGET)} |", flush=True)


def measure_spool(args, env):
    """CPU with chunks on disk, over the same line without a disk."""
    camera = footage(args.work, "camera", 4000, 640, 360, 25 * 40, args.mb)
    gigabytes = camera.flv.stat().st_size / 1e9
    folder = args.work / "spool"
    modes = {
        "no spool": "",
        "spool-mode=overflow": f"spool-dir={folder} spool-mode=overflow",
        "spool-mode=always": f"spool-dir={folder} spool-mode=always",
    }
    costs = {mode: [] for mode in modes}
    for _ in range(args.runs):
        for mode, properties in modes.items():
            sink = unlimited("spool", f"drain-timeout=600000000000 {properties}")
            cost = measure(f"filesrc location={camera.flv} blocksize=65536 ! {sink}", env, core=0)
            costs[mode].append((cost.cpu / gigabytes, gigabytes * 1000 / cost.wall))
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n## CPU-seconds for each GB with the spool ({args.runs} runs of {args.mb} MB, medians (minima); {load()})\n")
    print("| `filesrc` of FLV, 64 KiB, into gcssink | CPU-s for each GB | over no spool | MB/s of wall clock |\n|---|---:|---:|---:|")
    plain = statistics.median(cpu for cpu, _ in costs["no spool"])
    for mode, seen in costs.items():
        cpu, wall = (statistics.median(values) for values in zip(*seen))
        print(f"| {mode} | {cpu:.2f} ({min(c for c, _ in seen):.2f}) | {cpu - plain:+.2f} | {wall:.0f} |")


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="client, cpu, spool, core, memory; all of them by default")
    parser.add_argument("--mb", type=int, default=1000, help="size of the streams for cpu and core")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=90, help="length of the stream for memory")
    parser.add_argument("--plugin-dir", type=Path, help="where libgstgcstreamer.so is; without it, it is built")
    parser.add_argument("--client", help="the built bench `client`; without it, it is built")
    parser.add_argument("--work", type=Path, help="where the footage is kept (some GB)")
    parser.add_argument("--endpoint", help="another storage with a bucket `bench`, instead of the one that keeps nothing")
    args = parser.parse_args()
    measures = {
        "client": measure_client,
        "cpu": measure_cpu,
        "spool": measure_spool,
        "core": measure_core,
        "memory": measure_memory,
    }
    for what in args.what:
        if what not in measures:
            parser.error(f"{what} is none of {', '.join(measures)}")
    storage = None if args.endpoint else Storage()
    env = environment(args, args.endpoint or storage.endpoint)
    for what in args.what or measures:
        measures[what](args, env)


if __name__ == "__main__":
    main()
