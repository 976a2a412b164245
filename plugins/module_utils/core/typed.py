"""The one reader of JSON that crossed an edge: text becomes values, values become dataclasses and TypedDicts, or are refused.

:func:`loads` is for text that another machine or another user wrote; what this host keeps is read by :mod:`records`.
:func:`parse` reads values. The types come from the class's own annotations, so that what is checked and what is promised
cannot differ. A refusal names the place and what was expected there.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from . import untrusted
from .errors import StopError
from .wording import printable

T = TypeVar("T")
_SHOWN = 40
_LISTED = 300


class Strictness(NamedTuple):
    """What a reader passes over.

    Attributes:
        unknown: keys that a class does not know; they are left out of what it returns.
        missing: keys of a TypedDict; a dataclass always needs those without a default.
        not_finite: numbers that are none.
    """

    unknown: bool = False
    missing: bool = False
    not_finite: bool = False


OURS = Strictness(not_finite=True)
"""Of a process that runs this very code, and may have measured nothing."""
NEWER = Strictness(unknown=True)
"""Of a writer that may be newer."""
PARTIAL = Strictness(unknown=True, missing=True)
"""Of a writer that may be older too, or damaged: who reads it asks for each key."""


class BadAnswer(StopError, ValueError):
    """What somebody else wrote is not what it should be; the cause says where in it, and what was expected there."""

    def __init__(self, problem: str, where: tuple[str, ...] = ()) -> None:
        super().__init__(f"{'.'.join(where)} {problem}" if where else problem)
        self.problem = problem
        self.where = where

    def within(self, name: object) -> BadAnswer:
        """The same, seen from one level above."""
        return BadAnswer(self.problem, (printable(str(name))[:_SHOWN], *self.where))


def loads(text: str) -> Any:
    """The value of a JSON text by somebody else; control characters and lone surrogates in its strings are replaced.

    Raises:
        BadAnswer: it is not JSON, nested too deep, or has a number that is not finite or beyond 64 bits.
    """
    try:
        return _clean(untrusted.parse_json(text, encodable=False))
    except ValueError as error:
        raise BadAnswer(printable(str(error))[:200]) from None


def parse(kind: type[T], value: Any, strictness: Strictness = OURS) -> T:
    """``value``, from JSON, as a ``kind``.

    Args:
        kind: a dataclass or TypedDict of strings, numbers, codes, other such classes, lists, tuples and mappings of them.
        value: what JSON gave.
        strictness: what is passed over.

    Raises:
        BadAnswer: it is none.
    """
    what: Any = kind
    result: T = _reader(what, strictness)(value)
    return result


def part(value: Mapping[str, object], name: str) -> Mapping[str, Any]:
    """An object inside another; empty where it is missing, or is none."""
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


Reader = Callable[[Any], Any]


@functools.cache
def _reader(kind: Any, strictness: Strictness) -> Reader:
    """What reads values of one kind; made once for each, since a large cluster's answers have millions of values."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if origin in (typing.Union, types.UnionType):
        return _union(inside, strictness)
    if origin is typing.Literal:
        return _one_of(inside)
    if origin is tuple:
        return _tuple(inside, strictness)
    if origin in (list, Sequence):
        return _list(_reader(inside[0], strictness))
    if origin in (dict, Mapping):
        return _table(_reader(inside[0], strictness), _reader(inside[1], strictness))
    if kind is None or kind is type(None):
        return _null
    if typing.is_typeddict(kind):
        return _record(_hints(kind), () if strictness.missing else kind.__required_keys__, strictness, dict)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, strictness)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _code(kind)
    if kind is float:
        return functools.partial(_number, strictness.not_finite)
    return {str: _text, bool: _flag, int: _whole}[kind]


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _null(value: Any) -> None:
    if value is not None:
        raise _unfit(value, "null")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _unfit(value, "text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _unfit(value, "true or false")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= untrusted.LARGEST:
        raise _unfit(value, "a whole number of 64 bits")
    return value


def _number(not_finite: bool, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _unfit(value, "a number")
    if not (not_finite or math.isfinite(value)) if isinstance(value, float) else abs(value) >= untrusted.LARGEST:
        raise BadAnswer("is a number that is too large or not finite")
    return float(value)


def _one_of(known: Collection[Any]) -> Reader:
    def read(value: Any) -> Any:
        if value not in known or isinstance(value, bool) != isinstance(next(iter(known)), bool):
            raise _unknown(value, known)
        return value

    return read


def _code(kind: type[enum.Enum]) -> Reader:
    known = {each.value: each for each in kind}

    def read(value: Any) -> enum.Enum:
        try:
            return known[value]
        except (KeyError, TypeError):
            raise _unknown(value, known) from None

    return read


def _union(kinds: Sequence[Any], strictness: Strictness) -> Reader:
    nullable = type(None) in kinds
    some = [kind for kind in kinds if kind is not type(None)]
    readers = [_reader(kind, strictness) for kind in sorted(some, key=lambda kind: kind is float)]  # 3 stays whole

    def read(value: Any) -> Any:
        if nullable and value is None:
            return None
        problems = []
        for reader in readers:
            try:
                return reader(value)
            except BadAnswer as error:
                problems.append(error)
        raise problems[0]

    return read


def _list(reader: Reader) -> Reader:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _unfit(value, "a list")
        return [_inside(reader, each, place) for place, each in enumerate(value)]

    return read


def _tuple(inside: Sequence[Any], strictness: Strictness) -> Reader:
    if len(inside) == 2 and inside[1] is Ellipsis:
        several = _list(_reader(inside[0], strictness))
        return lambda value: tuple(several(value))
    readers = [_reader(kind, strictness) for kind in inside]

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _unfit(value, "a list")
        if len(value) != len(readers):
            raise BadAnswer(f"has {len(value)} items, expected {len(readers)}")
        return tuple(
            _inside(reader, each, place) for place, (reader, each) in enumerate(zip(readers, value, strict=True))
        )

    return read


def _table(names: Reader, values: Reader) -> Reader:
    def read(value: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise _unfit(value, "an object")
        return {_inside(names, name, name): _inside(values, each, name) for name, each in value.items()}

    return read


def _dataclass(kind: Any, strictness: Strictness) -> Reader:
    fields, empty = dataclasses.fields(kind), dataclasses.MISSING
    needed = [field.name for field in fields if field.default is empty and field.default_factory is empty]
    hints = _hints(kind)
    return _record({field.name: hints[field.name] for field in fields}, needed, strictness, lambda read: kind(**read))


def _record(
    kinds: Mapping[str, Any], needed: Collection[str], strictness: Strictness, make: Callable[[dict[str, Any]], Any]
) -> Reader:
    readers = {name: _reader(kind, strictness) for name, kind in kinds.items()}

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _unfit(value, "an object")
        lacking = [name for name in needed if name not in value]
        if lacking:
            raise BadAnswer(f"has no {', '.join(sorted(lacking))}")
        unknown = () if strictness.unknown else [printable(str(name)) for name in value if name not in readers]
        if unknown:
            raise BadAnswer(f"has an unknown {', '.join(sorted(unknown))[:_LISTED]}")
        return make({name: _inside(readers[name], value[name], name) for name in readers if name in value})

    return read


def _inside(reader: Reader, value: Any, name: object) -> Any:
    try:
        return reader(value)
    except BadAnswer as error:
        raise error.within(name) from None


def _unfit(value: Any, expected: str) -> BadAnswer:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    found = "null" if value is None else kinds.get(type(value), "something else")
    return BadAnswer(f"is {found}, expected {expected}")


def _unknown(value: Any, known: Collection[Any]) -> BadAnswer:
    if not isinstance(value, (str, int)):
        return _unfit(value, "text")
    return BadAnswer(
        f"is {printable(str(value))[:_SHOWN]!r}, expected one of {', '.join(sorted(map(str, known)))[:_LISTED]}"
    )


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {printable(name): _clean(each) for name, each in value.items()}
    return value
