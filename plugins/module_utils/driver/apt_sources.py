"""The repositories that a host's apt knows: who describes one, and with which key."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

SOURCES_LIST = Path("etc/apt/sources.list")
SOURCES_PARTS = Path("etc/apt/sources.list.d")
OURS = Path("/etc/apt/sources.list.d/lockstep-nvidia.sources")
"""The description that role nvidia_driver writes."""
UPDATE = ("-o", "APT::Get::List-Cleanup=0", "-o", "APT::Update::Error-Mode=any", "update")
"""Reads lists, leaves those of other repositories as they are, and fails where one cannot be read."""


def alone(description: Path) -> list[str]:
    """Options by which apt knows no other repositories than those that one file describes."""
    return ["-o", f"Dir::Etc::SourceList={description}", "-o", "Dir::Etc::SourceParts=-"]


@dataclasses.dataclass(frozen=True)
class Source:
    """One address and suite that one file describes; ``signed_by`` is empty where it names no key."""

    file: str
    uri: str
    suite: str
    signed_by: str


def described(root: Path = Path("/")) -> list[Source]:
    """Every source that apt reads on this host, disabled ones left out; files that cannot be read are left to apt."""
    parts = root / SOURCES_PARTS
    files = [root / SOURCES_LIST, *(sorted(parts.iterdir()) if parts.is_dir() else ())]
    found: list[Source] = []
    for path in files:
        parse = {".list": parse_list, ".sources": parse_deb822}.get(path.suffix)
        if parse and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found += parse(text, f"/{path.relative_to(root)}")
    return found


def parse_list(text: str, file: str) -> list[Source]:
    """One-line style: ``deb [signed-by=KEY] URI SUITE …``."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)", line)
        if match:
            options, uri, suite = match.groups()
            key = re.search(r"(?:^|\s)signed-by=(\S+)", options or "", re.IGNORECASE)
            found.append(Source(file, uri, suite, key.group(1) if key else ""))
    return found


def parse_deb822(text: str, file: str) -> list[Source]:
    """deb822 style: a paragraph for each, of which one that is not enabled counts for nothing."""
    found = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = _fields(paragraph)
        if fields.get("enabled", "yes").strip().lower() in ("no", "false", "0", "off", "without"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                found.append(Source(file, uri, suite, fields.get("signed-by", "").strip()))
    return found


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace() and name:
            fields[name] += f"\n{line.strip()}"
        elif ":" in line:
            name, _colon, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def contradicting(
    sources: list[Source], uri: str, keyring: str, suite: str = "/", ours: str = str(OURS)
) -> list[Source]:
    """The descriptions of the repository ``uri``, but ours, that name another key than ``keyring`` for the same suite.

    apt refuses to read any source where two descriptions of one repository differ in their key: from then on every
    ``apt-get update`` of the host fails.
    """
    return [
        source
        for source in sources
        if source.file != ours
        and source.suite == suite
        and _plain(source.uri) == _plain(uri)
        and source.signed_by != keyring
    ]


def _plain(uri: str) -> str:
    scheme, mark, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{mark}{host.lower()}{slash}{path}".rstrip("/") if mark else uri.rstrip("/")
