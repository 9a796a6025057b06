"""The lab of scripts/testbed for tests: whether there can be one here, and a way into the namespace of its coordinator.

setns(2) moves the calling thread only; threads and processes that it starts afterwards are born where it is.
"""
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys

import lab
from lab import BRIGADE, SOURCE, SkipTest

sys.path.insert(0, os.path.join(SOURCE, "scripts"))
import testbed_lab  # noqa: E402

BUILD = os.path.dirname(os.path.dirname(BRIGADE))
if os.path.basename(BUILD) == "tests":  # in tests/emulated
    BUILD = os.path.dirname(BUILD)
CLONE_NEWNET = 0x40000000


class Bed(testbed_lab.Bed):
    """A lab whose logs are told when a test fails in it: its folder will be gone."""

    def __exit__(self, failed, *rest):
        if failed:
            lab.show_logs(self.folder)
        return super().__exit__(failed, *rest)


def need_lab():
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        raise SkipTest("needs root, ip and tc")
    probe = f"brigade-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        raise SkipTest("no network namespaces here")
    subprocess.run(["ip", "netns", "del", probe], check=True)


@contextlib.contextmanager
def inside(space):
    """This thread, and all that it starts, in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(file):
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{space}", "rb") as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)
