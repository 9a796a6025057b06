"""Avahi and our workers see each other: its own tools find a worker beside the daemon, which shares port 5353 with it, and
one on another machine; `brigade nodes --discover` finds both while the daemon runs. As root, in two network namespaces
of their own, with a message bus that nothing else uses."""
import os
import re
import shutil
import subprocess

from lab import BRIGADE, SkipTest, WORKER, keygen, main, patience, temporary_folder, until
from test_tour import Network

FRAME = """
mount -t tmpfs none /run; mkdir -p /run/dbus /run/avahi-daemon
dbus-daemon --system --nofork --nopidfile & until test -S /run/dbus/system_bus_socket; do sleep 0.05; done
avahi-daemon --no-drop-root --no-rlimits --no-chroot -f "$FOLDER/avahi.conf" 2>"$FOLDER/avahi.log" &
until avahi-browse -t _nothing._tcp 2>/dev/null; do sleep 0.1; done
both() { grep -q desk "$1" && grep -q attic "$1"; }
"""


def sandboxed(network, machine, script, folder, **more):
    """A shell script in that machine's network, with a folder /run of its own; what it leaves running ends with it."""
    return ["ip", "netns", "exec", network.space(machine), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts",
            "env", f"FOLDER={folder}", "sh", "-c", f"hostname {machine}; {script}"]


def worker_line(folder, name, allow):
    keygen(os.path.join(folder, f"{name}.key"))
    return f"{WORKER} --listen tcp://0.0.0.0:7700 --key {folder}/{name}.key --name {name} --allow '{allow}' >{folder}/{name}.ready 2>&1"


def test_avahi_and_workers_see_each_other():
    for tool in ("avahi-daemon", "avahi-browse", "dbus-daemon"):
        if not shutil.which(tool):
            raise SkipTest(f"no {tool} here")
    network = Network(["laptop", "board"])
    folder = temporary_folder()
    with open(os.path.join(folder, "avahi.conf"), "w") as f:
        f.write("[server]\nuse-ipv4=yes\nuse-ipv6=no\n[publish]\npublish-workstation=no\n")
    allow = keygen(os.path.join(folder, "coordinator.key"))
    far = subprocess.Popen(sandboxed(network, "board", "exec " + worker_line(folder, "attic", allow), folder))
    try:
        # The daemon first, then a worker beside it: whoever comes second must share the port.
        script = FRAME + worker_line(folder, "desk", allow) + f""" &
        until grep -q ready: "$FOLDER/desk.ready"; do sleep 0.05; done
        until avahi-browse -rpt _brigade._tcp >"$FOLDER/avahi" && grep '^=' "$FOLDER/avahi" >"$FOLDER/known" && both "$FOLDER/known"; do sleep 0.2; done
        until {BRIGADE} nodes --discover >"$FOLDER/ours" && both "$FOLDER/ours"; do sleep 0.2; done
        echo == avahi; cat "$FOLDER/avahi"; echo == ours; cat "$FOLDER/ours"
        echo == name; avahi-resolve -4n "$(avahi-browse -rpt _brigade._tcp | grep '^=.*attic' | cut -d';' -f7)"
        """
        done = subprocess.run(sandboxed(network, "laptop", script, folder), capture_output=True, text=True, timeout=patience())
        said = done.stdout + done.stderr + open(os.path.join(folder, "avahi.log")).read()
        avahi, ours = re.split(r"^== ours\n", done.stdout, flags=re.M)
        for name, address in (("desk", "192.168.7.10"), ("attic", "192.168.7.11")):
            key = next(w for w in open(os.path.join(folder, f"{name}.ready")).read().split() if len(w) == 40)
            line = next((x for x in avahi.splitlines() if x.startswith("=") and f";{name}" in x), "")
            fields = line.split(";", 9)
            assert fields[4:6] == ["_brigade._tcp", "local"] and fields[7:9] == [address, "7700"], (name, line, said)
            assert key in fields[9].replace("\\", ""), (key, fields)
            assert re.search(rf"^{name} +tcp://{re.escape(address)}:7700 ", ours, re.M), said
        assert re.search(r"^brigade-\S+\.local\t192\.168\.7\.11$", done.stdout, re.M), said
        # A worker that ends says good-bye: the daemon forgets it at once, not when its records are too old (two minutes).
        script = FRAME + """until avahi-browse -pt _brigade._tcp | grep -q attic; do sleep 0.2; done; touch "$FOLDER/seen"
            until test -e "$FOLDER/ended"; do sleep 0.05; done
            while avahi-browse -pt _brigade._tcp | grep -q attic; do sleep 0.2; done; echo forgotten"""
        watching = subprocess.Popen(sandboxed(network, "laptop", script, folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        until(lambda: os.path.exists(os.path.join(folder, "seen")))
        inner = open(f"/proc/{far.pid}/task/{far.pid}/children").read().split()
        os.kill(int(inner[0]), 15)
        far.wait(patience())
        open(os.path.join(folder, "ended"), "w").close()
        assert watching.communicate(timeout=60)[0].strip().endswith("forgotten")
    finally:
        far.kill()
        far.wait()
        network.remove()


main(globals())
