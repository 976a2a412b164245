"""Bring a run's evidence beside its report (documented in plugins/modules/fetch_evidence.py)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, TypedDict

from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import printable
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle
from ansible_collections.lockstep.vllm.plugins.modules import fetch_evidence as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer, program
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import journal

ANSWER_LIMIT = 2 * evidence_bundle.HOST_LIMIT
MOST_FILES = 500
_LONGEST_NAME = 120


class ActionModule(ClusterAction):
    """One answer from each host, all at once. Whatever one answers, or however little, is never a failure of the task."""

    DOCUMENTATION = documented.DOCUMENTATION

    def act(self, arguments: Values, task_vars: Values) -> Values:
        if self._task.check_mode:
            return {"changed": False, "skipped": True}
        text = program("gates.evidence_bundle", "collect", {"run": arguments["run"], "since": arguments["since"]})
        answers = self.run_on(arguments["hosts"], text, task_vars, ANSWER_LIMIT)
        folder = _folder(arguments["run"])
        found = {host: keep(folder / journal.EVIDENCE / host, host, answer) for host, answer in answers.items()}
        return {
            "changed": False,
            "files": [str(path) for kept in found.values() for path in kept.files],
            "folder": os.path.relpath(folder),
            "silent": {host: kept.silent for host, kept in found.items() if kept.silent is not None},
            "warnings": [warning for kept in found.values() for warning in kept.warnings],
        }


class _Collected(TypedDict):
    """Of ``evidence_bundle.collect``; its files are looked at one by one, so that a bad one costs no other."""

    files: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kept:
    """What was kept of one host's evidence; ``silent`` is why there was no answer that could be used."""

    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    silent: str | None = None


def keep(folder: Path, host: str, answer: Answer) -> Kept:
    """Write a host's evidence below ``folder``: a file that cannot be kept is named, and costs neither others nor the run."""
    answer = answer.checked(_Collected, typed.NEWER)
    if answer.code is not None or answer.error is not None:
        return Kept(silent=answer.error)
    named = answer.value["files"]
    files: list[Path] = []
    problems: list[str] = []
    room = evidence_bundle.HOST_LIMIT
    for path, packed in list(named.items())[:MOST_FILES]:
        try:
            content = evidence_bundle.unpack(packed)
            if len(content) > room:
                raise typed.BadAnswer(f"is beyond the {evidence_bundle.HOST_LIMIT >> 20} MiB that are kept of a host")
            files.append(_write(folder, path, content))
            room -= len(content)
        except (OSError, ValueError, typed.BadAnswer) as error:
            problems.append(f"{printable(path)[:_LONGEST_NAME]} {error}")
    if len(named) > MOST_FILES:
        problems.append(f"{len(named) - MOST_FILES} more files than the {MOST_FILES} that are kept of a host")
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    warnings = (f"{host}: evidence was left there: {'; '.join(problems[:3])}{more}",) if problems else ()
    return Kept(tuple(files), warnings)


def _folder(run: str) -> Path:
    """Where the callback keeps this run; it says so in the environment."""
    return Path(os.environ.get(journal.ROOT_VARIABLE, journal.ROOT)) / run


def _write(folder: Path, path: str, content: bytes) -> Path:
    """Write one file below ``folder``, whatever path its host named it by, as text that no browser runs."""
    kept = folder / journal.evidence_name(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    return kept
