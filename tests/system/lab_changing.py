"""Workers whose slowness is changed while they run, and a server whose lines are kept with their times."""
import os
import re
import signal
import threading
import time

from lab import Cluster, Worker
from server import Server


class Changing:
    """A cluster of workers that take `factor` times as long, until told otherwise."""

    def __init__(self, count, factor, extra):
        self.cluster = Cluster(0)
        for i in range(count):
            self.set(i, factor)
            self.cluster.workers.append(Worker(self.cluster.folder, f"w{i}", [self.cluster.public_key],
                                               env={"BRIGADE_TEST_SLOWDOWN": "@" + self.path(i)}))
        self.cluster.write(extra)

    def path(self, i):
        return os.path.join(self.cluster.folder, f"w{i}.factor")

    def set(self, i, factor):
        with open(self.path(i) + ".new", "w") as f:
            f.write(str(min(1000, factor)))
        os.rename(self.path(i) + ".new", self.path(i))


class Watched(Server):
    """A server whose lines on stderr are kept with the time at which they came."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.lines = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    def told(self, pattern, since, seconds=20):
        """Seconds from `since` to the first line after it that matches, and the line."""
        until = time.monotonic() + seconds
        while True:
            for at, line in list(self.lines):
                if at >= since and re.search(pattern, line):
                    return at - since, line
            assert time.monotonic() < until, f"nothing like {pattern!r} in {[line for _, line in self.lines]}"
            time.sleep(0.02)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0
        self.reader.join()
