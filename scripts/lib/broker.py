"""mosquitto on loopback, and what a client that is not ours (mosquitto_sub) sees of a device."""
import shutil
import subprocess
import time
from emulator import free_port

# Where Debian puts it is on root's path only.
PLACES = ("mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto")


class Broker:
    """A running broker and a watcher of one device's topics. `stop` ends both."""

    def __init__(self, work, prefix):
        binary = next(filter(None, map(shutil.which, PLACES)), None)
        if binary is None:
            raise RuntimeError("mosquitto is not installed")
        self.port = free_port()
        self.prefix = prefix
        self.log_path = work / "broker.log"
        self.seen_path = work / "topics.log"
        config = work / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.process = self._spawn([binary, "-c", str(config)], self.log_path)
        self.watcher = None
        try:
            self._watch()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def _spawn(command, log_path):
        with open(log_path, "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _watch(self, timeout=10.0):
        """The watcher is there when it sees a message of its own."""
        topics = ("availability", "state", "demo")
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.port), "-F", "%t %p"]
        for topic in topics:
            command += ["-t", f"{self.prefix}/{topic}"]
        publish = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-t", f"{self.prefix}/demo", "-m", "ready"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the broker ended with status {self.process.returncode}")
            if self.watcher is None or self.watcher.poll() is not None:
                self.watcher = self._spawn(command, self.seen_path)
            subprocess.run(publish, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            time.sleep(0.2)
            if "/demo ready" in self.seen_path.read_text(errors="replace"):
                return
        raise RuntimeError(f"the broker did not answer within {timeout:.0f} s")

    def seen(self):
        """(topic below the device, payload) as they came, the device's own only."""
        rows = []
        for row in self.seen_path.read_text(errors="replace").splitlines():
            topic, _, payload = row.partition(" ")
            name = topic.removeprefix(self.prefix + "/")
            if name in ("availability", "state") and topic != name:
                rows.append((name, payload))
        return rows

    def stop(self):
        """Ends both by their own process ids."""
        for process in (self.watcher, self.process):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
