"""`brigade chat` as a person meets it: at a terminal (a pty), with keys. Every wait is for words that only what is waited
for can say: a prompt is drawn anew at any time, and proves nothing."""
import fcntl
import os
import pty
import re
import select
import subprocess
import termios

from lab import BRIGADE, MODEL, brigade_json, main, slower, until

UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"
LIMIT = 12
FULL = "reached its longest length"  # said after an answer of LIMIT tokens


class Terminal:
    """A chat at a terminal of its own; what it shows is read without colours, movements and line ends."""

    def __init__(self, *args, env=None):
        self.master, slave = pty.openpty()
        self.raw, self.seen = b"", 0
        self.process = subprocess.Popen([BRIGADE, "chat", "-m", MODEL, "--temp", "0", "--ignore-eos", *map(str, args)], stdin=slave,
                                        stdout=slave, stderr=slave, start_new_session=True,
                                        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **(env or {})},
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)

    def read(self):
        try:
            got = os.read(self.master, 65536) if select.select([self.master], [], [], 0.2)[0] else b""
        except OSError:  # the other end is closed
            got = b""
        self.raw += got

    def shown(self):
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", self.raw.decode(errors="ignore"))
        return " ".join(text.split())

    def wait(self, words):
        """Until the words were shown, behind those waited for before. Returns what was shown between."""
        def there():
            ended = self.process.poll() is not None
            self.read()
            found = " ".join(words.split()) in self.shown()[self.seen:]
            assert found or not ended, (words, self.shown()[self.seen:])
            return found
        until(there, lambda: (words, self.shown()[self.seen:]))
        at = self.shown().find(" ".join(words.split()), self.seen)
        before, self.seen = self.shown()[self.seen:at], at + len(" ".join(words.split()))
        return before

    def type(self, keys):
        os.write(self.master, keys.encode())

    def ask(self, line, *words):
        self.type(line + "\r")
        return [self.wait(w) for w in words]

    def end(self):
        def over():
            self.read()
            return self.process.poll() is not None
        until(over, lambda: self.shown()[self.seen:])
        os.close(self.master)
        return self.process.wait()


def alone(text):
    """What the model answers to this as the first thing said."""
    return brigade_json("run", "-m", MODEL, "--chat", "-p", text, "-n", LIMIT, "--temp", 0, "--ignore-eos")["text"]


def test_a_conversation():
    t = Terminal("-n", LIMIT)
    once = alone("Once upon a time")
    t.ask("/stats", "no answer yet")
    t.ask("Once upon a time", once, FULL)
    t.ask("/stats", f"answer {LIMIT} (length)", "tokens/s")
    t.ask("/help", "leave (or Ctrl-D)")
    t.ask("/nonsensé", "there is no command /nonsensé")
    t.ask("And then?", FULL)  # what was said before is part of the question: a longer prompt than alone
    prompt = int(re.search(r"prompt (\d+) tokens", t.ask("/stats", "first token")[0])[1])
    assert prompt > brigade_json("run", "-m", MODEL, "--chat", "-p", "And then?", "-n", 1)["prompt_tokens"] + LIMIT
    t.ask("/reset", "is forgotten")
    t.ask(UP * 7, once, FULL)  # behind /reset, /stats, And then?, /nonsensé, /help and /stats
    t.ask("/reset", "is forgotten")
    t.ask("Once upon \\\ra day", alone("Once upon \na day"), FULL)  # a line that goes on in the next one
    t.type(CTRL_D)
    assert t.end() == 0


def test_ctrl_c_ends_the_answer_and_not_the_program():
    long = 3900
    t = Terminal("-n", long, "--ctx", 4000, "--stages", 2, env=slower(9))
    once = alone("Once upon a time")
    for _ in range(2):
        t.ask("Once upon a time", once)  # it has begun, and has thousands of tokens to go
        t.type(CTRL_C)
        t.wait("(stopped)")
        t.ask("/stats", "(cancelled)")
        assert LIMIT <= int(re.search(r"answer (\d+) \(cancelled\)", t.shown()[t.seen - 60:])[1]) < long
        t.ask("/reset", "is forgotten")
    t.type("half a li")  # at the prompt it ends the line that is being typed, nothing more
    t.wait("half a li")
    t.type(CTRL_C)
    t.ask("/reset", "is forgotten")
    t.ask("/quit")
    assert t.end() == 0


main(globals())
