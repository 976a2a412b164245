"""What ``ray_node_encryption: wireguard`` costs a TCP stream: one network as it is, and the same network through a tunnel.

Two network namespaces on this machine, joined by a veth pair, stand for two hosts; the tunnel in it is the kernel's where that
has WireGuard, else ``wireguard-go``, as on hosts. Both ways take turns: bytes in a fixed time over one stream and over
several, the time of a small question and answer, and the processor time for a gigabyte, the tunnel's own included. The
yardstick is the same transfer without the tunnel, in the same run.

What this cannot show: a network card. A veth pair copies memory, so "without" is faster here than any wire; a card's offloads
and the many cores that the kernel's WireGuard uses are missing "with". Nor NCCL over sockets between GPU hosts. RDMA goes past
both.

Needs root, ``wg`` and, without the kernel's WireGuard, ``wireguard-go`` (Debian: wireguard-tools, wireguard-go).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

SPACES = ("lockstep-bench-a", "lockstep-bench-b")
LINKS = ("lsbench-a", "lsbench-b")
TUNNELS = ("lswg-a", "lswg-b")
WAYS = {"clear": "192.0.2.%d", "tunnel": "198.51.100.%d"}
PORT, WIRE = 9900, 9901
SECONDS, ROUNDS, STREAMS, QUESTIONS = 4.0, 3, 4, 300

# Prints bytes received by the moment all streams have ended, and the processor time of that.
RECEIVER = """
import resource, socket, sys, threading
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
total = [0]
def take(one):
    buffer = bytearray(1 << 20)
    while count := one.recv_into(buffer):
        total[0] += count
threads = []
for _ in range(int(sys.argv[3])):
    one, _ = listener.accept()
    threads.append(threading.Thread(target=take, args=(one,)))
    threads[-1].start()
for one in threads:
    one.join()
used = resource.getrusage(resource.RUSAGE_SELF)
print(total[0], used.ru_utime + used.ru_stime)
"""
SENDER = """
import resource, socket, sys, threading, time
end = time.monotonic() + float(sys.argv[4])
def give():
    data = bytes(1 << 20)
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as one:
        while time.monotonic() < end:
            one.sendall(data)
threads = [threading.Thread(target=give) for _ in range(int(sys.argv[3]))]
for one in threads:
    one.start()
for one in threads:
    one.join()
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""
ECHO = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
one, _ = listener.accept()
one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := one.recv(64):
    one.sendall(data)
"""
ASK = """
import socket, statistics, sys, time
times = []
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as one:
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(int(sys.argv[3])):
        began = time.perf_counter()
        one.sendall(b"x" * 8)
        one.recv(64)
        times.append(time.perf_counter() - began)
print(statistics.median(times) * 1e3)
"""


def run(*command: str, given: str | None = None) -> str:
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout.strip()


def within(space: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", space, *command]


@contextmanager
def hosts() -> Iterator[None]:
    """Two namespaces that reach each other, cleaned up whatever happens."""
    with ExitStack() as stack:
        for space in SPACES:
            run("ip", "netns", "add", space)
            stack.callback(run, "ip", "netns", "del", space)
        run("ip", "link", "add", LINKS[0], "netns", SPACES[0], "type", "veth", "peer", LINKS[1], "netns", SPACES[1])
        for number, (space, link) in enumerate(zip(SPACES, LINKS, strict=True), 1):
            run(*within(space, "ip", "address", "add", f"{WAYS['clear'] % number}/24", "dev", link))
            run(*within(space, "ip", "link", "set", link, "up"))
        yield


@contextmanager
def tunnel() -> Iterator[tuple[str, list[int]]]:
    """A tunnel between them. Gives whose it is, and the processes that make it; none where the kernel does."""
    keys = [run("wg", "genkey") for _ in SPACES]
    public = [run("wg", "pubkey", given=key) for key in keys]
    processes: list[subprocess.Popen[bytes]] = []
    in_kernel = subprocess.run(
        within(SPACES[0], "ip", "link", "add", TUNNELS[0], "type", "wireguard"), capture_output=True
    )
    with ExitStack() as stack:
        for at, (space, name) in enumerate(zip(SPACES, TUNNELS, strict=True)):
            if in_kernel.returncode:
                process = subprocess.Popen(
                    within(space, "wireguard-go", "--foreground", name),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                processes.append(process)
                stack.callback(lambda one: (one.terminate(), one.wait()), process)
                end = time.monotonic() + 30
                while subprocess.run(within(space, "ip", "link", "show", name), capture_output=True).returncode:
                    assert time.monotonic() < end, "wireguard-go makes no interface"
                    time.sleep(0.1)
            elif at:
                run(*within(space, "ip", "link", "add", name, "type", "wireguard"))
            other = 1 - at
            peer = ["peer", public[other], "allowed-ips", f"{WAYS['tunnel'] % (other + 1)}/32"]
            peer += ["endpoint", f"{WAYS['clear'] % (other + 1)}:{WIRE}"]
            run(
                *within(space, "wg", "set", name, "listen-port", str(WIRE), "private-key", "/dev/stdin", *peer),
                given=keys[at],
            )
            run(*within(space, "ip", "address", "add", f"{WAYS['tunnel'] % (at + 1)}/24", "dev", name))
            run(*within(space, "ip", "link", "set", name, "mtu", "1420", "up"))
        yield ("wireguard-go" if processes else "the kernel"), [process.pid for process in processes]


def spent(pids: Sequence[int]) -> float:
    """Processor seconds of these processes up to now."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def answering(program: str, *arguments: str) -> subprocess.Popen[str]:
    """A program in the second namespace that is ready."""
    process = subprocess.Popen(
        within(SPACES[1], sys.executable, "-c", program, *arguments), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def transfer(way: str, streams: int, tunnels: Sequence[int]) -> tuple[float, float]:
    """Gigabytes a second, and processor seconds for a gigabyte."""
    target = [WAYS[way] % 2, str(PORT), str(streams)]
    before = spent(tunnels)
    receiver = answering(RECEIVER, *target)
    began = time.monotonic()
    sending = float(run(*within(SPACES[0], sys.executable, "-c", SENDER, *target, str(SECONDS))))
    took = time.monotonic() - began
    size, receiving = receiver.communicate()[0].split()
    gigabytes = int(size) / 1e9
    return gigabytes / took, (sending + float(receiving) + spent(tunnels) - before) / gigabytes


def asked(way: str) -> float:
    """Milliseconds for a small question and its answer, median."""
    echo = answering(ECHO, WAYS[way] % 2, str(PORT))
    found = float(run(*within(SPACES[0], sys.executable, "-c", ASK, WAYS[way] % 2, str(PORT), str(QUESTIONS))))
    echo.wait()
    return found


def main() -> int:
    missing = [name for name in ("ip", "wg") if not shutil.which(name)]
    if missing or os.geteuid():
        print(f"tunnel_cost: needs root{' and ' + ', '.join(missing) if missing else ''}", file=sys.stderr)
        return 1
    rates: dict[str, dict[int, list[float]]] = {way: {1: [], STREAMS: []} for way in WAYS}
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    waits: dict[str, list[float]] = {way: [] for way in WAYS}
    with hosts(), tunnel() as (maker, pids):
        for number in range(ROUNDS):
            for way in sorted(WAYS, reverse=bool(number % 2)):
                waits[way].append(asked(way))
                for streams in (1, STREAMS):
                    rate, cost = transfer(way, streams, pids if way == "tunnel" else ())
                    rates[way][streams].append(rate)
                    costs[way].append(cost)
    rate = {
        way: {str(streams): round(statistics.median(found), 3) for streams, found in of.items()}
        for way, of in rates.items()
    }
    cost = {way: round(statistics.median(found), 2) for way, found in costs.items()}
    wait = {way: round(statistics.median(found), 3) for way, found in waits.items()}
    print(
        json.dumps(
            {
                "benchmark": "tunnel_cost",
                "tunnel": maker,
                "gb_per_s": rate,
                "ratio": {
                    streams: round(rate["tunnel"][streams] / rate["clear"][streams], 3) for streams in rate["clear"]
                },
                "processor_seconds_per_gb": cost,
                "question_ms": wait,
                "cores": os.cpu_count(),
                "load": os.getloadavg()[0],
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
