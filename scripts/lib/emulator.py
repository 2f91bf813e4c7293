"""fake-gcs-server on loopback, and the few calls of Cloud Storage's JSON API that the demo makes of it."""
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request


class Emulator:
    """A running emulator with its objects in memory. `stop` ends it."""

    def __init__(self, binary, log_path):
        self.log_path = log_path
        # Loopback is never reached through a proxy, whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for attempt in range(3):  # somebody else may take the free port before the emulator does
            port = free_port()
            self.endpoint = f"http://127.0.0.1:{port}"
            command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-log-level", "warn"]
            command += ["-public-host", f"127.0.0.1:{port}", "-external-url", self.endpoint]
            with open(log_path, "ab") as log:
                self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                self._wait_until_ready()
                return
            except BaseException as error:
                self.stop()
                if attempt == 2 or not isinstance(error, RuntimeError):
                    raise

    def _wait_until_ready(self, timeout=20.0):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the storage emulator ended with status {self.process.returncode}")
            try:
                self._json("/storage/v1/b?project=demo")
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError(f"the storage emulator does not answer on {self.endpoint} after {timeout:.0f} s")

    def create_bucket(self, name):
        """Makes the bucket; the emulator starts with none."""
        body = json.dumps({"name": name}).encode()
        self._json("/storage/v1/b?project=demo", body)

    def objects(self, bucket):
        """The resources of all objects of the bucket, in the order of their names."""
        found, token = [], ""
        while True:
            query = urllib.parse.urlencode({"pageToken": token} if token else {})
            page = self._json(f"/storage/v1/b/{bucket}/o?{query}")
            found += page.get("items", [])
            token = page.get("nextPageToken", "")
            if not token:
                return sorted(found, key=lambda item: item["name"])

    def download(self, bucket, name):
        """The object's bytes."""
        return self._get(f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media")

    def stop(self):
        """Ends the emulator, by its own process id."""
        end(self.process)

    def _json(self, path, body=None):
        return json.loads(self._get(path, body) or b"{}")

    def _get(self, path, body=None):
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(self.endpoint + path, data=body, headers=headers)
        with self._opener.open(request, timeout=20) as answer:
            return answer.read()


def free_port():
    """A TCP port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process, patience=5.0):
    """SIGTERM, and SIGKILL for a child that does not listen."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
