"""The k-th allocation fails: in the coordinator during a whole short run and while it serves, and in a worker during its
whole life. A line and an orderly end, or a request that is refused, or nothing at all where it can be borne; never a crash,
a hang, or (where programs are built with sanitizers) a leak.

Allocations of brigade's own are meant; those inside libraries (ZeroMQ, jansson, libyaml, libmicrohttpd) are theirs.
Every day a few k are tried, others each time; BRIGADE_ALLOCATIONS=all tries every k, BRIGADE_ALLOCATIONS=FROM-TO a part.
"""
import concurrent.futures
import http.client
import json
import os
import random
import re
import signal
import subprocess

from lab import (BRIGADE, MODEL, SOURCE, THIN, WORKER, Cluster, brigade, free_ports, keygen, main, next_line, patience, port_was_taken,
                 temporary_folder)
from server import Server

ALONE = ["-m", MODEL, "-p", "Once", "-n", "3", "--temp", "0", "--kv-tokens", "256", "--ctx", "256"]
SHORT = [*ALONE, "--stages", "2"]
TOLD = "BRIGADE_FAIL_ALLOC"
A_FEW = 3 if THIN else 12
STEP = 64   # k goes on in such steps until one is beyond the last allocation


def tried(sweep):
    """Calls sweep(k), which says whether there was a k-th allocation, for the k that are to be tried. How many there were."""
    wish = os.environ.get("BRIGADE_ALLOCATIONS", "")
    last = 0
    while sweep(last + STEP):
        last += STEP
    if wish == "all":
        ks = range(1, last + STEP)
    elif wish:
        first, end = map(int, wish.split("-"))
        ks = range(first, min(end + 1, last + STEP))
    else:
        dice = random.Random()
        ks = [dice.randrange(1, last + STEP) for _ in range(A_FEW)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return sum(pool.map(sweep, ks))


def orderly(what, k, code, errors):
    """It ended with 0, or with 1 and a line of its own; sanitizers found nothing."""
    assert code in (0, 1), f"{what}: allocation {k}: exit {code}: {errors}"
    assert "Sanitizer" not in errors and "runtime error" not in errors, f"{what}: allocation {k}: {errors}"
    if code:
        lines = [line for line in errors.splitlines() if re.match(r"brigade(-worker)?: ", line)]
        assert lines, f"{what}: allocation {k}: exit 1 without a word: {errors}"


class Pool:
    """Clusters that are used by one at a time."""

    def __init__(self, count):
        self.free = [Cluster(2) for _ in range(count)]
        for cluster in self.free:  # profiles are measured once and kept
            assert brigade("run", "-c", cluster.config, *SHORT).returncode == 0

    def use(self, work):
        cluster = self.free.pop()
        try:
            return work(cluster)
        finally:
            self.free.append(cluster)


def expected():
    if not hasattr(expected, "text"):
        expected.text = brigade("run", "-m", MODEL, "-p", "Once", "-n", "3", "--temp", "0").stdout
    return expected.text


def test_the_coordinator_runs():
    pool = Pool(2)

    def sweep(k):
        done = pool.use(lambda cluster: brigade("run", "-c", cluster.config, *SHORT, env={TOLD: str(k)}))
        orderly("run", k, done.returncode, done.stderr)
        assert done.returncode or done.stdout == expected(), (k, done)
        return TOLD in done.stderr
    print(f"     {tried(sweep)} allocations of a run failed")


def test_the_coordinator_serves():
    pool = Pool(2)
    ask = {"prompt": "Once", "max_tokens": 3, "temperature": 0}

    def serve(cluster, k):
        process = subprocess.Popen([BRIGADE, "serve", "-c", cluster.config, "-m", MODEL, "--stages", "2", "--kv-tokens", "256", "--ctx",
                                    "256", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, TOLD: str(k)})
        try:
            line = next_line(process)
            server = Server.of(process, line) if line else None
            if server and next_line(process).startswith("ready"):
                for path in ("/status", "/metrics", "/health"):
                    server.request("GET", path)
                for stream in (False, True):
                    status, _, body = server.request("POST", "/v1/completions", {**ask, "stream": stream})
                    if status == 200 and not stream:
                        assert json.loads(body)["choices"][0]["text"] == expected().strip("\n"), (k, body)
                    else:
                        assert status in (200, 429, 500, 503), (k, status, body)
        except (ConnectionError, http.client.HTTPException):
            pass  # there was no memory for this connection; or the server has ended, as its line must say
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=patience())
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"serve: allocation {k}: it hangs: {process.communicate()[1]}")
        orderly("serve", k, process.returncode, errors)
        return TOLD in errors

    def sweep(k):
        return pool.use(lambda cluster: serve(cluster, k))
    print(f"     {tried(sweep)} allocations of a server failed")


def test_a_worker_lives():
    """Start, profile, load, three tokens, stop."""
    folder = temporary_folder()
    coordinator = keygen(os.path.join(folder, "coordinator.key"))

    def sweep(k):
        name = f"x{k}-{random.randrange(1 << 30)}"
        key = os.path.join(folder, f"{name}.key")
        public = keygen(key)
        port = free_ports()
        log = open(os.path.join(folder, f"{name}.log"), "w+")
        process = subprocess.Popen([WORKER, "--listen", f"tcp://127.0.0.1:{port}", "--key", key, "--name", "bad", "--models",
                                    os.path.join(SOURCE, "models"), "--cache", os.path.join(folder, "cache"), "--threads", "1", "--allow",
                                    coordinator], stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, TOLD: str(k)})
        run = None
        if next_line(process):
            config = os.path.join(folder, f"{name}.yaml")
            with open(config, "w") as f:
                f.write("version: 1\ncoordinator:\n  key: coordinator.key\nnodes:\n"
                        f'  - {{name: bad, endpoint: "tcp://127.0.0.1:{port}", public_key: "{public}"}}\n')
            run = brigade("run", "-c", config, *ALONE, "--rejoin-timeout", "1")
            orderly("run", k, run.returncode, run.stderr)
            assert run.returncode or run.stdout == expected(), (k, run)
            process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(patience())
        except subprocess.TimeoutExpired:
            process.kill()
            log.seek(0)
            raise AssertionError(f"worker: allocation {k}: it does not stop: {log.read()}")
        process.stdout.close()
        log.seek(0)
        errors = log.read()
        log.close()
        orderly("worker", k, code, errors)
        assert run is None or not run.returncode or TOLD in errors, (k, run, errors)
        return TOLD in errors
    print(f"     {tried(sweep)} allocations of a worker failed")


if __name__ == "__main__":
    main(globals())
