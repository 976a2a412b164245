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


ReleaseKey = tuple[tuple[int, ...], tuple[int, int], tuple[int, ...], int]
_PRE = {"a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "pre": 3, "preview": 3}
_RELEASED = 9


def release_key(version: str) -> ReleaseKey:
    """A key that orders releases as PEP 440, Debian and the kernel mean it.

    Pre-releases (``2.13.0rc1``, ``2.15.0a0``, ``0.26.1rc1.dev148``, ``6.19~rc4``, ``6.19-rc4``) come before the release,
    post-releases and revisions (``0.6.8.post1``, ``6.8.0-45``) after it, ``~`` before what it is put behind. A local part
    (``+cu130``) and trailing zeros are of no account.
    """
    public = version.split("+", maxsplit=1)[0].strip().lower().removeprefix("v").split(":", 1)[-1]
    found = re.match(r"\d+(?:\.\d+)*", public)
    if found is None:
        return (), (0, 0), (), 0
    rest = public[found.end() :]
    numbers = [int(part) for part in found.group(0).split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    dev = re.search(r"(?:^|[.~_-])dev(\d*)", rest)
    pre = re.match(r"[.~_-]?(alpha|beta|preview|pre|rc|a|b|c)(?=[\d._~-]|$)[._-]?(\d*)", rest)
    post = re.search(r"(?:\.post|^-)(\d+(?:\.\d+)*)", rest)
    revision = tuple(int(part) for part in post.group(1).split(".")) if post and not pre else ()
    if pre:
        stage = (_PRE[pre.group(1)], int(pre.group(2) or 0))
    elif dev and not post:
        stage = (0, 0)
    else:
        stage = (_RELEASED, 0)
    return tuple(numbers), stage, revision, _before(rest, dev)


def _before(rest: str, dev: re.Match[str] | None) -> int:
    """Orders development builds among themselves, before the rest; so does any other ``~``."""
    if dev:
        return int(dev.group(1) or 0) - (1 << 62)
    return -1 if "~" in rest and not re.match(r"~(?:alpha|beta|pre|rc|a|b|c)", rest) else 0
