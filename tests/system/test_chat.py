"""`brigade chat` as a person meets it: at a terminal (a pty), with keys."""
import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time

from lab import BRIGADE, MODEL, brigade_json, main

UP, CTRL_C, CTRL_D = b"\x1b[A", b"\x03", b"\x04"
PROMPT, MORE = "> ", ". "


class Terminal:
    """A program at a terminal of its own; what it shows is read without the colours and movements."""

    def __init__(self, *args):
        self.master, slave = pty.openpty()
        self.shown, self.raw = "", b""
        self.process = subprocess.Popen([BRIGADE, "chat", "-m", MODEL, *map(str, args)], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True, env={**os.environ, "TERM": "xterm", "HOME": "/nonexistent"},
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)

    def read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        try:
            got = os.read(self.master, 65536) if ready else b""
        except OSError:  # the other end is closed
            got = b""
        self.raw += got
        self.shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", self.raw.decode(errors="replace")).replace("\r", "")
        return got

    def wait(self, pattern, seconds=60):
        """What was shown since the last wait, up to the pattern."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown, re.S)):
            assert time.monotonic() < until and self.process.poll() is None, f"no {pattern!r} in {self.shown!r}"
            self.read(0.2)
        before, self.raw = self.shown[:found.start()], self.shown[found.end():].encode()
        self.shown = self.shown[found.end():]
        return before

    def type(self, keys):
        os.write(self.master, keys if isinstance(keys, bytes) else keys.encode())

    def end(self):
        until = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < until:
            self.read(0.2)
        os.close(self.master)
        return self.process.wait(10)


def said(terminal, line):
    """Types a line and returns what is answered, up to the next prompt."""
    terminal.type(line + "\r")
    terminal.wait(re.escape(line) + r"\n")
    return terminal.wait(r"(^|\n)" + re.escape(PROMPT) + "$")


def alone(text, tokens):
    return brigade_json("run", "-m", MODEL, "--chat", "-p", text, "-n", tokens, "--temp", 0, "--ignore-eos")["text"]


def test_a_conversation():
    t = Terminal("-n", 12, "--temp", 0, "--ignore-eos")
    t.wait(re.escape(PROMPT) + "$")
    first = said(t, "Once upon a time")
    assert alone("Once upon a time", 12).strip() in first, first
    assert "12" in said(t, "/stats") and "forgotten" in said(t, "/reset") and "/stats" in said(t, "/help")
    assert "no command /nonsense" in said(t, "/nonsense")
    # A line that goes on in the next one.
    t.type("Once upon \\\r")
    t.wait(r"\n" + re.escape(MORE) + "$")
    assert alone("Once upon \na day", 12).strip() in said(t, "a day")
    # Up brings the last line back; with what was said before it the answer is another one, and always the same.
    said(t, "/reset")
    once = said(t, "Once")
    t.type(UP)
    t.wait("Once$")
    t.type("\r")
    again = t.wait(r"(^|\n)" + re.escape(PROMPT) + "$")
    said(t, "/reset")
    assert said(t, "Once") == once and said(t, "Once").strip() == again.strip() != once.strip(), (once, again)
    t.type(CTRL_D)
    assert t.end() == 0


def test_ctrl_c_ends_the_answer_and_not_the_program():
    t = Terminal("-n", 3000, "--ctx", 4000, "--ignore-eos", "--temp", 0.8, "--seed", 3, "--stages", 2)
    t.wait(re.escape(PROMPT) + "$")
    for _ in range(3):
        t.type("Once upon a time\r")
        t.wait(r"Once upon a time\n.{20}")  # the answer has begun
        t.type(CTRL_C)
        t.wait(r"\(stopped\)", 10)
        t.wait(re.escape(PROMPT) + "$", 10)
        stats = said(t, "/stats")
        assert int(re.search(r"answer (\d+)", stats)[1]) < 3000 and "cancelled" in stats, stats
        said(t, "/reset")
    # At the prompt it ends the line that is being typed, nothing more.
    t.type("half a li")
    t.wait("half a li")
    t.type(CTRL_C)
    t.wait(re.escape(PROMPT) + "$", 10)
    assert "forgotten" in said(t, "/reset")
    t.type("/quit\r")
    assert t.end() == 0


if __name__ == "__main__":
    main(globals())
