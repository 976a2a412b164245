"""Where a model comes from, as ``model_source`` says it."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

from ..core.errors import StopError
from .codes import Kind

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
EXPECTED = "write hub:owner/name, https://host/folder, a path that the hosts can read, or controller:/path of one here"


class BadSource(StopError, ValueError):
    """It names no source."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A source.

    Attributes:
        kind: which.
        place: the repository, the URL without a slash at its end, or the path.
        revision: of a repository: a branch, tag or commit.
    """

    kind: Kind
    place: str
    revision: str = ""

    @property
    def name(self) -> str:
        """As manifests and messages have it."""
        prefix = "" if self.kind in (Kind.HTTP, Kind.PATH) else f"{self.kind.value}:"
        return f"{prefix}{self.place}{f'@{self.revision}' if self.revision else ''}"


def parse(text: str, revision: str = "main") -> Source:
    """The source that ``model_source`` names.

    Args:
        revision: of a repository, where the text itself names none (``hub:owner/name@v1``).

    Raises:
        BadSource: it names none.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "hub":
        repository, _, named = rest.partition("@")
        if _REPOSITORY.fullmatch(repository) and ".." not in repository:
            return Source(Kind.HUB, repository, named or revision)
    elif scheme in ("http", "https"):
        parts = urllib.parse.urlsplit(text)
        if parts.username or parts.password:
            raise BadSource("model_source holds a password, which every log would show; let the server ask for none")
        if parts.hostname and not parts.query and not parts.fragment:
            return Source(Kind.HTTP, text.rstrip("/"))
    elif scheme == "controller" and rest.startswith("/"):
        return Source(Kind.CONTROLLER, rest.rstrip("/") or "/")
    elif text.startswith("/"):
        return Source(Kind.PATH, text.rstrip("/") or "/")
    raise BadSource(f"model_source is {text!r}: {EXPECTED}")
