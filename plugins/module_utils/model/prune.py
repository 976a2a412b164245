"""Which staged models may go: those that staging made, that no replica of the inventory wants, and that nothing uses."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from ..core import typed
from . import store
from .codes import Result
from .request import Answer, Request
from .store import REMOVED, STAGING, Place


def unwanted(staged: Iterable[str], under_way: Iterable[str], keep: Collection[str]) -> tuple[list[str], list[str]]:
    """What may go: of the models that staging made, and of those that are on their way.

    Args:
        staged: names of folders that have a manifest.
        under_way: names below the folder of staging.
        keep: names that are wanted or in use.
    """
    wanted = {*keep, *(f"{name}.json" for name in keep)}
    return sorted(set(staged) - set(keep)), sorted(set(under_way) - wanted)


def prune(request: Request) -> Answer:
    """Remove the models that nobody wants; dry, say which these are."""
    folder = Path(request.folder)
    try:
        staged = [
            entry.name for entry in os.scandir(folder) if entry.name != STAGING and _is_staged(folder / entry.name)
        ]
    except FileNotFoundError:
        return Answer(Result.DONE)
    under_way = os.listdir(folder / STAGING) if (folder / STAGING).is_dir() else []
    models, parts = unwanted(staged, under_way, request.keep)
    freed = sum(size or 0 for name in models for size in store.sizes(folder / name).values())
    freed += sum(size or 0 for name in parts for size in store.sizes(folder / STAGING / name).values())
    if not request.dry:
        for name in models:  # out of sight first: what is removed in part is nobody's model
            place = Place(folder, f"{REMOVED}{name}")
            place.staging.parent.mkdir(mode=0o700, exist_ok=True)
            store.remove_tree(place.staging)
            os.rename(folder / name, place.staging)
            parts.append(place.name)
        for name in parts:
            store.remove_tree(folder / STAGING / name)
    return Answer(Result.DONE, changed=bool(models or parts), removed=tuple(models), bytes=freed)


def _is_staged(folder: Path) -> bool:
    try:
        return store.read_manifest(folder) is not None
    except typed.BadAnswer:
        return False
