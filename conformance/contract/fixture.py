"""The server under test and the few words the checks are written in."""

from __future__ import annotations

import argparse
import base64
import json
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from checks import equal

API = "/api/v1"


class Server:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.url = options.url.rstrip("/")
        self.image = options.image
        self.http = self.client({"X-API-Key": options.api_key})
        self._shared = ""
        self._owned: list[str] = []

    def client(self, headers: dict[str, str] | None = None) -> httpx.Client:
        return httpx.Client(base_url=self.url + API, headers=headers, timeout=60.0)

    # --- sandboxes

    def spawn(self, headers: dict[str, str] | None = None, **body: Any) -> dict:
        body = {"image": self.image, "ttl": "10m"} | body
        reply = expect(self.http.post("/sandboxes", json=body, headers=headers), 201)
        self._owned.append(reply["id"])
        return reply

    @property
    def sandbox(self) -> str:
        """The id of one sandbox that no check ends."""
        if not self._shared:
            self._shared = self.spawn()["id"]
        return self._shared

    @property
    def path(self) -> str:
        return f"/sandboxes/{self.sandbox}"

    def destroyed(self) -> str:
        """The id of a sandbox that was."""
        sandbox = self.spawn()["id"]
        expect(self.http.delete(f"/sandboxes/{sandbox}"), 200)
        return sandbox

    def close(self) -> None:
        for sandbox in self._owned:
            self.http.delete(f"/sandboxes/{sandbox}")
        self.http.close()

    # --- exec and files

    def exec(self, command: str, headers: dict[str, str] | None = None, **body: Any) -> dict:
        reply = self.http.post(f"{self.path}/exec", json={"command": command} | body, headers=headers)
        return expect(reply, 200)

    def sh(self, command: str) -> str:
        """Standard output of a command that must succeed."""
        result = self.exec(command)
        assert result["exit_code"] == 0, f"{command!r}: {result}"
        return result["stdout"]

    def stream(self, command: str, sandbox: str = "", **body: Any) -> ExecStream:
        path = f"/sandboxes/{sandbox or self.sandbox}/exec?records=all"
        return ExecStream(self.http, path, {"command": command, "stream": True} | body)

    # --- what httpx would tidy up before sending

    def raw(self, request: bytes, half_close: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Send bytes as they are; read one response that ends with the connection or its length."""
        where = urlsplit(self.url)
        with socket.create_connection((where.hostname, where.port or 80), timeout=30) as connection:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            data = b""
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                assert part, f"connection closed before a response, got {data!r}"
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            length = int(headers.get("content-length", "0"))
            while len(body) < length:
                part = connection.recv(65536)
                if not part:
                    break
                body += part
        return int(lines[0].split()[1]), headers, body

    def request(self, method: str, target: str, headers: str = "", body: bytes = b"") -> tuple[int, dict, bytes]:
        host = urlsplit(self.url).netloc
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {self.options.api_key}\r\n{headers}"
        if "Connection:" not in headers:
            head += "Connection: close\r\n"
        return self.raw(head.encode("latin-1") + b"\r\n" + body)


@dataclass
class ExecStream:
    """One streamed exec, read as the contract says: records end at `\\n`, blank lines are heartbeats."""

    http: httpx.Client
    path: str
    body: dict
    exec_id: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    output: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})
    last: dict = field(default_factory=dict)
    blank_lines: int = 0
    outputs: list[dict] = field(default_factory=list)

    def records(self) -> Iterator[dict]:
        with self.http.stream("POST", self.path, json=self.body, headers=self.headers) as response:
            if response.status_code != 200:
                response.read()
                raise AssertionError(f"stream answered {response.status_code}: {response.text}")
            kind = response.headers["content-type"]
            assert kind.startswith("application/x-ndjson"), f"content type {kind}"
            rest = b""
            for part in response.iter_raw():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield self._take(json.loads(line.decode("utf-8", errors="strict")))
                    else:
                        self.blank_lines += 1
            equal(rest, b"", "bytes after the last newline")

    def _take(self, record: dict) -> dict:
        assert isinstance(record, dict), f"a record is an object, got {record!r}"
        self.exec_id = self.exec_id or record.get("exec_id", "")
        self.last = record
        if "stream" not in record:
            return record
        self.outputs.append(record)
        name = record["stream"]
        raw = chunk_bytes(record)
        equal(record["offset"], len(self.output[name]), f"offset of a {name} chunk")
        self.output[name] += raw
        return record

    def run(self) -> ExecStream:
        for _ in self.records():
            pass
        assert "exit_code" in self.last, f"the last record carries the exit code, got {self.last}"
        return self


def chunk_bytes(record: dict) -> bytes:
    """What the process wrote: `data_b64` where the bytes are not UTF-8, else `data`."""
    assert isinstance(record["data"], str), f"data is a string: {record!r}"
    if "data_b64" not in record:
        return record["data"].encode("utf-8")
    raw = base64.b64decode(record["data_b64"], validate=True)
    equal(record["data"], raw.decode("utf-8", errors="replace"), "the lossy text beside data_b64")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    raise AssertionError(f"data_b64 beside bytes that are UTF-8: {record!r}")


def expect(reply: httpx.Response, status: int | tuple[int, ...], code: str | tuple[str, ...] = "") -> Any:
    """The parsed body of a reply with this status and, for errors, this code and the flat shape."""
    wanted = status if isinstance(status, tuple) else (status,)
    what = f"{reply.request.method} {reply.request.url.raw_path.decode()[:200]}"
    assert reply.status_code in wanted, f"{what}: got {reply.status_code}, want {status}: {reply.text[:500]}"
    kind = reply.headers.get("content-type", "")
    assert kind.startswith("application/json"), f"{what}: content type {kind!r}"
    body = reply.json()
    if reply.status_code >= 400:
        flat_error(body, what)
        if code:
            codes = code if isinstance(code, tuple) else (code,)
            assert body["code"] in codes, f"{what}: code {body['code']}, want {code}"
    return body


CODES = {
    "BAD_REQUEST",
    "UNAUTHORIZED",
    "FORBIDDEN",
    "NOT_FOUND",
    "TIMEOUT",
    "CONFLICT",
    "TOO_LARGE",
    "RESOURCE_LIMIT",
    "INTERNAL_ERROR",
    "UNAVAILABLE",
    "AUDIT_UNAVAILABLE",
    "GONE",
    "METHOD_NOT_ALLOWED",
    "RANGE_NOT_SATISFIABLE",
}


def flat_error(body: Any, what: str) -> None:
    assert isinstance(body, dict), f"{what}: {body!r}"
    for key in ("code", "message"):
        assert isinstance(body.get(key), str) and body[key], f"{what}: {key} in {body!r}"
    assert body["code"] in CODES, f"{what}: unknown code {body['code']!r}"


def fresh(prefix: str = "") -> str:
    return prefix + uuid.uuid4().hex[:12]


def escaped(text: str) -> str:
    return quote(text, safe="")
