"""Launch lines measured from outside: their footage, and what gst-launch used."""
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FPS = 25


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


def alone(core):
    """In a process to be measured: on that core, and before all others where we may."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        os.nice(-10)
    except PermissionError:
        pass


@dataclass
class Cost:
    """What a process has used."""

    cpu: float
    wall: float
    peak_kib: int
    samples: list  # of resident memory, KiB, one a second


def measure(line, env, core=None):
    """Runs gst-launch to its end."""
    command = ["gst-launch-1.0", "-q", *shlex.split(line)]
    began = time.monotonic()
    process = subprocess.Popen(command, env=env, preexec_fn=lambda: alone(core))
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
        sys.exit(f"ended with status {process.returncode}: {' '.join(command)}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began, peak, samples)


# ---- what is measured ----

def plugin_folder():
    """Builds the release plugin; where it is."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--lib"], cwd=ROOT, check=True)
    metadata = subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT)
    return Path(json.loads(metadata)["target_directory"]) / "release"


def bench_binary(name):
    """Builds a bench; where its binary is."""
    command = ["cargo", "bench", "--locked", "--no-run", "--bench", name, "--message-format=json"]
    lines = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    built = [json.loads(line).get("executable") for line in lines if line.startswith("{")]
    return [path for path in built if path][-1]


def environment(args, endpoint):
    """Of a gst-launch that finds the plugin and the storage."""
    plugins = (args.plugin_dir or plugin_folder()).resolve()
    args.work = (args.work or plugins.parent / "bench-line").resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    env = {
        **os.environ,
        "GST_PLUGIN_PATH": str(plugins),
        "GST_REGISTRY": str(args.work / "registry.bin"),
        "STORAGE_EMULATOR_HOST": endpoint,
    }
    env["no_proxy"] = env["NO_PROXY"] = "127.0.0.1,localhost"
    # Fills the registry, so that no measured run does; not --exists, which compares versions with GStreamer's own.
    subprocess.run(["gst-inspect-1.0", "gcssink"], env=env, check=True, stdout=subprocess.DEVNULL)
    return env


def unlimited(device, more=""):
    """A gcssink without limits."""
    return f"gcssink max-bytes-per-second=0 max-requests-per-second=0 bucket=bench device-id={device} {more}"


def load():
    """What else the machine is doing."""
    return f"load {os.getloadavg()[0]:.1f}"
