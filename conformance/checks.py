"""A runner for black-box checks: one line per check, then `N passed, N failed`.

There is no skip: a check that cannot do its work fails.
"""

from __future__ import annotations

import re
import sys
import time
import traceback
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable

HERE = Path(__file__).resolve().parent
# Frames of these say nothing about which line of a check failed.
HELPERS = ("wrapper", "do", "raises", "equal", "one_of", "run", "expect", "flat_error")


class Suite:
    """Checks in the order of their definition. They may lean on fixtures, never on each other's results."""

    def __init__(self, name: str):
        self.name = name
        self._checks: list[tuple[str, Callable[[Any], None]]] = []

    def check(self, title: str) -> Callable:
        def register(body: Callable[[Any], None]) -> Callable[[Any], None]:
            self._checks.append((title, body))
            return body

        return register

    def run(self, fixture: Any, only: str = "") -> tuple[int, int]:
        """Run every check (or those whose title contains `only`) and return (passed, failed)."""
        passed = failed = 0
        for title, body in self._checks:
            if only and only not in title:
                continue
            error = None
            started = time.monotonic()
            try:
                body(fixture)
            except KeyboardInterrupt:
                raise
            except BaseException as raised:  # a check may raise anything, asyncio.CancelledError included
                error = raised
            seconds = time.monotonic() - started
            if error is None:
                passed += 1
                print(f"ok    {self.name}: {title} ({seconds:.2f} s)", flush=True)
            else:
                failed += 1
                print(f"FAIL  {self.name}: {title} ({seconds:.2f} s)", flush=True)
                for line in describe(error).splitlines():
                    print(f"      {line}", flush=True)
        return passed, failed


def describe(error: BaseException) -> str:
    """The message and the innermost line of the check that raised it."""
    text = f"{type(error).__name__}: {error}"
    if len(text) > 1500:
        text = text[:1500] + " ..."
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if HERE in Path(f.filename).resolve().parents and f.name not in HELPERS]
    where = own[-1] if own else None
    return f"{text}\nat {Path(where.filename).name}:{where.lineno}: {where.line}" if where else text


def finish(passed: int, failed: int, only: str) -> int:
    """Print the closing line and return the exit code. Nothing run is a failure, unless a choice was asked for."""
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if not failed and (passed or only) else 1


def equal(actual: Any, expected: Any, what: str = "value") -> None:
    assert actual == expected, f"{what}: got {shorten(actual)}, want {shorten(expected)}"


def one_of(actual: Any, allowed: tuple, what: str = "value") -> None:
    assert actual in allowed, f"{what}: got {shorten(actual)}, want one of {allowed}"


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:140]} ... {text[-140:]} ({len(text)} characters)"


def eventually(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
    """Poll until `condition` is truthy. The limit only bounds a hang; it is no statement about speed."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


_UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
}
_UNITS |= {"s": Fraction(1), "m": Fraction(60), "h": Fraction(3600)}


def go_duration(text: Any) -> float:
    """Seconds of a Go duration string such as `1h30m`, `127ms`, `1.002s`."""
    assert isinstance(text, str) and text, f"a Go duration is a non-empty string, got {text!r}"
    if text == "0":
        return 0.0
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", text)
    assert parts and "".join(n + u for n, u in parts) == text, f"not a Go duration: {text!r}"
    return float(sum(Fraction(n) * _UNITS[u] for n, u in parts))


def rfc3339(text: Any) -> datetime:
    """An RFC 3339 instant that says it is UTC."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)", str(text))
    assert match, f"not an RFC 3339 instant in UTC: {text!r}"
    fraction = (match[2] or ".0")[:7]
    return datetime.fromisoformat(match[1] + fraction.ljust(7, "0")).replace(tzinfo=timezone.utc)


if __name__ == "__main__":
    sys.exit("this is the runner; run sdk_python.py or api.py")
