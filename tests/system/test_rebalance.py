"""Blocks that move while streams run: by themselves when a worker has become slow, back when the move made things worse, and
by hand. No stream says another word than it would have.

The damping is cluster.yaml's (30 s, 5 minutes): here it is seconds.
"""
import concurrent.futures
import json
import re
import threading
import time

from lab import THIN, SkipTest, brigade, main, patience, slowdown, until
from lab_changing import Changing
from lab_streams import STREAMS, stream_text, undisturbed, with_stage
from server import Server

FACTOR = float(slowdown(12))
DAMPED = "recovery: {rejoin: 60s}\nrebalance: {hold: 2s, apart: 10s, judge: 8s}\n"
AGAIN = r"works again after .*\((.*)\); "


class Busy:
    """Streams without end, each compared with what it must be."""

    def __init__(self, server, want):
        self.server, self.want, self.over, self.rounds = server, want, threading.Event(), 0
        self.pool = concurrent.futures.ThreadPoolExecutor(STREAMS)
        self.streams = [self.pool.submit(self.go_on, i) for i in range(STREAMS)]

    def go_on(self, i):
        while not self.over.is_set():
            text = stream_text(self.server, i)
            assert text == self.want[i], f"stream {i}: {text!r} is not {self.want[i]!r}"
            self.rounds += 1

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        self.over.set()
        if failed:
            self.server.kill()
            return
        for stream in self.streams:
            stream.result(patience())
        assert self.rounds >= STREAMS


def layout(line):
    """Blocks of each worker, from the line that tells of a recovery."""
    return {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"(\w+) (\d+)-(\d+)", re.search(AGAIN, line)[1])}


def count(blocks):
    return blocks[1] - blocks[0] + 1


def planned(server):
    """Blocks of each worker, as the server planned them first."""
    stages = json.loads(server.get("/status"))["plan"]["stages"]
    return {stage["device"]: (stage["first_block"], stage["last_block"]) for stage in stages}


def test_blocks_move_by_themselves_and_back():
    if THIN:
        raise SkipTest("where programs are slow by themselves, stages never drift far enough from the plan in this time")
    want = undisturbed()
    lab = Changing(2, FACTOR, DAMPED)
    server = Server("-c", lab.cluster.config, "--stages", 2)
    before = planned(server)
    slow = max(before, key=lambda name: count(before[name]))
    other = next(name for name in before if name != slow)
    with Busy(server, want):
        time.sleep(1)
        started = time.monotonic()
        lab.set(int(slow[1:]), FACTOR * 10)
        took, why = server.told("another plan is [0-9]+ % faster; blocks move", started)
        _, line = server.told(AGAIN, started + took)
        moved = layout(line)
        assert count(moved[slow]) < count(before[slow]), (before, line)
        print(f"     moved {took:.1f} s after {slow} became slow: {why.split('drifted: ')[-1].strip()}: {before} to {moved}")
        # The board that took the blocks becomes slower than the other one was.
        at = time.monotonic()
        lab.set(int(other[1:]), FACTOR * 25)
        lab.set(int(slow[1:]), FACTOR)
        took, _ = server.told("the move made it slower .*: blocks go back", at)
        _, line = server.told(AGAIN, at + took)
        assert layout(line) == before, (before, moved, line)
        print(f"     back {took:.1f} s after {other} became slower still")
        lab.set(int(other[1:]), FACTOR)
    server.stop()
    lab.cluster.stop()


def ask(server, *words):
    """Until blocks are not on the move already. When it was asked, and the answer."""
    asked = []

    def done():
        asked[:] = time.monotonic(), brigade(*words, "--port", server.port)
        assert asked[1].returncode == 0 or "try again in a moment" in asked[1].stderr, asked[1].stderr
        return asked[1].returncode == 0
    until(done, lambda: asked[1].stderr)
    return asked


def test_by_hand_while_streams_run():
    want = undisturbed()
    lab = Changing(3, FACTOR, "recovery: {rejoin: 60s}\nrebalance: {enabled: false}\n")
    server = Server("-c", lab.cluster.config, "--stages", 2)
    names = [worker.name for worker in lab.cluster.workers]
    with Busy(server, want):
        for _ in range(2):
            victim = with_stage(server, names)[0]
            for words in (["drain", names[victim]], ["drain", names[victim], "--undo"]):
                at = ask(server, *words)[0]
                _, line = server.told(AGAIN, at)
                if "--undo" not in words:
                    assert names[victim] not in layout(line), line
            time.sleep(0.5)
        for slow in with_stage(server, names):
            lab.set(slow, FACTOR * 8)  # the spare is the one that is well
        answer = []

        def moves():  # measured stage times need some micro-batches before they count
            time.sleep(0.3)
            answer[:] = ask(server, "rebalance", "--json")
            return json.loads(answer[1].stdout)["moves"]
        until(moves, lambda: answer[1].stdout, 240)
        server.told(AGAIN, answer[0])
    assert "was lost" not in server.errors(), server.errors()
    server.stop()
    lab.cluster.stop()


if __name__ == "__main__":
    main(globals())
