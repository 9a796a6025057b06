"""What the system tests share: the built programs, temporary folders, workers on loopback, and a tiny test frame.

A test file calls main(globals()): every function named test_* runs; SkipTest skips. Run by meson with the paths of
brigade, brigade-worker and the source folder as arguments. Where a test fails, the last lines of the logs of what it
started are told with it.

Three rules keep tests from failing because a machine has much else to do: what must come is waited for with until() or
with a limit from patience(), never for a fixed time; ports come from free_ports(); and a time is asserted only where it is
the promise itself, beside something that was measured meanwhile.
"""
import atexit
import functools
import glob
import itertools
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref

BRIGADE, WORKER, SOURCE = (os.path.abspath(p) for p in sys.argv[1:4])
MODEL = os.path.join(SOURCE, "models", "stories-5m-q8_0.gguf")
PROMPT = "Once upon a time, a little girl named Lily found"


EMULATED, THIN = (bool(os.environ.get(name)) for name in ("BRIGADE_TEST_EMULATED", "BRIGADE_TEST_THIN"))
PATIENCE = 6 if EMULATED else 3 if THIN else 1


class SkipTest(Exception):
    pass


# ---- Waiting ---------------------------------------------------------------------------------------------------------

def patience(seconds=120):
    """The limit, in seconds, for what must come but need not come soon: a minute at least, more where programs are slow by
    themselves (instrumented, emulated). Reaching it is a failure, so it costs nothing to be generous."""
    return max(60, seconds) * PATIENCE


def until(condition, otherwise=lambda: "", seconds=120):
    """Waits for the first true value of condition() and returns it. When patience is at its end, an AssertionError says what
    otherwise() knows."""
    end = time.monotonic() + patience(seconds)
    while True:
        late = time.monotonic() > end  # before the last look: whoever was held up here looks once more
        if found := condition():
            return found
        assert not late, f"waited in vain for {patience(seconds)} s: {otherwise()}"
        time.sleep(0.02)


def next_line(process):
    """The next line on the standard output of a process; empty at its end. Nothing may have been read from it otherwise."""
    line, end = b"", time.monotonic() + patience()
    while not line.endswith(b"\n"):
        assert select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0], f"only {line} is said by {process.args}"
        if not (byte := os.read(process.stdout.fileno(), 1)):
            break
        line += byte
    return line.decode()


class Stalls:
    """How long this machine keeps somebody from running who wants to: the longest that a thread here overslept, measured from
    the start on. What is compared with a clock meanwhile may be late by some of that."""

    def __init__(self):
        self.longest, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.measure, daemon=True)

    def measure(self):
        while True:
            before = time.monotonic()
            if self.over.wait(0.02):
                return
            self.longest = max(self.longest, time.monotonic() - before - 0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


# ---- What a failure tells ----------------------------------------------------------------------------------------------

_folders, _sources, _children = [], [], weakref.WeakSet()


class _Child(subprocess.Popen):
    """Every process that a test starts, remembered: what one of them said on its way is told if the test fails."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.since = time.time()
        _children.add(self)


subprocess.Popen = _Child


def told_when_failing(name, lines):
    """lines() gives what there is of a log that is in no file of a temporary folder; it is shown when a test fails."""
    _sources.append((name, lines))


def _tail(name, lines, count=40):
    if lines:
        print(f"-- {name}" + (f" (the last {count} of {len(lines)} lines)" if len(lines) > count else ""))
        print("\n".join(line.rstrip("\n")[:2000] for line in lines[-count:]), flush=True)


def show_logs(folder, since=0.0):
    """Shows the logs in a folder that will be gone (or that have changed since)."""
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.log"), recursive=True)):
        try:
            if os.path.getmtime(path) >= since:
                with open(path, errors="replace") as f:
                    _tail(os.path.relpath(path, folder), f.readlines())
        except OSError:
            pass


def _tell_logs(since):
    """The ends of all logs since then: files in temporary folders, sources that were named, what processes have written into
    pipes that nobody has read."""
    for folder in _folders:
        show_logs(folder, since)
    for name, lines in _sources:
        _tail(name, lines())
    for child in sorted((c for c in _children if c.since >= since), key=lambda c: c.since):
        if child.stderr and not child.stderr.closed:
            try:
                os.set_blocking(child.stderr.fileno(), False)
                said = os.read(child.stderr.fileno(), 1 << 16).decode(errors="replace")
            except (OSError, ValueError):
                continue
            state = "runs" if child.poll() is None else f"ended with {child.returncode}"
            _tail(f"{' '.join(map(str, child.args))[:200]} ({state})", said.splitlines())


def temporary_folder():
    folder = tempfile.mkdtemp(prefix="brigade-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _folders.append(folder)
    return folder


# ---- Programs ----------------------------------------------------------------------------------------------------------

def brigade(*args, env=None, timeout=120, stdin=None):
    """Runs brigade to its end: CompletedProcess with text."""
    return subprocess.run([BRIGADE, *map(str, args)], capture_output=True, text=True, timeout=patience(timeout), stdin=stdin,
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


def slowdown(times):
    """How many times as long micro-batches shall take, so that there is a middle to strike in: instrumented programs are slow
    by themselves, and emulated ones slower still."""
    return max(1, times // (20 if EMULATED else 3 if THIN else 1))


def slower(times):
    """The same as the environment of workers."""
    return {"BRIGADE_TEST_SLOWDOWN": str(slowdown(times))}


PORTS = 200  # that one test process has to itself


@functools.cache
def _own_ports():
    """Ports that no other test process takes as long as this one lives, in turns, below those that the kernel hands out. An
    abstract socket stands for them: like ports it belongs to the network namespace, and goes with its process."""
    while True:
        first = random.randrange(15000, 32000, PORTS)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0brigade-test-ports-{first}")
            return claim, itertools.cycle(range(first, first + PORTS))
        except OSError:
            claim.close()


def free_ports(count=3):
    """The first of so many free ports in a row: free again for a restart, for they are this process's own."""
    taken = []
    while len(taken) < count:
        port = next(_own_ports()[1])
        if taken and port != taken[-1] + 1:
            taken = []
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
            taken.append(port)
        except OSError:
            taken = []
    return taken[0]


def port_was_taken(log):
    """A program ended because a stranger has its port: another one may do."""
    return "already in use" in log


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
        for more in range(5, -1, -1):
            self.process = subprocess.Popen(
                [WORKER, "--listen", f"tcp://127.0.0.1:{free_ports()}", "--key", self.key, "--name", name, "--models",
                 os.path.join(SOURCE, "models"), "--cache", self.cache, "--threads", "1",
                 *sum((["--allow", key] for key in allow), []), *args],
                stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **(env or {})})
            atexit.register(self.stop)
            self.ready = next_line(self.process)
            if self.ready or not more or not port_was_taken(self.errors()):
                break
            self.process.wait()
            time.sleep(0.5 if "--listen" in args else 0)  # at this very place, as after a restart
            self.log.truncate(0)
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
        self.share_profiles()

    def share_profiles(self):
        """What it has measured of itself is known by all that are started later."""
        for profile in glob.glob(os.path.join(self.cache, "profile-*")):
            if not os.path.exists(os.path.join(measured(), os.path.basename(profile))):
                shutil.copy(profile, measured())


class Cluster:
    """A coordinator key, workers, and their cluster.yaml. `alike`: the workers are planned as boards of one kind.
    `heartbeat`: its line there; a machine that runs four tests at once keeps a worker waiting for longer than a board does."""

    def __init__(self, count=3, extra="", worker_args=(), env=None, alike=False, heartbeat="heartbeat: {lost: 1s}\n"):
        self.heartbeat = heartbeat
        self.folder = temporary_folder()
        self.public_key = keygen(os.path.join(self.folder, "coordinator.key"))
        self.config = os.path.join(self.folder, "cluster.yaml")
        self.workers = []
        for i in range(count):
            self.workers.append(Worker(self.folder, f"w{i}", [self.public_key], *worker_args, env=env))
            if alike and not i:
                self.measure_first(extra)
        self.write(extra)

    def measure_first(self, extra=""):
        """The first worker is measured alone, and those that start later know its profile: else they would differ by what the
        machine did meanwhile."""
        self.write(extra)
        brigade_json("plan", "-c", self.config, "-m", MODEL)
        self.workers[0].share_profiles()

    def write(self, extra="", nodes=None):
        with open(self.config, "w") as f:
            f.write("version: 1\ncoordinator:\n  key: coordinator.key\nnodes:\n")
            for name, endpoint, key in nodes or [(w.name, w.endpoint, w.public_key) for w in self.workers]:
                f.write(f'  - name: {name}\n    endpoint: {endpoint}\n    public_key: "{key}"\n')
            f.write(self.heartbeat + extra)

    def stop(self):
        for worker in self.workers:
            worker.stop()


def _killed(number, frame):
    """By meson, when its limit is reached: what there is to know is told first."""
    print("FAIL killed here:", flush=True)
    traceback.print_stack(frame, file=sys.stdout)
    _tell_logs(_killed.since)
    sys.exit(1)


def main(names):
    failed = skipped = ran = 0
    signal.signal(signal.SIGTERM, _killed)
    chosen = sys.argv[4] if len(sys.argv) > 4 and not os.environ.get("BRIGADE_TEST_EVERY_CASE") else ""
    for name, test in list(names.items()):
        if not name.startswith("test_") or chosen not in name:
            continue
        started, _killed.since = time.monotonic(), time.time()
        ran += 1
        try:
            test()
            print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)
        except SkipTest as why:
            skipped += 1
            print(f"skip {name}: {why}", flush=True)
        except Exception as why:
            failed += 1
            print(f"FAIL {name} ({time.monotonic() - started:.1f} s)", flush=True)
            traceback.print_exc(file=sys.stdout)
            if isinstance(why, subprocess.TimeoutExpired):
                for what, said in (("its output", why.stdout), ("its errors", why.stderr)):
                    _tail(what, (said.decode(errors="replace") if isinstance(said, bytes) else said or "").splitlines())
            _tell_logs(_killed.since)
    sys.exit(1 if failed or not ran else 77 if skipped == ran else 0)
