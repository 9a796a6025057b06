"""Workers that die, keys that are wrong, strangers at the door: one clear line, a clean exit, nothing else disturbed."""
import json
import os
import signal
import socket
import subprocess
import time

from lab import (BRIGADE, MODEL, PROMPT, Cluster, Worker, brigade, brigade_json, free_ports, keygen, main, one_line, patience, slower,
                 temporary_folder)


def check_killed(number, which):
    cluster = Cluster(3, env=slower(20))
    run = subprocess.Popen([BRIGADE, "run", "-c", cluster.config, "-m", MODEL, "--stages", "3", "-p", PROMPT, "-n", "400",
                            "--ignore-eos", "--no-recovery"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = run.stdout.read(10)
    assert first, f"ended early: {run.stderr.read()}"
    victim = cluster.workers[which]
    victim.kill(number)
    _, errors = run.communicate(timeout=patience())  # a second or two where nothing else runs
    cluster.stop()
    assert run.returncode == 1, f"exit {run.returncode}: {errors}"
    lines = [line for line in errors.splitlines() if line.startswith("brigade: ")]
    assert len(lines) == 1 and victim.name in lines[0], errors


def test_killing_the_first():
    check_killed(signal.SIGKILL, 0)


def test_killing_the_middle():
    check_killed(signal.SIGKILL, 1)


def test_killing_the_last():
    check_killed(signal.SIGKILL, 2)


def test_freezing_one():
    check_killed(signal.SIGSTOP, 1)


def test_worker_drains_on_sigterm():
    cluster = Cluster(1)
    worker = cluster.workers[0]
    worker.kill(signal.SIGTERM)
    assert worker.process.wait(patience()) == 0, worker.errors()


def test_wrong_coordinator_key():
    cluster = Cluster(1)
    os.remove(os.path.join(cluster.folder, "coordinator.key"))
    keygen(os.path.join(cluster.folder, "coordinator.key"))
    one_line(brigade("run", "-c", cluster.config, "-m", MODEL, "-p", PROMPT, "-n", 5), 1, "w0", "key")
    cluster.stop()


def test_wrong_worker_key():
    cluster = Cluster(1)
    other = keygen(os.path.join(cluster.folder, "other.key"))
    cluster.write(nodes=[("w0", cluster.workers[0].endpoint, other)])
    one_line(brigade("run", "-c", cluster.config, "-m", MODEL, "-p", PROMPT, "-n", 5), 1, "w0")
    cluster.stop()


def test_nobody_there():
    cluster = Cluster(1)
    port = free_ports()
    cluster.write(nodes=[("ghost", f"tcp://127.0.0.1:{port}", cluster.workers[0].public_key)])
    line = one_line(brigade("run", "-c", cluster.config, "-m", MODEL, "-p", PROMPT, "-n", 5), 1, "ghost", str(port))
    assert "refused" in line or "no answer" in line or "unreachable" in line, line
    cluster.stop()


def test_strangers_disturb_nothing():
    """Plain TCP clients that talk nonsense or ZMTP without CURVE, while a run is on."""
    cluster = Cluster(2, env=slower(10))
    want = brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", 60, "--temp", 0, "--ignore-eos")["tokens"]
    run = subprocess.Popen([BRIGADE, "run", "-c", cluster.config, "-m", MODEL, "--stages", "2", "-p", PROMPT, "-n", "60", "--temp",
                            "0", "--ignore-eos", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00" + b"NULL" + b"\0" * 16 + b"\0" + b"\0" * 31
    while run.poll() is None:
        for worker in cluster.workers:
            port = int(worker.endpoint.rsplit(":", 1)[1])
            for nonsense in (b"GET / HTTP/1.1\r\n\r\n", greeting, b"\0" * 100, os.urandom(500)):
                with socket.create_connection(("127.0.0.1", port), timeout=patience()) as s:
                    try:
                        s.sendall(nonsense)
                    except OSError:
                        pass
        time.sleep(0.02)
    out, errors = run.communicate(timeout=patience())
    assert run.returncode == 0, errors
    assert json.loads(out)["tokens"] == want
    cluster.stop()


def test_too_little_memory_shows_the_arithmetic():
    cluster = Cluster(1, worker_args=["--memory", "1M"])
    line = one_line(brigade("run", "-c", cluster.config, "-m", MODEL, "-p", PROMPT, "-n", 5), 1)
    assert "MiB" in line or "KiB" in line, line
    cluster.stop()


def test_config_errors_name_the_line():
    folder = temporary_folder()
    path = os.path.join(folder, "cluster.yaml")
    key = keygen(os.path.join(folder, "coordinator.key"))
    head = "version: 1\ncoordinator: {key: coordinator.key}\nnodes:\n"
    node = f'  - {{name: a, endpoint: "tcp://127.0.0.1:7700", public_key: "{key}"}}\n'
    for text, words in [
        (head + node + "memroy: 3\n", ["cluster.yaml:5", "memroy"]),
        (head + node + node, ["cluster.yaml:5", "a"]),
        (head + node.replace(key, "short"), ["cluster.yaml:4", "key"]),
        (head + node.replace("tcp://", "udp://"), ["cluster.yaml:4", "udp"]),
        (head + node + "kv: {type: f8}\n", ["cluster.yaml:5", "f8"]),
        ("nodes: [\n", ["cluster.yaml"]),
    ]:
        with open(path, "w") as f:
            f.write(text)
        one_line(brigade("plan", "-c", path, "-m", MODEL), 1, *words)


def test_worker_refuses_a_key_others_can_read():
    folder = temporary_folder()
    path = os.path.join(folder, "open.key")
    public = keygen(path)
    os.chmod(path, 0o644)
    try:
        Worker(folder, "w", [public], key=path)
        raise AssertionError("it started")
    except AssertionError as why:
        assert "chmod" in str(why) or "600" in str(why), why


main(globals())
