"""Joining as it happens: init, invite, join, and everything that must not get in: wrong, torn, used and expired tokens,
guesses, a person's no. The token's secret is on no command line and in no log."""
import base64
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import threading

import lab
from lab import (BRIGADE, MODEL, SOURCE, WORKER, Cluster, brigade, brigade_json, free_ports, main, next_line, one_line, patience,
                 port_was_taken, temporary_folder, until)
from server import Server

TOKEN = re.compile(r"brigade1\.[A-Za-z0-9_-]+")


class Invitation:
    def __init__(self, config, *args, **more):
        self.process = subprocess.Popen([BRIGADE, "invite", "-c", config, "--listen", "tcp://127.0.0.1:*", *args], stderr=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, **more)
        self.text = ""
        while not TOKEN.search(self.text):
            line = next_line(self.process)
            assert line, self.process.stderr.read()
            self.text += line
        self.token = TOKEN.search(self.text)[0]

    def end(self):
        out, err = self.process.communicate(timeout=patience())
        return self.process.returncode, self.text + out, err


def join(folder, token, *args, only=True):
    os.makedirs(folder, exist_ok=True)
    return subprocess.run([WORKER, "--join", token, *args, *(["--join-only"] if only else [])], cwd=folder, capture_output=True,
                          text=True, timeout=patience())


def refused(done, *words):
    """The board was turned away: after the line that says what it asks, one that says why not."""
    asking, why = done.stderr.splitlines()
    assert done.returncode == 1 and asking.startswith("asking ") and all(word in why for word in words), done


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
    before = before.replace("nodes: []", "nodes: []   # none of mine yet") + "# the end\n"
    pi, log = os.path.join(folder, "pi"), os.path.join(folder, "pi.log")
    for more in range(5, -1, -1):
        open(config, "w").write(before)
        os.makedirs(pi)
        invitation = Invitation(config, "--yes")
        with open(log, "w") as errors:
            worker = subprocess.Popen([WORKER, "--join", invitation.token, "--name", "pi", "--listen", f"tcp://127.0.0.1:{free_ports()}",
                                       "--models", os.path.join(SOURCE, "models"), "--threads", "1"], cwd=pi, stdout=subprocess.PIPE,
                                      stderr=errors, text=True, env={**os.environ, "BRIGADE_LOG": "debug"})
        ready = next_line(worker)
        if ready or not more or not port_was_taken(open(log).read()):
            break
        invitation.process.send_signal(signal.SIGINT)  # a stranger was quicker: from the start, at another port
        invitation.end()
        shutil.rmtree(pi)
    try:
        assert ready, "the board does not serve"
        code, text, errors = invitation.end()
        assert code == 0, errors
        assert "it answers at" in text, text
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
        worker.wait(patience())
        worker.stdout.close()
    log = open(log).read()
    assert worker.returncode == 0, log
    assert invitation.token[9:40] not in log
    fingerprint = re.search(r"fingerprint is (\S+)", log)[1]
    assert fingerprint in text, (fingerprint, text)
    assert os.stat(os.path.join(pi, "node.key")).st_mode & 0o777 == 0o600
    later = subprocess.Popen([WORKER, "--config", "worker.yaml"], cwd=pi, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert key in next_line(later)
        nodes = brigade_json("status", "-c", config)["nodes"]
        assert [n["name"] for n in nodes] == ["pi"] and nodes[0]["state"] == "idle", nodes
    finally:
        later.kill()
        later.communicate()


def test_who_must_not_get_in():
    folder, config = new_cluster()
    before = open(config).read()
    here = os.path.join(folder, "board")
    listen = ["--listen", f"tcp://127.0.0.1:{free_ports()}"]
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


def test_a_token_serves_one_board_of_one_coordinator():
    """Two boards with one token at once; the token again, later, to its coordinator and to another one at the same place."""
    folder, config = new_cluster()
    here, port = f"tcp://127.0.0.1:{free_ports(1)}", free_ports()
    invitation, outputs = Invitation(config, "--yes", "--listen", here), []
    threads = [threading.Thread(target=lambda i=i: outputs.append(join(os.path.join(folder, f"twin{i}"), invitation.token, "--name", f"twin{i}",
               "--listen", f"tcp://127.0.0.1:{port}"))) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    invitation.process.send_signal(signal.SIGINT)  # nobody serves: do not wait for it
    code, text, errors = invitation.end()
    winner, loser = sorted(outputs, key=lambda o: o.returncode)
    assert (code, winner.returncode, loser.returncode) == (0, 0, 1), (errors, [o.stderr for o in outputs])
    assert "this token was used already" in loser.stderr or "refused" in loser.stderr, loser.stderr  # or it came when all was over
    nodes = brigade_json("nodes", "-c", config)["nodes"]
    assert len(nodes) == 1 and text.count("a board brings the token") == 1, (nodes, text)
    # The used token against the next invitation, which waits at the same place: its secret is another.
    later = Invitation(config, "--yes", "--listen", here)
    assert later.token != invitation.token
    late = ["--name", "late", "--listen", f"tcp://127.0.0.1:{port}"]
    refused(join(os.path.join(folder, "late"), invitation.token, *late), "secret is wrong")
    later.process.send_signal(signal.SIGINT)
    assert later.end()[0] == 1
    # Another coordinator, at the same place: it cannot prove to be the one that the token names.
    _, other = new_cluster()
    stranger = Invitation(other, "--yes", "--listen", here)
    refused(join(os.path.join(folder, "late"), later.token, *late), here, "not with the key of this token")
    stranger.process.send_signal(signal.SIGINT)
    assert stranger.end()[0] == 1
    assert brigade_json("nodes", "-c", config)["nodes"] == nodes and not brigade_json("nodes", "-c", other)["nodes"]
    assert not os.path.exists(os.path.join(folder, "late", "worker.yaml")), "a refused board remembers nobody"


def answer_at_terminal(config, board, listen, answer, meanwhile=lambda token: None):
    """An invitation at a terminal of its own; returns its exit code, what it showed, and the board's."""
    master, slave = pty.openpty()
    invitation = Invitation(config, stdin=slave)
    joined = []
    thread = threading.Thread(target=lambda: joined.append(join(board, invitation.token, *listen)))
    thread.start()
    shown = ""

    def asked():
        nonlocal shown
        if select.select([invitation.process.stderr], [], [], 0.2)[0]:
            shown += os.read(invitation.process.stderr.fileno(), 4096).decode()
        return "let it in?" in shown
    until(asked, lambda: shown)
    meanwhile(invitation.token)
    os.write(master, answer.encode())
    thread.join()
    os.close(master)
    os.close(slave)
    invitation.process.send_signal(signal.SIGINT)  # the board does not serve: do not wait for it
    code, text, errors = invitation.end()
    return code, text, shown + errors, joined[0]


def test_a_person_decides():
    folder, config = new_cluster()
    listen = ["--listen", f"tcp://127.0.0.1:{free_ports()}", "--name", "attic"]
    done = brigade("invite", "-c", config, stdin=subprocess.DEVNULL)
    one_line(done, 2, "--yes")
    code, text, errors, board = answer_at_terminal(config, os.path.join(folder, "attic"), listen, "n\n")
    assert code == 1 and "not let in" in errors, errors
    assert board.returncode == 1 and "said no" in board.stderr, board.stderr
    assert "attic" not in open(config).read()
    seen = []
    def meanwhile(token):  # while the person thinks, another board comes with the same token
        seen.append(join(os.path.join(folder, "third"), token, *listen))
    code, text, errors, board = answer_at_terminal(config, os.path.join(folder, "attic"), listen, "y\n", meanwhile)
    refused(seen[0], "this token was used already", "ask for another one")
    assert code == 0 and "attic" in text and "is entered" in text, (text, errors)
    assert board.returncode == 0, board.stderr
    assert "attic" in open(config).read()
    # The same name from another board is refused, with what to do.
    code, text, errors, board = answer_at_terminal(config, os.path.join(folder, "other"), listen, "y\n")
    assert code == 1 and board.returncode == 1 and "--name" in board.stderr, board.stderr


def test_revoking_takes_effect_at_once():
    """In the middle of a stream: the board is out before the stream ends, the stream says what it would have said, and the
    board computes nothing any more, though it would answer."""
    cluster = Cluster(3, extra="# the end\nlinks: [{from: w0, to: w2, bandwidth: 9Gbit, rtt: 1ms}]\n", env=lab.slower(25))
    ask = {"max_tokens": 300, "temperature": 0, "ignore_eos": True}
    want = brigade_json("run", "-m", MODEL, "-p", "Once upon a time", "-n", "300", "--temp", "0", "--ignore-eos")["text"]
    server, said = Server("-c", cluster.config, "--stages", "3"), []
    stream = threading.Thread(target=lambda: said.extend(server.events("/v1/completions", {"prompt": "Once upon a time", **ask})))
    stream.start()
    until(lambda: json.loads(server.get("/status"))["tokens_out"] > 10, lambda: server.get("/status"))
    with_all = os.path.join(cluster.folder, "before.yaml")
    shutil.copy(cluster.config, with_all)
    one_line(brigade("revoke", "w9", "-c", cluster.config), 1, "no node", "w9")
    assert brigade_json("revoke", "w1", "-c", cluster.config)["revoked"] == "w1"
    until(lambda: node_of(server, "w1")["state"] == "lost", lambda: server.get("/status"))
    assert stream.is_alive() and not said, "the stream ended before the board was out"
    assert [n["name"] for n in brigade_json("nodes", "-c", cluster.config)["nodes"]] == ["w0", "w2"]
    assert open(cluster.config).read().endswith("# the end\nlinks: [{from: w0, to: w2, bandwidth: 9Gbit, rtt: 1ms}]\n")
    stream.join()
    assert "".join(e["choices"][0]["text"] for e in said if e["choices"]) == want

    def planned_without():  # perhaps a moment after the stream, which may end with the old plan
        status = json.loads(server.get("/status"))
        return status["status"] == "ready" and {s["device"] for s in status["plan"]["stages"]} == {"w0", "w2"}
    until(planned_without, lambda: server.get("/status"))

    def computed():
        return next(n["tokens"] for n in brigade_json("status", "-c", with_all)["nodes"] if n["name"] == "w1")
    before = computed()
    assert want.startswith(server.text("Once upon a time", max_tokens=8, temperature=0)["choices"][0]["text"])
    assert computed() == before and node_of(server, "w1")["state"] == "lost"
    assert "revoked" in server.stop()
    cluster.stop()


def node_of(server, name):
    return next(n for n in json.loads(server.get("/status"))["nodes"] if n["name"] == name)


main(globals())
