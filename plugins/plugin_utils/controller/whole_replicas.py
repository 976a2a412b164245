"""Replicas of which ``--limit`` names a part. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import names

LOOKED_AT = ("diagnose", "verify")
"""Playbooks, by name, that look at the whole replica where ``--limit`` names a part of it; those that change things refuse."""


def touched(replicas: Mapping[str, Sequence[str]], asked: Collection[str]) -> list[str]:
    """The replicas that have a host among ``asked``."""
    return [name for name, hosts in replicas.items() if not set(hosts).isdisjoint(asked)]


def missing(replicas: Mapping[str, Sequence[str]], asked: Collection[str]) -> list[str]:
    """The hosts that are not among ``asked`` while others of their replica are."""
    return [host for name in touched(replicas, asked) for host in replicas[name] if host not in asked]


def widened(replicas: Mapping[str, Sequence[str]], asked: Iterable[str]) -> tuple[list[str], str]:
    """The hosts to look at in the place of ``asked``, and the line that says so; empty where these are whole replicas.

    Args:
        replicas: hosts of every replica.
        asked: what ``--limit`` leaves, in inventory order.
    """
    known = list(asked)
    more = missing(replicas, known)
    return ([*known, *more], said(replicas, known)) if more else ([], "")


def said(replicas: Mapping[str, Sequence[str]], asked: Collection[str]) -> str:
    """That whole replicas are looked at, of which ``--limit`` names a part."""
    more = missing(replicas, asked)
    whole = [name for name in touched(replicas, asked) if not set(replicas[name]).isdisjoint(more)]
    return (
        f"{names(whole)} is looked at as a whole: --limit leaves out {names(more)}"
        if len(whole) == 1
        else (f"{names(whole)} are looked at as a whole: --limit leaves out {names(more)}")
    )
