"""A lab on one machine, from one file: a network namespace for each node, links with the rate, delay, jitter and loss that
the file names, workers with a share of the CPU, a limit of memory, a throttle. What scripts/testbed runs; also imported by
the experiments.

Rates are shaped by the kernel's token bucket filter on both ends of a pair's own wire; delays by link_proxy, which sits in
the sender's namespace under the receiver's address. Needs root.
"""
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import yaml

NODE_KEYS = {"throttle", "threads", "cpu", "memory_limit", "isa", "models", "cache", "machine"}
LINK_KEYS = {"from", "to", "bandwidth", "back", "rtt", "jitter", "loss"}
UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}


# The interfaces in /sys are those of the namespace it is mounted in; the control groups, from which a worker learns its
# limit, are mounted within and must stay.
OWN_SYS = 'mount --rbind /sys/fs/cgroup "$1"; mount -t sysfs sysfs /sys; mount --rbind "$1" /sys/fs/cgroup || true; shift; exec "$@"'


class BedError(Exception):
    pass


def bits(text):
    """'100Mbit' or '12.5MB' to bits a second."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kKmMgG]?)(bit|B|B/s|bit/s)\s*", str(text))
    if not found:
        raise BedError(f"bandwidth {text!r}: write 100Mbit or 12.5MB")
    return float(found[1]) * UNITS.get(found[2].lower(), 1) * (1 if found[3].startswith("bit") else 8)


def seconds(text):
    found = re.fullmatch(r"\s*([0-9.]+)\s*(us|ms|s)\s*", str(text))
    if not found:
        raise BedError(f"time {text!r}: write 0.3ms, 300us or 1s")
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1}[found[2]]


def share(text):
    number = float(str(text).rstrip("%"))
    return number / 100 if str(text).endswith("%") else number


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise BedError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def built(build, path):
    """A program of a build folder; of another architecture, the script that starts it."""
    script = os.path.join(build, "tests", "emulated", os.path.basename(path))
    return script if os.path.exists(script) else os.path.join(build, path)


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Bed:
    """The running lab. `document` is a cluster.yaml with a section `testbed`; .config is a cluster.yaml that brigade reads,
    with real addresses and keys. Use as a context manager."""

    def __init__(self, document, build, models, log=None):
        self.log = log or (lambda text: None)
        self.build, self.models = build, models
        self.brigade = built(build, "coordinator/brigade")
        self.worker = built(build, "worker/brigade-worker")
        self.proxy = built(build, "tests/system/link_proxy")
        self.document = document
        self.names = [n["name"] for n in document.get("nodes") or []]
        self.bed = document.get("testbed") or {}
        self.processes, self.namespaces, self.groups, self.missing = [], [], [], []
        self.workers = {}  # the running process of each node, by its number
        self.check()

    def check(self):
        if os.geteuid():
            raise BedError("network namespaces need root; run it with sudo")
        for program in (self.brigade, self.worker, self.proxy):
            if not os.access(program, os.X_OK):
                raise BedError(f"{program} is not there; build first, or name the build folder with --build")
        for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux")):
            if not shutil.which(tool):
                raise BedError(f"{tool} is not there; install {package}")
        if not self.names or len(set(self.names)) != len(self.names) or len(self.names) > 32:
            raise BedError("nodes: 1 to 32 names, each once")
        for name, keys in (self.bed.get("nodes") or {}).items():
            if name not in self.names:
                raise BedError(f"testbed.nodes: {name!r} is no node; there are {', '.join(self.names)}")
            if set(keys) - NODE_KEYS:
                raise BedError(f"testbed.nodes.{name}: unknown {', '.join(set(keys) - NODE_KEYS)}; there are "
                               f"{', '.join(sorted(NODE_KEYS))}")
        for link in (self.bed.get("links") or []) + [self.bed.get("default") or {}]:
            if set(link) - LINK_KEYS:
                raise BedError(f"testbed.links: unknown {', '.join(set(link) - LINK_KEYS)}; there are "
                               f"{', '.join(sorted(LINK_KEYS))}")
        for key in set(self.bed) - {"nodes", "links", "default"}:
            raise BedError(f"testbed: unknown {key}; there are nodes, links, default")

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="brigade-testbed-")
        self.tag = f"bb{os.getpid() % 100000}"
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    # -- network --------------------------------------------------------------------------------------------------------

    def link(self, a, b):
        """What the file says of the wire between two nodes ('coordinator' is one), in both directions."""
        for link in self.bed.get("links") or []:
            if link.get("from") == a and link.get("to") == b:
                return link
            if link.get("from") == b and link.get("to") == a:
                turned = dict(link)
                if "back" in link:
                    turned["bandwidth"], turned["back"] = link["back"], link.get("bandwidth", link["back"])
                return turned
        return self.bed.get("default") or {}

    @staticmethod
    def port(i):
        """Of control, then data and weights. Its own for each node: in one namespace a worker and proxies to the others
        listen side by side."""
        return 7700 + 10 * i

    def space(self, i):
        return f"{self.tag}n{i}"

    def inside(self, i, *command):
        return run("ip", "netns", "exec", self.space(i), *command)

    def shape(self, i, device, rate):
        burst = max(3200, int(rate / 8 / 2000))
        self.inside(i, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{int(rate)}bit", "burst", burst,
                    "latency", "500ms")

    def wire(self, i, j):
        """A wire of their own for two namespaces. 10.88.0.x is a node's address on the wire, 10.77.0.x the one in
        cluster.yaml: the same, unless a proxy makes the way longer."""
        a, b = f"w{j}", f"w{i}"
        ends = (i, a, j), (j, b, i)
        run("ip", "link", "add", a, "netns", self.space(i), "type", "veth", "peer", "name", b, "netns", self.space(j))
        wish = self.link(self.names[i], self.names[j])
        rates = (wish.get("bandwidth"), wish.get("back", wish.get("bandwidth")))
        for (here, device, there), rate in zip(ends, rates):
            self.inside(here, "ip", "link", "set", device, "up")
            self.inside(here, "ip", "route", "add", f"10.88.0.{there + 1}/32", "dev", device, "src", f"10.88.0.{here + 1}")
            if rate:
                self.shape(here, device, bits(rate))
        far = any(key in wish for key in ("rtt", "jitter", "loss"))
        for here, device, there in ends:
            if far:
                self.inside(here, "ip", "addr", "add", f"10.77.0.{there + 1}/32", "dev", "lo")
                self.lengthen(here, there, wish)
            else:
                self.inside(here, "ip", "route", "add", f"10.77.0.{there + 1}/32", "dev", device, "src",
                            f"10.88.0.{here + 1}")

    def lengthen(self, here, there, wish):
        doors = sum(([f"10.77.0.{there + 1}:{port}", f"10.88.0.{there + 1}:{port}"] for port in range(self.port(there), self.port(there) + 3)), [])
        command = [self.proxy, str(seconds(wish.get("rtt", "0ms")) / 2 * 1e6), str(seconds(wish.get("jitter", "0ms")) * 1e6),
                   str(share(wish.get("loss", 0))), *doors]
        self.spawn(here, command, "proxy")

    def spawn(self, i, command, what, **options):
        log = open(os.path.join(self.folder, f"{what}-{self.names[i]}.log"), "a")
        process = subprocess.Popen(["ip", "netns", "exec", self.space(i), *command], stdout=subprocess.PIPE, stderr=log,
                                   text=True, preexec_fn=die_with_parent, **options)
        self.processes.append(process)
        line = process.stdout.readline()
        log.close()
        if not line:
            with open(log.name) as f:
                raise BedError(f"{what} of {self.names[i]} did not start: {f.read().strip()}")
        return process, line

    # -- nodes ----------------------------------------------------------------------------------------------------------

    @staticmethod
    def hand_down(root, controllers):
        """Groups below a unified root have only the controllers that it hands down. One that it cannot is missed when the
        limit is written."""
        path = os.path.join(root, "cgroup.subtree_control")
        try:
            with open(path) as f:
                have = f.read().split()
            for name in sorted(set(controllers) - set(have)):
                with open(path, "w") as f:
                    f.write(f"+{name}")
        except OSError:
            pass

    def group(self, i, wish):
        """Control groups (v2 or v1) for CPU and memory: the files to write a process id to."""
        rows = []
        cpu, memory = wish.get("cpu"), wish.get("memory_limit")
        if cpu is None and memory is None:
            return rows
        quota = int(share(cpu) * 100000) if cpu is not None else None
        base = os.environ.get("BRIGADE_TEST_CGROUPS", "/sys/fs/cgroup")
        unified = os.path.exists(os.path.join(base, "cgroup.controllers"))
        limits = []
        if unified:
            limits.append((base, {"cpu.max": f"{quota} 100000" if quota else None, "memory.max": memory}))
        else:
            if quota:
                limits.append((os.path.join(base, "cpu"), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": str(quota)}))
            if memory:
                limits.append((os.path.join(base, "memory"), {"memory.limit_in_bytes": memory}))
        for root, files in limits:
            if unified:
                self.hand_down(root, [name.split(".")[0] for name, value in files.items() if value is not None])
            folder = os.path.join(root, f"{self.tag}-{self.names[i]}")
            try:
                if folder not in self.groups:  # else of the same board, before it was switched on again
                    os.mkdir(folder)
                    self.groups.append(folder)
                for name, value in files.items():
                    if value is not None:
                        with open(os.path.join(folder, name), "w") as f:
                            f.write(str(value))
                rows.append(os.path.join(folder, "cgroup.procs"))
            except OSError as why:
                self.missing.append(f"{self.names[i]}: no limit by {root}: {why.strerror}")
        return rows

    def node(self, i):
        wish = (self.bed.get("nodes") or {}).get(self.names[i], {})
        groups = self.group(i, wish)

        def enter():
            die_with_parent()
            for path in groups:
                with open(path, "w") as f:
                    f.write(str(os.getpid()))
        command = [self.worker, "--listen", f"tcp://0.0.0.0:{self.port(i)}", "--key", self.keys[i], "--allow", self.coordinator,
                   "--name", self.names[i], "--cache", wish.get("cache") or os.path.join(self.folder, f"{self.names[i]}.cache"),
                   "--threads", str(wish.get("threads", 1))]
        for folder in [wish["models"]] if "models" in wish else self.models:
            command += ["--models", folder]
        memory = self.document["nodes"][i].get("memory")
        if memory:
            command += ["--memory", str(memory)]
        if wish.get("throttle", 1) != 1:
            command += ["--throttle", str(wish["throttle"])]
        environment = {**os.environ, **({"BRIGADE_ISA": wish["isa"]} if "isa" in wish else {})}
        # A node stands for a board of its own, unless the file says whose board it shares; empty: this very machine's.
        machine = wish.get("machine", self.names[i])
        if machine:
            environment["BRIGADE_TEST_MACHINE"] = str(machine)
        log = open(os.path.join(self.folder, f"{self.names[i]}.log"), "a")
        kept = os.path.join(self.folder, f"{self.names[i]}.cgroups")
        os.makedirs(kept, exist_ok=True)
        process = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.space(i)}", "unshare", "--mount", "sh", "-ec", OWN_SYS, "sh", kept,
                                    *command], stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=enter, env=environment)
        log.close()
        self.processes.append(process)
        self.workers[i] = process
        ready = process.stdout.readline()
        if not ready:
            with open(log.name) as f:
                raise BedError(f"worker {self.names[i]} did not start: {f.read().strip()}")
        self.log(ready.strip())

    def start(self):
        keygen = [self.brigade, "keygen", "-o"]
        self.coordinator = run(*keygen, os.path.join(self.folder, "coordinator.key")).strip().split()[-1]
        self.keys, self.public = [], []
        workers = len(self.names)
        self.names.append("coordinator")
        for i, name in enumerate(self.names):
            run("ip", "netns", "add", self.space(i))
            self.namespaces.append(self.space(i))
            self.inside(i, "ip", "link", "set", "lo", "up")
            self.inside(i, "ip", "addr", "add", f"10.88.0.{i + 1}/32", "dev", "lo")
            self.inside(i, "ip", "addr", "add", f"10.77.0.{i + 1}/32", "dev", "lo")
            if i < workers:
                self.keys.append(os.path.join(self.folder, f"{name}.key"))
                self.public.append(run(*keygen, self.keys[-1]).strip().split()[-1])
        for j in range(len(self.names)):
            for i in range(j):
                self.wire(i, j)
        for i in range(workers):
            self.node(i)
        self.names.pop()
        for text in self.missing:
            self.log(f"cannot do here: {text}")
        self.config = os.path.join(self.folder, "cluster.yaml")
        self.write(self.config, self.document.get("links"))

    def write(self, path, links=None, only=None):
        """The lab's cluster.yaml: with these links, and of one node only if it is named."""
        out = {k: v for k, v in self.document.items() if k not in ("testbed", "links")}
        out["coordinator"] = {"key": "coordinator.key"}
        out["nodes"] = [{**node, "endpoint": f"tcp://10.77.0.{i + 1}:{self.port(i)}", "public_key": self.public[i]}
                        for i, node in enumerate(self.document["nodes"]) if only in (None, node["name"])]
        if links:
            out["links"] = links
        with open(path, "w") as f:
            yaml.safe_dump(out, f, sort_keys=False, width=200)

    # -- accidents ------------------------------------------------------------------------------------------------------

    def restart(self, i):
        """The same board, switched on again: killed if it still runs."""
        self.workers[i].kill()
        self.workers[i].wait()
        self.workers[i].stdout.close()
        self.processes.remove(self.workers[i])
        self.node(i)

    def cut(self, i, j):
        """Pulls the plug of the wire between two nodes; the coordinator is the last one."""
        self.inside(i, "ip", "link", "set", f"w{j}", "down")

    def join(self, i, j):
        """And in again. Routes over a wire are gone when it is down."""
        self.inside(i, "ip", "link", "set", f"w{j}", "up")
        wish = self.link(*[(self.names + ["coordinator"])[k] for k in (i, j)])
        nets = [88] if any(key in wish for key in ("rtt", "jitter", "loss")) else [88, 77]
        for net in nets:
            self.inside(i, "ip", "route", "replace", f"10.{net}.0.{j + 1}/32", "dev", f"w{j}", "src", f"10.88.0.{i + 1}")

    def slow(self, i, j, rate):
        """Another rate (text; None: as fast as it goes) for a wire, both ways."""
        for here, there in ((i, j), (j, i)):
            subprocess.run(["ip", "netns", "exec", self.space(here), "tc", "qdisc", "del", "dev", f"w{there}", "root"],
                           capture_output=True)
            if rate:
                self.shape(here, f"w{there}", bits(rate))

    def command(self, *words):
        """Words to run a command where the coordinator sits."""
        return ["ip", "netns", "exec", self.space(len(self.names)), *map(str, words)]

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + 3
        for process in self.processes:
            try:
                process.wait(max(0.01, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        for space in self.namespaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        for folder in self.groups:
            try:
                os.rmdir(folder)
            except OSError:
                pass
        shutil.rmtree(self.folder, ignore_errors=True)
        self.processes, self.namespaces, self.groups = [], [], []


HELP = """usage: scripts/testbed [--build FOLDER] [--models FOLDER]... FILE [-- COMMAND...]

Builds a lab on this machine from FILE, a cluster.yaml with a section `testbed`, and runs COMMAND (default: a shell) where
its coordinator sits, with BRIGADE_CONFIG naming the cluster.yaml that was written for it. Everything is gone at the end.
As root only. In COMMAND, the word CONFIG stands for that file's path.

    version: 1
    nodes: [{name: pi, memory: 1G}, {name: orin}]
    kv: {type: f16, tokens: 4096}
    testbed:
      nodes: {pi: {throttle: 4, threads: 1, cpu: 50%, memory_limit: 2G}, orin: {throttle: 2, models: /none, cache: /mnt/small}}
        # machine: NAME, of nodes that share a board (containers on it); without, each is a board of its own
      default: {bandwidth: 1Gbit, rtt: 0.3ms}
      links: [{from: pi, to: orin, bandwidth: 100Mbit, back: 50Mbit, rtt: 4ms, jitter: 0.5ms, loss: 0.1%}]

example: scripts/testbed lab.yaml -- build/coordinator/brigade bench -c CONFIG -m models/stories-5m-q8_0.gguf
"""


def main(words):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is taken down on the way out
    source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    build, models, file, command = os.path.join(source, "build"), [], None, None
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if word == "--":
            command = words
            break
        if word in ("--build", "--models") and words:
            if word == "--build":
                build = os.path.abspath(words.pop(0))
            else:
                models.append(os.path.abspath(words.pop(0)))
        elif file is None and not word.startswith("-"):
            file = word
        else:
            print(f"testbed: what is {word}? --help explains", file=sys.stderr)
            return 2
    if not file:
        print("testbed: which file? --help explains", file=sys.stderr)
        return 2
    try:
        with open(file) as f:
            document = yaml.safe_load(f)
        if not isinstance(document, dict):
            raise BedError(f"{file}: no cluster.yaml")
        with Bed(document, build, models or [os.path.join(source, "models")],
                 lambda text: print(f"testbed: {text}", file=sys.stderr)) as bed:
            command = [bed.config if w == "CONFIG" else w for w in command or [os.environ.get("SHELL", "/bin/sh")]]
            return subprocess.run(bed.command(*command), env={**os.environ, "BRIGADE_CONFIG": bed.config}).returncode
    except (BedError, OSError, yaml.YAMLError) as why:
        print(f"testbed: {' '.join(str(why).split())}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
