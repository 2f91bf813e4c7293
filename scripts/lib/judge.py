"""Judges one stored chunk with ffprobe and ffmpeg, which know nothing of this project: does it play alone?"""
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Verdict:
    """What the judge saw in a chunk; `faults` is empty where it plays from its first frame to its last."""

    video_times: list = field(default_factory=list)
    audio_frames: int = 0
    faults: list = field(default_factory=list)


def judge(path: Path, wants_audio: bool = True) -> Verdict:
    """Decodes the whole file twice: by ffprobe for its frames, by ffmpeg as a player would. Any message is a fault."""
    verdict = Verdict()
    entries = "frame=media_type,key_frame,pts_time"
    probe = _run(["ffprobe", "-v", "warning", "-show_frames", "-show_entries", entries, "-of", "json", path])
    _note(verdict, "ffprobe", probe)
    try:
        frames = json.loads(probe.stdout or "{}").get("frames", [])
    except json.JSONDecodeError:
        frames = []
        verdict.faults.append("ffprobe gave no readable answer")
    video = [frame for frame in frames if frame.get("media_type") == "video"]
    verdict.video_times = [float(frame["pts_time"]) for frame in video if "pts_time" in frame]
    verdict.audio_frames = sum(frame.get("media_type") == "audio" for frame in frames)
    if not video:
        verdict.faults.append("no video frame decodes")
    elif video[0].get("key_frame") != 1:
        verdict.faults.append("the first video frame is not a key frame")
    if wants_audio and not verdict.audio_frames:
        verdict.faults.append("no audio frame decodes")
    play = ["ffmpeg", "-nostdin", "-v", "warning", "-i", path, "-fps_mode", "vfr", "-f", "null", "-"]
    _note(verdict, "ffmpeg", _run(play))
    return verdict


def _run(command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace", timeout=120, check=False)


def _note(verdict, name, result):
    if result.returncode != 0:
        verdict.faults.append(f"{name} ended with status {result.returncode}")
    # Frames that share a time after jitter on the way are the null muxer's complaint, not the decoder's.
    lines = [line for line in result.stderr.splitlines() if line.strip() and "non monotonically increasing dts to muxer" not in line]
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        verdict.faults.append(f"{name} says: {lines[0].strip()}{more}")
