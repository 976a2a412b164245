"""What answers on a host's ports to whoever runs this: ``python3 port_scanner.py <address>``; standard library alone.

Prints JSON. ``open``: every TCP port of all 65,535 that accepts a connection, and what speaks there: ``zmtp`` (ZeroMQ),
``store`` (torch's TCPStore), or ``other``. ``udp``: of the ports asked, those that datagrams reach.
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import struct
import sys
import time

AT_ONCE = 16000
PATIENCE = 1.2
"""Seconds for an answer; a dropped packet has none."""
ZMTP_GREETING = b"\xff" + b"\0" * 8 + b"\x7f"
NONCE = 0x10C57E9
# QueryType::VALIDATE with its magic number, then PING with a number that comes back (torch 2.13: TCPStoreBackend.hpp).
STORE_PING = struct.pack("<BIBI", 0, 0x3C85F7CE, 13, NONCE)
UDP = (29698, 29650, 33000, 45000, 60999, 6380, 2000)


def accepting(address: str, ports: list[int]) -> list[int]:
    """Those of ``ports`` that accept a connection."""
    poller, pending, found = select.epoll(), {}, []
    for port in ports:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = one.connect_ex((address, port))
        if code == 0:
            found.append(port)
            one.close()
        elif code == errno.EINPROGRESS:
            poller.register(one, select.EPOLLOUT)
            pending[one.fileno()] = one, port
        else:
            one.close()
    end = time.monotonic() + PATIENCE
    while pending and time.monotonic() < end:
        for number, _ in poller.poll(0.1):
            one, port = pending.pop(number)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            one.close()
    for one, _ in pending.values():
        one.close()
    return found


def says(address: str, port: int, question: bytes) -> bytes:
    """The first bytes of an answer."""
    try:
        with socket.create_connection((address, port), timeout=PATIENCE) as one:
            one.sendall(question)
            return one.recv(16)
    except OSError:
        return b""


def spoken(address: str, port: int) -> str:
    if says(address, port, ZMTP_GREETING)[:1] == b"\xff":
        return "zmtp"
    return "store" if says(address, port, STORE_PING) == struct.pack("<I", NONCE) else "other"


def reached(address: str, port: int) -> bool:
    """Whether a datagram gets as far as the host's answer that nobody listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(PATIENCE / 2)
        one.connect((address, port))
        one.send(b"?")
        try:
            one.recv(16)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True


def main(address: str) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    step = min(AT_ONCE, most - 64)
    ports = range(1, 65536)
    found = sorted(
        port for at in range(0, len(ports), step) for port in accepting(address, list(ports[at : at + step]))
    )
    kinds = {port: spoken(address, port) for port in found if port != 22}
    print(
        json.dumps(
            {
                "open": {port: kinds.get(port, "ssh") for port in found},
                "udp": [port for port in UDP if reached(address, port)],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
