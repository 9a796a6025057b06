"""The tour of docs/getting-started.md, as a new user would take it: a laptop and four boards, each in a network namespace of
its own, joined by a bridge; from `brigade init` to an answer over four joined nodes, and a board out again. Needs root.

With BRIGADE_RECORD=FILE the session is written into FILE between its two marks. Without it the page is checked: its
commands must be the ones that run here."""
import atexit
import os
import pty
import re
import select
import shutil
import signal
import subprocess

from lab import BRIGADE, MODEL, SOURCE, WORKER, SkipTest, main, temporary_folder, until

PAGE = os.path.join(SOURCE, "docs", "getting-started.md")
BEGIN, END = "<!-- session -->", "<!-- end of session -->"
BOARDS = ["kitchen", "attic", "garage", "cellar"]
QUESTION = "Once upon a time there was a little robot"


def ip(*args):
    done = subprocess.run(["ip", *args], capture_output=True, text=True)
    if done.returncode:
        raise SkipTest(f"network namespaces cannot be made here: {done.stderr.strip()}")


class Network:
    """One bridge, and a namespace a machine with a link to it."""

    def __init__(self, machines):
        if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
            raise SkipTest("needs root, ip and unshare")
        self.tag = f"bt{os.getpid()}"
        self.made = []
        atexit.register(self.remove)
        self.add("lan")
        self.run("lan", "ip", "link", "add", "br0", "type", "bridge")
        self.run("lan", "ip", "link", "set", "br0", "up")
        for i, machine in enumerate(machines):
            self.add(machine)
            ip("-n", self.space("lan"), "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", self.space(machine))
            ip("-n", self.space("lan"), "link", "set", f"port{i}", "master", "br0", "up")
            ip("-n", self.space(machine), "addr", "add", f"192.168.7.{10 + i}/24", "dev", "eth0")
            ip("-n", self.space(machine), "link", "set", "eth0", "up")
            ip("-n", self.space(machine), "link", "set", "lo", "up")

    def space(self, machine):
        return f"{self.tag}-{machine}"

    def add(self, machine):
        ip("netns", "add", self.space(machine))
        self.made.append(machine)

    def run(self, machine, *command):
        done = subprocess.run(["ip", "netns", "exec", self.space(machine), *command], capture_output=True, text=True)
        if done.returncode:
            raise SkipTest(f"{' '.join(command)}: {done.stderr.strip()}")

    def remove(self):
        for machine in self.made:
            subprocess.run(["ip", "netns", "del", self.space(machine)], capture_output=True)
        self.made = []


class Machine:
    """Runs command lines as typed, with its own name, network and home folder, at a terminal of its own."""

    def __init__(self, network, name, session):
        self.name, self.network, self.session = name, network, session
        self.home = os.path.join(temporary_folder(), name)
        os.makedirs(os.path.join(self.home, "models"))
        shutil.copy(MODEL, os.path.join(self.home, "models"))
        self.env = {**os.environ, "HOME": self.home, "LANG": "C.UTF-8",
                    "PATH": ":".join([os.path.dirname(BRIGADE), os.path.dirname(WORKER), os.environ["PATH"]])}

    def start(self, command, shown=True):
        if shown:
            self.session.say(self.name, f"{self.name}$ {command}\n")
        return Running(self, command)

    def type(self, command):
        """To its end; its output."""
        running = self.start(command)
        code = running.end()
        assert code == 0, f"{self.name}$ {command}: exit {code}: {running.text}"
        return running.text


class Running:
    def __init__(self, machine, command):
        self.machine, self.text, self.shown = machine, "", 0
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", machine.network.space(machine.name), "unshare", "--uts", "sh", "-c",
             f"hostname {machine.name}; exec {command}"], cwd=machine.home, env=machine.env, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True)
        os.close(slave)
        atexit.register(self.stop)

    def read(self, timeout):
        """What comes within the timeout; false at the end."""
        if not select.select([self.master], [], [], timeout)[0]:
            return True
        try:
            piece = os.read(self.master, 65536).decode(errors="replace")
        except OSError:
            piece = ""
        self.text += piece.replace("\r\n", "\n")
        return bool(piece)

    def until(self, pattern):
        def shown():
            found = re.search(pattern, self.text)
            assert found or self.read(0.1), f"{self.machine.name} ended: no {pattern!r} in {self.text!r}"
            return found
        return until(shown, lambda: f"{self.machine.name}: no {pattern!r} in {self.text!r}")

    def show(self):
        """What it has printed since the last time goes into the session, but for progress bars, which draw over themselves."""
        text = re.sub(r"\r\x1b\[K([^\n\r]*\[[= ]*\] +\d+ %)?", "", self.text)[self.shown:]
        self.shown += len(text)
        self.machine.session.say(self.machine.name, text if text.endswith("\n") or not text else text + "\n")

    def type(self, line):
        os.write(self.master, (line + "\n").encode())

    def end(self):
        until(lambda: not self.read(0.1), lambda: f"{self.machine.name}: does not end: {self.text!r}")
        code = self.process.wait()
        self.show()
        return code

    def stop(self, number=signal.SIGKILL):
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        self.process.wait()


class Session:
    def __init__(self):
        self.blocks = []

    def say(self, who, text):
        if text:
            self.blocks.append([who, text])

    def text(self):
        out, last = "", None
        for who, text in self.blocks:
            out = (out.rstrip("\n") + "\n\n" if last not in (None, who) else out) + text
            last = who
        return out


def commands(text):
    """The command lines of a session; tokens differ each time."""
    return [re.sub(r"brigade1\.\S+", "TOKEN", line) for line in re.findall(r"^[a-z]+\$ .*$", text, re.M)]


def invite(laptop, board, command):
    """An invitation, the board that takes it, a yes; the board goes on serving."""
    waiting = laptop.start("brigade invite")
    token = waiting.until(r"brigade1\.[A-Za-z0-9_-]+\n\n")[0].strip()
    waiting.show()
    serving = board.start(command.replace("TOKEN", token))
    waiting.until("let it in")
    fingerprint = re.search(r"fingerprint\s+(\S+)", waiting.text)[1]
    serving.until("fingerprint is " + fingerprint)
    waiting.type("y")
    assert waiting.end() == 0, waiting.text
    serving.until(r"ready: .*\n")
    serving.show()
    return serving


def words(answer):
    """Without the lines in between that tell of a worker that is slow for a while."""
    return re.sub(r"\d\d:\d\d:\d\d\.\d+ brigade warn: worker [^\n]*\n", "", answer)


def test_from_init_to_an_answer_over_four_boards():
    session = Session()
    network = Network(["laptop", *BOARDS])
    laptop, *boards = [Machine(network, name, session) for name in ["laptop", *BOARDS]]
    laptop.type("brigade init")
    serving = [invite(laptop, board, "brigade-worker --join TOKEN --models models --cache .") for board in boards]
    shown = laptop.type("brigade nodes --discover")
    for board, i in zip(boards, range(4)):
        # The emulator passes no multicast on.
        assert os.environ.get("BRIGADE_TEST_EMULATED") or re.search(rf"{board.name} +tcp://192\.168\.7\.{11 + i}:7700 .* as {board.name}", shown), shown
    laptop.type("cat cluster.yaml")
    assert "4 nodes: well" in laptop.type("brigade doctor")
    model = "models/" + os.path.basename(MODEL)
    answer = laptop.type(f"brigade run -m {model} -c cluster.yaml --stages 4 --stats -n 60 --temp 0 -p '{QUESTION}'")
    here = subprocess.run([BRIGADE, "run", "-m", MODEL, "-n", "60", "--temp", "0", "-p", QUESTION], capture_output=True, text=True)
    assert here.stdout.strip() and here.stdout.strip() in words(answer), (here.stdout, answer)
    assert "4 stages" in answer, answer
    # The power went: the board needs nothing but its settings.
    serving[1].stop(signal.SIGTERM)
    serving[1] = boards[1].start("brigade-worker --config worker.yaml")
    serving[1].until(r"ready: .*\n")
    serving[1].show()
    laptop.type("brigade revoke cellar")
    answer = laptop.type(f"brigade run -m {model} -c cluster.yaml --stages 3 --stats -n 60 --temp 0 -p '{QUESTION}'")
    assert here.stdout.strip() in words(answer) and "3 stages" in answer, answer
    for running in serving:
        running.stop()
    with open(os.environ.get("BRIGADE_RECORD", PAGE)) as f:
        page = f.read()
    before, rest = page.split(BEGIN)
    recorded, after = rest.split(END)
    if "BRIGADE_RECORD" in os.environ:
        with open(os.environ["BRIGADE_RECORD"], "w") as f:
            f.write(f"{before}{BEGIN}\n```\n{session.text()}```\n{END}{after}")
    else:
        assert commands(recorded) == commands(session.text()), (commands(recorded), commands(session.text()))


if __name__ == "__main__":
    main(globals())
