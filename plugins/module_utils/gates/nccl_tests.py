"""Bandwidth within one host as NVIDIA's nccl-tests measures it, run as the user of the ranks."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..core import deadline, untrusted
from . import nccl as nccl_gate
from .ranks import events, launcher
from .ranks.launcher import Report
from .request import Asked

TOOL = "all_reduce_perf"
RESULT = "result.json"
RESULT_LIMIT = 8 << 20


def tool() -> str | None:
    """Where it is installed."""
    return shutil.which(TOOL)


def without_busbw(asked: Asked) -> Asked:
    """The NCCL gate without a bandwidth of its own; any other gate as it is."""
    return dataclasses.replace(asked, params={**asked.params, "busbw_bytes": 0}) if asked.gate == "nccl" else asked


def measured(
    program: str, report: Report, seconds: float, environment: Mapping[str, str], evidence: Path, user: str | None
) -> Report:
    """The ranks' report with the figures of nccl-tests, which checks its own results as well.

    Args:
        program: what ``tool`` found.
        report: of this host's ranks over the NCCL gate's part; they have ended.
        seconds: its deadline.
        environment: variables on top of the caller's.
        evidence: folder for evidence.
        user: who runs it; None keeps the caller.
    """
    if seconds <= 0:
        return dataclasses.replace(report, status="timeout")
    scratch = launcher.scratch_folder(user)
    home = {"HOME": str(scratch.path), "TMPDIR": str(scratch.path)}
    asked = f"-b 8 -e 512M -f 8 -g {report.here} -c 1 -T {int(seconds) + 1} -J {RESULT}"
    try:
        outcome = deadline.run(
            [program, *asked.split()],
            deadline=seconds,
            env={**os.environ, **home, **environment},
            cwd=scratch.path,
            evidence=evidence,
            user=user,
        )
        spent = round(report.seconds + outcome.seconds, 3)
        found = _written(scratch, report.host, spent) if outcome.status == "done" else None
    finally:
        scratch.remove()
    if found is None:
        return dataclasses.replace(
            report,
            status="timeout" if outcome.status == "timeout" else "failed",
            seconds=spent,
            evidence=outcome.evidence,
            tail=f"{program}: {outcome.stderr or outcome.stdout}"[-launcher.TAIL :],
        )
    figures = (*found.of(events.Check), *found.of(events.Busbw))
    return dataclasses.replace(report, seconds=spent, events=(*report.events, *figures))


def _written(scratch: launcher.Scratch, host: str, seconds: float) -> Report | None:
    """What it wrote; None where that cannot be used."""
    try:
        written = untrusted.read_below(scratch.handle, (RESULT,), RESULT_LIMIT)
        return nccl_gate.from_nccl_tests(untrusted.parse_json(written, finite=False), host, seconds)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
