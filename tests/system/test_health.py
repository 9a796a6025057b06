"""How the boards are, and what may be known of the talk: the doctor on sick and healthy boards (recorded sensors), energy in
run, bench, /metrics and status, `brigade top`, and logs that hold no prompt, no answer and no secret."""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from lab import (BRIGADE, MODEL, PROMPT, SOURCE, THIN, Cluster, Worker, brigade, brigade_json, main, next_line, one_line, patience,
                 temporary_folder, until)
from server import Server

TREES = os.path.join(SOURCE, "tests", "fixtures", "sensors")


def tree(name):
    """A recorded tree of sensors, unpacked; changes to it are changes of the board."""
    root = tempfile.mkdtemp(dir=temporary_folder())
    for line in open(os.path.join(TREES, name + ".tree")):
        path, text = line.rstrip("\n").split("\t", 1)
        path = os.path.join(root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text.replace("\\n", "\n") + "\n")
    return root


def findings(report, node):
    found = next(n for n in report["nodes"] if n["name"] == node)
    return {f["check"]: (f["level"], f["text"]) for f in found["findings"]}


def test_the_doctor_says_what_to_change():
    cluster = Cluster(0)
    sick = tree("pi5")
    cluster.workers = [Worker(cluster.folder, "well", [cluster.public_key], env={"BRIGADE_TEST_SENSORS": tree("pi4")}),
                       Worker(cluster.folder, "hot", [cluster.public_key], env={"BRIGADE_TEST_SENSORS": sick}),
                       Worker(cluster.folder, "stranger", [cluster.public_key]),
                       Worker(cluster.folder, "gone", [cluster.public_key])]
    stranger = json.loads(subprocess.run([BRIGADE, "keygen", "-o", os.path.join(cluster.folder, "x.key"), "--json"],
                                         capture_output=True, text=True).stdout)["public_key"]
    cluster.write(nodes=[(w.name, w.endpoint, stranger if w.name == "stranger" else w.public_key) for w in cluster.workers])
    cluster.workers[3].stop()
    done = brigade("doctor", "-c", cluster.config, "--json", "--wait", "2")
    assert done.returncode == 1 and not done.stderr, done
    report = json.loads(done.stdout)
    assert not report["well"]
    well = findings(report, "well")
    assert all(level != "bad" for level, _ in well.values()), well
    assert well["key"][0] == well["clock"][0] == well["throttling"][0] == "good" and "48.2" in well["temperature"][1], well
    assert "ina226" in well["energy"][1], well
    hot = findings(report, "hot")
    assert hot["temperature"][0] == hot["power"][0] == hot["throttling"][0] == "bad" and "83.5" in hot["temperature"][1], hot
    assert findings(report, "gone")["reach"][0] == "bad" and "refused" in findings(report, "gone")["reach"][1]
    assert "bad" in [level for level, _ in findings(report, "stranger").values()]
    text = brigade("doctor", "-c", cluster.config, "--wait", "2")
    assert text.returncode == 1 and "fan" in text.stdout and "3 of 4 nodes" in text.stdout, text.stdout
    cluster.write(nodes=[(w.name, w.endpoint, w.public_key) for w in cluster.workers[:1]])
    assert brigade("doctor", "-c", cluster.config).returncode == 0
    one_line(brigade("doctor", "-c", "/nowhere.yaml"), 1, "nowhere.yaml")
    cluster.stop()


def tokens(count):
    """So many, or as many as take as long where programs are slow by themselves."""
    return str(count // 8 if THIN else count)


def test_energy_is_measured_or_said_not_to_be():
    bare = {"BRIGADE_TEST_SENSORS": temporary_folder()}
    done = brigade("run", "-m", MODEL, "-p", PROMPT, "-n", "4", "--stats", env=bare)
    assert "energy       not measured (no power sensor" in done.stderr, done.stderr
    rows = brigade_json("bench", "-m", MODEL, "-p", "0", "-n", "4", "-r", "1", env=bare)
    assert not rows["energy"]["measured"] and "joules_per_token" not in rows["rows"][0], rows
    root = tree("pi4")
    measured = {"BRIGADE_TEST_SENSORS": root}
    # Long enough for some samples of 4.375 W: joules a token are watts by tokens a second, within what sampling can tell.
    rows = brigade_json("bench", "-m", MODEL, "-p", "0", "-n", tokens(400), "-r", "3", "-t", "1", env=measured)
    row = rows["rows"][0]
    assert rows["energy"]["measured"] and rows["energy"]["source"] == "ina226", rows["energy"]
    assert 0 < row["joules_per_token"] < 1, row
    cluster = Cluster(2, env=measured)  # two workers of one machine: counted once
    server = Server("-c", cluster.config, "--stages", "2", env=bare)
    server.text("Once upon a time", max_tokens=8)
    until(lambda: server.metrics().get("brigade_energy_joules_total", 0) > 0, server.metrics)
    first = server.metrics()
    assert first["brigade_energy_machines_measured"] == 1 and first["brigade_power_watts"] == 4.375, first
    server.text("Once upon a time", max_tokens=8, ignore_eos=True)
    until(lambda: server.metrics()["brigade_energy_joules_total"] > first["brigade_energy_joules_total"], server.metrics)
    later = server.metrics()
    assert later["brigade_joules_per_token"] > 0 and later["brigade_joules_per_request"] > 0, later
    assert all(n["watts"] == 4.375 for n in brigade_json("status", "-c", cluster.config)["nodes"])
    frame = brigade("top", f"http://127.0.0.1:{server.port}", "--once", "--interval", "0.3")
    assert frame.returncode == 0 and "4.4 W (ina226, 1 of 1 machines)" in frame.stdout, frame
    for word in ["w0", "w1", "48 °C", "ready", "requests", "0-", "Mb/s"]:
        assert word in frame.stdout, (word, frame.stdout)
    nodes = brigade("top", "-c", cluster.config, "--once", "--interval", "0.2")
    assert nodes.returncode == 0 and "2 nodes" in nodes.stdout and "4.4 W" in nodes.stdout, nodes
    watch_in_a_terminal(server)
    server.stop()
    cluster.stop()


class Counter:
    """A processor's energy counter as the kernel shows it, advanced by so many watts while it is open; it wraps."""

    def __init__(self, root, watts, most_uj):
        self.path, self.watts, self.most = os.path.join(root, "sys/class/powercap/intel-rapl:0/energy_uj"), watts, most_uj
        self.joules, self.done = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.advance)

    def advance(self):
        start, began = int(open(self.path).read()), time.monotonic()
        while not self.done.wait(0.02):
            self.joules = self.watts * (time.monotonic() - began)
            with open(self.path + ".next", "w") as f:
                f.write(f"{int(start + self.joules * 1e6) % self.most}\n")
            os.rename(self.path + ".next", self.path)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def test_a_processors_counter_is_followed():
    """Joules a token and a request come from a counter that somebody else advances, over its wrap: watts by seconds."""
    root = tree("minipc")
    for part in ("intel-rapl:0/intel-rapl:0:1",):  # memory's own counter adds to the package's: none of that here
        shutil.rmtree(os.path.join(root, "sys/class/powercap", part))
    env = {"BRIGADE_TEST_SENSORS": root}
    with Counter(root, 50.0, 262143328850) as counter:  # 1.3 J below where it wraps
        rows = brigade_json("bench", "-m", MODEL, "-p", "0", "-n", tokens(600), "-r", "9", "-t", "1", env=env)
    row = rows["rows"][0]
    assert rows["energy"]["measured"] and "RAPL" in rows["energy"]["source"].upper(), rows["energy"]
    spent = row["joules_per_token"] * row["tokens"]
    seconds = row["tokens"] / row["tokens_per_s"]
    # What was counted while it ran: watts by time, as exactly as samples of a quarter of a second can tell.
    assert 0 < spent <= counter.joules, (spent, counter.joules)
    assert spent > 0.2 * 50.0 * seconds, (spent, seconds)
    server = Server(env=env)
    with Counter(root, 20.0, 262143328850):
        before = server.metrics().get("brigade_energy_joules_total", 0)

        def counted():
            server.text("Once upon a time", max_tokens=32, ignore_eos=True)
            return server.metrics()["brigade_energy_joules_total"] > before + 2
        until(counted, server.metrics)
        after = server.metrics()
    assert after["brigade_joules_per_token"] > 0 and after["brigade_joules_per_request"] > after["brigade_joules_per_token"], after
    server.stop()


def test_status_shows_measured_beside_predicted():
    """Whoever looks sees what a stage takes and what its coordinator's plan expects; nobody knows before work was done."""
    cluster = Cluster(3)
    before = brigade_json("status", "-c", cluster.config)["nodes"]
    assert len(before) == 3 and not any("decode_ms" in n for n in before), before
    server = Server("-c", cluster.config, "--stages", "2")
    staged = []

    def both():
        server.text("Once upon a time", max_tokens=40, ignore_eos=True)
        staged[:] = [n for n in brigade_json("status", "-c", cluster.config)["nodes"] if "decode_ms" in n]
        return len(staged) == 2
    until(both, lambda: staged)
    plan = {s["device"]: s for s in json.loads(server.get("/status"))["plan"]["stages"]}
    assert {n["name"] for n in staged} == set(plan), (staged, plan)
    for n in staged:
        assert n["loaded"]["first_block"] == plan[n["name"]]["first_block"], (n, plan)
        assert 0 < n["decode_ms"] < 1000 and n["decode_predicted_ms"] > 0, n
        # The expectation for these few sequences is near the plan's, whatever the machine does meanwhile.
        assert 0.2 < n["decode_predicted_ms"] / plan[n["name"]]["decode_ms"] < 5, (n, plan)
    text = brigade("status", "-c", cluster.config).stdout
    assert "predicted" in text.splitlines()[0] and text.count(" %)") == 2, text
    server.stop()
    cluster.stop()


def test_a_watch_goes_on_and_ends_with_its_reader():
    """Into a pipe each look comes at once; a node that goes is told and waited for; whoever has read enough ends it."""
    cluster = Cluster(2)
    watch = ["status", "-c", cluster.config, "--watch", "--interval", "0.1"]
    with subprocess.Popen([BRIGADE, *watch, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        def shown(state):
            until(lambda: {n["name"]: n["state"] for n in json.loads(next_line(running))["nodes"]}["w1"] == state, lambda: state)
        shown("idle")
        cluster.workers[1].stop()
        shown("lost")
        cluster.workers[1] = Worker(cluster.folder, "w1", [cluster.public_key], "--listen", cluster.workers[1].endpoint)
        shown("idle")
        running.stdout.close()
        assert running.wait(patience()) == 0 and not running.stderr.read()
    with subprocess.Popen([BRIGADE, *watch], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline().startswith("node")
        running.stdout.close()
        assert running.wait(patience()) == 0 and not running.stderr.read()
    cluster.stop()


def watch_in_a_terminal(server):
    """It draws, survives another size, and q ends it."""
    import fcntl
    import struct
    import termios
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    top = subprocess.Popen([BRIGADE, "top", f"http://127.0.0.1:{server.port}", "--interval", "0.2"], stdin=slave, stdout=slave,
                           stderr=slave, env={**os.environ, "TERM": "xterm", "LANG": "C.UTF-8"}, start_new_session=True)
    os.close(slave)

    def drawn(pattern):
        seen = ""

        def there():
            nonlocal seen
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536).decode(errors="replace")
            return re.search(pattern, seen)
        until(there, lambda: seen)

    drawn("q: quit")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
    top.send_signal(signal.SIGWINCH)
    drawn("q: quit")
    os.write(master, b"q")

    def over():
        if select.select([master], [], [], 0.2)[0]:
            try:
                os.read(master, 65536)
            except OSError:
                return True
        return top.poll() is not None
    until(over)
    assert top.wait(patience()) == 0
    os.close(master)


def test_logs_hold_no_text_and_no_secret():
    debug = {"BRIGADE_LOG": "debug"}
    words = "The purple walrus juggled nine teapots"
    cluster = Cluster(2, env=debug)
    secrets = [line for name in os.listdir(cluster.folder) if name.endswith(".key")
               for line in open(os.path.join(cluster.folder, name)) if not line.startswith("#")]
    assert len(secrets) == 3
    server = Server("-c", cluster.config, "--stages", "2", env=debug)
    answer = server.text(words, max_tokens=40, temperature=0, ignore_eos=True)["choices"][0]["text"]
    talk = server.chat(words + " again", max_tokens=20, temperature=0)["choices"][0]["message"]["content"]
    logs = server.stop()
    done = brigade("run", "-c", cluster.config, "-m", MODEL, "-p", words, "-n", "20", "--temp", "0", env=debug)
    assert done.returncode == 0, done.stderr
    cluster.stop()
    logs += done.stderr + "".join(w.errors() for w in cluster.workers)
    assert "debug" in logs or "info" in logs, "there is no log to look at"
    assert len(answer) > 40
    for piece in ["purple", "walrus", "teapots", answer.strip()[:15], answer.strip()[20:35], talk.strip()[:15] or answer, *[s.strip() for s in secrets]]:
        assert piece not in logs, piece
    ids = brigade_json("tokenize", "-m", MODEL, "-p", words)["ids"]
    assert not re.search(r"\D+".join(map(str, ids[1:6])), logs), "token ids are in the log"
    server = Server("--log-prompts")
    server.text(words, max_tokens=4)
    logs = server.stop()
    assert "walrus juggled" in logs and "--log-prompts" in logs, logs


main(globals())
