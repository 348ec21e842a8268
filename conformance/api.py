#!/usr/bin/env python3
"""The API contract without the SDK: errors, exec streams, files, events, over plain HTTP and WebSocket.

    pip install httpx websockets
    python api.py --url http://127.0.0.1:7423 --api-key KEY

Some checks look for what a break-out would leave on the host: run it on the machine of the server.
"""

from __future__ import annotations

import argparse
import sys

from checks import finish
from contract import errors, execs, files, outage, surface
from contract.fixture import Server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7423")
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--image", default="alpine:latest")
    parser.add_argument("--template-image", default="python:3.12", help="another image, to tell templates apart")
    parser.add_argument("--big-mb", type=int, default=100, help="size of the large upload, in 10^6 bytes")
    parser.add_argument("--body-limit-mb", type=int, default=64, help="JSON bodies over this must be refused")
    parser.add_argument(
        "--server-pid", type=int, help="process of `stacyvm serve`: adds the checks that take NATS away"
    )
    parser.add_argument("--only", default="", help="run the checks whose title contains this")
    options = parser.parse_args()

    server = Server(options)
    passed = failed = 0
    modules = [surface, execs, files, errors]
    if options.server_pid:
        modules.append(outage)
    else:
        print("note: without --server-pid NATS is not taken away, the checks of contract/outage.py do not run")
    for module in modules:
        counts = module.suite.run(server, options.only)
        passed, failed = passed + counts[0], failed + counts[1]
    server.close()
    return finish(passed, failed, options.only)


if __name__ == "__main__":
    sys.exit(main())
