"""Joining as it happens: init, invite, join, and everything that must not get in: wrong, torn, used and expired tokens,
guesses, a person's no. The token's secret is on no command line and in no log."""
import base64
import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time

from lab import BRIGADE, MODEL, SOURCE, WORKER, Cluster, brigade, brigade_json, main, one_line, temporary_folder
from server import Server

TOKEN = re.compile(r"brigade1\.[A-Za-z0-9_-]+")


def free_ports(count):
    import socket
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Invitation:
    def __init__(self, config, *args, **more):
        self.process = subprocess.Popen([BRIGADE, "invite", "-c", config, "--listen", "tcp://127.0.0.1:*", *args], stderr=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, **more)
        self.text = ""
        while not TOKEN.search(self.text):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.text += line
        self.token = TOKEN.search(self.text)[0]

    def end(self, timeout=15):
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, self.text + out, err


def join(folder, token, *args, only=True, timeout=20):
    os.makedirs(folder, exist_ok=True)
    return subprocess.run([WORKER, "--join", token, *args, *(["--join-only"] if only else [])], cwd=folder, capture_output=True,
                          text=True, timeout=timeout)


def with_secret(token, secret):
    """The same token with another secret and a right checksum."""
    raw = base64.urlsafe_b64decode(token[9:] + "=" * (-len(token[9:]) % 4))[:-4]
    raw = raw[:51] + secret + raw[67:]
    return "brigade1." + base64.urlsafe_b64encode(raw + hashlib.blake2b(raw, digest_size=16).digest()[:4]).decode().rstrip("=")


def new_cluster():
    folder = temporary_folder()
    config = os.path.join(folder, "cluster.yaml")
    made = brigade_json("init", config)
    assert os.stat(os.path.join(folder, made["key"])).st_mode & 0o777 == 0o600
    return folder, config


def test_a_board_joins_and_answers():
    folder, config = new_cluster()
    one_line(brigade("init", config), 1, "never overwritten")
    one_line(brigade("run", "-c", config, "-m", MODEL, "-p", "hi"), 1, "no nodes yet", "brigade invite")
    with open(config) as f:
        before = f.read()
    open(config, "w").write(before.replace("nodes: []", "nodes: []   # none of mine yet") + "# the end\n")
    invitation = Invitation(config, "--yes")
    port, _ = free_ports(2)
    pi = os.path.join(folder, "pi")
    os.makedirs(pi)
    worker = subprocess.Popen([WORKER, "--join", invitation.token, "--name", "pi", "--listen", f"tcp://127.0.0.1:{port}", "--models",
                               os.path.join(SOURCE, "models"), "--threads", "1"], cwd=pi, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env={**os.environ, "BRIGADE_LOG": "debug"})
    try:
        code, text, errors = invitation.end()
        assert code == 0, errors
        assert "it answers at" in text, text
        ready = worker.stdout.readline()
        key = next(w for w in ready.split() if len(w) == 40)
        with open(f"/proc/{worker.pid}/cmdline") as f:  # an emulator keeps its own copy of the words
            assert os.environ.get("BRIGADE_TEST_EMULATED") or invitation.token[9:40] not in f.read(), "the token can be read in the process list"
        after = open(config).read()
        assert "# none of mine yet" in after and after.endswith("# the end\n") and key in after, after
        # The secret of an old token is worth nothing; what is remembered serves a later start.
        done = brigade("run", "-c", config, "-m", MODEL, "-p", "Once upon a time", "-n", "4", "--temp", "0")
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
    finally:
        worker.terminate()
        _, log = worker.communicate(timeout=15)
    assert worker.returncode == 0, log
    assert invitation.token[9:40] not in log
    fingerprint = re.search(r"fingerprint is (\S+)", log)[1]
    assert fingerprint in text, (fingerprint, text)
    assert os.stat(os.path.join(pi, "node.key")).st_mode & 0o777 == 0o600
    later = subprocess.Popen([WORKER, "--config", "worker.yaml"], cwd=pi, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert key in later.stdout.readline()
        nodes = brigade_json("status", "-c", config)["nodes"]
        assert [n["name"] for n in nodes] == ["pi"] and nodes[0]["state"] == "idle", nodes
    finally:
        later.kill()
        later.communicate()


def test_who_must_not_get_in():
    folder, config = new_cluster()
    before = open(config).read()
    here = os.path.join(folder, "board")
    listen = ["--listen", f"tcp://127.0.0.1:{free_ports(1)[0]}"]
    one_line(join(here, "brigade2.xyz"), 1, "no token")
    one_line(join(here, "brigade1.QUJD", "--listen", "tcp://127.0.0.1:*"), 2, "a port that stays")
    invitation = Invitation(config, "--yes")
    torn = invitation.token[:-5] + ("AAAAA" if invitation.token[-5:] != "AAAAA" else "BBBBB")
    one_line(join(here, torn), 1, "torn or mistyped")
    # Every board its own guess: none comes in, and after ten the token is dead for its owner too.
    outputs = []
    threads = [threading.Thread(target=lambda i=i: outputs.append(join(os.path.join(folder, f"guess{i}"), with_secret(
        invitation.token, bytes([i] * 16)), *listen))) for i in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(o.returncode == 1 and "secret is wrong" in o.stderr for o in outputs), [o.stderr for o in outputs]
    code, _, errors = invitation.end()
    assert code == 1 and "withdrawn" in errors, errors
    # Expired: the waiting ends, and what comes later finds nobody.
    invitation = Invitation(config, "--yes", "--expires", "1s")
    code, _, errors = invitation.end()
    assert code == 1 and "in time" in errors, errors
    done = join(here, invitation.token, *listen)
    assert done.returncode == 1 and "expired" in done.stderr, done.stderr
    # Interrupted.
    invitation = Invitation(config, "--yes")
    invitation.process.send_signal(signal.SIGINT)
    code, _, errors = invitation.end()
    assert code == 1 and "withdrawn" in errors, errors
    assert open(config).read() == before


def answer_at_terminal(config, board, listen, answer):
    """An invitation at a terminal of its own; returns its exit code, what it showed, and the board's."""
    master, slave = pty.openpty()
    invitation = Invitation(config, stdin=slave)
    joined = []
    thread = threading.Thread(target=lambda: joined.append(join(board, invitation.token, *listen)))
    thread.start()
    shown, end = "", time.monotonic() + 15
    while "let it in?" not in shown and time.monotonic() < end:
        if select.select([invitation.process.stderr], [], [], 0.2)[0]:
            shown += os.read(invitation.process.stderr.fileno(), 4096).decode()
    os.write(master, answer.encode())
    thread.join()
    os.close(master)
    os.close(slave)
    invitation.process.send_signal(signal.SIGINT)  # the board does not serve: do not wait for it
    code, text, errors = invitation.end()
    return code, text, shown + errors, joined[0]


def test_a_person_decides():
    folder, config = new_cluster()
    listen = ["--listen", f"tcp://127.0.0.1:{free_ports(1)[0]}", "--name", "attic"]
    done = brigade("invite", "-c", config, stdin=subprocess.DEVNULL)
    one_line(done, 2, "--yes")
    code, text, errors, board = answer_at_terminal(config, os.path.join(folder, "attic"), listen, "n\n")
    assert code == 1 and "not let in" in errors, errors
    assert board.returncode == 1 and "said no" in board.stderr, board.stderr
    assert "attic" not in open(config).read()
    code, text, errors, board = answer_at_terminal(config, os.path.join(folder, "attic"), listen, "y\n")
    assert code == 0 and "attic" in text and "is entered" in text, (text, errors)
    assert board.returncode == 0, board.stderr
    assert "attic" in open(config).read()
    # The same name from another board is refused, with what to do.
    code, text, errors, board = answer_at_terminal(config, os.path.join(folder, "other"), listen, "y\n")
    assert code == 1 and board.returncode == 1 and "--name" in board.stderr, board.stderr


def test_revoking_takes_effect_at_once():
    cluster = Cluster(3, extra="# the end\nlinks: [{from: w0, to: w2, bandwidth: 9Gbit, rtt: 1ms}]\n")
    server = Server("-c", cluster.config, "--stages", "3")
    before = server.text("Once upon a time", max_tokens=8, temperature=0)["choices"][0]["text"]
    one_line(brigade("revoke", "w9", "-c", cluster.config), 1, "no node", "w9")
    assert brigade_json("revoke", "w1", "-c", cluster.config)["revoked"] == "w1"
    assert [n["name"] for n in brigade_json("nodes", "-c", cluster.config)["nodes"]] == ["w0", "w2"]
    assert open(cluster.config).read().endswith("# the end\nlinks: [{from: w0, to: w2, bandwidth: 9Gbit, rtt: 1ms}]\n")
    end = time.monotonic() + 20
    while True:  # its connection is closed, and the others hold the whole model
        status = json.loads(server.get("/status"))
        states = {n["name"]: n["state"] for n in status.get("nodes", [])}
        if states.get("w1") == "lost" and status["status"] == "ready" and len(status["plan"]["stages"]) == 2:
            break
        assert time.monotonic() < end, (status["status"], states)
        time.sleep(0.1)
    assert server.text("Once upon a time", max_tokens=8, temperature=0)["choices"][0]["text"] == before
    time.sleep(1.2)  # it answers as before; nobody asks it any more
    status = json.loads(server.get("/status"))
    assert {n["name"]: n["state"] for n in status["nodes"]}["w1"] == "lost", status["nodes"]
    assert "revoked" in server.stop()
    cluster.stop()


main(globals())
