"""The command contract: JSON keys, exit codes, one-line errors, help with an example."""
import json
import os
import stat
import subprocess

from lab import BRIGADE, MODEL, PROMPT, WORKER, brigade, brigade_json, main, one_line, patience, temporary_folder

FOLDER = temporary_folder()
COMMANDS = "run plan bench status keygen inspect quantize tokenize detokenize logits perplexity".split()


def test_help_and_usage():
    for command in COMMANDS:
        done = brigade(command, "--help")
        assert done.returncode == 0 and "Example:" in done.stdout and f"brigade {command}" in done.stdout, command
        done = brigade(command, "--no-such-flag")
        assert one_line(done, 2, "--no-such-flag", "--help")
    assert brigade("--help").returncode == 0
    assert brigade().returncode == 2
    one_line(brigade("dance"), 2, "dance")
    one_line(brigade("run", "-m", MODEL), 2, "-p")
    one_line(brigade("run", "-p", "x"), 2, "-m")
    one_line(brigade("run", "-m", MODEL, "-p", "x", "--temp", "hot"), 2, "hot", "--temp")
    one_line(brigade("run", "-m", MODEL, "-p", "x", "--top-p", "7"), 2, "--top-p")
    assert subprocess.run([WORKER, "--help"], capture_output=True).returncode == 0


def test_keygen():
    path = os.path.join(FOLDER, "node.key")
    key = brigade_json("keygen", "-o", path)["public_key"]
    assert len(key) == 40
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    one_line(brigade("keygen", "-o", path), 1, "node.key")
    one_line(brigade("keygen", "-o", os.path.join(FOLDER, "no", "such", "folder", "k")), 1, "folder")


def test_tokenize_and_back():
    ids = brigade_json("tokenize", "-m", MODEL, "-p", PROMPT)["ids"]
    assert ids[0] == 1 and len(ids) > 5
    assert brigade_json("tokenize", "-m", MODEL, "-p", PROMPT, "--no-bos")["ids"] == ids[1:]
    assert brigade_json("detokenize", "-m", MODEL, "--tokens", ",".join(map(str, ids)))["text"] == PROMPT
    odd = "naïve 😀\n\ttabs"
    ids = brigade_json("tokenize", "-m", MODEL, "-p", odd)["ids"]
    assert brigade_json("detokenize", "-m", MODEL, "--tokens", ",".join(map(str, ids)))["text"] == odd
    one_line(brigade("detokenize", "-m", MODEL, "--tokens", "99999"), 2, "99999")


def test_inspect():
    facts = brigade_json("inspect", MODEL)
    assert facts["architecture"] == "llama" and facts["blocks"] == 8 and 5_000_000 < facts["parameters"] < 6_000_000
    assert len(brigade_json("inspect", MODEL, "--tensors")["tensors"]) > 8 * 9
    assert "llama" in brigade("inspect", MODEL).stdout
    one_line(brigade("inspect", __file__), 1, "test_cli.py", "GGUF")
    one_line(brigade("inspect", "/no/such/file.gguf"), 1, "/no/such/file.gguf")


def test_run_json():
    answer = brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", 12, "--temp", 0)
    for key in "text tokens prompt_tokens ttft_ms tpot_ms finish_reason stages".split():
        assert key in answer, key
    assert len(answer["tokens"]) == 12 and answer["finish_reason"] == "length" and answer["stages"] == 1
    plain = brigade("run", "-m", MODEL, "-p", PROMPT, "-n", 12, "--temp", 0)
    assert plain.returncode == 0 and plain.stdout == answer["text"] + "\n", plain
    stopped = brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", 60, "--temp", 0, "--stop", answer["text"][10:16])
    assert stopped["finish_reason"] == "stop" and answer["text"][10:16] not in stopped["text"]
    assert answer["text"].startswith(stopped["text"])


def test_prompt_over_the_context():
    path = os.path.join(FOLDER, "long.txt")
    with open(path, "w") as f:
        f.write("once upon a time there was a dog. " * 200)
    line = one_line(brigade("run", "-m", MODEL, "-f", path, "-n", 5), 1)
    assert "512" in line, line


def test_logits_keys():
    numbers = brigade_json("logits", "-m", MODEL, "--tokens", "1,403,407,261", "--top", 5, "--greedy", 3, "--bits")
    assert numbers["n_vocab"] == 2048 and len(numbers["nll"]) == 3 and len(numbers["top"]) == 5
    assert len(numbers["greedy"]) == 3 and numbers["greedy"][0][0] == numbers["top"][0][0]
    logits = [v for _, v in numbers["top"]]
    assert logits == sorted(logits, reverse=True) and 0 <= numbers["crc32"] < 2 ** 32
    margin = logits[0] - logits[1]
    assert abs(numbers["greedy"][0][1] - margin) < 1e-3 * max(1, abs(margin))
    assert "top" not in brigade_json("logits", "-m", MODEL, "--tokens", "1,403", "--nll")


def test_plan_keys():
    for case in ([], ["--stages", 3]):
        plan = brigade_json("plan", "-m", MODEL, *case)
        blocks = [b for s in plan["stages"] for b in range(s["first_block"], s["last_block"] + 1)]
        assert blocks == list(range(8)), plan["stages"]
        for key in "device memory_bytes decode_ms prefill_ms".split():
            assert all(key in s for s in plan["stages"]), key
        for key in "tpot_ms ttft_ms tokens_per_s bottleneck".split():
            assert key in plan["predicted"], key
        assert plan["objective"] == "latency" and plan["microbatches"] >= 1
    assert [s["last_block"] for s in brigade_json("plan", "-m", MODEL, "--stages", 2, "--split", "3,5")["stages"]] == [2, 7]
    one_line(brigade("plan", "-m", MODEL, "--stages", 2, "--split", "3,4"), 2, "8")


def test_what_if():
    path = os.path.join(FOLDER, "what-if.yaml")
    with open(path, "w") as f:
        f.write("""model:
  hidden: 4096
  embedding_bytes: 262144000
  head: {weight_bytes: 131072000, flops_per_token: 262144000}
  blocks:
    - {repeat: 32, weight_bytes: 122683392, flops_per_token: 436207616, attention_flops: 16384, kv_bytes: 16384}
devices:
  - {name: pi5, memory: 7.2e9, read: 9.5e9, compute: 45e9, overhead_us: 150, buffers: 2.0e8}
  - {name: orin, memory: 6.0e9, read: 50e9, compute: 900e9, overhead_us: 200, buffers: 3.0e8}
coordinator: pi5
links:
  default: {bandwidth: 117e6, rtt_us: 300}
workload: {prompt_tokens: 512, output_tokens: 128, concurrency: 1, context: 1024, kv_tokens: 4096, chunk: 256, value_bytes: 4}
objective: latency
""")
    plan = brigade_json("plan", "--what-if", path)
    assert plan["stages"][0]["first_block"] == 0 and plan["stages"][-1]["last_block"] == 31
    assert plan["predicted"]["tpot_ms"] > 0
    requests, svg = os.path.join(FOLDER, "requests.csv"), os.path.join(FOLDER, "plan.svg")
    with open(requests, "w") as f:
        f.write("arrival_s,prompt_tokens,output_tokens\n0,512,16\n1.5,100,8\n")
    simulated = brigade_json("plan", "--what-if", path, "--simulate", requests, "--slo", "ttft=60s,tpot=5s", "--gantt", svg)
    assert simulated["simulation"]["finished"] == 2 and simulated["simulation"]["good"] == 2
    assert open(svg).read().lstrip().startswith(("<?xml", "<svg"))
    with open(path, "a") as f:
        f.write("colour: blue\n")
    one_line(brigade("plan", "--what-if", path), 1, "what-if.yaml:15", "colour")


def test_bench_trace_tells_the_parts_of_a_hop():
    trace = brigade_json("bench", "-m", MODEL, "-p", "0", "-n", 4, "-t", 1, "-r", 1, "--stages", 2, "--trace")["trace"]
    assert [stage["stage"] for stage in trace["stages"]] == [0, 1] and trace["hop_us"] > 0
    hop = trace["hop"]
    assert hop["bytes"] > 0 and hop["wakes"] == 3 and hop["wire_us"] >= 0
    assert all(hop[part] > 0 for part in ("serialise_us", "encrypt_us", "decrypt_us", "wake_us"))


def test_bench_plans_for_what_it_measures():
    """One sequence takes as long however blocks are dealt, and 7 and 1 save it a little; several want equal stages."""
    stages = brigade_json("bench", "-m", MODEL, "-p", "0", "-n", 12, "-b", 8, "-t", 1, "-r", 1, "--stages", 2)["stage_list"]
    assert all(s["last_block"] - s["first_block"] >= 1 for s in stages), stages


def test_bench_keys():
    bench = brigade_json("bench", "-m", MODEL, "-p", "16", "-n", 8, "-b", "1,2", "-t", 1, "-r", 1)
    assert {(r["kind"], r["tokens"], r["batch"]) for r in bench["rows"]} == {("pp", 16, 1), ("tg", 8, 1), ("tg", 8, 2)}
    for row in bench["rows"]:
        assert row["tokens_per_s"] > 0 and row["threads"] == 1 and row["stages"] == 1
    assert bench["read_gbps"] > 0.1 and 4e6 < bench["weight_bytes_per_token"] < 9e6


def test_cores_stay_awake_or_it_is_said_why_not():
    latency = "/dev/cpu_dma_latency"
    try:
        os.close(os.open(latency, os.O_WRONLY))
        may = True
    except OSError:
        may = False
    done = brigade("run", "-m", MODEL, "-p", PROMPT, "-n", "2", "--awake")
    if may:
        assert done.returncode == 0 and done.stdout, done
    else:
        one_line(done, 1, latency, "--awake")
    node = os.path.join(FOLDER, "awake.key")
    public = brigade_json("keygen", "-o", node)["public_key"]
    worker = [WORKER, "--listen", "tcp://127.0.0.1:*", "--key", node, "--allow", public, "--awake"]
    one_line(subprocess.run([*worker, "maybe"], capture_output=True, text=True), 2, "awake", "maybe")
    if not may:
        one_line(subprocess.run([*worker, "on"], capture_output=True, text=True), 1, latency)


def test_quantize_and_perplexity():
    f32, q4 = (os.path.join(FOLDER, name) for name in ("f32.gguf", "q4.gguf"))
    assert brigade_json("quantize", MODEL, f32, "F32")["bits_per_weight"] > 31
    made = brigade_json("quantize", f32, q4, "Q4_0")
    assert made["bytes"] == os.path.getsize(q4) and 4 < made["bits_per_weight"] < 6
    text = os.path.join(FOLDER, "story.txt")
    with open(text, "w") as f:
        f.write(brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", 300, "--seed", 3, "--ignore-eos")["text"])
    numbers = {m: brigade_json("perplexity", "-m", m, "-f", text, "--ctx", 64)["perplexity"] for m in (MODEL, f32, q4)}
    assert abs(numbers[MODEL] / numbers[f32] - 1) < 0.02 and numbers[q4] < numbers[f32] * 1.3, numbers
    over = brigade_json("perplexity", "-m", MODEL, "-f", text, "--ctx", 64, "--stages", 2)["perplexity"]
    assert over == numbers[MODEL]
    one_line(brigade("quantize", f32, q4, "Q9_9"), 2, "Q9_9")
    one_line(brigade("quantize", "/no/such.gguf", q4, "Q4_0"), 1, "/no/such.gguf")


def test_full_disk_and_closed_pipe():
    done = subprocess.run(f"{BRIGADE} run -m {MODEL} -p 'Once' -n 5 > /dev/full", shell=True, capture_output=True, text=True)
    one_line(done, 1, "standard output")
    done = subprocess.run(f"{BRIGADE} run -m {MODEL} -p 'Once' -n 200 --ignore-eos | head -c 5", shell=True, capture_output=True,
                          text=True, timeout=patience())
    assert done.stdout and "Traceback" not in done.stderr


def test_torn_model():
    path = os.path.join(FOLDER, "torn.gguf")
    whole = open(MODEL, "rb").read()
    for size in (0, 3, 24, 1000, len(whole) // 2, len(whole) - 1):
        with open(path, "wb") as f:
            f.write(whole[:size])
        one_line(brigade("run", "-m", path, "-p", "x"), 1, "torn.gguf")


main(globals())
