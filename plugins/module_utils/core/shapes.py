"""JSON that another machine or another user wrote, looked at before anything in it is believed.

:func:`loads` is for text: what it returns is small numbers, finite ones, printable strings and no deep nesting. A
:data:`Shape` is for values: it says nothing, or raises :class:`BadAnswer` with the place and what was expected there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .stop import StopError
from .wording import printable

DEEPEST = 32
"""Levels of nesting; what Lockstep itself writes has eight at most."""
LARGEST = 2**63
_SHOWN = 40


class BadAnswer(StopError, ValueError):
    """What somebody else wrote is not what it should be; the cause says where in it, and what was expected there."""

    def __init__(self, problem: str, where: tuple[str, ...] = ()) -> None:
        super().__init__(f"{'.'.join(where)} {problem}" if where else problem)
        self.problem = problem
        self.where = where

    def within(self, name: object) -> BadAnswer:
        """The same, seen from one level above."""
        return BadAnswer(self.problem, (printable(str(name))[:_SHOWN], *self.where))


Shape = Callable[[Any], None]
"""Returns where a value has the shape.

Raises:
    BadAnswer: it has not.
"""


def loads(text: str) -> Any:
    """The value of a JSON text by somebody else; control characters and lone surrogates in its strings are replaced.

    Raises:
        BadAnswer: it is not JSON, nested deeper than ``DEEPEST``, or has a number that is not finite or beyond 64 bits.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_constant)
    except BadAnswer:
        raise
    except RecursionError:
        raise BadAnswer(f"is nested deeper than {DEEPEST} levels") from None
    except (ValueError, MemoryError) as error:
        raise BadAnswer(f"is not JSON: {printable(str(error))[:200]}") from None
    return _clean(value, DEEPEST)


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= LARGEST:
        raise BadAnswer(f"holds a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadAnswer("holds a number that is not finite")
    return value


def _constant(name: str) -> float:
    raise BadAnswer(f"holds {name}, which is no number")


def _clean(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return printable(value)
    if not isinstance(value, (dict, list)):
        return value
    if not levels:
        raise BadAnswer(f"is nested deeper than {DEEPEST} levels")
    if isinstance(value, list):
        return [_clean(each, levels - 1) for each in value]
    return {printable(name): _clean(each, levels - 1) for name, each in value.items()}


def text(value: Any) -> None:
    """A string."""
    if not isinstance(value, str):
        raise _unfit(value, "text")


def flag(value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _unfit(value, "true or false")


def whole(value: Any) -> None:
    """A whole number of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= LARGEST:
        raise _unfit(value, "a whole number of 64 bits")


def number(value: Any) -> None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _unfit(value, "a number")
    if abs(value) >= LARGEST or not math.isfinite(value):
        raise BadAnswer("is a number that is too large or not finite")


def one_of(values: Collection[str]) -> Shape:
    """One of these strings."""
    known = frozenset(values)

    def check(value: Any) -> None:
        text(value)
        if value not in known:
            raise BadAnswer(f"is {printable(value)[:_SHOWN]!r}, expected one of {', '.join(sorted(known))}")

    return check


def maybe(shape: Shape) -> Shape:
    """Null, or a value of this shape."""

    def check(value: Any) -> None:
        if value is not None:
            shape(value)

    return check


def items(shape: Shape) -> Shape:
    """A list of values of one shape."""

    def check(value: Any) -> None:
        if not isinstance(value, (list, tuple)):
            raise _unfit(value, "a list")
        for n, each in enumerate(value):
            _inside(shape, each, n)

    return check


def table(shape: Shape) -> Shape:
    """An object whose values all have one shape, whatever their names."""

    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise _unfit(value, "an object")
        for name, each in value.items():
            text(name)
            _inside(shape, each, name)

    return check


def record(shapes: Mapping[str, Shape], needed: Collection[str] = ()) -> Shape:
    """An object with these keys. Those not ``needed`` may be missing; a key that is not known is passed over."""

    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise _unfit(value, "an object")
        for name in needed:
            if name not in value:
                raise BadAnswer(f"has no {name}")
        for name, shape in shapes.items():
            if name in value:
                _inside(shape, value[name], name)

    return check


def _inside(shape: Shape, value: Any, name: object) -> None:
    try:
        shape(value)
    except BadAnswer as error:
        raise error.within(name) from None


def _unfit(value: Any, expected: str) -> BadAnswer:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    found = "null" if value is None else kinds.get(type(value), "something else")
    return BadAnswer(f"is {found}, expected {expected}")
