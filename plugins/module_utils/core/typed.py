"""JSON that crossed an edge, made into dataclasses and TypedDicts, or refused with the place where it is none.

The types are read from the class's own annotations, so that what is checked and what is promised cannot differ.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


_NAMES = {"dict": "object", "str": "text", "int": "whole number", "NoneType": "nothing"}


class ShapeError(ValueError):
    """A value is not of the type that it should be; the text says where."""


def parse(kind: type[T], value: Any, *, known_only: bool = False) -> T:
    """``value``, from JSON, as a ``kind``.

    Args:
        kind: a dataclass or TypedDict of strings, numbers, codes, other such classes, lists, tuples and mappings of them.
        value: what JSON gave.
        known_only: pass over keys of ``kind`` itself that it does not know; else they are refused.

    Raises:
        ShapeError: it is none.
    """
    what: Any = kind
    if known_only and isinstance(value, Mapping):
        names = _hints(what)
        value = {name: each for name, each in value.items() if name in names}
    result: T = _as(what, value, "it")
    return result


def _as(kind: Any, value: Any, where: str) -> Any:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(inside, value, where)
    if origin is typing.Literal:
        if value not in inside or isinstance(value, bool) != isinstance(inside[0], bool):
            raise ShapeError(f"{where} is {value!r:.60}, expected one of {', '.join(map(str, inside))}")
        return value
    if origin is tuple:
        return _tuple(inside, value, where)
    if origin in (list, Sequence):
        return [_as(inside[0], each, f"{where}[{place}]") for place, each in enumerate(_expect(list, value, where))]
    if origin in (dict, Mapping):
        return {
            _as(inside[0], name, f"a name in {where}"): _as(inside[1], each, f"{where}.{name:.60}")
            for name, each in _expect(dict, value, where).items()
        }
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong("number", value, where)
        try:
            return float(value)
        except OverflowError:
            raise ShapeError(f"{where} is too large a number") from None
    if kind is None or kind is type(None):
        return _expect(type(None), value, where)
    if typing.is_typeddict(kind):
        return _typed_dict(kind, _expect(dict, value, where), where)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, _expect(dict, value, where), where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise ShapeError(f"{where} is {value!r:.60}, which is no {kind.__name__}") from None
    return _expect(kind, value, where)


def _one_of(kinds: Sequence[Any], value: Any, where: str) -> Any:
    problems = []
    for kind in sorted(kinds, key=lambda kind: kind is float):  # a whole number that may be one stays one
        try:
            return _as(kind, value, where)
        except ShapeError as error:
            problems.append(error)
    raise problems[0]


def _tuple(inside: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    items = _expect(list, list(value) if isinstance(value, tuple) else value, where)
    if len(inside) == 2 and inside[1] is Ellipsis:
        return tuple(_as(inside[0], each, f"{where}[{place}]") for place, each in enumerate(items))
    if len(items) != len(inside):
        raise ShapeError(f"{where} has {len(items)} items, expected {len(inside)}")
    return tuple(
        _as(kind, each, f"{where}[{place}]") for place, (kind, each) in enumerate(zip(inside, items, strict=True))
    )


def _typed_dict(kind: Any, value: Mapping[str, Any], where: str) -> dict[str, Any]:
    return _fields(_hints(kind), kind.__required_keys__, value, where)


def _dataclass(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    empty = dataclasses.MISSING
    needed = {
        field.name for field in dataclasses.fields(kind) if field.default is empty and field.default_factory is empty
    }
    hints = _hints(kind)
    return kind(**_fields({field.name: hints[field.name] for field in dataclasses.fields(kind)}, needed, value, where))


def _fields(
    kinds: Mapping[str, Any], needed: typing.AbstractSet[str], value: Mapping[str, Any], where: str
) -> dict[str, Any]:
    for what, names in (("lacks", needed - value.keys()), ("has an unknown", value.keys() - kinds.keys())):
        if names:
            raise ShapeError(f"{where} {what} {', '.join(sorted(map(str, names)))[:200]}")
    return {name: _as(kinds[name], each, f"{where}.{name}") for name, each in value.items()}


def _expect(kind: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(_NAMES.get(kind.__name__, kind.__name__), value, where)
    return value


def _wrong(expected: str, value: Any, where: str) -> ShapeError:
    return ShapeError(f"{where} is {type(value).__name__}, expected {expected}")
