"""What a host can measure of the network to its peers, all of them probing at the same time.

Every host runs this at once, as ``python3 -m lockstep.gates.network_probe`` under a deadline: it listens on each port that
Lockstep's units will use and that nobody holds yet, answers its peers, and asks each of them. It leaves when it has asked
all and all have asked it, or when its time is up. Reads a job as JSON from standard input and writes its observations as
JSON: facts only; ``network_gate`` judges them.
"""

from __future__ import annotations

import contextlib
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

from ..core import systemd
from ..host import probe as host_probe
from ..ray.ports import NETWORK_GATE

PING_COUNT = 20
RETRY = 0.25
SHORT = 1.0
DATAGRAM_TRIES = 3
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_HEADERS = 28
LOOK_UP_LIMIT = 8.0


class Responder:
    """The answering half: control connections, echoes, and listeners on the ports under test."""

    def __init__(self, identity: Mapping[str, Any], ports: Sequence[int]) -> None:
        self.identity = identity
        self.farewells: dict[str, list[str]] = {}
        self.held: list[int] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        address = str(identity["address"])
        self._listen(address, NETWORK_GATE, self._control)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((address, NETWORK_GATE))
        self._sockets.append(datagrams)
        _start(lambda: self._echo(datagrams))
        for port in ports:
            try:
                self._listen(address, port, lambda peer: peer.close())
            except OSError:
                self.held.append(port)

    def heard_from(self) -> set[str]:
        """Peers that have finished their questions."""
        with self._lock:
            return set(self.farewells)

    def close(self) -> None:
        """Give every port back."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.close()

    def _listen(self, address: str, port: int, serve: Callable[[socket.socket], None]) -> None:
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
            for line in stream:
                arrived = time.time()
                question = json.loads(line)
                answer: dict[str, Any] = {}
                if question["ask"] == "hello":
                    answer = {"host": self.identity["host"], "zone": self.identity.get("zone"), "held": self.held}
                elif question["ask"] == "time":
                    answer = {"arrived": arrived, "left": time.time()}
                elif question["ask"] == "bye":
                    with self._lock:
                        self.farewells[question["host"]] = question["unreachable"]
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


def probe(job: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that this host can observe.

    Args:
        job: ``identity`` (host.json), ``ports`` (listened on by every host), ``head_ports`` (by the head), ``seconds``
            (how long the hosts wait for each other), ``units`` (whose limits are looked at).

    Returns:
        ``names`` {peer: {problem, seconds}}, ``interface`` {owns, mtu, found}, ``peers`` {peer: see ``_ask``},
        ``complaints`` {peer: ports of this host that it could not reach}, ``limits``, ``rdma``, ``held``.
    """
    identity = job["identity"]
    end = time.monotonic() + float(job["seconds"])
    me = str(identity["host"])
    others = {name: address for name, address in identity["peers"].items() if name != me}
    head = identity["head"]["host"]
    mine = [*job["ports"], *(job["head_ports"] if head == me else [])]
    interface = _interface(str(identity["interface"]), str(identity["address"]))
    found: dict[str, Any] = {"interface": interface, "limits": _limits(job["units"]), "rdma": _rdma()}
    names = _together({name: lambda n=name, a=address: _names(n, a) for name, address in identity["peers"].items()})  # type: ignore[misc]
    found["names"] = names
    if not interface["owns"]:
        return {**found, "peers": {}, "complaints": {}, "held": []}
    try:
        responder = Responder(identity, mine)
    except OSError as error:
        return {**found, "peers": {}, "complaints": {}, "held": [], "control_error": f"port {NETWORK_GATE}: {error}"}
    try:
        asked = _together(
            {
                name: lambda n=name, a=address: _ask(  # type: ignore[misc]
                    identity, n, a, [*job["ports"], *(job["head_ports"] if head == n else [])], interface["mtu"], end
                )
                for name, address in others.items()
            }
        )
        while responder.heard_from() < set(others) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        responder.close()
    return {**found, "peers": asked, "complaints": responder.farewells, "held": responder.held}


def _together(works: Mapping[str, Callable[[], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Run all at once; what a work returns, by its name."""
    results: dict[str, dict[str, Any]] = {}

    def run(name: str, work: Callable[[], dict[str, Any]]) -> None:
        results[name] = work()

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in works.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _names(name: str, address: str) -> dict[str, Any]:
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


def _interface(name: str, address: str) -> dict[str, Any]:
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
    return {"name": name, "owns": name in owners, "found": owners, "mtu": mtu}


def _ask(
    identity: Mapping[str, Any], name: str, address: str, ports: Sequence[int], mtu: int, end: float
) -> dict[str, Any]:
    """Ask one peer everything.

    Returns:
        ``silent`` (why its control port gave no answer, or None), ``unreachable`` (ports), ``zone``, ``rtt_ms``
        (median), ``rtt_min_ms``, ``clock_skew_seconds`` (theirs minus ours), ``mtu`` (largest packet in bytes that came
        through, None when none did).
    """
    found: dict[str, Any] = {"silent": None, "unreachable": [], "zone": None, "mtu": None}
    local = str(identity["address"])
    control = _connect(local, address, NETWORK_GATE, end)
    if isinstance(control, str):
        return {**found, "silent": control}
    with control, control.makefile("rwb") as stream:
        try:
            hello = _exchange(stream, {"ask": "hello"})
            found["zone"] = hello["zone"]
            found |= _clock(stream)
            found["unreachable"] = _unreachable(local, address, ports)
            found["mtu"] = _path_mtu(local, address, mtu)
            _exchange(stream, {"ask": "bye", "host": identity["host"], "unreachable": found["unreachable"]})
        except (OSError, ValueError, KeyError) as error:
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
    answer: dict[str, Any] = json.loads(stream.readline())
    return answer


def _clock(stream: Any) -> dict[str, float]:
    """Round trips, and the clock's offset as SNTP works it out from the quickest of them."""
    trips = []
    for _ in range(PING_COUNT):
        sent, began = time.time(), time.monotonic()
        answer = _exchange(stream, {"ask": "time"})
        trip = time.monotonic() - began
        back = time.time()
        offset = ((answer["arrived"] - sent) + (answer["left"] - back)) / 2
        trips.append((trip, offset))
    quickest = min(trips)
    return {
        "rtt_ms": round(statistics.median(trip for trip, _ in trips) * 1e3, 3),
        "rtt_min_ms": round(quickest[0] * 1e3, 3),
        "clock_skew_seconds": round(quickest[1], 6),
    }


def _unreachable(local: str, address: str, ports: Sequence[int]) -> list[int]:
    """Ports that accept no connection. All at once, each tried twice."""
    results = _together({str(port): lambda p=port: {"ok": _accepts(local, address, p)} for port in ports})  # type: ignore[misc]
    return sorted(int(port) for port, result in results.items() if not result["ok"])


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


def _limits(units: Sequence[str]) -> dict[str, Any]:
    """Memlock (bytes, None for no limit) and shared memory (MiB) as each unit's processes see them."""
    return {unit: _limits_of(unit) for unit in units}


def _limits_of(unit: str) -> dict[str, Any]:
    facts: systemd.Properties = {}
    with contextlib.suppress(systemd.SystemctlError):
        facts = systemd.show([unit], ["LoadState", "MainPID", "LimitMEMLOCK"]).get(unit, {})
    if facts.get("LoadState") != "loaded":
        return {"installed": False}
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


def _rdma(root: Path = Path("/sys/class/infiniband")) -> list[dict[str, Any]]:
    """Every RDMA port: device, port, state, rate, link layer, and GIDs that are set, with their types."""
    found = []
    for port in sorted(root.glob("*/ports/*")):
        gids = {}
        for path in sorted((port / "gids").glob("*")):
            value = _text(path)
            if value and set(value) - set("0:"):
                gids[path.name] = {"gid": value, "type": _text(port / "gid_attrs" / "types" / path.name)}
        found.append(
            {
                "device": port.parts[-3],
                "port": port.name,
                "state": _text(port / "state").partition(": ")[2],
                "rate": _text(port / "rate"),
                "link_layer": _text(port / "link_layer"),
                "gids": gids,
            }
        )
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def main() -> int:
    print(json.dumps(probe(json.load(sys.stdin))), flush=True)
    os._exit(0)  # a look-up that never ends must not hold the process


if __name__ == "__main__":
    sys.exit(main())
