"""The fields of a result, whatever it holds: what is not of its type is left out, texts are bounded and printable."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import printable

MOST_ITEMS = 10_000
MOST_FIGURES = 200
_TEXT_LENGTH = 2000
_DEEPEST = 4
_LARGEST = 1e12
T = TypeVar("T")
Given = Mapping[str, Any]
"""What a host or a journal says, of which nothing is known yet."""


def read(kind: type[T], given: Given, **instead: Any) -> T:
    """A dataclass of texts, numbers, flags, and tuples and mappings of such, from what ``given`` has by its fields' names.

    What is missing, empty or not of the field's type is the field's default, or empty. ``instead`` has the fields that are
    read in another way.
    """
    it: Any = kind  # hashable, whatever mypy says of type[T]
    found = {name: reader(given.get(name)) for name, reader in _readers(it).items() if name not in instead}
    return kind(**{name: value for name, value in found.items() if value or name in _needed(it)}, **instead)


@functools.cache
def _readers(kind: Any) -> dict[str, Callable[[Any], Any]]:
    return {name: _reader(hint) for name, hint in typing.get_type_hints(kind).items()}


@functools.cache
def _needed(kind: Any) -> frozenset[str]:
    empty = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return frozenset(each.name for each in fields if each.default is empty and each.default_factory is empty)


def _reader(kind: Any) -> Callable[[Any], Any]:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return _reader(inside[0])
    if origin is tuple and inside[0] is not str:
        return lambda value: tuple(read(inside[0], each) for each in mappings(value)[:MOST_ITEMS])
    if origin is Mapping and inside[1] is Any:
        return lambda value: mapping(plain(value))
    if origin is Mapping:
        each = _reader(inside[1])
        return lambda value: {text(name): each(one) for name, one in mapping(value).items()}
    scalars: dict[Any, Callable[[Any], Any]] = {
        str: text,
        float: number,
        int: lambda value: int(number(value)),
        bool: lambda value: value is True,
    }
    return texts if origin is tuple else scalars[kind]


def mapping(value: Any) -> Given:
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Given]:
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
