"""The units under a real systemd: the packages in a root of their own, booted in a container without a network. A board
joins, its worker is started, watched, restarted when it hangs, stopped in order; the server too. As root, with
systemd-nspawn (package systemd-container), where the kernel lets it boot."""
import atexit
import os
import re
import shutil
import signal
import subprocess
import time

from debian_root import root_for_packages
from lab import MODEL, SkipTest, brigade, main, patience, until

WORKER_UNIT, SERVER_UNIT = "brigade-worker.service", "brigade-serve.service"


def children(pid):
    try:
        return [int(w) for w in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    except OSError:
        return []


class Machine:
    """A booted container; run() is a command in it."""

    def __init__(self, root):
        self.log = open(os.path.join(os.path.dirname(root), "console"), "w+")
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "-D", root, "--register=no", "--keep-unit", "--boot", "--private-network", "--console=pipe",
             f"--machine=brigade-test-{os.getpid()}"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        atexit.register(self.end)
        self.leader, end, state = None, time.monotonic() + patience(), ""
        while time.monotonic() < end and self.nspawn.poll() is None and state not in ("running", "degraded"):
            time.sleep(0.2)
            self.leader = next(iter(children(self.nspawn.pid)), None)
            if self.leader:
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        if state not in ("running", "degraded"):
            self.log.seek(0)
            said = (self.log.read().strip().splitlines() or ["nothing"])[-1]
            self.end()
            raise SkipTest(f"no systemd can be booted in a container here (state {state!r}): {said}")

    def run(self, *command, check=True):
        done = subprocess.run(["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", *command], capture_output=True, text=True,
                              timeout=patience(), env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"})
        assert not check or done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}: {done.stderr[-2000:]}{done.stdout[-2000:]}"
        return done

    def shell(self, script, **more):
        return self.run("sh", "-ec", script, **more).stdout

    def show(self, unit, key):
        return self.run("systemctl", "show", unit, f"--property={key}", "--value").stdout.strip()

    def journal(self, unit=WORKER_UNIT):
        return self.run("journalctl", "--no-pager", "-u", unit, check=False).stdout

    def end(self):
        if self.leader and self.nspawn.poll() is None:
            try:
                os.kill(self.leader, signal.SIGKILL)  # the first process of the container: all of it ends
            except ProcessLookupError:
                pass
        if self.nspawn.poll() is None:
            self.nspawn.terminate()
        self.nspawn.wait(patience())
        if not self.log.closed:
            self.log.close()


def boot():
    made, _, root = root_for_packages(("systemd-nspawn", "nsenter"), ["systemd"])
    # Without a network there is none to wait for.
    os.makedirs(os.path.join(root, "etc/systemd/system"), exist_ok=True)
    os.symlink("/dev/null", os.path.join(root, "etc/systemd/system/systemd-networkd-wait-online.service"))
    os.mkdir(os.path.join(root, "packages"))
    for package in made:
        shutil.copy(package, os.path.join(root, "packages"))
    return Machine(root)


def test_units_under_a_real_systemd():
    m = boot()
    installed = m.run("sh", "-c", "dpkg --force-unsafe-io -i /packages/*.deb 2>&1").stdout
    assert "Syntax" not in installed and "rror" not in installed, installed
    assert m.run("systemctl", "is-active", WORKER_UNIT, check=False).stdout.strip() == "inactive"  # it obeys nobody yet

    # Nobody may command it: one line that says so, and no second try.
    assert m.run("systemctl", "start", WORKER_UNIT, check=False).returncode != 0
    time.sleep(3)
    assert m.show(WORKER_UNIT, "ActiveState") == "failed" and m.show(WORKER_UNIT, "NRestarts") == "0", m.journal()
    assert "/etc/brigade/worker.yaml sets no allow" in m.journal()
    m.run("systemctl", "reset-failed", WORKER_UNIT)

    # As README has it: invited, joined, enabled.
    said = m.shell("""cd /srv; brigade init cluster.yaml
        brigade invite -c cluster.yaml --address 127.0.0.1 --yes --expires 60s >invited 2>&1 & inviting=$!
        until token=$(grep -o 'brigade1[^ ]*' invited); do sleep 0.1; done
        brigade-worker --join $token --join-only --name board --config /etc/brigade/worker.yaml
        systemctl enable --now brigade-worker
        wait $inviting; cat invited""")
    assert '"board" is entered' in said and "it answers at" in said, said
    assert m.show(WORKER_UNIT, "ActiveState") == "active" and m.show(WORKER_UNIT, "StatusText") == "waiting for a coordinator"
    assert "ready: board at" in m.journal(), m.journal()  # readiness was told by the worker itself: Type=notify
    pid = m.show(WORKER_UNIT, "MainPID")
    assert m.shell(f"stat -c %U /proc/{pid}").strip() == "brigade"
    assert not int(re.search(r"CapEff:\s*(\w+)", m.shell(f"cat /proc/{pid}/status"))[1], 16)
    limit = int(m.show(WORKER_UNIT, "MemoryMax"))
    total = int(re.search(r"MemTotal:\s*(\d+)", open("/proc/meminfo").read())[1]) * 1024
    assert total // 20 < limit <= total, (limit, total)
    assert f"memory limit: {limit} bytes" in m.journal()
    for unit in (WORKER_UNIT, SERVER_UNIT):
        level = float(re.search(r"exposure level.*: ([0-9.]+)", m.run("systemd-analyze", "security", "--no-pager", unit).stdout)[1])
        assert level < 2, (unit, level)

    # It answers, with this build's own words.
    ask = "brigade run -c /srv/cluster.yaml -m /usr/share/brigade/models/stories-5m-q8_0.gguf -p 'Once upon a time' -n 12 --temp 0"
    here = brigade("run", "-m", MODEL, "-p", "Once upon a time", "-n", "12", "--temp", "0").stdout
    assert here.strip() and m.shell(ask).strip() == here.strip()
    assert re.match(r"blocks 0-7 of stories", m.show(WORKER_UNIT, "StatusText")), m.show(WORKER_UNIT, "StatusText")

    # Fed, the watchdog keeps still; a worker that hangs is started afresh, and answers again.
    m.shell("mkdir -p /run/systemd/system/brigade-worker.service.d; printf '[Service]\\nWatchdogSec=6\\n' >/run/systemd/system/brigade-worker.service.d/w.conf")
    m.shell("systemctl daemon-reload; systemctl restart brigade-worker")
    pid, fed = m.show(WORKER_UNIT, "MainPID"), set()
    until(lambda: fed.add(m.show(WORKER_UNIT, "WatchdogTimestampMonotonic")) or len(fed) > 3, m.journal)
    assert m.show(WORKER_UNIT, "MainPID") == pid and m.show(WORKER_UNIT, "NRestarts") == "0"
    m.shell(f"kill -STOP {pid}")
    until(lambda: m.show(WORKER_UNIT, "ActiveState") == "active" and m.show(WORKER_UNIT, "MainPID") not in (pid, "0"),
          lambda: f"a worker that hangs was not started afresh: {m.journal()[-3000:]}")
    assert "Watchdog timeout" in m.journal()
    assert m.shell(ask).strip() == here.strip()

    # The server beside it, as its own unit.
    m.shell("""cp /srv/cluster.yaml /etc/brigade/cluster.yaml; cp /srv/coordinator.key /etc/brigade/coordinator.key
        chown brigade: /etc/brigade/coordinator.key; chgrp brigade /etc/brigade/cluster.yaml; systemctl start brigade-serve""")
    assert m.show(SERVER_UNIT, "StatusText") == "serving", m.journal(SERVER_UNIT)
    health = m.run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3").stdout
    assert "200 OK" in health and "ready" in health, health + m.journal(SERVER_UNIT)
    m.shell("systemctl stop brigade-serve")
    assert m.show(SERVER_UNIT, "Result") == "success", m.journal(SERVER_UNIT)

    # Stopped in order; gone when purged.
    m.shell("systemctl stop brigade-worker")
    assert m.show(WORKER_UNIT, "Result") == "success" and any(
        line.endswith(" stopped") for line in m.journal().splitlines()[-5:]), m.journal()
    assert m.shell("readlink /var/cache/brigade").strip() == "private/brigade"  # DynamicUser: out of others' reach
    assert m.shell("stat -c %U:%a /var/cache/private/brigade /var/cache/private").split() == ["brigade:750", "root:700"]
    m.shell("systemctl disable brigade-worker 2>/dev/null; dpkg --purge brigade brigade-worker")
    assert not m.shell("ls /var/cache/private").strip()
    assert "not-found" in m.show(WORKER_UNIT, "LoadState")
    m.end()


main(globals())
