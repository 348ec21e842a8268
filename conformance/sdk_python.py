#!/usr/bin/env python3
"""Drives every public method of the Python SDK `stacyvm` 0.1.1, sync and async, and checks the results.

    pip install stacyvm==0.1.1
    python sdk_python.py --url http://127.0.0.1:7423 --api-key KEY

The checks are written once and run twice: `Sync` hands values through, `Async` awaits them on one event loop.
A public method of the SDK that no check has brought to a successful end is a failure of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import uuid
from datetime import datetime, timezone

import httpx
import stacyvm
from stacyvm import (
    AsyncClient,
    Client,
    ProviderError,
    SandboxNotFound,
    StacyVMError,
    Template,
)
from stacyvm.providers import ProviderManager

from checks import Suite, equal, eventually, finish, go_duration, one_of, rfc3339
from sdk_flavours import Async, Coverage, Sync

STATES = ("creating", "running", "idle", "paused", "unhealthy", "expired", "destroying", "destroyed", "error")


both = Suite("sdk")
alone = Suite("sdk")  # what only one half has, or needs both


# --- the server as a whole --------------------------------------------------------------------------------------------


@both.check("health says ok, a version and an uptime")
def _(f: Sync) -> None:
    health = f.do(f.client.health())
    equal(health["status"], "ok", "status")
    assert health["version"], "version is empty"
    go_duration(health["uptime"])


@both.check("providers lists each provider with its health, one of them the default")
def _(f: Sync) -> None:
    providers = f.do(f.client.providers())
    assert isinstance(providers, list) and providers, f"want a non-empty array, got {providers!r}"
    for p in providers:
        for key, kind in (("name", str), ("healthy", bool), ("default", bool), ("latency_ms", (int, float))):
            assert isinstance(p.get(key), kind), f"{key} of {p}"
        rfc3339(p["last_checked"])
        assert "capabilities" in p, f"capabilities of {p}"
    equal([p["default"] for p in providers].count(True), 1, "number of default providers")
    assert all(p["healthy"] for p in providers if p["default"]), f"the default provider is not healthy: {providers}"


@both.check("pool status answers that the pool is off")
def _(f: Sync) -> None:
    equal(f.do(f.client.pool_status()), {"enabled": False}, "pool status")


@both.check("quota summary has exactly the four counts")
def _(f: Sync) -> None:
    summary = f.do(f.client.quota_summary())
    for key in ("total", "with_max_sandboxes", "with_max_ttl", "with_max_exec_timeout"):
        assert type(getattr(summary, key)) is int, f"{key}: {summary}"


@both.check("admission allows an ordinary spawn and creates nothing")
def _(f: Sync) -> None:
    before = sorted(f.ids())
    for decision in (
        f.do(f.client.admission()),
        f.do(f.client.admission(f.options.image, None, 256, 1, "5m", "conformance", {"a": "b"})),
    ):
        assert decision.allowed is True, f"want allowed: {decision}"
        assert decision.queueable is False, f"queueable only where overflow is queue: {decision}"
        equal(decision.reason, "", "reason")
        for key in ("active_sandboxes", "max_sandboxes", "active_owner_sandboxes", "max_owner_sandboxes"):
            assert type(getattr(decision, key)) is int, f"{key}: {decision}"
    equal(sorted(f.ids()), before, "sandboxes after admission")


@both.check("admission counts the live sandboxes")
def _(f: Sync) -> None:
    owner = f"owner-{uuid.uuid4().hex[:8]}"
    sandbox = f.spawn(owner_id=owner)
    decision = f.do(f.client.admission(owner_id=owner))
    f.do(sandbox.destroy())
    assert decision.active_sandboxes >= 1, f"active_sandboxes: {decision}"
    equal(decision.active_owner_sandboxes, 1, "active_owner_sandboxes")


@both.check("admission refuses a bad ttl, and one over the maximum by reason max_ttl")
def _(f: Sync) -> None:
    f.raises(StacyVMError, lambda: f.client.admission(ttl="soon"), "BAD_REQUEST")
    limit = f.do(f.client.admission()).max_ttl
    if limit:
        over = f"{int(go_duration(limit)) + 60}s"
        decision = f.do(f.client.admission(ttl=over))
        equal((decision.allowed, decision.reason), (False, "max_ttl"), f"decision for ttl {over}")
        assert decision.queueable is False, "waiting does not make a ttl shorter"


# --- life of a sandbox ------------------------------------------------------------------------------------------------


@both.check("spawn gives a running sandbox with all that was asked for")
def _(f: Sync) -> None:
    asked = datetime.now(timezone.utc)
    sandbox = f.spawn(memory_mb=256, vcpus=1, ttl="7m", owner_id="alice", metadata={"task": "1", "ä": "ö"})
    info = sandbox._info
    assert sandbox.id.startswith("sb-"), f"id {sandbox.id}"
    equal((sandbox.state, sandbox.image), ("running", f.options.image), "state and image")
    assert sandbox.provider in [p["name"] for p in f.do(f.client.providers())], f"provider {sandbox.provider!r}"
    equal((info["memory_mb"], info["vcpus"]), (256, 1), "limits")
    equal((info["owner_id"], info["metadata"]), ("alice", {"task": "1", "ä": "ö"}), "owner and metadata")
    created, expires = rfc3339(info["created_at"]), rfc3339(info["expires_at"])
    assert abs((created - asked).total_seconds()) < 120, f"created_at {created}, asked at {asked}"
    assert abs((expires - created).total_seconds() - 420) < 60, f"ttl 7m, got {expires - created}"
    nulls = [k for k, v in info.items() if v is None or v == ""]
    assert not nulls, f"empty fields must be omitted, got {nulls}"
    f.do(sandbox.destroy())


@both.check("a bare spawn takes the defaults")
def _(f: Sync) -> None:
    sandbox = f.do(f.client.spawn())
    equal(sandbox.image, "alpine:latest", "image")
    equal(sandbox.state, "running", "state")
    assert sandbox._info["memory_mb"] > 0 and sandbox._info["vcpus"] > 0, f"limits {sandbox._info}"
    for absent in ("metadata", "preview_domain"):
        assert sandbox._info.get(absent, "absent") not in ("", None, {}), f"{absent} must be omitted when empty"
    f.do(sandbox.destroy())


@both.check("a named provider is used, an unknown one is not found")
def _(f: Sync) -> None:
    default = next(p["name"] for p in f.do(f.client.providers()) if p["default"])
    sandbox = f.spawn(provider=default)
    equal(sandbox.provider, default, "provider")
    f.do(sandbox.destroy())
    f.raises(
        SandboxNotFound,
        lambda: f.client.spawn(image=f.options.image, provider="no-such-provider"),
        "NOT_FOUND",
    )


@both.check("list holds the sandbox with its fields, and no longer after destroy")
def _(f: Sync) -> None:
    sandbox = f.spawn(metadata={"k": "v"}, memory_mb=300)
    listed = [s for s in f.do(f.client.list()) if s.id == sandbox.id]
    equal(len(listed), 1, "entries of the sandbox")
    entry, info = listed[0], sandbox._info
    one_of(entry.state, STATES, "state")
    equal((entry.provider, entry.image), (sandbox.provider, sandbox.image), "provider and image")
    equal(
        (entry.memory_mb, entry.vcpus, entry.metadata),
        (300, info["vcpus"], {"k": "v"}),
        "limits and metadata",
    )
    equal((entry.created_at, entry.expires_at), (info["created_at"], info["expires_at"]), "instants")
    f.do(sandbox.destroy())
    assert sandbox.id not in f.ids(), "still listed after destroy"


@both.check("get and refresh see the same sandbox, repr names it")
def _(f: Sync) -> None:
    sandbox = f.sandbox
    again = f.do(f.client.get(sandbox.id))
    equal(again.id, sandbox.id, "id")
    equal((again.image, again.provider), (sandbox.image, sandbox.provider), "image and provider")
    assert sandbox.id in repr(again) and again.state in repr(again), repr(again)
    again._info = {}
    equal(again.state, "unknown", "state before refresh")
    f.do(again.refresh())
    equal((again.state, again._info["id"]), ("running", sandbox.id), "after refresh")


@both.check("extend_ttl counts from now and moves expires_at")
def _(f: Sync) -> None:
    sandbox = f.spawn(ttl="3m")
    for ttl, seconds in (("20m", 1200), (None, 1800), ("90s", 90)):
        before = sandbox._info["expires_at"]
        now = datetime.now(timezone.utc)
        f.do(sandbox.extend_ttl(ttl) if ttl else sandbox.extend_ttl())
        after = sandbox._info["expires_at"]
        assert after != before, f"expires_at did not change with {ttl}"
        off = (rfc3339(after) - now).total_seconds() - seconds
        assert abs(off) < 30, f"extend {ttl}: expires_at is {off} s off from now plus {seconds} s"
    f.raises(StacyVMError, lambda: sandbox.extend_ttl("-1m"), "BAD_REQUEST")
    f.do(sandbox.destroy())


@both.check("destroy ends it: get, exec, files and extend are not found")
def _(f: Sync) -> None:
    sandbox = f.spawn()
    f.do(sandbox.destroy())
    for call in (
        lambda: f.client.get(sandbox.id),
        sandbox.refresh,
        sandbox.extend_ttl,
        lambda: sandbox.exec("true"),
        lambda: sandbox.write_file("/tmp/a", "b"),
        lambda: sandbox.read_file("/tmp/a"),
        lambda: sandbox.list_files("/"),
    ):
        f.raises(SandboxNotFound, call, "NOT_FOUND")


@both.check("leaving the context manager destroys the sandbox and closes the client")
def _(f: Sync) -> None:
    client = f.enter(f.connect())
    sandbox = f.enter(f.do(client.spawn(image=f.options.image, ttl="5m")))
    equal(f.do(sandbox.exec("echo in")).stdout, "in\n", "stdout")
    f.leave(sandbox)
    f.raises(SandboxNotFound, lambda: f.client.get(sandbox.id))
    f.leave(client)
    f.raises(RuntimeError, client.health)


@both.check("prune removes none that live; an expired one is gone")
def _(f: Sync) -> None:
    short, keeper = f.spawn(ttl="2s"), f.sandbox

    def gone() -> bool:
        pruned = f.do(f.client.prune())
        assert type(pruned) is int and pruned >= 0, f"pruned {pruned!r}"
        return short.id not in f.ids()

    eventually(gone, "a sandbox with ttl 2s gone", 20)
    assert keeper.id in f.ids(), "prune removed a live sandbox"
    equal(f.do(keeper.exec("echo alive")).stdout, "alive\n", "stdout of the live one")
    f.raises(SandboxNotFound, lambda: f.client.get(short.id))


# --- exec -------------------------------------------------------------------------------------------------------------


@both.check("exec keeps stdout, stderr, exit code and a duration apart")
def _(f: Sync) -> None:
    result = f.do(f.sandbox.exec("echo out; echo err >&2; exit 7"))
    equal((result.stdout, result.stderr, result.exit_code), ("out\n", "err\n", 7), "result")
    assert 0 < go_duration(result.duration) < 30, f"duration {result.duration}"
    result = f.do(f.sandbox.exec("sleep 0.3"))
    equal((result.stdout, result.stderr, result.exit_code), ("", "", 0), "result of sleep")
    assert go_duration(result.duration) >= 0.3, f"sleep 0.3 took {result.duration}"


@both.check("exec in shell mode expands, pipes, and quotes the args")
def _(f: Sync) -> None:
    equal(f.do(f.sandbox.exec("echo $((6*7)) | tr 4 X")).stdout, "X2\n", "pipe")
    args = ["a b", "it's", "$HOME", "*", "", 'say "x"', "-n", "é\n", "`id`", "\\"]
    expected = "".join(f"<{a}>" for a in args)
    equal(f.do(f.sandbox.exec("printf '<%s>'", args=args)).stdout, expected, "shell args")
    equal(
        f.do(f.sandbox.exec("printf '<%s>'", args=args, mode="shell")).stdout,
        expected,
        "shell args, mode named",
    )


@both.check("exec in argv mode runs the command as it is, without a shell")
def _(f: Sync) -> None:
    args = ["<%s>", "a b", "$HOME", "*", "; exit 3", ""]
    equal(
        f.do(f.sandbox.exec("printf", args=args, mode="argv")).stdout,
        "".join(f"<{a}>" for a in args[1:]),
        "argv",
    )


@both.check("exec takes env, workdir and the default workdir")
def _(f: Sync) -> None:
    env = {"GREETING": "hi ö 'x' \"y\" $Z", "EMPTY": ""}
    result = f.do(f.sandbox.exec('printf "%s|%s|" "$GREETING" "${EMPTY-unset}"; pwd', env=env, workdir="/tmp"))
    equal(result.stdout, env["GREETING"] + "||/tmp\n", "stdout")
    equal(f.do(f.sandbox.exec("pwd")).stdout, "/workspace\n", "default workdir")
    equal(f.do(f.sandbox.exec('printf "%s" "${GREETING-unset}"')).stdout, "unset", "env of the next exec")


@both.check("exec returns large and multi-byte output whole")
def _(f: Sync) -> None:
    text = "zażółć 😀 \u2028 \u2029 \u0085 日本"
    equal(f.do(f.sandbox.exec("printf %s", args=[text])).stdout, text, "text")
    script = "i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done"
    expected = "".join(f"line {i}\n" for i in range(40000))
    equal(f.do(f.sandbox.exec(script)).stdout, expected, "40,000 lines")


@both.check("exec killed by a signal ends as 128 plus its number")
def _(f: Sync) -> None:
    equal(f.do(f.sandbox.exec("kill -9 $$")).exit_code, 137, "exit code")


@both.check("exec past its timeout is TIMEOUT, and the process is gone")
def _(f: Sync) -> None:
    mark = f"/tmp/late-{uuid.uuid4().hex}"
    f.raises(StacyVMError, lambda: f.sandbox.exec(f"sleep 2; touch {mark}", timeout="500ms"), "TIMEOUT")
    check = f.do(f.sandbox.exec(f"sleep 2.5; test -e {mark}"))
    equal(check.exit_code, 1, "the process went on after its timeout; exit code of test -e")


@both.check("exec_stream delivers both streams whole and in order")
def _(f: Sync) -> None:
    script = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    got = {"stdout": "", "stderr": ""}
    for chunk in f.chunks(f.sandbox.exec_stream(script)):
        got[chunk.stream] += chunk.data
    equal(got["stdout"], "".join(f"out {i}\n" for i in range(500)), "stdout")
    equal(got["stderr"], "".join(f"err {i}\n" for i in range(500)), "stderr")


@both.check("exec_stream yields output and nothing else")
def _(f: Sync) -> None:
    got = [(c.stream, c.data) for c in f.chunks(f.sandbox.exec_stream("echo out; sleep 0.1; echo err >&2; exit 3"))]
    equal(got, [("stdout", "out\n"), ("stderr", "err\n")], "chunks")
    equal(list(f.chunks(f.sandbox.exec_stream("true"))), [], "chunks of a silent command")


@both.check("exec_stream is live: the first chunk arrives while the process waits for us")
def _(f: Sync) -> None:
    go = f"/tmp/go-{uuid.uuid4().hex}"
    script = f"echo first; n=0; until [ -e {go} ]; do n=$((n+1)); [ $n -gt 200 ] && exit 9; sleep 0.1; done; echo last"
    text, released = "", False
    for chunk in f.chunks(f.sandbox.exec_stream(script)):
        text += chunk.data
        if text and not released:
            equal(text, "first\n", "before the release")
            f.do(f.sandbox.write_file(go, ""))
            released = True
    equal(text, "first\nlast\n", "output")


@both.check("exec_stream keeps characters whole, and line separators inside a record")
def _(f: Sync) -> None:
    awkward = (
        "printf '\\360'; sleep 0.1; printf '\\237\\230'; sleep 0.1; printf '\\200\\303'; sleep 0.1; printf '\\251'"
    )
    text = "".join(c.data for c in f.chunks(f.sandbox.exec_stream(awkward)))
    equal(text, "😀é", "split writes")
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\r\nh"
    got = "".join(c.data for c in f.chunks(f.sandbox.exec_stream("printf %s", args=[text])))
    equal(got, text, "separators")


@both.check("exec_stream takes args, mode, env and workdir")
def _(f: Sync) -> None:
    stream = f.sandbox.exec_stream("sh", args=["-c", 'echo "$X"; pwd'], mode="argv", env={"X": "y z"}, workdir="/tmp")
    equal("".join(c.data for c in f.chunks(stream)), "y z\n/tmp\n", "output")


@both.check("exec_stream on an unknown sandbox raises")
def _(f: Sync) -> None:
    ghost = f.do(f.client.get(f.sandbox.id))
    ghost.id = "sb-doesnotexist"
    try:
        list(f.chunks(ghost.exec_stream("true")))
    except (httpx.ResponseNotRead, SandboxNotFound):
        return
    raise AssertionError("no error raised")


# --- files ------------------------------------------------------------------------------------------------------------


@both.check("write_file and read_file carry text byte for byte, parents are made, mode is 0644")
def _(f: Sync) -> None:
    base = f"/workspace/{uuid.uuid4().hex}"
    for name, text in (
        ("plain.txt", "hello\n"),
        ("empty", ""),
        ("ünï cödé +&%.txt", "zażółć 😀\r\n\x00\x01 \u2028 end"),
    ):
        path = f"{base}/deep/er/{name}"
        f.do(f.sandbox.write_file(path, text))
        equal(f.do(f.sandbox.read_file(path)), text, path)
        size = f.do(f.sandbox.exec("wc -c <", args=[path])).stdout.strip()
        equal(int(size), len(text.encode()), f"size of {path} inside")
        equal(int(str(f.do(f.sandbox.stat_file(path))["mode"])[-4:], 8) & 0o777, 0o644, "default mode")
    f.do(f.sandbox.write_file(f"{base}/deep/er/plain.txt", "x"))
    equal(f.do(f.sandbox.read_file(f"{base}/deep/er/plain.txt")), "x", "after an overwrite by shorter text")


@both.check("a relative path is taken from /workspace")
def _(f: Sync) -> None:
    name = uuid.uuid4().hex
    f.do(f.sandbox.write_file(f"{name}.txt", "rel"))
    equal(f.do(f.sandbox.exec(f"cat /workspace/{name}.txt")).stdout, "rel", "content inside")


@both.check("write_file with a mode makes a program that runs")
def _(f: Sync) -> None:
    for mode in ("755", "0755"):
        path = f"/tmp/run-{uuid.uuid4().hex}"
        f.do(f.sandbox.write_file(path, "#!/bin/sh\necho ran $1\n", mode=mode))
        equal(f.do(f.sandbox.exec(path, args=["it"])).stdout, "ran it\n", f"stdout with mode {mode}")
    f.raises(StacyVMError, lambda: f.sandbox.write_file("/tmp/x", "", mode="rwx"), "BAD_REQUEST")


@both.check("binary files come back byte for byte")
def _(f: Sync) -> None:
    path = f"/tmp/bin-{uuid.uuid4().hex}"
    f.do(f.sandbox.exec(f"printf '\\000\\377\\376\\200\\r\\n\\303' > {path}"))
    reply = f.do(f.client._http.get(f"/api/v1/sandboxes/{f.sandbox.id}/files", params={"path": path}))
    equal(reply.content, b"\x00\xff\xfe\x80\r\n\xc3", "raw bytes")
    equal(f.do(f.sandbox.read_file(path)), "\x00\ufffd\ufffd\ufffd\r\n\ufffd", "as text")


@both.check("list_files, stat_file and glob_files describe what is there")
def _(f: Sync) -> None:
    base = f"/workspace/{uuid.uuid4().hex}"
    for name in ("a.py", "b.txt", "sub/c.py", "sub/deeper/d.py"):
        f.do(f.sandbox.write_file(f"{base}/{name}", "12345"))
    entries = {e["name"]: e for e in f.do(f.sandbox.list_files(base))}
    equal(sorted(entries), ["a.py", "b.txt", "sub"], "names")
    for name, entry in entries.items():
        equal(
            sorted(set(entry) & {"name", "path", "size", "mode", "is_dir", "mod_time"}),
            sorted(["name", "path", "size", "mode", "is_dir", "mod_time"]),
            f"keys of {name}",
        )
        equal((entry["path"], entry["is_dir"]), (f"{base}/{name}", name == "sub"), f"path and is_dir of {name}")
        rfc3339(entry["mod_time"])
    equal(entries["a.py"]["size"], 5, "size")
    stat = f.do(f.sandbox.stat_file(f"{base}/a.py"))
    equal(stat, entries["a.py"], "stat equals the list's entry")
    equal(f.do(f.sandbox.stat_file(f"{base}/sub"))["is_dir"], True, "is_dir of sub")
    equal(sorted(f.do(f.sandbox.glob_files(f"{base}/*.py"))), [f"{base}/a.py"], "glob *")
    equal(
        sorted(f.do(f.sandbox.glob_files(f"{base}/**/*.py"))),
        [f"{base}/a.py", f"{base}/sub/c.py", f"{base}/sub/deeper/d.py"],
        "glob **",
    )
    equal(f.do(f.sandbox.glob_files(f"{base}/*.none")), [], "glob without a match")
    root = [e["name"] for e in f.do(f.sandbox.list_files())]
    assert {"etc", "tmp", "workspace"} <= set(root), f"default list is /: {root}"


@both.check("move_file, chmod_file and delete_file change what is inside")
def _(f: Sync) -> None:
    base = f"/tmp/{uuid.uuid4().hex}"
    f.do(f.sandbox.write_file(f"{base}/a", "#!/bin/sh\necho moved\n"))
    f.do(f.sandbox.move_file(f"{base}/a", f"{base}/b"))
    f.raises(SandboxNotFound, lambda: f.sandbox.stat_file(f"{base}/a"))
    f.do(f.sandbox.chmod_file(f"{base}/b", "700"))
    equal(f.do(f.sandbox.exec(f"{base}/b; ls -l {base}/b | cut -c1-10")).stdout, "moved\n-rwx------\n", "stdout")
    f.do(f.sandbox.delete_file(f"{base}/b"))
    f.raises(SandboxNotFound, lambda: f.sandbox.read_file(f"{base}/b"))


@both.check("delete_file of a full directory needs recursive")
def _(f: Sync) -> None:
    base = f"/tmp/{uuid.uuid4().hex}"
    f.do(f.sandbox.write_file(f"{base}/x/y", "1"))
    f.raises(StacyVMError, lambda: f.sandbox.delete_file(base))
    equal(f.do(f.sandbox.read_file(f"{base}/x/y")), "1", "content after the refused delete")
    f.do(f.sandbox.delete_file(base, recursive=True))
    equal(f.do(f.sandbox.exec(f"test -e {base}")).exit_code, 1, "test -e")


@both.check("what is gone is destroyed and deleted without an error, and a missing directory is empty")
def _(f: Sync) -> None:
    ghost = f"/tmp/{uuid.uuid4().hex}"
    f.do(f.sandbox.delete_file(ghost))
    f.do(f.sandbox.delete_file(ghost, recursive=True))
    equal(f.do(f.sandbox.list_files(ghost)), [], "list_files")
    sandbox = f.spawn()
    for _ in range(2):
        f.do(sandbox.destroy())
    sandbox.id = "sb-doesnotexist"
    f.raises(SandboxNotFound, sandbox.destroy, "NOT_FOUND")


@both.check("an empty command succeeds, a move onto a directory moves into it, and modes may be symbolic")
def _(f: Sync) -> None:
    result = f.do(f.sandbox.exec(""))
    equal((result.exit_code, result.stdout), (0, ""), "empty command")
    base = f"/tmp/{uuid.uuid4().hex}"
    f.do(f.sandbox.write_file(f"{base}/a", "x"))
    f.do(f.sandbox.write_file(f"{base}/dir/b", "y"))
    f.do(f.sandbox.move_file(f"{base}/a", f"{base}/dir"))
    f.do(f.sandbox.chmod_file(f"{base}/dir/a", "u+x,go-r"))
    equal(f.do(f.sandbox.exec(f"stat -c %a {base}/dir/a")).stdout, "700\n", "mode")


@both.check("missing files are not found, in every other method")
def _(f: Sync) -> None:
    ghost = f"/tmp/{uuid.uuid4().hex}"
    for call in (
        lambda: f.sandbox.read_file(ghost),
        lambda: f.sandbox.stat_file(ghost),
        lambda: f.sandbox.move_file(ghost, ghost + "2"),
        lambda: f.sandbox.chmod_file(ghost, "600"),
    ):
        f.raises(SandboxNotFound, call, "NOT_FOUND")


# --- previews and templates -------------------------------------------------------------------------------------------


@both.check("get_preview_url is built from the id and a domain that is never empty")
def _(f: Sync) -> None:
    domain = f.sandbox._info.get("preview_domain", "localhost")
    assert domain, "preview_domain must be omitted when empty"
    equal(f.sandbox.get_preview_url(3000), f"http://3000-{f.sandbox.id}.{domain}", "url")


@both.check("spawn_template and spawn(template=) take the template's settings")
def _(f: Sync) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    with Client(f.options.url, api_key=f.options.api_key, timeout=60) as owner:
        owner.templates.save(Template(name, f.options.template_image, 320, 1, "9m", metadata={"lang": "sh"}))
        for spawn in (lambda: f.client.spawn_template(name), lambda: f.client.spawn(template=name)):
            sandbox = f.do(spawn())
            info = f.do(f.client.get(sandbox.id))._info
            equal(
                (info["image"], info["memory_mb"], info["vcpus"]),
                (f.options.template_image, 320, 1),
                "settings",
            )
            equal(info.get("metadata"), {"lang": "sh"}, "metadata")
            ttl = (rfc3339(info["expires_at"]) - rfc3339(info["created_at"])).total_seconds()
            assert abs(ttl - 540) < 60, f"ttl of the template is 9m, got {ttl} s"
            equal(f.do(sandbox.exec("echo up")).stdout, "up\n", "stdout")
            f.do(sandbox.destroy())
        owner.templates.delete(name)
    f.raises(SandboxNotFound, lambda: f.client.spawn_template(name), "NOT_FOUND")
    f.raises(SandboxNotFound, lambda: f.client.spawn(template=name), "NOT_FOUND")


# --- errors -----------------------------------------------------------------------------------------------------------


@both.check("bad input is a StacyVMError with code BAD_REQUEST")
def _(f: Sync) -> None:
    for call in (
        lambda: f.client.spawn(image=f.options.image, ttl="soon"),
        lambda: f.client.spawn(image=f.options.image, ttl="1d"),
        lambda: f.client.spawn(image=f.options.image, ttl="-5m"),
        lambda: f.client.spawn(image=f.options.image, memory_mb=-1),
        lambda: f.sandbox.exec("true", mode="fancy"),
        lambda: f.sandbox.exec("true", timeout="later"),
        lambda: f.sandbox.exec("a\0b"),
        lambda: f.sandbox.chmod_file("/tmp", "rwx"),
        lambda: f.sandbox.read_file(""),
        lambda: f.sandbox.glob_files(""),
        lambda: f.sandbox.read_file("/tmp/" + "x" * 5000),
        lambda: f.sandbox.write_file("/tmp/a\0b", "x"),
    ):
        f.raises(StacyVMError, call, "BAD_REQUEST")


@both.check("a missing or wrong key is UNAUTHORIZED")
def _(f: Sync) -> None:
    for key in (None, "wrong"):
        stranger = f.connect(api_key=key)
        f.raises(StacyVMError, stranger.list, "UNAUTHORIZED")
        f.raises(StacyVMError, lambda: stranger.spawn(image=f.options.image), "UNAUTHORIZED")


@both.check("unknown sandboxes are SandboxNotFound, whatever the id looks like")
def _(f: Sync) -> None:
    for name in ("sb-00000000", "sb-*", "a.b.c", "a b", "é", "a>b", "x" * 3000, "..", "a/b", "%2e%2e"):
        f.raises(SandboxNotFound, lambda: f.client.get(name), "NOT_FOUND")


@both.check("an idempotency key with another body is CONFLICT, with the same body the same sandbox")
def _(f: Sync) -> None:
    client = f.connect()
    client._http.headers["Idempotency-Key"] = uuid.uuid4().hex
    first = f.do(client.spawn(image=f.options.image, ttl="5m"))
    again = f.do(client.spawn(image=f.options.image, ttl="5m"))
    equal(again.id, first.id, "id for the same key")
    f.raises(StacyVMError, lambda: client.spawn(image=f.options.image, ttl="6m"), "CONFLICT")
    f.do(f.do(f.client.get(first.id)).destroy())


@both.check("a body over the limit is TOO_LARGE")
def _(f: Sync) -> None:
    client = f.connect()
    huge = "x" * (f.options.body_limit_mb * 1024 * 1024 + 1)
    sandbox = f.do(client.get(f.sandbox.id))
    f.raises(StacyVMError, lambda: sandbox.write_file("/tmp/huge", huge), "TOO_LARGE")


@both.check("user_id becomes the owner and wins over owner_id; a malformed one is BAD_REQUEST")
def _(f: Sync) -> None:
    alice = f.connect(user_id="alice@example.com")
    sandbox = f.do(alice.spawn(image=f.options.image, ttl="5m", owner_id="bob"))
    equal(sandbox._info["owner_id"], "alice@example.com", "owner_id")
    f.do(sandbox.destroy())
    for user in ("a/b", "a b", "x" * 129, "a\\b"):
        mallory = f.connect(user_id=user)
        f.raises(StacyVMError, lambda: mallory.spawn(image=f.options.image), "BAD_REQUEST")


@both.check("an image that cannot be had is an error of the provider, not a hang")
def _(f: Sync) -> None:
    try:
        f.do(f.client.spawn(image="127.0.0.1:1/no/such:image", ttl="5m"))
    except (ProviderError, StacyVMError) as error:
        assert error.code, f"no code: {error}"
        return
    raise AssertionError("spawned from an image that does not exist")


@both.check("no server is ConnectionError on spawn")
def _(f: Sync) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f.connect(base_url=f"http://127.0.0.1:{free.getsockname()[1]}")
        f.raises(stacyvm.ConnectionError, nobody.spawn)
        f.raises(stacyvm.ConnectionError, lambda: nobody.spawn_template("x"))


@both.check("close ends the client")
def _(f: Sync) -> None:
    client = f.connect()
    f.do(client.health())
    f.do(client.close())
    f.raises(RuntimeError, client.health)


# --- what only one half has -------------------------------------------------------------------------------------------


@alone.check("templates: save, get, list, upsert, delete")
def _(options: argparse.Namespace) -> None:
    with Client(options.url, api_key=options.api_key, timeout=60) as client:
        name = f"t-{uuid.uuid4().hex[:8]}"
        provider = next(p["name"] for p in client.providers() if p["default"])
        wanted = Template(name, options.image, 640, 2, "1h30m", provider, {"language": "python"})
        for stored in (client.templates.save(wanted), client.templates.get(name)):
            same_template(stored, wanted)
        same_template(next(t for t in client.templates.list() if t.name == name), wanted)
        changed = Template(name, options.template_image, 700, 1, "45m", "", {})
        same_template(client.templates.save(changed), changed)
        same_template(client.templates.get(name), changed)
        equal([t.name for t in client.templates.list()].count(name), 1, "entries after the upsert")
        client.templates.delete(name)
        assert name not in [t.name for t in client.templates.list()], "listed after delete"
        for call in (client.templates.get, client.templates.delete):
            try:
                call(name)
                raise AssertionError(f"{call.__name__} of a deleted template worked")
            except SandboxNotFound:
                pass


def same_template(stored: Template, wanted: Template) -> None:
    equal((stored.name, stored.image), (wanted.name, wanted.image), "name and image")
    equal((stored.memory_mb, stored.vcpus), (wanted.memory_mb, wanted.vcpus), "limits")
    equal(go_duration(stored.ttl), go_duration(wanted.ttl), "ttl")
    equal((stored.provider, stored.metadata), (wanted.provider, wanted.metadata), "provider and metadata")


@alone.check("ProviderManager lists and tests the providers")
def _(options: argparse.Namespace) -> None:
    with Client(options.url, api_key=options.api_key, timeout=60) as client:
        manager = ProviderManager(client._http)
        names = sorted(p["name"] for p in manager.list())
        tested = manager.test()
        equal(sorted(tested), names, "names tested")
        assert all(type(v) is bool for v in tested.values()), f"want booleans: {tested}"
        default = next(p["name"] for p in manager.list() if p["default"])
        equal(tested[default], True, f"health of {default}")


@alone.check("asyncio.gather: sandboxes spawned and used at once stay apart")
def _(options: argparse.Namespace) -> None:
    async def job(client: AsyncClient, number: int) -> str:
        async with await client.spawn(image=options.image, ttl="5m") as sandbox:
            await sandbox.write_file("/workspace/n", str(number))
            first = (await sandbox.exec("cat /workspace/n")).stdout
            second = "".join([c.data async for c in sandbox.exec_stream("cat /workspace/n")])
            return f"{first} {second}"

    async def run() -> list[str]:
        async with AsyncClient(options.url, api_key=options.api_key, timeout=120) as client:
            return await asyncio.gather(*(job(client, n) for n in range(6)))

    equal(asyncio.run(run()), [f"{n} {n}" for n in range(6)], "what each read back")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7423")
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--image", default="alpine:latest")
    parser.add_argument("--template-image", default="python:3.12", help="another image, to tell templates apart")
    parser.add_argument("--body-limit-mb", type=int, default=64, help="JSON bodies over this must be refused")
    parser.add_argument("--only", default="", help="run the checks whose title contains this; coverage is not judged")
    options = parser.parse_args()

    coverage = Coverage()
    passed = failed = 0
    for flavour in (Sync, Async):
        both.name = f"sdk {flavour.name}"
        fixture = flavour(options)
        counts = both.run(fixture, options.only)
        try:
            fixture.close()
        except Exception as error:
            print(f"FAIL  {both.name}: tear down: {error!r}", flush=True)
            failed += 1
        passed, failed = passed + counts[0], failed + counts[1]
    counts = alone.run(options, options.only)
    passed, failed = passed + counts[0], failed + counts[1]

    if not options.only:
        missing = sorted(coverage.offered - coverage.driven)
        if missing:
            failed += 1
            print(f"FAIL  sdk: public methods that never ended well: {', '.join(missing)}", flush=True)
        else:
            passed += 1
            print(
                f"ok    sdk: all {len(coverage.offered)} public methods and properties were driven",
                flush=True,
            )
    return finish(passed, failed, options.only)


if __name__ == "__main__":
    sys.exit(main())
