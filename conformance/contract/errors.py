"""Every row of the error table, bad input of every kind, and who may ask."""

from __future__ import annotations

import json
import threading

from checks import Suite, equal, eventually, one_of
from contract.fixture import API, Server, escaped, expect, flat_error, fresh

suite = Suite("errors")

BAD_DURATIONS = (
    "soon",
    "1d",
    "-5m",
    "5",
    "5 m",
    " 5m",
    "1h-5m",
    "1e3s",
    "٣s",
    "99999999999999h",
    "s",
    ".s",
    "NaNs",
    "+-1s",
)


# --- 400


@suite.check("400: a body that is not JSON, not an object, cut short, or not UTF-8")
def _(s: Server) -> None:
    for path in (
        "/sandboxes",
        f"{s.path}/exec",
        f"{s.path}/files",
        f"{s.path}/files/move",
        f"{s.path}/extend",
        "/templates",
    ):
        for body in (
            b"{",
            b"nonsense",
            b"[]",
            b'"text"',
            b"5",
            b"null",
            b'{"image":"\xff"}',
            b'{"a":1}}',
            b"{'a':1}",
        ):
            reply = s.http.post(path, content=body, headers={"Content-Type": "application/json"})
            expect(reply, 400, "BAD_REQUEST")


@suite.check("400: deeply nested JSON is refused, not a crash")
def _(s: Server) -> None:
    body = b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    expect(
        s.http.post("/sandboxes", content=body, headers={"Content-Type": "application/json"}),
        400,
        "BAD_REQUEST",
    )


@suite.check("400: wrong types in spawn, exec, files, extend and templates")
def _(s: Server) -> None:
    cases = {
        "/sandboxes": [
            {"image": 5},
            {"image": ["a"]},
            {"memory_mb": "512"},
            {"memory_mb": -1},
            {"memory_mb": 1.5},
            {"memory_mb": 10**30},
            {"vcpus": "two"},
            {"vcpus": -2},
            {"ttl": 5},
            {"ttl": {}},
            {"metadata": []},
            {"metadata": {"a": 1}},
            {"owner_id": 5},
            {"template": True},
            {"provider": {}},
        ],
        f"{s.path}/exec": [
            {},
            {"command": 5},
            {"command": None},
            {"command": "", "mode": "argv"},
            {"command": ["echo"]},
            {"command": "true", "args": "x"},
            {"command": "true", "args": [1]},
            {"command": "true", "env": ["A=b"]},
            {"command": "true", "env": {"A": 1}},
            {"command": "true", "mode": "fancy"},
            {"command": "true", "mode": 1},
            {"command": "true", "workdir": 1},
            {"command": "true", "timeout": 5},
            {"command": "true", "stream": "yes"},
            {"command": "a\0b"},
            {"command": "true", "env": {"A=B": "c"}},
            {"command": "true", "env": {"": "c"}},
            {"command": "true", "env": {"A": "b\0c"}},
            {"command": "true", "args": ["a\0b"]},
            {"command": "true", "workdir": "/tmp\0"},
        ],
        f"{s.path}/files": [
            {},
            {"content": "x"},
            {"path": "", "content": "x"},
            {"path": 5, "content": "x"},
            {"path": "/tmp/a", "content": 5},
            {"path": "/tmp/a", "content": "x", "mode": "rwx"},
            {"path": "/tmp/a", "content": "x", "mode": "99"},
            {"path": "/tmp/a", "content": "x", "mode": "7777777"},
            {"path": "/tmp/a", "content": "x", "mode": "-644"},
            {"path": "/tmp/a\0b", "content": "x"},
        ],
        f"{s.path}/files/move": [
            {},
            {"old_path": "/a"},
            {"new_path": "/a"},
            {"old_path": "", "new_path": ""},
            {"old_path": 1, "new_path": 2},
            {"old_path": "/a\0", "new_path": "/b"},
        ],
        f"{s.path}/files/chmod": [
            {},
            {"path": "/tmp"},
            {"mode": "755"},
            {"path": "/tmp", "mode": 755},
            {"path": "/tmp", "mode": "u+q"},
            {"path": "/tmp", "mode": ""},
        ],
        f"{s.path}/extend": [{}, {"ttl": ""}, {"ttl": 5}, {"ttl": None}],
        "/templates": [
            {},
            {"name": ""},
            {"name": 5, "image": "a"},
            {"name": "a/b", "image": "a"},
            {"image": "a"},
            {"name": "a", "image": "b", "memory_mb": "x"},
            {"name": "a", "image": "b", "ttl": "1d"},
        ],
    }
    wrong = []
    for path, bodies in cases.items():
        for body in bodies:
            reply = s.http.post(path, json=body)
            if reply.status_code != 400 or reply.json().get("code") != "BAD_REQUEST":
                wrong.append(f"{path} {json.dumps(body)[:80]}: {reply.status_code} {reply.text[:80]}")
                if path == "/sandboxes" and reply.status_code == 201:
                    s.http.delete(f"/sandboxes/{reply.json()['id']}")
    assert not wrong, "accepted or answered otherwise:\n" + "\n".join(wrong)


@suite.check("400: durations that are not Go syntax, negative or beyond reason")
def _(s: Server) -> None:
    wrong = []
    for text in BAD_DURATIONS:
        for path, body in (
            ("/sandboxes", {"image": s.image, "ttl": text}),
            ("/sandboxes/admission", {"ttl": text}),
            (f"{s.path}/extend", {"ttl": text}),
            (f"{s.path}/exec", {"command": "true", "timeout": text}),
        ):
            reply = s.http.post(path, json=body)
            if reply.status_code != 400 or reply.json().get("code") != "BAD_REQUEST":
                wrong.append(f"{path} {text!r}: {reply.status_code} {reply.text[:80]}")
                if path == "/sandboxes" and reply.status_code == 201:
                    s.http.delete(f"/sandboxes/{reply.json()['id']}")
    assert not wrong, "accepted or answered otherwise:\n" + "\n".join(wrong)


@suite.check("Go durations that are good are taken")
def _(s: Server) -> None:
    for text in ("90s", "1h30m", "1.5h", "300000ms", "1h0m0.5s", "+5m", ".5h"):
        expect(s.http.post(f"{s.path}/extend", json={"ttl": text}), 200)
    expect(s.http.post(f"{s.path}/extend", json={"ttl": "20m"}), 200)


@suite.check("400: a missing path or pattern, and bad query values")
def _(s: Server) -> None:
    for method, path in (
        ("GET", "/files"),
        ("GET", "/files?path="),
        ("DELETE", "/files"),
        ("GET", "/files/stat"),
        ("GET", "/files/glob"),
        ("GET", "/files/glob?pattern="),
        ("PUT", "/files"),
        ("PUT", "/files?path=/tmp/a&mode=rwx"),
        ("GET", "/files?path=%00"),
        ("GET", "/files/stat?path=/tmp/%00x"),
    ):
        expect(s.http.request(method, s.path + path), 400, "BAD_REQUEST")


# --- 401 and 403


@suite.check("401: no key, a wrong key, a key that is a prefix, on every kind of route")
def _(s: Server) -> None:
    key = s.options.api_key
    wrong = [{}, {"X-API-Key": "wrong"}, {"X-API-Key": key[:-1]}, {"X-API-Key": key + "x"}, {"X-API-Key": ""}]
    wrong += [
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {key}"},
        {"X-API-Key": "é".encode()},
    ]
    routes = [
        ("GET", "/sandboxes"),
        ("POST", "/sandboxes"),
        ("GET", s.path),
        ("DELETE", s.path),
        ("GET", "/templates"),
    ]
    routes += [("POST", f"{s.path}/exec"), ("GET", f"{s.path}/files?path=/etc/passwd"), ("GET", "/events")]
    routes += [
        ("GET", "/providers"),
        ("GET", "/pool/status"),
        ("GET", f"/execs/{fresh()}"),
        ("DELETE", "/sandboxes"),
    ]
    for headers in wrong:
        with s.client(headers) as stranger:
            for method, path in routes:
                expect(stranger.request(method, path), 401, "UNAUTHORIZED")


@suite.check("the key is taken as X-API-Key, X-Admin-API-Key and Bearer; probes need none")
def _(s: Server) -> None:
    key = s.options.api_key
    for headers in ({"X-API-Key": key}, {"X-Admin-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        with s.client(headers) as known:
            expect(known.get("/sandboxes"), 200)
    with s.client() as anyone:
        for path in ("/health", "/live", "/ready"):
            expect(anyone.get(path), 200)


@suite.check("403: a WebSocket from a foreign origin")
def _(s: Server) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        status, _, body = s.request(
            "GET",
            f"{API}{s.path}/exec/ws",
            f"Origin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        )
        equal(status, 403, f"status for origin {origin}")
        equal(json.loads(body)["code"], "FORBIDDEN", "code")


# --- 404


def sandbox_routes(sandbox: str) -> list[tuple[str, str, dict | None]]:
    base = f"/sandboxes/{sandbox}"
    return [
        ("GET", base, None),
        ("DELETE", base, None),
        ("POST", f"{base}/extend", {"ttl": "5m"}),
        ("POST", f"{base}/exec", {"command": "true"}),
        ("POST", f"{base}/exec", {"command": "true", "stream": True}),
        ("GET", f"{base}/logs", None),
        ("GET", f"{base}/stats", None),
        ("POST", f"{base}/files", {"path": "/tmp/a", "content": "b"}),
        ("PUT", f"{base}/files?path=/tmp/a", None),
        ("GET", f"{base}/files?path=/etc/passwd", None),
        ("DELETE", f"{base}/files?path=/tmp/a", None),
        ("GET", f"{base}/files/list?path=/", None),
        ("GET", f"{base}/files/stat?path=/", None),
        ("GET", f"{base}/files/glob?pattern=/*", None),
        ("POST", f"{base}/files/move", {"old_path": "/tmp/a", "new_path": "/tmp/b"}),
        ("POST", f"{base}/files/chmod", {"path": "/tmp/a", "mode": "644"}),
    ]


@suite.check("404: an unknown and a destroyed sandbox, in every route")
def _(s: Server) -> None:
    gone = s.destroyed()
    for sandbox in ("sb-doesnotexist", gone):
        for method, path, body in sandbox_routes(sandbox):
            if (method, path) != ("DELETE", f"/sandboxes/{gone}"):
                expect(s.http.request(method, path, json=body), 404, "NOT_FOUND")


@suite.check("what is as it was asked to be is a success, and 404 with handling=strict; a missing folder is empty")
def _(s: Server) -> None:
    strict = {"Prefer": "handling=strict"}
    gone, ghost = f"/sandboxes/{s.destroyed()}", {"path": f"/tmp/{fresh()}/a"}
    for method, path, query, answer in (
        ("DELETE", gone, None, {"status": "destroyed"}),
        ("DELETE", f"{s.path}/files", ghost, {"status": "deleted"}),
        ("DELETE", f"{s.path}/files", ghost | {"recursive": "true"}, {"status": "deleted"}),
        ("GET", f"{s.path}/files/list", ghost, []),
    ):
        equal(expect(s.http.request(method, path, params=query), 200), answer, f"{method} {path}")
        expect(s.http.request(method, path, params=query, headers=strict), 404, "NOT_FOUND")
    # A file that cannot be there: something above it is a file.
    below = {"path": "/etc/passwd/a"}
    expect(s.http.request("DELETE", f"{s.path}/files", params=below), 200)


@suite.check("404: ids with dots, stars, spaces, slashes, wildcards and controls, in every route")
def _(s: Server) -> None:
    strange = [
        "a.b.c",
        "*",
        ">",
        "sb-*",
        "a b",
        "sb-a/../sb-b",
        "../..",
        "a\0b",
        "a\nb",
        "é",
        "%",
        "x" * 4000,
        "'; --",
        "$(id)",
    ]
    for sandbox in strange + [f"{s.sandbox}.", f"{s.sandbox} ", f"{s.sandbox}\0", s.sandbox.upper()]:
        for method, path, body in sandbox_routes(escaped(sandbox)):
            expect(s.http.request(method, path, json=body), (400, 404))
    for name in strange:
        for path in (
            f"/templates/{escaped(name)}",
            f"/execs/{escaped(name)}",
            f"/execs/{escaped(name)}/output?stream=stdout",
        ):
            expect(s.http.get(path), (400, 404))


@suite.check("404: unknown exec, template, provider, image of a template, and route")
def _(s: Server) -> None:
    for method, path in (
        ("GET", "/execs/ex-doesnotexist"),
        ("GET", "/execs/ex-doesnotexist/output?stream=stdout"),
        ("GET", "/templates/none"),
        ("DELETE", "/templates/none"),
        ("POST", "/templates/none/spawn"),
        ("GET", "/no/such/route"),
        ("POST", "/no/such/route"),
        ("GET", f"{s.path}/nothing"),
    ):
        expect(s.http.request(method, path), 404, "NOT_FOUND")
    expect(s.http.post("/sandboxes", json={"image": s.image, "provider": "none"}), 404, "NOT_FOUND")
    expect(s.http.post("/sandboxes", json={"image": s.image, "template": "none"}), 404, "NOT_FOUND")


@suite.check("a method that a route does not have is a flat 404 or 405")
def _(s: Server) -> None:
    for method, path in (
        ("PUT", "/sandboxes"),
        ("PATCH", s.path),
        ("GET", f"{s.path}/exec"),
        ("POST", "/health"),
        ("DELETE", "/events"),
    ):
        expect(s.http.request(method, path), (404, 405))


# --- 408, 409


@suite.check("408: an exec past its timeout, with all its children gone")
def _(s: Server) -> None:
    mark = fresh("/tmp/late-")
    command = f"(sleep 2; touch {mark}) & (trap '' TERM; sleep 2; touch {mark}) & wait"
    reply = s.http.post(f"{s.path}/exec", json={"command": command, "timeout": "300ms"})
    expect(reply, 408, "TIMEOUT")
    equal(
        s.exec(f"sleep 2.5; test -e {mark}")["exit_code"],
        1,
        "a child outlived the timeout: exit code of test -e",
    )


@suite.check("409: the same Idempotency-Key with another body; the same body is the same sandbox")
def _(s: Server) -> None:
    key = {"Idempotency-Key": fresh("spawn-")}
    first = s.spawn(headers=key)
    again = expect(s.http.post("/sandboxes", json={"image": s.image, "ttl": "10m"}, headers=key), (200, 201))
    equal(again["id"], first["id"], "id for the same key and the same body")
    expect(s.http.post("/sandboxes", json={"image": s.image, "ttl": "11m"}, headers=key), 409, "CONFLICT")
    other = s.spawn(headers={"Idempotency-Key": fresh("spawn-")})
    assert other["id"] != first["id"], "another key gave the same sandbox"


@suite.check("an Idempotency-Key makes an exec run once, and gives its first result again")
def _(s: Server) -> None:
    counter, key = fresh("/tmp/count-"), {"Idempotency-Key": fresh("exec-")}
    command = f"echo x >> {counter}; wc -l < {counter}; exit 3"
    first = s.exec(command, headers=key)
    again = s.exec(command, headers=key)
    equal((first["exit_code"], first["stdout"].strip()), (3, "1"), "first result")
    for name in ("exit_code", "stdout", "stderr", "duration"):
        equal(again[name], first[name], f"{name} of the repeat")
    equal(s.sh(f"wc -l < {counter}").strip(), "1", "number of runs")
    expect(s.http.post(f"{s.path}/exec", json={"command": "true"}, headers=key), 409, "CONFLICT")


@suite.check("an Idempotency-Key is answered as before when its sandbox is gone; another body is still 409")
def _(s: Server) -> None:
    spawn_key = {"Idempotency-Key": fresh("spawn-")}
    sandbox = s.spawn(headers=spawn_key)["id"]
    path = f"/sandboxes/{sandbox}/exec"
    bodies = [
        {"command": "echo once; exit 3"},
        {"command": "echo once; echo e >&2", "stream": True},
        {"command": "true", "workdir": "/no/such/dir"},
    ]
    keys = [{"Idempotency-Key": fresh("exec-")} for _ in bodies]
    before = [s.http.post(path, json=body, headers=key) for body, key in zip(bodies, keys)]
    detached, detached_key = {"command": "echo once", "detach": True}, {"Idempotency-Key": fresh("exec-")}
    exec_id = expect(s.http.post(path, json=detached, headers=detached_key), 202)["exec_id"]
    eventually(lambda: "ended_at" in s.http.get(f"/execs/{exec_id}").json(), "the detached exec ends")
    expect(s.http.delete(f"/sandboxes/{sandbox}"), 200)
    for body, key, first in zip(bodies, keys, before):
        again = s.http.post(path, json=body, headers=key)
        equal((again.status_code, again.text), (first.status_code, first.text), f"answer to {body}")
        equal(again.headers["x-exec-id"], first.headers["x-exec-id"], "exec id")
        expect(s.http.post(path, json={"command": "echo other"}, headers=key), 409, "CONFLICT")
    equal(expect(s.http.post(path, json=detached, headers=detached_key), 202)["exec_id"], exec_id, "exec id")
    again = expect(s.http.post("/sandboxes", json={"image": s.image, "ttl": "10m"}, headers=spawn_key), 201)
    equal((again["id"], again["state"]), (sandbox, "destroyed"), "the sandbox")
    expect(s.http.post(path, json={"command": "true"}), 404, "NOT_FOUND")


@suite.check("one Idempotency-Key from ten clients at once is one sandbox")
def _(s: Server) -> None:
    key, replies, body = {"Idempotency-Key": fresh("race-")}, [], {"image": s.image, "ttl": "5m"}

    def ask() -> None:
        with s.client({"X-API-Key": s.options.api_key}) as client:
            replies.append(client.post("/sandboxes", json=body, headers=key))

    before = {x["id"] for x in s.http.get("/sandboxes").json()}
    threads = [threading.Thread(target=ask) for _ in range(10)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    ids = {expect(reply, (200, 201))["id"] for reply in replies}
    made = {x["id"] for x in s.http.get("/sandboxes").json()} - before
    for sandbox in made:
        s.http.delete(f"/sandboxes/{sandbox}")
    equal((len(replies), ids), (10, made), "replies, and sandboxes made")
    equal(len(made), 1, "sandboxes made")


@suite.check("an Idempotency-Key that is empty or too long is refused or ignored, never a 500")
def _(s: Server) -> None:
    for key in ("", "   ", "x" * 5000, "a b", "\xe9", "../..", "*"):
        head = f"Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: 18\r\n"
        status, _, body = s.request("POST", f"{API}{s.path}/exec", head, b'{"command":"true"}')
        one_of(status, (200, 400, 431), f"status for {key[:20]!r}: {body[:100]!r}")


# --- 413


@suite.check("413: a declared length over the limit is refused before the body is sent")
def _(s: Server) -> None:
    for method, path in (
        ("POST", "/sandboxes"),
        ("POST", f"{s.path}/files"),
        ("POST", f"{s.path}/exec"),
        ("POST", "/templates"),
    ):
        head = f"Content-Type: application/json\r\nContent-Length: {10**12}\r\n"
        status, _, body = s.request(method, API + path, head, b'{"')
        equal(status, 413, f"status of {method} {path}")
        equal(json.loads(body)["code"], "TOO_LARGE", "code")


@suite.check("413: a chunked body over the limit is cut off")
def _(s: Server) -> None:
    block = b" " * (1024 * 1024)

    def endless():
        yield b'{"path":"/tmp/a","content":"'
        for _ in range(s.options.body_limit_mb + 1):
            yield block
        yield b'"}'

    reply = s.http.post(f"{s.path}/files", content=endless(), headers={"Content-Type": "application/json"})
    expect(reply, 413, "TOO_LARGE")


# --- headers


@suite.check("X-User-ID is trimmed, at most 128 characters, without spaces, controls and separators")
def _(s: Server) -> None:
    def admission(user: str) -> int:
        wire = user.encode("utf-8").decode("latin-1")
        head = f"X-User-ID: {wire}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        return s.request("POST", f"{API}/sandboxes/admission", head, b"{}")[0]

    for user in ("a b", "a/b", "a\\b", "x" * 129, "a\tb", "a\u00a0b", "a\u2028b"):
        equal(admission(user), 400, f"status for {user[:20]!r}")
    for user in ("alice", "alice@example.com", "  alice  ", "x" * 128, "é" * 128):
        equal(admission(user), 200, f"status for {user[:20]!r}")
    made = s.spawn(headers={"X-User-ID": "carol"}, owner_id="dave")
    equal(made["owner_id"], "carol", "owner_id")


@suite.check("X-Request-ID is echoed, and made up when missing or malformed")
def _(s: Server) -> None:
    for path in ("/health", "/sandboxes", "/sandboxes/none", "/no/such/route"):
        equal(
            s.http.get(path, headers={"X-Request-ID": "conf-123"}).headers.get("x-request-id"),
            "conf-123",
            path,
        )
    made = [s.http.get("/health").headers.get("x-request-id") for _ in range(2)]
    assert all(made) and made[0] != made[1], f"made up ids: {made}"
    for bad in ("a b\tc", "x" * 5000, "<script>"):
        echoed = s.http.get("/health", headers={"X-Request-ID": bad}).headers.get("x-request-id", "")
        assert echoed and echoed != bad, f"echoed {bad[:40]!r} as {echoed[:40]!r}"


@suite.check("CORS is closed: no foreign origin is let in, preflight included")
def _(s: Server) -> None:
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for reply in (s.http.get("/sandboxes", headers=origin), s.http.options("/sandboxes", headers=origin)):
        let_in = [h for h in reply.headers if h.lower().startswith("access-control-allow-origin")]
        assert not let_in, f"{reply.request.method}: {dict(reply.headers)}"


@suite.check("problem+json when Accept asks for it, flat otherwise")
def _(s: Server) -> None:
    for accept in ("application/problem+json", "application/problem+json, application/json;q=0.5"):
        reply = s.http.get("/sandboxes/none", headers={"Accept": accept})
        assert reply.headers["content-type"].startswith("application/problem+json"), reply.headers["content-type"]
        problem = reply.json()
        equal((reply.status_code, problem["status"]), (404, 404), "status")
        for key in ("type", "title", "detail"):
            assert isinstance(problem.get(key), str) and problem[key], f"{key} in {problem}"
        equal(problem["code"], "NOT_FOUND", "code")
    for accept in ("*/*", "application/json", "text/html"):
        body = expect(s.http.get("/sandboxes/none", headers={"Accept": accept}), 404, "NOT_FOUND")
        flat_error(body, accept)


@suite.check("what is not HTTP, or not sane HTTP, costs a 4xx or the connection, and the server lives")
def _(s: Server) -> None:
    for request in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /api/v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /api/v1/sandboxes/%zz%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/sandboxes/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        try:
            status, _, body = s.raw(request, half_close=True)
        except (AssertionError, OSError):
            continue  # closed without an answer
        assert 400 <= status < 500, f"{request[:60]!r}: {status} {body[:100]!r}"
        assert b"root:" not in body, "a file of the host came back"
    one_of(s.http.get("/live").status_code, (200,), "the server after it")
