"""What the system tests share: the built programs, temporary folders, workers on loopback, and a tiny test frame.

A test file calls main(globals()): every function named test_* runs; SkipTest skips. Run by meson with the paths of
brigade, brigade-worker and the source folder as arguments.
"""
import atexit
import functools
import glob
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

BRIGADE, WORKER, SOURCE = (os.path.abspath(p) for p in sys.argv[1:4])
MODEL = os.path.join(SOURCE, "models", "stories-5m-q8_0.gguf")
PROMPT = "Once upon a time, a little girl named Lily found"


class SkipTest(Exception):
    pass


def temporary_folder():
    folder = tempfile.mkdtemp(prefix="brigade-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def brigade(*args, env=None, timeout=120, stdin=None):
    """Runs brigade to its end: CompletedProcess with text."""
    return subprocess.run([BRIGADE, *map(str, args)], capture_output=True, text=True, timeout=timeout, stdin=stdin,
                          env={**os.environ, **(env or {})})


def brigade_json(*args, env=None, timeout=120):
    done = brigade(*args, "--json", env=env, timeout=timeout)
    assert done.returncode == 0, f"brigade {' '.join(map(str, args))}: exit {done.returncode}: {done.stderr.strip()}"
    return json.loads(done.stdout)


def one_line(done, code, *words):
    """The process failed as it should: this exit code, exactly one line on stderr, holding these words."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, f"exit {done.returncode}, not {code}: {done.stderr}"
    assert len(lines) == 1, f"not one line: {done.stderr!r}"
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    return lines[0]


def keygen(path):
    return brigade_json("keygen", "-o", path)["public_key"]


def slower(times):
    """Environment of workers whose micro-batches take so many times as long, so that there is a middle to strike in;
    instrumented programs are slow by themselves."""
    return {"BRIGADE_TEST_SLOWDOWN": str(times // 3 if os.environ.get("BRIGADE_TEST_THIN") else times)}


def free_ports(count=3):
    """The first of so many free ports in a row, below those that the kernel hands out: free again for a restart."""
    while True:
        first = random.randrange(15000, 32000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


@functools.cache
def measured():
    """Profiles that this program's workers have measured. Each new worker knows them from the start, as after a restart: so
    boards that are alike are planned alike, whatever else the machine did while one of them was measured."""
    return temporary_folder()


class Worker:
    """A brigade-worker on free loopback ports, ready when constructed."""

    def __init__(self, folder, name, allow, *args, env=None, key=None):
        self.name = name
        self.key = key or os.path.join(folder, f"{name}.key")
        if not os.path.exists(self.key):
            keygen(self.key)
        self.log = open(os.path.join(folder, f"{name}.log"), "w+")
        self.cache = os.path.join(folder, f"{name}.cache")
        if not os.path.exists(self.cache):
            os.mkdir(self.cache, 0o700)
            for profile in glob.glob(os.path.join(measured(), "profile-*")):
                shutil.copy(profile, self.cache)
        self.process = subprocess.Popen(
            [WORKER, "--listen", f"tcp://127.0.0.1:{free_ports()}", "--key", self.key, "--name", name, "--models",
             os.path.join(SOURCE, "models"), "--cache", self.cache, "--threads", "1",
             *sum((["--allow", key] for key in allow), []), *args],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **(env or {})})
        atexit.register(self.stop)
        self.ready = self.process.stdout.readline()
        assert self.ready, f"worker {name} did not start: {self.errors()}"
        words = self.ready.split()
        self.endpoint = next(w.rstrip(",") for w in words if w.startswith("tcp://"))
        self.public_key = next(w.rstrip(",") for w in words if len(w.rstrip(",")) == 40)

    def errors(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        for profile in glob.glob(os.path.join(self.cache, "profile-*")):
            if not os.path.exists(os.path.join(measured(), os.path.basename(profile))):
                shutil.copy(profile, measured())


class Cluster:
    """A coordinator key, workers, and their cluster.yaml."""

    def __init__(self, count=3, extra="", worker_args=(), env=None):
        self.folder = temporary_folder()
        self.public_key = keygen(os.path.join(self.folder, "coordinator.key"))
        self.workers = [Worker(self.folder, f"w{i}", [self.public_key], *worker_args, env=env) for i in range(count)]
        self.config = os.path.join(self.folder, "cluster.yaml")
        self.write(extra)

    def write(self, extra="", nodes=None):
        with open(self.config, "w") as f:
            f.write("version: 1\ncoordinator:\n  key: coordinator.key\nnodes:\n")
            for name, endpoint, key in nodes or [(w.name, w.endpoint, w.public_key) for w in self.workers]:
                f.write(f'  - name: {name}\n    endpoint: {endpoint}\n    public_key: "{key}"\n')
            f.write(extra)

    def stop(self):
        for worker in self.workers:
            worker.stop()


def main(names):
    failed = skipped = ran = 0
    for name, test in list(names.items()):
        if not name.startswith("test_") or (len(sys.argv) > 4 and sys.argv[4] not in name):
            continue
        started = time.monotonic()
        ran += 1
        try:
            test()
            print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)
        except SkipTest as why:
            skipped += 1
            print(f"skip {name}: {why}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed or not ran else 77 if skipped == ran else 0)
