"""What a schema cannot say: the meaning of our formats, and what one field means for another.

`conformance/fuzz` loads it. Values of a format keep to its pattern too. Only requests that are meant to be good are changed, and
only where the document says in words what goes together.
"""

import re
import uuid

import schemathesis
from hypothesis import strategies as st

SECONDS = st.integers(min_value=1, max_value=24 * 3600)
DURATIONS = st.one_of(
    SECONDS.map(lambda s: f"{s}s"),
    SECONDS.map(lambda s: f"{s // 3600}h{s // 60 % 60}m{s % 60}s"),
    st.sampled_from(["1s", "24h", "1.5h", ".5h", "+5m", "3600000ms"]),
)
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
PATHS = st.one_of(
    st.lists(NAMES.filter(lambda name: name != ".."), min_size=1, max_size=6).map("/".join),
    st.sampled_from(["/", ".", "/workspace/a/../b", "/tmp/x", "/etc/hosts"]),
)
TYPES = ["exec.exited", "exec.*", "sandbox.destroyed", "file.*", "webhook.saved"]
HOSTS = st.from_regex(r"[a-z][a-z0-9]{0,20}\.example", fullmatch=True)

schemathesis.openapi.format("go-duration", DURATIONS)
schemathesis.openapi.format("sandbox-path", PATHS)
schemathesis.openapi.format("sandbox-glob", PATHS.map(lambda path: path.replace("{", "").replace("[", "") + "*"))
schemathesis.openapi.format("event-types", st.lists(st.sampled_from(TYPES), min_size=1, max_size=5).map(",".join))
schemathesis.openapi.format("provider", st.sampled_from(["", "bubblewrap"]))
# One that nobody serves is waited for.
schemathesis.openapi.format("pool", st.just(""))
schemathesis.openapi.format("template", st.sampled_from(["fuzzed"]))
schemathesis.openapi.format("runtime", st.just(""))
schemathesis.openapi.format("byte-range", st.just("bytes=0-"))
CRONS = ["@daily", "*/15 * * * *", "0 9 * * MON-FRI", "30 0 2 L * *"]
ZONES = ["", "UTC", "Europe/Berlin", "america/new_york"]
schemathesis.openapi.format("cron", st.sampled_from(CRONS))
schemathesis.openapi.format("timezone", st.sampled_from(ZONES))
schemathesis.openapi.format("job", st.just("job-none"))
schemathesis.openapi.format("free-header", st.from_regex(r"X-[A-Za-z0-9-]{1,20}", fullmatch=True))
schemathesis.openapi.format("public-url", HOSTS.map(lambda host: f"https://{host}/hook?a=b"))


IMAGE = "stacyvm/base:local"
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def seconds(text):
    return sum(float("0" + number) * UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)", text))


def whole(value):
    """2.0 is a whole number to a schema; our JSON has 2."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def before_call(context, case, kwargs):
    if not case.meta or not case.meta.generation.mode.is_positive:
        return
    path, query = case.operation.path.removeprefix("/api/v1"), case.query or {}
    if isinstance(case.body, dict):
        case.body = whole(case.body)
        together(path, case.method.upper(), case.body, case)
    for name in ("type", "types"):
        if name in query and not all(one.strip() in TYPES for one in str(query[name]).split(",")):
            query[name] = "exec.*"
    if path.endswith("/output"):
        if query.get("stream") == "both" or "offset" in query or "follow" in query:
            # Offsets count the bytes of one stream; a range goes without offset and without follow.
            case.headers.pop("Range", None)
        if query.get("stream") == "both":
            query.pop("offset", None)
        if query.get("attempt") == "all":
            # Nor of several attempts.
            query.pop("offset", None)
            case.headers.pop("Range", None)
    if "follow" in query:
        query["follow"] = "false"
    if path == "/jobs/{id}":
        # Until then, or as it was then.
        if "wait" in query:
            query["wait"] = "10ms"
            query.pop("at", None)
    if path == "/sandboxes" and case.method.upper() == "GET":
        # Pages are of all, and not of a moment.
        if "limit" in query or "before" in query:
            query["all"] = "true"
        if "all" in query:
            query.pop("at", None)


def together(path, method, body, case):
    for name in ("ttl", "timeout"):
        text = body.get(name)
        # More than nothing, and at most a day; a template's is of whole seconds.
        if isinstance(text, str) and text and not (1 <= seconds(text) <= 86400 and seconds(text) % 1 == 0):
            body[name] = "30s"
    secrets, env = body.get("secrets"), body.get("env")
    if isinstance(secrets, dict) and isinstance(env, dict):
        # The same name is not both.
        body["env"] = {name: value for name, value in env.items() if name not in secrets}
    if path == "/sandboxes" or path.startswith("/templates") or path.endswith("/admission"):
        # What is there.
        if "image" in body:
            body["image"] = IMAGE
        if body.get("provider"):
            body["provider"] = "bubblewrap"
        # More than the machine has is refused, and how much that is no schema knows.
        for name, most in (("vcpus", 1), ("cpu_cores", 1), ("memory_mb", 512)):
            if isinstance(body.get(name), (int, float)) and body[name] > most:
                body[name] = most
        if body.get("runtime"):
            body["runtime"] = ""
        if body.get("template"):
            body["template"] = "fuzzed"
        if body.get("allowed_hosts"):
            # No network but those hosts.
            body["network"] = "none"
    if path == "/templates/{name}" and method == "PUT":
        body["name"] = case.path_parameters["name"]
    if path.endswith("/exec"):
        if body.get("mode") == "argv" and not body.get("command"):
            body["command"] = "true"
        if body.get("tty") or body.get("stdin"):
            # Somebody has to be able to attach.
            body["detach"] = True
        if body.get("detach"):
            body.pop("stream", None)
        else:
            body["timeout"] = "1s"
    if path == "/jobs":
        job(body)
        body.pop("idempotency_key", None)
    if path == "/jobs/batch":
        for one in body.get("jobs") or []:
            job(one)
        if not body.get("jobs"):
            body["jobs"] = [{"image": IMAGE, "command": "true"}]
    if path.endswith("/cancel") and body.get("grace"):
        body["grace"] = "1s"
    if path.startswith("/schedules"):
        # It is due by one rule, and not in the past.
        body.pop("at", None)
        body.pop("every", None)
        # The longest and the shortest text are made up without a look at the format.
        if body.get("cron") not in CRONS:
            body["cron"] = "@daily"
        if body.get("timezone") not in ZONES:
            body.pop("timezone", None)
        body["name"] = uuid.uuid4().hex
        body["job"] = {"image": IMAGE, "command": "true"}
    if path.startswith("/webhooks"):
        if "url" in body:
            body["url"] = "https://receiver.example/hook?a=b"
        if path == "/webhooks/{id}" and method == "PUT":
            # Only a new one begins somewhere.
            body.pop("from", None)
        elif body.get("from", "now") != "now":
            # Not after the end of the log.
            body["from"] = 0


def job(body):
    """What a job may say depends on what there is, and on what else it says."""
    body.update(whole(body))
    for name in ("sandbox", "needs", "run_at", "template", "runtime", "pool"):
        # Nothing of that is there.
        body.pop(name, None)
    body["image"], body["provider"], body["network"] = IMAGE, "bubblewrap", "none"
    body["memory_mb"], body["vcpus"] = 64, 0.5
    if not body.get("command"):
        body["command"] = "true"
    for name, length in (("timeout", "10s"), ("deadline", "1h"), ("keep_sandbox", "1s"), ("ttl_after_end", "1h"), ("heartbeat_timeout", "5s")):
        # More than nothing, and within its bounds.
        if body.get(name):
            body[name] = length
    retries = body.get("retries")
    if isinstance(retries, dict):
        for name in ("backoff", "max_backoff"):
            if retries.get(name):
                retries[name] = "1s"
    secrets, env = body.get("secrets"), body.get("env")
    if isinstance(secrets, dict) and isinstance(env, dict):
        body["env"] = {name: value for name, value in env.items() if name not in secrets}
    if body.get("concurrency_limit") is not None:
        body["concurrency_key"] = body.get("concurrency_key") or "key"
    # Text or bytes.
    if body.get("stdin") is not None:
        body.pop("stdin_b64", None)
    for file in body.get("files") or []:
        file.pop("content_b64", None)
        file["content"] = file.get("content") or ""
    callback = body.get("callback")
    if isinstance(callback, dict):
        callback["url"] = "https://receiver.example/hook?a=b"
