"""Who this controller process is, and whether the process that holds a lock is certainly dead."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import time
from pathlib import Path
from typing import TypedDict

from ansible_collections.lockstep.vllm.plugins.module_utils.core import processes
from ansible_collections.lockstep.vllm.plugins.module_utils.core.lock_record import Lock
from ansible_collections.lockstep.vllm.plugins.module_utils.core.system import read_text


def user() -> str:
    """Whom this process works for: who called sudo, else its account; ``uid 1001`` where that has no name.

    The account is read from the kernel: under cron, systemd or in a container the environment does not hold it.
    """
    if os.geteuid() == 0 and os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def operator() -> str:
    """Who asks, as locks, requests and quarantines name it: ``user@controller``."""
    return f"{user()}@{socket.gethostname()}"


class Identity(TypedDict):
    """What a lock records of the process that holds it.

    ``machine``, ``boot`` and ``namespace`` tell whether a process id means anything here; ``started`` (clock ticks after
    boot) tells a process from a later one with the same id.
    """

    holder: str
    controller: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: int | None


def identity(pid: int) -> Identity:
    """The identity of process ``pid`` of this machine."""
    return {
        "holder": operator(),
        "controller": socket.gethostname(),
        "machine": read_text(Path("/etc/machine-id")).strip(),
        "boot": read_text(Path("/proc/sys/kernel/random/boot_id")).strip(),
        "namespace": _namespace(),
        "pid": pid,
        "started": started(pid),
    }


def known_dead(lock: Lock, here: Identity) -> bool:
    """Whether the holder of ``lock`` was a process of this very machine and is gone. False also where that is unknown."""
    if (lock.get("controller"), lock.get("machine")) != (here["controller"], here["machine"]) or not lock.get("boot"):
        return False
    if lock["boot"] != here["boot"]:
        return True
    pid = lock.get("pid")
    if lock.get("namespace") != here["namespace"] or pid is None:
        return False
    return started(pid) != lock.get("started")


def known_alive(lock: Lock, here: Identity) -> bool:
    """Whether the holder of ``lock`` is a process of this very machine that still runs."""
    same = all(lock.get(key) == here[key] for key in ("controller", "machine", "boot", "namespace"))
    return same and lock.get("started") is not None and not known_dead(lock, here)


def started(pid: int) -> int | None:
    """When process ``pid`` started, in clock ticks after boot; None where there is no such process, or only its corpse."""
    process = processes.read(pid)
    return process.started if process and process.alive else None


def running_for() -> float:
    """Seconds since the command was typed: the age of this process; 0 where it is no ``ansible-playbook`` of its own."""
    ticks = started(os.getpid()) if Path(sys.argv[0]).name == "ansible-playbook" else None
    if ticks is None:
        return 0.0
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 0.0)


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
