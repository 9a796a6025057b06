"""The lab of scripts/testbed: unequal workers, a slow and long wire, limits; and that it is gone afterwards. As root only."""
import glob
import json
import os
import re
import socket
import subprocess
import threading
import time

from lab import BRIGADE, MODEL, SOURCE, THIN, SkipTest, free_ports, main, next_line, one_line, patience, temporary_folder
from lab_network import BUILD, need_lab
from testbed_lab import built

TESTBED = os.path.join(SOURCE, "scripts", "testbed")
LAB = """version: 1
nodes: [{name: slow, memory: 9M}, {name: fast, memory: 9M}]
kv: {type: f16, tokens: 512}
testbed:
  nodes: {slow: {throttle: 12, threads: 1}, fast: {throttle: 2, threads: 1}}
  links: [{from: slow, to: fast, bandwidth: 20Mbit, back: 60Mbit, rtt: 4ms}]
"""


def testbed(text, *command, env=None):
    path = os.path.join(temporary_folder(), "lab.yaml")
    with open(path, "w") as f:
        f.write(text)
    return subprocess.run([TESTBED, "--build", BUILD, path, "--", *map(str, command)], capture_output=True, text=True, timeout=patience(),
                          env={**os.environ, **(env or {})})


def spaces():
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout


def planned():
    done = testbed(LAB, BRIGADE, "plan", "-c", "CONFIG", "-m", MODEL, "--ctx", "128", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    return plan, {s["device"]: s["last_block"] - s["first_block"] + 1 for s in plan["stages"]}


def test_a_lab_is_built_measured_and_taken_down():
    need_lab()
    for _ in range(4):  # a machine with more to do may measure one of them at a bad moment, not again and again
        plan, blocks = planned()
        assert set(blocks) == {"slow", "fast"}, plan["stages"]  # neither holds it all
        # Half of 4 ms for the activations, and what the stages need: the wire is in the prediction.
        assert plan["predicted"]["tpot_ms"] > 2, plan["predicted"]
        if blocks["fast"] > blocks["slow"]:
            break
    assert blocks["fast"] > blocks["slow"], (blocks, plan)
    assert not [line for line in spaces().splitlines() if line.startswith("bb") and f"bb{os.getpid()}" in line]


SHARED = """version: 1
nodes: [{name: one}, {name: other}, {name: board}]
kv: {type: f16, tokens: 512}
testbed: {nodes: {one: {machine: ""}, other: {machine: ""}}}
"""


def test_containers_of_one_machine_say_so():
    need_lab()
    done = testbed(SHARED, BRIGADE, "status", "-c", "CONFIG", "--json")
    assert done.returncode == 0, done.stderr
    machine = {n["name"]: n["machine"] for n in json.loads(done.stdout)["nodes"]}
    assert machine["one"] == machine["other"] != machine["board"], machine  # by the kernel: all have other addresses


LIMITED = """version: 1
nodes: [{name: small}, {name: large}]
kv: {type: f16, tokens: 512}
testbed:
  nodes: {small: {cpu: 20%, memory_limit: 300M}}
"""
# Where the worker is held: its groups, what they say, and whether it ever had to wait.
LOOK = r"""
%s bench -c CONFIG -m %s --stages 2 --split 4,4 -p 0 -n 64 -r 1 >/dev/null
pid=$(pgrep -f -- '[-]-name small')
cat /proc/$pid/cgroup
nsenter -t $pid -m find /sys/fs/cgroup '(' -path '*-small/cpu.stat' -o -path '*-small/cpu.cfs_quota_us' -o -path '*-small/cpu.max' \
    -o -path '*-small/memory.limit_in_bytes' -o -path '*-small/memory.max' ')' -exec sh -c 'sed "s|^|$(basename $0) |" $0' '{}' ';'
"""


def test_cpu_and_memory_are_limited_by_control_groups():
    need_lab()
    words = LOOK % (BRIGADE, MODEL)
    path = os.path.join(temporary_folder(), "look")
    before = set(glob.glob("/sys/fs/cgroup/*/bb*-small"))
    done = testbed(LIMITED, "sh", "-c", words.replace("CONFIG", '"$BRIGADE_CONFIG"'))
    assert done.returncode == 0, done.stderr
    if "cannot do here" in done.stderr:
        raise SkipTest(next(line for line in done.stderr.splitlines() if "cannot do here" in line))
    assert re.search(r"^\d+:memory:/bb\d+-small$|^0::/bb\d+-small$", done.stdout, re.M), done.stdout
    assert "cpu.cfs_quota_us 20000\n" in done.stdout or "cpu.max 20000 100000\n" in done.stdout, done.stdout
    assert "memory.limit_in_bytes 314572800\n" in done.stdout or "memory.max 314572800\n" in done.stdout, done.stdout
    assert int(re.search(r"cpu.stat nr_throttled (\d+)", done.stdout)[1]) > 0, done.stdout  # it had to wait
    ready = {m[1]: m[2] for m in re.finditer(r"ready: (\w+) at .* memory (\S+ \w+)", done.stderr)}
    assert re.match(r"[\d.]+ MiB", ready["small"]) and float(ready["small"].split()[0]) < 300, ready  # the worker knows it
    assert "GiB" in ready["large"], ready
    assert set(glob.glob("/sys/fs/cgroup/*/bb*-small")) <= before, "a control group was left behind"
    # A machine without them is told about, and the lab runs without the limits.
    done = testbed(LIMITED, "true", env={"BRIGADE_TEST_CGROUPS": os.path.join(os.path.dirname(path), "none")})
    assert done.returncode == 0 and "cannot do here: small: no limit by" in done.stderr, done.stderr


def proxied(*settings):
    """A way through link_proxy to an echo server: round trips of some bytes, each in seconds, and whether all came in order."""
    echo = socket.create_server(("127.0.0.1", 0))
    port = free_ports(1)

    def answer():
        peer, _ = echo.accept()
        while piece := peer.recv(65536):
            peer.sendall(piece)
    threading.Thread(target=answer, daemon=True).start()
    proxy = subprocess.Popen([built(BUILD, "tests/system/link_proxy"), *map(str, settings), f"127.0.0.1:{port}",
                              f"127.0.0.1:{echo.getsockname()[1]}"], stdout=subprocess.PIPE, text=True)
    try:
        assert "ready" in next_line(proxy)
        way = socket.create_connection(("127.0.0.1", port))
        trips = []
        for i in range(20):
            started = time.monotonic()
            way.sendall(bytes([i]) * 100)
            got = b""
            while len(got) < 100:
                got += way.recv(100)
            assert got == bytes([i]) * 100
            trips.append(time.monotonic() - started)
        sent = os.urandom(300000)
        writer = threading.Thread(target=way.sendall, args=(sent,))
        writer.start()
        got = b""
        while len(got) < len(sent):
            got += way.recv(65536)
        writer.join()
        assert got == sent, "bytes came in another order"
        way.close()
        return trips
    finally:
        proxy.kill()
        proxy.wait()
        proxy.stdout.close()


def test_a_longer_link_is_as_long_as_it_says():
    """Delay, jitter and loss are there when measured; less than asked for is never (more is a busy machine's)."""
    delayed = proxied(10000, 0, 0)
    assert min(delayed) >= 0.020, delayed
    swaying = proxied(10000, 20000, 0)
    assert min(swaying) >= 0.020 and max(swaying) - min(swaying) > 0.005, swaying
    losing = proxied(0, 0, 1)
    assert min(losing) >= 0.4, losing  # every piece, there and back
    some = proxied(0, 0, 0.3)
    assert 2 <= sum(t >= 0.2 for t in some) <= 18, some


def test_labs_that_are_shipped():
    """The labs in packaging/labs: each is built as it stands and answers; no wire is wider than it says."""
    need_lab()
    labs = sorted(glob.glob(os.path.join(SOURCE, "packaging", "labs", "*.yaml")))
    assert len(labs) >= 2
    if THIN:
        labs = labs[:1]  # the four boards
    for path in labs:
        text = open(path).read()
        count = len(re.findall(r"^  - \{name: ", text, re.M))
        stages = min(count, 8)
        done = testbed(text, BRIGADE, "run", "-c", "CONFIG", "-m", MODEL, "-p", "Once upon a time", "-n", "16", "--temp", "0", "--stages",
                       stages, "--ctx", "128", "--json")
        assert done.returncode == 0, (path, done.stderr)
        here = subprocess.run([BRIGADE, "run", "-m", MODEL, "-p", "Once upon a time", "-n", "16", "--temp", "0", "--json"], capture_output=True,
                              text=True)
        told = json.loads(done.stdout)
        assert told["tokens"] == json.loads(here.stdout)["tokens"] and told["stages"] == stages, told
        assert done.stderr.count("ready: ") == count, done.stderr


def test_what_is_wrong_is_said():
    if os.geteuid():
        one_line(testbed(LAB, "true"), 1, "root")
        return
    one_line(testbed(LAB.replace("throttle: 12", "trottle: 12"), "true"), 1, "trottle", "throttle")
    one_line(testbed(LAB.replace("20Mbit", "fast"), "true"), 1, "bandwidth", "100Mbit")


if __name__ == "__main__":
    main(globals())
