"""Records that Lockstep keeps on a host: where they lie, and reading and writing them so that a crash cannot tear one.

The shapes of the records are given in docs/architecture.md. Nothing here imports Ansible: hosts run the same file as
``lockstep.core.records``. Some lie in folders of the user ``lockstep`` and are read by root, so all are read as ``untrusted``
reads; what root writes goes to folders of root alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from . import typed, untrusted
from .errors import StopError

T = TypeVar("T")
ETC = Path("/etc/lockstep")
STATE = Path("/var/lib/lockstep")
RUN = Path("/run/lockstep")
"""Of the user ``lockstep``: what the running units report."""
REQUESTS = Path("/run/lockstep-requests")
"""Of root: what is asked of the running units."""
LIB = Path("/opt/lockstep/lib")
SHARE = Path("/opt/lockstep/share")
RUNTIME = Path("/opt/lockstep/runtime/current")

HOST = ETC / "host.json"
TUNNEL = ETC / "tunnel.json"
FILTER = ETC / "filter.json"
"""Its presence says that this host is to have the packet filter."""
ENGINE_CONFIG = ETC / "engine.json"
HOST_STAMP = STATE / "stamp" / "host.json"
REPLICA_STAMP = STATE / "stamp" / "replica.json"
QUARANTINE = STATE / "quarantine.json"
DRIVER = STATE / "driver.json"
MANIFEST = STATE / "manifest"
SETTINGS = STATE / "settings.json"
PREVIOUS = STATE / "previous" / "record.json"
MANIFEST_KEY = MANIFEST / "key"
LOCK = STATE / "lock.json"
LOCK_ENDED = STATE / "lock-ended.json"
REQUEST = STATE / "rollout.json"
EVIDENCE = STATE / "evidence"
ENGINE_STATE = RUN / "engine.json"


class RecordError(StopError):
    """A record exists but cannot be used; the cause names the file and what is wrong with it."""


def now() -> str:
    """The present moment as records write it: RFC 3339, UTC, whole seconds."""
    import datetime  # where it is needed: every probe brings this file to every host, and none asks for the time

    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(path: Path, limit: int = untrusted.LIMIT) -> dict[str, Any] | None:
    """The record at ``path``, of at most ``limit`` bytes, or None where there is none.

    Raises:
        RecordError: it is there but is not a JSON object. A damaged record is never taken for an absent one.
    """
    try:
        text = untrusted.read_file(path, limit).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from error
    try:
        value = untrusted.parse_json(text)
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise RecordError(f"{path}: holds {type(value).__name__}, expected an object")
    return value


def parsed(kind: type[T], value: object, name: object, next: str = "") -> T:
    """A record as a ``kind``; keys that a newer Lockstep wrote are left out.

    Raises:
        RecordError: it is none; ``name`` says which record, ``next`` what writes it anew.
    """
    try:
        return typed.parse(kind, value, typed.NEWER)
    except typed.BadAnswer as error:
        raise RecordError(f"{name}: {error}", next) from error


def write(path: Path, record: Mapping[str, Any], mode: int = 0o644) -> bool:
    """Replace the record at ``path`` in one step that survives a power cut. Returns whether its content changed."""
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    try:
        if untrusted.read_file(path, len(text)) == text.encode():
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, text, mode)
    return True


def replace(path: Path, content: str | bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Replace a file in one step that survives a power cut; until it has its name, it is its owner's alone.

    Args:
        owner: user and group; None for those of this process.
    """
    import tempfile  # where it is needed: a probe writes nothing

    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)  # by its handle: its name is another's to change where the folder is
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove(path: Path) -> bool:
    """Remove the record at ``path`` for good. Returns whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
