"""A worker of the protocol version before (a program of its own, built from the same sources): named and refused, with both
versions in the message; boards are replaced one by one while a server runs, and no stream notices."""
import concurrent.futures
import re

import lab
from lab import MODEL, PROMPT, WORKER, Cluster, Worker, brigade, main, one_line, patience, slower, until
from lab_network import BUILD
from lab_streams import STREAMS, nodes_of, settle, stream_text, streaming, tokens_out, undisturbed
from server import Server
from testbed_lab import built

PREVIOUS = built(BUILD, "tests/system/brigade-worker-previous")
BOTH = re.compile(r"the peer speaks protocol version (\d+), this program version (\d+)")


def replace(cluster, i, program):
    """The same board with another release: same key, same port."""
    old = cluster.workers[i]
    old.stop()
    lab.WORKER = program
    try:
        cluster.workers[i] = Worker(cluster.folder, old.name, [cluster.public_key], "--listen", old.endpoint, env=slower(20))
    finally:
        lab.WORKER = WORKER


def both_versions(text):
    """The two versions that a message names, the peer's first."""
    found = BOTH.search(text)
    assert found, text
    return int(found[1]), int(found[2])


def test_a_start_names_who_is_behind():
    cluster = Cluster(3)
    replace(cluster, 1, PREVIOUS)
    line = one_line(brigade("run", "-c", cluster.config, "-m", MODEL, "-p", PROMPT, "-n", 5), 1, '"w1"', "install the same release")
    theirs, ours = both_versions(line)
    assert theirs == ours - 1, line
    theirs, ours = both_versions(cluster.workers[1].errors())  # and the worker says so in its own log
    assert ours == theirs - 1
    replace(cluster, 1, WORKER)
    done = brigade("run", "-c", cluster.config, "-m", MODEL, "-p", PROMPT, "-n", 5)
    assert done.returncode == 0, done.stderr
    cluster.stop()


def state(server, name):
    return next(node for node in nodes_of(server) if node["name"] == name)


def until_state(server, name, *states):
    until(lambda: state(server, name)["state"] in states, lambda: state(server, name))
    return state(server, name)


def test_one_by_one_while_a_server_runs():
    want = undisturbed()
    cluster = Cluster(3, alike=True, env=slower(20), extra="recovery: {rejoin: 60s}\n")
    server = Server("-c", cluster.config, "--stages", 2)
    for i in range(3):
        name, before = f"w{i}", tokens_out(server)
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            streams = [pool.submit(stream_text, server, k) for k in range(STREAMS)]
            streaming(server, before)
            replace(cluster, i, PREVIOUS)
            theirs, ours = both_versions(until_state(server, name, "refused")["detail"])
            assert theirs == ours - 1
            replace(cluster, i, WORKER)
            until_state(server, name, "idle", "ready")
            texts = [stream.result(patience()) for stream in streams]
        assert texts == want, (i, texts, want)
        settle(server, 3)
    server.settle()
    lines = server.stop().splitlines()
    for i in range(3):  # each was named, with both versions, in the log
        told = [line for line in lines if f'"w{i}"' in line and BOTH.search(line)]
        assert told, lines
    cluster.stop()


if __name__ == "__main__":
    main(globals())
