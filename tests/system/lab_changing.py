"""Workers whose slowness is changed while they run."""
import os

from lab import MODEL, Cluster, Worker, brigade_json


class Changing:
    """A cluster of workers that take `factor` times as long, until told otherwise. The first is measured alone, and the others
    know its profile: boards that differ by what else the machine did meanwhile would not be planned alike."""

    def __init__(self, count, factor, extra):
        self.cluster = Cluster(0)
        for i in range(count):
            self.set(i, factor)
            self.cluster.workers.append(Worker(self.cluster.folder, f"w{i}", [self.cluster.public_key],
                                               env={"BRIGADE_TEST_SLOWDOWN": "@" + self.path(i)}))
            if not i:
                self.cluster.write(extra)
                brigade_json("plan", "-c", self.cluster.config, "-m", MODEL)
                self.cluster.workers[0].share_profiles()
        self.cluster.write(extra)

    def path(self, i):
        return os.path.join(self.cluster.folder, f"w{i}.factor")

    def set(self, i, factor):
        with open(self.path(i) + ".new", "w") as f:
            f.write(str(min(1000, factor)))
        os.rename(self.path(i) + ".new", self.path(i))
