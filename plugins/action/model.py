"""Stage, verify and prune models in short calls of the module, showing between them how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.errors import StopError
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.model import source, store
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Kind, Result
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, stops, upload
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.waiting_action import WaitingAction

STAGE = "ansible-playbook playbooks/stage_model.yml"
PRUNE = "ansible-playbook playbooks/prune_models.yml --check"
SENDINGS = 3
"""How often files are sent: once, and again what arrived damaged."""


class ActionModule(WaitingAction):
    """The module, called again until its unit has ended, or the deadline."""

    MODULE = "lockstep.vllm.model"
    SECONDS = 30.0

    def run(self, tmp: Any = None, task_vars: Values | None = None) -> Values:
        self._host = (task_vars or {})["inventory_hostname"]
        arguments = self._task.args
        sizes: dict[str, int] = {}
        try:
            sent_from = _folder_here(arguments)
            if sent_from is not None:
                files = upload.files_of(sent_from, arguments.get("checksums") or "", arguments.get("exclude") or [])
                self._task.args = {**arguments, "files": files}
                sizes = {path: int(about["size"]) for path, about in files.items()}
            result = super().run(tmp, task_vars)
            for _try in range(SENDINGS):
                if result.get("code") != Result.UPLOAD or sent_from is None:
                    break
                staging = f"{arguments['folder']}/{store.STAGING}/{arguments['name']}"
                upload.send(sent_from, staging, upload.missing(sizes, result.get("files")), self._execute)
                result = super().run(tmp, task_vars)
        except (StopError, OSError) as error:
            return {**stops.as_result(Stop(f"{self._host}: {error}", f"{STAGE} --limit {self._host}")), "failed": True}
        if result.get("code") == Result.UPLOAD:
            wrong = ", ".join(sorted(result["files"])[:3])
            stop = Stop(f"{self._host}: {wrong} arrived damaged {SENDINGS} times", f"{STAGE} --limit {self._host}")
            return {**result, **stops.as_result(stop), "failed": True}
        if arguments.get("verb") == "warm":
            return as_warning(self._host, result)
        return result

    def _execute(self, command: str, piece: bytes) -> tuple[int, bytes, bytes]:
        connection = self._connection
        found: tuple[int, bytes, bytes] = connection.exec_command(
            ansible_internals.privileged(connection, command), in_data=piece, sudoable=bool(connection.become)
        )
        return found

    def next_round(self, result: Values) -> Values:
        return {"ticket": str(result.get("ticket", ""))}

    def stop(self, result: Values, seconds: float) -> Stop:
        return why(self._host, Result(result["code"]), str(result["reason"]), seconds)


def _folder_here(arguments: Mapping[str, Any]) -> Path | None:
    """The folder of this controller that a model is sent from; None for every other source."""
    if arguments.get("verb") != "stage":
        return None
    found = source.parse(str(arguments.get("source", "")), str(arguments.get("revision") or "main"))
    return Path(found.place) if found.kind is Kind.CONTROLLER else None


def as_warning(host: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of ``warm``, which only saves time: what kept it from reading is a warning, and never a failure."""
    reason = str(result.get("msg") or result.get("reason") or "")
    warned = {"warnings": [f"{host}: {reason}"]} if result.get("failed") and not result.get("unreachable") else {}
    return {**result, "failed": False, "msg": f"{host}: {reason}" if reason else "", **warned}


def why(host: str, code: Result, reason: str, seconds: float) -> Stop:
    """What a failure says, and what to type."""
    again = f"{STAGE} --limit {host}"
    if code is Result.DEADLINE:
        cause = f"{host}: not done after {seconds:.0f} s ({reason}); it goes on there until its own deadline (model_deadline)"
        return Stop(cause, again)
    if code is Result.NO_ROOM:
        return Stop(f"{host}: {reason}", PRUNE)
    if code is Result.REFUSED:
        return Stop(f"{host}: {reason}: the hub wants another token (vllm_server_hub_token)", again)
    if code is Result.DAMAGED:
        return Stop(f"{host}: {reason}. What is damaged is fetched again by", again)
    return Stop(f"{host}: {reason}", again)
