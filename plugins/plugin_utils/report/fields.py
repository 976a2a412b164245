"""The fields of a result, whatever it holds: what is not of its type is left out, texts are bounded and printable."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import printable

MOST_ITEMS = 10_000
MOST_FIGURES = 200
_TEXT_LENGTH = 2000
_DEEPEST = 4
_LARGEST = 1e12


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """A dictionary, or the dictionaries of a list."""
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def text(value: Any, most: int = _TEXT_LENGTH) -> str:
    """Text, or what stands for a short value; empty for anything else."""
    if isinstance(value, str):
        return printable(value[:most])
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number and abs(value) < _LARGEST else ""


def texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (text(value),)
    return tuple(filter(None, map(text, value[:MOST_ITEMS]))) if isinstance(value, (list, tuple)) else ()


def number(value: Any) -> float:
    """A number of seconds or the like; 0 for what is none, negative, or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LARGEST:
        return 0.0
    return float(value)


def plain(value: Any, levels: int = _DEEPEST) -> Any:
    """The value as far as it is short texts and usual numbers, nested a few levels."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return value if abs(value) < _LARGEST else None  # neither for what is no number nor for what is not finite
    if isinstance(value, str):
        return text(value)
    if levels and isinstance(value, Mapping):
        few = itertools.islice(value.items(), MOST_FIGURES)
        return {text(name): plain(each, levels - 1) for name, each in few}
    if levels and isinstance(value, (list, tuple)):
        return [plain(each, levels - 1) for each in value[:MOST_FIGURES]]
    return None
