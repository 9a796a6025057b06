"""What is noticed of a worker, and when: dead, frozen and cut off are gone within the time that cluster.yaml gives; one that
crawls is slow, stays, and is well again later. Streams run meanwhile and say what they would have said.

Times are compared with the limits of cluster.yaml: noticing is a matter of deadlines, not of speed. Where the machine has
more to do, what is late by that is measured beside, and allowed.
"""
import concurrent.futures
import json
import os
import signal
import time

from lab import MODEL, THIN, Cluster, Stalls, brigade, main, patience, slowdown, slower, until
from lab_changing import Changing
from lab_network import BUILD, Bed, inside, need_lab
from lab_streams import STREAMS, nodes_of, settle, stream_text, streaming, tokens_out, undisturbed, with_stage
from server import Server

LOST = 0.8    # heartbeat: {lost: 800ms}, what it is without a word in cluster.yaml
BEAT = 0.2    # and its interval
MARGIN = 6.0  # for what a beat does not say at once, and a machine that has more to do; beside what is measured of that
YAML = "rebalance: {enabled: false}\nrecovery: {rejoin: 60s}\n"


def meanwhile(server, want, work):
    """Does `work` while eight streams run, which then are as they should be. What it returns, and by how much it may be late
    because this machine was busy."""
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        before = tokens_out(server)
        streams = [pool.submit(stream_text, server, i) for i in range(STREAMS)]
        streaming(server, before)
        try:
            with Stalls() as stalls:
                took = work()
        finally:
            texts = [stream.result(patience()) for stream in streams]
        assert texts == want, (texts, want)
    return took, 5 * stalls.longest


def test_dead_and_frozen_are_gone():
    want = undisturbed()
    cluster = Cluster(3, alike=True, env=slower(20), extra=YAML, heartbeat="")
    server = Server("-c", cluster.config, "--stages", 2)
    names = [worker.name for worker in cluster.workers]
    victim = cluster.workers[with_stage(server, names)[0]]

    def freeze():
        struck = time.monotonic()
        victim.kill(signal.SIGSTOP)
        took = server.told(f'"{victim.name}" was lost', struck)[0]
        victim.kill(signal.SIGCONT)
        return took
    took, late = meanwhile(server, want, freeze)
    assert LOST - BEAT - late <= took < LOST + BEAT + MARGIN + late, f"a frozen worker was missed after {took:.2f} s"
    print(f"     frozen: missed after {took:.2f} s")
    settle(server, 3)
    victim = cluster.workers[with_stage(server, names)[0]]

    def kill():
        struck = time.monotonic()
        victim.kill()
        return server.told(f'"{victim.name}" was lost', struck)[0]
    took, late = meanwhile(server, want, kill)
    assert took < LOST + MARGIN + late, f"a dead worker was missed after {took:.2f} s"
    print(f"     dead: missed after {took:.2f} s")
    server.stop()
    cluster.stop()


def test_cut_off_is_gone():
    need_lab()
    want = undisturbed()
    document = {"version": 1, "nodes": [{"name": name} for name in ("w0", "w1", "w2")], "recovery": {"rejoin": "60s"},
                "testbed": {"nodes": {name: {"throttle": slowdown(20)} for name in ("w0", "w1", "w2")}}}
    with Bed(document, BUILD, [os.path.dirname(MODEL)]) as bed, inside(bed.space(3)):
        server = Server("-c", bed.config, "--stages", 2)
        victim = with_stage(server, ["w0", "w1", "w2"])[0]

        def cut():
            struck = time.monotonic()
            for other in {0, 1, 2, 3} - {victim}:
                bed.cut(victim, other)
            took = server.told(f'"w{victim}" was lost', struck)[0]
            for other in {0, 1, 2, 3} - {victim}:
                bed.join(victim, other)
            return took
        took, late = meanwhile(server, want, cut)
        assert took < LOST + BEAT + MARGIN + late, f"a worker that was cut off was missed after {took:.2f} s"
        print(f"     cut off: missed after {took:.2f} s")
        settle(server, 3)
        server.stop()


def detail(server, name):
    return next(node["detail"] for node in nodes_of(server) if node["name"] == name)


def looked(cluster, name):
    """What `brigade status` says, which asks the workers themselves."""
    nodes = json.loads(brigade("status", "-c", cluster.config, "--json").stdout)["nodes"]
    return next(node["detail"] for node in nodes if node["name"] == name)


def test_crawling_is_slow_and_stays():
    want = undisturbed()
    factor = float(slowdown(20))
    lab = Changing(3, factor, YAML, heartbeat="")
    server = Server("-c", lab.cluster.config, "--stages", 2)
    names = [worker.name for worker in lab.cluster.workers]
    victim = with_stage(server, names)[1]
    name = names[victim]
    # Profiles that were measured while other instrumented programs had the cores say too much: slow is three times of that.
    times = 24 if THIN else 8

    def crawl():
        struck = time.monotonic()
        lab.set(victim, factor * times)
        took = server.told(f'"{name}" is slow: .*it answers', struck)[0]
        assert detail(server, name) == "slow", nodes_of(server)
        until(lambda: looked(lab.cluster, name) == "slow")  # the worker hears of it with the next heartbeat
        lab.set(victim, factor)
        back = time.monotonic()
        server.told(f'"{name}" is no longer slow', back)
        assert detail(server, name) == "", nodes_of(server)
        return took
    took, late = meanwhile(server, want, crawl)
    print(f"     {times} times as slow: said after {took:.2f} s")
    assert took < 2 + MARGIN + late, f"a crawling worker was noticed after {took:.2f} s"

    if THIN:  # a hundred times of what is slow by itself would take minutes
        server.stop()
        lab.cluster.stop()
        return

    def nearly_stand():
        """One micro-batch that does not end for seconds."""
        struck = time.monotonic()
        lab.set(victim, factor * 100)
        took = server.told(f'"{name}" is slow', struck)[0]
        lab.set(victim, factor)
        return took
    took, late = meanwhile(server, want, nearly_stand)
    print(f"     hundred times as slow: said after {took:.2f} s")
    assert took < 2 + MARGIN + late, f"a worker that nearly stands was noticed after {took:.2f} s"
    assert server.metrics()["brigade_recoveries_total"] == 0
    assert "was lost" not in server.errors(), server.errors()
    server.stop()
    lab.cluster.stop()


if __name__ == "__main__":
    main(globals())
