"""How a host's settings differ from those that are kept: files, the serving environment, and the names of what is set.

Names alone: values may be secrets, and what is returned here is shown and journalled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.previous_settings import KeptFile, Previous

ENGINE, RAY, ENVIRONMENT = "/etc/lockstep/engine.json", "/etc/lockstep/ray.json", "/etc/lockstep/ray.env"
RUNTIME = "serving environment"
_PART = {
    "/opt/lockstep/bin/uv": RUNTIME,
    "/opt/lockstep/share/serving_runtime.lock": RUNTIME,
    ENGINE: "vLLM",
    "/etc/lockstep/vllm-api-key": "vLLM",
    "/etc/lockstep/vllm-api-keys.yml": "vLLM",
    "/etc/systemd/system/lockstep-vllm.service": "vLLM",
    RAY: "Ray",
    ENVIRONMENT: "Ray",
    "/etc/lockstep/ray-token": "Ray",
    "/etc/systemd/system/lockstep-ray.service": "Ray",
    "/etc/systemd/system/lockstep-hoststatus.socket": "Ray",
    "/etc/systemd/system/lockstep-hoststatus@.service": "Ray",
}
_MOST_NAMES = 8


@dataclasses.dataclass(frozen=True)
class RuntimeChange:
    """The serving environment in use (None where there is none), and the previous one."""

    present: str | None
    previous: str


@dataclasses.dataclass(frozen=True)
class SettingsChange:
    """How the present settings differ from the previous ones; false where they do not.

    Attributes:
        files: paths that differ, sorted.
        runtime: the serving environment, where that is another.
        names: what is set differently, by whose it is: ``{"vLLM": ("args.max_num_seqs",)}``.
    """

    files: tuple[str, ...] = ()
    runtime: RuntimeChange | None = None
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.files or self.runtime)

    def __str__(self) -> str:
        """One line for people: what was taken back."""
        parts = []
        if self.runtime:
            parts.append(f"{RUNTIME} {self.runtime.present or 'none'} -> {self.runtime.previous}")
        for whose, names in self.names.items():
            if self.runtime and whose == RUNTIME:
                continue  # its files follow from the other environment
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            parts.append(f"{whose} ({', '.join(names[:_MOST_NAMES])}{more})")
        return "; ".join(parts)


def _sha256(path: Path) -> str | None:
    """As the record of what is kept has it: in a folder of root's alone, so with no key. None where there is nothing."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def compare(kept: Previous, folder: Path, at: Callable[[str], Path], runtime: str | None) -> SettingsChange:
    """How this host differs from what is kept in ``folder``.

    Args:
        kept: the record of it.
        folder: the kept files.
        at: where a file of this host lies.
        runtime: the serving environment in use.
    """
    changed = [
        name for name, was in sorted(kept["files"].items()) if _sha256(at(name)) != (was["sha256"] if was else None)
    ]
    names: dict[str, list[str]] = {}
    for name in changed:
        if name in _PART:
            names.setdefault(_PART[name], []).extend(_names(name, kept["files"][name], folder, at(name)))
    previous = kept["runtime"]
    return SettingsChange(
        tuple(changed),
        RuntimeChange(runtime, previous) if previous and previous != runtime else None,
        {whose: tuple(found) for whose, found in sorted(names.items())},
    )


def _names(name: str, was: KeptFile | None, folder: Path, now: Path) -> list[str]:
    """What differs within a file, by name; the file's own name where that is unknown."""
    before = _settings(name, folder / was["copy"]) if was else None
    after = _settings(name, now)
    if before is None or after is None:
        return [Path(name).name]
    found = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return found or [Path(name).name]


def _settings(name: str, path: Path) -> dict[str, Any] | None:
    """The settings in a file by name; None where it has no names, or cannot be read."""
    if name not in (ENGINE, RAY, ENVIRONMENT):
        return None
    try:
        text = path.read_text(encoding="utf-8")
        if name == ENVIRONMENT:
            lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
            return {key: value for key, mark, value in lines if mark}
        return dict(_flat(json.loads(text)))
    except (OSError, ValueError):
        return None


def _flat(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Two levels of an object as one: ``args.max_num_seqs``."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from ((f"{key}.{name}", each) for name, each in inner.items())
        else:
            yield key, inner
