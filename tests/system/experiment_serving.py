"""What serving promises of time, on one machine that does nothing else: no test, for it measures.

    tests/system/experiment_serving.py --build build -m model.gguf beside   # streams beside a long prompt
    tests/system/experiment_serving.py --build build -m model.gguf whole    # the same until the prompt is computed, token by token
    tests/system/experiment_serving.py --build build -m model.gguf again    # the second of two like requests
    tests/system/experiment_serving.py --build build -m model.gguf busy     # sixteen clients of mixed lengths

Options of `brigade serve` may follow after --, as in: beside -- --stages 2 --threads 1
"""
import argparse
import http.client
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time


class Server:
    def __init__(self, build, model, args):
        self.process = subprocess.Popen([f"{build}/coordinator/brigade", "serve", "-m", model, "--port", "0", *args], stdout=subprocess.PIPE,
                                        text=True)
        self.port = int(re.search(r"http://[^ ]*:(\d+)", self.process.stdout.readline())[1])
        assert self.process.stdout.readline().startswith("ready")

    def stream(self, prompt, tokens, stop=None):
        """Times at which tokens came; ends early once stop is set."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        times, begun = [], time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True,
                                                                  "logprobs": 0, "seed": 1}))  # with them every token is an event
        reply = connection.getresponse()
        while (line := reply.readline()) and not line.startswith(b"data: [DONE]") and not (stop and stop.is_set()):
            if line.startswith(b"data: ") and b'"tokens":[]' not in line and b'"logprobs":null' not in line:
                times.append(time.monotonic())
        connection.close()
        return begun, times

    def metrics(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def made_up(rng, tokens, vocabulary=2000):
    return [rng.randrange(3, vocabulary) for _ in range(tokens)]


def gaps(streams, begin, end):
    return [b - a for times in streams for a, b in zip(times, times[1:]) if begin <= a and b <= end]


class Streams:
    """So many answers that go on until they are stopped; when their tokens came."""

    def __init__(self, server, count):
        self.server, self.over, self.times = server, threading.Event(), [[] for _ in range(count)]
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(count)]
        for t in self.threads:
            t.start()
        self.wait(20)

    def run(self, i):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": made_up(random.Random(i), 20), "max_tokens": 100000,
                                                                  "ignore_eos": True, "stream": True, "logprobs": 0}))
        reply = connection.getresponse()
        while not self.over.is_set() and (line := reply.readline()):
            if line.startswith(b"data: ") and b'"tokens":[]' not in line:
                self.times[i].append(time.monotonic())
        connection.close()

    def wait(self, tokens):
        while min(map(len, self.times)) < tokens:
            time.sleep(0.1)

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(5)


def whole(server, rng, o):
    """Streams alone and beside one long prompt in turns, compared token by token of the streams: their contexts grow while
    the prompt is computed, which takes time of its own."""
    rows = {}
    until = 0
    for turn in range(2 * o.turns + 1):
        streams = Streams(server, o.streams)
        if turn % 2 == 0:
            if until:
                streams.wait(until)
            else:
                time.sleep(1)  # the first of all warms up
        else:
            begun = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
            connection.request("POST", "/v1/completions", json.dumps({"prompt": made_up(rng, o.prompt), "max_tokens": 1, "stream": True}))
            connection.getresponse().readline()
            ttft = time.monotonic() - begun
            until = min(map(len, streams.times))
            print(f"prompt of {o.prompt}: first token after {ttft:.1f} s, beside {o.streams} streams of {until} tokens")
        streams.stop()
        if until:
            rows.setdefault(turn % 2, []).append(streams.times)
    part = 100
    ratios = []
    for first in range(20, until - part, part):
        alone, beside = (statistics.mean((t[first + part] - t[first]) / part for times in rows[kind] for t in times if len(t) > first + part)
                         for kind in (0, 1))
        ratios.append(beside / alone)
        print(f"tokens {first:5} to {first + part:5}: {alone * 1e3:6.2f} ms alone, {beside * 1e3:6.2f} beside: {beside / alone:.2f} times")
    print(f"in all: {statistics.mean(ratios):.2f} times")


def beside(server, rng, o):
    """Windows without and with a long prompt take turns while the same streams go on."""
    streams = Streams(server, o.streams)
    windows = []
    for turn in range(o.turns + 1):
        begin = time.monotonic()
        time.sleep(o.seconds)
        windows.append(("without", begin, time.monotonic()))
        if turn < o.turns:
            over = threading.Event()
            timer = threading.Timer(o.longest, over.set)
            begin = time.monotonic()
            timer.start()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
            connection.request("POST", "/v1/completions", json.dumps({"prompt": made_up(rng, o.prompt), "max_tokens": 1, "stream": True}))
            waiter = threading.Thread(target=lambda: (connection.getresponse().readline(), over.set()), daemon=True)
            waiter.start()
            over.wait()
            timer.cancel()
            windows.append(("with", begin, time.monotonic()))
            if waiter.is_alive():
                connection.sock.shutdown(socket.SHUT_RDWR)
                time.sleep(0.2)
    streams.stop()
    rows = []
    for kind, begin, end in windows:
        g = sorted(gaps(streams.times, begin, end))
        rows.append((kind, statistics.mean(g), statistics.median(g)))
        print(f"{kind:8} {end - begin:6.1f} s  {len(g):6} gaps  mean {statistics.mean(g) * 1e3:7.2f}  median {statistics.median(g) * 1e3:7.2f}  "
              f"p95 {g[len(g) * 95 // 100] * 1e3:7.2f}  longest {g[-1] * 1e3:7.2f} ms")
    for what in (1, 2):
        control, prompt = (statistics.median(r[what] for r in rows if r[0] == kind) for kind in ("without", "with"))
        print(f"{('', 'mean', 'median')[what]}: {control * 1e3:.2f} without, {prompt * 1e3:.2f} ms with: {prompt / control:.2f} times")


def again(server, rng, o):
    for tokens in (600, 2000):
        prompt = made_up(rng, tokens)
        first, second = (times[0] - begun for begun, times in (server.stream(prompt, 2) for _ in range(2)))
        print(f"prompt of {tokens}: TTFT {first * 1e3:.0f} ms, again {second * 1e3:.0f} ms: {second / first * 100:.1f} %")


def busy(server, rng, o):
    stop = threading.Event()

    def client(i):
        mine = random.Random(i)
        while not stop.is_set():
            server.stream(made_up(mine, mine.randrange(16, 400)), mine.randrange(16, 200), stop)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    time.sleep(5)
    for _ in range(o.turns):
        before, begin = server.metrics(), time.monotonic()
        time.sleep(o.seconds)
        after, took = server.metrics(), time.monotonic() - begin
        names = sorted(n for n in after if n.startswith("brigade_stage_busy_seconds_total"))
        shares = ", ".join(f"{(after[n] - before[n]) / took * 100:.1f} %" for n in names)
        print(f"{took:.1f} s: stages busy {shares}; {(after['brigade_tokens_out_total'] - before['brigade_tokens_out_total']) / took:.1f} tokens/s "
              f"generated, {(after['brigade_tokens_in_total'] - before['brigade_tokens_in_total']) / took:.1f} of prompts")
    stop.set()
    for t in threads:
        t.join(20)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build")
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--streams", type=int, default=4)
    p.add_argument("--prompt", type=int, default=4096)
    p.add_argument("--turns", type=int, default=3)
    p.add_argument("--seconds", type=float, default=6, help="of a window without a prompt, or of measured work")
    p.add_argument("--longest", type=float, default=600, help="seconds of a window with a prompt; then it is hung up")
    p.add_argument("what", choices=["beside", "whole", "again", "busy"])
    ours, serve = sys.argv[1:], []
    if "--" in ours:
        ours, serve = ours[:ours.index("--")], ours[ours.index("--") + 1:]
    o = p.parse_args(ours)
    server = Server(o.build, o.model, serve)
    try:
        globals()[o.what](server, random.Random(11), o)
    finally:
        server.stop()


main()
