"""The rest of the surface: shapes, slashes, probes, metrics, logs, stats, templates, events, OpenAPI."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from checks import Suite, equal, eventually, go_duration, one_of, rfc3339
from contract.fixture import API, Server, expect, fresh

suite = Suite("surface")

ROUTES = {
    "/sandboxes": {"get", "post", "delete"},
    "/sandboxes/admission": {"post"},
    "/sandboxes/{id}": {"get", "delete"},
    "/sandboxes/{id}/extend": {"post"},
    "/sandboxes/{id}/logs": {"get"},
    "/sandboxes/{id}/stats": {"get"},
    "/sandboxes/{id}/exec": {"post"},
    "/sandboxes/{id}/exec/ws": {"get"},
    "/sandboxes/{id}/files": {"get", "post", "put", "delete"},
    "/sandboxes/{id}/files/list": {"get"},
    "/sandboxes/{id}/files/stat": {"get"},
    "/sandboxes/{id}/files/glob": {"get"},
    "/sandboxes/{id}/files/move": {"post"},
    "/sandboxes/{id}/files/chmod": {"post"},
    "/execs/{id}": {"get"},
    "/execs/{id}/output": {"get"},
    "/templates": {"get", "post"},
    "/templates/{name}": {"get", "put", "delete"},
    "/templates/{name}/spawn": {"post"},
    "/providers": {"get"},
    "/providers/test": {"post"},
    "/pool/status": {"get"},
    "/quotas/summary": {"get"},
    "/quotas": {"get"},
    "/quotas/{owner}/usage": {"get"},
    "/providers/{name}": {"get"},
    "/snapshots": {"get"},
    "/diagnostics": {"get"},
    "/system/stats": {"get"},
    "/health": {"get"},
    "/live": {"get"},
    "/ready": {"get"},
    "/metrics": {"get"},
    "/metrics/prometheus": {"get"},
    "/events": {"get"},
}


@suite.check("health, live and ready have their shapes")
def _(s: Server) -> None:
    health = expect(s.http.get("/health"), 200)
    equal(health["status"], "ok", "status")
    assert health["version"], "version"
    go_duration(health["uptime"])
    live, ready = expect(s.http.get("/live"), 200), expect(s.http.get("/ready"), 200)
    equal((live["status"], ready["status"]), ("alive", "ready"), "status")
    for probe in (live, ready):
        equal(probe["version"], health["version"], "version")
        go_duration(probe["uptime"])
    names = [p["name"] for p in expect(s.http.get("/providers"), 200)]
    equal([p["name"] for p in ready["providers"]], names, "providers")
    equal((ready["total_providers"], ready["ready_providers"]), (len(names), sum(p["healthy"] for p in ready["providers"])), "counts")


@suite.check("what the original's web UI asks for is answered, also below /admin")
def _(s: Server) -> None:
    for provider in expect(s.http.get("/providers"), 200):
        detail = expect(s.http.get(f"/providers/{provider['name']}"), 200)
        equal((detail["name"], detail["default"]), (provider["name"], provider["default"]), "provider")
        assert type(detail["sandbox_count"]) is int and isinstance(detail["config"], dict), detail
        wanted = {"spawn", "exec", "exec_stream", "files", "console", "health", "runtime_inventory"}
        assert not provider["healthy"] or wanted <= set(provider["capabilities"]), provider
    for path in ("/snapshots", "/quotas"):
        equal(expect(s.http.get(path), 200), [], path)
    usage = expect(s.http.get("/quotas/nobody/usage"), 200)
    equal((usage["active_sandboxes"], usage["quota_configured"]), (0, False), "usage")
    expect(s.http.get("/quotas/nobody"), 404, "NOT_FOUND")
    s.sh("true")
    diagnostics = expect(s.http.get("/diagnostics"), 200)
    rfc3339(diagnostics["generated_at"])
    assert diagnostics["sandboxes"]["total"] >= 1 and diagnostics["store"]["healthy"], diagnostics
    assert s.options.api_key not in json.dumps(diagnostics), "the key is in the diagnostics"
    for path in ("/admin/providers", "/admin/metrics", "/admin/diagnostics", "/admin/quotas"):
        expect(s.http.get(path), 200)


@suite.check("every route is served with and without a trailing slash")
def _(s: Server) -> None:
    for path in (
        "/sandboxes",
        s.path,
        "/templates",
        "/providers",
        "/pool/status",
        "/quotas/summary",
        "/health",
        "/live",
        "/ready",
        "/metrics",
        f"{s.path}/logs",
        f"{s.path}/stats",
    ):
        for form in (path, path + "/"):
            expect(s.http.get(form), 200)
    query = {"path": "/etc/passwd"}
    for path in ("files", "files/stat"):
        for form in (path, path + "/"):
            equal(s.http.get(f"{s.path}/{form}", params=query).status_code, 200, form)
    for form in ("exec", "exec/"):
        equal(expect(s.http.post(f"{s.path}/{form}", json={"command": "echo 1"}), 200)["stdout"], "1\n", form)
    equal(s.http.get("/metrics/prometheus/").status_code, 200, "metrics/prometheus/")
    for form in ("admission", "admission/"):
        expect(s.http.post(f"/sandboxes/{form}", json={}), 200)
    spawned = expect(s.http.post("/sandboxes/", json={"image": s.image, "ttl": "5m"}), 201)
    equal(expect(s.http.delete(f"/sandboxes/{spawned['id']}/"), 200), {"status": "destroyed"}, "destroy")


@suite.check("a sandbox has its fields, unknown request fields are ignored, empty ones omitted")
def _(s: Server) -> None:
    body = {"image": s.image, "ttl": "6m", "colour": "blue", "nested": {"a": [1]}, "metadata": {"k": "v"}}
    made = expect(s.http.post("/sandboxes", json=body), 201)
    try:
        for sandbox in (made, expect(s.http.get(f"/sandboxes/{made['id']}"), 200), in_list(s, made["id"])):
            assert sandbox["id"].startswith("sb-"), sandbox["id"]
            equal(
                (sandbox["state"], sandbox["image"], sandbox["metadata"]),
                ("running", s.image, {"k": "v"}),
                "fields",
            )
            equal(sandbox["network"], "none", "network")
            assert "ip" not in sandbox, f"an address without a network: {sandbox}"
            for key in ("memory_mb", "vcpus"):
                assert type(sandbox[key]) is int and sandbox[key] > 0, f"{key}: {sandbox}"
            assert sandbox["provider"], "provider"
            ttl = rfc3339(sandbox["expires_at"]) - rfc3339(sandbox["created_at"])
            assert abs(ttl.total_seconds() - 360) < 60, f"ttl {ttl}"
            empty = [k for k, v in sandbox.items() if v in (None, "", {}, [])]
            assert not empty, f"empty fields: {empty}"
            assert "colour" not in sandbox and "nested" not in sandbox, "unknown fields came back"
    finally:
        equal(expect(s.http.delete(f"/sandboxes/{made['id']}"), 200), {"status": "destroyed"}, "destroy")
    expect(s.http.delete(f"/sandboxes/{made['id']}", headers={"Prefer": "handling=strict"}), 404, "NOT_FOUND")
    equal(in_list(s, made["id"]), {}, "in the list after destroy")


def in_list(s: Server, sandbox: str) -> dict:
    listed = expect(s.http.get("/sandboxes"), 200)
    assert isinstance(listed, list), f"a bare array, got {listed!r}"
    return next((x for x in listed if x["id"] == sandbox), {})


@suite.check("a spawn from {} takes the defaults")
def _(s: Server) -> None:
    made = expect(s.http.post("/sandboxes", json={}), 201)
    equal((made["image"], made["state"]), ("alpine:latest", "running"), "image and state")
    expect(s.http.delete(f"/sandboxes/{made['id']}"), 200)


@suite.check("extend answers the sandbox, counted from now")
def _(s: Server) -> None:
    made = s.spawn(ttl="2m")
    longer = expect(s.http.post(f"/sandboxes/{made['id']}/extend", json={"ttl": "30m", "other": 1}), 200)
    equal(longer["id"], made["id"], "id")
    gained = (rfc3339(longer["expires_at"]) - rfc3339(made["created_at"])).total_seconds()
    assert abs(gained - 1800) < 60, f"expires {gained} s after its creation"
    equal(
        expect(s.http.get(f"/sandboxes/{made['id']}"), 200)["expires_at"],
        longer["expires_at"],
        "expires_at read back",
    )


@suite.check("a sandbox is gone at its TTL, and prune counts only what it removed")
def _(s: Server) -> None:
    keeper, short = s.spawn(), s.spawn(ttl="1s")
    eventually(lambda: in_list(s, short["id"]) == {}, "gone from the list", 20)
    expect(s.http.get(f"/sandboxes/{short['id']}"), 404, "NOT_FOUND")
    pruned = expect(s.http.delete("/sandboxes"), 200)
    equal(sorted(pruned), ["pruned"], "keys")
    assert type(pruned["pruned"]) is int, pruned
    equal(expect(s.http.delete("/sandboxes"), 200), {"pruned": 0}, "a second prune")
    equal(expect(s.http.get(f"/sandboxes/{keeper['id']}"), 200)["state"], "running", "state of the other")


@suite.check("logs are an array of strings, stats say what they can")
def _(s: Server) -> None:
    s.sh("echo to the log")
    logs = expect(s.http.get(f"{s.path}/logs"), 200)
    assert isinstance(logs, list) and all(isinstance(line, str) for line in logs), f"logs {logs!r}"
    stats = expect(s.http.get(f"{s.path}/stats"), 200)
    assert stats["supported"] is True, f"stats {stats}"
    assert stats["mem_bytes"] > 0 and stats["mem_limit_bytes"] >= stats["mem_bytes"], f"stats {stats}"
    assert isinstance(stats["cpu_pct"], (int, float)) and stats["cpu_pct"] >= 0, f"stats {stats}"


@suite.check("metrics: JSON counts, and Prometheus text with stacyvm_uptime_seconds")
def _(s: Server) -> None:
    assert isinstance(expect(s.http.get("/metrics"), 200), dict), "metrics is an object"
    reply = s.http.get("/metrics/prometheus")
    equal(reply.status_code, 200, "status")
    assert reply.headers["content-type"].startswith("text/plain"), reply.headers["content-type"]
    samples = {}
    for line in reply.text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    assert samples.get("stacyvm_uptime_seconds", -1) >= 0, f"samples {sorted(samples)[:40]}"
    assert s.sandbox not in reply.text, "an id as a label grows without bound"


@suite.check("providers and their test, with no body and no content type")
def _(s: Server) -> None:
    providers = expect(s.http.get("/providers"), 200)
    status, _, body = s.request("POST", f"{API}/providers/test")
    equal(status, 200, "status")
    tested = json.loads(body)
    equal(sorted(tested), sorted(p["name"] for p in providers), "names")
    assert all(type(v) is bool for v in tested.values()), tested


@suite.check("templates take and answer both the SDK's and the Go server's field names")
def _(s: Server) -> None:
    name = fresh("t-")
    for body in (
        {"name": name, "image": s.image, "vcpus": 2, "ttl": "20m", "memory_mb": 300},
        {"name": name, "image": s.image, "cpu_cores": 2, "ttl_seconds": 1200, "memory_mb": 300},
    ):
        made = expect(s.http.post("/templates", json=body | {"unknown": 1}), 201)
        for template in (made, expect(s.http.get(f"/templates/{name}"), 200)):
            equal((template["vcpus"], template["cpu_cores"]), (2, 2), "vcpus and cpu_cores")
            equal((go_duration(template["ttl"]), template["ttl_seconds"]), (1200.0, 1200), "ttl and ttl_seconds")
            equal((template["image"], template["memory_mb"]), (s.image, 300), "image and memory_mb")
    equal([t["name"] for t in expect(s.http.get("/templates"), 200)].count(name), 1, "entries after an upsert")
    status, _, body = s.request("POST", f"{API}/templates/{name}/spawn")
    equal(status, 201, f"status of a spawn without a body: {body[:200]!r}")
    spawned = json.loads(body)
    equal((spawned["vcpus"], spawned["memory_mb"]), (2, 300), "limits of the spawned")
    expect(s.http.delete(f"/sandboxes/{spawned['id']}"), 200)
    expect(s.http.delete(f"/templates/{name}"), 200)
    expect(s.http.get(f"/templates/{name}"), 404, "NOT_FOUND")


@suite.check("a template keeps all that it takes, its setup runs, and its network is that of its sandboxes")
def _(s: Server) -> None:
    name = fresh("t-")
    body = {
        "image": s.image,
        "version": 4,
        "network": "bridge",
        "setup": ["echo one > /tmp/setup", "echo $WORD >> /tmp/setup"],
        "env": {"WORD": "two"},
        "metadata": {"lang": "sh"},
        "description": "d",
    }
    made = expect(s.http.put(f"/templates/{name}", json=body), 201)
    equal({k: made[k] for k in body}, body, "what came back")
    equal(rfc3339(made["created_at"]), rfc3339(made["updated_at"]), "times")
    saved = expect(s.http.put(f"/templates/{name}", json=body | {"name": name, "version": 5}), 200)
    equal((saved["version"], saved["created_at"]), (5, made["created_at"]), "version and birth")
    assert rfc3339(saved["updated_at"]) > rfc3339(made["updated_at"]), saved
    equal(expect(s.http.get(f"/templates/{name}"), 200), saved, "read back")
    sandbox = s.spawn(template=name)
    equal((sandbox["network"], sandbox["metadata"]), ("bridge", {"lang": "sh"}), "network and metadata")
    equal(expect(s.http.get(f"/sandboxes/{sandbox['id']}"), 200)["ip"], sandbox["ip"], "ip")
    exec_path = f"/sandboxes/{sandbox['id']}/exec"
    run = lambda command: expect(s.http.post(exec_path, json={"command": command}), 200)["stdout"]
    equal(run("cat /tmp/setup"), "one\ntwo\n", "what setup wrote")
    # From the kernel's table: an image need not have `ip`.
    assert sandbox["ip"] in run("cat /proc/net/fib_trie"), f"{sandbox['ip']} is not an address inside"
    assert "eth0" in run("cat /proc/net/dev"), "no interface"
    expect(s.http.put(f"/templates/{name}", json=body | {"setup": ["true", "echo no >&2; exit 3"]}), 200)
    failed = expect(s.http.post(f"/templates/{name}/spawn"), 400, "BAD_REQUEST")
    assert "setup command 2" in failed["message"] and "exit code 3" in failed["message"], failed
    expect(s.http.delete(f"/templates/{name}"), 200)


@suite.check("allowed_hosts are kept, said not to be enforced, and get no network")
def _(s: Server) -> None:
    name = fresh("t-")
    body = {"name": name, "image": s.image, "allowed_hosts": ["mirror.example", "*.example.com:443"]}
    made = expect(s.http.post("/templates", json=body), 201)
    equal(made["allowed_hosts"], body["allowed_hosts"], "allowed_hosts")
    assert "allowed_hosts" in made["warnings"][0], made
    equal(s.spawn(template=name)["network"], "none", "network")
    expect(s.http.post("/sandboxes", json={"template": name, "network": "bridge"}), 400, "BAD_REQUEST")
    expect(s.http.post("/templates", json=body | {"network": "bridge"}), 400, "BAD_REQUEST")
    expect(s.http.delete(f"/templates/{name}"), 200)


@suite.check("a template's env reaches its sandboxes; the request's own settings win, but not its image")
def _(s: Server) -> None:
    name = fresh("t-")
    body = {"name": name, "image": s.options.template_image, "env": {"FROM": "template"}, "memory_mb": 300}
    expect(s.http.post("/templates", json=body), 201)
    made = s.spawn(template=name, image="alpine:latest", memory_mb=280)
    expect(s.http.delete(f"/templates/{name}"), 200)
    equal((made["image"], made["memory_mb"]), (s.options.template_image, 280), "image and memory_mb")
    result = expect(s.http.post(f"/sandboxes/{made['id']}/exec", json={"command": "echo $FROM"}), 200)
    equal(result["stdout"], "template\n", "stdout")


@suite.check("an image that cannot be had is a typed error within bounds, and leaves no sandbox")
def _(s: Server) -> None:
    image = f"127.0.0.1:1/{fresh()}:latest"
    reply = s.http.post("/sandboxes", json={"image": image})
    expect(reply, (400, 404, 422, 502, 503))
    left = [x for x in expect(s.http.get("/sandboxes"), 200) if x["image"] == image and x["state"] != "error"]
    equal(left, [], "sandboxes left")


# --- events


class Feed:
    """Server-sent events, read by the rules of the format, in a thread of its own."""

    def __init__(self, s: Server, query: dict[str, str] | None = None, last: str = ""):
        self.events: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.opened, self.stop = threading.Event(), threading.Event()
        self._s, self._query = s, query or {}
        self._headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.opened.wait(20), f"the feed did not open: {self.error!r}"

    def _read(self) -> None:
        try:
            with self._s.client({"X-API-Key": self._s.options.api_key}) as client:
                with client.stream("GET", "/events", params=self._query, headers=self._headers) as response:
                    assert response.status_code == 200, f"status {response.status_code}"
                    kind = response.headers["content-type"]
                    assert kind.startswith("text/event-stream"), f"content type {kind}"
                    self.opened.set()
                    for event in parse_sse(response.iter_raw()):
                        self.events.append(event)
                        if self.stop.is_set():
                            return
        except Exception as error:
            self.error = error

    def wait(self, sandbox: str, kind: str) -> list[dict]:
        """All events of the sandbox so far, once one of this type has come."""

        def there() -> list[dict] | None:
            assert not self.error, f"the feed broke: {self.error!r}"
            own = self.of(sandbox)
            return own if any(e["data"]["type"] == kind for e in own) else None

        try:
            return eventually(there, f"{kind} of {sandbox}", 20)
        except AssertionError as error:
            raise AssertionError(f"{error}; got {[e['data']['type'] for e in self.of(sandbox)]}") from None

    def of(self, sandbox: str) -> list[dict]:
        return [e for e in list(self.events) if e["data"].get("sandbox_id") == sandbox]


def parse_sse(parts: Iterator[bytes]) -> Iterator[dict]:
    rest, fields = b"", {}
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            text = line.decode("utf-8").rstrip("\r")
            if not text:
                if "data" in fields:
                    yield {"id": fields.get("id", ""), "data": json.loads(fields["data"])}
                fields = {}
            elif not text.startswith(":"):
                name, _, value = text.partition(":")
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value


@suite.check("/events tells a sandbox's life in order, with ids, and no environment values")
def _(s: Server) -> None:
    feed = Feed(s)
    made = s.spawn()
    secret = fresh("secret-")
    reply = s.http.post(f"/sandboxes/{made['id']}/exec", json={"command": "echo hi; exit 3", "env": {"TOKEN": secret}})
    expect(reply, 200)
    expect(s.http.delete(f"/sandboxes/{made['id']}"), 200)
    own = feed.wait(made["id"], "sandbox.destroyed")
    feed.stop.set()
    kinds = [e["data"]["type"] for e in own]
    wanted = ["sandbox.requested", "sandbox.running", "exec.started", "exec.exited", "sandbox.destroyed"]
    equal([k for k in kinds if k in wanted], wanted, f"order in {kinds}")
    for event in own:
        assert event["id"] and event["data"]["id"], f"no id: {event}"
        rfc3339(event["data"]["timestamp"])
    positions = [int(e["id"]) for e in feed.events if e["id"].isdigit()]
    equal(positions, sorted(set(positions)), "positions strictly increase")
    equal(len({e["data"]["id"] for e in feed.events}), len(feed.events), "distinct event ids")
    assert secret not in json.dumps(own), "an environment value is in an event"
    assert made["expires_at"], "expires_at"


@suite.check("/events resumes after Last-Event-ID without a gap or a repeat")
def _(s: Server) -> None:
    feed = Feed(s)
    made = s.spawn()
    expect(s.http.delete(f"/sandboxes/{made['id']}"), 200)
    first = feed.wait(made["id"], "sandbox.destroyed")
    feed.stop.set()
    cut = first[1]["id"]
    again = Feed(s, last=cut)
    second = again.wait(made["id"], "sandbox.destroyed")
    again.stop.set()
    equal([e["data"]["id"] for e in second], [e["data"]["id"] for e in first[2:]], "events after the cut")
    one_of(
        s.http.get("/events", headers={"Last-Event-ID": "nonsense"}).status_code,
        (400,),
        "a malformed Last-Event-ID",
    )


# --- OpenAPI


@suite.check("openapi.json is 3.1 and lists every route")
def _(s: Server) -> None:
    document = expect(s.http.get("/openapi.json"), 200)
    assert document["openapi"].startswith("3.1"), document["openapi"]
    listed: dict[str, set[str]] = {}
    for path, item in document["paths"].items():
        shape = normal(path)
        listed.setdefault(shape, set()).update(k for k in item if k in ("get", "post", "put", "delete"))
    missing = [
        f"{m.upper()} {p}" for p, methods in ROUTES.items() for m in methods if m not in listed.get(normal(p), ())
    ]
    assert not missing, f"missing: {sorted(missing)}"


def normal(path: str) -> str:
    parts = path.removeprefix(API).rstrip("/").split("/")
    return "/".join("{}" if p.startswith("{") else p for p in parts)


@suite.check("every reference inside openapi.json resolves")
def _(s: Server) -> None:
    document = expect(s.http.get("/openapi.json"), 200)

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    for reference in set(walk(document)):
        target: Any = document
        for key in reference.removeprefix("#/").split("/"):
            target = target.get(key.replace("~1", "/").replace("~0", "~"), None)
            assert target is not None, f"{reference} leads nowhere"
