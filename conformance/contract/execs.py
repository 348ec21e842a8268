"""Exec: the NDJSON contract, handles that outlive the connection, both WebSocket framings."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from checks import Suite, equal, eventually, go_duration, one_of, rfc3339
from contract.fixture import API, Server, expect, fresh

suite = Suite("execs")

WAIT = "n=0; until [ -e {0} ]; do n=$((n+1)); [ $n -gt 200 ] && exit 9; sleep 0.1; done"


def release(s: Server, gate: str) -> None:
    expect(s.http.post(f"{s.path}/files", json={"path": gate, "content": ""}), 200)


# --- sync


@suite.check("a sync exec answers exit code, both streams, duration and its id")
def _(s: Server) -> None:
    reply = s.http.post(f"{s.path}/exec", json={"command": "echo o; echo e >&2; exit 5", "unknown": {"field": 1}})
    result = expect(reply, 200)
    equal((result["stdout"], result["stderr"], result["exit_code"]), ("o\n", "e\n", 5), "result")
    go_duration(result["duration"])
    exec_id = result.get("exec_id") or reply.headers.get("x-exec-id")
    record = expect(s.http.get(f"/execs/{exec_id}"), 200)
    equal(
        (record["id"], record["sandbox_id"], record["exit_code"]),
        (exec_id, s.sandbox, 5),
        "the exec's record",
    )


@suite.check("a command that cannot be run ends as 126 or 127, or is a bad request, with the reason told")
def _(s: Server) -> None:
    for body in ({"command": "/no/such/program", "mode": "argv"}, {"command": "/etc/passwd", "mode": "argv"}):
        reply = s.http.post(f"{s.path}/exec", json=body)
        if reply.status_code == 200:
            result = reply.json()
            one_of(result["exit_code"], (126, 127), "exit code")
            assert result["stderr"], "stderr says why"
        else:
            expect(reply, 400, "BAD_REQUEST")


@suite.check("a workdir that is not there is told, and does not run the command")
def _(s: Server) -> None:
    mark = fresh("/tmp/ran-")
    reply = s.http.post(f"{s.path}/exec", json={"command": f"touch {mark}", "workdir": "/no/such/dir"})
    assert reply.status_code in (400, 404) or reply.json()["exit_code"] != 0, reply.text
    equal(s.exec(f"test -e {mark}")["exit_code"], 1, "exit code of test -e")


@suite.check("ten execs at once keep their outputs apart")
def _(s: Server) -> None:
    got: dict[int, Any] = {}
    path = f"{s.path}/exec"

    def ask(n: int) -> None:
        with s.client({"X-API-Key": s.options.api_key}) as client:
            body = {"command": f"for i in 1 2 3 4 5; do echo {n}-$i; sleep 0.05; done; exit {n}"}
            got[n] = client.post(path, json=body).json()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(10)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for n in range(10):
        equal(
            (got[n]["stdout"], got[n]["exit_code"]),
            ("".join(f"{n}-{i}\n" for i in range(1, 6)), n),
            f"exec {n}",
        )


@suite.check("output that is not UTF-8 does not break the sync reply")
def _(s: Server) -> None:
    result = s.exec("printf 'a\\377\\376b\\000c'")
    equal(result["stdout"], "a\ufffd\ufffdb\0c", "stdout")


@suite.check("a background child that keeps the pipe open does not hang the exec")
def _(s: Server) -> None:
    result = expect(s.http.post(f"{s.path}/exec", json={"command": "echo started; sleep 40 &"}, timeout=25), 200)
    equal((result["stdout"], result["exit_code"]), ("started\n", 0), "result")


@suite.check("zombies are reaped")
def _(s: Server) -> None:
    s.sh("for i in 1 2 3 4 5; do (sh -c 'sleep 0.1 &' ) ; done; sleep 0.5")
    zombies = s.sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l").strip()
    equal(zombies, "0", "zombies")


# --- NDJSON


@suite.check("NDJSON starts with the exec id, counts offsets, ends with the exit code")
def _(s: Server) -> None:
    stream = s.stream("for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.05; done; exit 4")
    first = next(iter_records := stream.records())
    assert first.get("exec_id"), f"the first record carries exec_id: {first}"
    for _ in iter_records:
        pass
    equal(stream.last.get("exit_code"), 4, f"exit code in the last record {stream.last}")
    assert "stream" not in stream.last, f"the exit record has no stream: {stream.last}"
    equal(stream.output["stdout"], b"out 1\nout 2\nout 3\n", "stdout")
    equal(stream.output["stderr"], b"err 1\nerr 2\nerr 3\n", "stderr")


@suite.check("NDJSON that nobody asked more of is output and nothing else, and the id rides in a header")
def _(s: Server) -> None:
    def records(command: str) -> tuple[str, list[dict]]:
        with s.http.stream("POST", f"{s.path}/exec", json={"command": command, "stream": True}) as reply:
            equal(reply.status_code, 200, "status")
            lines = reply.read().split(b"\n")
        return reply.headers["x-exec-id"], [json.loads(line) for line in lines if line.strip()]

    exec_id, got = records("echo out; sleep 0.1; echo err >&2; exit 4")
    equal([(r["stream"], r["data"]) for r in got], [("stdout", "out\n"), ("stderr", "err\n")], "records")
    equal(expect(s.http.get(f"/execs/{exec_id}"), 200)["exit_code"], 4, "exit code by the id")
    equal(records("true")[1], [], "records of a silent command")
    reply = s.http.post(f"{s.path}/exec?records=some", json={"command": "true", "stream": True})
    expect(reply, 400, "BAD_REQUEST")


@suite.check("a failure that comes late is a line on stderr for who is told nothing but output")
def _(s: Server) -> None:
    for more, code in (({"timeout": "300ms"}, "TIMEOUT"), ({"workdir": "/not/there"}, "BAD_REQUEST")):
        body = {"command": "echo x; sleep 20", "stream": True} | more
        lines = [line for line in s.http.post(f"{s.path}/exec", json=body).text.split("\n") if line]
        last = json.loads(lines[-1])
        equal((last["stream"], last["error"]["code"]), ("stderr", code), f"last record with {more}")
        assert last["data"].startswith("stacyvm: "), last


@suite.check("an exec without output, and one killed by a signal, end with their exit record")
def _(s: Server) -> None:
    for command, code in (("true", 0), ("kill -9 $$", 137), ("exec sh -c 'kill -15 $$'", 143)):
        stream = s.stream(command).run()
        equal(stream.last["exit_code"], code, f"exit code of {command}")
        equal(stream.outputs, [], f"output of {command}")


@suite.check("a character is never split across chunks, however it is written")
def _(s: Server) -> None:
    awkward = "for i in 1 2 3; do printf '\\360'; sleep 0.03; printf '\\237'; sleep 0.03; printf '\\230\\200\\303'; sleep 0.03; printf '\\251'; done"
    for redirect, name in (("", "stdout"), (" >&2", "stderr")):
        stream = s.stream(f"({awkward}){redirect}").run()
        equal(stream.output[name].decode(), "😀é" * 3, name)
        torn = [r for r in stream.outputs if "data_b64" in r or "\ufffd" in r["data"]]
        assert not torn, f"torn chunks: {torn}"


@suite.check("a flood of four-byte characters crosses every buffer whole")
def _(s: Server) -> None:
    command = "i=0; s=😀; while [ $i -lt 14 ]; do s=$s$s; i=$((i+1)); done; printf x; n=0; while [ $n -lt 24 ]; do printf %s $s; n=$((n+1)); done"
    stream = s.stream(command).run()
    equal(stream.output["stdout"].decode(), "x" + "😀" * 2**14 * 24, "stdout")
    torn = [r["offset"] for r in stream.outputs if "data_b64" in r]
    assert not torn, f"chunks torn at offsets {torn}"


@suite.check("bytes that are not UTF-8 ride in data_b64, a torn last character too")
def _(s: Server) -> None:
    for octal, raw in (
        ("\\377\\376ok\\200", b"\xff\xfeok\x80"),
        ("x\\360\\237", b"x\xf0\x9f"),
        ("\\355\\240\\200", b"\xed\xa0\x80"),
    ):
        equal(s.stream(f"printf '{octal}'").run().output["stdout"], raw, f"bytes of {octal}")
    stream = s.stream("dd if=/dev/urandom bs=1024 count=300 2>/dev/null | tee /tmp/random.bin").run()
    inside = s.http.get(f"{s.path}/files", params={"path": "/tmp/random.bin"}).content
    equal(len(inside), 300 * 1024, "size of the file")
    assert stream.output["stdout"] == inside, "random bytes differ from the file"


@suite.check("line separators of Unicode are escaped, for clients that split lines at them")
def _(s: Server) -> None:
    body = {"command": "printf '\\342\\200\\250|\\342\\200\\251|\\302\\205'", "stream": True}
    with s.http.stream("POST", f"{s.path}/exec", json=body) as response:
        raw = response.read()
    for separator in ("\u2028", "\u2029", "\u0085"):
        assert separator.encode() not in raw, f"U+{ord(separator):04X} is unescaped"
    text = "".join(json.loads(line).get("data", "") for line in raw.split(b"\n") if line.strip())
    equal(text, "\u2028|\u2029|\u0085", "text")


@suite.check("the stream is live: records arrive while the process waits for us")
def _(s: Server) -> None:
    gate = fresh("/tmp/gate-")
    stream, released = s.stream(f"echo first; {WAIT.format(gate)}; echo last"), False
    for record in stream.records():
        if record.get("stream") and not released:
            equal(stream.output["stdout"], b"first\n", "before the release")
            release(s, gate)
            released = True
    equal((stream.output["stdout"], stream.last["exit_code"]), (b"first\nlast\n", 0), "in the end")


@suite.check("a process silent for longer than a client's read timeout is kept alive by blank lines")
def _(s: Server) -> None:
    with httpx.Client(base_url=s.url + API, headers={"X-API-Key": s.options.api_key}, timeout=30.0) as patient:
        stream = s.stream("sleep 33; echo done")
        stream.http = patient
        stream.run()
    equal(stream.output["stdout"], b"done\n", "stdout")
    assert stream.blank_lines >= 1, "no heartbeat"


@suite.check("a stream over a bad request is a flat 4xx, not a stream")
def _(s: Server) -> None:
    for body in (
        {"command": None},
        {"command": "true", "mode": "fancy"},
        {"command": "true", "timeout": "-1s"},
    ):
        expect(s.http.post(f"{s.path}/exec", json=body | {"stream": True}), 400, "BAD_REQUEST")


@suite.check("a stream past its timeout says so in its last record")
def _(s: Server) -> None:
    stream = s.stream("echo before; sleep 20", timeout="500ms")
    for _ in stream.records():
        pass
    equal(stream.output["stdout"], b"before\n", "stdout")
    assert "timed_out" in json.dumps(stream.last).lower() or "timeout" in json.dumps(stream.last).lower(), stream.last


@suite.check("a stream whose sandbox is destroyed ends in order, with a record that is no success")
def _(s: Server) -> None:
    sandbox = s.spawn()["id"]
    stream, destroyed = s.stream("echo up; sleep 60", sandbox=sandbox), False
    for record in stream.records():
        if record.get("stream") and not destroyed:
            expect(s.http.delete(f"/sandboxes/{sandbox}"), 200)
            destroyed = True
    assert stream.last.get("exit_code") != 0 and "stream" not in stream.last, f"last record: {stream.last}"


# --- handles


def output(s: Server, exec_id: str, **query: Any) -> bytes:
    reply = s.http.get(f"/execs/{exec_id}/output", params={"stream": "stdout"} | query)
    assert reply.status_code == 200, f"{reply.status_code} {reply.text[:200]}"
    return reply.content


@suite.check("a disconnect leaves the process running, and its handle gives everything")
def _(s: Server) -> None:
    gate = fresh("/tmp/gate-")
    stream = s.stream(f"echo first; {WAIT.format(gate)}; echo last; echo e >&2; exit 6")
    for record in stream.records():
        if record.get("stream"):
            break  # closes the connection
    record = expect(s.http.get(f"/execs/{stream.exec_id}"), 200)
    assert "exit_code" not in record or record["exit_code"] is None, f"still running: {record}"
    one_of(record["state"], ("running", "started"), "state")
    release(s, gate)
    ended = eventually(lambda: has_exit(s, stream.exec_id), "the exec's end", 30)
    equal(ended["exit_code"], 6, "exit code")
    equal(output(s, stream.exec_id), b"first\nlast\n", "stdout")
    equal(output(s, stream.exec_id, stream="stderr"), b"e\n", "stderr")


def has_exit(s: Server, exec_id: str) -> dict | None:
    record = expect(s.http.get(f"/execs/{exec_id}"), 200)
    return record if record.get("exit_code") is not None else None


@suite.check("GET /execs/{id} tells sandbox, state, command and instants")
def _(s: Server) -> None:
    stream = s.stream("echo x; exit 2").run()
    record = expect(s.http.get(f"/execs/{stream.exec_id}"), 200)
    equal((record["id"], record["sandbox_id"], record["exit_code"]), (stream.exec_id, s.sandbox, 2), "record")
    assert record["state"], "state"
    for key in ("started_at", "ended_at"):
        rfc3339(record[key])


@suite.check("output is read from any offset, byte for byte, also after the sandbox is gone")
def _(s: Server) -> None:
    sandbox = s.spawn()["id"]
    stream = s.stream(
        "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; printf '\\377\\000'", sandbox=sandbox
    ).run()
    whole = "".join(f"line {i}\n" for i in range(30000)).encode() + b"\xff\x00"
    equal(stream.output["stdout"], whole, "streamed")
    reply = s.http.get(f"/execs/{stream.exec_id}/output", params={"stream": "stdout"})
    equal(reply.headers["content-type"], "application/octet-stream", "content type")
    expect(s.http.delete(f"/sandboxes/{sandbox}"), 200)
    assert output(s, stream.exec_id) == whole, "output differs after destroy"
    for offset in (0, 1, 65535, 65536, 65537, len(whole) - 1, len(whole)):
        assert output(s, stream.exec_id, offset=offset) == whole[offset:], f"output from {offset} differs"
    for bad in (
        {"offset": "-1"},
        {"offset": "x"},
        {"offset": "1.5"},
        {"stream": "other"},
        {"stream": ""},
        {"follow": "maybe"},
    ):
        query = {"stream": "stdout"} | bad
        expect(s.http.get(f"/execs/{stream.exec_id}/output", params=query), 400, "BAD_REQUEST")


@suite.check("follow waits at the live end and finishes with the process")
def _(s: Server) -> None:
    gate = fresh("/tmp/gate-")
    stream = s.stream(f"echo first; {WAIT.format(gate)}; echo last")
    for record in stream.records():
        if record.get("stream"):
            break
    query, text = {"stream": "stdout", "offset": 2, "follow": "true"}, b""
    with s.http.stream("GET", f"/execs/{stream.exec_id}/output", params=query) as response:
        equal(response.status_code, 200, "status")
        for part in response.iter_raw():
            if not text:
                release(s, gate)
            text += part
    equal(text, b"rst\nlast\n", "followed")


# --- WebSocket


def dial(s: Server, **more: Any) -> ClientConnection:
    url = s.url.replace("http", "ws", 1) + f"{API}{s.path}/exec/ws"
    headers = {"X-API-Key": s.options.api_key}
    return connect(url, additional_headers=headers, open_timeout=20, proxy=None, max_size=None, **more)


def frames(socket: ClientConnection) -> list[dict]:
    """All frames until the server's last one (done, exit or error)."""
    got = []
    while True:
        got.append(json.loads(socket.recv(timeout=30)))
        if got[-1].get("type") in ("done", "exit", "error"):
            return got


def text_of(got: list[dict], stream: str) -> str:
    return "".join(f.get("data", "") for f in got if stream in (f.get("stream"), f.get("type")))


@suite.check("WebSocket, plain framing: an exec request, chunks, then done")
def _(s: Server) -> None:
    with dial(s) as socket:
        socket.send(json.dumps({"command": "echo o; echo e >&2; printf %s", "args": ["it's"], "env": {"A": "b"}}))
        got = frames(socket)
    equal(got[-1]["type"], "done", "last frame")
    chunks = got[:-1]
    assert all(set(c) >= {"stream", "data"} for c in chunks), f"frames {chunks}"
    equal((text_of(chunks, "stdout"), text_of(chunks, "stderr")), ("o\nit's", "e\n"), "output")


@suite.check("WebSocket, documented framing: start, stdin, its end, exit code")
def _(s: Server) -> None:
    with dial(s) as socket:
        socket.send(json.dumps({"type": "start", "command": "read a; echo got $a; cat; exit 11"}))
        socket.send(json.dumps({"type": "stdin", "data": "one\n"}))
        socket.send(json.dumps({"type": "resize", "cols": 100, "rows": 40}))
        socket.send(json.dumps({"type": "stdin", "data": "two 😀\n"}))
        socket.send(json.dumps({"type": "stdin_close"}))
        got = frames(socket)
    equal((got[-1]["type"], got[-1]["exit_code"]), ("exit", 11), "last frame")
    equal(text_of(got, "stdout"), "got one\ntwo 😀\n", "stdout")


@suite.check("WebSocket, documented framing: a signal reaches the process")
def _(s: Server) -> None:
    for signal, code in (("SIGTERM", 42), ("KILL", 137)):
        with dial(s) as socket:
            socket.send(
                json.dumps(
                    {
                        "type": "start",
                        "command": "trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done",
                    }
                )
            )
            got = []
            while "ready" not in text_of(got, "stdout"):
                got.append(json.loads(socket.recv(timeout=30)))
            socket.send(json.dumps({"type": "signal", "signal": signal}))
            got = frames(socket)
        equal((got[-1]["type"], got[-1].get("exit_code")), ("exit", code), f"last frame after {signal}")


@suite.check("WebSocket is live, and a character is never split")
def _(s: Server) -> None:
    gate = fresh("/tmp/gate-")
    with dial(s) as socket:
        socket.send(
            json.dumps({"command": f"printf '\\360\\237'; sleep 0.1; printf '\\230\\200'; {WAIT.format(gate)}; echo z"})
        )
        text = ""
        while "😀" not in text:
            text += json.loads(socket.recv(timeout=25)).get("data", "")
        release(s, gate)
        got = frames(socket)
    equal(text + text_of(got, "stdout"), "😀z\n", "text")


@suite.check("WebSocket: a malformed first frame is an error or a close, never silence")
def _(s: Server) -> None:
    for first in (
        "nonsense",
        "[]",
        "{}",
        '{"command":null}',
        '{"type":"start"}',
        '{"type":"other"}',
        b"\xff\xfe",
        '{"command":5}',
    ):
        with dial(s) as socket:
            socket.send(first)
            try:
                frame = json.loads(socket.recv(timeout=20))
            except Exception as error:
                assert type(error).__name__.startswith("ConnectionClosed"), f"{first!r}: {error!r}"
                continue
        assert frame.get("type") == "error" or "code" in frame, f"{first!r}: {frame}"


@suite.check("WebSocket: no key is 401, an unknown sandbox 404, our own origin is let in")
def _(s: Server) -> None:
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    host = s.url.split("://", 1)[1]
    status, _, _ = s.raw(f"GET {API}{s.path}/exec/ws HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n".encode())
    equal(status, 401, "status without a key")
    status, _, _ = s.request("GET", f"{API}/sandboxes/sb-none/exec/ws", upgrade)
    equal(status, 404, "status for an unknown sandbox")
    with dial(s, origin=s.url) as socket:
        socket.send(json.dumps({"command": "echo same"}))
        equal(text_of(frames(socket), "stdout"), "same\n", "output for our own origin")


@suite.check("WebSocket: a client that goes away leaves the process running")
def _(s: Server) -> None:
    mark = fresh("/tmp/mark-")
    with dial(s) as socket:
        socket.send(json.dumps({"command": f"echo up; sleep 1; touch {mark}; sleep 0.1"}))
        while "up" not in json.loads(socket.recv(timeout=30)).get("data", ""):
            pass
    eventually(lambda: s.exec(f"test -e {mark}")["exit_code"] == 0, "the process went on", 15)


# --- how it ended


def detached(s: Server, command: str, **body: Any) -> str:
    reply = s.http.post(f"{s.path}/exec", json={"command": command, "detach": True} | body)
    return expect(reply, 202)["exec_id"]


@suite.check("an exec that is asked to end is told as it ended, and that it was asked to")
def _(s: Server) -> None:
    for command, state, code, signal in (
        ("trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done", "exited", 9, None),
        ("echo up; exec sleep 600", "killed", 143, 15),
        ("trap '' TERM; echo up; while :; do sleep 0.1; done", "killed", 137, 9),
    ):
        exec_id = detached(s, command)
        eventually(lambda: s.http.get(f"/execs/{exec_id}").json()["stdout_bytes"], "it has begun")
        told = expect(s.http.delete(f"/execs/{exec_id}"), 200)
        equal((told["state"], told["exit_code"], told.get("signal")), (state, code, signal), command)
        equal((told["asked"]["cause"], told["asked"]["signal"]), ("request", 15), "asked")


@suite.check("input, signals and sizes right after detach wait for the exec to begin")
def _(s: Server) -> None:
    for _ in range(5):
        exec_id = detached(s, "cat", stdin=True)
        expect(s.http.post(f"/execs/{exec_id}/stdin?close=true", content=b"to be read"), 200)
        eventually(lambda: "ended_at" in s.http.get(f"/execs/{exec_id}").json(), "cat ends")
        equal(s.http.get(f"/execs/{exec_id}/output").text, "to be read", "output")
        exec_id = detached(s, "sleep 600", tty={"rows": 10, "cols": 20})
        expect(s.http.post(f"/execs/{exec_id}/resize", json={"rows": 5, "cols": 7}), 200)
        expect(s.http.post(f"/execs/{exec_id}/signal", json={"signal": "KILL"}), 200)
        exec_id = detached(s, "sleep 600")
        equal(expect(s.http.delete(f"/execs/{exec_id}"), 200)["exit_code"], 143, "exit code")


@suite.check("whatever is asked of a sandbox while it is destroyed is answered, gone, or a conflict")
def _(s: Server) -> None:
    for _ in range(3):
        sandbox = s.spawn()["id"]
        path, seen, stop = f"/sandboxes/{sandbox}", [], threading.Event()

        def ask() -> None:
            with s.client({"X-API-Key": s.options.api_key}) as client:
                while not stop.is_set():
                    for reply in (
                        client.get(f"{path}/stats"),
                        client.post(f"{path}/exec", json={"command": "true"}),
                        client.get(f"{path}/files/list", params={"path": "/"}),
                        client.post(f"{path}/files", json={"path": "/tmp/a", "content": "x"}),
                    ):
                        seen.append((reply.request.url.path, reply.status_code))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        [t.start() for t in threads]
        eventually(lambda: len(seen) > 12, "requests are answered")
        expect(s.http.delete(path), 200)
        stop.set()
        [t.join() for t in threads]
        for asked, status in seen:
            one_of(status, (200, 404, 409), f"status of {asked}")
