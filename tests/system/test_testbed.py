"""The lab of scripts/testbed: unequal workers, a slow and long wire, limits; and that it is gone afterwards. As root only."""
import json
import os
import subprocess
import shutil

from lab import BRIGADE, MODEL, SOURCE, SkipTest, main, one_line, temporary_folder

BUILD = os.path.dirname(os.path.dirname(BRIGADE))
TESTBED = os.path.join(SOURCE, "scripts", "testbed")
LAB = """version: 1
nodes: [{name: slow, memory: 9M}, {name: fast, memory: 9M}]
kv: {type: f16, tokens: 512}
testbed:
  nodes: {slow: {throttle: 12}, fast: {throttle: 2}}
  links: [{from: slow, to: fast, bandwidth: 20Mbit, back: 60Mbit, rtt: 4ms}]
"""


def testbed(text, *command):
    path = os.path.join(temporary_folder(), "lab.yaml")
    with open(path, "w") as f:
        f.write(text)
    return subprocess.run([TESTBED, "--build", BUILD, path, "--", *command], capture_output=True, text=True, timeout=120)


def spaces():
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout


def need_lab():
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        raise SkipTest("needs root, ip and tc")
    probe = f"brigade-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        raise SkipTest("no network namespaces here")
    subprocess.run(["ip", "netns", "del", probe], check=True)


def test_a_lab_is_built_measured_and_taken_down():
    need_lab()
    done = testbed(LAB, BRIGADE, "plan", "-c", "CONFIG", "-m", MODEL, "--ctx", "128", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    blocks = {s["device"]: s["last_block"] - s["first_block"] + 1 for s in plan["stages"]}
    assert set(blocks) == {"slow", "fast"}, plan["stages"]  # neither holds it all
    assert blocks["fast"] > blocks["slow"], blocks
    # Half of 4 ms for the activations, and what the stages need: the wire is in the prediction.
    assert plan["predicted"]["tpot_ms"] > 2, plan["predicted"]
    assert not [line for line in spaces().splitlines() if line.startswith("bb") and f"bb{os.getpid()}" in line]


def test_what_is_wrong_is_said():
    if os.geteuid():
        one_line(testbed(LAB, "true"), 1, "root")
        return
    one_line(testbed(LAB.replace("throttle: 12", "trottle: 12"), "true"), 1, "trottle", "throttle")
    one_line(testbed(LAB.replace("20Mbit", "fast"), "true"), 1, "bandwidth", "100Mbit")


if __name__ == "__main__":
    main(globals())
