"""Workers that are killed, frozen and started again while answers stream: every answer is what it would have been.

BRIGADE_RECOVERY_ROUNDS=200 runs that many rounds instead of the few of every day and reports recovery times;
BRIGADE_RECOVERY_SEED repeats one.
"""
import concurrent.futures
import http.client
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

from lab import BRIGADE, MODEL, PROMPT, THIN, Cluster, Worker, brigade, brigade_json, main, one_line, patience, slower, until
from lab_streams import STREAMS, asked, settle, stream_text, streaming, tokens_out, undisturbed, with_stage
from server import Server

SLOW = slower(20)


def restart(cluster, i):
    """The same board, switched on again: same key, same port."""
    old = cluster.workers[i]
    old.stop()
    port = old.endpoint.rsplit(":", 1)[1]
    cluster.workers[i] = Worker(cluster.folder, old.name, [cluster.public_key], "--listen", f"tcp://127.0.0.1:{port}", env=SLOW)


class Strikes:
    """What may happen to a worker; each leaves at least one that works, and heals before the next."""

    def __init__(self, cluster, dice):
        self.cluster, self.dice = cluster, dice

    def kill(self, i):
        self.cluster.workers[i].kill()
        time.sleep(self.dice.uniform(0, 0.8))
        restart(self.cluster, i)

    def freeze(self, i):
        self.cluster.workers[i].kill(signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.05, 2.5))
        self.cluster.workers[i].kill(signal.SIGCONT)

    def terminate(self, i):
        self.cluster.workers[i].kill(signal.SIGTERM)
        self.cluster.workers[i].process.wait(patience())
        restart(self.cluster, i)

    def kill_two(self, i):
        other = (i + 1) % len(self.cluster.workers)
        self.cluster.workers[i].kill()
        time.sleep(self.dice.choice([0, 0.05, 0.2, 0.5]))
        self.cluster.workers[other].kill()
        restart(self.cluster, i)
        restart(self.cluster, other)


def test_streams_survive_what_happens_to_workers():
    rounds = int(os.environ.get("BRIGADE_RECOVERY_ROUNDS") or ("1" if THIN else "3"))
    seed = int(os.environ.get("BRIGADE_RECOVERY_SEED", "0")) or int(time.time())
    want = undisturbed()
    count = 4
    cluster = Cluster(count, alike=True, env=SLOW, extra="recovery: {rejoin: 60s}\n")
    server = Server("-c", cluster.config, "--stages", 3)
    try:
        for number in range(rounds):
            dice = random.Random(seed + number)
            strikes = Strikes(cluster, dice)
            with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
                streams = [pool.submit(stream_text, server, i) for i in range(STREAMS)]
                time.sleep(dice.uniform(0.1, 1.0))
                kind = dice.choice([strikes.kill, strikes.kill, strikes.freeze, strikes.terminate, strikes.kill_two])
                victim = dice.randrange(count)
                if not number:  # the first strike is felt, whatever the dice say
                    kind, victim = strikes.kill, with_stage(server, [worker.name for worker in cluster.workers])[0]
                kind(victim)
                for i, stream in enumerate(streams):
                    text = stream.result(patience())
                    assert text == want[i], f"seed {seed + number} ({kind.__name__} w{victim}), stream {i}: {text!r} is not {want[i]!r}"
            settle(server, count)
        server.settle()
    except Exception:
        print(f"seed {seed}, round {number}")
        raise
    log = server.stop()
    took = sorted(map(float, re.findall(r"works again after ([0-9.]+) s", log)))
    assert took, log
    print(f"     {rounds} rounds, {len(took)} recoveries: median {took[len(took) // 2]:.2f} s, worst {took[-1]:.2f} s")
    cluster.stop()


def start_run(cluster, *args, tokens=300):
    run = subprocess.Popen([BRIGADE, "run", "-c", cluster.config, "-m", MODEL, "-p", PROMPT, "-n", str(tokens), "--temp", "0",
                            "--ignore-eos", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    first = run.stdout.read(10)
    assert first, f"ended early: {run.stderr.read().decode()}"
    return run, first


def undisturbed_text(tokens=300):
    return brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", tokens, "--temp", 0, "--ignore-eos")["text"]


def test_run_waits_for_a_board_that_is_needed():
    """Two boards, neither of which holds the model alone: the answer waits for the one to come back."""
    cluster = Cluster(2, worker_args=["--memory", "8M"], env=SLOW)
    run, first = start_run(cluster, "--kv-tokens", "512", "--ctx", "512")
    cluster.workers[1].kill()
    time.sleep(1)
    assert run.poll() is None
    old = cluster.workers[1]
    old.stop()
    cluster.workers[1] = Worker(cluster.folder, "w1", [cluster.public_key], "--memory", "8M", "--listen", old.endpoint, env=SLOW)
    rest, errors = run.communicate(timeout=patience())
    text, errors = (first + rest).decode(), errors.decode()
    assert run.returncode == 0, errors
    assert text == undisturbed_text() + "\n", (text, errors)
    assert "waiting up to" in errors and "is back" in errors and "works again" in errors, errors
    cluster.stop()


def ask_server(server, *args):
    return brigade(*args, "--port", server.port)


def stage_nodes(server):
    nodes = json.loads(server.get("/status"))["nodes"]
    return [node["name"] for node in nodes if node["stage"] >= 0 and node["state"] == "ready"]


def test_drained_boards_can_be_switched_off():
    want = undisturbed()
    cluster = Cluster(3, alike=True, env=SLOW)
    server = Server("-c", cluster.config, "--stages", 2)
    names, before = stage_nodes(server), tokens_out(server)
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream_text, server, i) for i in range(STREAMS)]
        streaming(server, before)
        assert ask_server(server, "drain", names[0]).returncode == 0
        until(lambda: names[0] not in stage_nodes(server) and len(stage_nodes(server)) == 2, lambda: stage_nodes(server))
        cluster.workers[int(names[0][1:])].kill()
        assert [stream.result(patience()) for stream in streams] == want
    one_line(ask_server(server, "drain", "nobody"), 1, "nobody")
    others = stage_nodes(server)
    assert ask_server(server, "drain", others[0]).returncode == 0
    until(lambda: len(stage_nodes(server)) == 1, lambda: stage_nodes(server))
    one_line(ask_server(server, "drain", others[1]), 1, others[1], "no worker is left")
    answer = json.loads(ask_server(server, "rebalance", "--json").stdout)
    assert set(answer) == {"moves", "gain_percent"}, answer
    assert server.request("POST", "/admin/rebalance", {}, {"Origin": "http://elsewhere"})[0] == 403
    assert stream_text(server, 1) == want[1]
    assert server.metrics()["brigade_recoveries_total"] == 2
    server.stop()
    cluster.stop()


def test_another_coordinator_takes_over():
    """The coordinator is killed; the next one with its key finds the weights where they are, and uses them there though
    one look at the links says that another order would be better. A command that ends with its answer goes by the plan."""
    cluster = Cluster(3, alike=True, env=SLOW)
    first = Server("-c", cluster.config, "--stages", 3)
    want = first.text(**asked(1))["choices"][0]["text"]
    layout = [node["stage"] for node in json.loads(first.get("/status"))["nodes"]]
    reads = sum(worker.errors().count(" read in ") for worker in cluster.workers)
    first.kill()
    far = [cluster.workers[layout.index(stage)].name for stage in (0, 1)]
    cluster.write(f"links: [{{from: {far[0]}, to: {far[1]}, bandwidth: 100Mbit, rtt: 1s}}]\n")
    started = time.monotonic()
    second = Server("-c", cluster.config, "--stages", 3)
    took = time.monotonic() - started
    status = json.loads(second.get("/status"))
    assert [node["stage"] for node in status["nodes"]] == layout
    assert second.text(**asked(1))["choices"][0]["text"] == want
    assert sum(worker.errors().count(" read in ") for worker in cluster.workers) == reads
    assert sum(worker.errors().count(", kept in ") for worker in cluster.workers) == 3
    print(f"     took over in {took:.1f} s, links measured again")
    log = second.stop()
    assert "stages found in memory stay" in log, (log, status)
    planned = [stage["device"] for stage in brigade_json("plan", "-c", cluster.config, "-m", MODEL, "--stages", 3)["stages"]]
    assert abs(planned.index(far[0]) - planned.index(far[1])) == 2, planned
    cluster.stop()


def raw_stream(server, body):
    """The data of all events of a stream that need not end well."""
    data = server.request("POST", "/v1/completions", {**body, "stream": True})[2].decode()
    return [event[6:] for event in data.split("\n\n") if event.startswith("data: ")]


def interrupted_stream(server, i, begun):
    """What a client has when its server goes away: the text so far, whether a reason for its end came, and [DONE]."""
    connection = server.connect()
    data = b""
    try:
        connection.request("POST", "/v1/completions", json.dumps({**asked(i), "stream": True}))
        reply = connection.getresponse()
        while piece := reply.read1(65536):
            data += piece
            begun.release()
    except (OSError, http.client.HTTPException):
        pass  # cut off in the middle of a chunk
    finally:
        connection.close()
    events = [event[6:] for event in data.decode().split("\n\n") if event.startswith("data: ")]
    done = "[DONE]" in events
    choices = [c for event in events if event.startswith("{") and event.endswith("}") for c in json.loads(event).get("choices", [])]
    return "".join(c["text"] for c in choices), [c["finish_reason"] for c in choices if c["finish_reason"]], done


def end_with_streams(end):
    """A server ended while eight streams run, and another one with its key: nobody was told that half an answer is whole."""
    want = undisturbed()
    cluster = Cluster(3, alike=True, env=SLOW)
    first = Server("-c", cluster.config, "--stages", 3, "--grace", 0)
    layout = [(node["name"], node["stage"]) for node in json.loads(first.get("/status"))["nodes"]]
    begun = threading.Semaphore(0)
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(interrupted_stream, first, i, begun) for i in range(STREAMS)]
        for _ in range(3 * STREAMS):
            assert begun.acquire(timeout=patience())
        reads = sum(worker.errors().count(" read in ") for worker in cluster.workers)
        end(first)
        results = [stream.result(patience()) for stream in streams]
    cut = 0
    for i, (text, reasons, done) in enumerate(results):
        if text == want[i]:
            continue  # it had come to its end before
        cut += 1
        assert want[i].startswith(text), (i, text, want[i])
        assert not done and not {"stop", "length"} & set(reasons), (i, reasons, done)
    assert cut, "all streams were over too soon"
    started = time.monotonic()
    second = Server("-c", cluster.config, "--stages", 3)
    took = time.monotonic() - started
    assert [(node["name"], node["stage"]) for node in json.loads(second.get("/status"))["nodes"]] == layout
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        assert list(pool.map(lambda i: stream_text(second, i), range(STREAMS))) == want
    assert sum(worker.errors().count(" read in ") for worker in cluster.workers) == reads  # no byte of weights
    print(f"     {cut} streams interrupted; another coordinator was ready after {took:.1f} s")
    second.stop()
    cluster.stop()


def test_a_killed_coordinator_completes_nothing():
    end_with_streams(lambda server: server.kill())


def test_a_stopped_coordinator_completes_nothing():
    end_with_streams(lambda server: server.stop())


def test_a_server_waits_refuses_and_recovers():
    """What is left cannot hold the model: the stream waits, ends with the arithmetic; the server stays, says so, and works
    again when the board is back."""
    cluster = Cluster(2, worker_args=["--memory", "8M"], env=SLOW)
    server = Server("-c", cluster.config, "--kv-tokens", "512", "--ctx", "512", "--rejoin-timeout", "2")
    want = server.text(**asked(1))["choices"][0]["text"]
    old, before = cluster.workers[1], tokens_out(server)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stream = pool.submit(raw_stream, server, {**asked(1), "max_tokens": 400})
        streaming(server, before)
        struck = time.monotonic()
        old.stop()
        last = stream.result(patience())[-1]
    assert time.monotonic() - struck >= 2
    error = json.loads(last)["error"]["message"]
    for word in ('"w1" was lost', "MiB", "waited 2.0 s"):
        assert word in error, error
    status, headers, body = server.request("POST", "/v1/completions", asked(1))
    assert status == 503 and int(headers["Retry-After"]) >= 1 and b"was lost" in body, (status, body)
    health = json.loads(server.request("GET", "/health")[2])
    assert health["status"] == "degraded" and "was lost" in health["detail"], health
    cluster.workers[1] = Worker(cluster.folder, "w1", [cluster.public_key], "--memory", "8M", "--listen", old.endpoint, env=SLOW)
    until(lambda: server.request("POST", "/v1/completions", {**asked(1), "max_tokens": 1})[0] == 200, lambda: server.get("/status"))
    assert server.text(**asked(1))["choices"][0]["text"] == want
    assert json.loads(server.get("/health"))["status"] == "ready"
    server.stop()
    cluster.stop()


def test_nobody_comes_back():
    """The error says what was lost and shows the arithmetic of what is left."""
    cluster = Cluster(2, worker_args=["--memory", "8M"], env=SLOW)
    run, _ = start_run(cluster, "--kv-tokens", "512", "--ctx", "512", "--rejoin-timeout", "1")
    started = time.monotonic()
    cluster.workers[0].kill()
    errors = run.communicate(timeout=patience())[1].decode()
    assert run.returncode == 1 and time.monotonic() - started > 1, errors
    line = [line for line in errors.splitlines() if line.startswith("brigade: ")]
    assert len(line) == 1, errors
    for word in ('"w0" was lost', "MiB", "waited 1.0 s"):
        assert word in line[0], line
    cluster.stop()


main(globals())
