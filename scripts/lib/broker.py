"""mosquitto on loopback, and mosquitto_sub that writes down what a subscriber sees."""
import os
import shutil
import subprocess
import time

from emulator import end, free_port


class Broker:
    """A running broker and a subscriber of everything. `stop` ends both."""

    def __init__(self, work):
        self.log_path = work / "broker.log"
        self.seen_path = work / "mqtt.log"
        for attempt in range(3):  # somebody else may take the free port before the broker does
            self.port = free_port()
            config = work / "mosquitto.conf"
            config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n")
            self.process = self._start([program("mosquitto"), "-c", str(config)], self.log_path)
            # Ends at once where the broker does not listen yet: tried again until it stays.
            self.subscriber = None
            if self._subscribe():
                return
            self.stop()
        raise RuntimeError(f"mosquitto does not answer on 127.0.0.1:{self.port}; its log is {self.log_path}")

    def _subscribe(self, timeout=10.0):
        deadline = time.monotonic() + timeout
        command = [program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(self.port), "-q", "1", "-t", "gcstreamer/#", "-v"]
        while time.monotonic() < deadline and self.process.poll() is None:
            self.subscriber = self._start(command, self.seen_path)
            time.sleep(0.3)
            if self.subscriber.poll() is None:
                return True
        return False

    @staticmethod
    def _start(command, log_path):
        with open(log_path, "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)

    def seen(self):
        """Every message so far: (topic, payload)."""
        text = self.seen_path.read_text(errors="replace") if self.seen_path.exists() else ""
        # What has no end of line yet is still being written.
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [tuple(line.split(" ", 1)) for line in lines if " " in line]

    def payloads(self, topic):
        """All payloads of one topic, in order."""
        return [payload for name, payload in self.seen() if name == topic]

    def stop(self):
        """Ends both, by their own process ids."""
        for process in (self.subscriber, self.process):
            if process is not None:
                end(process)


def program(name):
    """Debian puts the broker where only root's PATH looks."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])) or name
