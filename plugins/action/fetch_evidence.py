"""Bring a run's evidence beside its report (documented in plugins/modules/fetch_evidence.py)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import program
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import journal


class ActionModule(ClusterAction):
    """One answer from each host, all at once. A host that does not answer is listed, never a failure."""

    _VALID_ARGS = frozenset({"run", "hosts", "since"})

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(
            argument_spec={
                "run": {"type": "str", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
                "since": {"type": "float", "default": 0.0},
            }
        )
        if self._task.check_mode:
            return {"changed": False, "skipped": True}
        variables = task_vars or {}
        text = program("gates.evidence_bundle", "collect", {"run": arguments["run"], "since": arguments["since"]})
        answers = self.run_on(arguments["hosts"], text, variables)
        folder = _folder(arguments["run"])
        kept, warnings = [], []
        try:
            for host, answer in answers.items():
                for path, packed in (answer.value or {"files": {}})["files"].items():
                    kept.append(str(_keep(folder / journal.EVIDENCE / host, path, packed)))
        except OSError as error:  # a full disk here must not keep a wave from being rolled back
            warnings = [f"evidence was left on the hosts: {error}"]
        return {
            "changed": False,
            "files": kept,
            "folder": os.path.relpath(folder),
            "silent": {host: answer.error for host, answer in answers.items() if answer.value is None},
            "warnings": warnings,
        }


def _folder(run: str) -> Path:
    """Where the callback keeps this run; it says so in the environment."""
    return Path(os.environ.get(journal.ROOT_VARIABLE, journal.ROOT)) / run


def _keep(folder: Path, path: str, packed: str) -> Path:
    """Write one file below ``folder``, whatever path its host named it by."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    kept = folder.joinpath(*parts)
    kept.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(evidence_bundle.unpack(packed))
    return kept
