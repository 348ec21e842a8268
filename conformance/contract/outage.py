"""What clients see while the server's own NATS is away: the 503 row of the error table, then recovery.

Needs the process id of `stacyvm serve`, whose child the NATS server is.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

import httpx

from checks import Suite, equal, eventually
from contract.fixture import Server, expect

suite = Suite("outage")


def nats_of(server: int) -> int:
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            name = (entry / "comm").read_text().strip()
        except OSError:
            continue  # not a process, or gone meanwhile
        if name.startswith("nats-server") and int(fields[1]) == server and fields[0] != "Z":
            return int(entry.name)
    raise AssertionError(f"process {server} has no nats-server child")


@contextmanager
def frozen(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # the server has put another one in its place
            os.kill(process, signal.SIGCONT)


def ready(s: Server) -> bool:
    try:
        return s.http.get("/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def works(s: Server, sandbox: str) -> bool:
    """Ready may be told from a state that is a moment old: an honest 503 in between is no failure."""
    reply = s.http.post(f"/sandboxes/{sandbox}/exec", json={"command": "echo back"})
    if reply.status_code == 503:
        return False
    equal(expect(reply, 200)["stdout"], "back\n", "stdout")
    return True


@suite.check("NATS hangs: alive meanwhile, fixed texts, then another one in its place and all as before")
def _(s: Server) -> None:
    sandbox = s.spawn()["id"]
    before = nats_of(s.options.server_pid)
    with frozen(before):
        # The server puts another one in its place within seconds: what is asked meanwhile is done then, or refused.
        for path, body in (
            (f"/sandboxes/{sandbox}/exec", {"command": "true"}),
            (f"/sandboxes/{sandbox}/extend", {"ttl": "5m"}),
            ("/sandboxes", {"image": s.image}),
        ):
            reply = s.http.post(path, json=body, timeout=60)
            expect(s.http.get("/live"), 200)
            if reply.status_code < 300:
                continue
            # After a while it is known beforehand that nothing could be recorded.
            error = expect(reply, 503, ("UNAVAILABLE", "AUDIT_UNAVAILABLE"))
            leaks = [word for word in ("nats", "jetstream", "4222", "timed out") if word in error["message"].lower()]
            assert not leaks, f"the inside shows: {error['message']!r}"
        # Without a hand: nobody lets the frozen one go on.
        eventually(lambda: works(s, sandbox), "all works again", 30)
        assert nats_of(s.options.server_pid) != before, "the frozen one is still in its place"
    eventually(lambda: ready(s), "ready again", 60)
    eventually(lambda: works(s, sandbox), "an exec in the sandbox of before", 60)
    s.spawn()


@suite.check("NATS killed: the server starts it again, sandboxes and their events are still there")
def _(s: Server) -> None:
    sandbox = s.spawn()["id"]
    before = nats_of(s.options.server_pid)
    os.kill(before, signal.SIGKILL)

    def another() -> bool:
        try:
            return nats_of(s.options.server_pid) != before
        except AssertionError:
            return False

    eventually(another, "a new nats-server", 60)
    eventually(lambda: ready(s), "ready again", 60)
    eventually(lambda: works(s, sandbox), "an exec in the sandbox of before", 60)
    s.spawn()
    expect(s.http.delete(f"/sandboxes/{sandbox}"), 200)
