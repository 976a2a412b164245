"""Reports of imaginary rank groups, as the ranks would have made them."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.launcher import Report

AT = 1000.0


def step(host, rank, number, phase, what="", waiting=False, at=AT, part=""):
    return events.Step(rank, host, number, phase, what, waiting, at, part)


def started(host, rank, backend="gloo", device="cpu", nccl=None):
    return events.Started(rank, host, backend, device, nccl, local_link="cpu", network_link="cpu")


def ended(host, rank, status, at=AT):
    return events.Ended(rank, host, status, at)


def error(host, rank, number, phase, message, code="own", at=AT, what=""):
    return events.Error(rank, host, number, phase, what, code, "RuntimeError", message, at)


def check(host, rank, wrong=0, operation="all_reduce", **extra):
    return events.Check(rank, host, operation, "bfloat16", 64, wrong, **extra)


def busbw(host, rank, seconds, operation="all_reduce", size=1_000_000_000, issue=0.0):
    return events.Busbw(rank, host, operation, size, seconds, issue)


def report(host, first, *happened, status="done", here=1, **extra):
    return Report(host, first, here, status, 3.0, tuple(happened), **{"limit_at": AT + 60, **extra})


def pair(first=(), second=(), status="done"):
    """Two hosts of one rank each."""
    return [
        report("a1", 0, started("a1", 0), *first, status=status),
        report("a2", 1, started("a2", 1), *second, status=status),
    ]
