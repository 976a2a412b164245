"""Stamps: the records that a host's or a replica's gates passed, and for which versions.

``/var/lib/lockstep/stamp/host.json`` lets Ray start on the host, ``…/replica.json`` (on the head) lets vLLM start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, cast

from ..core.records import RecordError

Kind = Literal["host", "replica"]
_GATE_FIELDS = ("gate", "verdict", "seconds", "backend")


class StampedGate(TypedDict):
    """A gate that passed for a stamp."""

    gate: str
    verdict: str
    seconds: float
    backend: str | None


class Stamp(TypedDict):
    """What both stamps hold."""

    kind: Kind
    gates: list[StampedGate]
    run: str | None
    at: str


class HostStamp(Stamp):
    """A host's stamp: the fingerprint that it was given for, and its digest."""

    fingerprint: dict[str, str | None]
    digest: str


class ReplicaStamp(Stamp):
    """A replica's stamp: the digest of each of its hosts' fingerprints."""

    hosts: dict[str, str]


def host_stamp(
    gates: Sequence[Mapping[str, Any]], run: str | None, at: str, fingerprint: dict[str, str | None], digest: str
) -> HostStamp:
    """A stamp for a host of this fingerprint."""
    return {"kind": "host", "gates": _gates(gates), "run": run, "at": at, "fingerprint": fingerprint, "digest": digest}


def replica_stamp(gates: Sequence[Mapping[str, Any]], run: str | None, at: str, hosts: dict[str, str]) -> ReplicaStamp:
    """A stamp for a replica of these hosts, by the digests of their fingerprints."""
    return {"kind": "replica", "gates": _gates(gates), "run": run, "at": at, "hosts": hosts}


def parse_host_stamp(stored: Mapping[str, Any] | None) -> HostStamp | None:
    """A host's stamp from JSON. Raises RecordError where it has no fingerprint."""
    _check(stored, "host", "fingerprint")
    return cast("HostStamp | None", stored)


def parse_replica_stamp(stored: Mapping[str, Any] | None) -> ReplicaStamp | None:
    """A replica's stamp from JSON. Raises RecordError where it names no hosts."""
    _check(stored, "replica", "hosts")
    return cast("ReplicaStamp | None", stored)


def _check(stored: Mapping[str, Any] | None, kind: Kind, field: str) -> None:
    if stored is not None and not (isinstance(stored.get(field), dict) and isinstance(stored.get("at"), str)):
        raise RecordError(f"{kind} stamp: {field!r} or 'at' is missing")


def _gates(results: Sequence[Mapping[str, Any]]) -> list[StampedGate]:
    return [cast(StampedGate, {field: result.get(field) for field in _GATE_FIELDS}) for result in results]
