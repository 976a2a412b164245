"""Delivers a run's messages to a webhook: a process of its own, so that a receiver that hangs or is down delays no run.

The standard library alone, run as a file by :mod:`webhook`. Everything comes on standard input, as a URL may hold a secret:
the first line says where to, each further one is a message; where they end without the last one, or the run's process is
gone, the run was killed, and the message for that is sent. It ends by itself, and prints what was not delivered: without the
URL.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import select
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

TIMEOUT = 5.0
"""Seconds that one attempt may take to connect, and to be answered."""
PAUSES = (1.0, 2.0)
"""Seconds before the second and the third attempt."""
SIGNATURE = "X-Lockstep-Signature"
DELIVERY = "X-Lockstep-Delivery"
Message = dict[str, Any]


class Where(TypedDict, total=False):
    """Of ``webhook.Settings``."""

    url: str
    secret: str
    headers: dict[str, str]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is signed for one receiver is sent to no other."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def signature(secret: str, body: bytes) -> str:
    """HMAC-SHA256 of the body, as receivers compare it."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(where: Where, message: Message, timeout: float = TIMEOUT) -> str:
    """Send one message once; why it was not delivered, empty where it was."""
    body = json.dumps(message, ensure_ascii=False).encode()
    headers = {**where.get("headers", {}), "Content-Type": "application/json", "User-Agent": "lockstep"}
    headers[DELIVERY] = f"{message['run']}/{message['event']}"
    if where.get("secret"):
        headers[SIGNATURE] = signature(where["secret"], body)
    try:
        request = urllib.request.Request(where["url"], body, headers, method="POST")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
            answer.read(1024)
        return ""
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        timed_out = isinstance(reason, TimeoutError)
        return f"gave no answer within {timeout:g} s" if timed_out else f"not reached ({type(reason).__name__})"


def deliver(
    where: Where,
    message: Message,
    send: Callable[[Where, Message], str] = post,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Send one message, again where it fails; why it was not delivered."""
    problem = send(where, message)
    for seconds in PAUSES:
        if not problem:
            break
        pause(seconds)
        problem = send(where, message)
    return problem


def lines(handle: int, parent: int, poll: float = 1.0) -> Iterator[str]:
    """Lines of a pipe until it ends, or until ``parent`` is gone: workers that outlive it for a while hold the pipe open."""
    rest = b""
    while True:
        ready = select.select([handle], [], [], poll)[0]
        if not ready:
            if os.getppid() != parent:
                return
            continue
        part = os.read(handle, 65536)
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.decode()


def main() -> int:
    received = lines(sys.stdin.fileno(), os.getppid())
    where = json.loads(next(received))
    killed: Message | None = None
    for line in received:
        said = json.loads(line)
        killed = said.get("if_killed")
        if problem := deliver(where, said["message"]):
            print(f"{said['message']['event']}: {problem}", flush=True)
    if killed is not None:
        killed["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        deliver(where, killed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
