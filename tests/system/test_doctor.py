"""What the doctor says of networks, clocks and boards that are not as they should be, each made so: namespaces with frames
that do not fit, interfaces of a recorded tree, a clock that goes wrong, a key that others can read. Needs root."""
import json
import os
import re
import shutil
import subprocess

from lab import BRIGADE, SkipTest, WORKER, keygen, main, next_line, patience, temporary_folder
from lab_network import BUILD
from test_tour import Network

SKEW = os.path.join(BUILD, "tests", "system", "libskewed_clock.so")


class Board:
    """A worker on the machine `board` of a network, and the coordinator on `laptop`."""

    def __init__(self, network, env=None, cap=""):
        self.network, self.folder = network, temporary_folder()
        allow = keygen(os.path.join(self.folder, "coordinator.key"))
        self.public_key = keygen(os.path.join(self.folder, "node.key"))
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", network.space("board"), "env", *[f"{k}={v}" for k, v in (env or {}).items()], WORKER, "--listen",
             "tcp://0.0.0.0:7700", "--key", os.path.join(self.folder, "node.key"), "--name", "attic", "--allow", allow, "--threads", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert next_line(self.process)
        with open(os.path.join(self.folder, "cluster.yaml"), "w") as f:
            f.write(f'version: 1\ncoordinator: {{key: coordinator.key}}\nnodes:\n  - {{name: attic, endpoint: "tcp://192.168.7.11:7700", '
                    f'public_key: "{self.public_key}"{cap}}}\n')

    def findings(self):
        done = subprocess.run(["ip", "netns", "exec", self.network.space("laptop"), BRIGADE, "doctor", "-c",
                               os.path.join(self.folder, "cluster.yaml"), "--wait", "2", "--json"], capture_output=True, text=True, timeout=patience())
        report = json.loads(done.stdout)
        found = {f["check"]: (f["level"], f["text"]) for f in report["nodes"][0]["findings"]}
        assert (done.returncode == 1) == any(level == "bad" for level, _ in found.values()), done
        return found

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def mtu(network, machine, device, size):
    """Sent as single frames: a kernel that hands on several at once (segmentation left to a card) minds no switch's size."""
    network.run(machine, "ip", "link", "set", device, "mtu", str(size), "gso_max_segs", "1")


def judged(found, check, level, *words):
    assert check in found and found[check][0] == level, (check, found)
    for word in words:
        assert word in found[check][1], (word, found[check])


def test_frames_that_do_not_fit_are_found():
    network = Network(["laptop", "board"])
    board = Board(network)
    try:
        judged(board.findings(), "mtu", "good", "1500; large packets arrive")
        # Jumbo frames on one end only: TCP agrees on the smaller size, but it should be set.
        mtu(network, "laptop", "eth0", 9000)
        judged(board.findings(), "mtu", "hint", "9000 here, 1500 there", "set the same")
        # On both ends, over a switch that does not carry them.
        mtu(network, "board", "eth0", 9000)
        judged(board.findings(), "mtu", "bad", "small packets arrive, large ones do not", "here 9000, there 9000", "on the switch")
        for end in ("port0", "port1", "br0"):
            mtu(network, "lan", end, 9000)
        judged(board.findings(), "mtu", "good", "9000; large packets arrive")
    finally:
        board.end()
        network.remove()


def test_interfaces_are_judged():
    network = Network(["laptop", "board"])
    slow = {"mtu": "1500", "speed": "100", "duplex": "full"}
    for files, level, words in (({**slow, "speed": "1000"}, "good", ["eth0, 1000 Mbit/s"]), (slow, "hint", ["100 Mbit/s", "gigabit"]),
                                ({**slow, "duplex": "half"}, "bad", ["half duplex", "cable"]),
                                ({"mtu": "1500", "wireless/power_save": "0", "phy80211/name": "phy0"}, "hint", ["Wi-Fi", "cable"]),
                                ({"mtu": "1500", "wireless/power_save": "1"}, "bad", ["power saving", "iw dev eth0 set power_save off"])):
        root = temporary_folder()
        for name, text in files.items():
            path = os.path.join(root, "sys/class/net/eth0", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "w").write(text + "\n")
        board = Board(network, env={"BRIGADE_TEST_SENSORS": root})
        try:
            judged(board.findings(), "link", level, *words)
        finally:
            board.end()
    network.remove()


def test_a_board_changes_under_way():
    """A cap that cannot be kept, and a key file that somebody opened to others after the start."""
    network = Network(["laptop", "board"])
    board = Board(network, cap=", memory: 4000G")
    try:
        judged(board.findings(), "memory", "bad", "the cap says", "lower the cap")
        os.chmod(os.path.join(board.folder, "node.key"), 0o644)
        judged(board.findings(), "key file", "bad", "mode 644", "chmod 600")
    finally:
        board.end()
        network.remove()


def test_clocks_are_compared():
    if not os.path.exists(SKEW):
        raise SkipTest("no clock that goes wrong in this build")
    network = Network(["laptop", "board"])
    for seconds, word in ((90, "ahead of"), (-90, "behind")):
        board = Board(network, env={"LD_PRELOAD": SKEW, "SKEW_SECONDS": seconds})
        try:
            found = board.findings()
            judged(found, "clock", "bad", word, "set-ntp true")
            assert 88 < float(re.match(r"([0-9.]+) s", found["clock"][1])[1]) < 92, found["clock"]
        finally:
            board.end()
    board = Board(network)
    try:
        judged(board.findings(), "clock", "good", "of this one")
    finally:
        board.end()
        network.remove()


main(globals())
