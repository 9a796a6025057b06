"""No plaintext between nodes: the loopback traffic of a whole run is read from a raw socket, and neither the prompt, nor
the answer, nor token ids, nor activations are found in it. The same reader finds all of them in plain traffic."""
import json
import math
import os
import socket
import struct
import subprocess
import threading
import time

from lab import BRIGADE, MODEL, PROMPT, Cluster, SkipTest, brigade_json, main


class Sniffer:
    """Collects TCP payloads of the loopback device, by destination port and in order of arrival."""

    def __init__(self):
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        except (PermissionError, AttributeError):
            raise SkipTest("reading loopback traffic needs root")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self.socket.bind(("lo", 0))
        self.socket.settimeout(0.2)
        self.flows = {}
        self.on = True
        self.end = time.monotonic() + 120
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        while time.monotonic() < self.end:
            try:
                frame, where = self.socket.recvfrom(1 << 17)
            except socket.timeout:
                if self.on:
                    continue
                return  # all that had come is read
            if where[2] == socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00" or frame[23] != 6:
                continue
            ip = 14 + (frame[14] & 15) * 4
            source, to = struct.unpack("!HH", frame[ip:ip + 4])
            payload = frame[ip + (frame[ip + 12] >> 4) * 4:14 + struct.unpack("!H", frame[16:18])[0]]
            self.flows.setdefault((source, to), bytearray()).extend(payload)

    def stop(self):
        self.on = False
        self.end = time.monotonic() + 5  # others may talk on loopback for ever
        self.thread.join()
        self.socket.close()
        return self.flows


def byte_bias(data):
    """How far the byte histogram is from uniform: chi-square per degree of freedom, about 1 for ciphertext."""
    counts = [0] * 256
    for b in data:
        counts[b] += 1
    expect = len(data) / 256
    return sum((c - expect) ** 2 / expect for c in counts) / 255


def payloads(data):
    """The boxes of CurveZMQ messages without their framing: each follows "MESSAGE" and a counter of 8 bytes, and up to 9
    bytes of the next frame's head come after it. Data that is no CurveZMQ stays as it is."""
    pieces = bytes(data).split(b"\x07MESSAGE")
    return bytes(data) if len(pieces) == 1 else b"".join(piece[8:-10] for piece in pieces[1:])


def findings(flows, ports, texts, ids):
    found = []
    for (source, to), data in flows.items():
        if source not in ports and to not in ports:
            continue
        for text in texts:
            if text.encode() in data:
                found.append(f"text {text!r}")
        for width in ("<i", "<q"):
            for i in range(0, len(ids) - 3):
                if b"".join(struct.pack(width, t) for t in ids[i:i + 4]) in data:
                    found.append(f"ids {ids[i:i + 4]}")
        bias = byte_bias(payloads(data)) if len(data) > 100_000 else 0
        if bias > 3:
            found.append(f"bytes that are no ciphertext (bias {bias:.1f})")
    return found


def ports_of(processes):
    """Listening ports of our workers."""
    ports = set()
    inodes = set()
    for process in processes:
        folder = f"/proc/{process.pid}/fd"
        for fd in os.listdir(folder):
            try:
                link = os.readlink(os.path.join(folder, fd))
            except OSError:
                continue
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(table).read().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                ports.add(int(words[1].rsplit(":", 1)[1], 16))
    return ports


def test_nothing_readable_on_the_wire():
    cluster = Cluster(3)
    ids = brigade_json("tokenize", "-m", MODEL, "-p", PROMPT)["ids"]
    ports = ports_of([w.process for w in cluster.workers])
    assert len(ports) >= 6, ports
    sniffer = Sniffer()
    done = subprocess.run([BRIGADE, "run", "-c", cluster.config, "-m", MODEL, "--stages", "3", "-p", PROMPT, "-n", "120", "--temp",
                           "0", "--ignore-eos", "--json"], capture_output=True, text=True)
    flows = sniffer.stop()
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    cluster.stop()
    ours = sum(len(d) for (a, b), d in flows.items() if a in ports or b in ports)
    assert ours > 2 * 120 * 256 * 4, f"only {ours} bytes seen: the reader missed the traffic"
    texts = [PROMPT, PROMPT[20:], "Lily found", answer["text"][:30], answer["text"][40:60]]
    found = findings(flows, ports, texts, ids + answer["tokens"])
    assert not found, found


def test_the_reader_finds_plaintext():
    sniffer = Sniffer()
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    peer, _ = server.accept()
    ids = [11, 222, 33, 1999, 5]
    activations = struct.pack("<50000f", *[math.sin(i * 0.37) for i in range(50000)])
    receiver = threading.Thread(target=lambda: [peer.recv(1 << 20) for _ in iter(lambda: peer.recv(1, socket.MSG_PEEK), b"")])
    receiver.start()
    client.sendall(PROMPT.encode() + struct.pack("<5i", *ids) + activations)
    client.close()
    receiver.join()
    found = findings(sniffer.stop(), {port}, ["Lily found"], ids)
    assert any(f.startswith("text") for f in found) and any(f.startswith("ids") for f in found), found
    assert any("ciphertext" in f for f in found), found


main(globals())
