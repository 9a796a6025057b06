"""Weights by slice: real workers on loopback that have no model file, counters of what travels, and everything that may go
wrong on the way."""
import glob
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import time

import gguf_split
import lab
from lab import MODEL, PROMPT, Cluster, SkipTest, Worker, brigade, brigade_json, main, next_line, one_line, patience, temporary_folder

TOKENS = ["-p", PROMPT, "-n", "8", "--temp", "0"]


def expected():
    if not hasattr(expected, "text"):
        expected.text = brigade("run", "-m", MODEL, *TOKENS).stdout
    return expected.text


class Bare(Cluster):
    """A cluster whose workers have only a cache folder; the coordinator has a model of its own."""

    def __init__(self, count=3, model=MODEL, worker_args=(), env=None):
        self.nothing = temporary_folder()
        os.mkdir(os.path.join(self.nothing, "models"))
        self.source, lab.SOURCE = lab.SOURCE, self.nothing
        self.worker_args, self.worker_env = worker_args, env
        try:
            super().__init__(count, worker_args=worker_args, env=env)
        finally:
            lab.SOURCE = self.source
        self.model = os.path.join(self.nothing, "m.gguf")
        shutil.copy(model, self.model)

    def restart(self, i, *args, models=None):
        self.workers[i].stop()
        name = self.workers[i].name
        lab.SOURCE = self.nothing
        try:
            self.workers[i] = Worker(self.folder, name, [self.public_key], *(args or self.worker_args),
                                     *(["--models", models] if models else []), env=self.worker_env)
        finally:
            lab.SOURCE = self.source
        self.write()

    def run(self, split, *args):
        return brigade("run", "-c", self.config, "-m", self.model, "--split", split, "--stages", len(split.split(",")), *TOKENS, *args,
                       env={"BRIGADE_LOG": "info"})

    def tells(self, split, *args):
        done = self.run(split, *args)
        assert done.returncode == 0, (done.returncode, done.stderr)
        assert done.stdout == expected(), (done.stdout, expected(), done.stderr)
        sent = re.search(r"of weights \((\d+) bytes\)", done.stderr)
        return int(sent[1]) if sent else 0

    def counters(self):
        nodes = brigade_json("status", "-c", self.config)["nodes"]
        return {n["name"]: (n["weights_in"], n["weights_out"], n.get("loaded")) for n in nodes}

    def places(self):
        return {name: places_of(loaded) for name, (_, _, loaded) in self.counters().items()}

    def cache(self, i):
        found = glob.glob(os.path.join(self.folder, f"w{i}.cache", "weights", "*.gguf"))
        assert len(found) == 1, found
        return found[0]


def places_of(loaded):
    return loaded["first_block"], loaded["last_block"]


def slice_of(first, last):
    """{tensor: bytes} of a stage, the header among them, from the file's own directory."""
    told = brigade_json("inspect", MODEL, "--tensors")
    tensors = {t["name"]: t["bytes"] for t in told["tensors"]}
    assert len(tensors) > 50
    is_last = last == told["blocks"] - 1
    found = {"header": os.path.getsize(MODEL) - sum(tensors.values())}
    for name, size in tensors.items():
        block = re.match(r"blk\.(\d+)\.", name)
        embedding = name == "token_embd.weight" and (first == 0 or (is_last and "output.weight" not in tensors))
        if embedding or (block and first <= int(block[1]) <= last) or (name.startswith("output") and is_last):
            found[name] = size
    return found


def bytes_of(loaded):
    return sum(slice_of(loaded["first_block"], loaded["last_block"]).values())


def moves_what_is_lacked(cluster, split, held):
    """Runs with that split: every worker receives what its slice has and `held` (of each name, a set of tensors) has
    not, from the coordinator or from others; held grows. The bytes that travelled."""
    before = cluster.counters()
    sent = cluster.tells(split)
    after, total = cluster.counters(), 0
    for name, (received, _, loaded) in after.items():
        tensors = slice_of(loaded["first_block"], loaded["last_block"])
        lacked = sum(size for tensor, size in tensors.items() if tensor not in held[name])
        received -= before[name][0]
        if lacked:
            near(received, lacked)
        else:
            assert received == 0, (name, received)
        held[name] |= set(tensors)
        total += received
    passed_on = sum(after[n][1] - before[n][1] for n in after)
    assert sent + passed_on == total, (sent, passed_on, total)
    return total


def near(got, want):
    assert abs(got - want) <= 0.01 * want + 64, f"{got} bytes travelled where {want} belong"


def test_each_worker_receives_its_slice_and_no_more():
    cluster = Bare()
    held = {w.name: set() for w in cluster.workers}
    first = moves_what_is_lacked(cluster, "3,2,3", held)
    assert first > os.path.getsize(MODEL)  # the header goes to each
    # What is on the disk is the slice too, in a file as large as the model.
    for i in range(3):
        stat = os.stat(cluster.cache(i))
        assert stat.st_size == os.path.getsize(MODEL) and stat.st_blocks * 512 < stat.st_size, stat
    # After a fresh start, and with other splits, only what the new owners lack moves.
    for split in ("3,2,3", "2,4,2"):
        for i in range(3):
            cluster.restart(i)
        assert moves_what_is_lacked(cluster, split, held) < first
    cluster.stop()


def test_a_restart_moves_nothing():
    cluster = Bare(1)
    near(cluster.tells("8"), os.path.getsize(MODEL))
    assert cluster.tells("8") == 0
    cluster.restart(0)
    assert cluster.tells("8") == 0
    assert cluster.counters()["w0"][:2] == (0, 0)
    assert " read in " in cluster.workers[0].errors()  # not from memory: from the cache
    cluster.stop()


def only_giving(cluster, name, folder):
    """One more worker, which has the model in a folder of its own, and is so slow that no plan wants it: it only gives."""
    cluster.workers.append(Worker(cluster.folder, name, [cluster.public_key], "--models", folder, "--throttle", "500"))
    cluster.write()


def passed_on(cluster, name, models=None):
    """Has w0 receive the whole model while that worker gives too; what the coordinator sent, and the counters. A connection
    that comes to stand when all is there already gives nothing: then once more, from the start."""
    for _ in range(20):
        sent = cluster.tells("8")
        counters = cluster.counters()
        if counters[name][1] > 0:
            return sent, counters
        shutil.rmtree(os.path.join(cluster.folder, "w0.cache"))
        cluster.restart(0, models=models)
    raise AssertionError("the other worker was never asked")


def test_workers_serve_each_other():
    """One worker has the file, the other gets all of it: both the coordinator and the first worker give."""
    cluster = Bare(1)
    folder = temporary_folder()
    shutil.copy(MODEL, os.path.join(folder, "m.gguf"))
    only_giving(cluster, "full", folder)
    sent, counters = passed_on(cluster, "full")
    assert counters["full"][0] == 0, counters
    near(counters["w0"][0], os.path.getsize(MODEL))
    assert counters["w0"][0] == sent + counters["full"][1], (counters, sent)
    cluster.stop()


def damage(path, where=None):
    """Changes one byte in a part that is filled."""
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        at = where
        for at in range(size // 8, size, size // 64) if where is None else [where]:
            f.seek(at)
            if any(f.read(64)):
                break
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))


def test_a_changed_byte_on_disk_is_fetched_again():
    """One worker with all blocks: of several, which blocks are whose is the planner's choice at each start."""
    cluster = Bare(1)
    near(cluster.tells("8"), os.path.getsize(MODEL))
    damage(cluster.cache(0))
    cluster.restart(0)
    sent = cluster.tells("8")
    assert 0 < sent < os.path.getsize(MODEL) / 4, sent
    assert "are damaged; they are fetched again" in cluster.workers[0].errors()
    # The list of what is there, damaged or cut, is made anew.
    state = cluster.cache(0).replace(".gguf", ".state")
    os.truncate(state, os.path.getsize(state) - 1)
    cluster.restart(0)
    assert cluster.tells("8") > 0
    # So is the coordinator's own list of hashes.
    hashes = cluster.model + ".hashes"
    assert os.path.exists(hashes)
    damage(hashes, os.path.getsize(hashes) // 2)
    cluster.restart(0)
    assert cluster.tells("8") == 0
    # A model that changed under the same name is another model, even if only its weights did.
    damage(cluster.model, os.path.getsize(cluster.model) // 2)
    done = cluster.run("8")
    assert done.returncode == 0, done.stderr
    near(int(re.search(r"of weights \((\d+) bytes\)", done.stderr)[1]), os.path.getsize(MODEL))
    cluster.stop()


def test_one_bar_tells_how_far_it_is():
    """At the coordinator's terminal: what all workers lack is one sum, its share never falls, and the end is all of it."""
    cluster = Bare(2)
    master, slave = pty.openpty()
    run = subprocess.Popen([lab.BRIGADE, "run", "-c", cluster.config, "-m", cluster.model, "--split", "4,4", *TOKENS], stdin=slave,
                           stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:
        pass  # how a terminal ends
    os.close(master)
    assert run.wait(patience()) == 0, shown
    frames = re.findall(r"loading ([\d.]+ \w+) into 2 nodes \[[= ]*\] +(\d+) %", shown.decode())
    totals = [total for total, _ in frames]
    shares = [int(share) for total, share in frames if total == totals[-1]]
    assert shares and shares == sorted(shares) and shares[-1] == 100, frames
    assert shown.endswith(b"\r\x1b[K"), shown[-200:]  # and is wiped away
    cluster.stop()


def test_a_killed_worker_goes_on_where_it_was():
    """The kill comes in the middle of the transfer: what had come is not asked for again."""
    big = os.path.join(temporary_folder(), "big.gguf")
    done = brigade("quantize", MODEL, big, "F32")
    assert done.returncode == 0, done.stderr
    cluster = Bare(1, model=big)
    size = os.path.getsize(big)
    coordinator = subprocess.Popen([lab.BRIGADE, "run", "-c", cluster.config, "-m", cluster.model, *TOKENS, "--no-recovery"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    reaches(cluster, size // 5 + 1, coordinator)
    cluster.workers[0].stop()
    coordinator.wait(patience())
    have = os.stat(cluster.cache(0)).st_blocks * 512
    cluster.restart(0)
    done = cluster.run("8")
    assert done.returncode == 0, done.stderr
    received = cluster.counters()["w0"][0]
    assert received <= size - have + (4 << 20) + 65536, (received, have, size)
    assert have > size // 6, (have, size)
    cluster.stop()


def cached(cluster):
    """Bytes of weights that w0 has on its disk."""
    return sum(os.stat(f).st_blocks * 512 for f in glob.glob(os.path.join(cluster.folder, "w0.cache", "weights", "*.gguf")))


def reaches(cluster, goal, run):
    """Until w0 has so many bytes, to the millisecond, or the run is over."""
    end = time.monotonic() + patience()
    while run.poll() is None and (have := cached(cluster)) < goal:
        assert time.monotonic() < end, f"the transfer does not go on: {have} of {goal} bytes"
        time.sleep(0.0005)


def test_interrupted_anywhere_it_goes_on():
    """Worker or coordinator is killed after some random part of the transfer, again and again: no round begins anew. What
    is sent in all is the file, and what was on its way when somebody died."""
    big = os.path.join(temporary_folder(), "big.gguf")
    assert brigade("quantize", MODEL, big, "F32").returncode == 0
    cluster = Bare(1, model=big)
    size, sent, rounds = os.path.getsize(big), 0, 0
    draw = random.Random(int(os.environ.get("BRIGADE_TEST_SEED", "7")))
    command = [lab.BRIGADE, "run", "-c", cluster.config, "-m", cluster.model, *TOKENS, "--no-recovery"]
    while rounds < 8:
        goal, coordinators_turn = cached(cluster) + draw.randrange(1, size // 5), rounds % 2
        if goal > size:
            break
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "BRIGADE_LOG": "info"}) as run:
            reaches(cluster, goal, run)
            run.send_signal(signal.SIGINT) if coordinators_turn else cluster.workers[0].stop()
            said = run.communicate(timeout=patience())[1]
        found = re.search(r"of weights \((\d+) bytes\)", said)
        sent, rounds = sent + (int(found[1]) if found else 0), rounds + 1
        if not coordinators_turn:
            cluster.restart(0)
    if rounds < 3:  # whoever looks was held up while it all came; what follows holds anyway
        print(f"     interrupted {rounds} times only")
    done = cluster.run("8")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    found = re.search(r"of weights \((\d+) bytes\)", done.stderr)
    sent += int(found[1]) if found else 0
    # Four questions are open at once, of 1 MiB each; the list and the header's first chunk may come again.
    assert size * 0.99 < sent <= size * 1.01 + rounds * (6 << 20), (sent, size, rounds)
    cluster.restart(0)
    again = cluster.run("8")
    assert again.stdout == done.stdout and not re.search(r"of weights \((\d+) bytes\)", again.stderr), again.stderr
    cluster.stop()


def test_damaged_chunks_of_another_worker_are_refused():
    """A worker whose own file is damaged all over (its header says the same as ever) serves it: each chunk is found out, and
    comes from the coordinator instead; the damaged source is not asked any more."""
    cluster = Bare(1)
    folder = temporary_folder()
    bad = os.path.join(folder, "m.gguf")
    shutil.copy(MODEL, bad)
    size = os.path.getsize(bad)
    with open(bad, "r+b") as f:
        for at in range(slice_of(0, 0)["header"] + 100, size, 1 << 15):
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 0x55]))
    only_giving(cluster, "damaged", folder)
    sent, counters = passed_on(cluster, "damaged")
    near(sent, size)
    assert counters["w0"][0] == sent + counters["damaged"][1], (counters, sent)
    errors = cluster.workers[0].errors()
    assert "arrived damaged from another worker; asking again" in errors, errors
    assert errors.count("arrived damaged") <= 3 + 4, errors
    cluster.stop()


def test_a_split_set_travels_too():
    """A model in several files runs like the one it was cut from, whichever member is named; workers that lack it, or
    one of its files, receive their slices of it, whole sets serve, and a restart moves nothing."""
    cluster = Bare(2)
    for parts in (2, 4):
        members = gguf_split.split(MODEL, os.path.join(cluster.nothing, f"cut{parts}"), parts)
        assert brigade("run", "-m", members[-1], *TOKENS).stdout == expected()
        told, whole = brigade_json("inspect", members[0], "--tensors"), brigade_json("inspect", MODEL, "--tensors")
        assert {t["name"]: t["bytes"] for t in told["tensors"]} == {t["name"]: t["bytes"] for t in whole["tensors"]}
        headers = sum(map(os.path.getsize, members)) - sum(t["bytes"] for t in told["tensors"])
        cluster.model = members[1]
        before = cluster.counters()
        sent = cluster.tells("5,3")
        after = cluster.counters()
        received = {n: after[n][0] - before[n][0] for n in after}
        assert sum(received.values()) == sent + sum(after[n][1] - before[n][1] for n in after)
        for name, (_, _, loaded) in after.items():
            near(received[name], bytes_of(loaded) - slice_of(0, 0)["header"] + headers)
        for again in (False, True):
            for i in range(2 if again else 0):
                cluster.restart(i)
            sent = cluster.tells("5,3")
            # Who comes first is the planner's choice; where it is as before, nothing moves.
            assert sent == 0 or cluster.places() != {n: places_of(a[2]) for n, a in after.items()}, sent
    # One worker has the set itself (and only gives), another but a part of it.
    full, part = temporary_folder(), temporary_folder()
    for path in members:
        shutil.copy(path, full)
    shutil.copy(members[1], part)
    cluster.workers.pop().stop()
    shutil.rmtree(os.path.join(cluster.folder, "w0.cache"))
    cluster.restart(0, models=part)
    only_giving(cluster, "full", full)
    sent, counters = passed_on(cluster, "full", models=part)
    assert counters["full"][0] == 0 and counters["w0"][0] == sent + counters["full"][1], (counters, sent)
    # A changed byte of a set on disk is seen like any other.
    damage(cluster.cache(0))
    cluster.restart(0, models=part)
    cluster.tells("8")
    counters = cluster.counters()
    assert 0 < counters["w0"][0] <= 1 << 20, counters
    cluster.stop()


def test_a_full_disk_is_a_clear_line():
    cluster = Bare(1, worker_args=["--cache-limit", "2M"])
    one_line(quiet(cluster), 1, "cache limit is reached", "raise --cache-limit")
    cluster.stop()
    if os.geteuid() != 0 or not shutil.which("mount"):
        raise SkipTest("a small disk needs root")
    cluster = Bare(1)
    cluster.workers[0].stop()
    cache = os.path.join(cluster.folder, "w0.cache")
    os.makedirs(cache, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=66M", "tmpfs", cache], capture_output=True, text=True)
    if done.returncode:
        raise SkipTest(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        cluster.restart(0)
        one_line(quiet(cluster), 1, "the disk is full", "free some")
    finally:
        cluster.stop()
        subprocess.run(["umount", cache], check=True)


def quiet(cluster):
    return brigade("run", "-c", cluster.config, "-m", cluster.model, *TOKENS, "--no-recovery", env={"BRIGADE_LOG": "error"})


def test_without_a_cache_the_old_line_is_told():
    cluster = Bare(1)
    cluster.workers[0].stop()
    settings = os.path.join(cluster.folder, "worker.yaml")
    with open(settings, "w") as f:
        f.write(f'version: 1\nlisten: "tcp://127.0.0.1:*"\nkey: w0.key\nallow: ["{cluster.public_key}"]\nmodels: [none]\n')
    process = subprocess.Popen([lab.WORKER, "--config", settings], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        words = next_line(process).split()
        endpoint = next(w for w in words if w.startswith("tcp://"))
        cluster.write(nodes=[("w0", endpoint, cluster.workers[0].public_key)])
        one_line(quiet(cluster), 1, "m.gguf", "copy it there", "give --cache")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    # A folder that cannot be made is named.
    blocker = os.path.join(cluster.folder, "w0.cache")
    shutil.rmtree(blocker, ignore_errors=True)
    open(blocker, "w").close()
    cluster.restart(0)
    one_line(quiet(cluster), 1, blocker)
    cluster.stop()


main(globals())
