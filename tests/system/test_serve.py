"""brigade serve: OpenAI's API to the letter, many clients, hang-ups, limits, and nothing left behind."""
import concurrent.futures
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time

from lab import (BRIGADE, Cluster, MODEL, PROMPT, SOURCE, THIN, SkipTest, Stalls, brigade, brigade_json, main, one_line, patience,
                 temporary_folder, until)
from server import Server

FOLDER = temporary_folder()
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
_shared = None


def shared():
    """One server for the tests that need nothing special."""
    global _shared
    if not _shared:
        _shared = Server()
    return _shared


def raw(server, data, close=False):
    """Sends bytes, returns what comes until the final answer's headers are there, or the server closes. With `close` that was
    all, half the connection is closed, and the server must close the other half."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=patience()) as s:
        got = b""
        try:
            s.sendall(data)
            if close:
                s.shutdown(socket.SHUT_WR)
            while block := s.recv(65536):
                got += block
                final = got.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
                if b"\r\n\r\n" in final and not close:
                    break
        except TimeoutError:
            raise AssertionError(f"no answer to {data[:60]} but {got[:60]}") from None
        except OSError:  # closed on us
            pass
        return got


# ---- Answers -------------------------------------------------------------------------------------------------------


def test_text_completion():
    s = shared()
    want = brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", 12, "--temp", 0)
    got = s.text(PROMPT, max_tokens=12, temperature=0)
    assert set(got) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}, got
    assert got["object"] == "text_completion" and got["id"].startswith("cmpl-") and abs(got["created"] - time.time()) < 60
    assert got["model"] == "stories-5m-q8_0" and got["system_fingerprint"].startswith("fp_")
    assert got["choices"] == [{"index": 0, "text": want["text"], "logprobs": None, "finish_reason": "length"}]
    assert got["usage"] == {"prompt_tokens": want["prompt_tokens"], "completion_tokens": 12,
                            "total_tokens": want["prompt_tokens"] + 12}
    ids = s.post("/tokenize", {"content": PROMPT})["tokens"]
    assert s.text(ids, max_tokens=12, temperature=0)["choices"][0]["text"] == want["text"]
    both = s.text([ids, ids], max_tokens=12, temperature=0)["choices"]
    assert [c["index"] for c in both] == [0, 1] and all(c["text"] == want["text"] for c in both)
    two = s.text([PROMPT, "Once"], max_tokens=3, temperature=0, n=2)
    assert [c["index"] for c in two["choices"]] == [0, 1, 2, 3] and two["choices"][0]["text"] == two["choices"][1]["text"]
    assert two["usage"]["prompt_tokens"] == len(ids) + len(s.post("/tokenize", {"content": "Once"})["tokens"])
    assert s.text(PROMPT)["usage"]["completion_tokens"] <= 16
    assert s.text("Once", echo=True, max_tokens=3, temperature=0)["choices"][0]["text"].startswith("Once upon")
    assert s.text("Once", echo=True, max_tokens=0)["choices"][0]["text"] == "Once"


def test_chat_completion():
    s = shared()
    got = s.chat(PROMPT, max_completion_tokens=8, temperature=0)
    choice = got["choices"][0]
    assert got["object"] == "chat.completion" and got["id"].startswith("chatcmpl-")
    assert choice["message"]["role"] == "assistant" and choice["message"]["refusal"] is None and choice["finish_reason"] == "length"
    want = brigade_json("run", "-m", MODEL, "--chat", "-p", PROMPT, "-n", 8, "--temp", 0)["text"]
    assert choice["message"]["content"] == want
    parts = s.post(CHAT, {"messages": [{"role": "developer", "content": "Tell."}, {"role": "user", "name": "tim", "content": [
        {"type": "text", "text": "Once"}, {"type": "text", "text": "upon"}]}], "max_tokens": 4, "temperature": 0})
    plain = s.text("Tell.\n\nOnce\nupon", max_tokens=4, temperature=0)
    assert parts["choices"][0]["message"]["content"] == plain["choices"][0]["text"]
    answers = s.chat(PROMPT, max_tokens=20, n=3, seed=5)["choices"]
    assert len({c["message"]["content"] for c in answers}) > 1
    assert [c["message"]["content"] for c in s.chat(PROMPT, max_tokens=20, n=3, seed=5)["choices"]] == \
           [c["message"]["content"] for c in answers]
    assert s.chat(PROMPT, max_tokens=20, seed=6)["choices"][0]["message"]["content"] == answers[1]["message"]["content"]


def test_streams_say_the_same():
    s = shared()
    fields = dict(max_tokens=30, seed=11, n=2, stop=["zebra"])
    whole = s.chat(PROMPT, **fields)
    for usage in (False, True):
        events = s.events(CHAT, {"messages": [{"role": "user", "content": PROMPT}], **fields,
                                 **({"stream_options": {"include_usage": True}} if usage else {})})
        assert len({e["id"] for e in events}) == 1 and all(e["object"] == "chat.completion.chunk" for e in events)
        if usage:
            last = events.pop()
            assert last["choices"] == [] and last["usage"] == whole["usage"]
            assert all(e["usage"] is None for e in events)
        else:
            assert all("usage" not in e for e in events)
        for choice in whole["choices"]:
            mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
            assert mine[0]["delta"] == {"role": "assistant", "content": ""}
            assert mine[-1]["delta"] == {} and mine[-1]["finish_reason"] == choice["finish_reason"]
            assert all(c["finish_reason"] is None for c in mine[:-1])
            assert "".join(c["delta"].get("content", "") for c in mine) == choice["message"]["content"]
    whole = s.text(PROMPT, max_tokens=20, seed=1, echo=True)["choices"][0]
    events = [e["choices"][0] for e in s.events(TEXT, {"prompt": PROMPT, "max_tokens": 20, "seed": 1, "echo": True})]
    assert "".join(c["text"] for c in events) == whole["text"] and events[-1]["finish_reason"] == whole["finish_reason"]


def test_stop():
    s = shared()
    free = s.text(PROMPT, max_tokens=30, temperature=0)["choices"][0]["text"]
    for stop in (free[10:16], [free[20:24], free[10:16]]):
        got = s.text(PROMPT, max_tokens=30, temperature=0, stop=stop, logprobs=1)["choices"][0]
        assert got["text"] == free[:free.index(free[10:16])] and got["finish_reason"] == "stop"
        assert len("".join(got["logprobs"]["tokens"])) < len(got["text"]) + 12  # none of what was cut off
        assert got["logprobs"]["text_offset"][-1] < len(got["text"])
    streamed = s.events(TEXT, {"prompt": PROMPT, "max_tokens": 30, "temperature": 0, "stop": free[10:16]})
    assert "".join(e["choices"][0]["text"] for e in streamed) == free[:free.index(free[10:16])]


def test_logprobs():
    s = shared()
    got = s.chat(PROMPT, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3)["choices"][0]
    content = got["logprobs"]["content"]
    assert len(content) == 6 and "".join(t["token"] for t in content) == got["message"]["content"]
    for entry in content:
        tops = entry["top_logprobs"]
        assert len(tops) == 3 and tops[0]["token"] == entry["token"] and tops[0]["logprob"] == entry["logprob"] < 0
        assert [t["logprob"] for t in tops] == sorted((t["logprob"] for t in tops), reverse=True)
        assert bytes(entry["bytes"]).decode() == entry["token"]
    assert s.chat(PROMPT, max_tokens=2, logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert s.chat(PROMPT, max_tokens=2)["choices"][0]["logprobs"] is None
    plain = s.text(PROMPT, max_tokens=6, temperature=0, logprobs=3)["choices"][0]
    logprobs = plain["logprobs"]
    assert logprobs["tokens"] == [t["token"] for t in content] and logprobs["token_logprobs"] == [t["logprob"] for t in content]
    assert logprobs["text_offset"] == [sum(map(len, logprobs["tokens"][:i])) for i in range(6)]
    assert all(len(top) == 3 and top[token] == max(top.values()) for top, token in zip(logprobs["top_logprobs"], logprobs["tokens"]))
    ids = s.post("/tokenize", {"content": PROMPT})["tokens"] + s.post("/tokenize", {"content": content[0]["token"], "add_special": False})["tokens"]
    if len(ids) == len(s.post("/tokenize", {"content": PROMPT})["tokens"]) + 1:
        nll = brigade_json("logits", "-m", MODEL, "--tokens", ",".join(map(str, ids)))["nll"][-1]
        assert abs(nll + content[0]["logprob"]) < 1e-4, (nll, content[0])
    events = s.events(CHAT, {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 6, "temperature": 0,
                             "logprobs": True, "top_logprobs": 3})
    assert [t for e in events for t in ((e["choices"][0]["logprobs"] or {}).get("content") or [])] == content


def test_sampling_fields():
    s = shared()
    ids = s.post("/tokenize", {"content": PROMPT})["tokens"]
    forced = s.post("/tokenize", {"content": " dragon", "add_special": False})["tokens"][-1]
    text = s.post("/detokenize", {"tokens": [ids[-1], forced]})["text"]
    got = s.text(PROMPT, max_tokens=3, temperature=0, logit_bias={str(forced): 100})["choices"][0]["text"]
    assert text.endswith(got[-1]) and len(set(got[i::len(got) // 3] for i in range(1))) == 1
    wild, tame = (s.text("Once", max_tokens=40, temperature=0, frequency_penalty=p)["choices"][0]["text"] for p in (2, 0))
    assert wild != tame
    assert s.text(PROMPT, max_tokens=8, temperature=2, top_p=0, seed=4)["choices"] == \
           s.text(PROMPT, max_tokens=8, temperature=0)["choices"]
    assert s.text(PROMPT, max_tokens=8, top_k=1, user="u", metadata={"a": "b"}, store=False)["choices"] == \
           s.text(PROMPT, max_tokens=8, temperature=0, presence_penalty=None)["choices"]


def test_other_endpoints():
    s = shared()
    s.text("Once", max_tokens=4)
    assert json.loads(s.get("/health"))["status"] == "ready"
    models = json.loads(s.get("/v1/models"))
    assert models["object"] == "list" and [m["id"] for m in models["data"]] == ["stories-5m-q8_0"]
    assert json.loads(s.get("/v1/models/stories-5m-q8_0"))["object"] == "model"
    assert s.request("GET", "/v1/models/other")[0] == 404
    ids = brigade_json("tokenize", "-m", MODEL, "-p", PROMPT)["ids"]
    assert s.post("/tokenize", {"content": PROMPT}) == {"tokens": ids, "ids": ids, "count": len(ids)}
    assert s.post("/tokenize", {"prompt": PROMPT, "add_special": False})["ids"] == ids[1:]
    assert s.post("/detokenize", {"tokens": ids})["text"] == PROMPT
    assert s.refused("/detokenize", {"tokens": [1, 99999]}, "99999")["param"] == "tokens"
    status, headers, body = s.request("OPTIONS", CHAT, headers={"Origin": "http://x", "Access-Control-Request-Method": "POST"})
    assert status == 204 and headers["Access-Control-Allow-Origin"] == "*" and "POST" in headers["Access-Control-Allow-Methods"]
    assert "Authorization" in headers["Access-Control-Allow-Headers"] and body == b""
    assert headers["Access-Control-Allow-Headers"].startswith("*")  # clients send headers of their own
    status, headers, _ = s.request("GET", CHAT)
    assert status == 405 and "POST" in headers["Allow"] and headers["Access-Control-Allow-Origin"] == "*"
    assert "Retry-After" in headers["Access-Control-Expose-Headers"]
    assert s.request("GET", "/nowhere")[0] == 404 and s.request("HEAD", "/health")[0] == 200
    m = s.metrics()
    for name in "ttft tpot e2el queue".split():
        assert m[f'brigade_{name}_seconds_bucket{{le="+Inf"}}'] == m[f"brigade_{name}_seconds_count"]
    assert m["brigade_tokens_out_total"] > 0 and m['brigade_stage_busy_seconds_total{stage="0"}'] > 0


# ---- What is refused -----------------------------------------------------------------------------------------------


def test_refused_by_name():
    s = shared()
    message = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    for field, value in [("tools", [{"type": "function"}]), ("response_format", {"type": "json_schema"}), ("functions", [{}]),
                         ("response_format", {"type": "json_object"}), ("audio", {}), ("modalities", ["text", "audio"]),
                         ("tool_choice", "auto"), ("parallel_tool_calls", True), ("prediction", {}), ("reasoning_effort", "low"),
                         ("web_search_options", {}), ("frobnicate", 1), ("prompt", "x"), ("temperature", 3), ("temperature", "1"),
                         ("temperature", True), ("top_p", -0.1), ("n", 0), ("n", 1.5), ("n", 1000), ("max_tokens", 0),
                         ("max_tokens", -1), ("max_tokens", "9"), ("stop", ""), ("stop", [1]), ("stop", ["x"] * 17),
                         ("stop", {}), ("logit_bias", [1]), ("logit_bias", {"x": 1}), ("logit_bias", {"1": 101}), ("seed", 1.5),
                         ("logprobs", 1), ("top_logprobs", 2), ("stream", "yes"), ("stream_options", {"include_usage": True}),
                         ("messages", []), ("messages", "hi"), ("presence_penalty", 2.5), ("frequency_penalty", -3), ("model", 7),
                         ("max_completion_tokens", 5), ("service_tier", "flex"), ("top_k", -2), ("min_p", 2),
                         ("priority", 101), ("priority", 0.5), ("store", True), ("user", 5), ("metadata", "x"), ("verbosity", "low"),
                         ("chat_template_kwargs", {"messages": []})]:
        error = s.refused(CHAT, {**message, field: value}, field)
        assert error["param"] == field and error["type"] == "invalid_request_error", error
    assert s.refused(CHAT, {**message, "logprobs": True, "top_logprobs": 21})["param"] == "top_logprobs"
    assert s.refused(CHAT, {**message, "stream": True, "stream_options": {"x": 1}})["param"] == "stream_options.x"
    for bad, param in [({"role": "user"}, "messages[0].content"), ({"content": "x"}, "messages[0].role"), (7, "messages[0]"),
                       ({"role": "tool", "content": "x"}, "messages[0].role"), ({"role": "user", "content": None}, "messages[0].content"),
                       ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages[0].content[0]"),
                       ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0]"),
                       ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "messages[0].tool_calls")]:
        assert s.refused(CHAT, {"messages": [bad]})["param"] == param
    assert s.refused(CHAT, {})["param"] == "messages" and s.refused(TEXT, {})["param"] == "prompt"
    for field, value in [("suffix", "x"), ("best_of", 3), ("logprobs", 21), ("logprobs", True), ("messages", []), ("prompt", []),
                         ("prompt", [1, "x"]), ("prompt", [[]]), ("prompt", {}), ("prompt", [True]), ("max_tokens", 0), ("tools", [])]:
        assert s.refused(TEXT, {"prompt": "x", **{field: value}})["param"] == field, field
    assert s.refused(TEXT, {"prompt": "x", "echo": True, "logprobs": 1})["param"] == "logprobs"
    assert s.refused(TEXT, {"prompt": ["x"] * 100, "n": 2})["param"] == "prompt"
    s.refused(TEXT, {"prompt": [1, 2, 99999]}, "99999", "2048")
    s.refused(TEXT, {"prompt": [-5]}, "outside")
    s.refused(TEXT, {"prompt": "x", "logit_bias": {"99999": 1}}, "99999")


def test_over_the_context():
    error = shared().refused(TEXT, {"prompt": "once upon a time there was a dog. " * 200}, "512")
    assert error["code"] == "context_length_exceeded" and error["param"] == "prompt"
    tokens = int(error["message"].split(" has ")[1].split()[0])
    assert tokens == shared().post("/tokenize", {"content": "once upon a time there was a dog. " * 200})["count"]
    assert shared().refused(CHAT, {"messages": [{"role": "user", "content": "dog " * 2000}]}, "512")["param"] == "messages"


def test_malformed_json():
    s = shared()
    corpus = ["", "{", "}", "[]", "null", "7", '"x"', "{]", '{"prompt":}', '{"prompt":"x",}', "{'prompt':'x'}", '{"prompt":"x"}}',
              '{"prompt":"x"} {"prompt":"y"}', '{"prompt":"\\ud800"}', '{"prompt":"\\u0000"}', '{"prompt":"\\x"}', '{"prompt":"\x01"}',
              '{"prompt":"x","prompt":"y"}', '{"prompt":' + "[" * 100000 + "]" * 100000 + "}", '{"a":' * 70 + "1" + "}" * 70,
              '{"prompt":"x","max_tokens":1e999}', '{"prompt":"x","max_tokens":' + "9" * 400 + "}", '{"prompt":"x","temperature":NaN}',
              '{"prompt":"x","seed":9223372036854775808}', "\ufeff{}", "not json at all", "<xml/>", "prompt=x&max_tokens=1"]
    for body in [c.encode() for c in corpus] + [b'{"prompt":"\xff\xfe"}', b'{"prompt":"\xc0\x80"}', b"\x00" * 50, os.urandom(300)]:
        status, headers, reply = s.request("POST", TEXT, body)
        assert status == 400 and set(json.loads(reply)) == {"error"}, (body[:60], status, reply)
    rng = random.Random(7)
    valid = json.dumps({"messages": [{"role": "user", "content": "Once é"}], "max_tokens": 1, "stop": ["a"], "logit_bias": {"5": 1}})
    for _ in range(300):  # edits of something valid: any answer but a 5xx or none
        data = bytearray(valid.encode())
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            how = rng.randrange(3)
            data[at:at + (how != 1)] = [] if how == 0 else [rng.choice(b'{}[]",:\\0129eE.-tfn\x00\xff ')]
        status = s.request("POST", CHAT, bytes(data))[0]
        assert status in (200, 400), (status, data)
    s.settle()


def test_malformed_http():
    s = Server("--read-timeout", 600)  # not by this is noticed that nothing more comes
    body = b'{"prompt":"x","max_tokens":1}'
    corpus = [b"\r\n\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET\r\n\r\n", b"GET /health\r\n\r\n", b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
              b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
              b"GET /health HTTP/1.1\r\n" + b"X-A: b\r\n" * 20000 + b"\r\n", b"GET /%00%ff/../.. HTTP/1.1\r\nHost: x\r\n\r\n",
              b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
              b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n" + body,
              b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: twelve\r\n\r\n" + body,
              b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" + body,
              b"hello\n", b"*1\r\n$4\r\nPING\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n"]
    rng = random.Random(5)
    corpus += [rng.randbytes(n) for n in (1, 1, 2, 10, 100, 2000, 10000) for _ in range(5)] + [b"G", b"GET", b"\r\n"]
    for data in corpus:
        got = raw(s, data, close=True)
        if not got and len(data) > 20000:  # refused before it was read, which may cost the client the reply
            continue
        first = got.split(b"\r\n")[0].split() or [b"nothing"]
        assert first[0].startswith(b"HTTP/1.") and (first[1][:1] == b"4" or first[1] == b"505"), (data[:60], got[:100])
    assert json.loads(raw(s, b"\x16\x03\x01", close=True).split(b"\r\n\r\n")[1])["error"]["code"] == "no_http"
    for coding in (b"gzip", b"gzip, chunked"):  # nobody knows where such a body ends
        strange = raw(s, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %b\r\n\r\n" % coding + body, close=True)
        assert strange.startswith(b"HTTP/1.1 501 ") and b'"transfer_encoding"' in strange, strange
    unfinished = raw(s, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + body, close=True)
    assert unfinished == b"", unfinished  # half a request and the end: a hang-up
    with socket.create_connection(("127.0.0.1", s.port), timeout=patience()) as slow:  # the first word in two pieces
        slow.sendall(b"GE")
        slow.sendall(b"T /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
    chunked = raw(s, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert chunked.startswith(b"HTTP/1.1 200")
    assert json.loads(s.get("/health"))["status"] == "ready"
    s.settle()
    s.stop()


def test_http_corpus():
    """Raw connections: bad-… get a 4xx, ok-… an answer; and the server lives on."""
    s = shared()
    folder = os.path.join(SOURCE, "tests/coordinator/corpus/fuzz_http")
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            bad, data = name.startswith("bad-"), f.read()
        got = raw(s, data, close=bad)  # half a close is a hang-up
        statuses = [int(line.split()[1]) for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.")]
        if name.startswith("ok-"):
            assert statuses and statuses[-1] in (200, 204), (name, got[:200])
        else:
            cut = len(data) > 15000 and not got  # refused before it was read, which may cost the client the reply
            assert cut or 400 <= statuses[-1] < 500 or statuses[-1] == 505, (name, got[:200])
    assert json.loads(s.get("/health"))["status"] == "ready"


def test_limits():
    s = Server("--max-body", "4K", "--read-timeout", 2)
    big = json.dumps({"prompt": "x" * 10000})
    assert "4096" in json.loads(s.request("POST", TEXT, big)[2])["error"]["message"]
    assert s.request("POST", TEXT, big)[0] == 413
    got = raw(s, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 413"), got[:60]
    with socket.create_connection(("127.0.0.1", s.port), timeout=patience()) as c:  # a body that drips in, one byte short of its length
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n")
        try:
            for _ in range(10000 - 1):
                c.sendall(b" ")
                time.sleep(0.1)
            raise AssertionError("a client that drips is served for ever")
        except ConnectionError:
            pass
    s.settle()
    s.stop()
    s = Server("--timeout", 1, "--ctx", 512)
    busy = [{"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 100, "seed": i} for i in range(2)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        statuses = [status for status, _, _ in pool.map(lambda b: s.request("POST", TEXT, b), busy)]
    assert set(statuses) <= {200, 504} and 504 in statuses, statuses
    s.settle()
    s.stop()


def test_keys():
    path = os.path.join(FOLDER, "keys.txt")
    with open(path, "w") as f:
        f.write("# keys\nsk-one\n\n  sk-two  \n")
    s = Server("--api-key-file", path)
    for header in (None, "Bearer", "Bearer ", "Bearer sk-on", "Bearer sk-one1", "Basic sk-one", "sk-one", "Bearer # keys"):
        for method, url, body in (("POST", TEXT, b'{"prompt":"x"}'), ("GET", "/v1/models", None), ("GET", "/metrics", None), ("GET", "/x", None)):
            status, headers, reply = s.request(method, url, body, {"Authorization": header} if header else {})
            assert status == 401 and json.loads(reply)["error"]["code"] == "invalid_api_key", (header, url, status)
    for key in ("sk-one", "sk-two"):
        assert s.post(TEXT, {"prompt": "x", "max_tokens": 1}, headers={"Authorization": f"Bearer {key}"})
    assert s.request("GET", "/health")[0] == 200 and s.request("GET", "/")[0] == 200 and s.request("OPTIONS", TEXT)[0] == 204
    s.stop()
    one_line(brigade("serve", "-m", MODEL, "--port", 0, "--api-key-file", "/no/such/keys"), 1, "/no/such/keys")
    open(path, "w").close()
    one_line(brigade("serve", "-m", MODEL, "--port", 0, "--api-key-file", path), 1, "keys.txt", "no key")


# ---- Many, gone, slow ----------------------------------------------------------------------------------------------


def test_the_same_in_company():
    s = Server("--stages", 2, "--split", "4,4")
    asks = [dict(prompt=PROMPT[:10 + i], max_tokens=24, **({"temperature": 0} if i % 2 else {"seed": i, "temperature": 1.1}))
            for i in range(16)]
    alone = [s.post(TEXT, a)["choices"][0]["text"] for a in asks]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda a: s.post(TEXT, a)["choices"][0]["text"], asks))
    assert together == alone
    here = Server()
    assert [here.post(TEXT, a)["choices"][0]["text"] for a in asks[:4]] == alone[:4]
    here.stop()
    m = s.settle()
    assert m['brigade_stage_busy_seconds_total{stage="1"}'] > 0 and m["brigade_kv_pages"] > 0
    assert any(name.startswith("brigade_node_bytes_in_total") and value > 0 for name, value in m.items())
    s.stop()


def test_short_of_pages():
    """Sixteen long answers in a cache for two: some make room, are computed again later, and say the same."""
    s = Server("--parallel", 16, "--kv-tokens", 1024, "--ctx", 512)
    tokens = 120 if THIN else 300
    asks = [dict(prompt=PROMPT[:8 + i], max_tokens=tokens, seed=i, ignore_eos=True, priority=i % 3 - 1) for i in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda a: s.post(TEXT, a)["choices"][0]["text"], asks))
    m = s.settle()
    assert m["brigade_preemptions_total"] > 0 and m["brigade_kv_pages"] == 32
    assert m['brigade_microbatch_tokens_bucket{le="+Inf"}'] == m["brigade_microbatch_tokens_count"] > 0
    for i in (0, 7, 15):
        assert s.post(TEXT, asks[i])["choices"][0]["text"] == together[i], i
    s.stop()


def test_cache_of_q8():
    """Half the bytes a token; the answers are those of a run with such a cache, in company and on kept pages, too."""
    s = Server("--kv-type", "q8", "--stages", 2)
    want = brigade_json("run", "-m", MODEL, "-p", PROMPT, "-n", 40, "--temp", 0, "--ignore-eos", "--kv-type", "q8")["text"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda i: s.text(PROMPT, max_tokens=40, temperature=0, ignore_eos=True), range(4)))
    assert [a["choices"][0]["text"] for a in asked] == [want] * 4
    s.settle()
    s.stop()
    bench = ("bench", "--serve", "-m", MODEL, "--workload", "clients:1", "--requests", 1, "--threads", 1)
    f16, q8 = (brigade_json(*bench, "--kv-type", kind)["stages"][0]["kv_bytes"] for kind in ("f16", "q8"))
    assert 0.5 < q8 / f16 < 0.6, (f16, q8)


def test_shared_beginnings():
    """Ten clients with one system prompt: it is computed once."""
    s = Server("--parallel", 10)
    system = {"role": "system", "content": "You tell short stories about animals that are kind to each other. " * 12}
    count = s.post("/tokenize", {"messages": [system]})["count"]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda i: s.post(CHAT, {"messages": [system, {"role": "user", "content": f"Tell me number {i}!"}],
                                              "max_tokens": 4}), range(10)))
    m = s.settle()
    assert m["brigade_prefix_hits_total"] == 9 and m["brigade_prefix_misses_total"] == 1
    assert m["brigade_prompt_tokens_shared_total"] >= 9 * (count - 33), (m["brigade_prompt_tokens_shared_total"], count)
    assert m["brigade_tokens_in_total"] < count + 10 * (33 + 20)
    s.stop()


def test_hangups_free_pages():
    s = Server("--parallel", 4)
    for stream in (True, False):
        before = s.metrics()["brigade_hangups_total"]
        sockets = []
        for i in range(6):
            body = json.dumps({"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 8, "stream": stream}).encode()
            c = socket.create_connection(("127.0.0.1", s.port))
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            sockets.append(c)
        until(lambda: s.metrics()["brigade_requests_running"] > 0, s.metrics)
        for c in sockets:
            c.close()
        m = s.settle()
        assert m["brigade_hangups_total"] > before, stream
    assert s.metrics()["brigade_requests_cancelled_total"] > 0
    s.stop()


def test_slow_readers():
    s = Server("--client-buffer", "16K")
    body = json.dumps({"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 30, "logprobs": 20, "stream": True}).encode()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", s.port))
    slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    for _ in range(5):  # others are served meanwhile
        assert s.text("Once", max_tokens=5)["usage"]["completion_tokens"] == 5
    until(lambda: s.metrics()["brigade_slow_readers_total"] > 0, s.metrics)
    slow.settimeout(patience())
    got = b""
    while b"slow_reader" not in got and (block := slow.recv(65536)):
        got = got[-200:] + block
    assert b"slow_reader" in got, got[-300:]
    slow.close()
    s.settle()
    s.stop()


def test_full_queue():
    s = Server("--parallel", 1, "--queue", 2)
    holders = []
    body = json.dumps({"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "stream": True, "n": 3}).encode()
    for attempt in range(50):
        c = socket.create_connection(("127.0.0.1", s.port))
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        holders.append(c)
        status, headers, reply = s.request("POST", TEXT, {"prompt": "x", "max_tokens": 2, "n": 3})
        if status == 429:
            break
    assert status == 429 and int(headers["Retry-After"]) >= 1, status
    assert json.loads(reply)["error"]["type"] == "rate_limit_error"
    for c in holders:
        c.close()

    def served():  # a holder whose request was still being read comes in now, and is noticed to be gone
        status, _, reply = s.request("POST", TEXT, {"prompt": "x", "max_tokens": 2})
        assert status in (200, 429), (status, reply)
        return status == 200 and json.loads(reply)
    assert until(served)["usage"]["completion_tokens"] == 2
    s.settle()
    s.stop()


def test_stress():
    """Requests of random shape from 32 clients, a third of them aborted at random: the others complete, nothing leaks."""
    total = int(os.environ.get("BRIGADE_STRESS_REQUESTS", 60 if THIN else 200))
    s = Server("--parallel", 8, "--queue", 2000, "--kv-tokens", 2048)
    rng = random.Random(20)
    jobs = [(i, rng.random() < 1 / 3, rng.random() < 0.6, rng.random() * 0.15, {
        "max_tokens": rng.choice((1, 5, 20, 60, 200)), "temperature": rng.choice((0, 0.7, 1.5)), "seed": rng.randrange(1 << 40),
        "n": rng.choice((1, 1, 1, 2, 4)), "ignore_eos": rng.random() < 0.5, "stop": rng.choice((None, ["the"], [".", "Lily"])),
        "top_p": rng.choice((1, 0.5)), **({"logit_bias": {"5": -100}} if rng.random() < 0.2 else {}),
        "messages": [{"role": "user", "content": "once upon a time there was a dog. " * rng.choice((1, 1, 3, 10, 30))}]}) for i in range(total)]

    def client(job):
        i, abort, stream, patience, fields = job
        connection = s.connect(timeout=300)
        try:
            connection.request("POST", CHAT, json.dumps({**fields, "stream": stream, "logprobs": i % 5 == 0}))
            if abort:
                time.sleep(patience)
                if stream and i % 2:
                    connection.getresponse().read(100)
                return "aborted"
            reply = connection.getresponse()
            data = reply.read().decode()
            assert reply.status == 200, (reply.status, data)
            if stream:
                assert data.endswith("data: [DONE]\n\n") and '"error"' not in data
                ends = sum(json.loads(e[6:])["choices"][0]["finish_reason"] is not None for e in data.split("\n\n")[:-2])
            else:
                ends = sum(c["finish_reason"] in ("stop", "length") for c in json.loads(data)["choices"])
            assert ends == fields["n"], (ends, fields)
            return "complete"
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(client, jobs))
    assert outcomes.count("complete") == sum(not job[1] for job in jobs)
    m = s.settle()
    assert m["brigade_requests_failed_total"] == 0 and m['brigade_requests_finished_total{reason="error"}'] == 0
    s.stop()


def test_bench_serve():
    path = os.path.join(FOLDER, "requests.csv")
    with open(path, "w") as f:
        f.write("# two clients\narrival_s,prompt_tokens,output_tokens,client,priority\n")
        f.writelines(f"{i * 0.01},{20 + i},{4 + i % 3},{i % 2},{i % 2}\n" for i in range(20))
    got = brigade_json("bench", "--serve", "-m", MODEL, "--workload", path, "--slo", "ttft=100s,tpot=100s", "--threads", 1)
    assert (got["requests"], got["done"], got["refused"], got["failed"]) == (20, 20, 0, 0)
    assert got["prompt_tokens"] == sum(20 + i for i in range(20)) and got["generated_tokens"] == sum(4 + i % 3 for i in range(20))
    for name in ("ttft_ms", "tgt_ms", "tpot_ms", "e2el_ms"):
        m = got[name]
        assert 0 < m["min"] <= m["p50"] <= m["p90"] <= m["p95"] <= m["p99"] <= m["max"] and m["min"] <= m["mean"] <= m["max"], (name, m)
    assert got["goodput"]["share"] == 1 and abs(got["goodput"]["rps"] - got["rps"]) < 1e-6 and got["seconds"] >= 0.19
    both = brigade_json("bench", "--serve", "-m", MODEL, "--workload", "clients:4", "--requests", 12, "--prompt-tokens", 70, "--shared", 64,
                        "--output-tokens", "3,5", "--stages", 2, "--threads", 1, "--slo", "e2el=1us")
    assert len(both["stages"]) == 2 and both["goodput"]["share"] == 0 and both["prompt_tokens_shared"] == 11 * 64, both
    for stage in both["stages"]:
        assert stage["model_bytes"] > 1e6 and stage["kv_bytes"] > 0 and stage["planned_bytes"] > stage["model_bytes"]
        assert stage["peak_bytes"] > 1e6 and 0 < stage["busy"] <= 1
    c = Cluster(2)
    real = brigade_json("bench", "--serve", "-c", c.config, "-m", MODEL, "--workload", path, "--stages", 2, "--slo", "ttft=100s")
    assert (real["done"], real["generated_tokens"], real["goodput"]["share"]) == (20, got["generated_tokens"], 1), real
    assert {stage["device"] for stage in real["stages"]} == {"w0", "w1"} and all(stage["peak_bytes"] > 1e6 for stage in real["stages"])
    for name in ("rps", "prefill_tps", "decode_tps"):
        assert real[name] > 0, real
    c.stop()
    table = brigade("bench", "--serve", "-m", MODEL, "--workload", "poisson:1000", "--requests", 5, "--slo", "ttft=9s", "--threads", 1)
    assert table.returncode == 0, table
    for word in ("TTFT", "TGT", "TPOT", "E2EL", "RPS", "TPS prefill", "decode", "goodput", "model", "cache", "peak"):
        assert word in table.stdout, (word, table.stdout)
    one_line(brigade("bench", "--serve", "-m", MODEL), 2, "--workload")
    one_line(brigade("bench", "--serve", "-m", MODEL, "--workload", "/no/such.csv"), 1, "/no/such.csv")
    one_line(brigade("bench", "--serve", "-m", MODEL, "--workload", "poisson:fast"), 2, "poisson:fast")
    one_line(brigade("bench", "--serve", "-m", MODEL, "--workload", path, "--slo", "ttft=fast"), 2, "ttft=fast")


# ---- Coming and going ----------------------------------------------------------------------------------------------


def test_ctrl_c():
    answers, tokens = (5, 150) if THIN else (20, 400)
    for number in (signal.SIGINT, signal.SIGTERM):
        s = Server("--grace", patience())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(s.request, "POST", TEXT, {"prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "n": answers})
            while not s.metrics()["brigade_requests_running"]:
                assert not running.done()
            s.stop(number)  # what runs may finish
            status, _, body = running.result()
            assert status == 200 and len(json.loads(body)["choices"]) == answers
        try:
            s.request("GET", "/health", timeout=2)
            assert False, "still there"
        except OSError:
            pass
    s = Server("--grace", 0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(s.request, "POST", TEXT, {"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 100})
        while not s.metrics()["brigade_requests_running"]:
            assert not running.done()
        s.stop()
        status, _, body = running.result()
        assert status in (200, 503) and (status == 200 or "stopping" in json.loads(body)["error"]["message"])


def test_loading_and_warning():
    s = Server("--stages", 2, wait=False)
    status, _, body = s.request("GET", "/health")
    assert (status, json.loads(body)["status"]) in ((503, "loading"), (200, "ready"))
    while json.loads(s.request("GET", "/health")[2])["status"] != "ready":
        status = s.request("POST", TEXT, {"prompt": "x"})[0]
        assert status in (503, 200), status
        time.sleep(0.02)
    assert s.stop().count("chat template") == 1
    one_line(brigade("serve", "-m", "/no/such.gguf", "--port", 0), 1, "/no/such.gguf")
    taken = shared().port
    one_line(brigade("serve", "-m", MODEL, "--port", taken), 1, str(taken))
    one_line(brigade("serve"), 2, "-m")


def test_lost_worker():
    """A worker that dies is not noticed but for a pause; when the last one dies, new ones are started."""
    s = Server("--stages", 2)
    workers = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(s.process.pid)], capture_output=True, text=True).stdout.split("\n")
    workers = [int(w.split()[0]) for w in workers if "brigade-worker" in w]
    assert len(workers) == 2, workers
    before = s.text("Once", max_tokens=20, temperature=0)["choices"]
    os.kill(workers[0], signal.SIGKILL)
    for _ in range(3):
        assert s.text("Once", max_tokens=20, temperature=0)["choices"] == before
    assert json.loads(s.get("/health"))["status"] == "ready"
    killed, seen = time.monotonic(), set()

    def again():
        seen.add(json.loads(s.request("GET", "/health")[2])["status"])
        status, _, body = s.request("POST", TEXT, {"prompt": "Once", "max_tokens": 20, "temperature": 0})
        assert status in (200, 500, 503), (status, body)
        return status == 200 and json.loads(body)["choices"] == before and json.loads(s.get("/health"))["status"] == "ready"
    with Stalls() as stalls:
        os.kill(workers[1], signal.SIGKILL)
        until(lambda: again() and any(at > killed and "trying again" in line for at, line in s.lines), s.errors)
    assert "degraded" in seen or stalls.longest > 0.5, seen  # it is so for two seconds at least
    s.settle()
    s.stop()


def test_chat_command():
    said = "Once upon a \\\ntime\n/stats\n/nonsense\n/help\n/reset\nOnce\n/quit\nnever\n"
    done = subprocess.run([BRIGADE, "chat", "-m", MODEL, "-n", "12", "--temp", "0"], input=said, capture_output=True, text=True, timeout=patience())
    assert done.returncode == 0, done.stderr
    first = brigade_json("run", "-m", MODEL, "--chat", "-p", "Once upon a \ntime", "-n", 12, "--temp", 0)["text"]
    second = brigade_json("run", "-m", MODEL, "--chat", "-p", "Once", "-n", 12, "--temp", 0)["text"]
    assert done.stdout.startswith(first + "\n") and done.stdout.endswith(second + "\n"), done.stdout
    for word in ("tokens/s", "/nonsense", "/reset", "forgotten"):
        assert word in done.stdout, word
    assert done.stderr.count("chat template") == 1
    stopped = subprocess.Popen([BRIGADE, "chat", "-m", MODEL, "--ignore-eos", "--stages", "2"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stopped.stdin.write("Once\n")
    stopped.stdin.flush()
    stopped.stdout.read(1)
    stopped.send_signal(signal.SIGINT)
    out, errors = stopped.communicate("/stats\n/quit\n", timeout=patience())
    assert stopped.returncode == 0 and "tokens/s" in out, (stopped.returncode, out, errors)


# ---- The clients of others -----------------------------------------------------------------------------------------


def absent(what):
    """A program that scripts/packages test installs is not here: no reason to pass where that has run."""
    assert not os.environ.get("BRIGADE_TEST_WHOLE"), f"{what} is not installed: scripts/packages test does that"
    raise SkipTest(f"{what} is not installed")


def test_openai_client():
    if not shutil.which("npm") or not shutil.which("node"):
        absent("npm or node")
    folder = temporary_folder()
    shutil.copy(os.path.join(SOURCE, "tests/system/openai/client.mjs"), folder)
    with open(os.path.join(folder, "package.json"), "w") as f:
        json.dump({"name": "client", "private": True, "type": "module"}, f)
    try:
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "openai@6"], cwd=folder, capture_output=True,
                              text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise SkipTest("the npm registry does not answer")
    if done.returncode:
        raise SkipTest(f"the openai client cannot be installed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    keys = os.path.join(folder, "keys.txt")
    with open(keys, "w") as f:
        f.write("sk-test\n")
    s = Server("--api-key-file", keys)
    s.key = "sk-test"
    done = subprocess.run(["node", "client.mjs", f"http://127.0.0.1:{s.port}/v1", "sk-test"], cwd=folder, capture_output=True, text=True,
                          timeout=patience())
    assert done.returncode == 0, done.stdout + done.stderr
    s.settle()
    s.stop()


def test_dashboard():
    status, headers, page = shared().request("GET", "/")
    assert status == 200 and headers["Content-Type"].startswith("text/html") and "default-src 'none'" in headers["Content-Security-Policy"]
    text = page.decode()
    for outside in ("src=\"http", "href=\"http", "url(http", "@import", "//cdn"):
        assert outside not in text, outside
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        absent("chromium")
    s = Server("--stages", 2)
    s.text("Once", max_tokens=40)
    folder = os.environ.get("BRIGADE_SCREENSHOTS") or FOLDER
    picture = os.path.join(folder, "dashboard.png")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--window-size=1280,1000", "--virtual-time-budget=4000"]
    url = f"http://127.0.0.1:{s.port}/#ask=Once%20upon%20a%20time"
    for what in (["--dump-dom"], [f"--screenshot={picture}"]):
        done = subprocess.run([program, *flags, f"--user-data-dir={temporary_folder()}", *what, url], capture_output=True, text=True, timeout=patience())
        assert done.returncode == 0, done.stderr[-2000:]
        if what[0] == "--dump-dom":
            for word in ("stories-5m-q8_0", "blocks 0 to", "ready", "tokens/s", "llama", 'class="say assistant"'):
                assert word in done.stdout, (word, done.stdout[:3000])
    assert os.path.getsize(picture) > 10000
    s.stop()


main(globals())
