"""What a host can measure of the network to its peers, all of them probing at the same time.

Every host runs this at once, as ``python3 -m lockstep.gates.network_probe`` under a deadline: it listens on each port that
Lockstep's units will use and that nobody holds yet, answers its peers, and asks each of them. It leaves when it has asked
all and all have asked it, or when its time is up. Reads a job as JSON from standard input and writes its observations as
JSON: facts only; ``network`` evaluates them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import systemd, untrusted
from ..core.commands import together
from ..core.host_record import HostRecord
from ..host import probe as host_probe
from ..ray.ports import NETWORK_GATE
from . import rdma
from .network_observations import Clock, Interface, NameLookup, Observations, Peer, UnitLimits

PING_COUNT = 20
RETRY = 0.25
SHORT = 1.0
DATAGRAM_TRIES = 3
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_HEADERS = 28
LOOK_UP_LIMIT = 8.0
LONGEST_LINE = 1 << 16


class Responder:
    """The answering half: control connections, echoes, and listeners on the ports under test."""

    def __init__(self, identity: HostRecord, ports: Sequence[int]) -> None:
        self.identity = identity
        self.farewells: dict[str, list[int]] = {}
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        address = str(identity["address"])
        # As vLLM, torch and NCCL do: whatever port the kernel hands out has to be open to peers, too.
        self.chosen = self._listen(address, 0, lambda peer: peer.close())
        for port in ports:
            with contextlib.suppress(OSError):  # somebody holds it, and answers there himself
                self._listen(address, port, lambda peer: peer.close())
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((address, NETWORK_GATE))
        self._sockets.append(datagrams)
        _start(lambda: self._echo(datagrams))
        self._listen(address, NETWORK_GATE, self._control)  # last: what it answers is complete by then

    def heard_from(self) -> set[str]:
        """Peers that have finished their questions."""
        with self._lock:
            return set(self.farewells)

    def close(self) -> None:
        """Give every port back."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.close()

    def _listen(self, address: str, port: int, serve: Callable[[socket.socket], None]) -> int:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            listener.close()
            raise
        listener.listen(64)
        self._sockets.append(listener)
        _start(lambda: self._accept(listener, serve))
        return int(listener.getsockname()[1])

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            _start(lambda peer=peer: serve(peer))  # type: ignore[misc]

    def _control(self, peer: socket.socket) -> None:
        """Answer one peer's lines: ``hello``, ``time``, ``bye``."""
        with peer, peer.makefile("rwb") as stream:
            while line := stream.readline(LONGEST_LINE):
                arrived = time.time()
                try:
                    question = _object(line)
                except ValueError:
                    return
                answer: dict[str, Any] = {}
                ask, host = question.get("ask"), question.get("host")
                if ask == "hello":
                    answer = {"zone": self.identity.get("zone"), "chosen": self.chosen}
                elif ask == "time":
                    answer = {"arrived": arrived, "left": time.time()}
                elif ask == "bye" and host in self.identity["peers"]:
                    with self._lock:
                        self.farewells[str(host)] = _port_list(question.get("unreachable"))
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()

    def _echo(self, datagrams: socket.socket) -> None:
        while True:
            try:
                data, sender = datagrams.recvfrom(65536)
                datagrams.sendto(data[:8], sender)
            except OSError:
                if datagrams.fileno() < 0:
                    return


def _start(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def probe(job: Mapping[str, Any]) -> Observations:
    """Everything that this host can observe.

    Args:
        job: ``identity`` (host.json), ``ports`` (listened on by every host), ``head_ports`` (by the head), ``seconds``
            (how long the hosts wait for each other), ``units`` (whose limits are read).
    """
    identity = job["identity"]
    end = time.monotonic() + float(job["seconds"])
    me = str(identity["host"])
    others = {name: address for name, address in identity["peers"].items() if name != me}
    head = identity["head"]["host"]
    mine = [*job["ports"], *(job["head_ports"] if head == me else [])]
    interface = _interface(str(identity["interface"]), str(identity["address"]))
    observed: Observations = {
        "interface": interface,
        "names": together(
            {name: functools.partial(_names, name, address) for name, address in identity["peers"].items()}
        ),
        "peers": {},
        "complaints": {},
        "limits": {unit: _limits(unit) for unit in job["units"]},
        "rdma": rdma.read(),
        "control_error": None,
    }
    if not interface["owns"]:
        return observed
    try:
        responder = Responder(identity, mine)
    except OSError as error:
        return {**observed, "control_error": f"port {NETWORK_GATE}: {error}"}
    try:
        ports_of = {name: [*job["ports"], *(job["head_ports"] if head == name else [])] for name in others}
        peers = together(
            {
                name: functools.partial(_ask, identity, name, address, ports_of[name], interface["mtu"], end)
                for name, address in others.items()
            }
        )
        while responder.heard_from() < set(others) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        responder.close()
    return {**observed, "peers": peers, "complaints": responder.farewells}


def _names(name: str, address: str) -> NameLookup:
    """Forward and reverse look-up, and how long both took. Given up on after ``LOOK_UP_LIMIT`` seconds."""
    answer: list[str | None] = []
    began = time.monotonic()
    thread = threading.Thread(target=lambda: answer.append(host_probe.name_problem(name, address)), daemon=True)
    thread.start()
    thread.join(LOOK_UP_LIMIT)
    seconds = round(time.monotonic() - began, 3)
    if not answer:
        return {"problem": f"{name} and {address}: no answer from the resolver", "seconds": seconds}
    return {"problem": answer[0], "seconds": seconds}


def _interface(name: str, address: str) -> Interface:
    """Whether the interface owns the address, which one does, and its MTU."""
    shown = subprocess.run(["ip", "-json", "address", "show"], capture_output=True, text=True, timeout=10, check=False)
    owners = [
        item["ifname"]
        for item in (json.loads(shown.stdout) if shown.stdout.strip() else [])
        if any(one.get("local") == address for one in item.get("addr_info", []))
    ]
    try:
        mtu = int(Path(f"/sys/class/net/{name}/mtu").read_text(encoding="ascii"))
    except (OSError, ValueError):
        mtu = 1500
    return {"name": name, "owns": name in owners, "owners": owners, "mtu": mtu}


def _ask(identity: HostRecord, name: str, address: str, ports: Sequence[int], mtu: int, end: float) -> Peer:
    """Ask one peer everything."""
    found: Peer = {"silent": None, "unreachable": [], "zone": None, "mtu": None}
    local = str(identity["address"])
    control = _connect(local, address, NETWORK_GATE, end)
    if isinstance(control, str):
        found["silent"] = control
        return found
    with control, control.makefile("rwb") as stream:
        try:
            hello = _exchange(stream, {"ask": "hello"})
            found["zone"] = None if hello["zone"] is None else str(hello["zone"])
            found = {**found, **_clock(stream)}
            found["unreachable"] = _unreachable(local, address, [*ports, hello["chosen"]])
            found["mtu"] = _path_mtu(local, address, mtu)
            _exchange(stream, {"ask": "bye", "host": identity["host"], "unreachable": found["unreachable"]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            found["silent"] = f"{name} stopped answering: {error}"
    return found


def _connect(local: str, address: str, port: int, end: float) -> socket.socket | str:
    """Connect, again and again until ``end``: the peer may start a little later. Why not, if not."""
    while True:
        try:
            return socket.create_connection((address, port), timeout=SHORT * 2, source_address=(local, 0))
        except OSError as error:
            reason = str(error)
        if time.monotonic() + RETRY >= end:
            return reason
        time.sleep(RETRY)


def _exchange(stream: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    stream.write(json.dumps(question).encode() + b"\n")
    stream.flush()
    return _object(stream.readline(LONGEST_LINE))


def _object(line: bytes) -> dict[str, Any]:
    """One line of a peer, which may say anything.

    Raises:
        ValueError: it is no JSON object.
    """
    found = untrusted.parse_json(line)
    if not isinstance(found, dict):
        raise ValueError("it said something that is no JSON object")
    return found


def _port_list(given: object) -> list[int]:
    """The ports that a peer complains of."""
    return [port for port in given if isinstance(port, int)] if isinstance(given, list) else []


def _clock(stream: Any) -> Clock:
    """Round trips, and the clock's offset as SNTP computes it from the quickest of them."""
    trips = []
    for _ in range(PING_COUNT):
        sent, began = time.time(), time.monotonic()
        answer = _exchange(stream, {"ask": "time"})
        trip = time.monotonic() - began
        back = time.time()
        offset = ((answer["arrived"] - sent) + (answer["left"] - back)) / 2
        trips.append((trip, offset))
    return {
        "rtt_ms": round(statistics.median(trip for trip, _ in trips) * 1e3, 3),
        "clock_skew_seconds": round(min(trips)[1], 6),
    }


def _unreachable(local: str, address: str, ports: Sequence[int]) -> list[int]:
    """Ports that accept no connection. All at once, each tried twice."""
    accepted = together({str(port): functools.partial(_accepts, local, address, port) for port in ports})
    return sorted(int(port) for port, accepts in accepted.items() if not accepts)


def _accepts(local: str, address: str, port: int) -> bool:
    for _ in range(2):
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), timeout=SHORT * 1.5, source_address=(local, 0)),
        ):
            return True
    return False


def _path_mtu(local: str, address: str, mtu: int) -> int | None:
    """The largest packet, up to the interface's MTU, that reaches the peer unfragmented."""
    if _carries(local, address, mtu):
        return mtu
    good, bad = 0, mtu
    for size in (576, 1280, 1400, 1450, 1500, 4096, 8900):
        if size < bad:
            if _carries(local, address, size):
                good = size
            else:
                bad = size
                break
    while good and bad - good > 8:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _carries(local, address, middle) else (good, middle)
    return good or None


def _carries(local: str, address: str, size: int) -> bool:
    """Whether an unfragmented UDP datagram of ``size`` bytes, headers included, is echoed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((local, 0))
        one.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        one.settimeout(0.3)
        for number in range(DATAGRAM_TRIES):
            mark = struct.pack("!II", size, number)
            try:
                one.sendto(mark.ljust(size - _HEADERS, b"\0"), (address, NETWORK_GATE))
                if one.recv(64) == mark:
                    return True
            except OSError:
                continue
    return False


def _limits(unit: str) -> UnitLimits:
    facts: systemd.Properties = {}
    with contextlib.suppress(systemd.SystemctlError):
        facts = systemd.show([unit], ["LoadState", "MainPID", "LimitMEMLOCK"]).get(unit, {})
    if facts.get("LoadState") != "loaded":
        return {"installed": False, "memlock_bytes": None, "shm_mib": None}
    pid = facts.get("MainPID", "0")
    root = f"/proc/{pid}/root" if pid != "0" else ""
    try:
        memory = os.statvfs(f"{root}/dev/shm")
        shm: int | None = memory.f_frsize * memory.f_blocks >> 20
    except OSError:
        shm = None
    return {"installed": True, "memlock_bytes": _memlock(pid, facts.get("LimitMEMLOCK", "")), "shm_mib": shm}


def _memlock(pid: str, configured: str) -> int | None:
    if pid != "0":
        with contextlib.suppress(OSError, ValueError):
            limit = resource.prlimit(int(pid), resource.RLIMIT_MEMLOCK)[0]
            return None if limit == resource.RLIM_INFINITY else limit
    return int(configured) if configured.isdigit() else None


def main() -> int:
    print(json.dumps(probe(json.load(sys.stdin))), flush=True)
    os._exit(0)  # a look-up that never ends must not hold the process


if __name__ == "__main__":
    sys.exit(main())
