"""What the recordings of a test left in the emulator, and whether each chunk of it plays alone."""
from pathlib import Path

from judge import judge


def of_camera(storage, bucket, camera):
    """The objects of a camera."""
    return [item for item in storage.objects(bucket) if item["name"].startswith(f"{camera}/")]


def play(storage, bucket, camera, folder):
    """Judges each chunk of a camera, downloaded into `folder`; returns how many pictures there are, and the faults."""
    items, pictures, faults = of_camera(storage, bucket, camera), 0, []
    for item in items:
        path = folder / Path(item["name"]).name
        path.write_bytes(storage.download(bucket, item["name"]))
        verdict = judge(path, wants_audio=False)
        pictures += len(verdict.video_times)
        if verdict.faults:
            faults.append(f"{item['name']}: {verdict.faults}")
    print(f"{camera}: {len(items)} chunks, {pictures} pictures" + ("" if faults else ", each chunk plays"))
    return pictures, faults
