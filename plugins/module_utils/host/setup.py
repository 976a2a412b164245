"""What a host keeps so that it can do Lockstep's work without a controller: the library, the tables, its own record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ..core import records
from ..core.host_record import HostRecord

LIBRARY = records.LIB / "lockstep"


class Replica(TypedDict):
    """A replica as the controller names it to a host: ``head`` is one of the hosts in ``addresses``."""

    name: str
    head: str
    addresses: dict[str, str]


def install_library(sources: Mapping[str, str], tables: Mapping[str, str], *, dry: bool = False,
                    library: Path = LIBRARY, share: Path = records.SHARE) -> list[str]:  # fmt: skip
    """Make the library and the tables on this host exactly the given ones. Returns the paths that (would) change.

    Args:
        sources: text of every file of the package ``lockstep``, by its path below the package's folder.
        tables: text of every table, by file name.
        dry: change nothing.
    """
    desired = {library / name: text for name, text in sources.items()}
    desired |= {share / name: text for name, text in tables.items()}
    stale = [path for folder, suffix in ((library, ".py"), (share, ".json"))
             for path in folder.rglob(f"*{suffix}") if path not in desired]  # fmt: skip
    changed = [path for path, text in desired.items() if not _is(path, text)]
    if not dry:
        for path in changed:
            _write(path, desired[path])
        for path in stale:
            path.unlink()
    return sorted(str(path) for path in (*changed, *stale))


def host_record(
    host: str, replica: Replica, declared: Mapping[str, Any], nvswitch_ports: Sequence[str] = ()
) -> HostRecord:
    """The content of host.json.

    Args:
        host: its name in the inventory.
        replica: the replica that it belongs to.
        declared: the module's parameters ``interface``, ``gpus``, ``gpu_model``, ``zone``.
        nvswitch_ports: what ``fabric.switch_ports`` found.
    """
    addresses = dict(replica["addresses"])
    record: HostRecord = {
        "host": host,
        "replica": replica["name"],
        "ray_role": "head" if host == replica["head"] else "worker",
        "address": addresses[host],
        "interface": declared["interface"],
        "gpus": declared["gpus"],
        "gpu_model": declared["gpu_model"],
        "zone": declared["zone"],
        "head": {"host": replica["head"], "address": addresses[replica["head"]]},
        "peers": addresses,
    }
    return {**record, "nvswitch_ports": list(nvswitch_ports)} if nvswitch_ports else record


def _is(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == 0o644
    except (OSError, UnicodeDecodeError):
        return False


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    scratch.chmod(0o644)
    os.replace(scratch, path)
