"""Workers whose slowness is changed while they run."""
import os

from lab import Cluster, Worker


class Changing:
    """A cluster of workers that are alike and take `factor` times as long, until told otherwise."""

    def __init__(self, count, factor, extra, **options):
        self.cluster = Cluster(0, **options)
        for i in range(count):
            self.set(i, factor)
            self.cluster.workers.append(Worker(self.cluster.folder, f"w{i}", [self.cluster.public_key],
                                               env={"BRIGADE_TEST_SLOWDOWN": "@" + self.path(i)}))
            if not i:
                self.cluster.measure_first(extra)
        self.cluster.write(extra)

    def path(self, i):
        return os.path.join(self.cluster.folder, f"w{i}.factor")

    def set(self, i, factor):
        with open(self.path(i) + ".new", "w") as f:
            f.write(str(min(1000, factor)))
        os.rename(self.path(i) + ".new", self.path(i))
