"""A brigade serve process for tests, and small HTTP helpers over http.client."""
import atexit
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

from lab import BRIGADE, MODEL, next_line, patience, told_when_failing, until


class Server:
    """brigade serve on a free port, ready when constructed (unless wait is False). Its lines on stderr are kept, with the time
    at which they came."""

    def __init__(self, *args, wait=True, model=MODEL, env=None):
        self.process = subprocess.Popen([BRIGADE, "serve", "-m", model, "--port", "0", "--threads", "1", *map(str, args)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        atexit.register(self.kill)
        self.lines, self.key = [], None
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        told_when_failing(f"serve, process {self.process.pid}", lambda: [line for _, line in self.lines])
        found = re.search(r"http://[^ ]*:(\d+)", self.said())
        self.port = int(found.group(1))
        if wait:
            self.said("ready")

    def read(self):
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    def said(self, begin="listening"):
        """The next line on its standard output, which begins so."""
        line = next_line(self.process)
        if not line:
            self.reader.join()
        assert line.startswith(begin), f"serve said {line!r}: {self.errors()}"
        return line

    def errors(self):
        """What came on stderr so far."""
        return "".join(line for _, line in self.lines)

    def told(self, pattern, since=0.0, seconds=120):
        """Seconds from `since` to the first line on stderr after it that matches, and the line."""
        def found():
            return next(((at - since, line) for at, line in list(self.lines) if at >= since and re.search(pattern, line)), None)
        return until(found, lambda: f"nothing like {pattern!r} in {self.errors()}", seconds)

    @classmethod
    def of(cls, process, line):
        """Around a process that was started elsewhere and said this line."""
        server = cls.__new__(cls)
        server.process, server.key, server.lines = process, None, []
        server.port = int(re.search(r"http://[^ ]*:(\d+)", line).group(1))
        return server

    def connect(self, timeout=240):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience(timeout))

    def request(self, method, path, body=None, headers=None, timeout=240):
        """(status, headers, bytes)"""
        connection = self.connect(timeout)
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        headers = dict(headers or {})
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.request("GET", path)
        assert status == 200, (path, status, body)
        return body.decode()

    def post(self, path, body, want=200, headers=None):
        status, _, data = self.request("POST", path, body, headers)
        assert status == want, (path, status, data)
        return json.loads(data)

    def text(self, prompt, **fields):
        return self.post("/v1/completions", {"prompt": prompt, **fields})

    def chat(self, text, **fields):
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    def refused(self, path, body, *words, status=400):
        """The error object of a request that must be refused."""
        error = self.post(path, body, want=status)["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        for word in words:
            assert word in error["message"], (word, error)
        return error

    def events(self, path, body, times=None):
        """The events of a stream as objects; the last must be [DONE]. `times` takes when each came."""
        connection = self.connect()
        try:
            connection.request("POST", path, json.dumps({**body, "stream": True}))
            reply = connection.getresponse()
            lines = []
            for line in reply:
                lines.append(line.decode())
                if times is not None and line.startswith(b"data: "):
                    times.append(time.monotonic())
            data = "".join(lines)
            assert reply.status == 200, (reply.status, data)
            assert reply.headers["Content-Type"].startswith("text/event-stream")
        finally:
            connection.close()
        events = data.split("\n\n")
        assert events.pop() == "" and events[-1] == "data: [DONE]", events[-2:]
        assert all(event.startswith("data: ") and "\n" not in event for event in events)
        return [json.loads(event[6:]) for event in events[:-1]]

    def metrics(self):
        values = {}
        for line in self.get("/metrics").splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def settle(self, seconds=120):
        """Waits until nothing runs; the cache must be empty then."""
        last = {}

        def still():
            last.update(self.metrics())
            return last["brigade_http_requests_live"] == 1 and not any(
                last[k] for k in ("brigade_requests_running", "brigade_requests_queued", "brigade_kv_pages_used"))
        until(still, lambda: {k: v for k, v in last.items() if v and re.search("requests|pages_used", k)}, seconds)
        return last

    def stop(self, number=signal.SIGTERM, timeout=120):
        """Ends it politely: exit 0. Returns its stderr."""
        self.process.send_signal(number)
        self.process.wait(patience(timeout))
        self.reader.join()
        assert self.process.returncode == 0, (self.process.returncode, self.errors())
        return self.errors()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
