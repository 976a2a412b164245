"""The base of every code that programs read: a closed set of strings. The text beside a code is for people."""

from __future__ import annotations

import enum


class Code(str, enum.Enum):
    """A string with a closed set of values; equal to its value, and formatted as it by every Python."""

    __str__ = str.__str__
