"""The same bits whatever the split, the batch, the threads, the ISA level: one checksum of the raw logits for all."""
import os
import shutil
import subprocess

import lab
from lab import MODEL, PROMPT, Cluster, SkipTest, Worker, brigade, brigade_json, main, patience, temporary_folder

FOLDER = temporary_folder()


def model_of(kind):
    """The shipped model, and F32 and Q4_0 files made from it."""
    path = os.path.join(FOLDER, f"stories-{kind}.gguf")
    if kind == "q8_0":
        return MODEL
    if not os.path.exists(path):
        source = MODEL if kind == "f32" else model_of("f32")
        done = brigade("quantize", source, path, kind.upper())
        assert done.returncode == 0, done.stderr
    return path


def crc(model, *args, env=None):
    return brigade_json("logits", "-m", model, "-p", PROMPT, "--bits", "--top", 1, *args, env=env)["crc32"]


def all_equal(kind):
    model = model_of(kind)
    want = crc(model, "--threads", 1)
    cases = [["--threads", 2]]
    cases += [["--stages", k, "--threads", 1] for k in (2, 3, 5)]
    cases += [["--split", f"{a},{8 - a}", "--threads", 1] for a in range(1, 8)]
    cases += [["--stages", 2, "--split", f"{a},{8 - a}", "--threads", 1] for a in (1, 4, 7)]
    cases += [["--chunk", n, "--threads", 1] for n in (1, 7, 64)]
    cases += [["--stages", 3, "--chunk", n, "--threads", 1] for n in (1, 7)]
    for case in cases[:: int(os.environ.get("BRIGADE_TEST_THIN", "1"))]:
        got = crc(model, *case)
        assert got == want, f"{kind} with {case}: {got:08x}, not {want:08x}"
    return want


def test_q8_0():
    all_equal("q8_0")


def test_caches():
    """The same with caches of f16 and of 8 bits."""
    for kv in ("f16", "q8"):
        want = crc(MODEL, "--kv-type", kv)
        for case in (["--stages", 3], ["--chunk", 7], ["--chunk", 1, "--split", "3,5"]):
            got = crc(MODEL, "--kv-type", kv, *case)
            assert got == want, f"{kv} with {case}: {got:08x}, not {want:08x}"


def test_q4_0():
    all_equal("q4_0")


def test_f32():
    all_equal("f32")


def test_prefill_equals_decode():
    """Greedy tokens decoded one by one, then the whole text prefilled: the same logits after the last token."""
    ids = brigade_json("tokenize", "-m", MODEL, "-p", PROMPT)["ids"]
    made = brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", 20, "--temp", 0, "--ignore-eos")["tokens"]
    assert len(made) == 20
    for cut in (1, 10, 19):
        text = ",".join(map(str, ids + made[:cut]))
        greedy = brigade_json("logits", "-m", MODEL, "--tokens", text, "--greedy", 20 - cut)["greedy"]
        assert [g[0] for g in greedy] == made[cut:], f"after {cut} tokens"


def test_every_isa_level():
    done = brigade("logits", "-m", MODEL, "-p", PROMPT, env={"BRIGADE_ISA": "pdp11"})
    assert done.returncode == 1 and "scalar" in done.stderr, done.stderr
    tried = []
    for kind in ("q8_0", "q4_0", "f32"):
        want = crc(model_of(kind), env={"BRIGADE_ISA": "scalar"})
        for level in ("avx2", "avx512", "neon", "dotprod", "i8mm"):
            if level in done.stderr:
                got = crc(model_of(kind), env={"BRIGADE_ISA": level})
                assert got == want, f"{kind} at {level}: {got:08x}, not {want:08x}"
                tried.append(level)
    if not tried:
        raise SkipTest("this CPU has only the scalar level")


def test_links_round_only_when_asked_and_only_where_that_pays():
    want = crc(MODEL)
    slow = "links: [{from: w0, to: w1, bandwidth: 100kbit, rtt: 1ms}]\n"
    fast = "links: [{from: w0, to: w1, bandwidth: 10Gbit, rtt: 0.2ms}]\n"
    cluster = Cluster(2, slow)
    two = ["-c", cluster.config, "--stages", 2]
    assert crc(MODEL, *two) == want
    plan = brigade_json("plan", "-m", MODEL, *two)
    assert "exact" not in plan and "codec" not in plan["stages"][0], plan
    cluster.write(slow + "activations: auto\n")
    plan = brigade_json("plan", "-m", MODEL, *two)
    assert plan["exact"] is False and plan["stages"][0]["codec"] in ("f16", "q8") and "codec" not in plan["stages"][1], plan
    assert plan["value_ms"] <= 0.9 * plan["exact_value_ms"] and plan["rounded_value_ms"] <= plan["value_ms"] * 1.0001, plan
    text = brigade("plan", "-m", MODEL, *two).stdout
    assert f"{plan['stages'][0]['codec']} activations" in text and "not exact: " in text, text
    assert crc(MODEL, *two) != want  # the workers do what the plan says
    assert crc(MODEL, *two, "--codec", "f32") == want
    cluster.write(fast + "activations: auto\n")
    plan = brigade_json("plan", "-m", MODEL, *two)
    assert plan["exact"] is True and plan["stages"][0]["codec"] == "f32", plan
    assert "exact: f32 activations on all links" in brigade("plan", "-m", MODEL, *two).stdout
    assert crc(MODEL, *two) == want == crc(MODEL, *two, "--codec", "auto")
    assert crc(MODEL, *two, "--codec", "q8") != want
    cluster.stop()


def test_seeded_sampling_is_the_same_over_any_split():
    args = ["run", "-m", MODEL, "-p", PROMPT, "-n", 40, "--seed", 7, "--temp", 1]
    want = brigade_json(*args)
    for case in (["--stages", 2], ["--stages", 4, "--split", "1,2,3,2"], ["--threads", 2, "--chunk", 3]):
        got = brigade_json(*args, *case)
        assert got["tokens"] == want["tokens"] and got["text"] == want["text"], case
        assert got["stages"] == (int(case[1]) if case[0] == "--stages" else 1)
    assert brigade_json(*args[:-3], 8, "--temp", 1)["tokens"] != want["tokens"]


def test_arm64_under_qemu():
    """An arm64 build, when its folder is named: the same checksums."""
    arm = os.environ.get("BRIGADE_ARM64")
    if not arm:
        raise SkipTest("BRIGADE_ARM64 names no arm64 build of brigade")
    for kind in ("q8_0", "q4_0", "f32"):
        want = crc(model_of(kind))
        for level in ("scalar", "neon", "dotprod", "i8mm"):
            done = subprocess.run(["qemu-aarch64", "-cpu", "max", arm, "logits", "-m", model_of(kind), "-p", PROMPT, "--bits",
                                   "--top", "1", "--threads", "2"], capture_output=True, text=True, timeout=patience(300),
                                  env={**os.environ, "BRIGADE_ISA": level})
            assert f"crc32 {want:08x}" in done.stdout, f"{kind} at {level}: {done.stdout[-80:]} {done.stderr}"


def test_arm64_workers_in_one_pipeline_with_this_machine():
    """Two arm64 workers under qemu, which receive their slices from here, and one of this machine: one checksum."""
    arm = os.environ.get("BRIGADE_ARM64")
    if not arm:
        raise SkipTest("BRIGADE_ARM64 names no arm64 build of brigade")
    worker = os.path.join(os.path.dirname(os.path.dirname(arm)), "worker", "brigade-worker")
    wrapper, nothing = os.path.join(FOLDER, "arm64-worker"), temporary_folder()
    with open(wrapper, "w") as f:
        f.write(f'#!/bin/sh\nexec qemu-aarch64 -cpu max -L / "{worker}" "$@"\n')
    os.chmod(wrapper, 0o755)
    model = os.path.join(nothing, "m.gguf")
    shutil.copy(MODEL, model)
    cluster = Cluster(0)
    here = lab.WORKER
    for name, program in (("arm0", wrapper), ("here", here), ("arm1", wrapper)):
        lab.WORKER, lab.SOURCE = program, nothing
        try:
            cluster.workers.append(Worker(cluster.folder, name, [cluster.public_key]))
        finally:
            lab.WORKER, lab.SOURCE = here, os.path.dirname(os.path.dirname(MODEL))
    cluster.write()
    levels = [w.ready.split(" isa ")[1].split()[0] for w in cluster.workers]
    assert levels[0] in ("neon", "dotprod", "i8mm") and levels[0] != levels[1], levels
    assert crc(model, "-c", cluster.config, "--stages", 3, "--split", "3,3,2") == crc(MODEL)
    cluster.stop()


main(globals())
