"""Processes that call themselves as vLLM's ranks do, with the log that Ray gives each of them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

JOINS = (
    Path(__file__).parents[2] / "fixtures" / "vllm" / "0.32.0" / "dies_without_model.log"
).read_text(encoding="utf-8").splitlines()  # fmt: skip


def joins(rank: int) -> str:
    """What vLLM 0.32 writes as a rank joins the others."""
    return next(line for line in JOINS if f"rank={rank} local_rank" in line) + "\n"


@contextlib.contextmanager
def rank_process(log: Path, rank: int, title: str = "ray::RayWorkerProc.run") -> Iterator[subprocess.Popen[bytes]]:
    log.write_text(joins(rank), encoding="utf-8")
    with log.open("ab") as output:
        child = subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep 120"], stdout=output, stderr=output)
    try:
        wait_for(child.pid, title)
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for(pid: int, title: str) -> None:
    """Until it has taken its title."""
    ends = time.monotonic() + 20
    while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
        assert time.monotonic() < ends
        time.sleep(0.01)


def stop(pid: int) -> None:
    """SIGSTOP, until it has taken effect."""
    import os

    os.kill(pid, signal.SIGSTOP)
    ends = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < ends
        time.sleep(0.01)
