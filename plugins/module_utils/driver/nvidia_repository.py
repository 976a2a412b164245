"""Which repository and which key a driver of source nvidia or mirror comes from. Pure.

What the operator sets counts; what is left out comes from the row of ``data/nvidia_repositories.yml`` for the host's
distribution. A mirror holds NVIDIA's own key beside the packages, as NVIDIA's repository does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

FIELDS = ("repository_url", "keyring_url", "keyring_sha256", "keyring_fingerprint")


class _Needed(TypedDict):
    distribution: str
    version: str
    url: str
    key: str


class TableRow(_Needed, total=False):
    """One row of data/nvidia_repositories.yml; without ``fingerprint`` where too few sources state it."""

    fingerprint: str


def row(table: Sequence[TableRow], distribution: str, version: str) -> TableRow | None:
    """The row for os-release's ``ID`` and ``VERSION_ID`` in any spelling of Ansible's facts; None where there is none."""
    wanted = distribution.lower()
    release = version.partition(".")[0] if wanted == "debian" else version
    return next((each for each in table if (each["distribution"], each["version"]) == (wanted, release)), None)


def resolve(
    declared: Mapping[str, Any], table: Sequence[TableRow], distribution: str | None, version: str | None
) -> dict[str, str | None]:
    """The four ``FIELDS`` of a host, from what is ``declared`` (the same names and ``source``) and its distribution.

    A key that the operator names by its address alone is not the row's: its checksum or fingerprint is the operator's too.
    """
    given: dict[str, str | None] = {name: declared.get(name) or None for name in FIELDS}
    known = row(table, distribution or "", version or "")
    source = declared.get("source")
    if source not in ("nvidia", "mirror") or known is None:
        return given
    if given["repository_url"] is None and source == "nvidia":
        given["repository_url"] = known["url"]
    if given["keyring_url"] is None and given["repository_url"]:
        given["keyring_url"] = f"{given['repository_url'].rstrip('/')}/{known['key']}"
        if not (given["keyring_sha256"] or given["keyring_fingerprint"]):
            given["keyring_fingerprint"] = known.get("fingerprint")
    return given
