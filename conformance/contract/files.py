"""Files: raw bytes in and out, and paths that try to leave."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator

from checks import Suite, equal, rfc3339
from contract.fixture import Server, expect, fresh

suite = Suite("files")

ESCAPES = (
    "../../etc/passwd",
    "/../../../../etc/passwd",
    "/workspace/../../../etc/passwd",
    "....//....//etc/passwd",
    "/tmp/../../etc/passwd",
    "..",
    "/proc/self/root/etc/passwd",
    "/proc/1/root/etc/passwd",
)


def put(s: Server, path: str, content: bytes, **query: str):
    return s.http.put(f"{s.path}/files", params={"path": path} | query, content=content)


def get(s: Server, path: str):
    return s.http.get(f"{s.path}/files", params={"path": path})


@suite.check("the status words of write, move, chmod, delete and upload")
def _(s: Server) -> None:
    base = fresh("/tmp/")
    equal(
        expect(s.http.post(f"{s.path}/files", json={"path": f"{base}/a", "content": "1"}), 200),
        {"status": "written"},
    )
    equal(expect(put(s, f"{base}/p", b"2"), (200, 201)).get("status"), "written")
    body = {"old_path": f"{base}/a", "new_path": f"{base}/b"}
    equal(expect(s.http.post(f"{s.path}/files/move", json=body), 200), {"status": "moved"})
    body = {"path": f"{base}/b", "mode": "600"}
    equal(expect(s.http.post(f"{s.path}/files/chmod", json=body), 200), {"status": "chmod applied"})
    equal(expect(s.http.delete(f"{s.path}/files", params={"path": f"{base}/b"}), 200), {"status": "deleted"})


@suite.check("upload and download are raw bytes, any content, empty too")
def _(s: Server) -> None:
    for content in (b"", b"\x00", bytes(range(256)) * 300, b"\r\n\xff\xfe", os.urandom(100_001)):
        path = fresh("/workspace/raw/")
        expect(put(s, path, content), (200, 201))
        reply = get(s, path)
        equal(reply.status_code, 200, "status")
        assert reply.content == content, f"{len(content)} bytes came back as {len(reply.content)}"
        equal(reply.headers["content-type"], "application/octet-stream", "content type")
        inside = s.sh(f"sha256sum < {path}").split()[0]
        equal(inside, hashlib.sha256(content).hexdigest(), "digest inside")


@suite.check("an upload sets its mode, replaces atomically and leaves no scraps")
def _(s: Server) -> None:
    base = fresh("/workspace/")
    expect(put(s, f"{base}/f", b"#!/bin/sh\necho one", mode="755"), (200, 201))
    equal(s.sh(f"{base}/f"), "one\n", "stdout")
    s.sh(f"ln {base}/f {base}/old")
    expect(put(s, f"{base}/f", b"two"), (200, 201))
    equal(
        (get(s, f"{base}/f").content, get(s, f"{base}/old").content),
        (b"two", b"#!/bin/sh\necho one"),
        "new and old",
    )
    equal(sorted(s.sh(f"ls -A {base}").split()), ["f", "old"], "entries")


@suite.check("a range of a file is that range, of the version that is named")
def _(s: Server) -> None:
    path, content = fresh("/workspace/"), os.urandom(3_000_001)
    expect(put(s, path, content), (200, 201))
    s.sh(f"touch -d @1700000000 {path}")
    size = len(content)

    def part(**headers: str):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return s.http.get(f"{s.path}/files", params={"path": path}, headers=names)

    for asked, first, end in (
        ("bytes=0-0", 0, 1),
        (f"bytes=1000000-{size + 5}", 1_000_000, size),
        ("bytes=2999999-", 2_999_999, size),
        ("bytes=-1000001", size - 1_000_001, size),
        (f"bytes=-{size + 1}", 0, size),
    ):
        reply = part(range=asked)
        equal(reply.status_code, 206, f"status of {asked}")
        equal(reply.headers["content-range"], f"bytes {first}-{end - 1}/{size}", "range")
        equal(reply.headers["content-length"], str(end - first), "length")
        assert reply.content == content[first:end], f"{asked}: other bytes"
    for asked in ("bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=-"):
        reply = part(range=asked)
        equal((reply.status_code, reply.content == content), (200, True), asked)
        equal(reply.headers["accept-ranges"], "bytes", "accept-ranges")
    for asked in (f"bytes={size}-", "bytes=-0"):
        reply = part(range=asked)
        expect(reply, 416, "RANGE_NOT_SATISFIABLE")
        equal(reply.headers["content-range"], f"bytes */{size}", "range")
    known = part().headers
    equal(known["last-modified"], "Tue, 14 Nov 2023 22:13:20 GMT", "last-modified")
    for version in (known["etag"], known["last-modified"]):
        equal(part(range="bytes=1-2", if_range=version).status_code, 206, f"if-range {version}")
    for version in (f"W/{known['etag']}", '"other"', "Tue, 14 Nov 2023 22:13:21 GMT"):
        equal(part(range="bytes=1-2", if_range=version).status_code, 200, f"if-range {version}")
    s.sh(f"echo >> {path}")
    changed = part(range="bytes=1-2", if_range=known["etag"])
    equal((changed.status_code, len(changed.content)), (200, size + 1), "after a change")
    # What does not tell its size is whole.
    reply = s.http.get(f"{s.path}/files", params={"path": "/proc/version"}, headers={"range": "bytes=0-3"})
    equal((reply.status_code, reply.text.startswith("Linux version")), (200, True), "/proc")


@suite.check("100 MB go in and come out, streamed, byte for byte")
def _(s: Server) -> None:
    size, path = s.options.big_mb * 1_000_000, fresh("/workspace/big-")
    sent = hashlib.sha256()

    def content() -> Iterator[bytes]:
        block, left = os.urandom(1_000_000), size
        while left:
            part = block[: min(left, len(block))]
            block = block[1:] + block[:1]
            left -= len(part)
            sent.update(part)
            yield part

    reply = s.http.put(f"{s.path}/files", params={"path": path}, content=content(), timeout=300)
    expect(reply, (200, 201))
    equal(s.sh(f"sha256sum < {path}").split()[0], sent.hexdigest(), "digest inside")
    equal(int(s.sh(f"wc -c < {path}")), size, "size inside")
    got, count = hashlib.sha256(), 0
    with s.http.stream("GET", f"{s.path}/files", params={"path": path}, timeout=300) as download:
        equal(download.status_code, 200, "status")
        for part in download.iter_raw():
            got.update(part)
            count += len(part)
    equal((count, got.hexdigest()), (size, sent.hexdigest()), "downloaded")
    expect(s.http.delete(f"{s.path}/files", params={"path": path}), 200)


@suite.check("an upload that breaks off leaves the old file")
def _(s: Server) -> None:
    path = fresh("/workspace/half-")
    expect(put(s, path, b"old"), (200, 201))

    def broken() -> Iterator[bytes]:
        yield b"x" * 200_000
        raise OSError("the client dies")

    try:
        s.http.put(f"{s.path}/files", params={"path": path}, content=broken())
    except OSError:
        pass
    equal(get(s, path).content, b"old", "content")


@suite.check("paths that point outside stay inside or are refused")
def _(s: Server) -> None:
    inside = s.sh("cat /etc/passwd").encode()
    for path in ESCAPES:
        reply = get(s, path)
        if reply.status_code == 200:
            assert reply.content == inside, f"{path}: not the sandbox's own file: {reply.content[:80]!r}"
        else:
            expect(reply, (400, 403, 404))
        for route in ("stat", "list"):
            reply = s.http.get(f"{s.path}/files/{route}", params={"path": path})
            expect(reply, (200, 400, 403, 404))


@suite.check("writes, moves and uploads cannot leave, through dots or links")
def _(s: Server) -> None:
    name = fresh("escape-")
    s.sh(
        "mkdir -p /workspace/links && ln -sfn / /workspace/links/root && ln -sfn ../../../../../../tmp /workspace/links/up"
    )
    attempts = [
        f"../../../../../../tmp/{name}",
        f"/../../../tmp/{name}",
        f"links/root/tmp/{name}",
        f"links/up/{name}",
    ]
    for path in attempts:
        expect(s.http.post(f"{s.path}/files", json={"path": path, "content": "out"}), (200, 400, 403))
        expect(put(s, path, b"out"), (200, 201, 400, 403))
        assert not os.path.exists(f"/tmp/{name}"), f"{path} wrote on the host"
        put(s, "/tmp/source", b"1")
        body = {"old_path": "/tmp/source", "new_path": path}
        expect(s.http.post(f"{s.path}/files/move", json=body), (200, 400, 403))
        assert not os.path.exists(f"/tmp/{name}"), f"{path} moved onto the host"
    local = fresh("/tmp/host-secret-")
    with open(local, "w", encoding="utf-8") as secret:
        secret.write("of the host")
    try:
        for path in (local, "../../../../../.." + local, "links/root" + local, f"/proc/1/root{local}"):
            reply = get(s, path)
            assert reply.status_code in (400, 403, 404), f"{path}: {reply.status_code} {reply.content[:40]!r}"
        globbed = s.http.get(f"{s.path}/files/glob", params={"pattern": f"../../../..{local[:-4]}*"})
        assert globbed.status_code in (400, 403) or globbed.json() == [], f"glob: {globbed.text}"
    finally:
        os.unlink(local)


@suite.check("NUL bytes and paths of 5,000 characters are bad requests, in every route")
def _(s: Server) -> None:
    for path in ("/tmp/a\0b", "\0", "/tmp/" + "x" * 5000, "/" + "a/" * 2500, "/tmp/" + "é" * 3000):
        for route in ("files", "files/list", "files/stat"):
            expect(s.http.get(f"{s.path}/{route}", params={"path": path}), 400, "BAD_REQUEST")
        expect(s.http.get(f"{s.path}/files/glob", params={"pattern": path}), 400, "BAD_REQUEST")
        expect(s.http.delete(f"{s.path}/files", params={"path": path}), 400, "BAD_REQUEST")
        expect(put(s, path, b"x"), 400, "BAD_REQUEST")
        for route, body in (
            ("files", {"path": path, "content": "x"}),
            ("files/move", {"old_path": path, "new_path": "/tmp/b"}),
            ("files/move", {"old_path": "/etc/passwd", "new_path": path}),
            ("files/chmod", {"path": path, "mode": "644"}),
        ):
            expect(s.http.post(f"{s.path}/{route}", json=body), 400, "BAD_REQUEST")


@suite.check("names with spaces, quotes, newlines, stars and non-UTF-8 bytes are just names")
def _(s: Server) -> None:
    base = fresh("/tmp/names-")
    for name in (
        "a b",
        "it's",
        'q"q',
        "new\nline",
        "*",
        "[x]",
        "-rf",
        "..hidden",
        "ü😀",
        "%2e%2e",
        "a+b",
        "\\",
    ):
        path = f"{base}/{name}"
        expect(put(s, path, name.encode()), (200, 201))
        equal(get(s, path).content, name.encode(), f"content of {name!r}")
    listed = expect(s.http.get(f"{s.path}/files/list", params={"path": base}), 200)
    equal(len(listed), 12, "entries")
    s.sh(f"printf x > \"$(printf '{base}/bad\\377')\"")
    listed = expect(s.http.get(f"{s.path}/files/list", params={"path": base}), 200)
    equal(len(listed), 13, "entries with a name that is not UTF-8")


@suite.check("list, stat and glob have their shapes; an empty directory is []")
def _(s: Server) -> None:
    base = fresh("/tmp/shape-")
    s.sh(
        f"mkdir -p {base}/empty; printf 123 > {base}/f; chmod 640 {base}/f; ln -s f {base}/link; ln -s nowhere {base}/dangling"
    )
    equal(
        expect(s.http.get(f"{s.path}/files/list", params={"path": f"{base}/empty"}), 200),
        [],
        "empty directory",
    )
    entries = {e["name"]: e for e in expect(s.http.get(f"{s.path}/files/list", params={"path": base}), 200)}
    equal(sorted(entries), ["dangling", "empty", "f", "link"], "names")
    entry = entries["f"]
    equal((entry["path"], entry["size"], entry["is_dir"]), (f"{base}/f", 3, False), "entry of f")
    assert str(entry["mode"]).endswith("640") or entry["mode"] == "-rw-r-----", f"mode {entry['mode']!r}"
    rfc3339(entry["mod_time"])
    equal(entries["empty"]["is_dir"], True, "is_dir of empty")
    equal(
        expect(s.http.get(f"{s.path}/files/glob", params={"pattern": f"{base}/zz*"}), 200),
        [],
        "glob without a match",
    )
    for bad in ("[", "{a", "**" * 400 + "/x"):
        expect(s.http.get(f"{s.path}/files/glob", params={"pattern": f"{base}/{bad}"}), (200, 400))


@suite.check("a move onto a directory moves into it, as mv does")
def _(s: Server) -> None:
    base = fresh("/tmp/into-")
    s.sh(f"mkdir -p {base}/dir/empty {base}/full/x; echo f > {base}/f; ln -s dir {base}/link")
    for source, target, there in (
        ("f", "dir", "dir/f"),
        ("dir/f", "link/", "dir/f"),  # onto itself, through a link
        ("dir/empty", "full", "full/empty"),
        ("full/x", "new", "new"),
    ):
        body = {"old_path": f"{base}/{source}", "new_path": f"{base}/{target}"}
        reply = s.http.post(f"{s.path}/files/move", json=body)
        equal((reply.status_code, reply.json()), (200, {"status": "moved"}), f"{source} to {target}")
        equal(s.sh(f"test -e {base}/{there} && echo there"), "there\n", there)
    expect(s.http.post(f"{s.path}/files/move", json={"old_path": f"{base}/dir", "new_path": f"{base}/dir"}), (400, 409))
    equal(s.sh(f"cat {base}/dir/f"), "f\n", "content")
    moved = [line for line in expect(s.http.get(f"{s.path}/logs"), 200) if "file.moved" in line]
    assert any(f"{base}/dir/f" in line for line in moved), f"the log does not say where to: {moved[-5:]}"


@suite.check("chmod takes symbolic modes, relative to what is there")
def _(s: Server) -> None:
    base = fresh("/tmp/mode-")
    s.sh(f"mkdir -m 2750 {base}; touch {base}/f; chmod 640 {base}/f")
    for path, mode, bits in (
        (f"{base}/f", "u+x", "740"),
        (f"{base}/f", "a-w,go=", "500"),
        (f"{base}/f", "+x", "511"),
        (f"{base}/f", "g=u,o+rX", "555"),
        (f"{base}/f", "u=rw,go=r", "644"),
        (base, "o+rX", "2755"),
        (base, "=755", "755"),
    ):
        reply = s.http.post(f"{s.path}/files/chmod", json={"path": path, "mode": mode})
        equal(expect(reply, 200), {"status": "chmod applied"}, mode)
        equal(s.sh(f"stat -c %a {path}").strip(), bits, f"bits after {mode}")
    for mode in ("rwx", "u+q", "u", "x", "u+x,", "u8+x", "99", "10000"):
        expect(s.http.post(f"{s.path}/files/chmod", json={"path": f"{base}/f", "mode": mode}), 400, "BAD_REQUEST")
    expect(s.http.post(f"{s.path}/files/chmod", json={"path": f"{base}/none", "mode": "u+x"}), 404, "NOT_FOUND")


@suite.check("relative paths begin in the default working directory, in every route")
def _(s: Server) -> None:
    name = fresh("rel-")
    expect(s.http.post(f"{s.path}/files", json={"path": f"{name}/a", "content": "x"}), 200)
    equal(get(s, f"{name}/a").content, b"x", "content")
    equal(s.sh(f"cat {name}/a"), "x", "seen by a command without a workdir")
    stat = expect(s.http.get(f"{s.path}/files/stat", params={"path": f"{name}/a"}), 200)
    equal(stat["path"], f"/workspace/{name}/a", "path")
    equal([e["name"] for e in expect(s.http.get(f"{s.path}/files/list", params={"path": name}), 200)], ["a"], "list")
    expect(s.http.post(f"{s.path}/files/move", json={"old_path": f"{name}/a", "new_path": f"{name}/b"}), 200)
    expect(s.http.post(f"{s.path}/files/chmod", json={"path": f"{name}/b", "mode": "600"}), 200)
    found = expect(s.http.get(f"{s.path}/files/glob", params={"pattern": f"{name}/*"}), 200)
    equal(found, [f"/workspace/{name}/b"], "glob")
    expect(s.http.delete(f"{s.path}/files", params={"path": name, "recursive": "true"}), 200)


@suite.check("a directory is not a file, and a file is not a directory")
def _(s: Server) -> None:
    base = fresh("/tmp/kind-")
    expect(put(s, f"{base}/f", b"x"), (200, 201))
    expect(get(s, base), 400, "BAD_REQUEST")
    expect(put(s, base, b"x"), (400, 409))
    expect(put(s, f"{base}/f/below", b"x"), (400, 404, 409))
    expect(s.http.get(f"{s.path}/files/list", params={"path": f"{base}/f"}), (400, 404))
    expect(s.http.delete(f"{s.path}/files", params={"path": base}), (400, 409))
    equal(get(s, f"{base}/f").content, b"x", "content after it all")


@suite.check("reading a pipe or an endless device does not hang the server")
def _(s: Server) -> None:
    s.sh("rm -f /tmp/pipe; mkfifo /tmp/pipe")
    done: list[int] = []

    def read() -> None:
        with s.client({"X-API-Key": s.options.api_key}) as client:
            done.append(client.get(f"{s.path}/files", params={"path": "/tmp/pipe"}, timeout=20).status_code)

    thread = threading.Thread(target=read)
    thread.start()
    equal(s.sh("echo ok"), "ok\n", "exec beside it")
    thread.join()
    equal(done, [400], "status of reading a pipe")


@suite.check("only recursive=true removes a full directory, and links are not followed")
def _(s: Server) -> None:
    base = fresh("/tmp/tree-")
    s.sh(f"mkdir -p {base}/d/e {base}/keep; touch {base}/d/e/f {base}/keep/k; ln -s {base}/keep {base}/d/link")
    for value in ("false", "0", "yes", "TRUE", "1"):
        reply = s.http.delete(f"{s.path}/files", params={"path": f"{base}/d", "recursive": value})
        expect(reply, (400, 409))
    expect(s.http.delete(f"{s.path}/files", params={"path": f"{base}/d", "recursive": "true"}), 200)
    equal(s.sh(f"find {base} | sort").split(), [base, f"{base}/keep", f"{base}/keep/k"], "what is left")
