"""Versions of drivers and of the packages that hold them: reading and ordering them."""

from __future__ import annotations

import re

# Patterns are compiled when they are first used, and kept by re: many hosts need but a few of them.
DRIVER_VERSION = r"\d{3}\.\d{2,3}(?:\.\d{2})?"


def upstream(version: str) -> str:
    """The driver version inside a Debian package version: ``1:550.127.05-0ubuntu1`` → ``550.127.05``."""
    return version.split(":", 1)[-1].rsplit("-", 1)[0]


def is_driver_version(text: str) -> bool:
    """Whether ``text`` is a full driver version such as ``550.127.05`` or ``580.95`` (not a branch, not a revision)."""
    return bool(re.fullmatch(DRIVER_VERSION, text))


def find_driver_version(text: str) -> str | None:
    """The first driver version in a text; None when there is none."""
    match = re.search(DRIVER_VERSION, text)
    return match.group(0) if match else None


def debian_key(version: str) -> tuple[object, ...]:
    """A key that orders package versions as dpkg does: ``550.163.01-4~bpo13+1`` before ``550.163.01-4``.

    Epoch, version and revision are compared in turn; letters come before other signs, and ``~`` before the end.
    """
    epoch, _, rest = version.rpartition(":")
    number, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return (int(epoch or 0), _debian_parts(number), _debian_parts(revision))


def _debian_parts(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    parts = [
        (_debian_signs(signs), int(digits or 0)) for signs, digits in re.findall(r"(\D*)(\d*)", text) if signs or digits
    ]
    return (*parts, ((0,), 0))


def _debian_signs(signs: str) -> tuple[int, ...]:
    return (*(-1 if sign == "~" else ord(sign) if sign.isalpha() else ord(sign) + 256 for sign in signs), 0)


def version_key(version: str) -> tuple[int, ...]:
    """A key that orders versions by all their numbers: ``550.90.07`` before ``550.127.05`` before ``580.65.06``."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def release_key(version: str) -> tuple[int, ...]:
    """A key that makes equal releases equal: no local part, no trailing zeros. ``2.13.0+cu130`` → (2, 13)."""
    numbers = list(version_key(version.split("+")[0]))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
