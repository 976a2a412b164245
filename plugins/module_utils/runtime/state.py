"""What the serving environment of a host holds, read from its files: nothing of it is imported, nothing is changed.

Cheap enough (a few milliseconds) for every probe and every start of a unit.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..core import elf
from ..core.records import RUNTIME

State = dict[str, "str | None"]
COMPARED = ("python", "ray", "vllm", "torch", "nccl", "nccl_build_id", "torch_cuda", "flashinfer", "lock")
_ASK_VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([^\s;\\]+)", re.MULTILINE)
_TORCH_CUDA = r"(?m)^cuda\b[^=]*= *'([^']+)'"


def state(runtime: Path = RUNTIME) -> State:
    """Versions in the environment at ``runtime``: ``python`` (to the patch), ``ray``, ``vllm``, ``torch``, ``nccl``
    (the library that torch brings) with its ``nccl_build_id`` (one version comes in several builds), ``torch_cuda`` (that
    torch was built for), ``flashinfer`` and ``lock`` (digest it was built from).

    A value is None where the thing is absent; all are where there is no environment.
    """
    site = next(iter(sorted(runtime.glob("lib/python3*/site-packages"))), None)
    if site is None:
        return dict.fromkeys(COMPARED)
    versions = _distributions(site)
    return {
        "python": _python_version(runtime / "bin" / "python"),
        "ray": versions.get("ray"),
        "vllm": versions.get("vllm"),
        "torch": versions.get("torch"),
        "nccl": next((v for name, v in sorted(versions.items()) if name.startswith("nvidia-nccl-")), None),
        "nccl_build_id": _nccl_build_id(site),
        "torch_cuda": _torch_cuda(site),
        "flashinfer": versions.get("flashinfer-python"),
        "lock": os.path.basename(os.path.realpath(runtime)),  # the folder is named after the digest of its lock
    }


def pins(lock: str) -> dict[str, str]:
    """Versions by normalised name in the text of a lock."""
    return {_normal(name): version for name, version in _PIN.findall(lock)}


def promised(lock: str) -> State:
    """What an environment built from the text of a lock file will hold: as :func:`state`, as far as the lock pins it."""
    pinned = pins(lock)

    def first(*prefixes: str) -> str | None:
        return next((v for name, v in sorted(pinned.items()) if name.startswith(prefixes)), None)

    cuda = first("nvidia-cuda-runtime")
    return {
        "ray": pinned.get("ray"),
        "vllm": pinned.get("vllm"),
        "torch": pinned.get("torch"),
        "nccl": first("nvidia-nccl-"),
        "torch_cuda": ".".join(cuda.split(".")[:2]) if cuda else None,
        "flashinfer": pinned.get("flashinfer-python"),
    }


def differences(states: Mapping[str, Mapping[str, str | None]]) -> list[str]:
    """How the environments of the hosts of one replica differ, one sentence for each thing that does; empty if equal.

    Ray refuses a cluster of several Ray or Python versions (to the patch), and ranks of one engine must run one torch.
    """
    found = []
    for what in COMPARED:
        hosts_by_version: dict[str, list[str]] = {}
        for host, versions in sorted(states.items()):
            hosts_by_version.setdefault(versions.get(what) or "absent", []).append(host)
        if len(hosts_by_version) > 1:
            versions_shown = ", ".join(
                f"{version} on {', '.join(hosts)}" for version, hosts in sorted(hosts_by_version.items())
            )
            found.append(f"{what} differs: {versions_shown}")
    return found


def _distributions(site: Path) -> dict[str, str]:
    """Versions by normalised name. An installer names the folder after both; that saves reading every METADATA."""
    found = {}
    for entry in os.scandir(site):
        if entry.name.endswith(".dist-info"):
            name, _, version = entry.name[: -len(".dist-info")].partition("-")
            found[_normal(name)] = version
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _torch_cuda(site: Path) -> str | None:
    try:
        text = (site / "torch" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(_TORCH_CUDA, text)
    return found.group(1) if found else None


def _nccl_build_id(site: Path) -> str | None:
    """Of the library that NVIDIA's wheel brings, of whatever CUDA version."""
    found = next(iter(sorted(site.glob("nvidia/*/lib/libnccl.so*"))), None)
    return elf.build_id(found) if found else None


def _python_version(python: Path) -> str | None:
    """Asked of the interpreter, since pyvenv.cfg keeps the old patch version after the distribution's update."""
    real = os.path.realpath(python)
    if real == os.path.realpath(sys.executable):
        return sys.version.split()[0]
    try:
        asked = subprocess.run([real, "-ISc", _ASK_VERSION], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None
