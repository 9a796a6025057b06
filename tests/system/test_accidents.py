"""What happens to boards and wires while eight streams run, in network namespaces: boards killed and frozen, a plug pulled,
a wire that crawls, two boards that no longer reach each other, a disk that is full. Every stream says what it would have
said. As root only.

BRIGADE_ACCIDENT_ROUNDS=40 runs that many rounds instead of the few of every day; BRIGADE_RECOVERY_SEED repeats one. Recovery
times are reported.
"""
import concurrent.futures
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

from lab import MODEL, THIN, main, patience, slowdown, temporary_folder
from lab_network import BUILD, Bed, inside, need_lab
from lab_streams import STREAMS, settle, stream_text, undisturbed, with_stage
from server import Server

LONG = 3  # seconds of a recovery, above which all is told
NAMES = ["w0", "w1", "w2", "w3"]
RESERVE = 64 << 20  # what a worker leaves free on its disk
DISK = 3  # the node without a model file, whose disk is small


@contextlib.contextmanager
def small_disk(bytes_there):
    """A file system of its own, of this size: for a worker's cache."""
    folder = temporary_folder()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={bytes_there}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder])


class Accidents:
    """What may happen; each is over, and everything there again, when it returns."""

    def __init__(self, bed, dice, disk, server):
        self.bed, self.dice, self.disk, self.server = bed, dice, disk, server
        self.coordinator = len(NAMES)

    def others(self, i):
        return [j for j in range(len(NAMES) + 1) if j != i]

    def kill(self, i):
        self.bed.workers[i].kill()
        time.sleep(self.dice.uniform(0, 0.8))
        self.bed.restart(i)

    def freeze(self, i):
        self.bed.workers[i].send_signal(signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.05, 2.5))
        self.bed.workers[i].send_signal(signal.SIGCONT)

    def unplug(self, i):
        for j in self.others(i):
            self.bed.cut(i, j)
        time.sleep(self.dice.uniform(0.1, 3))
        for j in self.others(i):
            self.bed.join(i, j)

    def slow_wire(self, i):
        rate = self.dice.choice(["100kbit", "400kbit", "2Mbit"])
        for j in self.others(i):
            self.bed.slow(i, j, rate)
        time.sleep(self.dice.uniform(0.5, 2.5))
        for j in self.others(i):
            self.bed.slow(i, j, None)

    def part(self, i):
        """Two boards no longer reach each other; the coordinator reaches both."""
        j = self.dice.choice([j for j in self.others(i) if j != self.coordinator])
        self.bed.cut(i, j)
        time.sleep(self.dice.uniform(0.5, 5))
        self.bed.join(i, j)

    def fill_disk(self, i):
        """The disk of the board without a model file is full when it is to take up blocks."""
        self.bed.workers[DISK].kill()
        self.bed.workers[DISK].wait()
        for name in os.listdir(self.disk):
            path = os.path.join(self.disk, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        room = shutil.disk_usage(self.disk).free
        with open(os.path.join(self.disk, "full"), "wb") as f:
            f.write(b"\0" * max(0, room - self.dice.choice([0, 1 << 19, RESERVE, RESERVE + (1 << 20)])))
        self.bed.restart(DISK)
        time.sleep(self.dice.uniform(0.2, 1))
        if i != DISK:
            self.kill(i)
        os.unlink(os.path.join(self.disk, "full"))


def document(disk):
    nodes = {name: {"throttle": slowdown(20)} for name in NAMES}
    nodes[NAMES[DISK]].update(models=os.path.join(disk, "none"), cache=disk)
    return {"version": 1, "nodes": [{"name": name} for name in NAMES], "recovery": {"rejoin": "60s"}, "testbed": {"nodes": nodes}}


def one_round(server, accidents, kind, victim, want, told):
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream_text, server, i) for i in range(STREAMS)]
        time.sleep(accidents.dice.uniform(0.1, 1.0))
        kind(victim)
        for i, stream in enumerate(streams):
            text = stream.result(patience())
            assert text == want[i], f"{told}, stream {i}: {text!r} is not {want[i]!r}"
    settle(server, len(NAMES))


def test_streams_survive_accidents():
    need_lab()
    rounds = int(os.environ.get("BRIGADE_ACCIDENT_ROUNDS") or ("2" if THIN else "7"))
    seed = int(os.environ.get("BRIGADE_RECOVERY_SEED", "0")) or int(time.time())
    want = undisturbed()
    told = {}
    with small_disk("96m") as disk, Bed(document(disk), BUILD, [os.path.dirname(MODEL)]) as bed, inside(bed.space(len(NAMES))):
        server = Server("-c", bed.config, "--stages", 3)
        try:
            for number in range(rounds):
                dice = random.Random(seed + number)
                accidents = Accidents(bed, dice, disk, server)
                kinds = [accidents.kill, accidents.unplug, accidents.freeze, accidents.part, accidents.fill_disk, accidents.slow_wire]
                kind = kinds[number % len(kinds)] if number < len(kinds) else dice.choice(kinds)  # each of them once
                needed = with_stage(server, NAMES)
                victim = dice.choice(needed) if not number or dice.random() < 0.7 else dice.randrange(len(NAMES))
                told[kind.__name__] = told.get(kind.__name__, 0) + 1
                server.lines.append((time.monotonic(), f"-- round {number}: {kind.__name__} {NAMES[victim]}\n"))
                one_round(server, accidents, kind, victim, want, f"seed {seed}, round {number} ({kind.__name__} {NAMES[victim]})")
            server.settle()
        except BaseException:
            print(f"seed {seed}, round {number} ({kind.__name__} {NAMES[victim]})")
            raise
        log = server.stop()
    took = sorted(map(float, re.findall(r"works again after ([0-9.]+) s", log)))
    assert took, log
    if took[-1] > LONG:
        print(f"seed {seed}: a recovery took {took[-1]:.2f} s:\n{log}")
    print(f"     {rounds} rounds ({', '.join(f'{n} {k}' for k, n in sorted(told.items()))}), {len(took)} recoveries: "
          f"median {took[len(took) // 2]:.2f} s, worst {took[-1]:.2f} s")


if __name__ == "__main__":
    main(globals())
