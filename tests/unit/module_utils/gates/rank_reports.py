"""Reports of imaginary gangs, as the ranks would have told them."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.launcher import Report

AT = 1000.0


def step(host, rank, number, phase, what="", waiting=False, at=AT):
    return {
        "at": at,
        "event": "step",
        "host": host,
        "rank": rank,
        "step": number,
        "phase": phase,
        "what": what,
        "waiting": waiting,
    }


def started(host, rank, backend="gloo", device="cpu", nccl=None, **links):
    return {
        "event": "start",
        "host": host,
        "rank": rank,
        "pid": 1,
        "backend": backend,
        "device": device,
        "nccl": nccl,
        "local_link": "cpu",
        "network_link": "cpu",
        **links,
    }


def ended(host, rank, status, at=AT):
    return {"event": "end", "host": host, "rank": rank, "status": status, "at": at}


def error(host, rank, number, phase, message, kind="RuntimeError", at=AT, what=""):
    return {
        "event": "error",
        "host": host,
        "rank": rank,
        "step": number,
        "phase": phase,
        "what": what,
        "kind": kind,
        "message": message,
        "at": at,
    }


def check(host, rank, wrong=0, operation="all_reduce", **extra):
    return {
        "event": "measured",
        "name": "check",
        "host": host,
        "rank": rank,
        "operation": operation,
        "dtype": "bfloat16",
        "bytes": 64,
        "wrong": wrong,
        **extra,
    }


def busbw(host, rank, seconds, operation="all_reduce", size=1_000_000_000, issue=0.0):
    return {
        "event": "measured",
        "name": "busbw",
        "host": host,
        "rank": rank,
        "operation": operation,
        "bytes": size,
        "seconds": seconds,
        "issue_seconds": issue,
    }


def report(host, first, *events, status="done", here=1, **extra):
    return Report(host, first, here, status, 3.0, tuple(events), **{"limit_at": AT + 60, **extra})
