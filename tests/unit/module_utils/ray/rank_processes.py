"""Processes that call themselves as vLLM's ranks do, with the log that Ray gives each of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.machine import ENDLESS, until

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
        child = subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep {ENDLESS}"], stdout=output, stderr=output)
    try:
        wait_for(child.pid, title)
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for(pid: int, title: str) -> None:
    """Until it has taken its title."""
    until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()), title)


def stop(pid: int) -> None:
    """SIGSTOP, until it has taken effect."""
    os.kill(pid, signal.SIGSTOP)
    until(
        lambda: Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T", "its stop"
    )
