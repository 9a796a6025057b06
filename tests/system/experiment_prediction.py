"""Predicted against measured, over many clusters: is the plan's TPOT and rate what happens, and is the chosen plan the best
of all splits? One cluster a call, in a lab of scripts/testbed; as root, on a machine that does nothing else.

    tests/system/experiment_prediction.py --list
    tests/system/experiment_prediction.py --out results.jsonl 0 1 2      # those that the file lacks
    tests/system/experiment_prediction.py --out results.jsonl --table                  # for docs/planner.md

Every split (how many blocks each stage has, over 1 to all nodes, each in the planner's best order) is measured shortly; then
those within 15 % of the best, four at most, and the chosen one again, longer, three times in turns. Medians count. A
measurement during which others used the CPU is repeated. Workers run the scalar kernels: with faster ones the workers of
one machine slow each other down in its memory, which boards do not share, and a throttle multiplies that.
"""
import argparse
import itertools
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "scripts"))
import testbed_lab as lab  # noqa: E402

# name, objective, nodes: (throttle, threads, memory), links (default, by pair). Memory lies well between what two numbers of
# blocks need, for a short run needs a little less. Links are slow by their delay: the kernel's token bucket lets through at
# once what fits into its burst, and a token's activations of this model do.
CLUSTERS = [
    ("equal pair", "latency", [(3, 1, 0), (3, 1, 0)], {"bandwidth": "1Gbit"}, {}),
    ("fast and slow, memory caps", "latency", [(2, 1, "7.6M"), (5, 1, "11M")], {"bandwidth": "1Gbit"}, {}),
    ("link of a few milliseconds", "latency", [(3, 1, "8.6M"), (4, 1, "8.6M")], {"bandwidth": "50Mbit", "rtt": "6ms"}, {}),
    ("long link", "latency", [(3, 1, "8.6M"), (4, 1, "8.6M")], {"rtt": "20ms"}, {}),
    ("one alone wins over a long link", "latency", [(3, 1, 0), (4, 1, 0)], {"rtt": "10ms"}, {}),
    ("pipe for throughput", "throughput", [(4, 1, 0), (4, 1, 0)], {"bandwidth": "1Gbit"}, {}),
    ("unequal pipe", "throughput", [(3, 1, 0), (7, 1, 0)], {"bandwidth": "200Mbit"}, {}),
    ("three with caps", "latency", [(3, 1, "6.8M"), (4, 1, "6.8M"), (5, 1, "6.8M")], {"bandwidth": "500Mbit"}, {}),
    ("three for throughput", "throughput", [(4, 1, 0), (6, 1, 0), (8, 1, 0)], {"bandwidth": "500Mbit"}, {}),
    ("three, unequal links", "latency", [(4, 1, "6.8M"), (4, 1, "6.8M"), (5, 1, "6.8M")], {"bandwidth": "1Gbit"},
     {(0, 1): {"rtt": "20ms"}, (0, 2): {"rtt": "8ms"}}),
    ("a slow board that is needed", "latency", [(3, 1, "7.6M"), (12, 1, "11M")], {"bandwidth": "1Gbit"}, {}),
    ("a pipe over a slow link", "throughput", [(4, 1, 0), (4, 1, 0)], {"bandwidth": "2Mbit", "rtt": "2ms"}, {}),
    ("two threads and a long link", "latency", [(5, 2, "8.6M"), (3, 1, "8.6M")], {"rtt": "4ms"}, {}),
    ("four for throughput", "throughput", [(6, 1, 0), (6, 1, 0), (8, 1, 0), (12, 1, 0)], {"bandwidth": "1Gbit"}, {}),
]
PAST, TOKENS, CACHE = 16, 24, 512
SHORT, WORSE, FINALISTS, TURNS = 6, 1.15, 3, 3
TICKS = os.sysconf("SC_CLK_TCK")


def busy():
    fields = [int(x) for x in open("/proc/stat").readline().split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICKS


def of_process(pid):
    try:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return sum(int(x) for x in fields[11:15]) / TICKS
    except OSError:
        return 0


class Others:
    """CPU that nobody of ours used."""

    def __init__(self, bed):
        self.bed = bed
        self.mark = self.now()
        self.since = time.monotonic()

    def now(self):
        ours = resource.getrusage(resource.RUSAGE_CHILDREN)
        mine = resource.getrusage(resource.RUSAGE_SELF)
        return (busy() - ours.ru_utime - ours.ru_stime - mine.ru_utime - mine.ru_stime -
                sum(of_process(p.pid) for p in self.bed.processes))

    def cores(self):
        return (self.now() - self.mark) / max(0.01, time.monotonic() - self.since)


def bench(bed, config, model, objective, split, microbatches, repeat, tokens=TOKENS, batches="1,4"):
    """One run of bench: its JSON, again until nobody disturbed it."""
    least = None
    for _ in range(3):
        others = Others(bed)
        done = subprocess.run(bed.command(bed.brigade, "bench", "-c", config, "-m", model, "-p", 0, "-n", tokens, "-b", batches,
                                          "--past", PAST, "--kv-tokens", CACHE, "-r", repeat, "--objective", objective, "--split",
                                          ",".join(map(str, split)), "--microbatches", microbatches, "--json"),
                              capture_output=True, text=True)
        cores = others.cores()
        if done.returncode:
            return None, done.stderr.strip()
        if least is None or cores < least[0]:
            least = cores, json.loads(done.stdout)
        if cores < 0.1:
            break
    return least[1], least[0]


def plan(bed, config, model, objective, split=None):
    """(split, micro-batches) of the plan, of the best one or of the best order for a split."""
    command = [bed.brigade, "plan", "-c", config, "-m", model, "--objective", objective, "--prompt-tokens", PAST,
               "--output-tokens", TOKENS, "--concurrency", 4 if objective == "throughput" else 1, "--ctx", PAST + TOKENS + 1, "--kv-tokens", CACHE,
               "--json", *(["--split", ",".join(map(str, split))] if split else [])]
    done = subprocess.run(bed.command(*command), capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip()
    found = json.loads(done.stdout)
    blocks = tuple(s["last_block"] - s["first_block"] + 1 for s in found["stages"])
    return (blocks, found["microbatches"] if objective == "throughput" else len(blocks)), ""


def measure_each_alone(bed, names, model, objective):
    """Boards do not share a memory, as the workers of a lab do: each is measured while the others rest. Their caches keep it."""
    for name in names:
        alone = os.path.join(bed.folder, f"{name}.alone.yaml")
        bed.write(alone, only=name)
        plan(bed, alone, model, objective)  # whether it holds the model alone or not
        bench(bed, alone, model, objective, (1,), 1, 1, 2)


def compositions(blocks, parts):
    for cuts in itertools.combinations(range(1, blocks), parts - 1):
        marks = (0, *cuts, blocks)
        yield tuple(b - a for a, b in zip(marks, marks[1:]))


def rate(document):
    """Tokens a second of the one row that was asked for."""
    return document["rows"][0]["tokens_per_s"]


def run(number, build, model):
    name, objective, nodes, default, pairs = CLUSTERS[number]
    names = [f"n{i}" for i in range(len(nodes))]
    document = {
        "version": 1,
        "nodes": [{"name": n, **({"memory": memory} if memory else {})} for n, (_, _, memory) in zip(names, nodes)],
        "kv": {"type": "f16", "tokens": CACHE},
        "testbed": {
            "nodes": {n: {"throttle": throttle, "threads": threads, "isa": "scalar"} for n, (throttle, threads, _) in zip(names, nodes)},
            "links": [{"from": a, "to": b, **(pairs.get((i, j)) or default)}
                      for i, a in enumerate(names) for j, b in enumerate(names) if i < j],
        },
    }
    with lab.Bed(document, build, [os.path.dirname(model)]) as bed:
        measure_each_alone(bed, names, model, objective)
        found, why = plan(bed, bed.config, model, objective)
        if not found:
            raise lab.BedError(why)
        split, microbatches = found
        first, note = bench(bed, bed.config, model, objective, split, microbatches, 3)
        if first is None:
            raise lab.BedError(note)
        result = {"cluster": number, "name": name, "objective": objective, "split": split,
                  "devices": [s["device"] for s in first["stage_list"]], "microbatches": microbatches, "others": note,
                  "predicted_tpot_ms": 1e3 / first["rows"][0]["predicted_tokens_per_s"],
                  "predicted_tokens_per_s": first["rows"][1]["predicted_tokens_per_s"]}
        blocks = first["stage_list"][-1]["last_block"] + 1
        known = os.path.join(bed.folder, "known.yaml")  # links as they are: not measured again and again
        bed.write(known, [{"from": link["from"], "to": link["to"], "bandwidth": link.get("bandwidth", "1Gbit"),
                           "rtt": link.get("rtt", "0.2ms")} for link in document["testbed"]["links"]])
        rates, groups, refused = {}, {}, 0
        one_row = "4" if objective == "throughput" else "1"
        for parts in range(1, len(nodes) + 1):
            for candidate in compositions(blocks, parts):
                groups[candidate] = microbatches if candidate == split else parts
                found, why = bench(bed, known, model, objective, candidate, groups[candidate], 1, SHORT, one_row)
                if found:
                    rates[candidate] = rate(found)
                else:
                    refused += 1
                    if "fit" not in why and "need" not in why:
                        raise lab.BedError(why)
        # Those that may be the best, and ours, again and longer, in turns: what disturbs a minute disturbs them all. Who is
        # clearly worse is measured no further.
        within = [f for f in sorted(rates, key=rates.get, reverse=True) if rates[f] * WORSE > max(rates.values())]
        finalists = within[:FINALISTS] + ([split] if split not in within[:FINALISTS] else [])
        again, rows = {f: [] for f in finalists}, []
        for turn in range(TURNS):
            for f in finalists if turn % 2 else reversed(finalists):
                found, _note = bench(bed, known, model, objective, f, groups[f], 1, TOKENS, "1,4" if f == split else one_row)
                if f == split:
                    rows.append([row["tokens_per_s"] for row in found["rows"]])
                    again[f].append(rows[-1][one_row == "4"])
                else:
                    again[f].append(rate(found))
        one, four = (statistics.median(x) for x in zip(*rows))
        middle = {f: statistics.median(values) for f, values in again.items()}
        best = max(middle, key=middle.get)
        result.update(tpot_ms=1e3 / one, tokens_per_s=four, candidates=len(rates), refused=refused, best=best,
                      spread_percent=100 * (max(again[split]) / min(again[split]) - 1), finalists=len(finalists),
                      behind_best_percent=100 * (middle[best] / middle[split] - 1))
    return result


def table(path):
    rows = {}
    with open(path) as f:
        for line in f:
            row = json.loads(line)
            rows[row["cluster"]] = row
    print("| cluster | objective | chosen | TPOT ms, predicted | measured | off | tokens/s of 4, predicted | measured | off "
          "| splits | behind the best |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for number, row in sorted(rows.items()):
        off = [100 * (row[f"predicted_{k}"] / row[k] - 1) for k in ("tpot_ms", "tokens_per_s")]
        plan = ", ".join(f"{d}: {n}" for d, n in zip(row["devices"], row["split"]))
        print(f"| {row['name']} | {row['objective']} | {plan} | {row['predicted_tpot_ms']:.2f} | "
              f"{row['tpot_ms']:.2f} | {off[0]:+.0f} % | {row['predicted_tokens_per_s']:.0f} | {row['tokens_per_s']:.0f} | "
              f"{off[1]:+.0f} % | {row['candidates']} | {row['behind_best_percent']:.1f} % |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"))
    parser.add_argument("--model", default=os.path.join(SOURCE, "models", "stories-5m-q8_0.gguf"), help="default: the shipped one")
    parser.add_argument("--out", default="prediction.jsonl")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--limit", type=float, help="begin no further cluster that may take longer than so many seconds in all")
    parser.add_argument("clusters", nargs="*", type=int)
    o = parser.parse_args()
    if o.list:
        for i, c in enumerate(CLUSTERS):
            print(i, *c)
    if o.table:
        table(o.out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is taken down on the way out
    started, longest = time.monotonic(), 0
    done = set()
    if os.path.exists(o.out):
        with open(o.out) as f:
            done = {json.loads(line)["cluster"] for line in f}
    for number in o.clusters:
        if number in done:
            continue
        begun = time.monotonic()
        if o.limit and begun - started + longest > o.limit:
            break
        result = run(number, os.path.abspath(o.build), os.path.abspath(o.model))
        with open(o.out, "a") as f:
            f.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)
        longest = max(longest, time.monotonic() - begun)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lab.BedError as error:
        print(f"experiment: {error}", file=sys.stderr)
        sys.exit(1)
