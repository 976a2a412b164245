"""What a wave is about to change of a host's settings, kept on the host until the wave is accepted: the shape of the record.

``/var/lib/lockstep/previous/record.json`` (root alone may read the folder; the kept files lie beside it)::

    {"run": "…", "at": "…", "roles": ["ray_node", "serving_runtime", "vllm_server"], "runtime": "digest" or null,
     "files": {"/etc/lockstep/engine.json": {"copy": "0", "mode": 420, "uid": 0, "gid": 0, "sha256": "…"}, "…": null},
     "enabled": {"lockstep-ray.service": true}}

A file that is null was not there before. ``host/previous_settings.py`` keeps, restores and lets go of it; the driver has a
change record of its own (``driver/change_record.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from . import records


class KeptFile(TypedDict):
    """A file as it was: name of its copy, mode, owner, and the checksum of its content."""

    copy: str
    mode: int
    uid: int
    gid: int
    sha256: str


class Previous(TypedDict):
    """What was kept: of which roles, by which run, the serving environment in use, files, and which units start at boot."""

    run: str
    at: str
    roles: list[str]
    runtime: str | None
    files: dict[str, KeptFile | None]
    enabled: dict[str, bool]


class Summary(TypedDict):
    """What a probe tells of it."""

    run: str
    at: str
    roles: list[str]
    runtime: str | None


def parse(stored: Mapping[str, Any]) -> Previous:
    """The record from JSON. Raises RecordError where it is none."""
    return records.parsed(Previous, stored, records.PREVIOUS)


def read(path: Path = records.PREVIOUS) -> Previous | None:
    """The record; None where no change of settings is in progress.

    Raises:
        RecordError: it is damaged.
    """
    stored = records.read(path)
    return None if stored is None else parse(stored)


def summary() -> Summary | None:
    """What a probe tells of it; None where no change of settings is in progress.

    Raises:
        RecordError: it is damaged.
    """
    kept = read()
    return (
        None
        if kept is None
        else {"run": kept["run"], "at": kept["at"], "roles": kept["roles"], "runtime": kept["runtime"]}
    )
