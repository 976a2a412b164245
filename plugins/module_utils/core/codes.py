"""The base of every code that programs read, a closed set of strings, and the JSON form of what holds codes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class Code(str, enum.Enum):
    """A string with a closed set of values; equal to its value, and formatted as it by every Python."""

    __str__ = str.__str__


def as_json(value: Any) -> Any:
    """The value in JSON's own types: a dataclass or mapping is a dict, a tuple a list, a code its value."""
    if dataclasses.is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {as_json(name): as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    return value.value if isinstance(value, enum.Enum) else value
