"""How long a loss takes with a model of real size, its weights on disk: no test, for it measures.

    tests/system/experiment_recovery.py build/coordinator/brigade build/worker/brigade-worker . model.gguf [ROUNDS [SEED]]

`serve --stages 3` on four workers of a thread each, and four streams. In each round one worker that the pipe needs is killed
with -9 and started again at once, in every sixth it is frozen for two seconds. Said is the time from noticing to the next
epoch, by the server's own lines; the longest pause of a stream, which adds noticing and what is computed again; and whether
any stream differed from what it says undisturbed.
"""
import concurrent.futures
import os
import random
import re
import signal
import statistics
import sys
import time

from lab import PROMPT, Cluster, Worker, patience
from lab_streams import settle, streaming, tokens_out, with_stage
from server import Server

MODEL, ROUNDS, SEED = sys.argv[4], int((sys.argv[5:] or [12])[0]), int((sys.argv[6:] or [1])[0])
STREAMS, TOKENS = 4, 100


def stream(server, i):
    """What the stream says, and its longest pause in seconds."""
    times = []
    events = server.events("/v1/completions", {"prompt": PROMPT[:10 + 8 * i], "max_tokens": TOKENS, "temperature": 0.9 * (i % 2), "seed": i,
                                               "ignore_eos": True}, times)
    text = "".join(choice["text"] for event in events for choice in event["choices"])
    return text, max(after - before for before, after in zip(times, times[1:]))


def start(cluster, name, *args):
    return Worker(cluster.folder, name, [cluster.public_key], "--models", os.path.dirname(os.path.abspath(MODEL)), *args)


def main():
    dice = random.Random(SEED)
    cluster = Cluster(0, heartbeat="")
    cluster.workers = [start(cluster, f"w{i}") for i in range(4)]
    cluster.write()
    server = Server("-c", cluster.config, "--stages", 3, model=MODEL)
    want = [stream(server, i)[0] for i in range(STREAMS)]
    differed, pauses = 0, []
    for number in range(ROUNDS):
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            before = tokens_out(server)
            running = [pool.submit(stream, server, i) for i in range(STREAMS)]
            streaming(server, before)
            time.sleep(dice.uniform(0.2, 2))
            i = dice.choice(with_stage(server, [worker.name for worker in cluster.workers]))
            old = cluster.workers[i]
            if number % 6 == 5:
                old.kill(signal.SIGSTOP)
                time.sleep(2)
                old.kill(signal.SIGCONT)
            else:
                old.kill()
                old.stop()
                cluster.workers[i] = start(cluster, old.name, "--listen", old.endpoint)
            ended = [future.result(patience(600)) for future in running]
        differed += sum(text != want[k] for k, (text, _) in enumerate(ended))
        pauses.append(max(pause for _, pause in ended))
        settle(server, 4)
    took = [float(seconds) for seconds in re.findall(r"works again after ([0-9.]+) s", server.errors())]
    for what, values in (("from noticing to working again", took), ("longest pause of a stream", pauses)):
        print(f"{what}: {len(values)}, median {statistics.median(values):.2f} s, worst {max(values):.2f} s")
    print(f"{differed} of {ROUNDS * STREAMS} streams differed")
    server.stop()
    cluster.stop()


main()
