"""Eight streams through a server, each of its own length and kind of sampling; what they would say undisturbed; and the
wait until all boards are there again."""
import json

from lab import PROMPT, until
from server import Server

STREAMS = 8
TOKENS = 120


def asked(i):
    """Requests of different lengths and kinds of sampling."""
    return {"prompt": PROMPT[:10 + 4 * i], "max_tokens": TOKENS - 5 * i, "temperature": 0 if i % 2 else 0.9, "seed": i, "ignore_eos": True}


def stream_text(server, i):
    return "".join(event["choices"][0]["text"] for event in server.events("/v1/completions", asked(i)) if event["choices"])


def undisturbed(**options):
    server = Server(**options)
    texts = [server.text(**asked(i))["choices"][0]["text"] for i in range(STREAMS)]
    server.stop()
    return texts


def nodes_of(server):
    return json.loads(server.get("/status"))["nodes"]


def with_stage(server, names):
    """The numbers, among these names, of the workers that the pipe needs, once it stands."""
    def busy():
        states = {node["name"]: node["state"] for node in nodes_of(server)}
        return "loading" not in states.values() and [i for i, name in enumerate(names) if states.get(name) == "ready"]
    return until(busy, lambda: nodes_of(server))


def settle(server, count):
    """Until so many workers are there again."""
    until(lambda: sum(node["state"] in ("ready", "idle") for node in nodes_of(server)) == count, lambda: nodes_of(server))


def tokens_out(server):
    return json.loads(server.get("/status"))["tokens_out"]


def streaming(server, before):
    """Until streams have begun: tokens of theirs came after the `before` that were there when they were asked for."""
    until(lambda: tokens_out(server) > before, lambda: server.get("/status"))
